"""Plan: what a sweep would take on an accelerator that is not there."""

from __future__ import annotations

import argparse

from jaxrl_reg import jobs
from jaxrl_reg.cli import machine
from jaxrl_reg.cli.finetuning import FIELDS
from jaxrl_reg.cli.options import SHARED, Verb, add_config, add_kinds, config_of, fields_of, values_of
from jaxrl_reg.errors import UserError

DEVICES = ("h100", "a100", "l40s", "tpu-v5e", "tpu-v6e")  # population.targets has them; a help text imports no JAX

EXAMPLES = """\
examples:
  jaxrl-reg plan --for h100 --env brax/hopper --agent rebrac --grid actor_bc_coef=0.0,0.01,0.1,1.0 --seeds 16
  jaxrl-reg plan --for tpu-v5e --agent ppo --seeds 32
  jaxrl-reg plan --for l40s --agent iql --scale full --training-only
  jaxrl-reg plan --for h100 --agent ppo --sample actor_learning_rate=log:1e-5:1e-2 --draws 16 --evolve
  jaxrl-reg plan --for h100 --env brax/hopper --agent fb --dataset rnd
  jaxrl-reg plan --for h100 --finetune runs/offline --steps 40000

Nothing is trained, collected or written, and no accelerator is needed: its compiler is enough, which comes with
pip install "jaxrl-reg[plan-cuda]" (h100, a100, l40s) or "jaxrl-reg[plan-tpu]" (tpu-v5e, tpu-v6e). Launches, branches,
copies and memory are what the compiled programs say; updates per second are an estimate from the figures printed."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", dest="target", required=True, metavar="DEVICE", help=f"accelerator: {', '.join(DEVICES)}"
    )
    parser.add_argument("--training-only", action="store_true", help="do not compile evaluations, which take longest")
    parser.add_argument("--finetune", metavar="RUN", help="plan to go on online from this finished offline run")
    add_config(parser, SHARED)
    add_kinds(parser)


def _continuing(arguments: argparse.Namespace) -> jobs.JobConfig:
    known = {name for kind in ("offline", "online") for name in fields_of(kind)} - set(FIELDS)
    for name in sorted(known & set(vars(arguments))):
        raise UserError(f"--{name.replace('_', '-')} is as the offline run has it; it does not go with --finetune")
    return jobs.kinds.load("finetune").continuing(arguments.finetune, **values_of(arguments, FIELDS))


def _plan(arguments: argparse.Namespace) -> None:
    import jax

    from jaxrl_reg.population import targets

    targets.target(arguments.target)  # a mistyped name is told before anything is loaded
    jax.config.update("jax_platforms", "cpu")  # data are read here; nothing runs on what is planned for
    config = config_of(arguments) if arguments.finetune is None else _continuing(arguments)
    with machine.job(None) as display:
        planned = jobs.plan(config, arguments.target, evaluation=not arguments.training_only, say=display.say)
        fails = [one.label for one in planned if one.forecast.error or one.forecast.evaluates is False]
        if fails:
            display.say(f"{len(fails)} of {len(planned)} programs do not compile: {', '.join(fails)}")
        else:
            display.say(f"all {len(planned)} programs compile for {arguments.target}")


VERBS = (
    Verb(
        "plan",
        "--for DEVICE [options]",
        "what a sweep would take on an accelerator that is not here: memory, launches, an estimate",
        "Compile every program of a sweep for an accelerator that is not here, and say what it would take there.",
        _options,
        _plan,
        EXAMPLES,
    ),
)
