"""CQL and EDAC: closed forms, signs, stability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses


def test_cql_penalty_of_a_constant_critic():
    samples, dimensions = 10, 3
    uniform = jnp.full((samples, 1), -dimensions * np.log(2.0))  # density 0.5 per dimension of [-1, 1]
    found = losses.cql_penalty(jnp.full((samples, 1), 7.0), uniform, jnp.array([7.0]))
    np.testing.assert_allclose(found, [np.log(samples) + dimensions * np.log(2.0)], rtol=1e-6)  # no - log K


def test_cql_importance_weights_undo_the_proposal():
    # log mean_k exp(Q - log p) estimates log of the integral of exp(Q): here Q = a on [-1, 1], proposals uneven.
    generator = np.random.default_rng(0)
    uniform = generator.uniform(-1, 1, 20_000)
    triangular = generator.triangular(-1, 1, 1, 20_000)  # density (a + 1) / 2
    for actions, density in ((uniform, np.full(20_000, 0.5)), (triangular, (triangular + 1) / 2)):
        penalty = losses.cql_penalty(jnp.array(actions), jnp.log(jnp.array(density)), jnp.float32(0.0))
        assert penalty - np.log(20_000) == pytest.approx(np.log(np.e - 1 / np.e), abs=0.02)


def test_cql_penalty_moves_only_the_critic():
    q, log_probs, q_data = jnp.array([[1.0], [1.0]]), jnp.zeros((2, 1)), jnp.array([0.0])
    gradients = jax.jit(jax.grad(lambda *a: losses.cql_penalty(*a).sum(), (0, 1, 2)))(q, log_probs, q_data)
    np.testing.assert_allclose(gradients[0], [[0.5], [0.5]])
    np.testing.assert_array_equal(gradients[1], [[0.0], [0.0]])
    np.testing.assert_array_equal(gradients[2], [-1.0])


def test_cql_penalty_is_stable_and_sums_bfloat16_in_float32():
    big = jnp.array([[1e30], [-1e30]])
    function = jax.value_and_grad(lambda q: losses.cql_penalty(q, jnp.zeros((2, 1)), jnp.zeros(1)).sum())
    value, gradient = jax.jit(function)(big)
    assert value == jnp.float32(1e30)
    np.testing.assert_array_equal(gradient, [[1.0], [0.0]])
    one_left = losses.cql_penalty(jnp.array([-jnp.inf, 2.0]), jnp.zeros(2), jnp.float32(0.0))
    assert one_left == pytest.approx(2.0)
    many = losses.cql_penalty(jnp.zeros(1000, jnp.bfloat16), jnp.zeros(1000, jnp.bfloat16), jnp.bfloat16(0.0))
    assert float(many) == pytest.approx(np.log(1000), abs=0.02)  # a bfloat16 sum stops at 256


def test_cql_lagrange_multiplier_grows_while_the_penalty_exceeds_the_gap():
    def slope(log_weight, penalty):
        return jax.grad(lambda w: losses.cql_lagrange_loss(w, jnp.array([penalty]), 5.0, 10.0).sum())(log_weight)

    assert slope(0.0, 6.0) == pytest.approx(-10.0)  # descent raises the multiplier
    assert slope(0.0, 4.0) == pytest.approx(10.0)
    assert slope(0.0, 5.0) == 0.0
    assert slope(100.0, 6.0) == 0.0
    assert losses.cql_lagrange_weight(100.0) == pytest.approx(1e6)
    assert losses.cql_lagrange_weight(0.0) == 1.0
    assert losses.cql_lagrange_loss(100.0, jnp.array([6.0]), 5.0, 10.0)[0] == pytest.approx(-1e7)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 0.0], [2.0, 0.0]], 2.0),  # N critics that agree: N
        ([[1.0, 0.0], [-3.0, 0.0]], -2.0),
        ([[1.0, 0.0], [0.0, 5.0]], 0.0),
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], 1.0),  # one agreeing pair, counted both ways, over N - 1 = 2
        ([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], 1.0),
    ],
)
def test_gradient_diversity_by_hand(rows, expected):
    gradients = jnp.array(rows)[:, None]
    np.testing.assert_allclose(jax.jit(losses.gradient_diversity_loss)(gradients), [expected], atol=1e-6)


def test_gradient_diversity_ignores_scale_and_survives_extremes():
    generator = np.random.default_rng(0)
    gradients = jnp.array(generator.normal(size=(4, 3, 2)), jnp.float32)
    scales = jnp.array([1e30, 1e-6, 1.0, 1e18])[:, None, None]
    function = jax.jit(jax.value_and_grad(lambda g: losses.gradient_diversity_loss(g).sum()))
    assert float(function(gradients * scales)[0]) == pytest.approx(float(function(gradients)[0]), rel=1e-5)
    for extreme in (jnp.zeros((4, 3, 2)), jnp.full((4, 3, 2), 1e-20), gradients * 1e30):
        value, slope = function(extreme)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
    assert function(jnp.zeros((4, 3, 2)))[0] == 0.0


def test_gradient_diversity_trains_critics_through_their_action_gradients():
    actions = jnp.array([[0.1, 0.2], [0.3, -0.4]])

    @jax.jit
    @jax.grad
    def slope(params):
        critic = lambda p, a: jnp.tanh(a @ p).sum()  # noqa: E731
        per_sample = jax.vmap(jax.vmap(jax.grad(critic, argnums=1), (None, 0)), (0, None))
        return losses.gradient_diversity_loss(per_sample(params, actions)).mean()

    for params in (jnp.zeros((3, 2, 2)), jnp.array(np.random.default_rng(0).normal(size=(3, 2, 2)), jnp.float32)):
        assert np.isfinite(slope(params)).all()
    assert np.abs(slope(params)).max() > 1e-3


def test_gradient_diversity_needs_two_critics():
    with pytest.raises(ValueError, match=r"1 critic\(s\); expected at least 2"):
        losses.gradient_diversity_loss(jnp.ones((1, 3, 2)))


def test_a_value_below_its_bound_is_not_pushed_down_and_one_without_a_bound_is():
    q, bound = jnp.array([1.0, 1.0, 1.0, 3.0]), jnp.array([2.0, -jnp.inf, 0.5, 2.0])
    np.testing.assert_array_equal(losses.calibrated_value(q, bound), [2.0, 1.0, 1.0, 3.0])
    slope = jax.grad(lambda q: losses.calibrated_value(q, bound).sum())(q)
    np.testing.assert_array_equal(slope, [0.0, 1.0, 1.0, 1.0])
