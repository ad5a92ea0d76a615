"""Explorers: what is new pays, what tells skills apart pays, what the environment pays does not matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.agents import diayn, rnd
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Spec, Transition, as_float32

SPEC = Spec(4, 2)


@functools.partial(jax.jit, static_argnums=1)
def batch(key, size=32):
    keys = jax.random.split(key, 4)
    observation = jax.random.normal(keys[0], (size, 4))
    skill = jax.nn.one_hot(jax.random.randint(keys[1], (size,), 0, 2), 2)
    observation = observation.at[:, 2:].set(skill)
    following = observation.at[:, :2].add(jax.random.normal(keys[2], (size, 2)))
    action = jax.random.uniform(keys[3], (size, 2), minval=-1.0, maxval=1.0)
    return Transition(observation, action, jnp.ones(size), jnp.ones(size), following)


@pytest.mark.parametrize("module", [rnd, diayn])
def test_the_rewards_of_the_environment_are_not_looked_at(module):
    agent, hyper = module.make(module.Config(hidden=(8,)), SPEC), as_float32(module.Hyper())
    state, rows = jax.jit(agent.init)(jax.random.key(0), hyper), batch(jax.random.key(1))
    update = jax.jit(agent.update)
    one = update(state, rows, hyper, jax.random.key(2), jnp.int32(0))
    other = update(state, dataclasses.replace(rows, reward=-100 * rows.reward), hyper, jax.random.key(2), jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    np.testing.assert_array_equal(one[0].actor.params["Dense_0"]["bias"], one[0].base.actor.params["Dense_0"]["bias"])


def test_running_moments_are_those_of_all_batches_together():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3.0, 5.0, size=(n, 2)).astype(np.float32) for n in (7, 20, 4)]
    moments = rnd.Moments(jnp.float32(1e-6), jnp.zeros(2), jnp.ones(2))
    for rows in batches:
        moments = rnd.observe(moments, jnp.asarray(rows))
    together = np.concatenate(batches)
    np.testing.assert_allclose(moments.mean, together.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, together.var(axis=0), rtol=1e-4)
    assert float(moments.count) == pytest.approx(31)


def test_the_familiar_becomes_boring():
    """After many updates on one half of the plane, the predictor knows that half better than the other."""
    agent = rnd.make(rnd.Config(hidden=(16,), features=8), SPEC)
    hyper = as_float32(rnd.Hyper(predictor_learning_rate=3e-3))
    rows = batch(jax.random.key(1), 128)
    familiar = dataclasses.replace(rows, next_observation=jnp.abs(rows.next_observation) * jnp.array([1, 1, 0, 0]))
    new = dataclasses.replace(rows, next_observation=-familiar.next_observation)

    @jax.jit
    def train(state):
        def body(state, i):
            return agent.update(state, familiar, hyper, jax.random.fold_in(jax.random.key(5), i), i)

        state, metrics = jax.lax.scan(body, state, jnp.arange(300))
        return state, metrics["predictor_loss"]

    state, loss = train(jax.jit(agent.init)(jax.random.key(0), hyper))
    assert loss[-1] < 0.1 * loss[0]
    _, after = jax.jit(agent.update)(state, new, hyper, jax.random.key(6), jnp.int32(300))
    assert after["predictor_loss"] > 5 * loss[-1]


def test_a_skill_that_shows_is_worth_the_log_of_their_number():
    agent = diayn.make(diayn.Config(hidden=(16,)), SPEC)
    hyper = as_float32(diayn.Hyper(discriminator_learning_rate=1e-2))
    rows = batch(jax.random.key(1), 128)
    telling = rows.next_observation.at[:, 0].set(4 * rows.observation[:, 2] - 2)
    rows = dataclasses.replace(rows, next_observation=telling)

    @jax.jit
    def train(state):
        def body(state, i):
            return agent.update(state, rows, hyper, jax.random.fold_in(jax.random.key(5), i), i)

        return jax.lax.scan(body, state, jnp.arange(200))[1]

    metrics = train(jax.jit(agent.init)(jax.random.key(0), hyper))
    assert metrics["skill_accuracy"][-1] == 1
    assert metrics["discriminator_loss"][0] == pytest.approx(np.log(2), abs=0.3)
    assert metrics["discriminator_loss"][-1] < 0.05


def test_skills_must_leave_room_for_a_state():
    with pytest.raises(UserError, match=r"diayn: skills=4 of 4 observations.*with_skills"):
        diayn.make(diayn.Config(skills=4), SPEC)
