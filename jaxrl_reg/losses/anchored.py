"""Staying near a reference policy: values and policies under a Kullback-Leibler penalty, and how to get a reference."""

from __future__ import annotations

import jax

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(q="... A", log_reference="... A", temperature="")
def kl_regularised_value(q: Array, log_reference: Array, temperature: Array | float) -> tuple[Array, Array]:
    """``max_pi { <pi, q> - lam KL(pi || ref) } = lam log sum_a ref_a e^{q_a / lam}``, and the policy that attains it.

    The policy is ``ref_a e^{q_a / lam}``, normalised. The largest term is taken out before anything is divided by the
    temperature, so that a small one neither overflows nor loses the reference.

    Args:
      q: ``[..., A]``, value of each action.
      log_reference: ``[..., A]``, log-probabilities of the reference, nats; minus infinity forbids an action.
      temperature: scalar lam > 0, units of value per nat. Towards 0: the best action; towards infinity: the reference.
    Returns:
      value ``[...]`` in units of ``q``, and log-policy ``[..., A]`` in nats. Both carry gradients.
    Raises:
      ValueError: shapes differ, or the temperature is not a scalar.
    Edges: finite down to a temperature of 1e-30; an action that the reference forbids keeps minus infinity; NaN where
      all are forbidden.
    Source: Tiapkin et al., 2024, Demonstration-Regularized RL (regularised Bellman equations); Todorov, 2006,
      Linearly-solvable Markov decision problems.
    """
    shifted = q + temperature * log_reference
    top = jax.lax.stop_gradient(shifted.max(axis=-1, keepdims=True))
    scaled = (shifted - top) / temperature
    log_sum = jax.nn.logsumexp(scaled, axis=-1, keepdims=True)
    return (top + temperature * log_sum)[..., 0], scaled - log_sum


@shapes(log_policy="... A", counts="... A", barrier="")
def log_barrier_cloning_loss(log_policy: Array, counts: Array, barrier: Array | float) -> Array:
    """``-sum_a (n_a + barrier) log pi_a``: likelihood of counted actions, and a barrier that keeps every action alive.

    Over all policies it is least at ``(n_a + barrier) / (N + A barrier)``. Without the barrier an action that no
    demonstration shows gets probability 0, and a penalty relative to that policy can be infinite.

    Args:
      log_policy: ``[..., A]``, normalised log-probabilities, nats.
      counts: ``[..., A]``, how often each action was demonstrated.
      barrier: scalar >= 0; 1 in the paper.
    Returns:
      ``[...]``, nats, summed over the demonstrations of a state.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite log-probabilities.
    Source: Tiapkin et al., 2024, Demonstration-Regularized RL (behaviour cloning with a log-barrier).
    """
    return -((counts + barrier) * log_policy).sum(-1)
