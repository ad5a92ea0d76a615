"""Training on levels that a curriculum chooses: what is learned from, what is only scored, what is remembered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents
from jaxrl_reg.envs import gridworld
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops.levels import levelled
from jaxrl_reg.loops.online import online
from jaxrl_reg.types import Agent, Curriculum
from tests.loops import levels_toy

ENVS, EXTRA, UNROLL = 2, 1, 7
SIZES = {"steps": 4 * ENVS * UNROLL, "num_envs": ENVS, "segments": 2, "unroll": UNROLL}


def curriculum(levels, num_envs):
    """Levels that tell where and when they were proposed: 100 for each iteration, 1 for each environment."""
    every = num_envs + EXTRA

    def propose(state, key, hyper, iteration):
        level = 100.0 * iteration + jnp.arange(every)
        return level, jnp.full(every, -1)

    def record(state, played, hyper, iteration):
        assert played.value.shape == played.next_value.shape == (UNROLL, every)
        stray = abs(played.rows.reward - played.level).max()
        wrong = abs(played.value - 2.0 * played.rows.observation[..., 0]).max()
        return state + 1, {"stray": stray, "wrong": wrong, "iteration": 1.0 * iteration}

    return Curriculum(lambda key, hyper: jnp.int32(0), propose, record, extra=EXTRA, warmup=1)


def update(state, batch, hyper, key, step):
    assert batch.reward.shape == (UNROLL, ENVS)
    return state + 1, {"paid": batch.reward.mean(), "step": 1.0 * step}


AGENT = Agent(
    lambda key, hyper: jnp.int32(0),
    update,
    lambda state, observation, hyper, key, explore: jnp.zeros((*observation.shape[:-1], 1)),
    kind="on_policy",
    curriculum=curriculum,
    value=lambda state, observation: 2.0 * observation[..., 0],
)


@pytest.fixture(scope="module")
def found():
    world = levels_toy.make()
    run = levelled(AGENT, world, **SIZES, evaluate=returns.level_evaluator(world, 2))
    return jax.device_get(jax.jit(lambda: run(jax.random.key(0), ()))())


def test_warm_up_and_extra_levels_are_not_learned_from(found):
    state, metrics = found
    assert (state.agent, state.curriculum) == (4, 5)  # updates, rollouts: one of them the warm-up
    np.testing.assert_allclose(metrics["step"], [0.5, 2.5])  # 0 and 1, then 2 and 3
    np.testing.assert_allclose(metrics["paid"], [50.5, 250.5])  # 100 per iteration, and environments 0 and 1
    np.testing.assert_allclose(metrics["levels/size"], [50.5, 250.5])
    np.testing.assert_array_equal(metrics["env_steps"], np.array([3, 5]) * (ENVS + EXTRA) * UNROLL)


def test_everyone_stays_on_the_level_that_was_chosen(found):
    metrics = found[1]
    np.testing.assert_array_equal(metrics["stray"], [0, 0])
    np.testing.assert_array_equal(metrics["wrong"], [0, 0])
    np.testing.assert_allclose(metrics["train/return"], [levels_toy.LENGTH * 100.5, levels_toy.LENGTH * 300.5])


def test_the_album_has_the_last_levels_of_each_segment(found):
    np.testing.assert_array_equal(found[0].album[:2], [[100, 101], [300, 301]])


def test_held_out_levels_are_judged_set_by_set(found):
    metrics = found[1]
    np.testing.assert_array_equal(metrics["eval/solved/good"], [1, 1])
    np.testing.assert_allclose(metrics["eval/solved/mixed"], [1 / 3, 1 / 3])
    np.testing.assert_array_equal(metrics["eval/solved"], [1, 1])  # of the first set
    np.testing.assert_allclose(metrics["eval/return"], [4.5, 4.5])
    np.testing.assert_array_equal(metrics["eval/length"], [3, 3])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: levelled(AGENT, gridworld.make(), **SIZES), "gridworld has no levels for a curriculum"),
        (lambda: levelled(AGENT._replace(curriculum=None), levels_toy.make(), **SIZES), "has no curriculum; take dr"),
        (lambda: levelled(AGENT, levels_toy.make(), **{**SIZES, "steps": 57}), "steps=57 must be a multiple of"),
        (lambda: online(AGENT, levels_toy.make(), steps=8), "take loops.levels.levelled"),
        (lambda: returns.level_evaluator(gridworld.make()), "no held-out levels"),
        (lambda: agents.make("plr", levels_toy.make().spec, source="dota"), "did you mean 'data'"),
        (lambda: agents.make("accel", levels_toy.make().spec, score="maxmc"), "did you mean 'max_mc'"),
        (lambda: agents.make("dred", levels_toy.make().spec, generator="edit", buffered=False), "needs buffered=true"),
        (lambda: agents.make("sfl", levels_toy.make().spec, scan=0), "scan=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(make, words):
    with pytest.raises(UserError, match=words):
        make()
