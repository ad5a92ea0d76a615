"""Maps over parameter and gradient trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


def polyak(online: T, target: T, rate: jax.Array | float) -> T:
    """Exponential moving average ``rate online + (1 - rate) target``, leaf by leaf.

    Leaves that are not floating point (counters) are taken from ``online``. Keep targets in float32: in bfloat16 a step
    of 0.005 is smaller than the rounding.

    Args:
      online: pytree of arrays.
      target: pytree of the same structure and shapes; its dtypes are kept.
      rate: scalar in [0, 1], may be traced; 0 keeps the target exactly, 1 copies the online leaves exactly.
    Returns:
      pytree like ``target``.
    Raises:
      ValueError: structures or shapes differ, or ``rate`` is not a scalar.
    Source: Polyak and Juditsky, 1992; target networks of Lillicrap et al., 2015, Continuous Control with Deep RL.
    """
    if jnp.shape(rate) != ():
        raise ValueError(f"polyak: rate has shape {list(jnp.shape(rate))}; expected a scalar")

    def mix(path, new, old):
        if jnp.shape(new) != jnp.shape(old):
            where = jax.tree_util.keystr(path)
            raise ValueError(f"polyak: online{where} has shape {list(new.shape)}, target{where} {list(old.shape)}")
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return new
        wide = jnp.promote_types(old.dtype, jnp.float32)
        step = jnp.asarray(rate, wide)
        return (step * new.astype(wide) + (1.0 - step) * old.astype(wide)).astype(old.dtype)

    return jax.tree_util.tree_map_with_path(mix, online, target)


def clamp_gradients(gradients: T, bound: jax.Array | float) -> T:
    """Every entry of every leaf held within ``[-bound, bound]``, one by one (not by norm; directions change).

    Args:
      gradients: pytree of floating-point arrays.
      bound: scalar >= 0, units of the gradients, may be traced; infinity changes nothing.
    Returns:
      pytree of the same structure, shapes and dtypes. NaN stays NaN.
    Raises:
      ValueError: ``bound`` is not a scalar.
    Source: the gradient clamp of the forward-backward representation code (Touati and Ollivier, 2021).
    """
    if jnp.shape(bound) != ():
        raise ValueError(f"clamp_gradients: bound has shape {list(jnp.shape(bound))}; expected a scalar")
    return jax.tree.map(lambda leaf: jnp.clip(leaf, -bound, bound).astype(leaf.dtype), gradients)


def averaged(trees: Sequence[T], weights: Sequence[jax.Array | float] | jax.Array | None = None) -> T:
    """Weighted mean of parameter trees, leaf by leaf: a soup of checkpoints.

    Args:
      trees: pytrees alike, at least one.
      weights: as many scalars, may be traced, used as they are (a mean if they sum to 1); None: equal ones.
    Returns:
      pytree like the first, in its dtypes.
    Raises:
      ValueError: no tree, or another number of weights.
    Source: Wortsman et al., 2022, Model Soups; Polyak and Juditsky, 1992.
    """
    if not trees:
        raise ValueError("averaged: there are no trees")
    shares = [1.0 / len(trees)] * len(trees) if weights is None else list(weights)
    if len(shares) != len(trees):
        raise ValueError(f"averaged: {len(trees)} trees, {len(shares)} weights")

    def mean(*leaves):
        return sum(share * leaf for share, leaf in zip(shares, leaves, strict=True)).astype(leaves[0].dtype)

    return jax.tree.map(mean, *trees)


def interpolated(first: T, second: T, share: jax.Array | float) -> T:
    """``(1 - share) first + share second``: between weights before and after fine-tuning (WiSE-FT).

    Args:
      first, second: pytrees alike.
      share: scalar, may be traced; 0 is the first exactly, 1 the second, outside [0, 1] extrapolates.
    Source: Wortsman et al., 2022, Robust Fine-Tuning of Zero-Shot Models, equation 1.
    """
    return polyak(second, first, share)


def interpolate_initial(first: T, second: T, share: jax.Array | float) -> T:
    """``((1 - s) first + s second) / sqrt(2 s^2 - 2 s + 1)``: between two draws of first weights, at their variance.

    Args:
      first, second: pytrees alike, drawn independently from distributions of mean 0.
      share: scalar ``s`` in [0, 1], may be traced; 0 is the first exactly, 1 the second.
    Source: Sarnthein et al., 2023, Random Teachers are Good Teachers, section 4.2 (distance to the teacher).
    """
    size = jnp.sqrt(2.0 * share**2 - 2.0 * share + 1.0)
    return jax.tree.map(lambda a, b: (((1.0 - share) * a + share * b) / size).astype(a.dtype), first, second)


def shrink_perturb(
    params: T, fresh: T, shrink: jax.Array | float, perturb: jax.Array | float, select: Callable | None = None
) -> T:
    """``shrink params + perturb fresh``, leaf by leaf: old weights made small, with the noise of new ones.

    Args:
      params: pytree of arrays.
      fresh: pytree alike, newly drawn first weights.
      shrink, perturb: scalars >= 0, may be traced; 0.6 and 0.4 in this package's experiment. With
        ``shrink = 1 - perturb`` it is ``interpolated``.
      select: ``(path, leaf) -> bool``, the leaves that it changes; None: all. Scales of norms are better left out.
    Source: Ash and Adams, 2020, On Warm-Starting Neural Network Training, section 4.
    """

    def mix(path, old, new):
        if select is not None and not select(path, old):
            return old
        return (shrink * old + perturb * new).astype(old.dtype)

    return jax.tree_util.tree_map_with_path(mix, params, fresh)


def largest_change(trees: Sequence[T], base: T) -> T:
    """``base`` plus, entry by entry, the change of largest size among the trees (MagMax).

    The largest VALUE is not that: of changes -3 and 1 it would take 1.

    Args:
      trees: pytrees alike, at least one; of equal sizes the first counts.
      base: pytree alike, before the changes.
    Raises:
      ValueError: no tree.
    Source: Marczak et al., 2024, MagMax: Leveraging Model Merging for Seamless Continual Learning, section 4.
    """
    if not trees:
        raise ValueError("largest_change: there are no trees")

    def most(start, *leaves):
        changes = jnp.stack([leaf - start for leaf in leaves])
        which = jnp.abs(changes).argmax(axis=0)
        return (start + jnp.take_along_axis(changes, which[None], axis=0)[0]).astype(start.dtype)

    return jax.tree.map(most, base, *trees)
