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
  jaxrl-reg finetune runs/walk --env mine.py --anchor ewc --anchor-coef 0,0.1,1,10
  jaxrl-reg finetune runs/walk --env planar/walker --env-set task=run --anchor lora:4 --steps 200000

Every seed and setting of the offline run goes on from its last state; each batch holds rows of the data set and of what
is seen now. The agent updates as it did offline, with constant learning rates. Agents that are trained on transitions
can be fine-tuned: iql, awac, td3_bc, rebrac, cql, cal_ql and their kin. The report shows both phases in one curve, and
'jaxrl-reg resume' continues a fine-tuning run as any other.

With --env a run of ppo, sac or td3 in one environment goes on in another with the same spaces, held to what it was if
--anchor says so; the report shows both tasks before and after, for every strength (docs/continual.md)."""
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
OTHER_TASK = (
    *("steps", "num_envs", "unroll", "updates_per_iteration", "batch_size", "warmup", "capacity", "segments"),
    *("eval_episodes", "settings", "placement", "chunk", "tensorboard", "wandb"),
    *("env", "env_settings", "backend", "anchor", "anchor_coef"),
)
GIVEN = ("agent", "seeds", "seed_offset", "hidden", "grid", "sample", "draws", "evolve", "scale")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of a finished run on a data set, or with --env of any")
    add_config(parser, FIELDS, jobs.kinds.load("finetune").PRESETS, kind="finetune")
    group = parser.add_argument_group(jobs.kinds.load("transfer").WORDS)
    group.add_argument(
        "--env", default=argparse.SUPPRESS, help="environment to go on in, which has the same spaces, see 'list envs'"
    )
    add_config(group, ("env_settings", "backend", "anchor", "anchor_coef"), kind="transfer")
    parser.add_argument("--out", metavar="DIR", help="run directory [runs/<env>-<agent>-<time>]")
    machine.add_distributed(parser)
    for name in GIVEN:  # known, so that what is said of them is why
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, dest=name, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _finetune(arguments: argparse.Namespace) -> None:
    for name in GIVEN:
        if hasattr(arguments, name):
            raise UserError(
                f"--{name.replace('_', '-')} cannot be given here: every seed and setting of {arguments.run} goes on; "
                "train another run for others, or set a hyperparameter anew with --set"
            )
    elsewhere = hasattr(arguments, "env")
    kind, fields = ("transfer", OTHER_TASK) if elsewhere else ("finetune", FIELDS)
    wanted = "going on in another environment: name that with --env"
    if elsewhere:
        wanted = "going on online from a run on a data set, and not with --env"
    for name in (*FIELDS, *OTHER_TASK):
        if name not in fields and hasattr(arguments, name):
            flag = "env-set" if name == "env_settings" else name.replace("_", "-")
            raise UserError(f"--{flag} is for {wanted}")
    machine.join(arguments.distributed)
    config = jobs.kinds.load(kind).continuing(arguments.run, **values_of(arguments, fields))
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
        "go on in the environment from a run on a data set, or on another task",
        "Offline to online: every member of a finished offline run goes on in its environment, the data set in each "
        "batch beside what is seen now. With --env: every member of a run in one environment goes on in another.",
        _options,
        _finetune,
        EXAMPLES,
    ),
)
