"""The exact solvers against NumPy in float64 and against series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import gridworld, tabular
from jaxrl_reg.errors import UserError

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
    value, q = tabular.policy_evaluation(transition, reward, policy, DISCOUNT)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    np.testing.assert_allclose(q, reward + DISCOUNT * transition @ expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose((policy * q).sum(1), value, rtol=2e-5)


def test_successor_measure_is_its_series_and_gives_q_of_next_state_rewards(process):
    transition, _, policy, _ = process
    chain = np.einsum("sa,sat->st", policy, transition)
    series = sum(DISCOUNT**k * transition @ np.linalg.matrix_power(chain, k) for k in range(400))
    measure = tabular.successor_measure(transition, policy, DISCOUNT)
    np.testing.assert_allclose(measure, series, rtol=1e-4)
    np.testing.assert_allclose(measure.sum(-1), 1 / (1 - DISCOUNT), rtol=1e-4)
    state_reward = np.arange(5.0) - 2
    _, q = tabular.policy_evaluation(transition, transition @ state_reward, policy, DISCOUNT)
    np.testing.assert_allclose(measure @ state_reward, q, rtol=1e-4, atol=1e-4)


def test_occupancy_is_its_series_and_satisfies_duality(process):
    transition, reward, policy, initial = process
    chain = np.einsum("sa,sat->st", policy, transition)
    series = (1 - DISCOUNT) * sum(DISCOUNT**k * initial @ np.linalg.matrix_power(chain, k) for k in range(400))
    visits = tabular.occupancy(transition, policy, DISCOUNT, initial)
    np.testing.assert_allclose(visits, series[:, None] * policy, rtol=1e-4)
    np.testing.assert_allclose(visits.sum(), 1, rtol=1e-5)
    value, _ = tabular.policy_evaluation(transition, reward, policy, DISCOUNT)
    np.testing.assert_allclose((visits * reward).sum(), (1 - DISCOUNT) * initial @ value, rtol=1e-4)


def test_optimal_values_equal_value_iteration(process):
    transition, reward, _, _ = process
    value = np.zeros(5)
    for _ in range(2000):
        value = (reward + DISCOUNT * transition @ value).max(1)
    found, q = tabular.optimal_values(transition, reward, DISCOUNT)
    np.testing.assert_allclose(found, value, rtol=1e-4)
    np.testing.assert_allclose(q, reward + DISCOUNT * transition @ value, rtol=1e-4, atol=1e-4)
    many = jax.jit(jax.vmap(lambda discount: tabular.optimal_values(transition, reward, discount)[0]))
    np.testing.assert_allclose(many(jnp.array([0.5, DISCOUNT]))[1], found, rtol=1e-5)


def test_values_in_the_grid_are_powers_of_the_discount_with_and_without_terminal_states():
    transition, reward, _, terminal, _ = gridworld.matrices()  # 5 x 5, start and goal in opposite corners
    value, q = tabular.optimal_values(transition, reward, DISCOUNT, terminal)
    distance = np.add.outer(np.arange(4, -1, -1), np.arange(4, -1, -1)).ravel()
    np.testing.assert_allclose(value[:-1], DISCOUNT ** (distance[:-1] - 1.0), rtol=1e-5)
    np.testing.assert_allclose(q[0], DISCOUNT ** np.array([8.0, 7, 7, 8]), rtol=1e-5)
    np.testing.assert_allclose(tabular.optimal_values(transition, reward, DISCOUNT)[0], value, rtol=1e-5)
    # Where the goal does not absorb, only `terminal` keeps what comes after out of the values.
    leaking, paying = transition.at[-1].set(jnp.eye(25)[0]), reward.at[-1].set(7.0)
    kept, _ = tabular.optimal_values(leaking, paying, DISCOUNT, terminal)
    np.testing.assert_allclose(kept[:-1], value[:-1], rtol=1e-5)


def test_policy_evaluation_can_be_differentiated(process):
    transition, reward, policy, initial = process
    gradient = jax.grad(lambda r: initial @ tabular.policy_evaluation(transition, r, policy, DISCOUNT)[0])(
        jnp.asarray(reward, jnp.float32)
    )
    visits = tabular.occupancy(transition, policy, DISCOUNT, initial)
    np.testing.assert_allclose(gradient, visits / (1 - DISCOUNT), rtol=1e-4)


def test_wrong_arrays_are_refused(process):
    transition, reward, _, initial = process
    for settings, message in (
        ({"transition": transition}, "both transition"),
        ({"transition": transition[0], "reward": reward}, "transition has shape"),
        ({"transition": transition, "reward": reward[:4]}, "reward has shape"),
        ({"transition": 2 * transition, "reward": reward}, "transition must hold probabilities"),
        ({"transition": transition, "reward": reward, "initial": initial - 0.5}, "initial must hold probabilities"),
        ({"transition": transition, "reward": reward, "terminal": np.ones(4)}, "terminal has shape"),
        ({"transition": transition, "reward": reward, "observations": np.ones((4, 2))}, "observations has shape"),
    ):
        with pytest.raises(UserError, match=message):
            envs.make("tabular", **settings)


def test_choices_are_announced_through_every_wrapper():
    env = gridworld.make(slip=0.1)
    wrapped = envs.transform_observation(envs.time_limit(env, 7), lambda observation: 2.0 * observation)
    assert env.spec.discrete
    assert wrapped.spec.discrete
    assert wrapped.spec.max_episode_steps == 7
    assert not envs.make("pointnav").spec.discrete
