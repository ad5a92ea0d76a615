"""Loops that turn an agent into a ``Run``. Each is a short scan, meant to be read and copied."""

import importlib

_HOMES = {
    "collect": "collect",
    "d4rl_style": "collect",
    "offline": "offline",
    "online": "online",
    "record": "rollout",
    "rollout": "rollout",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # a function may share its module's name: the function wins
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
