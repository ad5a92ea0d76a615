"""AlignGuard: fine-tuning that stays out of the directions in which earlier behaviour is sensitive."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def sensitive_directions(left: jax.Array, share: float) -> tuple[jax.Array, jax.Array]:
    """Largest eigenvalues and their vectors of a kernel's Gram on the input side: once, before training.

    It is an eigenvalue problem of LAPACK's, so it does not belong into a compiled training loop.

    Args:
      left: ``[in, in]``, symmetric, of ``fisher_factors``; leading axes (members) are allowed.
      share: in (0, 1], static: ``max(1, round(share in))`` directions are kept.
    Returns:
      ``(values [..., m], vectors [..., in, m])``, largest first.
    Raises:
      ValueError: ``share`` is outside (0, 1].
    Source: Das et al., 2025, AlignGuard-LoRA (as described by others; the released code is another method).
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"sensitive_directions: share is {share}; it must be in (0, 1]")
    kept = max(1, round(share * left.shape[-1]))
    values, vectors = jnp.linalg.eigh(left)
    return values[..., ::-1][..., :kept], vectors[..., ::-1][..., :kept]


def split(delta: jax.Array, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``(P delta, delta - P delta)`` with ``P = U U^T``: the part within the kept directions, and the rest.

    Args:
      delta: ``[in, out]``, change of a kernel.
      vectors: ``[in, m]``, orthonormal columns.
    Returns:
      ``(sensitive [in, out], free [in, out])``; their inner product is 0.
    """
    sensitive = vectors @ (vectors.T @ delta)
    return sensitive, delta - sensitive


def sensitive_penalty(delta: jax.Array, values: jax.Array, vectors: jax.Array) -> jax.Array:
    """``sum_i lambda_i |u_i^T delta|^2``: squared Fisher norm of the change within the kept directions.

    Args:
      delta: ``[in, out]``.
      values: ``[m]``, eigenvalues.
      vectors: ``[in, m]``.
    Returns:
      scalar >= 0, in units of ``left`` times squared weights.
    Source: Das et al., 2025, first term of the AlignGuard loss.
    """
    return (values * jnp.square(vectors.T @ delta).sum(axis=-1)).sum()


def overlap_penalty(
    sensitive: jax.Array,
    free: jax.Array,
    kernel: jax.Array,
    boost: jax.Array | float = 2.0,
    threshold: jax.Array | float = 0.1,
) -> jax.Array:
    """``sum_ij eta_ij |sensitive_ij free_ij|``, ``eta = 1 + boost sigmoid(|kernel| - threshold)``: shared coordinates.

    Args:
      sensitive, free: ``[in, out]``, of ``split`` or of two adapters.
      kernel: ``[in, out]``, the CHANGED kernel; gradients pass through it.
      boost, threshold: scalars >= 0, may be traced.
    Returns:
      scalar >= 0, squared weights: the sum over entries (the description in circulation takes their mean).
    Edges: at a change of 0 value and gradient are 0.
    Source: Das et al., 2025, Riemannian overlap. It had no effect beyond noise in our measurements.
    """
    weight = 1.0 + boost * jax.nn.sigmoid(jnp.abs(kernel) - threshold)
    return (weight * jnp.abs(sensitive * free)).sum()


def separation_penalty(first: PyTree, second: PyTree, eps: float = 1e-12) -> jax.Array:
    """``sum over leaves <A, B>^2 / (|A|^2 |B|^2 + eps)``: squared cosine of two changes that are parametrised apart.

    Two adapters trained for two purposes, or one of now and one of an earlier task. The two parts of ONE change
    (``split``) are orthogonal whatever it is, so there the term is 0 with gradient 0 and regularises nothing.

    Args:
      first, second: pytrees (or arrays) alike.
      eps: float > 0, static.
    Returns:
      scalar in [0, number of leaves].
    Edges: 0 where one of the two is 0.
    Source: Das et al., 2025, geodesic separation.
    """

    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.square((a * b).sum()) / (jnp.square(a).sum() * jnp.square(b).sum() + eps)

    return jnp.stack(jax.tree.leaves(jax.tree.map(one, first, second))).sum()


def alignguard_penalty(
    changes: PyTree,
    kernels: PyTree,
    directions: dict[str, tuple[jax.Array, jax.Array]],
    *,
    sensitive: jax.Array | float,
    free: jax.Array | float = 0.0,
    collision: jax.Array | float = 0.0,
    blend: jax.Array | float = 0.5,
    boost: jax.Array | float = 2.0,
    threshold: jax.Array | float = 0.1,
    other: PyTree | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a fine-tuning loss gains so that earlier behaviour stays: AlignGuard's penalty over all kernels.

    ``sensitive |F^1/2 P D|^2 + free |D - P D|^2 + collision (blend overlap + (1 - blend) separation)`` per kernel,
    ``D`` its change; the separation only with ``other``, since within one change it vanishes (``separation_penalty``).

    Args:
      changes: pytree of changes, such as ``low_rank_change(adapters, scale)``; leaves ``[in, out]`` or None.
      kernels: pytree of the parameters before the change, with at least those leaves.
      directions: path of a kernel (``jax.tree_util.keystr``) -> ``sensitive_directions`` of its Gram; constants.
      sensitive, free, collision, blend, boost, threshold: scalars >= 0, may be traced; ``sensitive`` multiplies nats,
        ``free`` squared weights.
      other: pytree like ``changes``, a change that is parametrised apart; None: no separation.
    Returns:
      ``(penalty, parts)``: scalar, and its unweighted parts ``sensitive``, ``free``, ``overlap``, ``separation``.
    Raises:
      ValueError: a change has no directions.
    Source: Das et al., 2025, AlignGuard-LoRA.
    """
    before = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(kernels)[0]}
    parts = dict.fromkeys(("sensitive", "free", "overlap", "separation"), jnp.float32(0.0))
    for path, delta in jax.tree_util.tree_flatten_with_path(changes)[0]:
        name = jax.tree_util.keystr(path)
        if name not in directions:
            raise ValueError(f"alignguard_penalty: no directions for {name}; there are {', '.join(directions)}")
        values, vectors = directions[name]
        inside, outside = split(delta, vectors)
        parts["sensitive"] += sensitive_penalty(delta, values, vectors)
        parts["free"] += jnp.square(outside).sum()
        parts["overlap"] += overlap_penalty(inside, outside, before[name] + delta, boost, threshold)
    if other is not None:
        parts["separation"] = separation_penalty(changes, other)
    crowded = blend * parts["overlap"] + (1.0 - blend) * parts["separation"]
    return sensitive * parts["sensitive"] + free * parts["free"] + collision * crowded, parts


