"""Code of the user's own, found by what is typed: a file, or the path of a module, from the working directory.

A file is loaded under a name of its own, so that several of one stem live side by side. Inside a package (a folder with
``__init__.py``) it keeps its relative imports; what lies beside it, or below the directory that was looked in, can be
imported as if Python had been started there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pathlib
import sys
import threading
import traceback
from types import ModuleType

from jaxrl_reg.errors import UserError

_loading = threading.RLock()  # another thread must not find a module that is half made
_places: list[pathlib.Path] = []  # where else to look than in the working directory, newest first


def look_in(directory: str | os.PathLike[str]) -> None:
    """Look for modules and files in this directory too, before others: where a run was started, for one."""
    path = pathlib.Path(directory).resolve()
    if path in _places:
        _places.remove(path)
    _places.insert(0, path)


def find(text: str) -> pathlib.Path | None:
    """The file of ``mine.py``, ``lab/mine.py``, ``mine`` or ``lab.mine``, from the directories that are looked in."""
    names = [text] if text.endswith(".py") else [f"{text.replace('.', '/')}{end}" for end in (".py", "/__init__.py")]
    for place in (*_places, pathlib.Path.cwd()):
        for name in names:
            path = place / pathlib.Path(name).expanduser()
            if path.is_file():
                return path.resolve()
    return None


def load(text: str, what: str) -> ModuleType | None:
    """The module that ``text`` names: a file, a module in a directory that is looked in, or an installed one by its
    dotted path. None where there is none of this name.

    Args:
      text: such as ``mine.py``, ``mine`` or ``lab.mine``.
      what: what it is wanted for, such as ``agent``, for messages.

    Raises:
      UserError: for a file that is not there, or one that cannot be imported, with its line.
    """
    path = find(text)
    if path is not None:
        return load_file(path, text.count(".") if not text.endswith(".py") else 0)
    if text.endswith(".py"):
        raise UserError(f"{what} {text!r}: there is no file {pathlib.Path(text).expanduser().absolute()}")
    if "." not in text:
        return None
    try:
        return importlib.import_module(text)
    except ModuleNotFoundError as error:
        if error.name and not f"{text}.".startswith(f"{error.name}."):
            raise  # the module exists and lacks something of its own
        return None


def load_file(path: str | os.PathLike[str], depth: int = 0) -> ModuleType:
    """The module in a file; the same module for the same file. ``depth`` folders above it are a module's path too.

    Raises:
      UserError: if it cannot be imported, with the line of it that failed.
    """
    path = pathlib.Path(path).resolve()
    base = path.parent if path.name == "__init__.py" else path
    root = base.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    inside = base.relative_to(root).with_suffix("").parts  # the packages that the file is in, and its own name
    for _ in range(depth + 1 - len(inside)):  # folders without __init__.py
        root = root.parent
    _importable(root)
    stem = f"{inside[0]}_{hashlib.sha256(str(base.parents[len(inside) - 1]).encode()).hexdigest()[:8]}"
    name = ".".join([stem, *inside[1:]])
    try:
        with _loading:
            if name in sys.modules:
                return sys.modules[name]
            if len(inside) > 1:
                _execute(stem, base.parents[len(inside) - 2] / "__init__.py")
                return importlib.import_module(name)
            return _execute(name, path)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1] if own else None
        where = "" if line is None else f", line {line},"
        raise UserError(f"{path}{where} cannot be imported: {type(error).__name__}: {reason}") from error


def _importable(root: pathlib.Path) -> None:
    if str(root) not in sys.path:
        sys.path.append(str(root))  # behind what is installed, which it must not hide


def _execute(name: str, path: pathlib.Path) -> ModuleType:
    """Load one file under ``name``; nothing of it is left where that fails."""
    if name in sys.modules:
        return sys.modules[name]
    folders = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
