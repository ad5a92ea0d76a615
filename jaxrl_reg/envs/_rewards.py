"""Worlds with two rewards: the one that was meant, and a proxy that someone wrote down for it."""

from __future__ import annotations

from typing import Any

from jaxrl_reg.envs.core import Outcome
from jaxrl_reg.errors import unknown
from jaxrl_reg.types import PyTree

REWARDS = ("proxy", "true")


def check(env: str, reward: str) -> None:
    """Raises ``UserError`` where ``reward`` is neither of the two."""
    if reward not in REWARDS:
        raise unknown(f"reward of {env}", reward, REWARDS)


def outcome(reward: str, inner: PyTree, observation: Any, true: Any = 0.0, proxy: Any = 0.0, end: Any = 0.0) -> Outcome:
    """An ``Outcome`` that pays one of the rewards and has both among its metrics, ``reward/true`` and ``reward/proxy``:
    evaluations add them up beside the return, and agents see neither."""
    both = {"reward/true": true, "reward/proxy": proxy}
    return Outcome(inner, observation, both[f"reward/{reward}"], end, both)
