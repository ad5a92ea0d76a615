"""The exact solvers against NumPy in float64 and against series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.envs import gridworld
from jaxrl_reg.tabular import discounted

DISCOUNT = 0.9


@pytest.fixture(scope="module")
def process():
    rng = np.random.default_rng(0)
    transition, reward = rng.dirichlet(np.ones(5), (5, 3)), rng.normal(size=(5, 3))
    return transition, reward, rng.dirichlet(np.ones(3), 5), rng.dirichlet(np.ones(5))


def test_policy_evaluation_is_the_closed_form(process):
    transition, reward, policy, _ = process
    chain = np.einsum("sa,sat->st", policy, transition)
    expected = np.linalg.inv(np.eye(5) - DISCOUNT * chain) @ (policy * reward).sum(1)
    value, q = discounted.policy_evaluation(transition, reward, policy, DISCOUNT)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    np.testing.assert_allclose(q, reward + DISCOUNT * transition @ expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose((policy * q).sum(1), value, rtol=2e-5)


def test_successor_measure_is_its_series_and_gives_q_of_next_state_rewards(process):
    transition, _, policy, _ = process
    chain = np.einsum("sa,sat->st", policy, transition)
    series = sum(DISCOUNT**k * transition @ np.linalg.matrix_power(chain, k) for k in range(400))
    measure = discounted.successor_measure(transition, policy, DISCOUNT)
    np.testing.assert_allclose(measure, series, rtol=1e-4)
    np.testing.assert_allclose(measure.sum(-1), 1 / (1 - DISCOUNT), rtol=1e-4)
    state_reward = np.arange(5.0) - 2
    _, q = discounted.policy_evaluation(transition, transition @ state_reward, policy, DISCOUNT)
    np.testing.assert_allclose(measure @ state_reward, q, rtol=1e-4, atol=1e-4)


def test_occupancy_is_its_series_and_satisfies_duality(process):
    transition, reward, policy, initial = process
    chain = np.einsum("sa,sat->st", policy, transition)
    series = (1 - DISCOUNT) * sum(DISCOUNT**k * initial @ np.linalg.matrix_power(chain, k) for k in range(400))
    visits = discounted.occupancy(transition, policy, DISCOUNT, initial)
    np.testing.assert_allclose(visits, series[:, None] * policy, rtol=1e-4)
    np.testing.assert_allclose(visits.sum(), 1, rtol=1e-5)
    value, _ = discounted.policy_evaluation(transition, reward, policy, DISCOUNT)
    np.testing.assert_allclose((visits * reward).sum(), (1 - DISCOUNT) * initial @ value, rtol=1e-4)


def test_optimal_values_equal_value_iteration(process):
    transition, reward, _, _ = process
    value = np.zeros(5)
    for _ in range(2000):
        value = (reward + DISCOUNT * transition @ value).max(1)
    found, q = discounted.optimal_values(transition, reward, DISCOUNT)
    np.testing.assert_allclose(found, value, rtol=1e-4)
    np.testing.assert_allclose(q, reward + DISCOUNT * transition @ value, rtol=1e-4, atol=1e-4)
    many = jax.jit(jax.vmap(lambda discount: discounted.optimal_values(transition, reward, discount)[0]))
    np.testing.assert_allclose(many(jnp.array([0.5, DISCOUNT]))[1], found, rtol=1e-5)


def test_values_in_the_grid_are_powers_of_the_discount_with_and_without_terminal_states():
    transition, reward, _, terminal, _ = gridworld.matrices()  # 5 x 5, start and goal in opposite corners
    value, q = discounted.optimal_values(transition, reward, DISCOUNT, terminal)
    distance = np.add.outer(np.arange(4, -1, -1), np.arange(4, -1, -1)).ravel()
    np.testing.assert_allclose(value[:-1], DISCOUNT ** (distance[:-1] - 1.0), rtol=1e-5)
    np.testing.assert_allclose(q[0], DISCOUNT ** np.array([8.0, 7, 7, 8]), rtol=1e-5)
    np.testing.assert_allclose(discounted.optimal_values(transition, reward, DISCOUNT)[0], value, rtol=1e-5)
    # Where the goal does not absorb, only `terminal` keeps what comes after out of the values.
    leaking, paying = transition.at[-1].set(jnp.eye(25)[0]), reward.at[-1].set(7.0)
    kept, _ = discounted.optimal_values(leaking, paying, DISCOUNT, terminal)
    np.testing.assert_allclose(kept[:-1], value[:-1], rtol=1e-5)


def test_policy_evaluation_can_be_differentiated(process):
    transition, reward, policy, initial = process
    gradient = jax.grad(lambda r: initial @ discounted.policy_evaluation(transition, r, policy, DISCOUNT)[0])(
        jnp.asarray(reward, jnp.float32)
    )
    visits = discounted.occupancy(transition, policy, DISCOUNT, initial)
    np.testing.assert_allclose(gradient, visits / (1 - DISCOUNT), rtol=1e-4)


def test_soft_values_are_their_fixed_point_with_exact_derivatives(process):
    transition, reward, _, initial = (jnp.asarray(array, jnp.float32) for array in process)

    @jax.jit
    def solved(reward, temperature):
        value, q, log_policy = discounted.soft_optimal_values(transition, reward, DISCOUNT, temperature)
        return initial @ value, (value, q, log_policy)

    value = np.zeros(5)
    for _ in range(1000):
        q = process[1] + DISCOUNT * process[0] @ value
        value = q.max(1) + 0.5 * np.log(np.exp((q - q.max(1, keepdims=True)) / 0.5).sum(1))
    _, found = solved(reward, 0.5)
    for array, expected in zip(found, (value, q, (q - value[:, None]) / 0.5), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        solved(reward, 1e-6)[1][0], discounted.optimal_values(transition, reward, DISCOUNT)[0], rtol=1e-4
    )
    gradient = jax.grad(lambda reward: solved(reward, 0.5)[0])(reward)
    visits = discounted.occupancy(transition, jnp.exp(found[2]), DISCOUNT, initial)
    np.testing.assert_allclose(gradient, visits / (1 - DISCOUNT), rtol=1e-4)
    direction = np.random.default_rng(1).normal(size=reward.shape).astype(np.float32)
    ahead, behind = (solved(reward + 1e-2 * sign * direction, 0.5)[1][2] for sign in (1, -1))
    _, slope = jax.jvp(lambda reward: solved(reward, 0.5)[1][2], (reward,), (direction,))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-2, rtol=0.02, atol=2e-3)


def test_soft_values_stop_at_terminal_states(process):
    transition, reward, _, _ = (jnp.asarray(array, jnp.float32) for array in process)
    terminal = jnp.zeros(5).at[2].set(1.0)
    value, q, log_policy = discounted.soft_optimal_values(transition, reward, DISCOUNT, 0.3, terminal)
    alive = np.asarray(transition) * (1 - np.asarray(terminal))
    np.testing.assert_allclose(q, reward + DISCOUNT * alive @ np.asarray(value), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(log_policy).sum(1), 1, rtol=1e-5)
