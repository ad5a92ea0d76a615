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
__all__ = ["__version__", *_SUBMODULES]


def __getattr__(name: str):
    # Lazy: borrowing one loss must not pay for Flax, Brax or Orbax.
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
