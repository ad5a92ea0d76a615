"""Actor losses that stay near data: numbers by hand, what is detached, and how the family's conventions relate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses

Q = jnp.array([2.0, -4.0])
ACTION = jnp.array([[0.0, 1.0], [0.5, 0.5]])
TARGET = jnp.array([[1.0, -1.0], [0.5, 0.0]])


def test_behaviour_cloning_averages_over_dimensions():
    np.testing.assert_allclose(losses.behaviour_cloning_loss(ACTION, TARGET), [2.5, 0.125])


def test_awr_weight_by_hand():
    found = losses.awr_weight(jnp.array([0.0, 1.0, -1.0, 5.0]), 3.0, 100.0)
    np.testing.assert_allclose(found, [1.0, np.exp(3.0), np.exp(-3.0), 100.0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("beta", [0.0, 3.0, 1e30])
def test_awr_weight_never_overflows_and_never_exceeds_its_clip(dtype, beta):
    extreme = jnp.array([3e38, -3e38, 1e4, -1e4, 0.0], dtype)
    if beta > 0:
        extreme = jnp.concatenate([extreme, jnp.array([jnp.inf, -jnp.inf], dtype)])
    weight = losses.awr_weight(extreme, jnp.float32(beta), 100.0)
    expected = np.ones(5) if beta == 0 else [100, 0, 100, 0, 1, 100, 0]
    np.testing.assert_array_equal(weight.astype(jnp.float32), np.array(expected, np.float32))
    for clip in np.linspace(0.0, 200.0, 41, dtype=np.float32):
        assert losses.awr_weight(jnp.float32(3e38), 1.0, clip) == clip


def test_weights_and_advantages_send_no_gradient():
    advantage, log_prob = jnp.array([1.0, -1.0]), jnp.array([-2.0, -3.0])
    for weight in (lambda a: losses.awr_weight(a, 3.0, 100.0), lambda a: losses.sparse_weight(a, 100.0)):
        gradient = jax.grad(lambda a, w=weight: losses.weighted_log_prob_loss(log_prob, w(a)).sum())(advantage)
        np.testing.assert_array_equal(gradient, [0.0, 0.0])
    gradient = jax.grad(lambda w: losses.weighted_log_prob_loss(log_prob, w).sum())(advantage)
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


def test_sparse_weight_drops_disadvantages():
    np.testing.assert_allclose(losses.sparse_weight(jnp.array([-3.0, 0.5, jnp.inf]), 100.0), [0.0, 0.5, 100.0])


def test_weight_zero_hides_an_impossible_action():
    log_prob, weight = jnp.array([-jnp.inf, -2.0]), jnp.array([0.0, 3.0])
    value, gradient = jax.value_and_grad(lambda p: losses.weighted_log_prob_loss(p, weight).sum())(log_prob)
    assert value == 6.0
    np.testing.assert_array_equal(gradient, [0.0, -3.0])


def test_adaptive_scale_by_hand_and_at_zero():
    assert losses.adaptive_q_scale(Q, 2.5) == pytest.approx(2.5 / 3.0)
    assert losses.adaptive_q_scale(jnp.zeros(4), 2.5) == pytest.approx(2.5e6)
    assert losses.adaptive_q_scale(jnp.zeros(4), 2.5, floor=0.1) == pytest.approx(25.0)
    assert losses.adaptive_q_scale(jnp.full(4, 3e38), 2.5) >= 0.0


def test_td3bc_by_hand():
    found = losses.regularised_actor_loss(Q, ACTION, TARGET, jnp.ones(2), 1.5)
    np.testing.assert_allclose(found, [-0.5 * 2.0 + 2.5, 0.5 * 4.0 + 0.125])  # lambda = 1.5 / 3


def test_the_scale_is_no_part_of_the_gradient():
    gradient = jax.grad(lambda q: losses.regularised_actor_loss(q, ACTION, TARGET, jnp.ones(2), 1.5).sum())(Q)
    np.testing.assert_allclose(gradient, [-0.5, -0.5])  # with lambda inside it would be orthogonal to Q


def test_reward_scale_does_not_matter():
    small = losses.regularised_actor_loss(Q, ACTION, TARGET, jnp.ones(2), 2.5)
    large = losses.regularised_actor_loss(1e4 * Q, ACTION, TARGET, jnp.ones(2), 2.5)
    np.testing.assert_allclose(small, large, rtol=1e-6)


def test_gate_zero_leaves_only_the_critic():
    def loss(action, gate):
        return losses.regularised_actor_loss(Q, action, TARGET, gate, 2.5).sum()

    np.testing.assert_array_equal(jax.grad(loss)(ACTION, jnp.zeros(2)), np.zeros((2, 2)))
    assert jax.grad(loss)(ACTION, jnp.ones(2))[0, 0] == -1.0  # 2 (0 - 1) / A
    np.testing.assert_array_equal(loss(ACTION, jnp.array([True, False])), loss(ACTION, jnp.array([1.0, 0.0])))


def test_rebrac_sums_over_dimensions():
    found = losses.rebrac_actor_loss(Q, ACTION, TARGET, 0.1)
    np.testing.assert_allclose(found, [0.1 * 5.0 - 2.0 / 3.0, 0.1 * 0.25 + 4.0 / 3.0], rtol=1e-6)


def test_rebrac_coefficient_against_td3bc_alpha():
    alpha, dimensions = 2.5, 2
    rebrac = losses.rebrac_actor_loss(Q, ACTION, TARGET, 1.0 / (alpha * dimensions))
    td3bc = losses.regularised_actor_loss(Q, ACTION, TARGET, jnp.ones(2), alpha)
    np.testing.assert_allclose(alpha * rebrac, td3bc, rtol=1e-6)


def test_advantage_select_gates_with_a_logical_or():
    generated, data = jnp.full((5, 2), 1.0), jnp.full((5, 2), -1.0)
    # advantages (generated, data): both positive; only data; only generated, at 0; neither; data at exactly 0 only
    generated_q = jnp.array([3.0, 0.0, 1.0, 0.0, 0.0])
    data_q = jnp.array([2.0, 2.0, 0.5, -1.0, 1.0])
    target, gate = losses.advantage_select(generated, data, generated_q, data_q, jnp.ones(5), 0.4)
    np.testing.assert_allclose(gate, [0.4, 0.4, 0.4, 0.0, 0.0])  # never 0.8
    np.testing.assert_array_equal(target[:, 0], [1.0, -1.0, 1.0, 1.0, -1.0])


def test_advantage_select_passes_the_gradient_of_the_chosen_action_only():
    def chosen(generated, data):
        q = jnp.array([1.0, 0.0])
        return losses.advantage_select(generated, data, q, 1.0 - q, jnp.zeros(2), 1.0)[0].sum()

    left, right = jax.grad(chosen, (0, 1))(ACTION, TARGET)
    np.testing.assert_array_equal(left, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(right, [[0, 0], [1, 1]])
