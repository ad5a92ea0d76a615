"""What a user did wrong, in one line that names the thing and says what to do."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable

# Packages that only some need, and the extra that brings each.
EXTRAS = {
    "brax": "envs",
    "mujoco": "envs",
    "h5py": "data",
    "orbax": "checkpoints",
    "flatbuffers": "export",
    "jinja2": "report",
    "matplotlib": "report",
    "pandas": "report",
    "pyarrow": "report",
    "rich": "report",
    "distrax": "policies",
    "gymnasium": "gymnasium",
    "minari": "minari",
    "mujoco_playground": "playground",
    "tensorboardX": "logging",
    "wandb": "logging",
}


class UserError(ValueError):
    """Bad input. Its message is one line; the command line prints it without a traceback and exits with code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a mistyped name: suggests the nearest known one, else lists them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def need(*packages: str) -> None:
    """Raises ``UserError`` where one of these optional packages is missing, with what to install."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise missing(package)


def missing(package: str) -> UserError:
    """The error for an optional package that is not installed."""
    extra = EXTRAS[package]
    everything = " (or all that the command line needs: 'jaxrl-reg[all]')" if extra not in _APART else ""
    return UserError(f"this needs the package {package}; pip install 'jaxrl-reg[{extra}]'{everything}")


_APART = ("gymnasium", "minari", "playground", "logging")  # not in the extra "all"
