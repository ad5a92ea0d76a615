"""Rewards of a data set without what was logged beside them and moved both: a season, a slot, an author's following."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data.episodes import episode_returns, return_rank
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.losses.deconfounding import confounder_effect, deconfounded_reward, first_stage_f
from jaxrl_reg.types import Dataset

CLASSES = 64  # of a column of whole numbers; more are taken for a mistake
WEAK = 10.0  # an F statistic of instruments below this says that nothing should rest on them
STEP = ("observation", "action")  # what else a reward depends on


def deconfound(
    dataset: Dataset,
    confounders: str | Sequence[str],
    content: str | Sequence[str] | None = None,
    instruments: str | Sequence[str] | None = None,
    *,
    ridge: float = 1e-3,
) -> Dataset:
    """``dataset`` with rewards as they would have been at the mean of its ``confounders``; ranks of returns are taken
    anew, and ``notes`` say what was done.

    All are names of ``extras``, ``[N]`` or ``[N, K]``; ``content`` may also name ``observation`` and ``action``, which
    it is where it is None. Whole numbers are classes, and become a column for each but the first; numbers that measure
    something are stored as floats. Columns are standardised. Without ``instruments`` the effect is that of a regression
    on confounders and content, which is WRONG where something unseen moves both confounder and reward; with them it is
    that of two-stage least squares. A confounder must be fixed before the action. See ``losses.deconfounding``.

    The reward of a row that was dropped (``Dataset.dropped_reward``) has no confounder, and is left out.

    Raises:
      UserError: rewards that are not known; a name that is not there or is in two places; a column that never changes;
        too many classes; a confounder that the content determines; fewer instruments than confounders; instruments that
        are weak, by an F statistic below 10.
    """
    if not dataset.rewarded:
        raise UserError(f"{dataset.name}: its rewards are not known, so there is nothing to take a confounder out of")
    asked = {"confounders": _names(confounders), "content": _names(content) or STEP, "instruments": _names(instruments)}
    _refuse_twice(dataset, asked)
    c, x, z = (_columns(dataset, names, changing=kind != "content") for kind, names in asked.items())
    assert c is not None
    assert x is not None
    names = " and ".join(asked["confounders"])
    if z is None:
        beside = " and ".join(asked["content"])
        _refuse_determined(dataset, names, beside, c, x)
        how = f"a regression on {beside} beside it"
    else:
        how = f"two-stage least squares with {' and '.join(asked['instruments'])}, {_strong(dataset, asked, c, x, z)}"
    reward = jnp.asarray(dataset.reward)
    scaled = jnp.asarray(c), jnp.asarray(x), None if z is None else jnp.asarray(z)
    clean = deconfounded_reward(reward, scaled[0], confounder_effect(reward, *scaled, ridge=ridge))
    moved, total = (float(np.var(np.asarray(part), dtype=np.float64)) for part in (reward - clean, reward))
    note = f"rewards without the effect of {names}, by {how}: {moved / max(total, 1e-30):.1%} of their variance"
    done = dataclasses.replace(dataset, reward=clean, dropped_reward=None, notes=(*dataset.notes, note))
    rank = return_rank(episode_returns(done))[np.asarray(dataset.episode)]
    return dataclasses.replace(done, return_rank=jnp.asarray(rank))


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _refuse_twice(dataset: Dataset, asked: dict[str, tuple[str, ...]]) -> None:
    if not asked["confounders"]:
        raise UserError(f"{dataset.name}: no confounder is named; it has {_known(dataset, STEP[:0])}")
    every = [name for names in asked.values() for name in names]
    for name in every:
        if every.count(name) > 1:
            raise UserError(f"{dataset.name}: {name} is named twice among confounders, content and instruments")


def _known(dataset: Dataset, more: Sequence[str]) -> str:
    return ", ".join((*more, *sorted(dataset.extras))) or "no further columns"


def _columns(dataset: Dataset, names: Sequence[str], *, changing: bool) -> np.ndarray | None:
    """``[N, K]`` float32: the named columns side by side, standardised; None without a name."""
    parts = [_column(dataset, name, changing) for name in names]
    return np.concatenate(parts, axis=1).astype(np.float32) if parts else None


def _column(dataset: Dataset, name: str, changing: bool) -> np.ndarray:
    """``[N, K]`` float64, standardised; classes become columns of 0 and 1 before that."""
    if name in STEP and not changing:
        value = np.asarray(getattr(dataset, name))
    elif name in dataset.extras:
        value = np.asarray(dataset.extras[name]).reshape(dataset.size, -1)
    elif not dataset.extras:
        raise UserError(f"{dataset.name}: there is no {name!r} beside its steps; it has no further columns")
    else:
        raise unknown(f"column of {dataset.name}", name, dataset.extras)
    if value.dtype.kind in "biu":
        classes = [np.unique(column) for column in value.T]
        most = max(len(found) for found in classes)
        if most > CLASSES:
            raise UserError(
                f"{dataset.name}: {name} holds {most:,} different whole numbers, which are taken as classes, at most "
                f"{CLASSES}; if they measure something, store them as floats"
            )
        if changing and most < 2:
            raise UserError(f"{dataset.name}: {name} is the same in every row, so it has moved nothing")
        columns = [column == one for column, found in zip(value.T, classes, strict=True) for one in found[1:]]
        value = np.stack(columns, axis=1) if columns else np.zeros((dataset.size, 0))
    value = value.astype(np.float64)
    value = value - value.mean(axis=0)
    spread = value.std(axis=0)
    if changing and (spread <= 0).any():
        raise UserError(f"{dataset.name}: {name} is the same in every row, so it has moved nothing")
    return value / np.where(spread > 0, spread, 1.0)


def _refuse_determined(dataset: Dataset, names: str, beside: str, c: np.ndarray, x: np.ndarray) -> None:
    """Raises ``UserError`` where a linear function of the content gives a confounder."""
    content = jnp.asarray(x)
    for column in c.T:
        wanted = jnp.asarray(column)
        left = deconfounded_reward(wanted, content, confounder_effect(wanted, content, ridge=0.0))
        if float(jnp.var(left)) < 1e-5:
            raise UserError(f"{dataset.name}: {names} is given by {beside}, so its effect cannot be told from theirs")


def _strong(dataset: Dataset, asked: dict[str, tuple[str, ...]], c: np.ndarray, x: np.ndarray, z: np.ndarray) -> str:
    """How strong the instruments are, in words. Raises ``UserError`` where they are few or weak."""
    names, instruments = (" and ".join(asked[kind]) for kind in ("confounders", "instruments"))
    if z.shape[1] < c.shape[1]:
        raise UserError(
            f"{dataset.name}: {names} makes {c.shape[1]} columns, and {instruments} only {z.shape[1]}: it takes as "
            "many instruments as confounders (whole numbers are classes, one column for each but the first)"
        )
    least = min(float(first_stage_f(jnp.asarray(column), jnp.asarray(z), jnp.asarray(x))) for column in c.T)
    if least < WEAK:
        raise UserError(
            f"{dataset.name}: {instruments} hardly moves {names} (first-stage F {least:.1f}, below {WEAK:g}), so its "
            "effect cannot be known from that; name stronger instruments, or leave them out if nothing unseen moves "
            "both it and the reward"
        )
    return f"first-stage F {least:,.0f}"
