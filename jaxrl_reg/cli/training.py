"""Train: ``sweep``, ``train``, ``compare`` and ``resume``."""

from __future__ import annotations

import argparse
import pathlib

from jaxrl_reg import jobs
from jaxrl_reg.cli import machine
from jaxrl_reg.cli.display import columns, print_table
from jaxrl_reg.cli.options import (
    SEARCHING,
    SHARED,
    Verb,
    add_config,
    add_kinds,
    config_of,
    names,
    own_fields,
    refuse_others,
    whole,
)
from jaxrl_reg.cli.results import report
from jaxrl_reg.errors import UserError

SWEEP_EXAMPLES = """\
examples:
  jaxrl-reg sweep --env brax/hopper --agent rebrac --grid actor_bc_coef=0.0,0.01,0.1,1.0 --seeds 16
  jaxrl-reg sweep --env pointnav --agent iql --grid expectile=0.7,0.9 --grid inverse_temperature=log:0.5:10:4
  jaxrl-reg sweep --agent td3_bc --dataset medium --set discount=0.995 --set n_critics=4 --scale full
  jaxrl-reg sweep --agent td3_bc --sample bc_coef=log:0.01:10 --sample alpha=lin:0:5 --draws 32 --design sobol
  jaxrl-reg sweep --agent td3_bc --sample bc_coef=log:0.01:10 --draws 27 --early-stop halving
  jaxrl-reg sweep --agent ppo --sample actor_learning_rate=log:1e-5:1e-2 --draws 16 --evolve
  jaxrl-reg sweep --agent rebrac --grid hidden=64x64,256x256 --grid n_critics=2,4 --sample actor_bc_coef=log:0.001:1
  jaxrl-reg sweep --env brax/hopper --agent ppo --steps 614400 --grid entropy_coef=0,0.01 --against sac
  jaxrl-reg sweep --env tokens/reverse --agent grpo --seeds 8 --grid clip_high=0.2,0.28

Every hyperparameter can be swept; several --grid make a product. log:LOW:HIGH:N and lin:LOW:HIGH:N give N values;
--sample draws from log:LOW:HIGH, lin:LOW:HIGH or values V,V,... A setting of the agent (widths, number of critics)
can be swept as well: every value of it is a program of its own, and the plan says so before anything runs.

A token agent (grpo, dapo, rloo ...) answers the prompts of a task of tokens, which verifies its completions; it is
warmed up on right answers first.

An agent that learns in the environment (ppo, sac, td3) needs no data set: it is trained online. Name a --dataset to
train an off-policy agent such as sac on data instead."""

TRAIN_EXAMPLES = """\
examples:
  jaxrl-reg train --env brax/hopper --agent iql --seeds 8
  jaxrl-reg train --agent rebrac --set actor_bc_coef=0.05 --dataset expert
  jaxrl-reg train --env brax/hopper --agent sac --steps 100000"""

COMPARE_EXAMPLES = """\
examples:
  jaxrl-reg compare
  jaxrl-reg compare --agents td3_bc,prdc,a2pr,iql --datasets medium-replay --seeds 8 --updates 20000
  jaxrl-reg compare --scale full --envs brax/hopper,brax/halfcheetah --out runs/table
  jaxrl-reg compare --agents ppo,sac --envs brax/hopper --steps 204800 --out runs/online

Finished runs of the directory are skipped and stopped ones resumed: run the same command again to go on."""

_COMPARING = tuple(
    name
    for name in (*SHARED, *own_fields(jobs.kinds.OFFLINE))
    if name not in ("env", "agent", "dataset", "tensorboard", "wandb", *SEARCHING)
)


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    add_config(parser, SHARED)
    _run_options(parser)


def _train_options(parser: argparse.ArgumentParser) -> None:
    add_config(parser, [field for field in SHARED if field not in SEARCHING])
    _run_options(parser)


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="run directory [runs/<env>-<agent>-<time>]")
    machine.add_distributed(parser)
    add_kinds(parser)


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agents", type=names, metavar="A,A", help="agents [every offline one that sees rewards]")

    def presets(name: str) -> str:
        return "; ".join(f"{scale}: {','.join(preset[name])}" for scale, preset in jobs.COMPARISONS.items())

    parser.add_argument("--envs", type=names, metavar="E,E", help=f"environments [{presets('envs')}]")
    parser.add_argument("--datasets", type=names, metavar="D,D", help=f"data sets or files [{presets('datasets')}]")
    add_config(parser, _COMPARING, {scale: {**jobs.SCALES[scale], **own} for scale, own in jobs.COMPARISONS.items()})
    group = parser.add_argument_group(jobs.kinds.load("online").WORDS)
    online = [name for name in own_fields("online") if name not in (*_COMPARING, "against")]
    add_config(group, online, jobs.kinds.load("online").PRESETS, kind="online")
    parser.add_argument(
        "--out", default="runs/comparison", metavar="DIR", help="directory of the runs [runs/comparison]"
    )