def forgetting_law(
    data: jax.Array | float,
    parameters: jax.Array | float,
    base: jax.Array | float,
    scale: jax.Array | float,
    data_power: jax.Array | float,
    size_power: jax.Array | float,
    floor: jax.Array | float,
) -> jax.Array:
    """``base + scale data^b / parameters^a + floor``: the loss on earlier behaviour after fine-tuning.

    Args:
      data: amount of fine-tuning (tokens, rows or updates), > 0.
      parameters: number of parameters, > 0.
      base: loss before fine-tuning.
      scale, data_power, size_power, floor: A, b, a and E of the law.
    Source: Bethune et al., 2025, Scaling Laws for Forgetting during Finetuning; used by Das et al., 2025.
    """
    return base + scale * jnp.asarray(data) ** data_power / jnp.asarray(parameters) ** size_power + floor


def fit_forgetting_law(data: jax.Array, forgetting: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``(scale, power, floor)`` of ``scale data^power + floor``: a grid of powers, least squares for the rest.

    Args:
      data: ``[n]``, amounts of fine-tuning > 0, at least three different ones.
      forgetting: ``[n]``, loss after minus loss before.
    Returns:
      three scalars; the power is one of 400 from 0.01 to 2.
    Raises:
      ValueError: fewer than three amounts, or shapes that differ.
    """
    data, forgetting = jnp.asarray(data), jnp.asarray(forgetting)
    if data.shape != forgetting.shape or data.ndim != 1 or data.size < 3:
        raise ValueError(f"fit_forgetting_law: data {list(data.shape)}, forgetting {list(forgetting.shape)}; [n >= 3]")
    powers = jnp.linspace(0.01, 2.0, 400)
    largest = data.max()
    x = (data / largest) ** powers[:, None]  # in units of the largest amount, for float32's sake
    x_mean, y_mean = x.mean(axis=1, keepdims=True), forgetting.mean()
    slope = ((x - x_mean) * (forgetting - y_mean)).sum(axis=1) / jnp.square(x - x_mean).sum(axis=1)
    floor = y_mean - slope * x_mean[:, 0]
    best = jnp.square(slope[:, None] * x + floor[:, None] - forgetting).sum(axis=1).argmin()
    return slope[best] / largest ** powers[best], powers[best], floor[best]
