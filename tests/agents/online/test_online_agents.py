"""SAC, TD3 and PPO on environments whose values are known, and the parts that are easy to get wrong."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg import envs, losses, networks
from jaxrl_reg.agents import ppo, sac, td3
from jaxrl_reg.envs import Outcome, environment, gridworld, probe, time_limit
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.loops.online import online
from jaxrl_reg.policies import categorical, gaussian
from jaxrl_reg.transforms import anchored
from jaxrl_reg.types import Env, Spec, Transition, as_float32, pytree, setting

SPEC = Spec(1, 1, 5)
HIDDEN = (16, 16)
GAMMA = 0.8
OBSERVATIONS = {"1": [0.0], "2": [-1.0, 1.0], "3": [0.0, 1.0], "4": [0.0], "5": [-1.0, 1.0], "endless": [0.0]}
ACTIONS = [-0.6, 0.0, 0.4, 0.8]


def endless():
    """One state, reward 1 for ever, cut after 5 steps: worth 1 / (1 - gamma), unless a time-out counts as an end."""

    def reset(key):
        return Outcome(jnp.zeros(()), jnp.zeros(1))

    def step(nothing, action, key):
        return Outcome(nothing, jnp.zeros(1), 1.0)

    return time_limit(environment(reset, step, Spec(1, 1), "endless"), 5)


def all_probes(index):
    """The environment number ``index`` of OBSERVATIONS, which may be traced: one compilation serves all six."""
    members = [endless() if name == "endless" else envs.make(f"probe/{name}") for name in OBSERVATIONS]

    def reset(key):
        return jax.lax.switch(index, [env.reset for env in members], key)

    def step(state, action):
        return jax.lax.switch(index, [env.step for env in members], state, action)

    return Env(reset, step, SPEC, "probes")


def train(agent, hyper, **settings):
    """Final agent states of all six, stacked. One program for all."""

    def one(index, key):
        return online(agent, all_probes(index), **settings)(key, hyper)[0].agent

    count = len(OBSERVATIONS)
    return jax.device_get(jax.jit(jax.vmap(one))(jnp.arange(count), jax.random.split(jax.random.key(0), count)))


def known(name, observation, action):
    if name == "endless":
        worth = jnp.full(observation.shape[:-1], 1.0 / (1.0 - GAMMA))
        return probe.ProbeValues(worth, worth, jnp.full_like(worth, jnp.nan))
    return probe.probe_values(name, observation, action, GAMMA)


def check_actions(act, state, hyper, name, tolerance):
    observation = jnp.asarray(OBSERVATIONS[name])[:, None]
    best = known(name, observation, observation).best_action
    action = act(state, observation, hyper, jax.random.key(0), False)[..., 0]
    assert ((jnp.abs(action - best) < tolerance) | jnp.isnan(best)).all(), (name, action, best)


@pytest.mark.parametrize("module", [sac, td3])
def test_off_policy_agents_find_the_known_values(module):
    hyper = {"actor_learning_rate": 3e-3, "critic_learning_rate": 1e-2, "discount": GAMMA, "tau": 0.05}
    if module is sac:  # next to no entropy bonus: the known values have none
        config = sac.Config(hidden=HIDDEN, initial_temperature=1e-3)
        hyper = as_float32(sac.Hyper(**hyper, temperature_learning_rate=0.0))
    else:
        config, hyper = td3.Config(hidden=HIDDEN), as_float32(td3.Hyper(**hyper))
    agent = module.make(config, SPEC)
    states = train(agent, hyper, steps=1_000, num_envs=2, updates=4, batch_size=64, warmup=200)
    apply, act = jax.jit(networks.q_network(SPEC, HIDDEN, 2).apply), jax.jit(agent.act, static_argnums=4)
    for i, name in enumerate(OBSERVATIONS):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        grid = jnp.asarray([(o, a) for o in OBSERVATIONS[name] for a in ACTIONS])
        want = known(name, grid[:, :1], grid[:, 1:]).q_value
        got = apply(state.critic.params, grid[:, :1], grid[:, 1:])
        tolerance = 0.15 if name != "endless" else 0.5  # the time-out counted as an end would give less than 3.4 of 5
        np.testing.assert_allclose(got, jnp.stack([want, want]), atol=tolerance, err_msg=f"{module.__name__} {name}")
        check_actions(act, state, hyper, name, 0.1)


def test_ppo_finds_the_known_values():
    config = ppo.Config(hidden=HIDDEN, epochs=4, minibatches=4)
    hyper = as_float32(ppo.Hyper(actor_learning_rate=1e-3, value_learning_rate=1e-2, discount=GAMMA))
    agent = ppo.make(config, SPEC)
    states = train(agent, hyper, steps=16 * 16 * 40, num_envs=16, unroll=16)
    value = networks.value_network(SPEC, HIDDEN, activation="tanh", init="orthogonal")
    act = jax.jit(agent.act, static_argnums=4)
    for i, name in enumerate(OBSERVATIONS):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        observation = jnp.asarray(OBSERVATIONS[name])[:, None]
        seen = state.statistics
        standard = jnp.clip((observation - seen.mean) / jnp.sqrt(seen.variance + 1e-8), -10.0, 10.0)
        want = known(name, observation, observation).value
        tolerance = 0.1 if name != "endless" else 0.3
        np.testing.assert_allclose(value.apply(state.value.params, standard), want, atol=tolerance, err_msg=name)
        check_actions(act, state, hyper, name, 0.1)


def test_ppo_walks_through_a_grid_with_a_choice_of_moves():
    """Two rooms with a door: the shortest way is 7 steps."""
    env = gridworld.make("S..#.\n...#.\n.....\n...#G", episode_length=30)
    config = ppo.Config(hidden=HIDDEN, epochs=4, minibatches=4)
    agent = ppo.make(config, env.spec)
    hyper = as_float32(ppo.Hyper(actor_learning_rate=3e-3, value_learning_rate=1e-2, discount=0.9, entropy_coef=0.01))
    run = online(agent, env, steps=16 * 32 * 30, num_envs=16, unroll=32, evaluate=evaluator(env, 4))
    state, history = jax.jit(run)(jax.random.key(0), hyper)
    assert float(history["eval/length"][-1]) == 7.0
    first = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 16)).observation
    explored = agent.act(state.agent, first, hyper, jax.random.key(1), True)
    np.testing.assert_array_equal(np.sort(explored, -1), np.broadcast_to([-1.0, -1.0, -1.0, 1.0], (16, 4)))
    assert 0.0 < float(history["entropy"][-1]) < np.log(4)


def test_ppos_entropy_over_choices_is_exact():
    spec = Spec(1, 3, discrete=True)
    agent = ppo.make(ppo.Config(hidden=(8,), epochs=1, minibatches=2, normalise=False), spec)
    hyper = as_float32(ppo.Hyper(actor_learning_rate=0.0, value_learning_rate=0.0))
    state, batch = jax.jit(agent.init)(jax.random.key(0), hyper), trajectory(jax.random.key(1))
    state = state._replace(actor=state.actor._replace(params=jax.tree.map(lambda x: 300.0 * x, state.actor.params)))
    batch = dataclasses.replace(batch, action=jax.random.uniform(jax.random.key(2), (4, 3, 3), minval=-1.0))
    _, metrics = jax.jit(agent.update)(state, batch, hyper, jax.random.key(2), jnp.int32(0))
    policy = categorical.coded(spec, (8,), activation="tanh", init="orthogonal", final_scale=0.01)
    p = jax.nn.softmax(policy.apply(state.actor.params, batch.observation))
    expected = -(p * jnp.log(p)).sum(-1).mean()
    assert float(expected) < 1.0, "far from uniform"
    np.testing.assert_allclose(metrics["entropy"], expected, rtol=1e-5)
    assert float(metrics["clipped"]) == 0.0


def test_advantages_by_hand_through_a_time_out_and_a_termination():
    # One environment, 4 steps: a time-out after the second, a termination after the fourth. gamma 0.5, lambda 0.5.
    reward = jnp.array([1.0, 2.0, 3.0, 4.0])[:, None]
    value = jnp.array([10.0, 20.0, 30.0, 40.0])[:, None]
    next_value = jnp.array([20.0, 60.0, 40.0, 99.0])[:, None]  # 60: the state before the reset, not the 30 after it
    discount = jnp.array([1.0, 1.0, 1.0, 0.0])[:, None]
    last = jnp.array([0.0, 1.0, 0.0, 1.0])[:, None]
    delta = [1 + 10 - 10, 2 + 30 - 20, 3 + 20 - 30, 4 - 40]
    want = [delta[0] + 0.25 * delta[1], delta[1], delta[2] + 0.25 * delta[3], delta[3]]
    got = losses.generalised_advantage_estimation(reward, value, next_value, discount, last, 0.5, 0.5)
    np.testing.assert_allclose(got[:, 0], want)


@functools.partial(jax.jit, static_argnums=(1, 2))
def trajectory(key, length=4, envs=3):
    keys = jax.random.split(key, 4)
    observation = 5.0 + 3.0 * jax.random.normal(keys[0], (length, envs, 1))
    action = jax.random.uniform(keys[1], (length, envs, 1), minval=-1.0)
    reward = jax.random.normal(keys[2], (length, envs))
    following = jax.random.normal(keys[3], (length, envs, 1))
    return Transition(observation, action, reward, jnp.ones_like(reward), following, jnp.zeros_like(reward))


def test_ppo_starts_from_the_policy_that_acted_and_then_takes_in_the_observations():
    agent = ppo.make(ppo.Config(hidden=(8,), epochs=2, minibatches=2), SPEC)
    # Nothing is learned, so the ratio must stay 1, although the observation statistics change at each update.
    hyper = as_float32(ppo.Hyper(actor_learning_rate=0.0, value_learning_rate=0.0))
    state, update = jax.jit(agent.init)(jax.random.key(0), hyper), jax.jit(agent.update)
    act = jax.jit(lambda state, observation: agent.act(state, observation, hyper, jax.random.key(1), True))
    seen = []
    for i in range(2):
        batch = trajectory(jax.random.key(i))
        before = act(state, batch.observation)
        state, metrics = update(state, batch, hyper, jax.random.key(i), jnp.int32(i))
        assert float(metrics["clipped"]) == 0.0
        assert abs(float(metrics["approximate_kl"])) < 1e-6
        seen.append(np.asarray(batch.observation).ravel())
        assert not np.allclose(before, act(state, batch.observation), atol=1e-4), "act must use the new statistics"
    seen = np.concatenate(seen)
    np.testing.assert_allclose(state.statistics.mean, seen.mean(), rtol=1e-3)
    np.testing.assert_allclose(state.statistics.variance, seen.var(), rtol=1e-2)
    np.testing.assert_allclose(state.statistics.count, 24, rtol=1e-4)


def test_ppo_sees_every_row_once_in_each_pass():
    # Nothing is learned, so the means over equal parts are those over all rows, if none is left out or seen twice.
    hyper = as_float32(ppo.Hyper(actor_learning_rate=0.0, value_learning_rate=0.0))
    agent = ppo.make(ppo.Config(hidden=(8,), epochs=3, minibatches=4, normalise=False), SPEC)
    state, batch = jax.jit(agent.init)(jax.random.key(0), hyper), trajectory(jax.random.key(1))
    _, metrics = jax.jit(agent.update)(state, batch, hyper, jax.random.key(2), jnp.int32(0))
    value = networks.value_network(SPEC, (8,), activation="tanh", init="orthogonal")
    rows = jax.jit(value.apply)(state.value.params, batch.observation)
    assert np.std(rows) > 0.01
    np.testing.assert_allclose(metrics["v"], np.mean(rows), rtol=1e-5)


def test_ppos_entropy_bonus_is_that_of_actions_drawn_anew():
    agent = ppo.make(ppo.Config(hidden=(8,), epochs=1, minibatches=1, normalise=False), SPEC)
    batch, key = trajectory(jax.random.key(0)), jax.random.key(3)
    batch = dataclasses.replace(batch, observation=jnp.full_like(batch.observation, 0.7))  # rows may change places
    update, moments = jax.jit(agent.update), []
    for weight in (0.0, 0.5):
        hyper = as_float32(ppo.Hyper(entropy_coef=weight, max_grad_norm=1e6))
        state = jax.jit(agent.init)(jax.random.key(1), hyper)
        after, _ = update(state, batch, hyper, key, jnp.int32(0))
        moments.append(optax.tree_utils.tree_get(after.actor.opt_state, "mu"))
    policy = gaussian.squashed(SPEC, (8,), activation="tanh", init="orthogonal", final_scale=0.01)
    _, parts_key = jax.random.split(jax.random.split(key, 1)[0])

    def drawn(params):
        return policy.sample(params, jnp.full((12, 1), 0.7), jax.random.split(parts_key, 1)[0])[1].mean()

    expected = jax.jit(jax.grad(drawn))(state.actor.params)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected)) > 0.01
    for expect, off, on in zip(*map(jax.tree.leaves, (expected, *moments)), strict=True):  # a tenth of the gradient
        np.testing.assert_allclose((on - off) * 10 / 0.5, expect, rtol=1e-3, atol=1e-5)


@pytree
class Anchored(ppo.Hyper):
    anchor: float = setting(default=0.0, help="weight of the divergence from the prior")


def test_ppo_can_be_held_to_a_prior():
    """VPT's penalty: the policy goes where the prior is, which sees raw observations, and the weight may decay."""

    def prior(observation):
        return 0.1 * observation - 0.5, jnp.full_like(observation, -1.0)

    def distance(distribution, observation, hyper, step):
        return hyper.anchor * 0.5**step * losses.gaussian_kl(*prior(observation), *distribution)

    agent = ppo.make(ppo.Config(hidden=(16,), epochs=10, minibatches=2), SPEC, distance)
    hyper = as_float32(Anchored(actor_learning_rate=1e-2, anchor=30.0, clip=10.0, max_grad_norm=100.0))
    update, batch = jax.jit(agent.update), trajectory(jax.random.key(0), 16, 4)
    found = {}
    for step in (0, 40):
        state = jax.jit(agent.init)(jax.random.key(0), hyper)
        for i in range(25):
            state, metrics = update(state, batch, hyper, jax.random.key(i), jnp.int32(step))
        mode = agent.act(state, batch.observation, hyper, jax.random.key(0), False)
        found[step] = float(jnp.abs(mode - jnp.tanh(prior(batch.observation)[0])).mean()), float(metrics["penalty"])
    assert found[0][0] < 0.1
    assert found[0][1] < 30 * 0.05
    assert found[40][0] > 0.2
    assert found[40][1] < 1e-3


