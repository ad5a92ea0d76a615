"""How much each parameter matters for what a network says: Fisher information, its factors, output sensitivity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.transforms.low_rank import is_kernel

PyTree = Any
Outputs = Callable[[PyTree, PyTree], jax.Array]
Metric = Callable[[jax.Array], jax.Array]


def categorical_metric(logits: jax.Array) -> jax.Array:
    """Fisher information ``diag(p) - p p^T`` ``[K, K]`` of a categorical distribution in its logits ``[K]``."""
    p = jax.nn.softmax(logits)
    return jnp.diag(p) - p[:, None] * p


def gaussian_metric(outputs: jax.Array) -> jax.Array:
    """Fisher information ``diag(1 / sigma^2, 2)`` ``[2A, 2A]`` of a diagonal normal in ``[mean, log std]`` ``[2A]``."""
    log_std = jnp.split(outputs, 2)[1]
    return jnp.diag(jnp.concatenate([jnp.exp(-2.0 * log_std), jnp.full_like(log_std, 2.0)]))


def bernoulli_metric(logits: jax.Array) -> jax.Array:
    """Fisher information ``diag(s (1 - s))`` ``[K, K]`` of independent Bernoulli variables in their logits ``[K]``."""
    s = jax.nn.sigmoid(logits)
    return jnp.diag(s * (1.0 - s))


def _mean_over_rows(function: Callable[[PyTree], PyTree], rows: PyTree, chunk: int) -> PyTree:
    """Mean over rows of ``function(row)``, by chunks, so that the memory is that of one chunk."""
    count = jax.tree.leaves(rows)[0].shape[0]
    if count == 0:
        raise ValueError("rows: there are none")
    size = min(chunk, count)
    whole = count // size

    def total(part: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), jax.vmap(function)(part))

    first = jax.tree.map(lambda leaf: leaf[: whole * size].reshape(whole, size, *leaf.shape[1:]), rows)
    rest = jax.tree.map(lambda leaf: leaf[whole * size :], rows)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(total, rest))
    if count > whole * size:
        start = total(rest)
    summed, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, total(part)), None), start, first)
    return jax.tree.map(lambda leaf: leaf / count, summed)


def fisher_diagonal(outputs: Outputs, metric: Metric, params: PyTree, rows: PyTree, chunk: int = 64) -> PyTree:
    """Diagonal of the Fisher information: mean over rows of ``sum_kl M_kl J_k J_l``, exact in the outputs.

    The expectation over what the network might say is taken by ``metric`` in closed form, so nothing is sampled and no
    label is needed.

    Args:
      outputs: ``(params, row) -> [K]``: logits, or mean and log std one after the other.
      metric: ``[K] -> [K, K]``, Fisher information of the distribution in its outputs: ``categorical_metric``,
        ``gaussian_metric``, ``bernoulli_metric``.
      params: pytree of arrays.
      rows: pytree with a leading axis ``N``; of the behaviour that is to be kept.
      chunk: int, static; memory is that of ``chunk`` Jacobians ``[K, P]``.
    Returns:
      pytree like ``params``, entries >= 0, in units of nats per squared weight.
    Raises:
      ValueError: no rows.
    Source: Kirkpatrick et al., 2017, Overcoming Catastrophic Forgetting; Martens, 2020, New Insights and Perspectives
      on the Natural Gradient Method, section 5.
    """

    def one(row: PyTree) -> PyTree:
        jacobian, weight = jax.jacrev(outputs)(params, row), metric(outputs(params, row))
        return jax.tree.map(lambda j: jnp.einsum("kl,k...,l...->...", weight, j, j), jacobian)

    return _mean_over_rows(one, rows, chunk)


def squared_gradients(
    log_prob: Callable[[PyTree, PyTree], jax.Array], params: PyTree, rows: PyTree, chunk: int = 64
) -> PyTree:
    """Mean over rows of the squared gradient of a log-probability, entry by entry.

    With the data's labels in the rows it is the "empirical Fisher", which is not the Fisher information away from the
    optimum; with labels sampled from the network it is a Monte Carlo estimate of it.

    Args:
      log_prob: ``(params, row) -> scalar``.
      params: pytree of arrays.
      rows: pytree with a leading axis ``N``.
      chunk: int, static.
    Returns:
      pytree like ``params``.
    Raises:
      ValueError: no rows.
    Source: Kunstner, Balles and Hennig, 2019, Limitations of the Empirical Fisher Approximation.
    """
    return _mean_over_rows(lambda row: jax.tree.map(jnp.square, jax.grad(log_prob)(params, row)), rows, chunk)


def fisher_factors(
    outputs: Outputs, metric: Metric, params: PyTree, rows: PyTree, chunk: int = 64
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The two Grams of each kernel's part of the Fisher information: ``F ~ left (x) right / trace``.

    ``left = E sum_kl M_kl J_k J_l^T`` and ``right = E sum_kl M_kl J_k^T J_l`` with the Jacobians ``J_k`` ``[in, out]``;
    both have the trace of F.

    Args:
      outputs, metric, params, rows, chunk: see ``fisher_diagonal``.
    Returns:
      path of a kernel, as ``jax.tree_util.keystr`` writes it, -> ``(left [in, in], right [out, out])``; kernels of two
      axes only.
    Raises:
      ValueError: no rows, or no kernel.
    Source: Martens and Grosse, 2015, Optimizing Neural Networks with Kronecker-factored Approximate Curvature; here
      both factors are marginals of the exact F, not the product of inputs' and gradients' moments.
    """

    def one(row: PyTree) -> dict[str, tuple[jax.Array, jax.Array]]:
        jacobian, weight = jax.jacrev(outputs)(params, row), metric(outputs(params, row))
        found = {}
        for path, j in jax.tree_util.tree_flatten_with_path(jacobian)[0]:
            if is_kernel(path, j) and j.ndim == 3:
                left = jnp.einsum("kl,kio,ljo->ij", weight, j, j)
                found[jax.tree_util.keystr(path)] = left, jnp.einsum("kl,kio,lip->op", weight, j, j)
        if not found:
            raise ValueError("fisher_factors: the parameters have no kernel of two axes")
        return found

    return _mean_over_rows(one, rows, chunk)


