"""Where collected data sets lie, and which of them were collected with what a config asks for."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs.settings import COLLECTED, EXPLORED, SCALES, SEARCHED

if TYPE_CHECKING:
    from jaxrl_reg.jobs.settings import SweepConfig

COLLECT_ENVS = 16
COLLECT_SEGMENTS = 20
_OWN = "own"  # widths: those of the collecting agent itself


def whole_steps(steps: int) -> int:
    """Steps of a collection, rounded up to whole segments."""
    unit = COLLECT_SEGMENTS * COLLECT_ENVS
    return -(-steps // unit) * unit


def provenance(config: SweepConfig) -> dict[str, Any]:
    """With what a config has its data collected, as the files keep it; what it leaves open is not there."""
    about: dict[str, Any] = {"env": config.where, "backend": config.backend or ""}
    about["seed"] = config.seed_offset if config.collect_seed is None else config.collect_seed
    if config.collect_steps is not None:
        about["collect_steps"] = whole_steps(config.collect_steps)
    widths = _widths(config)
    if widths is not None:
        about["hidden"] = widths
    return about


def collecting_hidden(config: SweepConfig) -> tuple[int, ...] | None:
    """Widths of the collecting agent; None: its own."""
    return config.hidden if config.collect_hidden is None else (config.collect_hidden or None)


def _widths(config: SweepConfig) -> str | None:
    open_still = config.collect_hidden is None and config.hidden is None and "hidden" in SCALES.get(config.scale, {})
    if open_still:
        return None
    hidden = collecting_hidden(config)
    return _OWN if hidden is None else "x".join(map(str, hidden))


def home(config: SweepConfig) -> pathlib.Path:
    """Where the data sets of this environment and backend are kept, the first ones that were collected."""
    physics = config.backend or ("spring" if config.env.startswith("brax/") else "")
    name, *settings = config.where.split(" ")
    return pathlib.Path(config.data_dir) / "-".join(filter(None, (name.replace("/", "-"), physics, *settings)))


def place(config: SweepConfig, name: str) -> pathlib.Path:
    """The file of a collected data set: where there is one that was collected so, else where it will be.

    Sets that were collected in another way (steps, widths, seed) lie beside those that came first, in a folder that
    says how.
    """
    first = home(config)
    for folder in _folders(first):
        if (folder / f"{name}.hdf5").is_file() and _fits(folder, name, config):
            return folder / f"{name}.hdf5"
    about = provenance(config)
    words = [f"{about.get('collect_steps', '')}", about.get("hidden", ""), f"seed{about['seed']}"]
    for folder in (first, first.with_name("-".join(filter(None, (first.name, *words))))):
        if all(_fits(folder, file.stem, config) for file in folder.glob("*.hdf5")):
            return folder / f"{name}.hdf5"
    raise UserError(f"{folder} holds data sets that were not collected as its name says; remove it")


def as_collected(config: SweepConfig) -> SweepConfig:
    """The config with what it leaves open of a collection as the set that it finds was collected."""
    if config.dataset not in (*COLLECTED, *EXPLORED) or (config.env == "none"):
        return config
    path = place(config, config.dataset)
    if not path.is_file():
        return config
    about, changes = _about(path), {}
    if config.collect_steps is None and "collect_steps" in about:
        changes["collect_steps"] = int(about["collect_steps"])
    if _widths(config) is None and "hidden" in about:
        text = str(about["hidden"])
        changes["collect_hidden"] = () if text == _OWN else tuple(map(int, text.split("x")))
    return dataclasses.replace(config, **changes)


def _folders(first: pathlib.Path) -> Iterator[pathlib.Path]:
    yield first
    if first.parent.is_dir():
        yield from sorted(path for path in first.parent.glob(f"{first.name}-*") if path.is_dir())


def _fits(folder: pathlib.Path, name: str, config: SweepConfig) -> bool:
    """Whether a file was collected as the config asks, as far as it says; one that cannot be read is left to the
    reader's message. Random actions have no network, and a search one of its own unless it is told another."""
    about, wanted = _about(folder / f"{name}.hdf5"), provenance(config)
    no_matter = name == "random" or (name in SEARCHED and not config.collect_hidden)
    asked = {key: value for key, value in wanted.items() if key != "hidden" or not no_matter}
    return all(about.get(key, value) == value for key, value in asked.items())


def _about(path: pathlib.Path) -> dict[str, Any]:
    from jaxrl_reg import data

    try:
        return data.metadata(path) if path.is_file() else {}
    except (UserError, OSError):
        return {}
