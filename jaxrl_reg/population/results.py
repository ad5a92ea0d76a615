"""What a population tells: after every segment, when something went wrong, and once it has finished."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.population import placement as placing
from jaxrl_reg.population.programs import ALIVE
from jaxrl_reg.types import PyTree

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Progress:
    """What ``on_segment`` is told after each segment. ``metrics`` are ``[H, S]`` arrays of this segment."""

    segment: int  # finished segments
    segments: int
    updates: int  # per member, so far
    updates_per_second: float  # all members together, in this segment
    eta_seconds: float
    metrics: dict[str, np.ndarray]
    plan: placing.Plan


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished sweep over ``H`` settings and ``S`` seeds.

    ``metrics[name]`` is ``[H, S, segments]``; every leaf of ``state`` is ``[H, S, ...]``; leaves of ``hypers`` ``[H]``.
    A member that went NaN keeps the state before the segment in which it did; its metrics are NaN from there on.
    """

    metrics: dict[str, np.ndarray]
    state: PyTree
    hypers: Any
    seeds: np.ndarray
    plan: placing.Plan
    updates_per_segment: int

    @property
    def swept(self) -> tuple[str, ...]:
        """Names of the hyperparameters that differ between settings."""
        fields = dataclasses.fields(self.hypers)
        return tuple(f.name for f in fields if np.unique(np.asarray(getattr(self.hypers, f.name))).size > 1)

    @property
    def failed_at(self) -> np.ndarray:
        """``[H, S]`` int: the segment in which a member went NaN and was frozen, -1 for one that did not."""
        dead = self.metrics[ALIVE] == 0
        return np.where(dead.any(axis=-1), dead.argmax(axis=-1), -1)

    @property
    def segments_trained(self) -> np.ndarray:
        """``[H]`` int: how many segments each setting was given; all of them but in a race."""
        return np.isfinite(self.metrics[ALIVE]).sum(axis=-1).max(axis=1)

    def member(self, setting: int, seed: int) -> PyTree:
        """The state of one member, by position in the settings and in the seeds."""
        return jax.tree.map(lambda leaf: leaf[setting, seed], self.state)

    def hyper(self, setting: int) -> Any:
        """One setting, every leaf a scalar."""
        return jax.tree.map(lambda leaf: leaf[setting], self.hypers)

    def frame(self) -> pd.DataFrame:
        """One row per member and segment that it trained: member, seed, setting, swept hyperparameters, segment,
        update, metrics."""
        need("pandas")
        import pandas as pd

        shape = next(iter(self.metrics.values())).shape
        h, s, t = (axis.ravel() for axis in np.indices(shape))
        columns: dict[str, Any] = {"member": h * shape[1] + s, "seed": self.seeds[s], "setting": h}
        columns |= {name: np.asarray(getattr(self.hypers, name))[h] for name in self.swept}
        columns |= {"segment": t, "update": (t + 1) * self.updates_per_segment}
        columns |= {name: values.ravel() for name, values in self.metrics.items()}
        return pd.DataFrame(columns).loc[np.isfinite(self.metrics[ALIVE]).ravel()]


def member_name(member: int, seeds: np.ndarray, hypers: Any) -> str:
    """``member 3 (seed 1, learning_rate=0.1)`` with the hyperparameters that differ between settings."""
    setting, seed = divmod(int(member), seeds.size)
    parts = [f"seed {seeds[seed]}"]
    for name, leaf in ((field.name, np.asarray(getattr(hypers, field.name))) for field in dataclasses.fields(hypers)):
        if np.unique(leaf).size > 1:
            parts.append(f"{name}={leaf[setting]:g}")
    return f"member {member} ({', '.join(parts)})"


def went_nan(member: Any, segment: Any, seeds: np.ndarray, hypers: Any) -> str:
    """What is noted when a member went NaN in a segment, counted from 1."""
    return f"{member_name(int(member), seeds, hypers)} went NaN in segment {segment} and is frozen before it"


def warn(text: str) -> None:
    """What becomes of a note where nobody asked for notes."""
    warnings.warn(text, stacklevel=3)
