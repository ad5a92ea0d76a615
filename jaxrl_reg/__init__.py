"""Behaviour-regularised reinforcement learning in JAX: pure losses, agents, environments and populations."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what ``__getattr__`` serves, for editors
    from jaxrl_reg import agents as agents
    from jaxrl_reg import contract as contract
    from jaxrl_reg import data as data
    from jaxrl_reg import envs as envs
    from jaxrl_reg import errors as errors
    from jaxrl_reg import evaluation as evaluation
    from jaxrl_reg import generative as generative
    from jaxrl_reg import io as io
    from jaxrl_reg import jobs as jobs
    from jaxrl_reg import loops as loops
    from jaxrl_reg import losses as losses
    from jaxrl_reg import networks as networks
    from jaxrl_reg import policies as policies
    from jaxrl_reg import population as population
    from jaxrl_reg import representation as representation
    from jaxrl_reg import search as search
    from jaxrl_reg import tabular as tabular
    from jaxrl_reg import transforms as transforms
    from jaxrl_reg import types as types
    from jaxrl_reg.jobs import load_policy as load_policy

__version__ = "0.2.0"

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
    "search",
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
