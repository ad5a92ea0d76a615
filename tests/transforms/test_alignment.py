"""AlignGuard's parts by hand, and what vanishes in them whatever the change is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import transforms as t

LEFT = jnp.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.3]])
DELTA = jnp.array([[0.2, -0.1], [0.05, 0.3], [-0.4, 0.1]])
KERNEL = jnp.array([[0.5, -0.3], [0.0, 0.2], [0.7, -0.9]])
PATH = "['kernel']"


def test_parts_and_total_by_hand():
    values, vectors = t.sensitive_directions(LEFT, 1 / 3)
    assert values == pytest.approx([2.210213], abs=1e-6)
    inside, outside = t.split(DELTA, vectors)
    np.testing.assert_allclose(inside + outside, DELTA, atol=1e-7)
    penalty = jax.jit(
        lambda delta, collision: t.alignguard_penalty(
            {"kernel": delta, "bias": None},
            {"kernel": KERNEL, "bias": jnp.zeros(2)},
            {PATH: (values, vectors)},
            sensitive=1.0,
            free=0.1,
            collision=collision,
        )
    )
    total, parts = penalty(DELTA, 0.1)
    assert float(total) == pytest.approx(0.108734, abs=1e-6)
    assert float(parts["sensitive"]) == pytest.approx(0.0793355, abs=1e-6)
    assert float(parts["free"]) == pytest.approx(0.276605, abs=1e-6)
    assert float(parts["overlap"]) == pytest.approx(0.0347663, abs=1e-6)
    gradient = jax.grad(lambda delta: penalty(delta, 0.1)[0])(jnp.zeros_like(DELTA))
    np.testing.assert_array_equal(gradient, jnp.zeros_like(DELTA))  # adapters start at a change of 0
    with pytest.raises(ValueError, match=r"no directions for \['other'\]"):
        t.alignguard_penalty({"other": DELTA}, {"other": KERNEL}, {PATH: (values, vectors)}, sensitive=1.0)


def test_within_one_change_the_separation_vanishes_and_between_two_it_does_not():
    _, vectors = t.sensitive_directions(LEFT, 1 / 3)
    one, gradient = jax.value_and_grad(lambda delta: t.separation_penalty(*t.split(delta, vectors)))(DELTA)
    assert one < 1e-12
    assert jnp.abs(gradient).max() < 1e-5
    first, second = jnp.array([[0.2, -0.1], [0.05, 0.3]]), jnp.array([[0.1, 0.1], [-0.2, 0.4]])
    assert float(t.separation_penalty(first, second)) == pytest.approx(0.459330, abs=1e-6)
    assert float(t.overlap_penalty(first, second, first + second)) == pytest.approx(0.356701, abs=1e-6)
    assert t.separation_penalty(first, 0.0 * second) == 0.0


def test_directions_are_the_largest_and_members_may_be_stacked():
    values, vectors = t.sensitive_directions(jnp.stack([LEFT, 2 * LEFT]), 0.67)
    assert values.shape == (2, 2)
    assert vectors.shape == (2, 3, 2)
    np.testing.assert_allclose(values[1], 2 * values[0], rtol=1e-6)
    assert (values[:, 0] > values[:, 1]).all()
    with pytest.raises(ValueError, match="share is 0"):
        t.sensitive_directions(LEFT, 0)


def test_the_law_of_forgetting_by_hand_and_found_again():
    assert float(t.forgetting_law(1000.0, 1e4, 1.5, 0.02, 0.5, 0.2, 0.03)) == pytest.approx(1.630237, abs=1e-6)
    data = np.array([50.0, 100.0, 200.0, 400.0])
    scale, power, floor = t.fit_forgetting_law(data, 0.004 * data**0.6 + 0.01)
    assert (scale, power, floor) == pytest.approx((0.004, 0.6, 0.01), rel=0.05)
    with pytest.raises(ValueError, match=r"data \[2\], forgetting \[2\]"):
        t.fit_forgetting_law(data[:2], data[:2])
