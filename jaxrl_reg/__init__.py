"""Behaviour-regularised reinforcement learning in JAX: pure losses, agents, environments and populations."""

import importlib

__version__ = "0.1.0"

_SUBMODULES = (
    "agents",
    "contract",
    "data",
    "envs",
    "errors",
    "evaluation",
    "generative",
    "io",
    "jobs",
    "loops",
    "losses",
    "networks",
    "policies",
    "population",
    "representation",
    "tabular",
    "transforms",
    "types",
)
_FUNCTIONS = {"load_policy": "jobs"}  # and the room where each is
__all__ = ["__version__", *_FUNCTIONS, *_SUBMODULES]


def __getattr__(name: str):
    # Lazy: borrowing one loss must not pay for Flax, Brax or Orbax.
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
