"""The run directory: written, read, and never overwritten."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import pathlib
import re
from collections.abc import Sequence

from jaxrl_reg import foreign
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.files import read_json, write_json
from jaxrl_reg.jobs import kinds
from jaxrl_reg.jobs.learners import Learner
from jaxrl_reg.jobs.settings import JobConfig

FORMAT = 1  # of the run directory


def finished(directory: str | pathlib.Path) -> bool:
    """Whether a run has come to its end, so that there is nothing to resume."""
    load_config(directory)
    return "finished" in read_json(pathlib.Path(directory) / "summary.json", default={})


def default_directory(config: JobConfig, root: str | pathlib.Path = "runs") -> pathlib.Path:
    """A new and empty directory ``runs/<env>-<agent>-<time>``: no other process gets the same one.

    Raises:
      UserError: if it cannot be made.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"[^\w.-]+", "-", f"{config.env}-{config.agent}-{stamp}").strip("-.")
    for n in itertools.count(1):
        path = pathlib.Path(root) / (name if n == 1 else f"{name}-{n}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make {path}: {error.strerror or error}; choose a directory with --out") from error
        return path
    raise AssertionError("unreachable")


def release(directory: pathlib.Path) -> None:
    """Remove what ``default_directory`` made if no run has begun in it."""
    with contextlib.suppress(OSError):  # not empty
        directory.rmdir()
        directory.parent.rmdir()


def load_config(directory: str | pathlib.Path) -> JobConfig:
    """The config of a run directory.

    Raises:
      UserError: if there is no run, or its ``config.json`` cannot be read.
    """
    path = pathlib.Path(directory) / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a run directory: it has no config.json")
    stored = read_json(path)
    values = stored.get("config") if isinstance(stored, dict) else None
    kind = stored.get("kind", kinds.OFFLINE) if isinstance(stored, dict) else ""
    known = dataclasses.fields(kinds.load(kind).Config) if kind in kinds.names() else ()
    types = {field.name: str(field.type) for field in known}
    if not isinstance(values, dict) or stored.get("format") != FORMAT or not set(values) <= set(types):
        raise UserError(f"{path} is not the config of a run of this version; start a new run")
    tuples = {name: tuple(v) for name, v in values.items() if types[name].startswith("tuple") and v is not None}
    if values.get("home"):
        foreign.look_in(values["home"])  # agents and environments of the user's own are found from any directory
    return kinds.load(kind).Config(**{**values, **tuples})


def refuse_existing(path: pathlib.Path) -> None:
    """Raises ``UserError`` where ``path`` holds a run or is a file."""
    if (path / "config.json").exists():
        raise UserError(f"{path} already holds a run; continue it with: jaxrl-reg resume {path}")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; choose a directory with --out")


def create_run(path: pathlib.Path, config: JobConfig, students: Sequence[Learner]) -> None:
    """Make the directory and write ``config.json``: what was asked for, the settings that follow, versions.

    Raises:
      UserError: if that cannot be written, or another process has begun a run there.
    """
    from jaxrl_reg.io import env_info

    stored = {
        "format": FORMAT,
        "kind": config.kind,
        "config": dataclasses.asdict(config),
        "swept": list(students[0].swept),
        "agent_config": {
            name: value
            for name, value in dataclasses.asdict(students[0].config).items()
            if name not in students[0].swept
        },
        "hypers": {
            field.name: [float(value) for student in students for value in getattr(student.hypers, field.name)]
            for field in dataclasses.fields(students[0].hypers)
        },
        "environment": env_info.describe(),
        "created": now(),
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").open("xb").close()  # of two processes only one can
        try:
            write_json(path / "config.json", stored)
        except BaseException:
            (path / "config.json").unlink()  # else it would be a run that cannot go on
            raise
    except FileExistsError:
        raise UserError(f"another process has just begun a run in {path}; choose another directory") from None
    except OSError as error:
        raise UserError(f"cannot write into {path}: {error.strerror or error}") from error


def now() -> str:
    """Local time with its offset, ISO 8601, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
