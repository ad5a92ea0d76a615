"""What a run came to: ``evaluate``, ``zeroshot``, ``export`` and ``report``."""

from __future__ import annotations

import argparse
import pathlib

from jaxrl_reg import jobs
from jaxrl_reg.cli import machine
from jaxrl_reg.cli.display import Display, print_rows, print_table
from jaxrl_reg.cli.options import Verb, numbers, whole
from jaxrl_reg.errors import UserError

EVALUATE_EXAMPLES = """\
examples:
  jaxrl-reg evaluate runs/hopper --episodes 200
  jaxrl-reg evaluate runs/hopper --attack random:0.1,pgd:0.05,pgd:0.1
  jaxrl-reg evaluate runs/other --adversary runs/hopper:rat:0.1
  jaxrl-reg evaluate runs/hopper --conduct
  jaxrl-reg evaluate runs/hopper --explain
  jaxrl-reg evaluate runs/hopper --triggers 3=1,0 4=1,0 5=1,0
  jaxrl-reg evaluate runs/maze --attack random:0.2,pgd:0.2,critic:0.2 --target my_targets.py:stays_left

A size is in standard deviations of each coordinate of the observation. A target is a function of one step, in JAX:

  def stays_left(observation, action, next_observation):
      return next_observation[0] < 0"""


ZEROSHOT_EXAMPLES = """\
examples:
  jaxrl-reg zeroshot runs/pointmaze-sf_laplacian-20260101-120000 --task reach_top_left,reach_bottom_right
  jaxrl-reg zeroshot runs/pointmaze-sf_laplacian-20260101-120000 --reward my_rewards.py:far_left --episodes 50

A reward is a function of one step, in JAX:

  def far_left(observation, action, next_observation):
      return next_observation[0] < -0.5"""


EXPORT_EXAMPLES = """\
examples:
  jaxrl-reg export runs/hopper --to hopper-policy
  jaxrl-reg export runs/hopper --to second --setting 2 --seed 0
  jaxrl-reg export runs/maze --to corner --goal 20,20

In Python, act = jaxrl_reg.load_policy("runs/hopper") acts with the same policy: act(observation) -> action."""


def _run_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run directory")


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    _run_option(parser)
    parser.add_argument(
        "--attack",
        metavar="NAME:SIZE,...",
        help=f"what the policies see is perturbed instead, by {', '.join(jobs.ATTACKS)}; may be repeated in the list",
    )
    parser.add_argument(
        "--adversary",
        metavar="RUN[:NAME:SIZE],...",
        help="under adversaries that --attack has made learn against the members of other runs, as they are",
    )
    parser.add_argument(
        "--target", metavar="FILE.py:FUNCTION", help="with --attack: what it shall make them do [as badly as they can]"
    )
    parser.add_argument(
        "--attack-steps", type=whole, metavar="N", help="with --attack: steps that one that learns is trained [50_000]"
    )
    parser.add_argument(
        "--episodes",
        type=whole,
        metavar="N",
        help="per member [ten times the run's own; with --conduct 64, with --triggers 16]",
    )
    parser.add_argument(
        "--conduct",
        action="store_true",
        help="how members behave besides their return: under sensor noise, after a push, their worst episodes, rules "
        "that they break; instead of more episodes for their scores",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="which steps and sensors drove the actions of the best member over an episode, and what its actions "
        "answer to, as pictures in the report; instead of more episodes",
    )
    parser.add_argument(
        "--triggers",
        nargs="*",
        metavar="COLUMN=ON,OFF",
        help="how much each of these sensors changes what members do when it is switched on and off in the states they "
        "visit; give some that should do nothing among them [every sensor, high and low]; instead of more episodes",
    )


def _zeroshot_options(parser: argparse.ArgumentParser) -> None:
    _run_option(parser)
    parser.add_argument("--task", metavar="NAME,NAME", help="tasks that the environment offers [all]")
    parser.add_argument(
        "--reward", metavar="FILE.py:FUNCTION", action="append", default=[], help="a reward of yours; may be repeated"
    )
    parser.add_argument("--samples", type=whole, default=10_000, metavar="N", help="labelled states per task [10_000]")
    parser.add_argument("--episodes", type=whole, default=10, metavar="N", help="per member and task [10]")


