"""Moving among others: what a plan does to them, and how near it comes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(predicted="... T D", undisturbed="... T D")
def counterfactual_perturbation(predicted: Array, undisturbed: Array) -> Array:
    """``mean_t |f(plan)_t - sg f(null)_t|^2``: how far others move because of us.

    ``predicted`` is what another does in answer to the plan, by a learned model or a differentiable simulator, and the
    gradient flows through it into the plan. ``undisturbed`` is the answer to doing nothing, DETACHED. "Nothing" means
    that we stay where we are, not that we are absent; the model must have seen that happen in its data.

    Args:
      predicted: ``[..., T, D]``, positions at T times.
      undisturbed: ``[..., T, D]``, at the same times, from the same past.
    Returns:
      ``[...]``, squared units of position.
    Raises:
      ValueError: shapes differ.
    Edges: 0, with zero gradient, where nobody moves differently.
    Source: Hirose et al., 2023, SACSoN: Scalable Autonomous Control for Social Navigation, counterfactual perturbation.
    """
    return jnp.square(predicted - jax.lax.stop_gradient(undisturbed)).sum(-1).mean(-1)


@shapes(position="... T D", other="... T D", radius="")
def personal_space_loss(position: Array, other: Array, radius: Array | float) -> Array:
    """``mean_t max(0, radius - |position - other|)^2``: the squared depth of intrusion into a disc around another.

    With the sum of both bodies' radii it is a soft collision term, with a larger one personal space.

    Args:
      position: ``[..., T, D]``, ours.
      other: ``[..., T, D]``, theirs.
      radius: scalar >= 0, units of position.
    Returns:
      ``[...]``, squared units of position.
    Raises:
      ValueError: shapes differ.
    Edges: at coinciding positions the direction is undefined and the gradient 0.
    Source: personal space as in Hirose et al., 2023, SACSoN; the quadratic hinge is ours.
    """
    squared = jnp.square(position - other).sum(-1)
    # sqrt has no slope at 0, which a where alone would not keep out of the gradient.
    distance = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    return jnp.square(jnp.maximum(radius - distance, 0.0)).mean(-1)
