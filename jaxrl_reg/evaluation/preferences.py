"""What learning from pairs does to the responses that pairs show, and to all the others."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_reg.types import Array


def displacement(log_policy: Array, log_ref: Array, chosen: Array, rejected: Array) -> dict[str, Array]:
    """Where a policy's probability has gone since its reference: to the chosen, the rejected, or what no pair shows.

    A loss of pairs falls as long as the chosen gains ON the rejected: both may lose, to responses never seen
    (displacement, dispersion). Exact for responses that can be enumerated.

    Args:
      log_policy: ``[..., A]``, log-probabilities of all responses, nats.
      log_ref: ``[..., A]``, of the reference.
      chosen: ``[...]``, int32, the response preferred by each row's pair.
      rejected: ``[...]``, int32.
    Returns:
      scalars, means over rows: ``chosen_log_ratio`` and ``rejected_log_ratio`` to the reference, nats;
      ``unseen_mass``, probability outside the pair; ``unseen_gain``, how much of it the reference did not have.
    Edges: a response that is impossible under both has a log-ratio of 0. A pair of a response with itself counts its
      probability once.
    Source: Yan et al., 2025, 3D-Properties: Identifying Challenges in DPO (drop, degradation, dispersion); Razin et
      al., 2025, Unintentional Unalignment (likelihood displacement).
    """

    def of(values: Array, which: Array) -> Array:
        return jnp.take_along_axis(values, which[..., None], axis=-1)[..., 0]

    def ratio(which: Array) -> Array:
        new, old = of(log_policy, which), of(log_ref, which)
        return jnp.where(new == old, 0.0, new - old).mean()

    def outside(values: Array) -> Array:
        responses = jnp.arange(values.shape[-1])
        shown = (responses == chosen[..., None]) | (responses == rejected[..., None])
        return jnp.where(shown, 0.0, jnp.exp(values)).sum(-1).mean()

    unseen = outside(log_policy)
    return {
        "chosen_log_ratio": ratio(chosen),
        "rejected_log_ratio": ratio(rejected),
        "unseen_mass": unseen,
        "unseen_gain": unseen - outside(log_ref),
    }
