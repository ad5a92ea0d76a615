"""Checking one column of a data set: every error names the file, the key and the row as the user knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import UserError

BOUND_TOLERANCE = 1e-6  # actions this far outside [-1, 1] are rounding, and are clipped
MOST_ACTIONS = 256  # of a discrete task; larger whole numbers are taken for a mistake
CONTINUOUS = "if they are continuous all the same, give their bounds with --action-low and --action-high"


class Source(NamedTuple):
    """Where arrays came from, so that an error names the file, the key and the row as the user knows them."""

    path: str = "arrays"
    keys: Mapping[str, str] = MappingProxyType({})  # our name -> the file's
    row: Callable[[int], str] = "row {}".format

    def error(self, key: str, problem: str, row: int | None = None) -> UserError:
        place = "" if row is None else f" {self.row(int(row))}"
        return UserError(f"{self.path}: {self.keys.get(key, key)}{place} {problem}")


class Actions(NamedTuple):
    """Actions ``[N, A]`` in [-1, 1]; whether they stand for whole numbers; what was done to them, in words; and the
    bounds ``(low, high)`` that they were rescaled from, ``A`` numbers each."""

    values: np.ndarray
    discrete: bool
    notes: tuple[str, ...]
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def column(source: Source, key: str, value: Any) -> np.ndarray:
    """An array of numbers, flags included."""
    try:
        value = np.asarray(value)
    except ValueError:  # rows of unequal length
        value = np.asarray(None)
    if value.dtype.kind not in "biuf":
        raise source.error(key, f"holds {value.dtype} values, expected a rectangular array of numbers")
    return value


def floats(source: Source, key: str, value: Any, rank: int | None) -> np.ndarray:
    """A float32 copy: on the CPU a device array may share the memory that the caller gave us."""
    value = column(source, key, value)
    if rank is not None and value.ndim != rank:
        expected = "[rows]" if rank == 1 else "[rows, size]"
        images = "; images are not read, only states" if rank == 2 and value.ndim > 2 else ""
        raise source.error(key, f"has shape {value.shape}, expected {expected}{images}")
    with np.errstate(over="ignore"):
        value = np.array(value, np.float32, order="C")
    bad = ~np.isfinite(value)
    if bad.any():
        row = np.flatnonzero(bad.reshape(len(value), -1).any(axis=1))[0]
        what = "NaN" if np.isnan(value[row]).any() else "infinite in float32"
        raise source.error(key, f"is {what}; repair the value or leave out its episode", row)
    return value


def flags(source: Source, key: str, value: Any) -> np.ndarray:
    """Zeros and ones ``[N]`` as booleans."""
    value = column(source, key, value)
    if value.ndim != 1:
        raise source.error(key, f"has shape {value.shape}, expected [rows]")
    wrong = (value != 0) & (value != 1)
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        raise source.error(key, f"is {value[row]:g}, expected 0 or 1", row)
    return value != 0


def extra(source: Source, key: str, value: Any) -> np.ndarray:
    """A copy in 32 bits of a column of any rank and type of number."""
    value = column(source, key, value)
    if value.ndim == 0:
        raise source.error(key, "is a scalar, expected one entry per row")
    if value.dtype.kind == "f":
        return floats(source, key, value, None)
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.uint64): np.uint32}.get(value.dtype, value.dtype)
    copy = value.astype(narrow)
    if (copy != value).any():
        row = np.flatnonzero((copy != value).reshape(len(value), -1).any(axis=1))[0]
        raise source.error(key, "does not fit into 32 bits", row)
    return copy


def actions(
    source: Source, value: Any, low: Any = None, high: Any = None, clip: bool = False, count: int | None = None
) -> Actions:
    """Actions as agents take them.

    Floats ``[N, A]`` are rescaled from ``[low, high]``, if given, to [-1, 1], and checked; ``clip`` brings those
    outside to the bounds. Integers and flags ``[N]`` or ``[N, 1]``, without bounds, are the actions of a discrete task:
    number ``k`` of ``count`` (or as many as occur) becomes ``2 onehot(k) - 1``, of which the largest counts. One-hot
    rows of integers are understood too.
    """
    raw = column(source, "action", value)
    if low is None and high is None and raw.dtype.kind in "biu":
        return _whole_numbers(source, raw, count)
    notes: list[str] = []
    if low is None and high is None and raw.size and (raw == np.floor(raw)).all() and raw.min() >= 0:
        single = raw.ndim == 1 or raw.shape[1:] == (1,)
        if single and raw.max() > 1:
            raise source.error(
                "action",
                f"holds whole numbers only, 0 to {raw.max():g}, as of a discrete task; store them as integers, or, "
                f"{CONTINUOUS}",
            )
        if raw.max() > 0 and ((single and raw.min() == 0) or (raw.ndim == 2 and (raw.sum(axis=1) == 1).all())):
            notes.append("its actions are 0 or 1 only, as of a discrete task, and are taken as continuous numbers")
    values = floats(source, "action", raw, 2)
    values, said = _bounded(source, values, low, high, clip)
    bounds = None
    if low is not None:
        low, high = (np.broadcast_to(np.asarray(end, np.float64), values.shape[1:]).tolist() for end in (low, high))
        bounds = tuple(low), tuple(high)
    return Actions(values, False, (*notes, *said), bounds)


def _whole_numbers(source: Source, raw: np.ndarray, count: int | None) -> Actions:
    numbers = raw.astype(np.int64)
    if raw.ndim == 2 and raw.shape[1] > 1:
        if not (((numbers == 0) | (numbers == 1)).all() and (numbers.sum(axis=1) == 1).all()):
            raise source.error(
                "action",
                f"holds integers in {raw.shape[1]} columns, neither the number of a discrete action nor one-hot rows; "
                f"{CONTINUOUS}",
            )
        count, numbers = raw.shape[1] if count is None else count, numbers.argmax(axis=1)
    elif raw.ndim == 1 or raw.shape[1:] == (1,):
        numbers = numbers.reshape(len(raw))
    else:
        raise source.error("action", f"holds integers of shape {raw.shape}, expected [rows] or [rows, 1]")
    if not len(numbers):
        return Actions(np.zeros((0, count or 1), np.float32), True, ())
    least, most = int(numbers.min()), int(numbers.max())
    if least < 0 or most >= (count or MOST_ACTIONS):
        row = np.flatnonzero((numbers < 0) | (numbers >= (count or MOST_ACTIONS)))[0]
        raise source.error(
            "action",
            f"is the integer {numbers[row]}, but a discrete task has actions 0 to {(count or MOST_ACTIONS) - 1}; "
            f"{CONTINUOUS}",
            row,
        )
    count = most + 1 if count is None else count
    values = np.full((len(numbers), count), -1.0, np.float32)
    values[np.arange(len(numbers)), numbers] = 1.0
    note = f"integer actions 0 to {count - 1}, of a discrete task: each is {count} numbers of which the largest counts"
    return Actions(values, True, (note,))


def _bounded(source: Source, values: np.ndarray, low: Any, high: Any, clip: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    if (low is None) != (high is None):
        raise source.error("action", "needs both action_low and action_high, or neither (--action-low, --action-high)")
    notes: tuple[str, ...] = ()
    hint = "rescale with --action-low and --action-high or clip with --clip-actions (action_low, ... in Python)"
    if low is not None:
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        for bound in (low, high):
            if bound.shape not in ((), (1,), (values.shape[1],)):
                raise source.error("action", f"has {values.shape[1]} columns, but a bound has shape {bound.shape}")
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise source.error("action", "needs finite bounds with action_low < action_high")
        values = (2.0 * (values - low) / (high - low) - 1.0).astype(np.float32)
        hint = "check action_low and action_high (--action-low, --action-high), or clip with --clip-actions"
        if values.size:
            notes = (
                f"{values.size:,} values of actions rescaled from [{_numbers(low)}, {_numbers(high)}] to [-1, 1], "
                f"where they span [{values.min():.3g}, {values.max():.3g}]",
            )
    outside = np.abs(values) > 1.0 + BOUND_TOLERANCE
    if outside.any():
        row, at = np.argwhere(outside)[0]
        span = f"[{values.min():g}, {values.max():g}]"
        if not clip:
            raise source.error(
                "action", f"column {at} is {values[row, at]:g}, outside [-1, 1], and all span {span}; {hint}", row
            )
        many = f"{outside.sum():,} of {values.size:,} values of actions"
        notes = (*notes, f"{many} clipped to [-1, 1]; they spanned {span}")
    return np.clip(values, -1.0, 1.0), notes


def _numbers(bound: np.ndarray) -> str:
    """A bound, once where all columns share it."""
    different = np.unique(bound)
    return f"{different[0]:g}" if different.size == 1 else " ".join(f"{value:g}" for value in np.ravel(bound))
