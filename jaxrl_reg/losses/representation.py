"""What a critic's features owe to Bellman's equation, and what can be read off them.

A critic ``Q(s, a) = w^T phi`` that satisfies ``w^T phi = r + gamma w^T phi'`` has ``|r| <= |w| |phi - gamma phi'|``
(Cauchy-Schwarz), hence an upper bound on the cosine of ``phi`` and ``phi'``: features of consecutive pairs that are
more alike contradict the equation. ``beer_bound`` is that bound, ``beer_loss`` what the cosine exceeds it by. A bias
``b`` of the last layer goes into the reward: with ``r - (1 - gamma) b`` in its place the bound is exact again. Where an
episode terminates there is no next pair and no bound; the mask leaves those rows out.

The measures below are diagnostics, not goals: a regularised critic may control better with a lower rank and more
dormant units. They are DETACHED. "Rank" stands for several numbers in the literature: ``srank`` counts,
``effective_rank`` weighs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

SMALLEST = 1e-6  # length below which a feature vector counts as being this long
ROUNDING = 1e-5  # by which float32 may miss a bound that holds with equality


@shapes(features="... D", next_features="... D", reward="...", weight_square="", gamma="", target_next_features="... D")
def beer_bound(
    features: Array,
    next_features: Array,
    reward: Array,
    weight_square: Array | float,
    gamma: Array | float,
    target_next_features: Array | None = None,
) -> Array:
    """``(|phi|^2 + gamma^2 |phi'|^2 - r^2 / |w|^2) / (2 gamma |phi| |phi'|)``: the most that ``cos(phi, phi')`` may be.

    Args:
      features: ``[..., D]``, ``phi(s, a)``, the inputs of one critic's last layer.
      next_features: ``[..., D]``, ``phi(s', a')`` of the pair that the critic bootstraps from.
      reward: ``[...]``; for a last layer with a bias ``b``: ``r - (1 - gamma) b``. For a target that is not the plain
        one (a minimum over critics, an entropy bonus, a penalty): ``target - gamma Q'(s', a')`` in place of ``r``.
      weight_square: scalar > 0, ``|w|^2`` of the last layer without its bias.
      gamma: scalar in (0, 1], the agent's own discount.
      target_next_features: ``[..., D]``, the ``phi'`` in the denominator where it comes from another network, as in the
        released code, whose numerator has the online critic's features; by default ``next_features``.
    Returns:
      ``[...]``, without unit: above 1 it binds nothing, below -1 nothing can satisfy it. Not detached; ``beer_loss``
      does that.
    Raises:
      ValueError: shapes differ.
    Edges: lengths below 1e-6 and ``weight_square`` below 1e-12 count as these.
    Source: He, Zhou, Fang and Maghsudi, 2024, Adaptive Regularization of Representation Rank as an Implicit Constraint
      of Bellman Equation (BEER), and its code.
    """
    far = next_features if target_next_features is None else target_next_features
    slack = _square(features) + jnp.square(gamma) * _square(next_features)
    slack = slack - jnp.square(reward) / jnp.maximum(weight_square, SMALLEST**2)
    return slack / (2.0 * gamma * _length(features) * _length(far))


@shapes(features="... D", target_next_features="... D", bound="...", mask="...")
def beer_loss(features: Array, target_next_features: Array, bound: Array, mask: Array) -> Array:
    """``mask max(cos(phi, phi') - bound, 0)``: what consecutive features are more alike than Bellman's equation allows.

    Only ``features`` receive a gradient, through the cosine. A bound below -1, as features near 0 have it, counts as
    -1: the gradient is the same, and a few rows do not drown the value.

    Args:
      features: ``[..., D]``, ``phi(s, a)`` of the critic that is trained.
      target_next_features: ``[..., D]``, ``phi'(s', a')``, DETACHED.
      bound: ``[...]``, from ``beer_bound``, DETACHED.
      mask: ``[...]``, 0 where the episode terminates, for which the bound says nothing; DETACHED.
    Returns:
      ``[...]`` in [0, 2] for a mask of ones.
    Raises:
      ValueError: shapes differ.
    Edges: a vector shorter than 1e-6 counts by its length over 1e-6, so zero features (all units off) have the cosine 0
      and a finite gradient.
    Source: He, Zhou, Fang and Maghsudi, 2024, Adaptive Regularization of Representation Rank as an Implicit Constraint
      of Bellman Equation (BEER), and its code.
    """
    far, bound, mask = map(jax.lax.stop_gradient, (target_next_features, bound, mask))
    return mask * jax.nn.relu(_cosine(features, far) - jnp.maximum(bound, -1.0))


@shapes(features="... D", next_features="... D")
def feature_cosine(features: Array, next_features: Array) -> Array:
    """``cos(phi, phi')`` of consecutive pairs; DETACHED.

    Args:
      features: ``[..., D]``, ``phi(s, a)``.
      next_features: ``[..., D]``, ``phi(s', a')``.
    Returns:
      ``[...]`` in [-1, 1], at least 0 after ReLU.
    Raises:
      ValueError: shapes differ.
    Edges: 0 for zero features.
    Source: Kumar et al., 2022, DR3: Value-Based Deep Reinforcement Learning Requires Explicit Regularization, whose
      products of consecutive features this normalises.
    """
    return _cosine(jax.lax.stop_gradient(features), jax.lax.stop_gradient(next_features))


@shapes(cosine="B", bound="B", mask="B")
def violation_fraction(cosine: Array, bound: Array, mask: Array) -> Array:
    """Share of the rows with ``mask`` whose cosine is above Bellman's bound by more than rounding (1e-5); DETACHED.

    Args:
      cosine: ``[B]``, from ``feature_cosine``.
      bound: ``[B]``, from ``beer_bound``.
      mask: ``[B]``, 0 where the episode terminates, weights in general.
    Returns:
      scalar in [0, 1].
    Raises:
      ValueError: shapes differ.
    Edges: 0 if the mask is 0 everywhere.
    Source: He, Zhou, Fang and Maghsudi, 2024, Adaptive Regularization of Representation Rank as an Implicit Constraint
      of Bellman Equation (BEER): the rows on which its loss acts.
    """
    above = jax.lax.stop_gradient(mask * (cosine > bound + ROUNDING))
    return above.sum() / jnp.maximum(jax.lax.stop_gradient(mask).sum(), SMALLEST)


@shapes(features="B D", tolerance="")
def srank(features: Array, tolerance: Array | float = 0.01) -> Array:
    """Fewest singular values that leave out at most the share ``tolerance`` of the sum of all; DETACHED.

    Args:
      features: ``[B, D]``, one layer's outputs for a batch.
      tolerance: scalar in (0, 1), the paper's ``delta``.
    Returns:
      scalar, a whole number from 0 to ``min(B, D)``.
    Raises:
      ValueError: ``features`` is not a matrix.
    Edges: 0 for zero features. Singular values below 1e-6 of the largest are rounding and count as 0.
    Source: Kumar et al., 2021, Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement Learning.
    """
    sizes = _singular_values(features)
    left_out = sizes.sum() - jnp.cumsum(sizes)  # by the first one, by the first two, ...
    too_few = left_out > jax.lax.stop_gradient(tolerance) * sizes.sum()
    return (too_few.sum() + (sizes[0] > 0)).astype(sizes.dtype)


@shapes(features="B D")
def effective_rank(features: Array) -> Array:
    """``exp(entropy)`` of the singular values' shares of their sum; DETACHED.

    Args:
      features: ``[B, D]``, one layer's outputs for a batch.
    Returns:
      scalar from 0 to ``min(B, D)``; ``k`` for ``k`` equal singular values.
    Raises:
      ValueError: ``features`` is not a matrix.
    Edges: 0 for zero features. Singular values below 1e-6 of the largest are rounding and count as 0.
    Source: Roy and Vetterli, 2007, The Effective Rank: A Measure of Effective Dimensionality.
    """
    sizes = _singular_values(features)
    share = sizes / jnp.maximum(sizes.sum(), SMALLEST**2)
    entropy = -(share * jnp.log(jnp.where(share > 0, share, 1.0))).sum()
    return jnp.where(sizes[0] > 0, jnp.exp(entropy), 0.0)


@shapes(features="B D")
def dormant_scores(features: Array) -> Array:
    """Mean absolute output of each unit over the layer's average of that; DETACHED.

    Args:
      features: ``[B, D]``, one layer's outputs for a batch, before a LayerNorm (after one no unit is small).
    Returns:
      ``[D]``, at least 0, mean 1.
    Raises:
      ValueError: ``features`` is not a matrix.
    Edges: 0 for zero features.
    Source: Sokar et al., 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning, equation 1.
    """
    activity = jnp.abs(jax.lax.stop_gradient(features)).mean(axis=0)
    return activity / (activity.mean() + 1e-9)


@shapes(features="B D", threshold="")
def dormant_fraction(features: Array, threshold: Array | float = 0.1) -> Array:
    """Share of units whose ``dormant_scores`` are at most ``threshold``; DETACHED.

    Args:
      features: ``[B, D]``, one layer's outputs for a batch.
      threshold: scalar >= 0; 0 counts dead units only, which saturated or smooth activations do not have.
    Returns:
      scalar in [0, 1].
    Raises:
      ValueError: ``features`` is not a matrix.
    Edges: 1 for zero features.
    Source: Sokar et al., 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning, definition 3.1.
    """
    return (dormant_scores(features) <= jax.lax.stop_gradient(threshold)).mean(dtype=features.dtype)


def measured(hidden: Sequence[Array], threshold: Array | float = 0.1) -> dict[str, Array]:
    """All that is read off the hidden layers of one network on a batch; DETACHED.

    Args:
      hidden: ``[B, D]`` of each layer, the last one being what the output is linear in.
      threshold: of ``dormant_fraction``.
    Returns:
      ``effective_rank``, ``srank`` and ``feature_norm`` (mean length of a row) of the last layer, scalars; ``dormant``
      ``[L]``, of each layer.
    """
    last = hidden[-1]
    return {
        "effective_rank": effective_rank(last),
        "srank": srank(last),
        "feature_norm": _length(jax.lax.stop_gradient(last)).mean(),
        "dormant": jnp.stack([dormant_fraction(layer, threshold) for layer in hidden]),
    }


@shapes(coefficients="... D")
def inverse_participation(coefficients: Array, order: int = 2) -> Array:
    """``sum_d (|c_d| / |c|)^(2 order)``: how few of a basis a unit's weights use; DETACHED.

    1 is a single component, ``D^(1 - order)`` all equally. For weights of a cyclic task take ``|rfft|`` of the rows
    first: a unit that has generalised has one frequency, one that memorises has many.

    Args:
      coefficients: ``[..., D]``, each unit's weights in a basis.
      order: static, at least 1; the source uses 2.
    Returns:
      ``[...]`` in [0, 1].
    Raises:
      ValueError: ``coefficients`` has no axis.
    Edges: 0 for a row shorter than 1e-6, a unit that has decayed away.
    Source: Doshi et al., 2024, To Grok or not to Grok: Disentangling Generalization and Memorization on Corrupted
      Algorithmic Datasets, equation 4.
    """
    coefficients = jax.lax.stop_gradient(coefficients)
    power = jnp.square(coefficients)
    share = power / jnp.maximum(power.sum(axis=-1, keepdims=True), SMALLEST**2)
    alive = _length(coefficients) > SMALLEST
    return jnp.where(alive, (share**order).sum(axis=-1), 0.0)


@shapes(tokens="T D")
def token_cosine(tokens: Array) -> Array:
    """Mean cosine of different tokens of a row; DETACHED. It goes to 1 where they collapse.

    Args:
      tokens: ``[T, D]``, T of at least 2.
    Returns:
      scalar in [-1, 1].
    Raises:
      ValueError: ``tokens`` is not a matrix.
    Edges: 0 / 0 for a single token; a token shorter than 1e-6 counts by its length over 1e-6.
    Source: Thimonier et al., 2025, T-JEPA, section 5 (collapse, and register tokens against it).
    """
    tokens = jax.lax.stop_gradient(tokens)
    unit = tokens / _length(tokens)[:, None]
    count = tokens.shape[0]
    return (jnp.square(unit.sum(axis=0)).sum() - jnp.square(unit).sum()) / (count * (count - 1))


@shapes(features="... D", next_features="... D", mask="...")
def feature_product_loss(features: Array, next_features: Array, mask: Array) -> Array:
    """``mask |<phi, phi'>|``: bootstrapping makes consecutive features alike, and this undoes it (DR3).

    Both carry gradients, so both come from the critic that is trained; features of a target network do not do.

    Args:
      features: ``[..., D]``, ``phi(s, a)``, the inputs of the last layer.
      next_features: ``[..., D]``, ``phi(s', a')`` of the pair that is bootstrapped from.
      mask: ``[...]``, 0 where the episode terminates; DETACHED.
    Returns:
      ``[...]``, squared units of the features.
    Raises:
      ValueError: shapes differ.
    Edges: the gradient at a product of 0 is 0.
    Source: Kumar et al., 2022, DR3: Value-Based Deep Reinforcement Learning Requires Explicit Regularization, equation
      6; the size of the product as in its code.
    """
    return jax.lax.stop_gradient(mask) * jnp.abs((features * next_features).sum(axis=-1))


@shapes(heads="... K", initial_heads="... K", scale="")
def initial_feature_loss(heads: Array, initial_heads: Array, scale: Array | float = 1.0) -> Array:
    """``mean_k (heads_k - scale initial_heads_k)^2``: linear heads on the features still say what they said at first.

    Args:
      heads: ``[..., K]``, of the network that is trained.
      initial_heads: ``[..., K]``, of its initial parameters on the same inputs, divided by their standard deviation;
        DETACHED.
      scale: scalar >= 0, the paper's beta.
    Returns:
      ``[...]``.
    Raises:
      ValueError: shapes differ, or ``scale`` is not a scalar.
    Edges: 0 with gradient 0 at the start if ``scale`` is 1.
    Source: Lyle, Rowland and Dabney, 2022, Understanding and Preventing Capacity Loss in Reinforcement Learning
      (InFeR), equation 5.
    """
    return jnp.square(heads - scale * jax.lax.stop_gradient(initial_heads)).mean(axis=-1)


def _square(x: Array) -> Array:
    return jnp.square(x).sum(axis=-1)


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.maximum(_square(x), SMALLEST**2))  # the root of a constant where it is too short: no NaN


def _cosine(x: Array, y: Array) -> Array:
    return (x * y).sum(axis=-1) / (_length(x) * _length(y))


def _singular_values(features: Array) -> Array:
    """All ``min(B, D)`` singular values of ``[B, D]``, the largest first; what is below 1e-6 of that one is 0.

    Reflections from both sides leave two diagonals, and bisection finds the singular values of these. Unlike the roots
    of the Gram matrix's eigenvalues the small ones come out right. LAPACK is not asked: on a CPU its threads, called
    from several devices at once, may wait for one another for ever.

    Source: Golub and Kahan, 1965, Calculating the Singular Values and Pseudo-Inverse of a Matrix; the count: Fernando
      and Parlett, 1994, Accurate Singular Values and Differential QD Algorithms.
    """
    x = jax.lax.stop_gradient(features)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x.T if x.shape[0] < x.shape[1] else x
    largest = jnp.abs(x).max()
    x = x / jnp.where(largest > 0, largest, 1.0)
    length = jnp.sqrt(jnp.square(x).sum())  # no singular value is above it
    sizes = largest * length * _bisection(*_bidiagonal(x / jnp.where(length > 0, length, 1.0)))
    return jnp.where(sizes > 1e-6 * sizes[0], sizes, 0.0)


def _bidiagonal(x: Array) -> tuple[Array, Array]:
    """Diagonal and what is above it, ``[D]`` each (a last 0 there), with the singular values of ``x [B, D]``."""
    product = functools.partial(jnp.matmul, precision="highest")
    rows, columns = map(jnp.arange, x.shape)

    def mirror(vector: Array, index: Array, start: Array) -> tuple[Array, Array, Array]:
        """The mirror that puts ``vector`` from ``start`` on into one entry: its normal, 2 / |normal|^2, that entry."""
        vector = jnp.where(index >= start, vector, 0.0)
        first = jnp.where(index == start, vector, 0.0).sum()
        image = jnp.where(first > 0, -1.0, 1.0) * jnp.sqrt(_square(vector))
        normal = jnp.where(index == start, first - image, vector)
        square = _square(normal)
        return normal, jnp.where(square > 0, 2.0 / jnp.where(square > 0, square, 1.0), 0.0), image

    def step(x: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
        v, scale, diagonal = mirror(x[:, k], rows, k)
        down = scale * product(v, x)
        w, scale, above = mirror(x[k] - v[k] * down, columns, k + 1)
        across = scale * (product(x, w) - v * product(down, w))
        return x - v[:, None] * down - across[:, None] * w, (diagonal, above)

    return jax.lax.scan(step, x, columns)[1]


def _bisection(diagonal: Array, above: Array) -> Array:
    """Singular values, the largest first, of the matrix with these two diagonals ``[D]``; none may be above 1."""
    squares = jnp.square(diagonal), jnp.square(above)
    rank = jnp.arange(len(diagonal))[::-1]  # how many are smaller

    def count(bound: Array) -> Array:
        """How many singular values are below each ``bound [D]``: negative pivots of the shifted product."""

        def row(carry: tuple[Array, Array], square: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            rest, below = carry
            pivot = square[0] + rest
            pivot = jnp.where(jnp.abs(pivot) < 1e-20, -1e-20, pivot)
            return (rest * (square[1] / pivot) - shift, below + (pivot < 0)), None

        shift = jnp.square(bound)
        return jax.lax.scan(row, (-shift, jnp.zeros_like(shift, rank.dtype)), squares)[0][1]

    def halve(_: int, low_width: tuple[Array, Array]) -> tuple[Array, Array]:
        low, width = low_width
        width = 0.5 * width
        return jnp.where(count(low + width) <= rank, low + width, low), width

    digits = jnp.finfo(diagonal.dtype).nmant + 7
    low, width = jax.lax.fori_loop(0, digits, halve, (jnp.zeros_like(diagonal), jnp.full_like(diagonal, 1.0 + 1e-5)))
    return low + 0.5 * width
