"""The whole command line: every verb of every room, and what is said of a mistyped word."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

from jaxrl_reg.cli import PROG, collecting, finetuning, listing, planning, results, training
from jaxrl_reg.errors import UserError, unknown

VERBS = {
    verb.name: verb for room in (training, planning, finetuning, collecting, results, listing) for verb in room.VERBS
}

INTRO = """\
Behaviour-regularised reinforcement learning: seeds x hyperparameters as one compiled program.

commands:
{commands}

examples:
  jaxrl-reg sweep
  jaxrl-reg sweep --env brax/hopper --agent rebrac --grid actor_bc_coef=0.0,0.01,0.1,1.0 --seeds 16
  jaxrl-reg list hyperparameters rebrac
  jaxrl-reg resume runs/brax-hopper-rebrac-20260101-120000

'jaxrl-reg COMMAND --help' explains the options of a command."""


class Parser(argparse.ArgumentParser):
    """Raises ``UserError`` instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see: {self.prog} --help")


def intro() -> str:
    """The description of ``jaxrl-reg --help``: every command in one line, and examples."""
    heads = {name: f"{name} {verb.takes.removesuffix('[options]')}".strip() for name, verb in VERBS.items()}
    width = max(map(len, heads.values()))
    return INTRO.format(commands="\n".join(f"  {heads[name]:<{width}}  {verb.summary}" for name, verb in VERBS.items()))


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""

    def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.allow_abbrev = False
        return parser

    top = options(Parser(prog=PROG, usage=f"{PROG} COMMAND [options]", description=intro(), add_help=True))
    top.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", help=argparse.SUPPRESS, parser_class=Parser)
    for verb in VERBS.values():
        parser = options(
            verbs.add_parser(
                verb.name,
                prog=f"{PROG} {verb.name}",
                usage=f"{PROG} {verb.name} {verb.takes}",
                description=verb.description,
                epilog=verb.examples,
            )
        )
        verb.options(parser)
    return top


def _joined(argv: Sequence[str]) -> list[str]:
    """``--action-low -1,-2`` as one word: of what begins with a dash, the library takes single numbers only."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--action-low", "--action-high", "--goal") and re.match(r"-[\d.]", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments as a namespace with ``verb``.

    Raises:
      UserError: for an unknown command or flag (with the nearest known one), or a value that cannot be read.
      SystemExit: after ``--help``.
    """
    parser = build_parser()
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    if argv and not argv[0].startswith("-") and argv[0] not in verbs:
        raise unknown("command", argv[0], verbs)
    arguments, rest = parser.parse_known_args(_joined(argv))
    if rest:
        verb = verbs[arguments.verb] if arguments.verb else parser
        flags = [flag for action in verb._actions for flag in action.option_strings if flag.startswith("--")]
        flag = next((word for word in rest if word.startswith("-")), None)
        if flag is None:
            raise UserError(f"unexpected argument {rest[0]!r}; see: {verb.prog} --help")
        name = flag.split("=")[0]
        owner = next((other.prog for other in verbs.values() if name in other._option_string_actions), None)
        if owner is not None:
            raise UserError(f"unknown flag {name!r} for {verb.prog}; it belongs to: {owner}")
        # Without the dashes, which every flag shares; a word like none of them is likely to be a hyperparameter.
        if difflib.get_close_matches(name.strip("-"), [known.strip("-") for known in flags], cutoff=0.6):
            raise unknown("flag", name, flags)
        hint = f"a hyperparameter is given as --set {name.strip('-').replace('-', '_')}=VALUE"
        raise UserError(f"unknown flag {name!r}; {hint}; for options see: {verb.prog} --help")
    return arguments
