"""The online loop: what is learned from, how much, and that segments, members and keys are what they should be."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.agents import iql, sac
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.loops.online import online, track
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
    sizes = {"steps": 48, "num_envs": 2, "segments": 3, "unroll": 4, "updates": 3, "warmup": 9}
    run = online(recorder(), corridor(), **sizes, evaluate=evaluator(corridor(), 2), kind="off_policy")
    assert run.updates_per_segment == 6
    state, history = jax.jit(run)(jax.random.key(0), None)
    assert int(state.agent.updates) == 18
    assert int(state.agent.steps) == sum(range(18)), "update must be given 0, 1, 2, ..."
    assert int(state.replay.size) == 64 == state.replay.capacity
    warmup, explored = np.split(np.asarray(state.replay.rows.action)[:, 0], [16])
    assert np.unique(warmup).size == 16, "9 steps are rounded up to two iterations of 8"
    np.testing.assert_array_equal(explored, 0.5)
    assert history["noise"].shape == (3,)
    assert np.unique(history["noise"]).size == 3
    np.testing.assert_array_equal(history["eval/length"], 3.0)  # greedy: one unit a step, not the half of exploring


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


def test_kinds():
    spec = Spec(3, 2)
    assert sac.make(sac.Config(), spec).kind == "off_policy"
    offline = iql.make(iql.Config(), spec)
    with pytest.raises(UserError, match=r"is offline; take sac, td3 or ppo"):
        online(offline, corridor(), steps=10)
    online(offline, corridor(), steps=10, kind="off_policy", warmup=1)
    with pytest.raises(UserError, match=r"is offline"):  # what an agent is that does not say
        online(recorder(), corridor(), steps=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 10, "num_envs": 4}, "steps=10 must be a multiple of segments.num_envs.unroll=4"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 12, "segments": 5}, "=5"),
        ({"steps": 8, "updates": 0}, "updates=0"),
    ],
)
def test_numbers_that_do_not_divide(settings, message):
    with pytest.raises(UserError, match=message):
        online(recorder(), corridor(), kind="off_policy", **settings)
