"""How good a policy is, and how sure one can be: rollouts, statistics, figures, reports."""

import importlib

_SUBMODULES = ("plots", "readouts", "report", "returns", "statistics")
__all__ = list(_SUBMODULES)


def __getattr__(name: str):
    # Lazy: statistics must not pay for Matplotlib or an environment.
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