def _resume_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument("--updates", type=whole, metavar="N", help="go on to so many gradient updates per member")
    parser.add_argument("--steps", type=whole, metavar="N", help="the same for a run that counts environment steps")
    machine.add_distributed(parser)


def _sweep(arguments: argparse.Namespace) -> None:
    machine.join(arguments.distributed)
    config = config_of(arguments)
    directory = pathlib.Path(arguments.out) if arguments.out else jobs.default_directory(config)
    try:
        with machine.job(directory) as display:
            for line in jobs.kinds.announce(config):
                display.say(line)
            call = jobs.train if arguments.verb == "train" else jobs.sweep
            outcome = call(config, directory=directory, say=display.say, on_tick=display.tick)
    finally:
        if not arguments.out:
            jobs.release(directory)
    if not outcome.table.empty:  # else another process has it
        print_table(display, outcome.table, outcome.directory)


def _compare(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.comparison import cell, places

    directory = pathlib.Path(arguments.out)
    asked = arguments.agents or (jobs.SweepConfig.agent,)
    meant = {jobs.kind_of(agent, dataset=bool(arguments.datasets)): agent for agent in reversed(asked)}
    if len(meant) > 1:
        words = " and ".join(f"{agent} means {jobs.kinds.load(kind).WORDS}" for kind, agent in meant.items())
        raise UserError(f"compare takes agents of one kind of run: {words}")
    (kind,) = meant
    refuse_others(arguments, kind, f"{asked[0]} means")
    config = config_of(arguments, kind)
    given = {name: getattr(arguments, name) for name in ("agents", "envs", "datasets") if getattr(arguments, name)}
    with machine.job(None) as display:
        table = jobs.compare(config, **given, directory=directory, say=display.say, on_tick=display.tick)
    digits = places(table)
    rows = [(row["agent"], row["task"], cell(row, digits[row["task"]])) for row in table.to_dict("records")]
    display.say(columns(rows))
    display.say(f"table: {directory / 'comparison.md'}")


def _resume(arguments: argparse.Namespace) -> None:
    machine.join(arguments.distributed)
    directory = pathlib.Path(arguments.run)
    longer = {name: getattr(arguments, name) for name in ("updates", "steps") if getattr(arguments, name) is not None}
    if jobs.finished(directory) and not longer:
        print(
            f"{directory} has already finished; give it a larger budget with --{jobs.load_config(directory).budget} N"
        )
        return report(arguments)
    with machine.job(directory) as display:
        outcome = jobs.resume(directory, **longer, say=display.say, on_tick=display.tick)
    if not outcome.table.empty:  # else another process has it
        print_table(display, outcome.table, outcome.directory)


VERBS = (
    Verb(
        "sweep",
        "[options]",
        "train a grid of settings on a data set, or in the environment; evaluate, report",
        "Train a grid on a data set (collected if needed) beside a cloning baseline, or in the environment; evaluate, "
        "report.",
        _sweep_options,
        _sweep,
        SWEEP_EXAMPLES,
    ),
    Verb(
        "train",
        "[options]",
        "the same for one setting",
        "Train one setting over several seeds, on a data set beside a cloning baseline or in the environment; report.",
        _train_options,
        _sweep,
        TRAIN_EXAMPLES,
    ),
    Verb(
        "compare",
        "[options]",
        "many agents with the same budget, in one table",
        "Train every offline agent on every data set (or the online agents that are named, in every environment) with "
        "the same budget and its own defaults; one table, one figure.",
        _compare_options,
        _compare,
        COMPARE_EXAMPLES,
    ),
    Verb(
        "resume",
        "RUN [options]",
        "continue a run that was stopped, or give it a larger budget",
        "Continue a run from its newest checkpoint, to its end or to a larger budget.",
        _resume_options,
        _resume,
    ),
)
