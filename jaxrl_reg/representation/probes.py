"""What features know, read out by a small model that is fitted on some rows and judged on others."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses
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
