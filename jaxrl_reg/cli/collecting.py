"""Collect: ``collect``."""

from __future__ import annotations

import argparse

from jaxrl_reg import jobs
from jaxrl_reg.cli import machine
from jaxrl_reg.cli.options import Verb, add_config, config_of, whole

COLLECT_EXAMPLES = """\
examples:
  jaxrl-reg collect --env brax/hopper --backend spring
  jaxrl-reg collect --env pointmaze --behavior rnd --steps 200000
  jaxrl-reg collect --env rooms --behavior stax --steps 500000
  jaxrl-reg collect --env pointnav --collect-steps 50000 --data-dir ~/datasets"""

_COLLECTING = ("env", "backend", "data_dir", "scale", "hidden", "seed_offset")
_COLLECTED = ("collect_steps", "collect_hidden", "collect_seed")


def _collect_options(parser: argparse.ArgumentParser) -> None:
    add_config(parser, (*_COLLECTING, *_COLLECTED))
    parser.add_argument("--steps", dest="collect_steps", type=whole, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--behavior", default="task", metavar="B", help="task, or without one: random, rnd, diayn, stax [task]"
    )


def _collect(arguments: argparse.Namespace) -> None:
    config, behavior = config_of(arguments), arguments.behavior
    with machine.job(None) as display:
        if behavior == "task":
            path = jobs.collect(config, say=display.say, on_tick=display.tick)
        else:
            path = jobs.explore(config, behavior, say=display.say, on_tick=display.tick)
    if path is not None:
        display.say(f"data sets: {path.parent}")


VERBS = (
    Verb(
        "collect",
        "[options]",
        "only make the data sets of an environment",
        "Train soft actor-critic online and cut its experience into random, medium, medium-replay, expert and "
        "medium-expert data sets; or explore without a task and keep everything; or search for policies that end up "
        "everywhere (stax), whose rewarded episodes are a data set of their own.",
        _collect_options,
        _collect,
        COLLECT_EXAMPLES,
    ),
)
