"""The online loop: what is learned from, how much, and that segments, members and keys are what they should be."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.agents import iql, sac
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.loops.online import kind_of, online, track
from jaxrl_reg.loops.rollout import rollout
from jaxrl_reg.types import Agent, Spec, Transition
from tests.loops.toy import corridor


class Log(NamedTuple):
    updates: jax.Array
    steps: jax.Array  # sum of the step numbers given to update
    reward: jax.Array  # of the batches seen


def recorder(explored: float = 0.5, greedy: float = 1.0) -> Agent:
    """Learns nothing, writes down what it is given."""

    def update(state, batch, hyper, key, step):
        noise = jax.random.uniform(key)
        return Log(state.updates + 1, state.steps + step, state.reward + batch.reward.sum()), {"noise": noise}

    def act(state, observation, hyper, key, explore):
        return jnp.full((*observation.shape[:-1], 1), explored if explore else greedy)

    return Agent(lambda key, hyper: Log(jnp.int32(0), jnp.int32(0), jnp.zeros(())), update, act)


def test_counts_updates_steps_and_rows():
    run = online(
        recorder(), corridor(), steps=48, num_envs=2, segments=3, unroll=4, updates=3, warmup=6, kind="off_policy"
    )
    assert run.updates_per_segment == 6
    state, history = jax.jit(run)(jax.random.key(0), None)
    assert int(state.agent.updates) == 18
    assert int(state.agent.steps) == sum(range(18)), "update must be given 0, 1, 2, ..."
    assert int(state.replay.size) == 54 == state.replay.capacity
    warmup, explored = np.split(np.asarray(state.replay.rows.action)[:, 0], [6])
    assert np.unique(warmup).size == 6
    np.testing.assert_array_equal(explored, 0.5)
    assert history["noise"].shape == (3,)
    assert np.unique(history["noise"]).size == 3


def test_on_policy_hands_over_the_trajectory_once():
    def update(state, batch, hyper, key, step):
        assert batch.reward.shape == (4, 2)
        assert batch.last.shape == (4, 2)
        return Log(state.updates + 1, state.steps + step, state.reward + batch.reward.sum()), {}

    agent = recorder(explored=1.0)._replace(update=update)
    run = online(agent, corridor(goal=2.0), steps=48, num_envs=2, segments=2, unroll=4, updates=7, kind="on_policy")
    state, history = jax.jit(run)(jax.random.key(0), None)
    assert state.replay is None
    assert int(state.agent.updates) == 6
    assert run.updates_per_segment == 3
    assert int(state.agent.steps) == sum(range(6))
    assert float(state.agent.reward) == 24, "an episode of 2 steps gives 1: 48 steps, half as many rewards"
    np.testing.assert_array_equal(history["train/return"], 1.0)


def test_a_small_buffer_keeps_the_newest_rows():
    run = online(recorder(), corridor(), steps=40, num_envs=2, warmup=4, capacity=6, kind="off_policy")
    state, _ = jax.jit(run)(jax.random.key(0), None)
    np.testing.assert_array_equal(state.replay.rows.action, 0.5)
    assert int(state.replay.size) == 6


def test_returns_are_those_of_finished_episodes():
    rows = {"reward": jnp.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]), "last": jnp.array([[0.0, 1], [1, 0], [0, 1]])}
    empty = jnp.zeros((3, 2))
    rows = Transition(empty, empty, rows["reward"], empty, empty, rows["last"])
    ongoing, finished = track(jnp.array([10.0, 0]), jnp.zeros(2), rows)
    np.testing.assert_array_equal(ongoing, [4, 0])
    np.testing.assert_array_equal(finished, [13, 10])


def learner() -> Agent:
    """One parameter that batches, keys, steps and the hyperparameter all influence; it acts with it, and noise."""

    def update(w, batch, rate, key, step):
        error = batch.reward.mean() + 0.1 * step + jax.random.normal(key) - w
        return w + rate * error, {"error": error}

    def act(w, observation, rate, key, explore):
        noise = jax.random.normal(key, (*observation.shape[:-1], 1)) if explore else 0.0
        return jnp.tanh(w * observation[..., :1] + noise)

    return Agent(lambda key, rate: jax.random.normal(key), update, act)


@pytest.fixture(scope="module")
def single():
    env = envs.make("pendulum", episode_length=5)
    sizes = {"steps": 24, "num_envs": 2, "segments": 2, "updates": 2, "batch_size": 8, "warmup": 4}
    run = online(learner(), env, **sizes, evaluate=evaluator(env, 2), kind="off_policy")
    hyper, one = jnp.float32(0.1), jax.jit(run)
    return run, hyper, [one(jax.random.key(seed), hyper) for seed in range(2)]


def close(a, b):
    def compare(x, y):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)

    jax.tree.map(compare, a, b)


def test_a_member_of_a_population_equals_its_single_run(single):
    run, hyper, alone = single
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    together = jax.jit(jax.vmap(run, in_axes=(0, None)))(keys, hyper)
    for i in range(2):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone[i])


def test_segments_from_the_host_are_the_same_run(single):
    run, hyper, alone = single
    key = jax.random.key(0)
    state, segment, history = jax.jit(run.init)(key, hyper), jax.jit(run.segment), []
    for i in range(run.segments):
        state, metrics = segment(state, jnp.int32(i), key, hyper, None)
        history.append(metrics)
    close((state, jax.tree.map(lambda *values: jnp.stack(values), *history)), alone[0])
    assert float(history[0]["eval/length"]) == 5.0


def test_kinds():
    spec = Spec(3, 2)
    assert kind_of(sac.make(sac.Config(), spec)) == "off_policy"
    assert kind_of(recorder()) is None
    offline = iql.make(iql.Config(), spec)
    with pytest.raises(UserError, match=r"iql is offline; take sac, td3 or ppo"):
        online(offline, corridor(), steps=10)
    online(offline, corridor(), steps=10, kind="off_policy", warmup=1)
    with pytest.raises(UserError, match=r"is None"):
        online(recorder(), corridor(), steps=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 10, "num_envs": 4}, "steps=10 must be a multiple of segments.num_envs.unroll=4"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 12, "segments": 5}, "=5"),
        ({"steps": 8, "num_envs": 2, "warmup": 3}, "warmup=3 must be a positive multiple of num_envs=2"),
        ({"steps": 8, "updates": 0}, "updates=0"),
    ],
)
def test_numbers_that_do_not_divide(settings, message):
    with pytest.raises(UserError, match=message):
        online(recorder(), corridor(), kind="off_policy", **settings)


def test_rows_in_the_buffer_are_the_rollout_in_time_order():
    run = online(recorder(), corridor(), steps=12, num_envs=3, warmup=3, kind="off_policy")
    state, _ = jax.jit(run)(jax.random.key(0), None)
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, 3, *leaf.shape[1:]), state.replay.rows)
    start = envs.vectorize(corridor(), 3).reset(jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3)[1])
    actions = rows.action
    _, again = rollout(
        envs.vectorize(corridor(), 3),
        lambda observation, key: jnp.full((3, 1), 0.5),
        envs.vectorize(corridor(), 3).step(start, actions[0]),
        jax.random.key(9),
        4,
    )
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:], b), rows, again)
