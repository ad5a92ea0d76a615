"""BEER in critics: the penalty against NumPy, what its gradient may touch, what costs nothing, what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, contract, loops
from jaxrl_reg.agents import _beer, ppo, sac
from jaxrl_reg.contract import transitions
from jaxrl_reg.types import as_float32
from tests.agents import reference as ref
from tests.loops.toy import corridor

LR, GAMMA, BETA = 1e-2, 0.9, 0.5
# One of each that has critics of its own; EDAC, IDQL, XQL, SQL and EQL share them.
SMALL = {
    "sac_n": {"n_critics": 2},
    "cql": {"n_samples": 2},
    "awac": {},
    "iql": {},
    "diffusion_ql": {"steps": 2, "backup_candidates": 2},
    "fql": {"steps": 2, "layer_norm": "none"},
}
READ_OFF = {"dormant", "effective_rank", "feature_norm", "kernel_norm", "srank"}
MEASURES = {"bellman_violation", "feature_cosine", *READ_OFF}


def features(params, observation, action):
    """``[B, H]`` of one critic."""
    value, inputs = ref.forward(params, np.concatenate([observation, action], -1))
    return value[:, 0], inputs[-1]


def penalty(state, batch, gamma):
    """Row by row and critic by critic: what the cosine of consecutive features exceeds the bound by."""
    critic, target_critic = ref.as64(state.critic.params), ref.as64(state.target_critic)
    next_action = np.tanh(ref.forward(ref.as64(state.target_actor), batch.next_observation)[0])
    smallest = ref.q_values(target_critic, batch.next_observation, next_action).min(0)
    target = batch.reward + gamma * batch.discount * smallest
    total = 0.0
    for i in range(2):
        now = features(ref.member(critic, i), batch.observation, batch.action)[1]
        next_q, following = features(ref.member(target_critic, i), batch.next_observation, next_action)
        w, b = (ref.member(critic, i)["Dense_2"][part] for part in ("kernel", "bias"))
        for row in range(ref.B):
            x, y = now[row], following[row]
            r = target[row] - gamma * next_q[row] - (1 - gamma) * b[0]
            lengths = np.linalg.norm(x) * np.linalg.norm(y)
            bound = (x @ x + gamma**2 * y @ y - r**2 / (w**2).sum()) / (2 * gamma * lengths)
            if batch.discount[row]:
                total += max(x @ y / lengths - max(bound, -1.0), 0.0) / ref.B
    return total


def test_the_penalty_equals_numpy():
    pair = ref.Pair("td3_bc", LR, config={"beer": 0.5}, target_noise=0.0, discount=GAMMA)
    before, data = pair.state, ref.batch()
    expected = penalty(before, ref.as64(data), GAMMA)
    metrics = pair.update(data, jax.random.key(1), 0)
    assert expected > 0.1
    np.testing.assert_allclose(metrics["beer_loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(penalty(before, ref.as64(data), 0.99), expected, rtol=0.5)
    assert abs(penalty(before, ref.as64(data), 0.99) - expected) > 0.01  # so the agent's discount is seen

    plain = ref.Pair("td3_bc", LR, target_noise=0.0, discount=GAMMA)
    np.testing.assert_allclose(
        metrics["critic_loss"], plain.update(data, jax.random.key(1), 0)["critic_loss"], rtol=1e-5
    )
    extra = jax.tree.map(  # Adam's first moment is a tenth of the gradient
        lambda new, old: 10 * (new - old), pair.state.critic.opt_state[0].mu, plain.state.critic.opt_state[0].mu
    )
    for part in ("kernel", "bias"):  # w is held in the bound, so nothing reaches the last layer
        np.testing.assert_allclose(extra["Dense_2"][part], 0.0, atol=1e-6)
        assert np.abs(extra["Dense_1"][part]).max() > 1e-3


def test_rows_that_terminate_feel_nothing():
    ends = ref.batch()
    ends = type(ends)(**{**vars(ends), "discount": jnp.zeros(ref.B)})
    pair = ref.Pair("td3_bc", LR, config={"beer": 0.5}, target_noise=0.0, discount=GAMMA)
    assert pair.update(ends, jax.random.key(1), 0)["beer_loss"] == 0.0


def make(name, **config):
    return agents.make(name, ref.SPEC, hidden=ref.HIDDEN, **SMALL.get(name, {}), **config)


def made(name, **config):
    """The agent, with what its functions take."""
    agent, key, hyper = make(name, **config), jax.random.key(0), agents.load(name).Hyper()
    return agent, (jax.eval_shape(agent.init, key, hyper), ref.batch(), hyper, key)


@pytest.mark.parametrize("name", ["td3_bc", "sac", *SMALL, "idql"])
def test_what_is_off_costs_nothing(name):
    off, given = made(name, beer=0.0)  # the state is the same, whatever is on: ``update`` and ``measure`` take it
    programs = []
    for agent in (off, make(name, beer=0.1)):
        assert agent.measure is None
        programs.append(str(jax.make_jaxpr(agent.update)(*given, jnp.int32(0))))
    for word in ("sqrt", "relu"):  # lengths and the excess over the bound: not even traced
        assert programs[0].count(word) < programs[1].count(word)
    assert jax.eval_shape(make(name, measure_features=True).measure, *given).keys() == MEASURES


def apply(params, observation, action, activation):
    """``([N, B], [N, B, H])``, values and last hidden layer of both critics ``params``."""
    x = jnp.broadcast_to(jnp.concatenate([observation, action], -1), (2, ref.B, 5))
    for i in range(3):
        hidden, layer = x, params[f"Dense_{i}"]
        x = x @ layer["kernel"] + layer["bias"][:, None]
        x = activation(x) if i < 2 else x
    return x[..., 0], hidden


def length(x):
    return jnp.sqrt(jnp.square(x).sum(-1) + 1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_critics_learn_from_their_error_and_the_coefficient_times_the_loss(name, monkeypatch):
    """What the agent says follows a row is checked by itself; from it both losses are worked out anew."""
    activation = {"diffusion_ql": jax.nn.mish, "fql": jax.nn.gelu}.get(name, jax.nn.relu)
    agent, (_, data, _, key) = made(name, beer=BETA)
    changes = {"cql": {"cql_coef": 0.0}, "diffusion_ql": {"gradient_clip": 1e9}}.get(name, {})
    hyper, seen = agents.load(name).Hyper(discount=GAMMA, **changes), []

    def follow(*arguments, follow=_beer.following):
        seen.append(arguments[:3])
        return follow(*arguments)

    @jax.jit
    def updated(state):
        return agent.update(state, data, hyper, key, jnp.int32(0)), seen[-1]

    monkeypatch.setattr(_beer, "following", follow)
    state = jax.jit(agent.init)(key, hyper)
    (after, metrics), (following, next_q, target) = updated(state)
    last, own = state.target_critic["Dense_2"], (data.next_observation, data.next_action, activation)
    np.testing.assert_allclose((following @ last["kernel"] + last["bias"][:, None])[..., 0], next_q, atol=1e-5)
    if name == "iql":  # asks about the data's actions only
        np.testing.assert_allclose(following, apply(state.target_critic, *own)[1], atol=1e-5)

    def losses(params):
        values, features = apply(params, data.observation, data.action, activation)
        w, b = (jax.lax.stop_gradient(params["Dense_2"][part]) for part in ("kernel", "bias"))
        owed = target - GAMMA * next_q - (1 - GAMMA) * b
        lengths = length(features) * length(following)
        bound = length(features) ** 2 + GAMMA**2 * length(following) ** 2 - owed**2 / jnp.square(w).sum((1, 2))[:, None]
        bound = jax.lax.stop_gradient(jnp.maximum(bound / (2 * GAMMA * lengths), -1.0))
        excess = jnp.maximum((features * following).sum(-1) / lengths - bound, 0.0)
        penalty, error = (data.discount * excess).mean(-1).sum(), jnp.square(values - target).mean(-1).sum()
        return error + BETA * penalty, (error, penalty)

    (_, (error, penalty)), gradient = jax.jit(jax.value_and_grad(losses, has_aux=True))(state.critic.params)
    assert penalty > 0.01
    np.testing.assert_allclose(metrics["critic_loss"], error, rtol=1e-4)
    np.testing.assert_allclose(metrics["beer_loss"], penalty, rtol=1e-4)
    parts = jax.tree.leaves(after.critic.opt_state, is_leaf=lambda part: hasattr(part, "mu"))
    moment = next(part.mu for part in parts if hasattr(part, "mu"))  # of Adam, a tenth of the first gradient
    ref.assert_tree_close(jax.tree.map(lambda leaf: 10.0 * leaf, moment), gradient, 1e-4)


@pytest.mark.parametrize("name", ["sac", "a2pr"])
def test_an_agent_with_the_penalty_passes_the_contract(name):
    """SAC's target has an entropy bonus, which stands with the reward; A2PR's state is wrapped."""
    config = {"beer": 0.01, "measure_features": True}
    if name == "a2pr":
        config |= {"hidden": (8,)}
    checks = ["state", "members", "finite", "learns"] if name == "sac" else ["state", "finite"]
    for result in contract.check_agent(name, config=config, checks=checks):
        assert result.passed, result.message


def test_features_are_measured_once_per_segment_and_training_does_not_notice():
    data, states, histories = transitions.example(), [], []
    for measured in (False, True):
        module = agents.load("td3_bc")
        agent = module.make(module.Config(hidden=(8,), measure_features=measured), transitions.SPEC)
        run = loops.offline(agent, batch_size=16, updates=6, segments=2)
        state, history = jax.jit(run)(jax.random.key(0), module.Hyper(), data)
        states.append(state)
        histories.append(history)
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):  # two programs, which XLA may round differently
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)
    assert histories[1].keys() - histories[0].keys() == MEASURES
    found = {name: np.asarray(histories[1][name]) for name in MEASURES}
    for name, (low, high) in {
        "effective_rank": (1, 8),
        "srank": (1, 8),
        "feature_norm": (0, np.inf),
        "kernel_norm": (0.1, 10),
    }.items():
        assert found.pop(name).shape == (2,)
        assert (low <= histories[1][name]).all()
        assert (histories[1][name] <= high).all()
    assert all(((values >= 0) & (values <= 1)).all() for values in found.values())


def test_ppo_measures_its_value_on_its_latest_trajectory_and_training_does_not_notice():
    env, states, histories = corridor(), [], []
    for measured in (False, True):
        agent = ppo.make(ppo.Config(hidden=(8,), epochs=1, minibatches=2, measure_features=measured), env.spec)
        run = loops.online(agent, env, steps=16, num_envs=2, unroll=4, segments=2)
        state, history = jax.jit(run)(jax.random.key(0), as_float32(ppo.Hyper()))
        states.append(state.agent)
        histories.append(history)
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert histories[1].keys() - histories[0].keys() == READ_OFF
    params = ref.as64(states[1].value.params)
    found = np.sqrt(sum(np.square(params[f"Dense_{i}"]["kernel"]).sum() for i in range(2)))
    np.testing.assert_allclose(histories[1]["kernel_norm"][-1], found, rtol=1e-5)  # after the last update
    assert all(np.isfinite(histories[1][name]).all() for name in READ_OFF)
    assert (np.asarray(histories[1]["feature_norm"]) > 0).all()  # rows of a trajectory, not the zeros before the first


def test_online_agents_measure_what_they_replay():
    env = corridor()
    agent = sac.make(sac.Config(hidden=(8,), measure_features=True), env.spec)
    run = loops.online(agent, env, steps=8, segments=2, batch_size=4, warmup=4)
    history = jax.jit(run)(jax.random.key(0), sac.Hyper())[1]
    assert history.keys() >= MEASURES
    assert np.isfinite(history["effective_rank"]).all()