def test_ppo_refuses_rows_that_do_not_divide_and_batches_without_time():
    agent, hyper = ppo.make(ppo.Config(hidden=(8, 8), minibatches=5), SPEC), as_float32(ppo.Hyper())
    state = jax.eval_shape(agent.init, jax.random.key(0), hyper)
    with pytest.raises(UserError, match=r"minibatches=5 parts, got \(4, 3\)"):
        agent.update(state, trajectory(jax.random.key(0)), hyper, jax.random.key(0), jnp.int32(0))
    flat = jax.tree.map(lambda leaf: leaf[0], trajectory(jax.random.key(0), envs=5))
    with pytest.raises(UserError, match="trajectories"):
        agent.update(state, flat, hyper, jax.random.key(0), jnp.int32(0))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_td3_moves_the_actor_and_all_targets_only_every_other_update():
    agent, hyper = td3.make(td3.Config(hidden=(8,)), SPEC), as_float32(td3.Hyper())
    state = jax.jit(agent.init)(jax.random.key(0), hyper)
    batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trajectory(jax.random.key(0)))
    update = jax.jit(agent.update)
    for step, moves in [(0, True), (1, False), (2, True)]:
        new, _ = update(state, batch, hyper, jax.random.key(step), jnp.int32(step))
        assert not same(new.critic.params, state.critic.params)
        for part in ("actor", "target_actor", "target_critic"):
            assert same(getattr(new, part), getattr(state, part)) != moves, (part, step)


