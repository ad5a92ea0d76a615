"""Where metrics go while a run is on: a parquet file always, TensorBoard and Weights & Biases on request.

A sink takes one flat row per member per evaluation. Rows are written between segments, on the host, never from inside
a compiled program.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from jaxrl_reg.errors import UserError, need

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

        frame = pd.DataFrame(list(self._rows.values()))
        partial = self._path.with_name(self._path.name + ".part")
        frame.to_parquet(partial, index=False)
        partial.replace(self._path)  # a reader, or a kill, never sees half a file


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
        values = [f"{name}={row[name]:g}" for name in self._swept if _is_number(row.get(name))]
        return " ".join([str(row.get("agent", "agent")), *values])


class TensorBoardSink:
    """TensorBoard event files, one run per setting (``directory/<agent> <hyper>=<value>``), means over seeds.

    Raises:
      UserError: if ``tensorboardX`` is not installed.
    """

    def __init__(self, directory: str | pathlib.Path, swept: Iterable[str] = ()):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard output needs tensorboardX; pip install 'jaxrl-reg[logging]'") from error
        self._make = SummaryWriter
        self._directory = pathlib.Path(directory)
        self._writers: dict[str, Any] = {}
        self._means = _SeedMeans(swept)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        self._emit(self._means.add(step, row))

    def close(self) -> None:
        self._emit(self._means.pop())
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _emit(self, done: tuple[int, dict[str, dict[str, float]]] | None) -> None:
        if done is None:
            return
        step, means = done
        for label, metrics in means.items():
            if label not in self._writers:
                self._writers[label] = self._make(str(self._directory / label))
            for name, value in metrics.items():
                self._writers[label].add_scalar(name, value, step)


class WandbSink:
    """One Weights & Biases run; metrics are named ``<agent> <hyper>=<value>/<metric>`` and averaged over seeds.

    Args:
      project: the project's name.
      name: the run's name.
      directory: where wandb keeps its local files.
      config: plain values to show beside the run.
      swept: names of the swept hyperparameters.

    Raises:
      UserError: if ``wandb`` is not installed.
    """

    def __init__(
        self,
        project: str,
        name: str,
        directory: str | pathlib.Path,
        config: Mapping[str, Any] | None = None,
        swept: Iterable[str] = (),
    ):
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError as error:
            raise UserError("Weights & Biases output needs wandb; pip install 'jaxrl-reg[logging]'") from error
        self._run: Any = wandb.init(project=project, name=name, dir=str(directory), config=dict(config or {}))
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
