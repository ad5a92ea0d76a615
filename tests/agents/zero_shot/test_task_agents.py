"""Agents that learn without rewards: what they know of small worlds, and how they turn a reward into a task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, networks
from jaxrl_reg.agents import gc_iql, hilp, sf_laplacian
from jaxrl_reg.agents.zero_shot import _features
from jaxrl_reg.data.samplers import uniform
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Spec, as_float32

STEPS = 6


def walks(components=1, episodes=40):
    """Walks along a line of ``STEPS`` places, one way; ``components`` such lines that never meet. One-hot places."""
    places = STEPS * components
    start = np.arange(episodes) % components * STEPS
    place = (start[:, None] + np.arange(STEPS)).ravel()  # the last step stays
    following = (start[:, None] + np.minimum(np.arange(STEPS) + 1, STEPS - 1)).ravel()
    truncated = np.arange(place.size) % STEPS == STEPS - 1
    one_hot, nothing = np.eye(places), np.zeros(place.size)
    action = np.random.default_rng(0).uniform(-1, 1, (place.size, 1))
    return data.from_arrays(one_hot[place], action, nothing, nothing, truncated, one_hot[following], name="walks")


def trained(module, rows, updates, hyper, **config):
    agent = module.make(module.Config(**config), rows.spec)
    run = offline(agent, batch_size=64, updates=updates)
    state, _ = jax.jit(run)(jax.random.key(0), as_float32(hyper), rows)
    return agent, state


def test_gc_iql_counts_the_steps_to_a_goal():
    hyper = gc_iql.Hyper(value_learning_rate=3e-3, discount=0.9, tau=0.05, expectile=0.5)
    settings = {"hidden": (32,), "random_goals": 0.0, "goal_discount": 0.8}
    agent, state = trained(gc_iql, walks(), 1500, hyper, **settings)
    double = Spec(2 * STEPS, 1)
    v = networks.ensemble(networks.value_network(double, (32,), layer_norm="every"), 2)
    places = jnp.eye(STEPS)
    found = v.apply(state.value.params, gc_iql.towards(places[:3], places[3])).mean(axis=0)
    expected = [-(1 - 0.9**k) / (1 - 0.9) for k in (3, 2, 1)]
    np.testing.assert_allclose(found, expected, atol=0.25)
    z = agent.zero_shot.infer_z(state, places, jnp.arange(STEPS) == 4)
    np.testing.assert_array_equal(z, places[4])
    np.testing.assert_array_equal(agent.zero_shot.goal_z(state, places[2]), places[2])


def test_laplacian_features_tell_apart_what_never_meets():
    hyper = sf_laplacian.Hyper(feature_learning_rate=3e-3, discount=0.5)
    rows = walks(components=2)
    agent, state = trained(sf_laplacian, rows, 400, hyper, hidden=(16,), features=2)
    z = jax.jit(jax.vmap(agent.zero_shot.goal_z, (None, 0)))(state, jnp.eye(2 * STEPS))
    same = np.asarray(z @ z.T) / 2  # cosine
    assert same[:STEPS, :STEPS].min() > 0.9
    assert same[STEPS:, STEPS:].min() > 0.9
    assert np.abs(same[:STEPS, STEPS:]).max() < 0.3
    # A task that pays on the second line only is the direction of that line.
    task = agent.zero_shot.infer_z(state, jnp.eye(2 * STEPS), jnp.arange(2 * STEPS) >= STEPS)
    assert task @ z[STEPS + 1] > 1.8
    assert abs(task @ z[1]) < 0.6


def test_hilbert_distance_is_the_number_of_steps():
    hyper = hilp.Hyper(feature_learning_rate=3e-3, distance_discount=0.95, tau=0.05)
    settings = {"hidden": (32,), "features": 4, "random_goals": 0.0, "goal_discount": 0.8}
    _, state = trained(hilp, walks(), 1200, hyper, **settings)
    network = networks.ensemble(networks.mlp((STEPS, 32, 4), layer_norm="first_tanh"), 2)
    maps = np.asarray(jax.jit(network.apply)(state.features.maps.params, jnp.eye(STEPS))[0])
    distance = np.linalg.norm(maps[:, None] - maps[None], axis=-1)
    for k in (1, 2, 3):
        steps = np.diagonal(distance, offset=k)
        assert steps.mean() == pytest.approx((1 - 0.95**k) / 0.05, rel=0.25)
    with pytest.raises(UserError, match="random_goals=2"):
        hilp.make(hilp.Config(random_goals=2.0), Spec(2, 1))


def test_a_task_is_the_least_squares_fit_of_its_reward():
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 8))
    z = rng.normal(size=8)
    found = _features.fit(
        jnp.asarray(phi, jnp.float32), jnp.asarray(phi @ z + 0.01 * rng.normal(size=500), jnp.float32)
    )
    expected = z / np.linalg.norm(z) * np.sqrt(8)
    np.testing.assert_allclose(found, expected, atol=0.05)
    matrix = phi.T @ phi / 500
    right = rng.normal(size=(8, 3))
    solved = _features.solve(jnp.asarray(matrix, jnp.float32), jnp.asarray(right, jnp.float32))
    np.testing.assert_allclose(matrix @ np.asarray(solved, np.float64), right, atol=1e-3)
    assert not np.any(_features.fit(jnp.asarray(phi, jnp.float32), jnp.zeros(500)))  # nothing pays: no task, no NaN


@pytest.mark.parametrize("module", [gc_iql, sf_laplacian])
def test_rewards_are_not_looked_at(module):
    rows = walks(episodes=4)
    agent = module.make(module.Config(hidden=(8,)), rows.spec)
    hyper = as_float32(module.Hyper())

    @jax.jit
    def update(rows):
        state = agent.init(jax.random.key(0), hyper)
        batch = (agent.sample or uniform)(rows, jax.random.key(1), 8)
        return agent.update(state, batch, hyper, jax.random.key(2), jnp.int32(0))

    paid = dataclasses.replace(rows, reward=rows.reward + 7)
    jax.tree.map(np.testing.assert_array_equal, update(rows), update(paid))


def test_reaching_a_state_is_the_task_that_pays_there():
    """z of a goal and z of the reward of that goal alone agree, also where features are not orthonormal."""
    agent = sf_laplacian.make(sf_laplacian.Config(hidden=(16,), features=3), Spec(STEPS, 1))
    hyper, places = as_float32(sf_laplacian.Hyper()), jnp.eye(STEPS)
    state = jax.jit(agent.init)(jax.random.key(0), hyper)
    network = networks.mlp((STEPS, 16, 3), layer_norm="first_tanh")
    phi = np.asarray(network.apply(state.features.map.params, places), np.float64)
    phi *= 3**0.5 / np.linalg.norm(phi, axis=1, keepdims=True)
    second = phi.T @ phi / STEPS
    assert np.abs(second - np.eye(3)).max() > 0.2
    seen = state._replace(features=state.features._replace(second=jnp.asarray(second, jnp.float32)))
    for goal in range(STEPS):
        expected = np.linalg.solve(second, phi[goal])
        expected *= 3**0.5 / np.linalg.norm(expected)
        np.testing.assert_allclose(agent.zero_shot.goal_z(seen, places[goal]), expected, atol=5e-3)
        task = agent.zero_shot.infer_z(seen, places, jnp.arange(STEPS) == goal)
        np.testing.assert_allclose(task, expected, atol=5e-3)