def test_sac_temperature_rises_below_the_target_entropy_and_falls_above():
    agent = sac.make(sac.Config(hidden=(8,)), SPEC)
    batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trajectory(jax.random.key(0)))
    init, update = jax.jit(agent.init), jax.jit(agent.update)
    for factor, sign in [(-20.0, 1.0), (20.0, -1.0)]:  # target entropy +20 or -20 nats
        hyper = as_float32(sac.Hyper(target_entropy_factor=factor))
        state, _ = update(init(jax.random.key(0), hyper), batch, hyper, jax.random.key(1), jnp.int32(0))
        assert np.sign(state.log_temperature.params) == sign


@pytest.mark.parametrize("name", ["ppo", "sac", "td3"])
def test_a_transform_holds_the_actor_and_nothing_else(name):
    """A pull so strong that Adam only ever steps towards the anchor: the actor ends there, the critic goes on."""
    module = {"ppo": ppo, "sac": sac, "td3": td3}[name]
    small = {"hidden": (8,)} | ({"epochs": 1, "minibatches": 1} if name == "ppo" else {})
    hyper = as_float32(module.Hyper(actor_learning_rate=1e-2))
    start = module.make(module.Config(**small), SPEC).init(jax.random.key(0), hyper)
    anchor = jax.tree.map(lambda leaf: leaf + 0.02, start.actor.params)

    def given(hyper):
        return anchored(anchor, 1e6 * hyper.actor_learning_rate)

    batch = trajectory(jax.random.key(0), 16, 4)
    batch = batch if name == "ppo" else jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    states = {}
    for held, transform in (("free", None), ("held", anchored(anchor, 1e4) if name == "td3" else given)):
        agent = module.make(module.Config(**small), SPEC, transform=transform)
        update, state = jax.jit(agent.update), agent.init(jax.random.key(0), hyper)
        for i in range(2):
            state, _ = update(state, batch, hyper, jax.random.key(i), jnp.int32(2 * i))
        states[held] = state
    off = {held: optax.tree.norm(optax.tree.sub(s.actor.params, anchor)) for held, s in states.items()}
    assert off["held"] < 0.1 * off["free"]
    if name == "ppo":  # its value knows nothing of the actor
        jax.tree.map(np.testing.assert_array_equal, states["free"].value, states["held"].value)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_off_policy_actors_pay_a_penalty_on_what_they_say(name):
    module = {"sac": sac, "td3": td3}[name]
    seen = []

    def penalty(distribution, observation, hyper, step):
        mean, log_std = distribution
        seen.append((mean.shape, log_std.shape, observation.shape))
        return 1e4 * jnp.square(mean - 0.3).sum(axis=-1)

    agent = module.make(module.Config(hidden=(16,)), SPEC, penalty=penalty)
    hyper = as_float32(module.Hyper(actor_learning_rate=1e-2))
    rows = trajectory(jax.random.key(0), 16, 4)
    batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)
    state, update = agent.init(jax.random.key(0), hyper), jax.jit(agent.update)
    for i in range(150):
        state, metrics = update(state, batch, hyper, jax.random.key(i), jnp.int32(2 * i))
    mean, log_std = agent.distribution(state, state.actor.params, batch.observation)
    assert float(jnp.abs(mean - 0.3).max()) < 0.1
    assert float(metrics["penalty"]) < 100
    assert seen[0] == ((64, SPEC.action_dim), (64, SPEC.action_dim), (64, SPEC.observation_dim))
    if name == "td3":
        np.testing.assert_allclose(jnp.exp(log_std), 0.1, rtol=1e-5)
        still = td3.make(td3.Config(hidden=(16,), exploration_noise=0.0), SPEC)
        with pytest.raises(UserError, match="exploration_noise"):
            still.distribution(state, state.actor.params, batch.observation)
