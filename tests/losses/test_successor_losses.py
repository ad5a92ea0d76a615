"""Forward-backward losses: numbers by hand, who is detached, and a covariance that cannot be inverted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.losses import successor


def vectors(rows, features, rank, seed=0):
    """``[rows, features]`` on the sphere, in a subspace of ``rank`` dimensions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, features))
    return jnp.asarray(np.sqrt(features) * x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32)


def test_fb_loss_by_hand():
    """Two rows, so two entries beside the diagonal and two along it; a mean over all four would be another number."""
    successor = jnp.array([[[3.0, 1.0], [2.0, 5.0]]])
    target = jnp.array([[7.0, 4.0], [-2.0, 9.0]])
    # 1/2 ((1 - 0.5 * 4)^2 + (2 + 0.5 * 2)^2) / 2 - (3 + 5) / 2
    assert losses.fb_loss(successor, target, 0.5) == pytest.approx(0.5 * (1 + 9) / 2 - 4)
    both = jnp.concatenate([successor, jnp.zeros((1, 2, 2))])  # a head of zeros: 1/2 (2^2 + 1^2) / 2
    assert losses.fb_loss(both, target, 0.5) == pytest.approx(-1.5 + 1.25)


def test_fb_loss_holds_its_target():
    successor, target = jnp.ones((2, 3, 3)), jnp.ones((3, 3))
    assert not jax.grad(losses.fb_loss, argnums=1)(successor, target, 0.9).any()
    slope = jax.grad(losses.fb_loss)(successor, target, 0.9)[0]
    np.testing.assert_allclose(slope, np.where(np.eye(3), -1 / 3, 0.1 / 6), rtol=1e-5)


def test_a_batch_with_itself_is_square_and_has_two_rows():
    with pytest.raises(ValueError, match=r"fb_loss: successor has shape \[2, 3, 4\]"):
        losses.fb_loss(jnp.ones((2, 3, 4)), jnp.ones((3, 4)), 0.9)
    with pytest.raises(ValueError, match="orthonormality_loss: a batch of 1"):
        losses.orthonormality_loss(jnp.ones((1, 4)))


def test_orthonormality_is_least_for_an_orthonormal_basis():
    basis = 2.0 * jnp.eye(4)  # the rows are the whole distribution: E B B^T = I, and the mean of |B|^2 is 4
    assert losses.orthonormality_loss(basis) == pytest.approx(-8.0)
    assert losses.orthonormality_loss(2.0 * jnp.array([[0.6, 0.8, 0, 0]] * 4)) == pytest.approx(16.0 - 8.0)
    # On the sphere only what is beside the diagonal has a gradient.
    x = jax.random.normal(jax.random.key(0), (5, 4))
    along = jax.grad(lambda x: jnp.sum(jnp.square(losses.project_sphere(x))))(x)
    np.testing.assert_allclose(along, 0.0, atol=1e-5)


def test_the_implicit_reward_is_the_reward_that_z_was_made_from():
    """With z = mean(r B), the reward that z stands for is the least-squares fit of r by B."""
    backward = vectors(200, 6, 6)
    reward = np.asarray(backward) @ np.arange(6)
    z = jnp.broadcast_to((backward * reward[:, None]).mean(0), backward.shape)
    np.testing.assert_allclose(losses.implicit_reward(backward, z, 0.0), reward, atol=2e-3)
    inferred = losses.infer_z(backward, jnp.asarray(reward))
    np.testing.assert_allclose(inferred, losses.project_sphere(z[0]), rtol=1e-5)
    np.testing.assert_allclose(losses.infer_z(backward, jnp.asarray(1e3 * reward)), inferred, rtol=1e-4)


@pytest.mark.parametrize(("rows", "features", "rank"), [(16, 50, 16), (64, 50, 1), (64, 50, 5), (64, 50, 50)])
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 1e-2])
def test_the_implicit_reward_of_few_or_collapsed_vectors_is_finite(rows, features, rank, ridge):
    backward, z = vectors(rows, features, rank), vectors(rows, features, features, seed=1)

    @jax.jit
    def both(backward, z):
        total = lambda backward: jnp.sum(jnp.linspace(0.5, 1.5, rows) * losses.implicit_reward(backward, z, ridge))  # noqa: E731
        return losses.implicit_reward(backward, z, ridge), jax.grad(total)(backward)

    value, gradient = both(backward, z)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    if ridge == 1e-2:
        b = np.asarray(backward, np.float64)
        exact = np.linalg.solve(b.T @ b / rows + ridge * np.eye(features), np.asarray(z, np.float64).T)
        np.testing.assert_allclose(value, np.sum(b * exact.T, axis=1), atol=5e-3)


def test_the_solver_is_exact_where_the_matrix_is_sound():
    b = vectors(500, 20, 20)
    matrix, right = b.T @ b / 500, vectors(20, 3, 3)
    np.testing.assert_allclose(matrix @ successor.solve(matrix, right), right, atol=1e-3)


def test_conservatism_over_rows_and_over_pairs():
    samples = jnp.log(jnp.array([[1.0, 2.0], [3.0, 6.0]]))
    np.testing.assert_allclose(losses.conservative_penalty(samples, jnp.zeros(2)), np.log([4.0, 8.0]), rtol=1e-6)
    np.testing.assert_allclose(
        losses.conservative_penalty(samples, jnp.ones(2)), losses.cql_penalty(samples, 0 * samples, jnp.ones(2))
    )
    measures = jnp.full((12, 4, 4), 2.0)
    np.testing.assert_allclose(losses.conservative_penalty(measures, measures[0]), np.log(12), rtol=1e-6)
    assert np.isfinite(losses.conservative_penalty(1e4 * samples, samples[0])).all()
