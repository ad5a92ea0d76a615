"""Files: written whole or not at all, read with one line for what is wrong. Text is UTF-8 on every system."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class WriteError(UserError):
    """The disk refused a file. What was there before is intact, so a run can go on from it once there is room."""


def refused(path: str | os.PathLike[str], error: BaseException) -> WriteError:
    """The error for a file that could not be written, in one line."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[-200:] or type(error).__name__
    return WriteError(f"could not write {path}: {reason}")


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A name beside ``path`` to write to; it becomes ``path`` when the block ends well, else nothing is left of it.

    A reader, a kill, a full disk and Ctrl-C so never leave half a file.

    Raises:
      WriteError: where the disk refuses, in the block or at the end.
    """
    path = pathlib.Path(path)
    partial = path.with_name(path.name + ".part")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise refused(path, error) from error
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes, whole or not at all. Raises ``WriteError``."""
    with whole(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text as UTF-8, with the line ends that it has, whole or not at all. Raises ``WriteError``."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON that every reader takes: see ``plain``. Raises ``WriteError``."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write a data frame as CSV, without its index. Raises ``WriteError``."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_parquet(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write a data frame as Parquet, without its index. Raises ``WriteError``."""
    write_bytes(path, frame.to_parquet(index=False))


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file. Raises ``UserError`` where there is none, or it is not UTF-8."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged and cannot be read ({str(error).splitlines()[0]})") from error


_MISSING: Any = object()


def read_json(path: str | os.PathLike[str], default: Any = _MISSING) -> Any:
    """What a JSON file holds; ``default`` where there is no file, if one is given. Raises ``UserError``."""
    if default is not _MISSING and not pathlib.Path(path).exists():
        return default
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged and cannot be read ({str(error).splitlines()[0]})") from error


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, NaN as null, an infinity as its word, what it lacks as text."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)
