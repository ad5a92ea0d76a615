"""What features know, read out by a small model that is fitted on some rows and judged on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses
from jaxrl_reg.losses.successor import solve
from jaxrl_reg.networks import mlp
from jaxrl_reg.types import Array, Key


def linear_probe(
    features: Array, target: Array, test_features: Array, test_target: Array, ridge: Array | float = 1e-4
) -> Array:
    """``R^2`` on the test rows of a ridge regression from features to targets, mean over the targets' columns.

    Args:
      features: ``[N, D]`` to fit on; standardised here, so that ``ridge``, relative to ``N``, means the same for all.
      target: ``[N, K]``.
      test_features: ``[M, D]``.
      test_target: ``[M, K]``.
      ridge: >= 0.
    Returns:
      scalar, at most 1; 0 is what the test rows' mean explains, below 0 is worse than that.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x, test = (features - mean) / scale, (test_features - mean) / scale
    gram = jnp.matmul(x.T, x, precision="highest") / len(x) + ridge * jnp.eye(x.shape[1])
    weight = jnp.linalg.solve(gram, jnp.matmul(x.T, target - target.mean(0), precision="highest") / len(x))
    error = jnp.square(test_target - target.mean(0) - test @ weight).sum(0)
    return (1.0 - error / jnp.square(test_target - test_target.mean(0)).sum(0)).mean()


def invariant_regression(
    augmented: Array, outcome: Array, augmentation: Array, weight: Array | float, ridge: Array | float = 1e-6
) -> Array:
    """The linear map of least ``losses.outcome_invariance_loss``, in closed form.

    Args:
      augmented: ``[B, D]``, inputs after an augmentation that leaves the outcome alone.
      outcome: ``[B, K]``.
      augmentation: ``[B, M]``, parameters of each row's augmentation, M well below B.
      weight: scalar >= 0, of plain least squares; 0.01 does well, and a fifth of the rows held out can choose it.
      ridge: scalar > 0, per row.
    Returns:
      weights ``[D, K]``, for centred inputs and outcomes.
    Source: Akbar et al., 2025, An Analysis of Causal Effect Estimation using Outcome Invariant Data Augmentation.
    """
    count = len(augmented)

    def explained(x: Array) -> Array:
        """``(Pi + weight I) x``, without the ``[B, B]`` projection."""
        normal = augmentation.T @ augmentation + ridge * count * jnp.eye(augmentation.shape[1])
        return augmentation @ solve(normal, augmentation.T @ x) + weight * x

    held = explained(augmented)
    return solve(augmented.T @ held + ridge * count * jnp.eye(augmented.shape[1]), held.T @ outcome)


def control_function(
    features: Array, action: Array, outcome: Array, degree: int = 3, ridge: Array | float = 1e-4
) -> Callable[[Array], Array]:
    """The expected outcome of actions outside the data's range, from features that move affinely with the action.

    The features are ``M a + c + v``, where ``v``, what the action does not explain, may also act on the outcome by
    another way (confounding). ``E[y | features, v]`` is fitted as polynomials of single coordinates of both; an
    intervention moves the features and averages over the ``v`` of the data.

    Args:
      features: ``[N, D]``, of an encoder trained with ``losses.linear_invariance_loss``.
      action: ``[N, A]``.
      outcome: ``[N, K]``.
      degree: static.
      ridge: scalar > 0, per row.
    Returns:
      ``predict(action [..., A]) -> [..., K]``, ``E[y | do(action)]``.
    Source: Saengkyongam et al., 2024, Identifying Representations for Intervention Extrapolation, section 3.
    """

    def powers(*parts: Array) -> Array:
        ones = jnp.ones((*parts[0].shape[:-1], 1))
        return jnp.concatenate([ones, *(part**n for part in parts for n in range(1, degree + 1))], -1)

    def fitted(x: Array, y: Array) -> Array:
        return solve(x.T @ x + ridge * len(x) * jnp.eye(x.shape[1]), x.T @ y)

    moves = fitted(_affine(action), features)
    rest = features - _affine(action) @ moves
    weight = fitted(powers(features, rest), outcome)

    def predict(action: Array) -> Array:
        moved = (_affine(action) @ moves)[..., None, :] + rest
        return (powers(moved, jnp.broadcast_to(rest, moved.shape)) @ weight).mean(-2)

    return predict


def _affine(action: Array) -> Array:
    """``[action, 1]``."""
    return jnp.concatenate([action, jnp.ones((*action.shape[:-1], 1))], -1)


def classifier_probe(
    key: Key,
    features: Array,
    label: Array,
    test_features: Array,
    test_label: Array,
    classes: int,
    *,
    hidden: Sequence[int] = (64,),
    steps: int = 500,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
) -> Array:
    """Share of the test rows whose label a perceptron reads from the features: accuracy of state decoding.

    Args:
      key: first weights and batches.
      features: ``[N, D]`` to fit on, standardised here.
      label: int ``[N]``.
      test_features: ``[M, D]``.
      test_label: int ``[M]``.
      classes: number of labels.
    Returns:
      scalar in [0, 1].
    """
    mean, scale = features.mean(0), features.std(0) + 1e-6
    network, optimiser = mlp((features.shape[-1], *hidden, classes)), optax.adam(learning_rate)

    def loss(params, rows):
        logits = network.apply(params, (features[rows] - mean) / scale)
        return losses.cross_entropy_loss(logits, jax.nn.one_hot(label[rows], classes)).mean()

    def step(carry, key):
        params, opt_state = carry
        rows = jax.random.randint(key, (batch_size,), 0, len(features))
        changes, opt_state = optimiser.update(jax.grad(loss)(params, rows), opt_state)
        return (optax.apply_updates(params, changes), opt_state), None

    init_key, key = jax.random.split(key)
    params = network.init(init_key)
    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, steps))
    return (network.apply(params, (test_features - mean) / scale).argmax(-1) == test_label).mean()
