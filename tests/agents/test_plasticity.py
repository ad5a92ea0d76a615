"""Switches against the loss of plasticity: each against its definition, off costs nothing, all pass the contract."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, contract
from jaxrl_reg.agents import _critics, _resets, _switches, ppo, sac, td3
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import as_float32
from tests.agents import reference as ref

KEY = jax.random.key(1)
LR = 1e-2
# As few programs as there are structures: terms of losses and pieces of networks stand side by side in one.
EVERYTHING = {
    "critic_layer_norm": "before",
    "critic_feature_norm": "simplex",
    "critic_spectral": "penultimate",
    "critic_weight_decay": 0.01,
    "pull_to_start": 0.01,
    "dr3": 0.1,
    "initial_features": 0.1,
    "churn": 0.1,
    "policy_churn": 0.1,
    "redo_period": 3,
    "reset_period": 5,
    "reset_shrink": 0.6,
    "reset_perturb": 0.4,
}
CHECKS = ["jit", "state", "branches", "checkpoint"]


@pytest.mark.parametrize("name", ["sac", "td3", "ppo"])
def test_everything_switched_on_passes_the_contract(name):
    config = EVERYTHING
    if name == "ppo":  # its names of the same, and nothing that it bootstraps features from
        config = {**config, "layer_norm": config["critic_layer_norm"], "dr3": 0.0, "epochs": 2, "minibatches": 2}
        del config["critic_layer_norm"]
    results = contract.check_agent(name, config=config, checks=CHECKS)
    assert [(result.check, result.message) for result in results if not result.passed] == []


BODY = {"critic_body": "simba", "pull_to_start": 0.01, "initial_features": 0.1, "reset_period": 5, "churn": 0.1}
MIXED = {"reset_shrink": 0.6, "reset_perturb": 0.4}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("ppo", {"replacement_rate": 0.1, "reset_period": 5, "epochs": 1, "minibatches": 2, "measure_features": True}),
        ("rnd", {"replacement_rate": 0.1, "reset_period": 5}),
        ("a2pr", {"replacement_rate": 0.1, "reset_period": 5, "measure_features": True}),
        ("ppo", {**BODY, **MIXED, "epochs": 1, "minibatches": 2, "layer_norm": "every", "measure_features": True}),
        ("sac", {**BODY, **MIXED, "beer": 0.1, "dr3": 0.1, "critic_weight_decay": 0.1, "measure_features": True}),
        ("rebrac", {**BODY, "critic_body": "bro"}),
    ],
)
def test_states_keep_their_shapes(name, config):
    """Nothing is compiled: where units are replaced and where critics are made of blocks, a state stays one."""
    module = agents.load(name)
    agent = module.make(module.Config(**{"hidden": (8, 8), **config}), ref.SPEC)
    hyper, batch = as_float32(module.Hyper()), ref.batch()
    if name == "ppo":
        batch = jax.tree.map(lambda x: x.reshape(2, ref.B // 2, *x.shape[1:]), batch)
    state = jax.eval_shape(agent.init, KEY, hyper)
    after, _ = jax.eval_shape(agent.update, state, batch, hyper, KEY, jax.ShapeDtypeStruct((), jnp.int32))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    shapes = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (state, after))
    assert jax.tree.leaves(next(shapes)) == jax.tree.leaves(next(shapes))
    if config.get("measure_features"):
        found = jax.eval_shape(agent.measure, state, batch, hyper, KEY)
        assert {"srank", "dormant", "kernel_norm", "feature_norm"} <= set(found)
        assert all(leaf.shape == () for leaf in jax.tree.leaves(found))


def test_what_is_off_leaves_no_leaf():
    for module in (sac, td3, ppo):
        state = jax.eval_shape(module.make(module.Config(hidden=(8,)), ref.SPEC).init, KEY, as_float32(module.Hyper()))
        assert jax.tree.leaves(state.kept) == []


@pytest.fixture(scope="module")
def steps():
    """TD3 with every term of the critics' loss, three updates: states before and after, and metrics."""
    config = td3.Config(
        hidden=ref.HIDDEN, policy_freq=1, dr3=0.1, initial_features=0.2, churn=0.3, policy_churn=0.4, pull_to_start=0.5
    )
    agent = td3.make(config, ref.SPEC)
    hyper = as_float32(td3.Hyper(critic_learning_rate=LR, actor_learning_rate=LR, target_noise=0.0))
    update, states, found = quick(agent.update), [agent.init(jax.random.key(0), hyper)], []
    for step in range(3):
        state, metrics = update(states[-1], ref.batch(step), hyper, KEY, jnp.int32(step))
        states.append(state)
        found.append({name: float(value) for name, value in metrics.items()})
    return states, found


