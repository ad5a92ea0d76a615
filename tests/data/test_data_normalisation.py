import jax
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.errors import UserError


def test_normalised_observations_match_numpy_and_invert(dataset, columns):
    scaled, normalizer = data.normalize_observations(dataset)
    mean, std = columns["observation"].mean(0), columns["observation"].std(0)
    np.testing.assert_allclose(scaled.observation, (columns["observation"] - mean) / (std + 1e-3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        scaled.next_observation, (columns["next_observation"] - mean) / (std + 1e-3), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(normalizer.unnormalize(scaled.observation), columns["observation"], atol=1e-5)
    np.testing.assert_array_equal(scaled.reward, dataset.reward)
    data.validate(scaled)
    first = columns["observation"][0]
    np.testing.assert_allclose(data.fit_normalizer(dataset, eps=1.0).normalize(first), (first - mean) / (std + 1))


def test_fit_is_exact_far_from_zero():
    # One-pass float32 sums would lose the spread entirely.
    rows = (1e4 + np.random.default_rng(0).normal(size=(100_000, 2))).astype(np.float32)
    normalizer = data.fit_normalizer(rows)
    np.testing.assert_allclose(normalizer.std, rows.astype(np.float64).std(0), rtol=1e-5)
    np.testing.assert_allclose(normalizer.mean, rows.astype(np.float64).mean(0), rtol=1e-7)
    with pytest.raises(UserError, match=r"\(0, 2\)"):
        data.fit_normalizer(rows[:0])


def test_normalizer_is_a_pytree_and_constant_columns_stay_finite():
    normalizer = data.fit_normalizer(np.full((4, 2), 3.0))
    assert len(jax.tree.leaves(normalizer)) == 3
    np.testing.assert_array_equal(normalizer.normalize(np.full(2, 3.0)), [0, 0])


def test_reward_scaling(dataset, columns):
    returns = [columns["reward"][rows].sum(dtype=np.float64) for rows in (slice(0, 4), slice(4, 9), slice(9, 10))]
    scaled = data.normalize_rewards(dataset)
    np.testing.assert_allclose(scaled.reward, columns["reward"] * 1000 / (max(returns) - min(returns)), rtol=1e-5)
    np.testing.assert_allclose(np.ptp(data.episode_returns(scaled)), 1000, rtol=1e-5)
    shifted = data.scale_rewards(dataset, shift=-10.0)
    np.testing.assert_allclose(shifted.reward, columns["reward"] - 10, rtol=1e-5)
    np.testing.assert_array_equal(np.unique(shifted.episode[shifted.return_rank == 1]), [2])  # now the shortest is best
    data.validate(shifted)
    with pytest.raises(UserError, match="no range"):
        data.normalize_rewards(data.scale_rewards(dataset, scale=0.0))
