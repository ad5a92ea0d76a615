"""Where metrics go while a run is on: a parquet file always, TensorBoard and Weights & Biases on request.

A sink takes one flat row per member per evaluation. Rows are written between segments, on the host, never from inside
a compiled program.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from jaxrl_reg.errors import UserError, missing, need
from jaxrl_reg.io import files

# Columns that say which row this is; everything else in a row is a metric or a swept hyperparameter.
IDENTITY = ("agent", "member", "seed", "setting", "segment", "update", "evaluation")
# A row with the same values here replaces the earlier one, so writing a resumed segment twice does no harm.
KEYS = ("agent", "member", "update", "evaluation")


class Sink(Protocol):
    """What every sink does."""

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Take one member's metrics after ``step`` updates."""
        ...

    def close(self) -> None:
        """Write what is left. Calling it twice is harmless."""
        ...


class ParquetSink:
    """All rows in one parquet file, rewritten after every step (evaluation), so an interrupted run leaves its rows.

    An existing file is continued: rows that are written again replace the old ones (see ``KEYS``).

    Args:
      path: the file, such as ``runs/x/metrics.parquet``. Its directory must exist.

    Raises:
      UserError: if the file exists and is not a readable parquet file.
    """

    def __init__(self, path: str | pathlib.Path):
        self._path = pathlib.Path(path)
        self._rows: dict[tuple, dict[str, Any]] = {}
        self._step: int | None = None
        if self._path.exists():
            for row in read_parquet(self._path).to_dict("records"):
                self._rows[_key(row)] = {str(name): value for name, value in row.items()}

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        if self._step is not None and step != self._step:
            self._flush()
        self._step = step
        self._rows[_key(row)] = dict(row)

    def close(self) -> None:
        if self._step is not None:
            self._flush()
            self._step = None

    def _flush(self) -> None:
        need("pandas", "pyarrow")
        import pandas as pd

        files.write_parquet(self._path, pd.DataFrame(list(self._rows.values())))


def _key(row: Mapping[str, Any]) -> tuple:
    return tuple(row.get(name, 0) for name in KEYS)


def read_parquet(path: str | pathlib.Path) -> Any:
    """The rows of a metrics file as a pandas data frame.

    Raises:
      UserError: if it is missing or not a parquet file.
    """
    need("pandas", "pyarrow")
    import pandas as pd

    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; the run has written no metrics yet")
    try:
        return pd.read_parquet(path)
    except Exception as error:  # pyarrow raises several unrelated types for a damaged file
        raise UserError(f"{path} is not a readable parquet file ({_first_line(error)})") from error


class _SeedMeans:
    """Rows of one step, averaged over the seeds of each setting: what a live dashboard can show of a population."""

    def __init__(self, swept: Iterable[str]):
        self._swept = tuple(swept)
        self._step: int | None = None
        self._rows: dict[str, list[dict[str, float]]] = {}

    def add(self, step: int, row: Mapping[str, Any]) -> tuple[int, dict[str, dict[str, float]]] | None:
        """Take a row; returns the means of the previous step when ``row`` opens a new one."""
        done = self.pop() if self._step is not None and step != self._step else None
        self._step = step
        hidden = {*IDENTITY, *self._swept}
        values = {name: float(value) for name, value in row.items() if name not in hidden and _is_number(value)}
        self._rows.setdefault(self.label(row), []).append(values)
        return done

    def pop(self) -> tuple[int, dict[str, dict[str, float]]] | None:
        """``(step, {setting label: {metric: mean over seeds}})`` of the rows so far, which are then forgotten."""
        if self._step is None or not self._rows:
            return None
        means = {
            label: {
                name: sum(row[name] for row in rows) / len(rows) for name in rows[0] if all(name in r for r in rows)
            }
            for label, rows in self._rows.items()
        }
        step, self._step, self._rows = self._step, None, {}
        return step, means

    def label(self, row: Mapping[str, Any]) -> str:
        """A name such as ``rebrac actor_bc_coef=0.1``."""
        values = [f"{name}={_word(row[name])}" for name in self._swept if name in row]
        return " ".join([str(row.get("agent", "agent")), *values])


