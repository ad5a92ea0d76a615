"""``python -m jaxrl_reg.contract my_package.my_agent``: a table; exit code 0: all passed, 1: not all, 2: bad input."""

from __future__ import annotations

import argparse
import sys

from jaxrl_reg import agents
from jaxrl_reg.contract import CHECKS, check_agent
from jaxrl_reg.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxrl_reg.contract", description="Check agents against the contract."
    )
    parser.add_argument("agents", nargs="*", help="names or import paths; all agents of jaxrl_reg by default")
    parser.add_argument("--checks", help=f"comma-separated, all by default: {', '.join(CHECKS)}")
    options = parser.parse_args(arguments)
    passed = True
    try:
        for agent in options.agents or agents.names():
            print(agent)
            for result in check_agent(agent, checks=options.checks.split(",") if options.checks else None):
                verdict = "ok  " if result.passed else "FAIL"
                print(f"  {verdict} {result.check:<12}{result.seconds:6.1f} s  {result.message}".rstrip(), flush=True)
                passed = passed and result.passed
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
