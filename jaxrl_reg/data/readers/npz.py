"""NumPy archives without pickle, with errors that name the file and the key."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reg.errors import UserError

DAMAGE = (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error)


def load_npz(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The named arrays of ``path``; ``optional`` ones only if present. Raises UserError for a missing or bad one."""
    with opened_npz(path) as archive:
        missing = [key for key in required if key not in archive.files]
        if missing:
            raise UserError(f"{path}: missing key {missing[0]!r}; it has {', '.join(sorted(archive.files))}")
        names = (*required, *(key for key in optional if key in archive.files))
        return {key: read_npz(path, archive, key) for key in names}


@contextlib.contextmanager
def opened_npz(path: Path) -> Iterator[Any]:
    """The archive, whose ``files`` are its names. Raises UserError if it is not one, or holds a name twice."""
    try:
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except DAMAGE as error:
        raise UserError(f"{path}: not a readable .npz archive ({_first_line(error)})") from None
    if not hasattr(archive, "files"):
        raise UserError(f"{path}: one array, not an .npz archive of named ones")
    with archive:
        twice = [name for name in archive.files if archive.files.count(name) > 1]
        if twice:
            raise UserError(f"{path}: holds {twice[0]!r} more than once")
        yield archive


def read_npz(path: Path, archive: Any, key: str) -> np.ndarray:
    """One array. Raises UserError if it cannot be read, or only by unpickling."""
    try:
        return archive[key]
    except DAMAGE as error:
        raise UserError(f"{path}: cannot read {key} ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