def _word(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else str(value)


def check_tensorboard() -> None:
    """Raises ``UserError`` where TensorBoard files cannot be written, so that a job is refused before it has begun."""
    need("tensorboardX")


class _EventFile:
    """The event file of one run. Not ``SummaryWriter``: its thread dies of a full disk, and closing it then hangs."""

    def __init__(self, folder: pathlib.Path):
        need("tensorboardX")
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            event = self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value))
            self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class TensorBoardSink:
    """TensorBoard event files, one run per setting (``directory/<agent> <name>=<value>``), means over seeds.

    Raises:
      UserError: if ``tensorboardX`` is not installed.
      WriteError: where the disk refuses.
    """

    def __init__(self, directory: str | pathlib.Path, swept: Iterable[str] = ()):
        check_tensorboard()
        self._directory = pathlib.Path(directory)
        self._files: dict[str, _EventFile] = {}
        self._means = _SeedMeans(swept)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        self._emit(self._means.add(step, row))

    def close(self) -> None:
        try:
            self._emit(self._means.pop())
        finally:
            opened, self._files = self._files, {}
            for file in opened.values():
                with contextlib.suppress(OSError):  # of a full disk, which ``_emit`` has told of
                    file.close()

    def _emit(self, done: tuple[int, dict[str, dict[str, float]]] | None) -> None:
        if done is None:
            return
        step, means = done
        for label, metrics in means.items():
            folder = self._directory / re.sub(r"[^\w.=, +-]", "_", label)  # a name that every system takes
            try:
                if label not in self._files:
                    self._files[label] = _EventFile(folder)
                self._files[label].add(step, metrics)
            except OSError as error:
                raise files.refused(folder, error) from error


def _wandb() -> Any:
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError:
        raise missing("wandb") from None
    return wandb


def check_wandb() -> None:
    """Raises ``UserError`` where nobody is logged in to Weights & Biases, so that a job is refused before it has begun.

    With a terminal, Weights & Biases asks there for the key. Nothing is asked where ``WANDB_MODE`` says ``offline`` or
    ``disabled``.
    """
    wandb = _wandb()
    if os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun", "disabled"):
        return
    try:
        wandb.login(verify=False)
    except Exception as error:  # its errors share no public base class over the versions
        raise UserError(
            "nobody is logged in to Weights & Biases: run 'wandb login', set WANDB_API_KEY, or keep the run's log in "
            f"its directory with WANDB_MODE=offline ({_first_line(error)})"
        ) from error


class WandbSink:
    """One Weights & Biases run; metrics are named ``<agent> <hyper>=<value>/<metric>`` and averaged over seeds.

    Args:
      project: the project's name.
      name: the run's name.
      directory: where wandb keeps its local files.
      config: plain values to show beside the run.
      swept: names of the swept hyperparameters.

    Raises:
      UserError: if ``wandb`` is not installed, nobody is logged in, or the run is refused.
    """

    def __init__(
        self,
        project: str,
        name: str,
        directory: str | pathlib.Path,
        config: Mapping[str, Any] | None = None,
        swept: Iterable[str] = (),
    ):
        wandb = _wandb()
        try:
            self._run: Any = wandb.init(project=project, name=name, dir=str(directory), config=dict(config or {}))
        except Exception as error:
            raise UserError(
                f"Weights & Biases refuses the run ({_first_line(error)}); WANDB_MODE=offline keeps its log in the "
                "run directory"
            ) from error
        # The baseline and the agent both count from 0, and wandb refuses steps that go back: give it our own axis.
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")
        self._means = _SeedMeans(swept)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        self._emit(self._means.add(step, row))

    def close(self) -> None:
        if self._run is not None:
            self._emit(self._means.pop())
            self._run.finish()
            self._run = None

    def _emit(self, done: tuple[int, dict[str, dict[str, float]]] | None) -> None:
        if done is None:
            return
        step, means = done
        flat = {f"{label}/{name}": value for label, metrics in means.items() for name, value in metrics.items()}
        self._run.log({**flat, "update": step})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
