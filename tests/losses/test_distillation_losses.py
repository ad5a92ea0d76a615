"""Labels refined by an earlier self, and means over what is real: numbers by hand, and what goes wrong without them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses

LABEL, PAST = jnp.array([[1.0, 0.0], [0.0, -1.0]]), jnp.array([[0.0, 0.0], [1.0, -0.5]])


def refined(progress, final_weight=0.85, cap=0.5):
    return losses.self_evolution_target(LABEL, PAST, progress, final_weight, cap)


def test_targets_by_hand():
    np.testing.assert_array_equal(refined(0.0), LABEL)
    np.testing.assert_allclose(refined(1.0, 0.25), [[0.75, 0.0], [0.25, -0.875]])
    np.testing.assert_allclose(refined(0.5, 0.2), [[0.9, 0.0], [0.1, -0.95]], rtol=1e-6)


def test_the_cap_bounds_the_weight_from_above():
    """Its name in the paper is beta_min; as a lower bound it would give half weight to the past from the beginning."""
    np.testing.assert_allclose(refined(1.0), 0.5 * (LABEL + PAST))
    np.testing.assert_allclose(refined(0.1), LABEL + 0.085 * (PAST - LABEL), rtol=1e-6)


def test_the_past_receives_no_gradient():
    def total(label, past):
        return losses.self_evolution_target(label, past, 1.0, 0.25, 1.0).sum()

    of_label, of_past = jax.grad(total, argnums=(0, 1))(LABEL, PAST)
    np.testing.assert_array_equal(of_label, jnp.full_like(LABEL, 0.75))
    np.testing.assert_array_equal(of_past, jnp.zeros_like(PAST))


def test_a_current_prediction_that_is_not_detached_only_rescales_the_loss():
    """The rule as the released code writes it: pred - ((1 - b) a + b pred) = (1 - b) (pred - a)."""
    prediction = jnp.array([[0.3, -0.2], [0.8, 0.1]])

    def plain(p):
        return losses.behaviour_cloning_loss(p, LABEL).sum()

    def released(p):
        return losses.behaviour_cloning_loss(p, 0.6 * LABEL + 0.4 * p).sum()

    def meant(p):
        return losses.behaviour_cloning_loss(p, losses.self_evolution_target(LABEL, PAST, 1.0, 0.4, 1.0)).sum()

    np.testing.assert_allclose(released(prediction), 0.36 * plain(prediction), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(released)(prediction), 0.36 * jax.grad(plain)(prediction), rtol=1e-5)
    ratio = jax.grad(meant)(prediction) / jax.grad(plain)(prediction)
    assert np.ptp(ratio) > 0.1  # another direction


def test_masked_mean_counts_real_steps_only():
    loss = jnp.array([[jnp.nan, 1.0, 2.0], [3.0, 4.0, 5.0]])
    mask = jnp.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    value, gradient = jax.value_and_grad(losses.masked_mean)(loss, mask)
    np.testing.assert_allclose(value, 3.0)  # 15 / 5, not the mean of the windows' means
    np.testing.assert_allclose(gradient, mask / 5.0)
    assert losses.masked_mean(loss, 0.0 * mask) == 0.0
    assert losses.masked_mean(loss, mask > 0) == 3.0


LOGITS, TEACHER = jnp.array([1.0, -0.5, 0.2]), jnp.array([0.3, 0.1, -1.0])


def test_soft_labels_by_hand():
    loss, some = losses.prediction_distillation_loss, jnp.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(loss(LOGITS, TEACHER), 1.205802, atol=1e-6)
    np.testing.assert_allclose(loss(LOGITS, TEACHER) - loss(TEACHER, TEACHER), 0.220318, atol=1e-6)  # the divergence
    np.testing.assert_allclose(loss(LOGITS, TEACHER, 2.0), 4.510935, atol=2e-6)
    np.testing.assert_allclose(loss(LOGITS, TEACHER, 1.0, some), 0.876662, atol=1e-6)
    assert loss(LOGITS, TEACHER, 1.0, 0.0 * some) == 0.0
    np.testing.assert_allclose(losses.binary_distillation_loss(LOGITS, TEACHER), 2.219736, atol=1e-6)
    np.testing.assert_allclose(losses.binary_distillation_loss(LOGITS, TEACHER, some), 1.475386, atol=1e-6)
    np.testing.assert_allclose(losses.feature_distillation_loss(LOGITS, TEACHER), 2.29, atol=1e-6)


def test_soft_labels_have_the_gradient_of_a_divergence_at_any_temperature():
    p, q = jax.nn.softmax(TEACHER / 4.0), jax.nn.softmax(LOGITS / 4.0)
    found = jax.grad(losses.prediction_distillation_loss)(LOGITS, TEACHER, 4.0)
    np.testing.assert_allclose(found, 4.0 * (q - p), atol=1e-6)


def test_what_is_learnt_from_stands_still_and_impossible_classes_do_not_count():
    for loss in (
        losses.prediction_distillation_loss,
        losses.binary_distillation_loss,
        losses.feature_distillation_loss,
    ):
        np.testing.assert_array_equal(jax.grad(loss, argnums=1)(LOGITS, TEACHER), jnp.zeros(3))
    never = TEACHER.at[2].set(-jnp.inf)
    value, gradient = jax.value_and_grad(losses.prediction_distillation_loss)(LOGITS, never)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    no_class = jax.grad(losses.prediction_distillation_loss)(LOGITS, TEACHER, 1.0, jnp.zeros(3))
    np.testing.assert_array_equal(no_class, jnp.zeros(3))
