"""The command line ``jaxrl-reg``: parses, calls ``jobs``, prints. Importing it, and ``--help``, does not import JAX.

Every room (``training``, ``collecting``, ``results``, ``listing``) has its ``VERBS``: a new command is one more there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxrl_reg.cli.display import Display, member_rows, progress_text
from jaxrl_reg.cli.machine import STOPPED, prepare
from jaxrl_reg.cli.options import PROG, config_of
from jaxrl_reg.cli.parser import VERBS, build_parser, parse
from jaxrl_reg.errors import UserError

__all__ = ["VERBS", "Display", "build_parser", "config_of", "main", "member_rows", "parse", "prepare", "progress_text"]

BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parse(argv)
        if arguments.version:
            from jaxrl_reg import __version__

            print(f"{PROG} {__version__}")
            return 0
        if arguments.verb is None:
            build_parser().print_help()
            return 0
        if arguments.verb != "report":  # needs no backend
            prepare()
        VERBS[arguments.verb].call(arguments)
        sys.stdout.flush()  # what is left in the buffer: here a closed pipe can still be caught
    except UserError as error:
        print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    return 0
