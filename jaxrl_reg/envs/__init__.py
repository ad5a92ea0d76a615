"""Environments by name, one auto-reset, and what it takes to write an environment of one's own."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from jaxrl_reg import foreign
from jaxrl_reg.envs import local
from jaxrl_reg.envs.adapters.gymnasium import evaluate_gymnasium
from jaxrl_reg.envs.core import (
    Outcome,
    environment,
    time_limit,
    transform_observation,
    unwrap,
    vectorize,
    with_noise,
    with_reward,
    with_skills,
    with_tasks,
)
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Env, TokenTask

__all__ = [
    "Outcome",
    "environment",
    "evaluate_gymnasium",
    "make",
    "names",
    "settings",
    "time_limit",
    "transform_observation",
    "unwrap",
    "vectorize",
    "with_noise",
    "with_reward",
    "with_skills",
    "with_tasks",
]

_ADAPTERS = ("brax", "playground")


def make(name: str, **settings: Any) -> Env | TokenTask:
    """The environment ``name``, with actions in [-1, 1] and a time limit; one of :func:`names`, or a module's path.

    Names in ``tokens/`` give a :class:`jaxrl_reg.types.TokenTask` instead: prompts and a judge of completions.

    ``settings`` are those of the ``make`` function behind the name: ``make("brax/hopper", backend="mjx",
    episode_length=500)``, ``make("pointmaze", task="reach_top_left")``. ``make("my_package.my_env", size=3)`` imports
    that module and calls its ``make(size=3)``; nothing needs to be registered. Files (``mine.py``) and modules are
    found from the working directory, see ``foreign``.

    Raises ``UserError``, with the nearest known one, for an unknown name or setting.
    """
    function, arguments = _maker(name)
    parameters = inspect.signature(function).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters][len(arguments) :]
        for key in settings:
            if key not in known:
                raise unknown(f"setting of {name}", key, known) if known else UserError(f"{name} has no settings")
    with local.devices():
        return function(*arguments, **settings)


def settings(name: str) -> dict[str, Any]:
    """The settings that ``make(name)`` names, and their defaults; one without a default is None.

    Raises ``UserError`` for an unknown name.
    """
    function, arguments = _maker(name)
    parameters = list(inspect.signature(function).parameters.values())[len(arguments) :]
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    return {one.name: None if one.default is one.empty else one.default for one in named}


def _maker(name: str) -> tuple[Callable[..., Env | TokenTask], tuple[str, ...]]:
    """The function behind a name, and its first arguments."""
    family, _, member = name.partition("/")
    if member and family == "gymnasium":
        raise UserError(
            f"{name} runs on the host, outside of the compiled program: it can judge agents that learn from a data "
            "set, and cannot be trained or collected in"
        )
    if name.endswith(".py"):
        return _foreign(name).make, ()
    if member:
        if name not in names() and family != "brax":  # Brax may know more of them: its users can register their own
            raise unknown("environment", name, names())
        module = _module(family)
        if module is None or not hasattr(module, "NAMES"):
            raise unknown("environment", name, names())
        return (module.maker(member), ()) if hasattr(module, "maker") else (module.make, (member,))
    module = _foreign(name) if "." in name or not _known(name) else _module(name)
    if module is None or hasattr(module, "NAMES"):
        raise unknown("environment", name, names())
    return module.make, ()


def names() -> list[str]:
    """Every name that :func:`make` knows: the modules here that have a ``make``; families give one name per member."""
    own = [info.name for info in pkgutil.iter_modules(__path__) if not info.ispkg]
    found = []
    for family in (*own, *_ADAPTERS):
        module = _module(family)
        if module is not None:
            found += [f"{family}/{member}" for member in module.NAMES] if hasattr(module, "NAMES") else [family]
    return sorted(found)


def _module(name: str) -> ModuleType | None:
    path = f"{__name__}.adapters.{name}" if name in _ADAPTERS else f"{__name__}.{name}"
    if not name.isidentifier() or importlib.util.find_spec(path) is None:
        return None
    module = importlib.import_module(path)
    return module if hasattr(module, "make") else None


def _known(name: str) -> bool:
    """Whether a name without a dot is one of this package; its own come before files of the user's."""
    return _module(name) is not None or name in _ADAPTERS


def _foreign(path: str) -> ModuleType:
    module = foreign.load(path, "environment")
    if module is None and "." not in path:
        raise unknown("environment", path, names())
    if module is None:
        parts = path.split(".")
        parents = (".".join(parts[: i + 1]) for i in range(len(parts)))
        gone = next((name for name in parents if importlib.util.find_spec(name) is None), path)
        raise UserError(f"environment {path!r}: no module {gone!r}, here or installed; known names: envs.names()")
    if not hasattr(module, "make"):
        raise UserError(f"environment {path!r}: the module has no function make(**settings) -> Env")
    return module
