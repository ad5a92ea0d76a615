"""What there is: ``list``, ``runs`` and ``env``."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from jaxrl_reg import jobs
from jaxrl_reg.cli import PROG
from jaxrl_reg.cli.display import columns
from jaxrl_reg.cli.options import Verb
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.jobs import preprocessing

RUNS_EXAMPLES = """\
examples:
  jaxrl-reg runs
  jaxrl-reg runs runs/comparison --agent iql"""

TOPICS = ("agents", "envs", "datasets", "hyperparameters")


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", metavar="TOPIC", nargs="?", help=", ".join(TOPICS))
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="hyperparameters: of this agent only; envs: settings of this one"
    )
    parser.add_argument("--data-dir", default="datasets", metavar="DIR", help="where data sets are kept [datasets]")


def _list(arguments: argparse.Namespace) -> None:
    topic = arguments.topic
    if topic is not None and topic not in TOPICS:
        raise unknown("topic", topic, TOPICS)
    if arguments.name is not None and topic not in ("envs", "hyperparameters"):
        raise UserError(f"only 'list envs' and 'list hyperparameters' take a name, not 'list {topic}'")
    if topic in (None, "agents"):
        _list_agents()
    if topic in (None, "envs"):
        _list_envs() if arguments.name is None else _list_settings(arguments.name)
    if topic in (None, "datasets"):
        _list_datasets(arguments.data_dir)
    if topic == "hyperparameters":
        _list_hyperparameters(arguments.name)
    if topic is None:
        print(f"hyperparameters\n  {PROG} list hyperparameters [AGENT]")


def _list_agents() -> None:
    from jaxrl_reg import agents

    rows = []
    for name in agents.names():
        module = agents.load(name)
        rows.append((name, module.KIND, f"{module.PAPER.title} ({module.PAPER.authors}, {module.PAPER.year})"))
    print("agents\n" + columns(rows))


def _list_envs() -> None:
    from jaxrl_reg import envs

    print("envs\n" + columns([(name,) for name in envs.names()]))


def _list_settings(name: str) -> None:
    from jaxrl_reg import envs

    rows = [(setting, _default(value)) for setting, value in envs.settings(name).items()]
    print(f"{name}: settings for --env-set, and their defaults\n" + (columns(rows) if rows else "  none"))


def _list_datasets(directory: str) -> None:
    print(
        "datasets, collected in any environment on first use\n"
        + columns([(name,) for name in (*jobs.COLLECTED, *jobs.EXPLORED)])
    )
    found = sorted(pathlib.Path(directory).rglob("*.hdf5")) if pathlib.Path(directory).is_dir() else []
    rows = [(str(path), f"{path.stat().st_size / 2**20:.1f} MiB") for path in found]
    print(f"files in {directory}\n" + (columns(rows) if rows else "  none yet"))


def _list_hyperparameters(name: str | None) -> None:
    from jaxrl_reg import agents

    for agent in agents.names() if name is None else [name]:
        module = agents.load(agent)
        paper = module.PAPER
        print(f"{agent}: {paper.title} ({paper.authors}, {paper.year}) {paper.url}")
        for kind, cls in (("swept with --grid, fixed with --set", module.Hyper), ("fixed with --set", module.Config)):
            rows = [(field, _default(value), text) for field, value, text in agents.settings(cls)]
            if rows:
                print(f" {kind}\n" + columns(rows, indent="   "))
        if text := preprocessing.described(agent):
            print(columns([("", f"its paper's protocol: {text}")], indent=""))
        if paper.deviations:
            print(columns([("", f"differs from the paper: {paper.deviations}")], indent=""))


def _default(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _runs_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", nargs="?", default="runs", help="where the runs lie [runs]")
    parser.add_argument("--agent", metavar="AGENT", help="runs of this agent only")


def _runs(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.report.words import decimals, number

    found = jobs.runs(arguments.directory, agent=arguments.agent).fillna("").to_dict("records")
    places = decimals([row["score"] for row in found if row["score"] != ""])

    def scored(row: dict[str, Any]) -> str:
        if row["score"] == "":
            return str(row["score_name"])
        value, low, high = (number(row[name], places) for name in ("score", "low", "high"))
        diverged = f", {row['diverged']:.0f} of {row['runs']:.0f} diverged" if row["diverged"] else ""
        return f"{row['score_name']} {value} [{low}, {high}]{diverged}"

    def best_of(row: dict[str, Any]) -> str:
        many = f" (best of {row['settings']:.0f})" if row["settings"] not in ("", 1) else ""
        return f"{row['setting']}{many}"

    shown = ("run", "kind", "environment", "agent", "dataset")
    headings = ("run", "kind", "env", "agent", "data", "setting", "last IQM [95%]", "finished")
    rows = [(*(row[name] for name in shown), best_of(row), scored(row), row["state"]) for row in found]
    print(columns([headings, *rows], indent=""))


def _env(_: argparse.Namespace) -> None:
    from jaxrl_reg.io import env_info

    print("\n".join(env_info.lines(env_info.describe())))


VERBS = (
    Verb(
        "list",
        "[TOPIC] [NAME]",
        "agents, envs, datasets, hyperparameters",
        "Show what there is, with defaults, meanings and papers.",
        _list_options,
        _list,
    ),
    Verb(
        "runs",
        "[DIR] [options]",
        "list and compare the runs below a directory",
        "List the runs below a directory, those that can be compared together and the best of them first: kind, "
        "environment, agent, data, the best setting and its score.",
        _runs_options,
        _runs,
        RUNS_EXAMPLES,
    ),
    Verb(
        "env",
        "",
        "versions, devices and cache, for bug reports",
        "Print versions, devices and cache state for a bug report.",
        lambda parser: None,
        _env,
    ),
)
