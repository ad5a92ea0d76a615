"""Strengths of kinds of segments: golden numbers, closed forms, and a curve whose settings are found again."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.evaluation.association import association_curve, association_strength, fit_association

KINDS = jnp.array([0, 1, 1, 0, 1])


def test_golden_numbers_and_padding():
    strengths = jax.jit(association_strength)
    golden = {0.5: [0.26208, 0.341152], 1.0: [0.24192, 0.295936], 0.0: [0.288, 0.3904]}
    for competition, expected in golden.items():
        found = strengths(KINDS, 0.2, 0.8, competition)
        assert found.shape == (6, 2)
        np.testing.assert_array_equal(found[0], 0.0)
        np.testing.assert_allclose(found[-1], expected, atol=1e-6)
        padded = strengths(jnp.array([-1, 0, 1, 1, -1, 0, 1]), 0.2, 0.8, competition)
        np.testing.assert_allclose(padded[-1], expected, atol=1e-6)
    apart = strengths(KINDS, jnp.array([0.2, 0.5]), 0.8, 0.0)[-1]  # a rate for each kind
    np.testing.assert_allclose(apart, [0.8 * (1 - 0.8**2), 0.8 * (1 - 0.5**3)], rtol=1e-5)


def test_with_full_competition_a_kind_has_its_share_of_a_straight_line():
    """Averaged over the order of segments; one order alone says something else."""
    orders = jnp.array(sorted(set(itertools.permutations([0, 0, 0, 1, 1]))))
    found = jax.jit(jax.vmap(lambda kind: association_strength(kind, 0.3, 0.8, 1.0)[-1]))(orders)
    np.testing.assert_allclose(found.mean(0), np.array([0.6, 0.4]) * 0.8 * (1 - 0.7**5), rtol=1e-5)
    assert float(found[:, 1].std()) > 0.02


def test_without_competition_what_is_rare_is_over_weighted():
    proportions = jnp.linspace(0, 1, 11)
    curve = association_curve(proportions, 20, 0.2, 0.8, 0.0)
    np.testing.assert_allclose(curve, 0.8 * (1 - 0.8 ** (20 * proportions)), rtol=1e-5, atol=1e-6)
    assert float(curve[1]) > 0.3 * float(curve[-1])


def test_a_fit_gives_back_what_made_the_points_and_the_plain_rule_does_not_fit_them():
    proportions = jnp.linspace(0, 1, 11)
    noise = 0.01 * jax.random.normal(jax.random.key(0), (3, 11))
    points = association_curve(proportions, 20, 0.15, 0.7, 0.3) + noise
    free = jax.jit(jax.vmap(lambda strength: fit_association(proportions, strength)))(points)
    for found, true in zip(free, (0.15, 0.7, 0.3), strict=False):
        np.testing.assert_allclose(found, true, atol=0.1)
    plain = jax.jit(jax.vmap(lambda strength: fit_association(proportions, strength, competition=1.0)))(points)
    assert (plain[3] > 1.7 * free[3]).all()