def critics(params, observation, action):
    """Values ``[2, B]`` and features ``[2, B, H]`` in NumPy."""
    x = np.concatenate([observation, action], -1)
    outputs = [ref.forward(ref.member(ref.as64(params), i), x) for i in range(2)]
    return np.stack([y[:, 0] for y, _ in outputs]), np.stack([inputs[-1] for _, inputs in outputs])


def test_terms_of_the_critics_equal_numpy(steps):
    states, found = steps
    state, metrics, batch = states[1], found[1], ref.as64(ref.batch(1))
    values, features = critics(state.critic.params, batch.observation, batch.action)
    following = np.tanh(ref.forward(ref.as64(state.target_actor), batch.next_observation)[0])
    next_q, _ = critics(state.target_critic, batch.next_observation, following)
    target = batch.reward + 0.99 * batch.discount * next_q.min(0)
    half = ref.B // 2
    error = np.square(values - target)[:, :half]  # the second half is kept for the change
    np.testing.assert_allclose(metrics["critic_loss"], error.mean(-1).sum(), rtol=1e-4)

    _, after = critics(state.critic.params, batch.next_observation, following)  # the online critics, not the targets
    product = np.abs((features * after).sum(-1)) * batch.discount
    np.testing.assert_allclose(metrics["dr3"], product.mean(-1).sum(), rtol=1e-4)

    before, _ = critics(states[0].critic.params, batch.observation, batch.action)
    churn = np.square(values - before)[:, half:].mean(-1).sum()
    assert churn > 1e-5
    np.testing.assert_allclose(metrics["churn"], churn, rtol=1e-3)

    _, first = critics(states[0].critic.params, batch.observation, batch.action)
    old = first @ ref.as64(states[0].critic.params["heads"]["kernel"])
    new = features @ ref.as64(state.critic.params["heads"]["kernel"])
    moved = np.square((new - old) / (old.std(-2, keepdims=True) + 1e-6)).mean(-1)
    np.testing.assert_allclose(metrics["initial_features"], moved.mean(-1).sum(), rtol=1e-3)


