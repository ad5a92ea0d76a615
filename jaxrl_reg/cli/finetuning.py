"""Go on with what was trained: ``finetune``."""

from __future__ import annotations

import argparse
import pathlib

from jaxrl_reg import jobs
from jaxrl_reg.cli import machine
from jaxrl_reg.cli.display import print_table
from jaxrl_reg.cli.options import Verb, add_config, values_of
from jaxrl_reg.errors import UserError

EXAMPLES = """\
examples:
  jaxrl-reg sweep --env brax/hopper --agent cal_ql --dataset medium --out runs/offline
  jaxrl-reg finetune runs/offline --steps 40000 --out runs/online
  jaxrl-reg finetune runs/offline --steps 40000 --offline-fraction 0.25 --set discount=0.995
  jaxrl-reg finetune runs/offline --dataset more.hdf5 --refit-statistics
  jaxrl-reg finetune runs/offline --steps 80000 --segments 9 --early-stop halving

Every seed and setting of the offline run goes on from its last state; each batch holds rows of the data set and of what
is seen now. The agent updates as it did offline, with constant learning rates. Agents that are trained on transitions
can be fine-tuned: iql, awac, td3_bc, rebrac, cql, cal_ql and their kin. The report shows both phases in one curve, and
'jaxrl-reg resume' continues a fine-tuning run as any other."""
FIELDS = (
    "steps",
    "offline_fraction",
    "dataset",
    "refit_statistics",
    "num_envs",
    "unroll",
    "updates_per_iteration",
    "batch_size",
    "warmup",
    "capacity",
    "segments",
    "eval_episodes",
    "early_stop",
    "settings",
    "placement",
    "chunk",
    "tensorboard",
    "wandb",
)
GIVEN = ("env", "backend", "agent", "seeds", "seed_offset", "hidden", "grid", "sample", "draws", "evolve", "scale")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of a finished offline run")
    add_config(parser, FIELDS, jobs.kinds.load("finetune").PRESETS, kind="finetune")
    parser.add_argument("--out", metavar="DIR", help="run directory [runs/<env>-<agent>-<time>]")
    machine.add_distributed(parser)
    for name in GIVEN:  # known, so that what is said of them is why
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, dest=name, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _finetune(arguments: argparse.Namespace) -> None:
    for name in GIVEN:
        if hasattr(arguments, name):
            raise UserError(
                f"--{name.replace('_', '-')} cannot be given here: every seed and setting of {arguments.run} goes on "
                "in its environment, physics included; train another run for others, or set a hyperparameter anew "
                "with --set"
            )
    machine.join(arguments.distributed)
    config = jobs.kinds.load("finetune").continuing(arguments.run, **values_of(arguments, FIELDS))
    directory = pathlib.Path(arguments.out) if arguments.out else jobs.default_directory(config)
    try:
        with machine.job(directory) as display:
            outcome = jobs.sweep(config, directory=directory, say=display.say, on_tick=display.tick)
    finally:
        if not arguments.out:
            jobs.release(directory)
    if not outcome.table.empty:  # else another process has it
        print_table(display, outcome.table, outcome.directory)


VERBS = (
    Verb(
        "finetune",
        "RUN [options]",
        "go on in the environment from a run on a data set",
        "Offline to online: every member of a finished offline run goes on in its environment, the data set in each "
        "batch beside what is seen now.",
        _options,
        _finetune,
        EXAMPLES,
    ),
)
