"""Agents, one module each, found by their file name: ``make("iql", spec)``, ``load("my_package.my_agent")``.

They lie in folders by family; ``from jaxrl_reg.agents import iql`` finds each without naming its family.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
import typing
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxrl_reg import foreign
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Agent, Spec, TokenSpec

if TYPE_CHECKING:  # what ``__getattr__`` serves, for editors; a test holds the two together
    from jaxrl_reg.agents.curricula import accel as accel
    from jaxrl_reg.agents.curricula import dr as dr
    from jaxrl_reg.agents.curricula import dred as dred
    from jaxrl_reg.agents.curricula import plr as plr
    from jaxrl_reg.agents.curricula import robust_plr as robust_plr
    from jaxrl_reg.agents.curricula import sfl as sfl
    from jaxrl_reg.agents.imitation import bc as bc
    from jaxrl_reg.agents.imitation import beso as beso
    from jaxrl_reg.agents.imitation import dm1 as dm1
    from jaxrl_reg.agents.imitation import percent_bc as percent_bc
    from jaxrl_reg.agents.offline import a2pr as a2pr
    from jaxrl_reg.agents.offline import awac as awac
    from jaxrl_reg.agents.offline import cal_ql as cal_ql
    from jaxrl_reg.agents.offline import cql as cql
    from jaxrl_reg.agents.offline import decision_mamba as decision_mamba
    from jaxrl_reg.agents.offline import decision_transformer as decision_transformer
    from jaxrl_reg.agents.offline import diffusion_ql as diffusion_ql
    from jaxrl_reg.agents.offline import edac as edac
    from jaxrl_reg.agents.offline import eql as eql
    from jaxrl_reg.agents.offline import fql as fql
    from jaxrl_reg.agents.offline import gc_iql as gc_iql
    from jaxrl_reg.agents.offline import idql as idql
    from jaxrl_reg.agents.offline import iql as iql
    from jaxrl_reg.agents.offline import odice as odice
    from jaxrl_reg.agents.offline import prdc as prdc
    from jaxrl_reg.agents.offline import preference as preference
    from jaxrl_reg.agents.offline import rebrac as rebrac
    from jaxrl_reg.agents.offline import sac_n as sac_n
    from jaxrl_reg.agents.offline import sql as sql
    from jaxrl_reg.agents.offline import td3_bc as td3_bc
    from jaxrl_reg.agents.offline import xql as xql
    from jaxrl_reg.agents.online import crossq as crossq
    from jaxrl_reg.agents.online import diayn as diayn
    from jaxrl_reg.agents.online import occupancy_reg as occupancy_reg
    from jaxrl_reg.agents.online import ppo as ppo
    from jaxrl_reg.agents.online import rnd as rnd
    from jaxrl_reg.agents.online import sac as sac
    from jaxrl_reg.agents.online import td3 as td3
    from jaxrl_reg.agents.tokens import aepo as aepo
    from jaxrl_reg.agents.tokens import apo as apo
    from jaxrl_reg.agents.tokens import cispo as cispo
    from jaxrl_reg.agents.tokens import dapo as dapo
    from jaxrl_reg.agents.tokens import dr_grpo as dr_grpo
    from jaxrl_reg.agents.tokens import grpo as grpo
    from jaxrl_reg.agents.tokens import gspo as gspo
    from jaxrl_reg.agents.tokens import lp_reg as lp_reg
    from jaxrl_reg.agents.tokens import oreal as oreal
    from jaxrl_reg.agents.tokens import reinforce as reinforce
    from jaxrl_reg.agents.tokens import rloo as rloo
    from jaxrl_reg.agents.tokens import score as score
    from jaxrl_reg.agents.tokens import siren as siren
    from jaxrl_reg.agents.zero_shot import breeze as breeze
    from jaxrl_reg.agents.zero_shot import fb as fb
    from jaxrl_reg.agents.zero_shot import hilp as hilp
    from jaxrl_reg.agents.zero_shot import mc_fb as mc_fb
    from jaxrl_reg.agents.zero_shot import sf_laplacian as sf_laplacian
    from jaxrl_reg.agents.zero_shot import vc_fb as vc_fb

_CONTRACT = ("PAPER", "KIND", "Config", "Hyper", "make")


def _families() -> dict[str, str]:
    """Every public agent and the folder that it lies in."""
    files = pathlib.Path(__path__[0]).glob("*/[!_]*.py")
    return {file.stem: file.parent.name for file in sorted(files, key=lambda file: file.stem)}


def names() -> list[str]:
    """The agents of this package: every public module in the folders below."""
    return list(_families())


def family(name: str) -> str:
    """The folder of an agent of this package, such as ``offline``; raises ``KeyError`` for any other name."""
    return _families()[name]


def __getattr__(name: str) -> ModuleType:
    if not name.startswith("_") and name in (families := _families()):
        return importlib.import_module(f"{__name__}.{families[name]}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _ByName(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """``import jaxrl_reg.agents.iql`` is the module in its family's folder, whose name nobody need know."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name.startswith("_") or name not in _families():
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        name = spec.name.rpartition(".")[2]
        module = importlib.import_module(f"{__name__}.{family(name)}.{name}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # its own again: it is one module under two names


sys.meta_path.append(_ByName())


def load(name: str) -> ModuleType:
    """The module of an agent: a name in :func:`names`, or one of your own, as ``mine.py``, ``mine`` or ``lab.mine``.

    Files and modules are found from the working directory, installed modules by their dotted path (see ``foreign``).
    Raises ``UserError`` for an unknown name (with the nearest one), a file that cannot be imported and a module that is
    not an agent.
    """
    if name in names():
        return importlib.import_module(f"{__name__}.{family(name)}.{name}")
    module = foreign.load(name, "agent")
    if module is None and name == "orpo":
        raise UserError(
            "unknown agent 'orpo'; two methods have that name: occupancy-regularised policy optimisation is "
            "--agent occupancy_reg, odds-ratio preference optimisation --agent preference --set loss=odds_ratio"
        )
    if module is None and "." not in name:
        raise unknown("agent", name, names())
    if module is None:
        raise UserError(
            f"no module named {name!r}, here or installed; give the file or the import path of a module with "
            f"{', '.join(_CONTRACT)}"
        )
    missing = [attribute for attribute in _CONTRACT if not hasattr(module, attribute)]
    if missing:
        raise UserError(f"module {name!r} is not an agent: it lacks {', '.join(missing)}")
    return module


def short_name(module: ModuleType) -> str:
    """What an agent's module is called in tables: its name within this package, or its whole path elsewhere."""
    path = module.__name__
    return path.rpartition(".")[2] if path.startswith(f"{__name__}.") else path


def settings(cls: type) -> list[tuple[str, Any, str]]:
    """``(name, default, help)`` of every field of a ``Config`` or ``Hyper``, in order."""
    return [(field.name, field.default, field.metadata.get("help", "")) for field in dataclasses.fields(cls)]


def kinds(cls: type) -> dict[str, Any]:
    """What every field of a ``Config`` may hold: its annotation, or the type of its default where that says nothing."""
    fields = dataclasses.fields(cls)
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError):  # an annotation that only a type checker can read
        hints = {}
    return {field.name: hints.get(field.name, type(field.default)) for field in fields}


def make(name: str, spec: Spec | TokenSpec, **config: Any) -> Agent:
    """``load(name).make(Config(**config), spec)``. Raises ``UserError`` for a setting that the agent does not have."""
    module = load(name)
    known = [field.name for field in dataclasses.fields(module.Config)]
    for setting in config:
        if setting not in known:
            raise unknown(f"setting of {name}", setting, known)
    return module.make(module.Config(**config), spec)
