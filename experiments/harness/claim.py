"""What an experiment must show, stated before anything runs."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Claim:
    """What must come out, stated before anything runs. ``margin`` is in the metric's unit.

    The claim holds if, for every baseline and for the ablation, the confidence interval of the paired difference
    (method minus rival over the same seeds; reversed if lower is better) lies above ``margin``. ``ablation`` is None
    where a baseline is the method without what is claimed.
    """

    statement: str
    paper: str
    method: str
    baselines: tuple[str, ...]
    ablation: str | None
    metric: str
    systems: tuple[int, ...] = ()  # rows of the table of systems that this is evidence for
    higher_is_better: bool = True
    margin: float = 0.0

    @property
    def rivals(self) -> tuple[str, ...]:
        return self.baselines if self.ablation is None else (*self.baselines, self.ablation)
