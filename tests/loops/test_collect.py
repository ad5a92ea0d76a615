"""Collection: the replay is what happened, snapshots are what acted, and five data sets come out of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, envs
from jaxrl_reg.agents import iql, ppo, sac
from jaxrl_reg.envs import Outcome, environment, time_limit
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.loops.collect import COLLECT, DATASETS, collect, d4rl_style
from jaxrl_reg.population.programs import unless_failed
from jaxrl_reg.types import Agent, Spec, as_float32

ENVS, SEGMENTS, WARMUP, STEPS = 4, 4, 40, 160
HYPER = as_float32(sac.Hyper(actor_learning_rate=1e-2, critic_learning_rate=1e-2, discount=0.5))


def eastward():
    """The reward is the step to the right, at most 6 of them; falling off at -1.5 ends the episode."""

    def reset(key):
        start = jax.random.uniform(key, minval=-0.5, maxval=0.5)
        return Outcome(start, start[None])

    def step(position, action, key):
        position = position + action[0]
        return Outcome(position, position[None], action[0], position <= -1.5)

    return time_limit(environment(reset, step, Spec(1, 1), "own/eastward"), 6)


def physics(state):
    return {"position": envs.unwrap(state.inner)}


@pytest.fixture(scope="module")
def collected():
    env = eastward()
    agent = sac.make(sac.Config(hidden=(16, 16), initial_temperature=0.1), env.spec)
    sizes = {"steps": STEPS, "num_envs": ENVS, "segments": SEGMENTS, "updates": 6, "batch_size": 32, "warmup": WARMUP}
    collection = collect(agent, env, **sizes, episodes=4, extras=physics)
    keys = jnp.stack([jax.random.key(0), jax.random.key(7)])
    states, replays = jax.jit(jax.vmap(collection, in_axes=(0, None)))(keys, HYPER)
    return env, agent, collection, keys, states, replays


def member(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def test_the_replay_is_consistent_and_in_time_order(collected):
    *_, replays = collected
    rows = member(replays.rows, 0)
    times = (WARMUP + STEPS) // ENVS
    assert rows.observation.shape == (times, ENVS, 1)
    going = np.asarray(rows.last[:-1]) == 0
    np.testing.assert_array_equal(rows.next_observation[:-1][going], rows.observation[1:][going])
    assert (np.asarray(rows.next_observation[:-1][~going]) != np.asarray(rows.observation[1:][~going])).all()
    np.testing.assert_allclose(rows.next_observation, rows.observation + rows.action, atol=1e-6)
    np.testing.assert_array_equal(rows.reward, rows.action[..., 0])
    terminated = np.asarray(rows.discount) == 0
    np.testing.assert_array_equal(terminated, np.asarray(rows.next_observation[..., 0]) <= -1.5)
    assert (np.asarray(rows.last)[terminated] == 1).all()
    assert 0 < terminated.sum() < np.asarray(rows.last).sum()
    np.testing.assert_array_equal(rows.extras["position"], rows.observation[..., 0])
    np.testing.assert_array_equal(member(replays.times, 0), [20, 30, 40, 50])


def test_snapshots_are_what_acted_and_scored(collected):
    env, agent, _, keys, states, replays = collected
    state, replay, key = member(states, 0), member(replays, 0), keys[0]
    jax.tree.map(np.testing.assert_array_equal, member(replay.snapshots, -1), state.actor.params)
    first, last = jax.tree.leaves(member(replay.snapshots, 0))[0], jax.tree.leaves(state.actor.params)[0]
    assert not np.array_equal(first, last)

    def score(parameters, index):
        old = state._replace(actor=state.actor._replace(params=parameters))
        act_key = jax.random.fold_in(jax.random.fold_in(key, COLLECT), index)
        return evaluator(env, 4)(lambda o, k: agent.act(old, o, HYPER, k, False), act_key)["return"]

    again = jax.jit(jax.vmap(score))(replay.snapshots, jnp.arange(SEGMENTS))
    np.testing.assert_allclose(again, replay.returns, rtol=1e-4, atol=1e-4)
    assert replay.returns[-1] > 4.0, "of 6 at most: collection must learn"


def test_the_host_loop_and_the_single_run_give_a_members_numbers(collected):
    _, _, collection, keys, states, replays = collected
    run, key = collection.run, keys[1]
    state = jax.jit(run.init)(key, HYPER)
    segment = jax.jit(run.segment, donate_argnums=0)
    live = []
    for index in range(run.segments):
        state, metrics = segment(state, jnp.int32(index), key, HYPER, None)
        live.append(metrics["eval/return"])
    replay = collection.replay(state)
    np.testing.assert_array_equal(live, replay.returns)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)

    jax.tree.map(close, replay, member(replays, 1))
    jax.tree.map(close, state.online.agent, member(states, 1))


@pytest.fixture(scope="module")
def datasets(collected):
    env, agent, _, _, states, replays = collected
    state, replay = member(states, 0), member(replays, 0)
    made = d4rl_style(
        agent, env, state, HYPER, replay, jax.random.key(3), rows=200, num_envs=ENVS, episodes=64, extras=physics
    )
    return replay, made


def mean_return(dataset):
    return float(np.mean(data.episode_returns(dataset)))


def test_five_data_sets(datasets):
    replay, made = datasets
    assert tuple(made) == DATASETS
    for kind, dataset in made.items():
        data.validate(dataset)
        assert dataset.name == f"own-eastward-{kind}"
        assert dataset.extras["position"].shape == (dataset.size,)
    assert {kind: made[kind].size for kind in ("random", "medium", "expert")} == {
        "random": 200,
        "medium": 200,
        "expert": 200,
    }
    scores = {(float(d.score_random), float(d.score_expert)) for d in made.values()}
    assert len(scores) == 1
    random, expert = scores.pop()
    assert abs(random) < 0.6, "the mean of the uniform actions of an episode is 0, before the falls"
    assert expert > 4.0
    assert mean_return(made["random"]) < 1.0 < mean_return(made["expert"])

    medium = int(np.argmax(replay.returns > random + (replay.returns.max() - random) / 3))
    assert made["medium-replay"].size == int(replay.times[medium]) * ENVS
    np.testing.assert_array_equal(made["medium-expert"].action[:200], made["medium"].action)
    np.testing.assert_array_equal(made["medium-expert"].action[200:], made["expert"].action)


def test_streams_become_episodes_and_cut_tails_are_truncated(datasets):
    replay, made = datasets
    cut = made["medium-replay"]
    times = cut.size // ENVS
    np.testing.assert_array_equal(cut.observation[:times], replay.rows.observation[:times, 0])
    np.testing.assert_array_equal(cut.observation[times : 2 * times], replay.rows.observation[:times, 1])
    ends = np.asarray(cut.last).reshape(ENVS, times)
    assert (ends[:, -1] == 1).all()
    tail = np.asarray(replay.rows.last[times - 1]) == 0
    assert tail.any(), "some stream must be cut for this test to say anything"
    np.testing.assert_array_equal(np.asarray(cut.discount).reshape(ENVS, times)[:, -1][tail], 1.0)


def test_behaviour_explores(datasets):
    _, made = datasets
    for kind in ("medium", "expert"):
        actions = np.asarray(made[kind].action)
        assert np.unique(actions).size > 150, "a greedy policy on few states repeats itself"


def counting():
    """Collection with an agent that goes east and counts its updates; a segment is shorter than an episode."""

    def act(state, observation, hyper, key, explore):
        return jnp.ones((*observation.shape[:-1], 1))

    agent = Agent(lambda key, hyper: jnp.zeros(()), lambda state, *_: (state + 1.0, {}), act)
    sizes = {"steps": 32, "num_envs": 2, "segments": 4, "updates": 1, "warmup": 0}
    return collect(agent, eastward(), **sizes, kind="off_policy")


def test_a_segment_without_a_finished_episode_is_no_failure_of_its_member():
    run, key = counting().run, jax.random.key(0)
    before = run.init(key, None)
    after, metrics = jax.jit(run.train)(before, jnp.int32(0), key, None, None)
    assert np.isnan(metrics["train/return"])
    assert np.isneginf(after.returns[0])
    assert unless_failed(before, after, jnp.float32(1.0))[1] == 1


def test_without_evaluations_a_snapshot_counts_what_training_returned():
    state, replay = jax.jit(counting())(jax.random.key(0), None)
    assert float(state) == 16
    np.testing.assert_array_equal(replay.snapshots, [4, 8, 12, 16])  # no `actor` in it: all of the state acts
    np.testing.assert_array_equal(replay.returns, [-jnp.inf, 6, 6, 6])  # the first episode ends in the second segment
    assert replay.rows.reward.shape == (16, 2)


def test_wrong_agents_are_refused():
    spec = Spec(1, 1)
    with pytest.raises(UserError, match="this one is offline"):
        collect(iql.make(iql.Config(), spec), eastward(), steps=100)
    with pytest.raises(UserError, match="this one is on_policy"):
        collect(ppo.make(ppo.Config(), spec), eastward(), steps=100)


def test_nothing_learned_is_said_so(collected):
    env, agent, _, _, states, replays = collected
    replay = member(replays, 0)._replace(returns=jnp.full(SEGMENTS, -9.0))
    with pytest.raises(UserError, match="nothing was learned"):
        d4rl_style(agent, env, member(states, 0), HYPER, replay, jax.random.key(0), rows=8, num_envs=ENVS, episodes=4)