def test_the_policy_is_held_to_what_it_was_an_update_before(steps):
    states, found = steps
    rows = ref.as64(ref.batch(2)).observation[ref.B // 2 :]
    new, old = (np.tanh(ref.forward(ref.as64(s.actor.params), rows)[0]) for s in (states[2], states[1]))
    expected = np.square(new - old).mean()
    assert expected > 1e-6
    np.testing.assert_allclose(found[2]["policy_churn"], expected, rtol=1e-3)
    for name in ("policy_churn", "churn", "initial_features"):
        assert found[0][name] < 1e-9, name  # nothing has moved


def test_the_pull_is_on_layers_alone(steps):
    states, _ = steps
    assert set(states[0].kept.start) == set(states[0].critic.params)
    for state in states[1:]:
        for old, new in zip(jax.tree.leaves(states[0].kept.start), jax.tree.leaves(state.kept.start), strict=True):
            np.testing.assert_array_equal(old, new)  # it never moves


def agent_of(**config):
    return td3.make(td3.Config(hidden=ref.HIDDEN, **config), ref.SPEC)


def test_decay_shrinks_kernels_alone():
    hyper = as_float32(td3.Hyper(critic_learning_rate=0.1))
    state = agent_of().init(KEY, hyper)
    made = [quick(agent_of(**c).update) for c in ({}, {"critic_weight_decay": 0.5})]
    plain, decayed = (update(state, ref.batch(), hyper, KEY, jnp.int32(0))[0].critic.params for update in made)
    for name, layer in state.critic.params.items():
        kernel = np.asarray(plain[name]["kernel"]) - 0.1 * 0.5 * np.asarray(layer["kernel"])
        np.testing.assert_allclose(decayed[name]["kernel"], kernel, atol=1e-6)
        np.testing.assert_allclose(decayed[name]["bias"], plain[name]["bias"], atol=1e-6)


def test_a_reset_is_a_new_agent_with_its_first_weights_kept():
    hyper = as_float32(td3.Hyper())
    agent = agent_of(reset_period=3, churn=0.1, initial_features=0.1)
    update = quick(agent.update)
    state = first = agent.init(KEY, hyper)
    for step in range(6):
        before, (state, _) = (
            state,
            update(state, ref.batch(step), hyper, jax.random.fold_in(KEY, step), jnp.int32(step)),
        )
        fresh = int(state.critic.opt_state[0].count) == 0
        assert fresh == (step in (2, 5)), step  # after three updates and after six, not at the first
    assert np.abs(state.critic.params["Dense_0"]["kernel"] - before.critic.params["Dense_0"]["kernel"]).max() > 0.01
    assert np.abs(state.critic.params["Dense_0"]["kernel"] - first.critic.params["Dense_0"]["kernel"]).max() > 0.01
    same = [
        (state.critic.params, state.target_critic),
        (state.actor.params, state.target_actor),
        (state.critic.params, state.kept.previous),
        (first.critic.params, state.kept.start),
    ]
    for one, other in same:
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_shrink_and_perturb_mixes_layers_and_leaves_the_rest():
    config = sac.Config(hidden=(8,), critic_layer_norm="every", reset_period=1, reset_shrink=0.6, reset_perturb=0.4)
    agent = sac.make(sac.Config(hidden=(8,), critic_layer_norm="every"), ref.SPEC)
    old, new = (jax.jit(agent.init)(jax.random.key(i), as_float32(sac.Hyper())) for i in (0, 1))
    old = old._replace(log_temperature=old.log_temperature._replace(params=jnp.float32(-2.0)))
    mixed = _resets.reset(config, old, new)
    was, now, fresh = (s.critic.params["Dense_0"]["kernel"] for s in (old, mixed, new))
    np.testing.assert_allclose(now, 0.6 * was + 0.4 * fresh, rtol=1e-6)
    np.testing.assert_array_equal(
        mixed.critic.params["LayerNorm_0"]["scale"], old.critic.params["LayerNorm_0"]["scale"]
    )
    np.testing.assert_array_equal(mixed.target_critic["Dense_0"]["kernel"], now)
    assert mixed.log_temperature.params == -2.0


def test_redo_draws_dead_units_of_the_critics_anew():
    hyper = as_float32(td3.Hyper(critic_learning_rate=0.0))
    agent = agent_of(redo_period=2)
    state = agent.init(KEY, hyper)
    first = dict(state.critic.params["Dense_0"])
    first["bias"] = first["bias"].at[1, 3].set(-100.0)  # unit 3 of the second critic never fires
    state = state._replace(critic=state.critic._replace(params={**state.critic.params, "Dense_0": first}))
    update = quick(agent.update)
    same, _ = update(state, ref.batch(), hyper, KEY, jnp.int32(0))
    np.testing.assert_array_equal(same.critic.params["Dense_0"]["bias"], first["bias"])  # not yet
    found, _ = update(same, ref.batch(), hyper, KEY, jnp.int32(1))
    params, moments = found.critic.params, found.critic.opt_state[0]
    assert params["Dense_0"]["bias"][1, 3] == 0.0
    np.testing.assert_array_equal(params["Dense_1"]["kernel"][1, 3], 0.0)
    assert np.abs(params["Dense_0"]["kernel"][1, :, 3] - first["kernel"][1, :, 3]).max() > 0.01
    np.testing.assert_array_equal(moments.mu["Dense_0"]["kernel"][1, :, 3], 0.0)
    assert np.abs(moments.mu["Dense_0"]["kernel"][0]).max() > 0.0


def test_continual_backprop_draws_the_least_useful_unit_of_the_critics_anew():
    """Two layers of 8 and a rate of 1 / 8: after 100 updates of youth, one unit of each layer in every update."""
    hyper = as_float32(td3.Hyper(critic_learning_rate=0.0))
    agent = agent_of(replacement_rate=0.125)
    state = agent.init(KEY, hyper)
    last = state.critic.params["Dense_2"]["kernel"].at[1, 5].set(0.0)  # nothing comes of unit 5 of the second critic
    state = state._replace(
        critic=state.critic._replace(
            params={**state.critic.params, "Dense_2": {"kernel": last, "bias": state.critic.params["Dense_2"]["bias"]}}
        )
    )
    update, batch = quick(agent.update), ref.batch()
    young, _ = update(state, batch, hyper, KEY, jnp.int32(0))
    for one, other in zip(jax.tree.leaves(young.critic.params), jax.tree.leaves(state.critic.params), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(young.kept.usage[1].age, 1.0)
    grown = tuple(one._replace(age=jnp.full_like(one.age, 100.0)) for one in young.kept.usage)
    old = young._replace(kept=young.kept._replace(usage=grown))
    found, _ = update(old, batch, hyper, KEY, jnp.int32(1))
    ages = np.asarray(found.kept.usage[1].age)
    assert (ages == 0).sum(axis=1).tolist() == [1, 1]
    assert ages[1, 5] == 0
    before, after = (s.critic.params["Dense_1"]["kernel"] for s in (young, found))
    moved = np.abs(np.asarray(after - before)[1]).max(axis=0) > 1e-3
    assert moved[5]
    values = [
        critics(s.critic.params, np.asarray(batch.observation), np.asarray(batch.action))[0] for s in (young, found)
    ]
    assert np.abs(values[0] - values[1]).max() < 0.5 * np.abs(values[0]).max()  # the mean output stays in the bias


def test_a_critic_of_spectral_norm_one():
    agent = agent_of(critic_spectral="penultimate")
    hyper = as_float32(td3.Hyper(critic_learning_rate=LR))
    state, update = agent.init(KEY, hyper), quick(agent.update)
    for step in range(3):
        state, _ = update(state, ref.batch(step), hyper, KEY, jnp.int32(step))
    kernel = np.asarray(state.critic.params["Dense_1"]["kernel"], np.float64)
    u = np.asarray(state.critic.params["spectral"]["Dense_1"], np.float64)
    top = np.linalg.svd(kernel, compute_uv=False)[:, 0]
    np.testing.assert_allclose(np.linalg.norm(np.einsum("nio,no->ni", kernel, u), axis=-1), top, rtol=0.02)
    divided = {**ref.as64(state.critic.params)}
    divided["Dense_1"] = {**divided["Dense_1"], "kernel": kernel / top[:, None, None]}
    batch = ref.batch()
    expected, _ = critics({n: p for n, p in divided.items() if n != "spectral"}, batch.observation, batch.action)
    grad_free = jax.grad(lambda u: jnp.sum(agent_value(agent, state, u, batch)))(state.critic.params["spectral"])
    np.testing.assert_array_equal(grad_free["Dense_1"], 0.0)
    found = agent_value(agent, state, state.critic.params["spectral"], batch)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02)


def agent_value(agent, state, u, batch):
    """Values of critics of spectral norm 1 with the vectors ``u``."""
    q = _critics.critics(td3.Config(hidden=ref.HIDDEN, critic_spectral="penultimate"), ref.SPEC, ref.HIDDEN)
    return q.apply({**state.critic.params, "spectral": u}, batch.observation, batch.action)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"critic_spectral": "penultmate"}, "penultimate"),
        ({"critic_feature_norm": "simplx"}, "simplex"),
        ({"churn": -1.0}, "churn=-1.0 must not be below 0"),
        ({"reset_shrink": 0.5}, "set reset_period too"),
        ({"replacement_rate": 2.0}, "share of units; give at most 1"),
        ({"replacement_rate": 1e-4, "redo_period": 10}, "take one of them"),
        ({"replacement_rate": 1e-4, "critic_spectral": "penultimate"}, "leave critic_spectral at none"),
        ({"critic_body": "simbba"}, "simba"),
        ({"critic_body": "simba", "redo_period": 10}, "has no redo_period; leave it at 0"),
        ({"critic_body": "bro", "critic_layer_norm": "every"}, "has no critic_layer_norm; leave it at none"),
        ({"critic_body": "bro", "hidden": (8, 16)}, "of one width"),
        ({"critic_feature_norm": "simplex", "hidden": (12,)}, "groups of 8"),
    ],
)
def test_bad_settings_are_named(config, words):
    def started():
        agent = agents.make("td3", ref.SPEC, **{"hidden": (8,), **config})
        return jax.eval_shape(agent.init, KEY, as_float32(td3.Hyper()))

    with pytest.raises(UserError, match=words):
        started()


