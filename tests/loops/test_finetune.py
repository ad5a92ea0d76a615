"""Offline to online: where rows come from, what is counted on, and that nothing changes before the first update."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, loops
from jaxrl_reg.agents import cql, decision_transformer, ppo, rebrac
from jaxrl_reg.data import buffers
from jaxrl_reg.envs import pendulum
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.loops.finetune import alike, mixed
from jaxrl_reg.loops.online import Start
from jaxrl_reg.types import Agent, Spec, Transition, as_float32
from tests.loops.toy import corridor


class Log(NamedTuple):
    updates: jax.Array
    steps: jax.Array  # sum of the step numbers given to update
    old: jax.Array  # rows of the data set among those seen
    keys: jax.Array  # a number made of every key that came along


def recorder() -> Agent:
    """Learns nothing, writes down what it is given. Rows of the data set have reward 7."""

    def update(state, batch, hyper, key, step):
        assert batch.next_action is not None
        old = (batch.reward == 7.0).sum()
        log = Log(state.updates + 1, state.steps + step, state.old + old, state.keys + jax.random.uniform(key))
        return log, {"share": old / batch.reward.size}

    def act(state, observation, hyper, key, explore):
        return jnp.full((*observation.shape[:-1], 1), 0.5 if explore else 1.0)

    return Agent(lambda key, hyper: Log(jnp.int32(0), jnp.int32(0), jnp.int32(0), jnp.zeros(())), update, act)


def sevens(rows: int = 12):
    """Rows of the corridor's shape that are told by their reward."""
    zeros = np.zeros(rows)
    truncated = np.arange(rows) % 4 == 3
    return data.from_arrays(
        zeros[:, None], zeros[:, None], zeros + 7.0, zeros, truncated, zeros[:, None], name="sevens"
    )


SIZES = {"steps": 24, "num_envs": 2, "segments": 3, "updates": 3, "batch_size": 8}


def test_it_goes_on_from_the_state_and_the_counters_it_is_given():
    run = loops.finetune(
        recorder(),
        corridor(),
        start=Start(40, 4),
        offline_fraction=0.25,
        evaluate=evaluator(corridor(), 2),
        preprocess=lambda rows: dataclasses.replace(rows, reward=100.0 * rows.reward - 1.0),
        **SIZES,
    )
    begun = Log(jnp.int32(40), jnp.int32(100), jnp.int32(0), jnp.zeros(()))
    state, history = jax.jit(run)(jax.random.key(0), None, sevens(), begun)
    assert run.updates_per_segment == 12
    assert int(state.agent.updates) == 40 + 36
    assert int(state.agent.steps) == 100 + sum(range(40, 76)), "update must be given 40, 41, 42, ..."
    np.testing.assert_array_equal(history["share"], 0.25)
    assert int(state.replay.size) == 24 + 2, "one iteration comes before the first update"
    np.testing.assert_array_equal(state.replay.rows.action, 0.5)  # the agent's from the first step, no random ones
    assert set(np.unique(state.replay.rows.reward)) == {-1.0, 99.0}, "learned from as scaled"
    assert float(history["train/return"][-1]) == 1.0, "reported as they are"
    np.testing.assert_array_equal(history["eval/length"], 3.0)


def replay_of(count: int):
    """A replay of ``count`` rows of the corridor, all with reward 0."""
    column = jnp.zeros((count, 1))
    rows = Transition(column, column, column[:, 0], column[:, 0], column, column[:, 0])
    return buffers.add(buffers.init(64, jax.tree.map(lambda leaf: leaf[0], rows)), rows)


@pytest.mark.parametrize(("fraction", "old"), [(0.5, 4), (0.25, 2), (0.0, 0)])
def test_a_fixed_share_of_a_batch_comes_from_the_data(fraction, old):
    draw = mixed(recorder(), 8, fraction, 2)
    batch = jax.jit(draw, static_argnums=3)(replay_of(10), sevens() if old else None, jax.random.key(0), 8)
    np.testing.assert_array_equal(batch.reward, [7.0] * old + [0.0] * (8 - old))
    assert batch.next_action.shape == (8, 1)


@pytest.mark.parametrize("rows", [10, 30])
def test_one_heap_gives_every_row_the_same_chance(rows):
    draw = mixed(recorder(), 4000, None, 2)
    batch = jax.jit(draw, static_argnums=3)(replay_of(rows), sevens(20), jax.random.key(0), 4000)
    np.testing.assert_allclose((batch.reward == 7.0).mean(), 20 / (20 + rows), atol=0.03)


