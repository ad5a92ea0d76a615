"""Dispersive losses spread features, at the rate they should; forms that only look like them do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses

VARIANTS = {
    "l2": losses.dispersive_l2_loss,
    "cosine": functools.partial(losses.dispersive_cosine_loss, temperature=1.0),
    "hinge": losses.dispersive_hinge_loss,
    "covariance": losses.dispersive_covariance_loss,
}
NAMES = sorted(VARIANTS)
# Mean distance of pairs after 300 steps of size 1 from features of rank 3 in 32 dimensions, 0.107 apart.
SPREAD = {"l2": 0.343, "cosine": 0.189, "hinge": 1.56, "covariance": 0.144, "held l2": 0.172, "held cosine": 0.107}


def held(logits):
    """How released code mangles the sum: the diagonal, meant to vanish, is clipped to the largest value there is."""
    same = jnp.eye(len(logits), dtype=bool)
    return jax.nn.logsumexp(jnp.where(same, 10.0, jnp.clip(logits, -10.0, 10.0)), axis=1).mean()


def held_l2(h, temperature=0.5):
    square = jnp.square(h[:, None] - h).sum(-1)
    return -held(jnp.sqrt(jnp.where(square > 0, square, 1.0)) / temperature)


def held_cosine(h, temperature=0.5):
    unit = h / jnp.linalg.norm(h, axis=1, keepdims=True)
    return held(unit @ unit.T / temperature)


def mean_distance(h):
    square = np.square(h[:, None] - h).sum(-1)
    return np.sqrt(square).sum() / (len(h) * (len(h) - 1))


def low_rank():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(64, 3)) @ rng.normal(size=(3, 32))
    return (0.107 / mean_distance(h) * h).astype(np.float32)


@functools.cache
def descended():
    """Features after 300 steps on each form, in one program."""
    forms = {**VARIANTS, "held l2": held_l2, "held cosine": held_cosine}

    @jax.jit
    def run(h):
        return {
            name: jax.lax.fori_loop(0, 300, lambda i, h, f=form: h - jax.grad(f)(h), h) for name, form in forms.items()
        }

    return jax.device_get(run(low_rank()))


@pytest.mark.parametrize("name", sorted(SPREAD))
def test_descent_spreads_features_at_the_known_rate(name):
    assert mean_distance(descended()[name]) == pytest.approx(SPREAD[name], rel=0.1)


def test_forms_with_a_clipped_diagonal_are_nearly_inert():
    h = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    forms = {"l2": losses.dispersive_l2_loss, "cosine": losses.dispersive_cosine_loss}
    slopes = {name: np.linalg.norm(jax.jit(jax.grad(form))(h)) for name, form in forms.items()}
    assert slopes["l2"] == pytest.approx(0.1, rel=0.1)
    held = jax.jit(jax.grad(held_l2))
    assert np.linalg.norm(held(h)) < 0.05 * slopes["l2"]
    assert np.linalg.norm(jax.jit(jax.grad(held_cosine))(h)) < 0.005 * slopes["cosine"]
    np.testing.assert_array_equal(held(3 * h), 0.0)  # every distance is cut


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_parts_a_near_pair(name):
    """The sign: going downhill, two rows that nearly agree go apart, and the loss is lower where rows are spread."""
    h = np.array([[1.0, 0.0, 0.3], [1.0, 0.1, 0.3], [-0.5, 0.9, -0.4]], np.float32)
    slope = np.asarray(jax.grad(VARIANTS[name])(h))
    apart = h[1] - h[0]
    assert (slope[1] - slope[0]) @ apart < 0
    assert VARIANTS[name](np.eye(3, dtype=np.float32)) < VARIANTS[name](h)


def test_closed_forms():
    same, cross = np.ones((4, 2), np.float32), np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], np.float32)
    assert losses.dispersive_l2_loss(same) == pytest.approx(0.0, abs=1e-6)
    assert losses.dispersive_l2_loss(1e3 * cross) == pytest.approx(-np.log(4), rel=1e-6)
    assert losses.dispersive_cosine_loss(same, 0.5) == pytest.approx(2.0, rel=1e-6)
    quarter = (np.exp(1) + np.exp(-1) + 2) / 4  # itself, opposite, two at right angles
    assert losses.dispersive_cosine_loss(cross, 1.0) == pytest.approx(np.log(quarter), rel=1e-6)
    assert losses.dispersive_hinge_loss(same, 0.7) == pytest.approx(0.49, rel=1e-6)
    assert losses.dispersive_hinge_loss(cross, 1.0) == 0.0
    wanted = (2 * (3 - np.sqrt(2)) ** 2 + 1) / 3  # two neighbours at sqrt 2, one opposite at 2
    assert losses.dispersive_hinge_loss(cross, 3.0) == pytest.approx(wanted, rel=1e-6)
    assert losses.dispersive_covariance_loss(same) == pytest.approx(1.0)
    assert losses.dispersive_covariance_loss(np.sqrt(1.5) * cross) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_and_zeros_have_finite_gradients(name):
    for h in (np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32), np.eye(3, 2, dtype=np.float32)):
        assert np.isfinite(jax.grad(VARIANTS[name])(h)).all()
    naive = jax.grad(lambda h: jnp.linalg.norm(h[:, None] - h, axis=-1).sum())
    assert np.isnan(naive(np.eye(3, dtype=np.float32))).any()  # what the guard is for


@pytest.mark.parametrize("name", ["hinge", "covariance"])
def test_a_single_row_is_refused(name):
    with pytest.raises(ValueError, match="at least 2 rows"):
        VARIANTS[name](jnp.ones((1, 4)))
