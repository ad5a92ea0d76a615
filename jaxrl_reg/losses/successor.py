"""Forward-backward representations of successor measures, and how a reward becomes a task vector.

``F_j(s, a, z)`` and ``B(s)`` have ``D`` entries. For the policy of task ``z``, ``F_j(s, a, z)^T B(s+)`` is the density
of its discounted visits, counted from the NEXT state on, relative to the data's distribution of next states. So
``F^T z`` is the value of the reward ``s' -> B(s')^T Cov^-1 z``. Backward vectors and task vectors lie on the sphere of
radius ``sqrt(D)``, where ``E |B|^2 = D`` agrees with ``E B B^T = I``.

Products of a batch with itself lose digits at low precision: trace these losses under
``jax.default_matmul_precision("highest")`` on an accelerator, as ``implicit_reward`` does by itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(x="... D")
def project_sphere(x: Array) -> Array:
    """``sqrt(D) x / |x|``: the nearest point on the sphere of radius ``sqrt(D)``.

    Args:
      x: ``[..., D]``, any scale.
    Returns:
      ``[..., D]``, of length ``sqrt(D)``.
    Raises:
      ValueError: ``x`` is a scalar.
    Edges: a vector shorter than 1e-6, zero included, counts by its length over 1e-6; value and derivative stay finite.
    Source: Touati and Ollivier, 2021, Learning One Representation to Optimize All Rewards, and its code.
    """
    squares = jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12)
    return x.shape[-1] ** 0.5 * x * jax.lax.rsqrt(squares)


@shapes(successor="N B B", target="B B", gamma="")
def fb_loss(successor: Array, target: Array, gamma: Array | float) -> Array:
    """``sum_j 1/2 mean_{i != k} (M_j[i, k] - gamma Mbar[i, k])^2 - mean_i M_j[i, i]``: TD of the successor measure.

    Column ``k`` is another row's next state, a draw from the data; the diagonal is the state that row ``i`` did lead
    to. The task vector of row ``i`` belongs to the whole row. A batch of ``B`` has ``B (B - 1)`` off-diagonal entries.

    Args:
      successor: ``[N, B, B]``, ``M_j[i, k] = F_j(s_i, a_i, z_i)^T B(s'_k)``.
      target: ``[B, B]``, ``min_j Fbar_j(s'_i, a'_i, z_i)^T Bbar(s'_k)``, the minimum ELEMENTWISE; DETACHED here.
      gamma: scalar in [0, 1).
    Returns:
      scalar, without unit; unbounded below until ``B`` is held, see ``orthonormality_loss``.
    Raises:
      ValueError: shapes differ, or there are fewer than two rows.
    Edges: finite for finite input.
    Source: Touati and Ollivier, 2021, Learning One Representation to Optimize All Rewards, eq. 11.
    """
    off, on = _split("fb_loss", jnp.square(successor - gamma * jax.lax.stop_gradient(target)), successor)
    return (0.5 * off - on).sum()


@shapes(backward="B D")
def orthonormality_loss(backward: Array) -> Array:
    """``mean_{i != k} C[i, k]^2 - 2 mean_i C[i, i]`` with ``C = B B^T``, which is least where ``E B B^T = I``.

    It estimates ``|E B B^T - I|^2 - D``. On the sphere the diagonal is the constant ``D`` and sends no gradient.

    Args:
      backward: ``[B, D]``, ``B(s')`` of a batch.
    Returns:
      scalar, without unit; its expectation is at least ``-D``.
    Raises:
      ValueError: ``backward`` is not a matrix, or has fewer than two rows.
    Edges: finite for finite input.
    Source: Touati and Ollivier, 2021, Learning One Representation to Optimize All Rewards, appendix on the
      orthonormalisation of B.
    """
    similarity = backward @ backward.T
    off, on = _split("orthonormality_loss", jnp.square(similarity), similarity)
    return off - 2.0 * on


def _split(name: str, off: Array, on: Array) -> tuple[Array, Array]:
    """Mean of ``off [..., B, B]`` beside the diagonal, and of ``on`` along it; no boolean indexing."""
    size = off.shape[-1]
    if size < 2:
        raise ValueError(f"{name}: a batch of {size} has nothing off the diagonal; expected at least 2 rows")
    beside = jnp.where(jnp.eye(size, dtype=bool), 0.0, off).sum((-2, -1)) / (size * (size - 1))
    return beside, jnp.diagonal(on, axis1=-2, axis2=-1).mean(-1)


@shapes(backward="B D", z="B D", ridge="")
def implicit_reward(backward: Array, z: Array, ridge: Array | float) -> Array:
    """``B(s'_i)^T (Cov + ridge I)^-1 z_i`` with ``Cov = B^T B / B``: the reward for which ``F^T z`` is the value.

    Gradients flow into ``backward``, through the inverse too; the caller detaches where that is not wanted.

    Args:
      backward: ``[B, D]``, ``B(s')`` of a batch.
      z: ``[B, D]``, the task of each row.
      ridge: scalar >= 0; on the sphere ``Cov`` has the mean eigenvalue 1. 0: the plain inverse.
    Returns:
      ``[B]``, in units of reward. The batch is coupled by ``Cov``: do not map over it.
    Raises:
      ValueError: shapes differ.
    Edges: with fewer rows than ``D``, or vectors that have collapsed, ``Cov`` is singular. A ridge below the rounding
      of ``Cov`` (about 1e-5 for 50 features in float32) counts as that, so value and gradient are finite for any
      ridge; a collapsed batch needs 1e-2 for three digits.
    Source: Touati and Ollivier, 2021, Learning One Representation to Optimize All Rewards (code); Zheng et al., 2025,
      Towards Robust Zero-Shot Reinforcement Learning (BREEZE).
    """
    rows, features = backward.shape
    with jax.default_matmul_precision("highest"):
        if rows < features:  # the same number through the smaller of the two Gram matrices
            return (solve(lifted(backward @ backward.T / rows, ridge), backward) * z).sum(-1)
        return (backward * solve(lifted(backward.T @ backward / rows, ridge), z.T).T).sum(-1)


def lifted(gram: Array, ridge: Array | float) -> Array:
    """``gram`` with the ridge on its diagonal, or with the level of its own rounding where that is more."""
    size = gram.shape[0]
    rounding = 2 * size * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram))
    return gram + jnp.maximum(ridge, jax.lax.stop_gradient(rounding)) * jnp.eye(size, dtype=gram.dtype)


def solve(matrix: Array, right: Array) -> Array:
    """``x [D, K]`` with ``matrix x = right`` for a positive definite ``matrix [D, D]``, by Gauss-Jordan elimination.

    Plain array operations: on a CPU with members side by side, LAPACK's threads wait for one another and an update
    takes fifty times as long. Derivatives solve again instead of going through the elimination. Two columns in a turn:
    a step reads what it overwrites, and of two the second writes where the first has read, so nothing is copied.
    """
    size = matrix.shape[0]

    def eliminate(i: Array | int, rows: Array) -> Array:
        pivot = rows[i] / jnp.maximum(rows[i, i], 1e-12)
        return jnp.where(jnp.arange(size)[:, None] == i, pivot, rows - rows[:, i, None] * pivot)

    def two(turn: Array, rows: Array) -> Array:
        i = size % 2 + 2 * turn
        return eliminate(i + 1, jax.lax.optimization_barrier(eliminate(i, rows)))

    def elimination(_, right: Array) -> Array:
        rows = jnp.concatenate([jax.lax.stop_gradient(matrix), right], axis=1)
        rows = eliminate(0, rows) if size % 2 else rows
        return jax.lax.fori_loop(0, size // 2, two, rows)[:, size:]

    return jax.lax.custom_linear_solve(lambda x: matrix @ x, right, elimination, symmetric=True)


@shapes(backward="B D", reward="B")
def infer_z(backward: Array, reward: Array) -> Array:
    """The task vector of a reward from labelled states: the mean of ``r(s') B(s')``, put on the sphere.

    Args:
      backward: ``[B, D]``, ``B`` of the states that steps of the data led to.
      reward: ``[B]``, what arriving there brought.
    Returns:
      ``[D]``, of length ``sqrt(D)``. Its direction does not depend on the unit of the reward.
    Raises:
      ValueError: shapes differ.
    Edges: 0 where no state pays; a goal state alone is ``project_sphere(B(goal))``.
    Source: Touati and Ollivier, 2021, Learning One Representation to Optimize All Rewards, section 4.
    """
    return project_sphere((backward * reward[:, None]).mean(0))
