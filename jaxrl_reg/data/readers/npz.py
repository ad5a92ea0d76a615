"""NumPy archives without pickle, with errors that name the file and the key."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxrl_reg.errors import UserError


def load_npz(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The named arrays of ``path``; ``optional`` ones only if present. Raises UserError for a missing or bad one."""
    key = None
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in required if key not in archive.files]
            if missing:
                raise UserError(f"{path}: missing key {missing[0]!r}; it has {', '.join(sorted(archive.files))}")
            arrays = {}
            for key in (*required, *(key for key in optional if key in archive.files)):
                arrays[key] = archive[key]
            return arrays
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        what = "not a readable .npz archive" if key is None else f"cannot read {key}"
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: {what} ({detail})") from None
