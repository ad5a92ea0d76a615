"""Statistics over few runs: aggregates with intervals, profiles, comparisons, and what tuning online would cost.

``scores`` is ``[runs, tasks]``: independent runs (seeds) of one method, a column per task, in normalised units so that
tasks may be averaged. Everything is a pure function of arrays and keys. A NaN score makes every statistic of it
NaN: drop or impute failed runs before, and say so.

Source of the aggregates: Agarwal et al., 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError

Array = jax.Array
Key = jax.Array
Scores = Array | tuple[Array, ...]


def mean(scores: Array) -> Array:
    """Mean over all runs and tasks.

    Args:
      scores: ``[runs, tasks]``.
    Returns:
      scalar, units of the scores.
    Raises:
      UserError: ``scores`` is not ``[runs, tasks]``.
    """
    return _matrix(scores).mean()


def median(scores: Array) -> Array:
    """Median over tasks of the mean over runs.

    Args:
      scores: ``[runs, tasks]``.
    Returns:
      scalar, units of the scores.
    Raises:
      UserError: ``scores`` is not ``[runs, tasks]``.
    """
    return jnp.median(_matrix(scores).mean(0))


def iqm(scores: Array) -> Array:
    """Interquartile mean: the mean of what is left of all scores without the lowest and the highest quarter.

    ``floor(n / 4)`` of the ``n = runs x tasks`` scores go at either end, tasks pooled.

    Args:
      scores: ``[runs, tasks]``.
    Returns:
      scalar, units of the scores.
    Raises:
      UserError: ``scores`` is not ``[runs, tasks]``.
    """
    flat = jnp.sort(_matrix(scores).ravel())
    cut = flat.size // 4
    # Sorting puts NaN last, where trimming would hide it.
    return jnp.where(jnp.isnan(flat[-1]), jnp.nan, flat[cut : flat.size - cut].mean())


def optimality_gap(scores: Array, threshold: Array | float = 1.0) -> Array:
    """How far scores stay below ``threshold`` on average; what exceeds it does not count. Lower is better.

    Args:
      scores: ``[runs, tasks]``.
      threshold: scalar, units of the scores (100 if they are percentages).
    Returns:
      scalar >= 0, units of the scores.
    Raises:
      UserError: ``scores`` is not ``[runs, tasks]``.
    """
    return jax.nn.relu(threshold - _matrix(scores)).mean()


def probability_of_improvement(x: Array, y: Array) -> Array:
    """Chance that a run of X beats a run of Y on the same task, averaged over tasks; ties count half (Mann-Whitney).

    Args:
      x: ``[runs, tasks]``.
      y: ``[other runs, tasks]``, the same tasks in the same order.
    Returns:
      scalar in [0, 1]; ``probability_of_improvement(y, x)`` is one minus it.
    Raises:
      UserError: not matrices, or their numbers of tasks differ.
    """
    x, y = _matrix(x), _matrix(y)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"scores of {x.shape[1]} tasks cannot be compared with scores of {y.shape[1]} tasks")
    difference = x[:, None] - y
    wins = jnp.where(jnp.isnan(difference), jnp.nan, 0.5 * (1.0 + jnp.sign(difference)))
    return wins.mean()


def performance_profile(scores: Array, thresholds: Array) -> Array:
    """Fraction of runs, over all tasks, whose score is above each threshold.

    Args:
      scores: ``[runs, tasks]``.
      thresholds: ``[K]``, units of the scores.
    Returns:
      ``[K]`` in [0, 1], falling where the thresholds rise.
    Raises:
      UserError: ``scores`` is not ``[runs, tasks]``.
    """
    scores = _matrix(scores)[..., None]
    return jnp.where(jnp.isnan(scores), jnp.nan, scores > jnp.asarray(thresholds)).mean((0, 1))


def performance_profile_band(
    key: Key, scores: Array, thresholds: Array, reps: int = 2000, confidence: float = 0.95
) -> tuple[Array, Array]:
    """Bootstrap interval of ``performance_profile`` at each threshold separately.

    Args:
      key: typed key.
      scores: ``[runs, tasks]``.
      thresholds: ``[K]``, units of the scores.
      reps: number of resamples.
      confidence: share of resamples inside the band.
    Returns:
      ``(low [K], high [K])``.
    Raises:
      UserError: as ``stratified_bootstrap``.
    """
    scores, thresholds = _matrix(scores), jnp.asarray(thresholds)
    # The thresholds ride along as a second set of scores with one run, which resampling leaves as it is.
    return stratified_bootstrap(key, (scores, thresholds[None]), _profile_of_row, reps, confidence)


def _profile_of_row(scores: Array, thresholds: Array) -> Array:
    return performance_profile(scores, thresholds[0])


def stratified_bootstrap(
    key: Key,
    scores: Scores,
    statistic: Callable[..., Array] = iqm,
    reps: int = 2000,
    confidence: float = 0.95,
    chunk: int = 256,
) -> tuple[Array, Array]:
    """Percentile bootstrap interval; runs are drawn again, with replacement, within each task by itself.

    Args:
      key: typed key; the same key gives the same interval.
      scores: ``[runs, tasks]``, or a tuple of such, resampled independently, for a statistic of several methods:
        ``stratified_bootstrap(key, (x, y), probability_of_improvement)``.
      statistic: ``fn(*scores) -> array`` of any shape; compiled once per function, so pass a named one.
      reps: number of resamples; 2000 is enough for a 95% interval.
      confidence: share of resamples inside the interval, in (0, 1).
      chunk: resamples held in memory at once.
    Returns:
      ``(low, high)``, each of the statistic's shape: the ``(1 -+ confidence) / 2`` quantiles of its resamples. With one
      run per task the interval has width 0; with fewer than about ten it is too narrow.
    Raises:
      UserError: scores that are not matrices, ``reps`` or ``chunk`` below 1, ``confidence`` outside (0, 1).
    Source: Efron, 1979, Bootstrap Methods; stratified by task in Agarwal et al., 2021.
    """
    group = tuple(_matrix(s) for s in (scores if isinstance(scores, tuple) else (scores,)))
    if reps < 1 or chunk < 1:
        raise UserError(f"reps is {reps} and chunk {chunk}; both must be at least 1")
    if not 0 < confidence < 1:
        raise UserError(f"confidence is {confidence}; it must lie between 0 and 1")
    resampled = _resampled_statistics(key, group, statistic, reps, min(chunk, reps))
    low, high = jnp.quantile(resampled, jnp.array([0.5 - confidence / 2, 0.5 + confidence / 2]), axis=0)
    return low, high


@functools.partial(jax.jit, static_argnames=("statistic", "reps", "chunk"))
def _resampled_statistics(key, group, statistic, reps, chunk):
    def once(key):
        keys = jax.random.split(key, len(group))
        return statistic(*(_resample(k, s) for k, s in zip(keys, group, strict=True)))

    return jax.lax.map(once, jax.random.split(key, reps), batch_size=chunk)


def _resample(key: Key, scores: Array) -> Array:
    rows = jax.random.randint(key, scores.shape, 0, scores.shape[0])
    return jnp.take_along_axis(scores, rows, axis=0)


def expected_best_online(scores: Array, evaluated: Array | None = None) -> Array:
    """Expected true score of the policy that one deploys after trying ``k`` of ``P`` policies online, for every ``k``.

    ``k`` policies are drawn without replacement, each gets an evaluated score, and the one with the best evaluation is
    kept. Exact: a policy is kept with probability ``[C(m', k) - C(m, k)] / C(P, k)`` shared among its ties, where ``m``
    policies evaluate below it and ``m'`` not above it. ``k = 1`` is the mean: what picking blindly gives. Reporting
    only the maximum hides how many policies had to be tried.

    Args:
      scores: ``[P]``, true score of every policy (of a hyperparameter sweep, say).
      evaluated: ``[P]``, the scores by which policies are compared, for example a mean over few episodes, or an
        offline estimate; the true ones if None. Map over draws of the noise and average.
    Returns:
      ``[P]``, units of ``scores``; element ``k - 1`` is for a budget of ``k`` policies. It rises with ``k`` if
      policies are compared by their true scores, and may fall otherwise.
    Raises:
      UserError: the arguments are not vectors of one length.
    Source: the online-evaluation budget of offline RL (Kurenkov and Kolesnikov, 2022, Showing Your Offline
      Reinforcement Learning Work) for draws without replacement; as a bandit in Jackson et al., 2025, A Clean Slate for
      Offline Reinforcement Learning (Unifloral).
    """
    scores = jnp.asarray(scores, jnp.result_type(float))
    evaluated = scores if evaluated is None else jnp.asarray(evaluated, scores.dtype)
    if scores.ndim != 1 or scores.shape != evaluated.shape or scores.size == 0:
        raise UserError(f"scores {list(scores.shape)} and evaluated {list(evaluated.shape)} must both be [policies]")
    return _expected_best(scores, evaluated)


@jax.jit
def _expected_best(scores, evaluated):
    policies = scores.shape[0]
    order = jnp.sort(evaluated)
    below = jnp.searchsorted(order, evaluated, side="left")
    upto = jnp.searchsorted(order, evaluated, side="right")
    # all_among[m, k - 1] = C(m, k) / C(P, k): the chance that k draws all fall among a given m policies.
    drawn = jnp.arange(policies)
    ratio = jnp.maximum(jnp.arange(policies + 1)[:, None] - drawn, 0) / (policies - drawn)
    all_among = jnp.cumprod(ratio, axis=1)
    kept = (all_among[upto] - all_among[below]) / (upto - below)[:, None]
    return jnp.matmul(scores, kept, precision="highest")


def bandit_evaluation(
    key: Key,
    returns: Array,
    pulls: int,
    repeats: int = 100,
    policies: int | None = None,
    exploration: Array | float = 2.0**0.5,
) -> Array:
    """Simulate choosing among trained policies by online episodes with a UCB1 bandit, from recorded returns.

    Each repeat draws ``policies`` of the ``P`` without replacement, runs each once in random order, then runs whichever
    has the highest ``mean + exploration sqrt(log t / n)`` in returns scaled to [0, 1]. An episode's return is drawn
    from the recorded ones of its policy. After every episode the policy with the best mean so far would be deployed;
    what is reported is its true score, the mean of all its recorded returns.

    Args:
      key: typed key.
      returns: ``[P, episodes]``, recorded returns of every policy.
      pulls: online episodes to spend.
      repeats: independent simulations.
      policies: size of the subset, all ``P`` if None.
      exploration: scalar >= 0, without unit; UCB1's own is the square root of 2, 0 is greedy.
    Returns:
      ``[repeats, pulls]``, units of the returns; take means and quantiles over the repeats. With noiseless returns the
      mean of column ``k - 1`` is ``expected_best_online(...)[k - 1]`` while ``k <= policies``.
    Raises:
      UserError: ``returns`` is not a matrix, ``pulls`` or ``repeats`` below 1, or ``policies`` not in ``1 .. P``.
    Source: Auer et al., 2002, Finite-time Analysis of the Multiarmed Bandit Problem (UCB1); as an evaluation protocol
      in Jackson et al., 2025, A Clean Slate for Offline Reinforcement Learning (Unifloral).
    """
    returns = _matrix(returns, "returns", "[policies, episodes]")
    arms = returns.shape[0] if policies is None else policies
    if not 1 <= arms <= returns.shape[0]:
        raise UserError(f"policies is {policies}; it must lie between 1 and {returns.shape[0]}")
    if pulls < 1 or repeats < 1:
        raise UserError(f"pulls is {pulls} and repeats {repeats}; both must be at least 1")
    return _bandits(jax.random.split(key, repeats), returns, jnp.asarray(exploration), pulls, arms)


@functools.partial(jax.jit, static_argnames=("pulls", "arms"))
def _bandits(keys, returns, exploration, pulls, arms):
    least, most = returns.min(), returns.max()
    scaled = (returns - least) / jnp.where(most > least, most - least, 1.0)
    true_scores = jnp.where(jnp.isnan(returns).any(), jnp.nan, returns.mean(1))

    def simulate(key):
        choose, play = jax.random.split(key)
        chosen = jax.random.choice(choose, returns.shape[0], (arms,), replace=False)

        def pull(carry, inputs):
            total, count = carry
            time, key = inputs
            average = total / jnp.maximum(count, 1)
            bonus = exploration * jnp.sqrt(jnp.log(jnp.maximum(time, 1)) / jnp.maximum(count, 1))
            arm = jnp.argmax(jnp.where(count == 0, jnp.inf, average + bonus))
            total = total.at[arm].add(jax.random.choice(key, scaled[chosen[arm]]))
            count = count.at[arm].add(1)
            best = jnp.argmax(jnp.where(count == 0, -jnp.inf, total / jnp.maximum(count, 1)))
            return (total, count), true_scores[chosen[best]]

        start = (jnp.zeros(arms, scaled.dtype), jnp.zeros(arms, scaled.dtype))
        return jax.lax.scan(pull, start, (jnp.arange(pulls), jax.random.split(play, pulls)))[1]

    return jax.vmap(simulate)(keys)


def _matrix(scores: Array, name: str = "scores", layout: str = "[runs, tasks]") -> Array:
    scores = jnp.asarray(scores, jnp.result_type(float))
    if scores.ndim != 2 or scores.size == 0:
        raise UserError(f"{name} has shape {list(scores.shape)}; expected {layout}, with at least one of each")
    return scores
