"""The command line ``jaxrl-reg``: parses, calls ``jobs``, prints. Importing it, and ``--help``, does not import JAX.

Every room (``training``, ``collecting``, ``results``, ``listing``) has its ``VERBS``: a new command is one more there.
Nothing is imported before ``main`` is on, which so has an answer to Ctrl-C from the first moment.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import importlib
import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what ``__getattr__`` serves, for editors
    from jaxrl_reg.cli.display import Display as Display
    from jaxrl_reg.cli.display import member_rows as member_rows
    from jaxrl_reg.cli.display import progress_text as progress_text
    from jaxrl_reg.cli.options import config_of as config_of
    from jaxrl_reg.cli.parser import VERBS as VERBS
    from jaxrl_reg.cli.parser import build_parser as build_parser
    from jaxrl_reg.cli.parser import parse as parse

PROG = "jaxrl-reg"
BAD_INPUT, STOPPED = 2, 130
_HOMES = {
    "display": ("Display", "member_rows", "progress_text"),
    "options": ("config_of",),
    "parser": ("VERBS", "build_parser", "parse"),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def prepare() -> None:
    """Settings that JAX reads when its backend starts; see ``cli.machine``."""
    from jaxrl_reg.cli import machine

    machine.prepare()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C."""
    try:
        with _listening():
            return _main(list(sys.argv[1:] if argv is None else argv))
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and not interrupted():
            raise
        print(f"{PROG}: stopped; run the same command again to go on", file=sys.stderr)
        return STOPPED
    finally:
        if argv is None:  # the process ends with this call, and nothing is left to stop
            signal.signal(signal.SIGINT, signal.SIG_IGN)


_presses: list[int] = []


def interrupted() -> bool:
    """Whether Ctrl-C was pressed in this command, whatever has become of the exception since: a library may have made
    another of it."""
    return bool(_presses)


def _loading(frame: FrameType | None) -> bool:
    """Whether an extension module is being loaded: in the middle of that, some crash on an exception, or print it."""
    while frame is not None:
        loads = frame.f_code.co_name in ("create_module", "exec_module")
        if loads and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """Remembers Ctrl-C, and repeats one that came where no exception can pass: in a destructor, in a callback, while an
    extension module is loaded."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        _presses.append(number)
        if _loading(frame):
            return again()
        raise KeyboardInterrupt

    def on_unraisable(what: Any) -> None:
        if what.exc_type is not KeyboardInterrupt:
            return hook(what)
        again()

    def again() -> None:
        timer = threading.Timer(0.02, _thread.interrupt_main)  # here it would be lost once more
        timer.daemon = True
        timer.start()
        timers.append(timer)

    timers: list[threading.Timer] = []
    _presses.clear()
    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    ours = handler is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:  # under nohup, for one, Ctrl-C means nothing
        signal.signal(signal.SIGINT, on_signal)
        sys.unraisablehook = on_unraisable
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, handler)
            sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()


def _main(argv: list[str]) -> int:
    from jaxrl_reg.cli.parser import VERBS, build_parser, parse
    from jaxrl_reg.errors import UserError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a locale cannot write becomes a question mark, not an error
            stream.reconfigure(errors="replace")
    try:
        arguments = parse(argv)
        if arguments.version:
            from jaxrl_reg import __version__

            print(f"{PROG} {__version__}")
        elif arguments.verb is None:
            build_parser().print_help()
        else:
            if arguments.verb != "report":  # needs no backend
                prepare()
            VERBS[arguments.verb].call(arguments)
        sys.stdout.flush()  # what is left in the buffer: here a closed pipe can still be caught
    except UserError as error:
        print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except SystemExit as stop:
        return int(stop.code or 0)
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    except OSError as error:
        if errno.errorcode.get(error.errno or 0) not in ("ENOSPC", "EDQUOT", "EFBIG"):  # a full disk
            raise
        print(f"{PROG}: {error.strerror}: {error.filename or 'standard output'}", file=sys.stderr)
        return BAD_INPUT
    return 0