def kronecker_quadratic(delta: PyTree, factors: dict[str, tuple[jax.Array, jax.Array]]) -> jax.Array:
    """``sum over kernels tr(left D right D^T) / tr(left)``: the Fisher norm of a change, by its factors.

    Args:
      delta: pytree like the parameters; leaves without factors do not count.
      factors: of ``fisher_factors``; constants.
    Returns:
      scalar >= 0, nats (twice the divergence to second order).
    Raises:
      ValueError: a path of ``factors`` is not in ``delta``.
    Edges: 0 for a kernel whose Fisher information vanishes.
    Source: Martens and Grosse, 2015.
    """
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(delta)[0]}
    if missing := [path for path in factors if path not in leaves]:
        raise ValueError(f"kronecker_quadratic: delta has no leaf {missing[0]}; it has {', '.join(leaves)}")
    total = jnp.float32(0.0)
    for path, (left, right) in factors.items():
        trace = jnp.trace(left)
        quadratic = jnp.einsum("ij,jp,po,io->", left, leaves[path], right, leaves[path])
        total = total + jnp.where(trace > 0, quadratic / jnp.where(trace > 0, trace, 1.0), 0.0)
    return total


def output_sensitivity(outputs: Outputs, params: PyTree, rows: PyTree, chunk: int = 64) -> PyTree:
    """Mean over rows of ``|d |outputs|^2 / d params|``: how much a weight moves the answer, whatever is right.

    Args:
      outputs: ``(params, row) -> [K]``.
      params, rows, chunk: see ``fisher_diagonal``; no labels are needed.
    Returns:
      pytree like ``params``, entries >= 0. The absolute value is taken row by row, before the mean.
    Raises:
      ValueError: no rows.
    Source: Aljundi et al., 2018, Memory Aware Synapses, equation 3 and section 4.1 (squared norm of the outputs).
    """

    def size(params: PyTree, row: PyTree) -> jax.Array:
        return jnp.square(outputs(params, row)).sum()

    return _mean_over_rows(lambda row: jax.tree.map(jnp.abs, jax.grad(size)(params, row)), rows, chunk)


def accumulate(old: PyTree, new: PyTree, decay: jax.Array | float = 1.0) -> PyTree:
    """``decay old + new``: importance over tasks, in online elastic weight consolidation.

    Args:
      old, new: pytrees alike, of earlier tasks and of the last one.
      decay: scalar in [0, 1], may be traced; 1 forgets nothing.
    Source: Schwarz et al., 2018, Progress and Compress, section 4 (online EWC).
    """
    return jax.tree.map(lambda before, last: decay * before + last, old, new)


def normalised_importance(importance: PyTree, keep: float | None = None) -> PyTree:
    """Each leaf divided by its mean, so that a coefficient means the same for every task and layer.

    It is no Fisher information any more.

    Args:
      importance: pytree of arrays, entries >= 0.
      keep: static, in (0, 1]: only the largest such share of each leaf is kept (at least one entry, ties together), the
        rest is 0; None: all.
    Returns:
      pytree alike. A leaf of zeros stays 0.
    Raises:
      ValueError: ``keep`` is outside (0, 1].
    Source: the released code of MLLM-CTBench (Guo et al., 2025), which keeps a tenth.
    """
    if keep is not None and not 0.0 < keep <= 1.0:
        raise ValueError(f"normalised_importance: keep is {keep}; it must be in (0, 1]")

    def one(leaf: jax.Array) -> jax.Array:
        mean = leaf.mean()
        scaled = jnp.where(mean > 0, leaf / jnp.where(mean > 0, mean, 1.0), 0.0)
        if keep is None:
            return scaled
        least = jax.lax.top_k(scaled.reshape(-1), max(1, round(keep * scaled.size)))[0][-1]
        return jnp.where(scaled >= least, scaled, 0.0)

    return jax.tree.map(one, importance)
