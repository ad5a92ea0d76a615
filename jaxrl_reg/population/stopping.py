"""Which settings of a sweep deserve more training: successive halving, in step or not, and predicted learning curves.

A rule is a pure function from the learning curves so far to the settings that train for one more segment. It looks at
nothing else, so a sweep that was killed and resumed takes the same decisions, and a rule can be replayed on recorded
curves. ``population.race`` executes one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import UserError, unknown

RULES = ("asha", "halving", "prediction")


class Curves(NamedTuple):
    """What a rule sees of ``H`` settings and ``T`` segments."""

    scores: np.ndarray  # [H, T], mean over seeds, higher is better; NaN where there is none yet, -inf after a failure
    done: np.ndarray  # int [H], finished segments
    features: np.ndarray  # [H, P], the swept hyperparameters, standardised; see ``features``


Rule = Callable[[Curves], np.ndarray]  # -> bool [H]: train these for one more segment; none: the race is over


def everyone(curves: Curves) -> np.ndarray:
    """The rule of a plain sweep: every setting to its end."""
    return curves.done < curves.scores.shape[1]


def halving(eta: int = 3, first: int = 1) -> Rule:
    """Successive halving: of the settings that reach ``first``, ``first eta``, ``first eta^2`` ... segments, the best
    ``1 / eta`` (rounded up) go on.

    All settings that are left train at the same time; the last rung is the end of training. ``asha`` does not wait for
    a rung to be complete.

    Args:
      eta: at least 2.
      first: segments before the first decision, at least 1.
    Raises:
      UserError: for values below these.
    Source: Jamieson and Talwalkar, 2016, Non-stochastic Best Arm Identification and Hyperparameter Optimization; Li et
      al., 2018, A System for Massively Parallel Hyperparameter Tuning (ASHA).
    """
    if eta < 2 or first < 1:
        raise UserError(f"halving needs eta={eta} of at least 2 and first={first} of at least 1")

    def rule(curves: Curves) -> np.ndarray:
        total, running, rung = curves.scores.shape[1], np.ones(len(curves.scores), bool), first
        while rung < total and (curves.done[running] >= rung).all():
            at = np.where(running, curves.scores[:, rung - 1], -np.inf)
            best_first = [setting for setting in np.argsort(-at, kind="stable") if running[setting]]
            running = np.isin(np.arange(len(at)), best_first[: -(-len(best_first) // eta)])
            rung *= eta
        due = min(rung, total)
        return running & (curves.done < due)

    return rule


def asha(eta: int = 3, first: int = 1, groups: int = 8) -> Rule:
    """Asynchronous successive halving: whatever is free takes up the best job there is, and nobody waits for a rung.

    A worker is here a group of settings, which trains from one rung (``first``, ``first eta``, ``first eta^2`` ...
    segments, and the end) to the next. It is then formed anew, from the highest rung at which a setting waits that is
    among the best ``1 / eta`` (rounded down) of those that have reached the rung so far; where there is none, from
    settings that have not begun. So a first setting ends long before all have begun, and those that begin later are
    promoted only past better ones; some are promoted too soon, and for that more is trained than by ``halving``. The
    race is over when nothing can be promoted; the best that waits at the highest rung goes on if no setting has ended.

    Args:
      eta: at least 2.
      first: segments before the first decision, at least 1.
      groups: settings per group are this share of all (rounded up); at least 1, which is one large group.
    Raises:
      UserError: for values below these.
    Source: Li et al., 2020, A System for Massively Parallel Hyperparameter Tuning, algorithm 2; with groups for
      workers, and an end, for here settings are finitely many.
    """
    if eta < 2 or first < 1 or groups < 1:
        raise UserError(f"asha needs eta={eta} of at least 2, first={first} and groups={groups} of at least 1")

    def rule(curves: Curves) -> np.ndarray:
        settings, total = curves.scores.shape
        rungs = []
        while first * eta ** len(rungs) < total:
            rungs.append(first * eta ** len(rungs))
        done, lives = curves.done, np.all(curves.scores != -np.inf, axis=1)
        under_way = lives & (done > 0) & (done < total) & ~np.isin(done, rungs)
        if under_way.any():
            return under_way

        def those(chosen: Sequence[int] | np.ndarray) -> np.ndarray:
            return np.isin(np.arange(settings), chosen)

        size = -(-settings // groups)
        ranked = {  # the settings that have reached a rung, best first
            rung: [s for s in np.argsort(-curves.scores[:, rung - 1], kind="stable") if done[s] >= rung]
            for rung in reversed(rungs)
        }
        for rung, best_first in ranked.items():
            promoted = [s for s in best_first[: len(best_first) // eta] if lives[s] and done[s] == rung]
            if promoted:
                return those(promoted[:size])
        if (done == 0).any():
            return those(np.flatnonzero(done == 0)[:size])
        waiting = [s for best_first in ranked.values() for s in best_first if lives[s] and done[s] < total]
        return those([] if (lives & (done == total)).any() else waiting[:1])

    return rule


def prediction(whole: int = 8, probability: float = 0.85, first: int = 1, leaders: int = 2) -> Rule:
    """Stop a setting once its predicted final score is unlikely to beat the best.

    All train for ``first`` segments. Then ``whole`` of them train to the end: the best half so far, which are likely to
    be needed anyway and tell what becomes of the good ones, and others drawn at random. Regressions on their curves and
    settings predict the final scores of the rest after every segment. The best is the best of those that have finished,
    or the one of those under way that is predicted to end highest. Those that lead by what they have scored go on
    whatever is predicted: a few curves to learn from can be wrong about all others, and then the best one is lost.

    Args:
      whole: settings that train to the end, at least 3.
      probability: a setting stops if the chance that it ends below either is at least this, in [0.5, 1).
      first: segments before the first decision, at least 1.
      leaders: how many of those under way no prediction stops, at least 0.
    Raises:
      UserError: for values outside of these.
    Source: Baker, Gupta, Raskar and Naik, 2017, Accelerating Neural Architecture Search using Performance Prediction;
      with ridge regression for their support vectors, the spread of left-out errors for that of the prediction, half of
      the burn-in chosen, the second best, since here settings train side by side, and the leaders.
    """
    if whole < 3 or not 0.5 <= probability < 1 or first < 1 or leaders < 0:
        raise UserError(
            f"prediction needs whole={whole} of at least 3, probability={probability} in [0.5, 1), first={first} of at "
            f"least 1, leaders={leaders} of at least 0"
        )

    def rule(curves: Curves) -> np.ndarray:
        total = curves.scores.shape[1]
        done, lives = curves.done, np.all(curves.scores != -np.inf, axis=1)
        begin = min(first, total)
        if (lives & (done < begin)).any():
            return lives & (done < begin)
        taught = teachers_of(curves.scores[:, begin - 1], whole)
        if (taught & lives & (done < total)).any():
            return taught & lives & (done < total)
        # All others train side by side: one that was passed over once has fewer segments, and never comes back.
        front = done[~taught].max(initial=0)
        going_on = ~taught & lives & (done == front) & (front < total)
        finals = curves.scores[:, -1]
        complete = lives & (done == total)
        if complete.sum() < 3 or not going_on.any():
            return going_on
        partial = curves.scores[going_on, :front]
        # Of what is still to come: where little is known, a setting then keeps its place and gains what others gained.
        gain, spread = predict(
            describe(curves.scores[complete, :front], curves.features[complete]),
            finals[complete] - curves.scores[complete, front - 1],
            describe(partial, curves.features[going_on]),
        )
        mean = partial[:, -1] + gain
        chance = _normal_cdf((finals[complete].max() - mean) / np.maximum(spread, 1e-12))
        leader = mean.argmax()  # all of these train at once, so the best of them counts before it has finished
        behind = (mean[leader] - mean) / np.maximum(np.hypot(spread, spread[leader]), 1e-12)
        place = np.argsort(np.argsort(-partial[:, -1], kind="stable"))
        going_on[going_on] = (np.maximum(chance, _normal_cdf(behind)) < probability) | (place < leaders)
        return going_on

    return rule


def teachers_of(scores: np.ndarray, whole: int) -> np.ndarray:
    """bool ``[H]``: the ``whole`` settings that train to the end, from the scores after the burn-in ``[H]``; half of
    them the best, half drawn at random, the same ones every time. None that has failed."""
    drawn = np.random.default_rng(0).permutation(len(scores))  # grids and Sobol points have periods
    best_first = np.argsort(-scores, kind="stable")[: whole // 2]
    others = drawn[~np.isin(drawn, best_first)]
    order = [setting for setting in (*best_first, *others) if scores[setting] > -np.inf]
    return np.isin(np.arange(len(scores)), order[:whole])


def named(name: str) -> Rule:
    """The rule of this name with its defaults. Raises ``UserError`` for an unknown one."""
    if name not in RULES:
        raise unknown("stopping rule", name, RULES)
    return {"asha": asha, "halving": halving, "prediction": prediction}[name]()


def features(hypers: Any) -> np.ndarray:
    """``[H, P]``: the hyperparameters that differ between settings, as logarithms where all are positive and spread
    over more than a factor of ten, then with mean 0 and standard deviation 1."""
    columns = []
    for field in dataclasses.fields(hypers):
        values = np.asarray(getattr(hypers, field.name), float)
        if np.unique(values).size < 2:
            continue
        if values.min() > 0 and values.max() > 10 * values.min():
            values = np.log(values)
        columns.append((values - values.mean()) / values.std())
    return np.stack(columns, axis=1) if columns else np.zeros((np.shape(next(iter(vars(hypers).values())))[0], 0))


def describe(curves: np.ndarray, features: np.ndarray) -> np.ndarray:
    """``[N, F]``: partial curves ``[N, t]``, their first and second differences, and the settings ``[N, P]``."""
    return np.concatenate([curves, np.diff(curves), np.diff(curves, n=2), features], axis=1)


def predict(known: np.ndarray, target: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression with its penalty chosen by leaving one out.

    Args:
      known: ``[N, F]``, N at least 3; columns are standardised here.
      target: ``[N]``.
      asked: ``[M, F]``.
    Returns:
      ``(mean [M], spread [M])`` in the unit of the target; ``spread`` is the root mean square of the left-out errors,
      widened away from the known points by their leverage.
    """
    centre, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 1e-9 * (1 + np.abs(centre)), scale, np.inf)  # a column that says nothing counts nothing
    x, z, middle = (known - centre) / scale, (asked - centre) / scale, target.mean()
    y, best = target - middle, None
    gram, count = x @ x.T, len(x)
    average = max(np.trace(gram) / count, 1e-12)
    for penalty in average * 10.0 ** np.arange(-4.0, 3.0):
        hat = gram @ np.linalg.inv(gram + penalty * np.eye(count))
        leverage = np.minimum(np.diag(hat) + 1.0 / count, 0.999)  # the mean is fitted as well
        error = np.sqrt(np.mean(np.square((y - hat @ y) / (1.0 - leverage))))
        if best is None or error < best[0]:
            best = error, penalty
    assert best is not None
    error, penalty = best
    inverse = np.linalg.inv(gram + penalty * np.eye(count))
    cross = z @ x.T
    far = (np.square(z).sum(axis=1) - np.einsum("ij,jk,ik->i", cross, inverse, cross)) / penalty
    typical = np.mean((np.diag(gram) - np.einsum("ij,jk,ik->i", gram, inverse, gram)) / penalty)
    return middle + cross @ inverse @ y, error * np.sqrt((1.0 + np.maximum(far, 0.0)) / (1.0 + max(typical, 0.0)))


def replay(rule: Rule, scores: np.ndarray, features: np.ndarray) -> np.ndarray:
    """How many segments each setting would have trained under ``rule``, from whole curves ``[H, T]``: int ``[H]``."""
    done = np.zeros(len(scores), int)
    while True:
        seen = np.where(np.arange(scores.shape[1]) < done[:, None], scores, np.nan)
        asked = rule(Curves(seen, done, features))
        if not asked.any():
            return done
        done = done + asked


def false_stops(scores: np.ndarray, done: np.ndarray) -> float:
    """Share of the stopped settings that would have ended above the best that was kept; 0 where none was stopped.

    Args:
      scores: whole curves ``[H, T]``.
      done: int ``[H]``, segments that each setting was given.
    """
    stopped = done < scores.shape[1]
    if not stopped.any():
        return 0.0
    return float((scores[stopped, -1] > scores[~stopped, -1].max()).mean())


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(x)