def _export_options(parser: argparse.ArgumentParser) -> None:
    _run_option(parser)
    parser.add_argument("--to", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--setting", type=whole, metavar="N", help="number of the setting [the best]")
    parser.add_argument("--seed", type=whole, metavar="N", help="seed of the member [the best of the setting]")
    parser.add_argument("--task", metavar="NAME", help="of an agent that serves tasks [its own reward]")
    parser.add_argument(
        "--goal", type=numbers, metavar="X,Y", help="for such an agent, the observation to reach instead"
    )


def _export(arguments: argparse.Namespace) -> None:
    chosen = {name: getattr(arguments, name) for name in ("setting", "seed", "task", "goal")}
    to = jobs.export(arguments.run, arguments.to, **chosen)
    print(f"policy: {to}; try: python {to / 'act.py'}")


def _evaluate(arguments: argparse.Namespace) -> None:
    attacked = arguments.attack is not None or arguments.adversary is not None
    ways = attacked, arguments.conduct, arguments.explain, arguments.triggers is not None
    if sum(ways) > 1:
        raise UserError(
            "--attack, --conduct, --explain and --triggers look at a run in different ways; give one of them"
        )
    if attacked:
        _attack(arguments)
        return
    for name in ("target", "attack_steps"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is of an attack; add --attack pgd:0.1, say")
    if arguments.explain or arguments.conduct:
        return _explain(arguments) if arguments.explain else _conduct(arguments)
    if arguments.triggers is not None:
        return _triggers(arguments)
    with machine.job(None) as display:
        table = jobs.evaluate(arguments.run, arguments.episodes, say=display.say, on_tick=display.tick)
    print_table(display, table, pathlib.Path(arguments.run))


def _attack(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.report import brief_robustness

    chosen = {} if arguments.attack_steps is None else {"steps": arguments.attack_steps}
    with machine.job(None) as display:
        table = jobs.attack(
            arguments.run,
            arguments.attack or (),
            arguments.target,
            adversary=arguments.adversary,
            episodes=arguments.episodes,
            say=display.say,
            on_tick=display.tick,
            **chosen,
        )
    print_rows(display, brief_robustness(table), pathlib.Path(arguments.run))


def _explain(arguments: argparse.Namespace) -> None:
    path = pathlib.Path(arguments.run)
    if arguments.episodes is not None:
        raise UserError("--explain looks at one episode of one member; it takes no --episodes")
    with machine.job(None) as display:
        jobs.explain(path, say=display.say, on_tick=display.tick)
    print(f"report: {path / 'report.html'}")


def _conduct(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.report import brief_conduct

    with machine.job(None) as display:
        table = jobs.conduct(arguments.run, arguments.episodes, say=display.say, on_tick=display.tick)
    rows = [[row[0], *row[3:], row[1], row[2]] for row in brief_conduct(table)]  # a narrow terminal shows the first
    print_rows(display, rows, pathlib.Path(arguments.run))


def _triggers(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.report import brief_triggers

    path = pathlib.Path(arguments.run)
    with machine.job(None) as display:
        table = jobs.triggers(path, arguments.triggers, arguments.episodes, say=display.say, on_tick=display.tick)
    print_rows(display, brief_triggers(table), path)
    print(f"all members: {path / 'triggers.parquet'}")


def _zeroshot(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.report import brief_tasks

    names = None if arguments.task is None else [name.strip() for name in arguments.task.split(",") if name.strip()]
    with machine.job(None) as display:
        table = jobs.zeroshot(
            arguments.run,
            names,
            arguments.reward,
            samples=arguments.samples,
            episodes=arguments.episodes,
            say=display.say,
            on_tick=display.tick,
        )
    print_rows(display, brief_tasks(table), pathlib.Path(arguments.run))


def report(arguments: argparse.Namespace) -> None:
    """Write the report of ``arguments.run`` again and print its table."""
    table = jobs.report(arguments.run)
    print_table(Display(), table, pathlib.Path(arguments.run))


VERBS = (
    Verb(
        "evaluate",
        "RUN [options]",
        "more episodes from the checkpoints of a run",
        "Roll out more episodes from the checkpoints of a run and write its report again. With --attack, under attacks "
        "on what the policies see; with --conduct, measure how its members behave besides their return; with "
        "--explain, show what the best of them looks at; with --triggers, which sensors set them off.",
        _evaluate_options,
        _evaluate,
        EVALUATE_EXAMPLES,
    ),
    Verb(
        "zeroshot",
        "RUN [options]",
        "put tasks to an agent that was trained without any",
        "Put tasks to an agent that was trained without rewards: infer each from labelled states of its data, roll out "
        "episodes, report. No further training.",
        _zeroshot_options,
        _zeroshot,
        ZEROSHOT_EXAMPLES,
    ),
    Verb(
        "export",
        "RUN --to DIR",
        "a trained policy as a folder that runs with JAX alone",
        "Write the policy of one member as a StableHLO program for CPU, CUDA and TPU, its parameters and normalisation "
        "inside, with what it takes and gives as JSON and a script that runs it. Needs neither the environment nor the "
        "data set.",
        _export_options,
        _export,
        EXPORT_EXAMPLES,
    ),
    Verb(
        "report",
        "RUN",
        "write the report of a run again",
        "Write the report of a run again from its metrics.",
        _run_option,
        report,
    ),
)
