"""What training leaves behind while it goes on: rows of metrics in every sink, and ticks with how members stand."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg.io.files import plain
from jaxrl_reg.jobs.job import Axis, Job
from jaxrl_reg.jobs.learners import Learner
from jaxrl_reg.jobs.progress import OnTick, Standing, Tick
from jaxrl_reg.jobs.settings import JobConfig, seeds_of
from jaxrl_reg.jobs.values import word

if TYPE_CHECKING:
    from jaxrl_reg.population import Progress, Round
    from jaxrl_reg.types import Run

Write = Callable[[int, dict[str, Any]], None]
CLOCK = ("seconds", "updates_per_second")  # columns that differ between two runs with the same numbers


def metric_rows(
    member: Learner,
    config: JobConfig,
    axis: Axis,
    run: Run,
    metrics: Mapping[str, Any],
    *,
    episodes: int | None,
    done: Any = None,
    evaluation: int = 0,
    more: Callable[[int, int], Mapping[str, Any]] = lambda setting, segment: {},
) -> Iterator[dict[str, Any]]:
    """One flat row per member and segment that it trained, from metrics ``[H, S, segments]``.

    ``done`` counts the segments that are finished with the first of the metrics (1 by default): one number, or one for
    each setting. ``more(setting, segment)`` adds columns.
    """
    import numpy as np

    from jaxrl_reg.population import ALIVE

    seeds = seeds_of(config)
    settings, count, length = next(iter(metrics.values())).shape
    before = np.broadcast_to(1 if done is None else done, settings) - 1
    trained = np.isfinite(metrics[ALIVE]) if ALIVE in metrics else np.ones((settings, count, length), bool)
    where = {"environment": config.where, "dataset": getattr(config, "dataset", "")}
    for t in range(length):
        for h in range(settings):
            done_now = int(before[h]) + t + 1
            segment = axis.segments_behind + done_now - 1
            position = {"update": done_now * run.updates_per_segment}
            position |= {axis.column: axis.behind + done_now * axis.per_segment}
            position |= {"phase": axis.phase} if axis.phase else {}
            for s in np.flatnonzero(trained[h, :, t]):
                yield {
                    "agent": member.name,
                    "member": (member.first + h) * count + int(s),
                    "seed": seeds[s],
                    "setting": member.first + h,
                    **{name: swept[h] for name, swept in member.swept.items()},
                    "segment": segment,
                    **position,
                    "evaluation": evaluation,
                    "episodes": episodes,
                    **where,
                    **more(member.first + h, segment),
                    **{name: float(values[h, s, t]) for name, values in metrics.items()},
                }


def check_sinks(config: JobConfig) -> None:
    """Raises ``UserError`` where a service that ``config`` logs to is not installed or nobody is logged in to it."""
    from jaxrl_reg.io import sinks
    from jaxrl_reg.population import hosts

    if config.tensorboard:
        sinks.check_tensorboard()
    if config.wandb and hosts.first():  # the others write nothing
        sinks.check_wandb()


@contextlib.contextmanager
def sinks_of(member: Learner, config: JobConfig, path: pathlib.Path) -> Iterator[Write]:
    """A function that hands a row to every sink of the config; they are closed however the block ends."""
    from jaxrl_reg.io import sinks

    opened: list[sinks.Sink] = []
    with contextlib.ExitStack() as stack:  # which closes them all, also where one of them fails

        def opens(sink: sinks.Sink) -> None:
            stack.callback(sink.close)
            opened.append(sink)

        opens(sinks.ParquetSink(path / "metrics.parquet"))
        if config.tensorboard:
            opens(sinks.TensorBoardSink(path / "tensorboard", member.swept))
        if config.wandb:
            settings = plain(dataclasses.asdict(config))
            opens(sinks.WandbSink(config.wandb, f"{path.name} {member.label}", path, settings, member.swept))

        def write(step: int, row: dict[str, Any]) -> None:
            for sink in opened:
                sink.write(step, row)

        yield write


class Clock:
    """Seconds of training and evaluation, compilation apart, and the speed, of every setting and segment of a program:
    ``clock(setting, segment)`` gives the columns of its row. A resumed run goes on from what its rows say."""

    def __init__(self, member: Learner, path: pathlib.Path):
        from jaxrl_reg import population
        from jaxrl_reg.io.sinks import read_parquet

        self._known: dict[tuple[int, int], tuple[float, float]] = {}
        self.seconds = 0.0
        self.speeds: list[float] = []  # of this session
        if not (path / "metrics.parquet").exists():
            return
        rows = read_parquet(path / "metrics.parquet")
        settings = range(member.first, member.first + population.setting_count(member.hypers))
        if set(CLOCK) <= set(rows):
            rows = rows[(rows["agent"] == member.name) & rows["setting"].isin(settings) & (rows["evaluation"] == 0)]
            keys = zip(rows["setting"], rows["segment"], strict=True)
            self._known = dict(zip(keys, zip(*(rows[name] for name in CLOCK), strict=True), strict=True))
            self.seconds = max((seconds for seconds, _ in self._known.values() if seconds == seconds), default=0.0)

    def advance(self, done: Sequence[tuple[int, int]], seconds: float, speed: float) -> None:
        """These (setting, segment) were done together, in so many seconds."""
        self.seconds += seconds
        self.speeds.append(speed)
        self._known |= dict.fromkeys(done, (self.seconds, speed))

    def __call__(self, setting: int, segment: int) -> dict[str, float]:
        nothing = (float("nan"), float("nan"))
        return dict(zip(CLOCK, self._known.get((setting, segment), nothing), strict=True))


class Recorder:
    """What ``population.sweep`` and ``population.race`` tell while they train one program, as rows and ticks.

    ``segment`` and ``round`` are their callbacks; ``rows`` gives the rows of metrics ``[H, S, segments]``.
    """

    def __init__(
        self, member: Learner, job: Job, run: Run, config: JobConfig, write: Write, clock: Clock, on_tick: OnTick
    ):
        self._member, self._job, self._run, self._config = member, job, run, config
        self._write, self._clock, self._on_tick = write, clock, on_tick
        self._standing: dict[tuple[int, int], Standing] = {}
        self._per_update = job.axis.per_segment / run.updates_per_segment  # of the axis

    def segment(self, progress: Progress) -> None:
        """After a segment of all members."""
        self._record(progress.metrics, progress.segment, progress.updates_per_second)
        self._tick(progress.segment * self._job.axis.per_segment, progress.updates_per_second, progress.eta_seconds)

    def round(self, one: Round) -> None:
        """After a segment of those members that a stopping rule let go on."""
        members = self._config.seeds * len(one.done)
        self._record(one.metrics, one.done, one.updates_per_second)
        most = self._run.segments * self._run.updates_per_segment * members
        left = (most - one.updates) / max(one.updates_per_second, 1e-9)  # if nothing else stops
        each = round(one.updates / members * self._per_update)  # of a setting, on average
        self._tick(each, one.updates_per_second, left)

    def rows(self, metrics: Mapping[str, Any], done: Any = None) -> Iterator[dict[str, Any]]:
        """Rows of metrics ``[H, S, segments]`` with their scores, the first of them after ``done`` segments."""
        scored = self._job.score.columns(metrics)
        rolled_out = self._run.evaluate is not None or self._run.judge is not None
        episodes = self._config.eval_episodes if rolled_out else None
        return metric_rows(
            self._member,
            self._config,
            self._job.axis,
            self._run,
            scored,
            episodes=episodes,
            done=done,
            more=self._clock,
        )

    def _record(self, metrics: Mapping[str, Any], done: Any, updates_per_second: float) -> None:
        import numpy as np

        from jaxrl_reg.population import ALIVE

        trained = np.isfinite(metrics[ALIVE])
        segments = np.broadcast_to(done, len(trained)) - 1 + self._job.axis.segments_behind
        chosen = [(self._member.first + int(h), int(segments[h])) for h in np.flatnonzero(trained.any(axis=1))]
        updates = int(trained.sum()) * self._run.updates_per_segment
        self._clock.advance(chosen, updates / max(updates_per_second, 1e-9), updates_per_second)
        for row in self.rows({name: values[:, :, None] for name, values in metrics.items()}, done):
            self._write(row[self._job.axis.column], row)
            self._standing[row["setting"], row["seed"]] = self._stands(row)

    def _stands(self, row: Mapping[str, Any]) -> Standing:
        from jaxrl_reg.population import ALIVE

        label = " ".join(f"{name}={word(row[name])}" for name in self._member.swept) or self._member.name
        state = "" if row.get(ALIVE, 1.0) else "diverged"
        score = row.get(self._job.score.metric or "", float("nan"))
        return Standing(label, row["seed"], row[self._job.axis.column], score, state)

    def _tick(self, done: int, updates_per_second: float, left: float) -> None:
        axis, standing = self._job.axis, list(self._standing.values())
        newest = max((one.updates for one in standing), default=0)
        behind = "waiting" if self._config.early_stop == "asha" else "stopped"
        members = [one._replace(state=behind) if not one.state and one.updates < newest else one for one in standing]
        members.sort(key=lambda one: (one.state != "", -one.score if one.score == one.score else 0.0))
        self._on_tick(
            Tick(
                self._member.label,
                done,
                self._run.segments * axis.per_segment,
                updates_per_second * self._per_update,
                left,
                self._best(newest),
                axis.name,
                self._job.score.name.split()[-1],  # without what it is normalised by
                members,
            )
        )

    def _best(self, newest: int) -> float | None:
        """The mean score over seeds of the best setting among those that have got farthest; None without scores."""
        import numpy as np

        if self._job.score.metric is None:
            return None
        scores: dict[int, list[float]] = {}
        for (setting, _), one in self._standing.items():
            if one.updates == newest:
                scores.setdefault(setting, []).append(one.score)
        means = np.asarray([np.mean(each) for each in scores.values()])
        return float(np.nanmax(means)) if np.isfinite(means).any() else float("nan")
