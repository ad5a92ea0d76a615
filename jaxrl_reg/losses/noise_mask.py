"""A multiplicative noise on inputs that a policy learns by REINFORCE: masks drawn from Beta distributions.

A network gives the parameters of ``M`` Beta distributions for every input, a mask is drawn and multiplies the input
(``upsample`` makes a small grid an image), and the model's loss on the masked input is what the mask is judged by. Draw
it with ``jax.random.beta`` and stop its gradient: that sampler has one of its own.

With sign +1, masks that help are learnt, whose best is nearly no noise where an input informs; with -1, masks that
hurt, which harden a model against inputs that fail.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.policy_gradient import policy_gradient_loss

Array = jax.Array

_EDGE = 1e-4  # a mask nearer to 0 or 1 counts as this far: powers below 1 are infinite there
_LEAST = 1e-3  # of a parameter


@shapes(mask="...", a="...", b="...")
def beta_log_prob(mask: Array, a: Array, b: Array) -> Array:
    """``(a - 1) log m + (b - 1) log(1 - m) - log B(a, b)``: the log-density of a Beta distribution.

    Args:
      mask: ``[...]``, drawn values in [0, 1]; DETACHED.
      a: ``[...]``, > 0.
      b: ``[...]``, > 0.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ.
    Edges: values beyond [1e-4, 1 - 1e-4] count as its ends, so the density there is finite; parameters below 1e-3 count
      as that, without a gradient.
    Source: Yavuz and Yang, 2024, Policy Gradient-Driven Noise Mask.
    """
    mask = jnp.clip(jax.lax.stop_gradient(mask), _EDGE, 1.0 - _EDGE)
    a, b = jnp.maximum(a, _LEAST), jnp.maximum(b, _LEAST)
    return (a - 1.0) * jnp.log(mask) + (b - 1.0) * jnp.log1p(-mask) - jax.scipy.special.betaln(a, b)


@shapes(log_prob="B M", loss="B", sign="")
def mask_policy_loss(log_prob: Array, loss: Array, sign: Array | float = 1.0) -> Array:
    """``sign (loss_i - mean loss) sum_k log p(m_ik)``: REINFORCE on masks, each judged by its own example's loss.

    The variance grows with ``M``: keep it small, and standardise the losses over the batch first.

    Args:
      log_prob: ``[B, M]``, nats, of every cell of every mask.
      loss: ``[B]``, of the model on the masked input; DETACHED. The batch's mean is the baseline.
      sign: scalar, 1 for masks that help the model, -1 for masks that hurt it.
    Returns:
      ``[B]``; only its gradient means something.
    Raises:
      ValueError: shapes differ.
    Edges: 0 where all losses are equal, and in a batch of one.
    Source: what the abstract of Yavuz and Yang, 2024, describes; for what their code does ``pooled_mask_loss``.
    """
    return policy_gradient_loss(log_prob.sum(-1), -sign * (loss - loss.mean()))


@shapes(log_prob="B M", loss="B")
def pooled_mask_loss(log_prob: Array, loss: Array) -> Array:
    """``log sum_k p(m_ik) mean loss``: the released code's form, kept for the record; it learns nothing.

    The sum stands inside the logarithm, so the likeliest cell counts alone; all examples share one reward, without a
    baseline, so every mask that was drawn becomes less likely.

    Args:
      log_prob: ``[B, M]``, nats.
      loss: ``[B]``, of the model on the masked input; DETACHED.
    Returns:
      ``[B]``.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: Yavuz and Yang, 2024, Policy Gradient-Driven Noise Mask (code).
    """
    return jax.nn.logsumexp(log_prob, axis=-1) * jax.lax.stop_gradient(loss.mean())


@shapes(base="M", head="B M", keep="", largest="")
def blend_parameters(base: Array, head: Array, keep: Array | float = 0.9, largest: Array | float = 2.0) -> Array:
    """``exp(keep base + (1 - keep) head)``, the exponent within +-``largest``: a parameter for each cell of each mask.

    Args:
      base: ``[M]``, a slow average of ``head`` over batches; DETACHED.
      head: ``[B, M]``, of the network.
      keep: scalar in [0, 1], the base's part.
      largest: scalar > 0; at 2 the mean of a mask lies within [0.02, 0.98]. The paper's code has no bound.
    Returns:
      ``[B, M]``, > 0.
    Raises:
      ValueError: shapes differ.
    Edges: no gradient beyond the bound.
    Source: Yavuz and Yang, 2024, Policy Gradient-Driven Noise Mask (code).
    """
    return jnp.exp(jnp.clip(keep * jax.lax.stop_gradient(base) + (1.0 - keep) * head, -largest, largest))


def upsample(mask: Array, size: int, blur: float = 0.0) -> Array:
    """A grid of cells as an image of ``size`` pixels on each side, each that of the nearest cell, then blurred.

    Args:
      mask: ``[..., g, g]``.
      size: pixels.
      blur: standard deviation in pixels of a Gaussian that reaches as many to each side, rounded up (6 in the paper's
        code, 13 pixels wide); the image is mirrored at its borders. 0: none.
    Returns:
      ``[..., size, size]``.
    Raises:
      ValueError: the grid is not square, the blur is negative, or reaches as far as the image.
    Source: Yavuz and Yang, 2024, Policy Gradient-Driven Noise Mask.
    """
    reach = math.ceil(blur)
    if mask.ndim < 2 or mask.shape[-1] != mask.shape[-2] or blur < 0 or reach >= size:
        raise ValueError(
            f"upsample: expected a mask [..., g, g] and 0 <= blur < size; got {mask.shape}, {blur}, {size}"
        )
    nearest = jnp.arange(size) * mask.shape[-1] // size
    image = mask[..., nearest, :][..., nearest]
    if not reach:
        return image
    place = jnp.arange(-reach, reach + 1)
    kernel = jnp.exp(-0.5 * jnp.square(place / blur))
    kernel = kernel / kernel.sum()
    # What each pixel takes of every other, mirrored at the border, as a matrix: the same for rows and columns.
    wide = jnp.arange(size)[:, None] + place
    at = jnp.where(wide < 0, -wide, jnp.where(wide >= size, 2 * (size - 1) - wide, wide))
    share = (jax.nn.one_hot(at, size) * kernel[:, None]).sum(1)
    return jnp.einsum("xi,...ij,yj->...xy", share, image, share, precision="highest")
