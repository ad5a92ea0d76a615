"""Agents, one module each, found by their file name: ``make("iql", spec)``, ``load("my_package.my_agent")``."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
from types import ModuleType
from typing import Any

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Agent, Spec

_CONTRACT = ("PAPER", "KIND", "Config", "Hyper", "make")


def names() -> list[str]:
    """The agents of this package: every public module of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The module of an agent: a name in :func:`names`, or the dotted path of one of your own.

    Raises ``UserError`` for an unknown name (with the nearest one) and for a module that is not an agent.
    """
    if "." not in name:
        if name not in names():
            raise unknown("agent", name, names())
        return importlib.import_module(f"{__name__}.{name}")
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent package is missing
        found = False
    if not found:
        raise UserError(f"no module named {name!r}; give the import path of a module with {', '.join(_CONTRACT)}")
    module = importlib.import_module(name)
    missing = [attribute for attribute in _CONTRACT if not hasattr(module, attribute)]
    if missing:
        raise UserError(f"module {name!r} is not an agent: it lacks {', '.join(missing)}")
    return module


def settings(cls: type) -> list[tuple[str, Any, str]]:
    """``(name, default, help)`` of every field of a ``Config`` or ``Hyper``, in order."""
    return [(field.name, field.default, field.metadata.get("help", "")) for field in dataclasses.fields(cls)]


def make(name: str, spec: Spec, **config: Any) -> Agent:
    """``load(name).make(Config(**config), spec)``. Raises ``UserError`` for a setting that the agent does not have."""
    module = load(name)
    known = [field.name for field in dataclasses.fields(module.Config)]
    for setting in config:
        if setting not in known:
            raise unknown(f"setting of {name}", setting, known)
    return module.make(module.Config(**config), spec)