def test_ppo_is_held_to_what_it_was_a_minibatch_before():
    config = ppo.Config(hidden=(8,), epochs=1, minibatches=2, churn=0.3, policy_churn=0.4)
    agent, hyper = ppo.make(config, ref.SPEC), as_float32(ppo.Hyper(actor_learning_rate=LR, value_learning_rate=LR))
    rows = jax.tree.map(lambda x: x.reshape(2, ref.B // 2, *x.shape[1:]), ref.batch())
    state, metrics = quick(agent.update)(agent.init(KEY, hyper), rows, hyper, KEY, jnp.int32(0))
    assert metrics["churn"] > 1e-6  # nothing has moved at the first minibatch, everything at the second
    assert metrics["policy_churn"] > 1e-6
    before, now = state.kept.previous_actor, state.actor.params
    step = max(float(abs(a - b).max()) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True))
    assert 0 < step < 1.5 * LR  # one step of Adam away, not two


def test_ppo_has_no_use_for_dr3():
    with pytest.raises(UserError, match="ppo has nothing that dr3 applies to; leave it"):
        agents.make("ppo", ref.SPEC, dr3=0.1)


def test_every_switch_is_a_field_of_every_agent_with_such_critics():
    names = {field.name for field in dataclasses.fields(_switches.Switches)}
    for name in ("sac", "td3", "rnd", "diayn", "ppo", "occupancy_reg", "td3_bc", "rebrac", "prdc", "a2pr"):
        assert names <= {field.name for field in dataclasses.fields(agents.load(name).Config)}
