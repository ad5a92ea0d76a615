"""Follow the regularised leader over a simplex: policies from sums of losses, and estimates that suit them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(cumulative_loss="... A", step_size="")
def log_barrier_policy(cumulative_loss: Array, step_size: Array | float, iterations: int = 40) -> Array:
    """``argmin_p { <p, X> + sum_a log(1 / p_a) / eta }`` over the simplex: ``p_a = 1 / (x_a + c)`` for
    ``x = eta (X - min X)`` and the ``c`` in [1, A] that makes it sum to 1.

    A single loss, however negative, moves this policy little compared with a softmax, for which
    ``kl_regularised_value(-X, uniform, 1 / eta)`` is the same with negative entropy in place of the barrier. Newton's
    method from ``c = 1``: the sum is convex and falls in ``c``, so it never oversteps the root.

    Args:
      cumulative_loss: ``[..., A]``, sum of the losses of each action so far, any unit; constants do not matter.
      step_size: scalar eta > 0, nats per unit of loss.
      iterations: static, Newton steps; 40 are enough for a thousand actions.
    Returns:
      log-probabilities ``[..., A]``, nats; their gradients are those of the exact solution.
    Raises:
      ValueError: shapes differ, or the step size is not a scalar.
    Edges: finite for finite losses; one action has probability 1; equal losses give the uniform policy.
    Source: Dai et al., 2023, Refined Regret for Adversarial MDPs with Linear Function Approximation (algorithm 1);
      Foster et al., 2016, Learning in Games: Robustness of Fast Convergence (the barrier).
    """
    least = jax.lax.stop_gradient(cumulative_loss.min(axis=-1, keepdims=True))
    x = step_size * (cumulative_loss - least)

    def newton(x: Array, c: Array) -> Array:
        share = 1.0 / (x + c)
        return c + (share.sum(-1, keepdims=True) - 1.0) / jnp.square(share).sum(-1, keepdims=True)

    fixed = jax.lax.stop_gradient(x)
    root = jax.lax.fori_loop(0, iterations, lambda _, c: newton(fixed, c), jnp.ones_like(fixed[..., :1]))
    # At the root a Newton step moves nothing, but its derivative is that of the root.
    return -jnp.log(x + newton(x, jax.lax.stop_gradient(root)))


@shapes(kernel="...", loss_to_go="...", bound="...", correction="...")
def magnitude_reduced(kernel: Array, loss_to_go: Array, bound: Array, correction: Array) -> Array:
    """``kernel L - bound min(kernel, 0) + correction``: an importance-weighted estimate that is never far below zero.

    The plain ``kernel L`` is as negative as the kernel. Here what is negative is paid for in advance by the mean of
    ``bound min(kernel, 0)``, which is what ``correction`` must be; then the mean stays, and for ``0 <= L <= bound`` the
    estimate is at least ``correction``.

    Args:
      kernel: ``[...]``, weight of the observed loss in the estimate of another pair, e.g. ``phi' G phi_played``.
      loss_to_go: ``[...]``, observed sum of losses to the end of the episode.
      bound: ``[...]``, the most that ``loss_to_go`` can be, same unit.
      correction: ``[...]``, ``bound`` times the mean of ``min(kernel, 0)`` over what could have been played.
    Returns:
      ``[...]``, unit of the loss.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite arguments.
    Source: Dai et al., 2023, Refined Regret for Adversarial MDPs with Linear Function Approximation (algorithm 2).
    """
    return kernel * loss_to_go - bound * jnp.minimum(kernel, 0.0) + correction