@pytest.fixture(scope="module")
def swung():
    """``pendulum`` and 30 rows of it, from one that is pushed at random."""
    rng = np.random.default_rng(0)
    action, observation = rng.uniform(-1, 1, (30, 1)), rng.uniform(-1, 1, (30, 3))
    truncated = np.arange(30) % 10 == 9
    rows = data.from_arrays(
        observation, action, -np.abs(observation[:, 0]), 0 * truncated, truncated, observation + 0.1, name="swung"
    )
    return pendulum.make(episode_length=8), rows


def test_before_any_update_the_policy_returns_what_it_last_did(swung):
    env, rows = swung
    agent, hyper = rebrac.make(rebrac.Config(hidden=(8, 8)), env.spec), as_float32(rebrac.Hyper())
    before = loops.offline(agent, updates=6, segments=3, batch_size=8, evaluate=evaluator(env, 3))
    state, history = jax.jit(before)(jax.random.key(0), hyper, rows)
    run = loops.finetune(agent, env, start=Start(6, 3), steps=16, batch_size=8, evaluate=evaluator(env, 3))
    begun = jax.jit(run.init)(jax.random.key(0), hyper, state)
    found, other = (jax.jit(run.evaluate)(begun, jnp.int32(i), jax.random.key(0), hyper) for i in (-1, 0))
    np.testing.assert_array_equal(found["eval/return"], history["eval/return"][-1])
    assert float(other["eval/return"]) != float(found["eval/return"]), "later evaluations have episodes of their own"


def test_populations_share_the_data_and_resume_bit_by_bit():
    agent = recorder()
    run = loops.finetune(agent, corridor(), start=Start(6, 3), steps=16, num_envs=2, segments=2, batch_size=8)
    keys, rows = jax.vmap(jax.random.key)(jnp.arange(2)), sevens()
    segment = jax.jit(jax.vmap(run.train, in_axes=(0, None, 0, None, None)))
    begun = jax.jit(jax.vmap(lambda key: run.init(key, None, agent.init(key, None))))(keys)
    half, _ = segment(begun, jnp.int32(0), keys, None, rows)
    assert jax.tree.leaves(half.replay.rows)[0].shape[:2] == (2, 18)
    whole, again = (segment(jax.tree.map(jnp.copy, half), jnp.int32(1), keys, None, rows)[0] for _ in range(2))
    for a, b in zip(jax.tree.leaves(whole._replace(env=())), jax.tree.leaves(again._replace(env=())), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.agent.keys[0] != whole.agent.keys[1], "members have random numbers of their own"
    assert whole.agent.keys[0] != 2 * half.agent.keys[0], "and segments have"


def test_batches_have_what_both_sources_have(swung):
    _, rows = swung
    with_physics = dataclasses.replace(rows, extras={"physics": rows.observation, "mask": rows.reward})
    given = data.uniform(with_physics, jax.random.key(0), 3)
    seen = dataclasses.replace(given, return_rank=None, extras={"mask": given.reward})
    one, other = alike(given, seen)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert one.return_rank is None
    assert one.next_action is not None
    assert set(one.extras) == {"mask"}


def test_what_cannot_be_fine_tuned_says_so():
    spec = Spec(2, 2)
    with pytest.raises(UserError, match="can be fine-tuned online"):
        loops.finetune(
            decision_transformer.make(decision_transformer.Config(), spec), corridor(), start=Start(), steps=8
        )
    with pytest.raises(UserError, match="no use for a data set"):
        loops.finetune(ppo.make(ppo.Config(), spec), corridor(), start=Start(), steps=8)
    agent = cql.make(cql.Config(), spec)
    for fraction in (1.0, -0.1):
        with pytest.raises(UserError, match="at least 0 and below 1"):
            mixed(agent, 8, fraction, 1)
    with pytest.raises(UserError, match="no row to the data"):
        mixed(agent, 8, 0.01, 1)
    with pytest.raises(UserError, match="no row to the replay"):
        mixed(agent, 8, 0.99, 1)


@pytest.mark.parametrize("behind", [4, 5])
def test_a_cycle_of_updates_begins_where_the_counter_says(behind):
    """An agent that updates in pairs; a run that begins within a pair goes one by one."""

    def phase(number):
        def update(state, batch, hyper, key, step):
            right = (step % 2) == (step % 2 if number is None else number)
            return state, {"right": right.astype(jnp.float32)}

        return update

    agent = recorder()._replace(update=phase(None), cycle=(phase(0), phase(1)))
    run = loops.finetune(agent, corridor(), start=Start(behind, 1), steps=8, updates=2, batch_size=8)
    _, history = jax.jit(run)(jax.random.key(0), None, sevens(), agent.init(None, None))
    assert float(history["right"][0]) == 1.0
