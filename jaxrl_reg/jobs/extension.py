"""A larger budget for a run that was begun with a smaller one."""

from __future__ import annotations

import dataclasses
import pathlib

from jaxrl_reg.errors import UserError
from jaxrl_reg.io.files import read_json, write_json
from jaxrl_reg.jobs.files import load_config, now
from jaxrl_reg.jobs.job import Job
from jaxrl_reg.jobs.learners import SCHEDULES
from jaxrl_reg.jobs.settings import JobConfig
from jaxrl_reg.jobs.values import word


def longer(config: JobConfig, name: str, number: int) -> JobConfig:
    """The config of a run with a larger budget and segments of the same length.

    Raises:
      UserError: if the run counts something else, or the number does not fit.
    """
    if name != config.budget:
        raise UserError(f"--{name} is not what this run counts; go on with --{config.budget} N")
    before = getattr(config, name)
    each = before // config.segments
    if number < before:
        raise UserError(f"--{name} {number} is less than the {before} of this run; give a larger number")
    if number % each:
        near = -(-number // each) * each
        raise UserError(f"--{name} {number} is no multiple of the {each} of an evaluation; nearest: --{name} {near}")
    return dataclasses.replace(config, **{name: number, "segments": number // each})


def take_over(path: pathlib.Path, config: JobConfig, job: Job) -> None:
    """Write a larger budget than the run was begun with into its directory, where there is one; the run is then not
    finished any more.

    Raises:
      UserError: if something of it ends with training, so that a longer run is another one.
    """
    begun = load_config(path)
    before, after = (getattr(one, config.budget) for one in (begun, config))
    if before == after:
        return
    for member in (*job.rivals, *job.learners):
        scheduled = [name for name in SCHEDULES if getattr(member.config, name, 0) and name not in config.settings]
        if scheduled:
            raise UserError(
                f"{scheduled[0]} of {member.name} ends with training after {before:,} {config.budget}, so this run "
                f"cannot go on; start a new one with: {command_of(config)}"
            )
    if config.early_stop is not None:
        raise UserError(
            f"{path} stopped settings early ({config.early_stop}), which depends on the budget, so it cannot go on; "
            f"start a new run with: {command_of(config)}"
        )
    stored, facts = read_json(path / "config.json"), read_json(path / "summary.json", default={})
    stored["extended"] = [*stored.get("extended", []), {config.budget: before, "until": now()}]
    stored["config"] = dataclasses.asdict(config)
    if facts.pop("finished", None) is not None:
        write_json(path / "summary.json", facts)
    write_json(path / "config.json", stored)


def command_of(config: JobConfig) -> str:
    """The command line that asks for a config, as short as its defaults allow."""
    words, flags = [], {"settings": "--set", "env_settings": "--env-set", "grid": "--grid", "sample": "--sample"}
    shown = {"env": "", "agent": "", **{name: "" for name in ("dataset",) if hasattr(config, name)}}
    preset = config.presets()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in flags:
            for key, one in value.items():
                many = isinstance(one, (list, tuple)) and field.name == "grid"
                words.append(f"{flags[field.name]} {key}={','.join(map(word, one)) if many else word(one)}")
        elif field.name in shown or value not in (field.default, preset.get(field.name)):
            flag, text = "--" + field.name.replace("_", "-"), value
            if isinstance(value, tuple):
                text = ",".join(map(str, value))
            words.append(flag if value is True else f"{flag} {text}")
    return f"jaxrl-reg sweep {' '.join(words)}"
