"""The attacks that a run can be put under, by name: what each is made of, from the victim, the world and a size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, unknown

if TYPE_CHECKING:
    from jaxrl_reg.evaluation.attacks import Attack
    from jaxrl_reg.loops.zero_shot import Task
    from jaxrl_reg.types import Env, Key


class Victim(NamedTuple):
    """One member under attack: ``mean`` has gradients, None where there are none; ``q`` is its own critic or None."""

    act: Any
    mean: Any
    q: Any


class Judge(NamedTuple):
    """What an attack is for: the world, the same with the target's sums beside its own, and the target itself, None:
    harm. ``steps`` is the budget of an adversary that learns."""

    env: Env
    judged: Env
    target: Task | None
    steps: int


class Box(NamedTuple):
    """What a perturbation is measured by, ``[O]`` each: the largest, and mean and spread of the observations."""

    epsilon: Any
    center: Any
    spread: Any


Made = Callable[[Victim, Judge, Box, "Key"], "Attack"]


def _random(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.evaluation import attacks

    return attacks.random_attack(box.epsilon)


def _pgd(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.evaluation import attacks

    return attacks.mad(victim.mean, box.epsilon)


def _critic(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.evaluation import attacks

    return attacks.critic(victim.mean, victim.q, box.epsilon)


def _sa_rl(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.loops.adversaries import Budget, sa_rl

    reward = None if judge.target is None else judge.target.reward
    return sa_rl(victim.mean, judge.env, box.epsilon, key, reward, Budget(steps=judge.steps))[0]


def _pa_ad(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.loops.adversaries import Budget, pa_ad

    reward = None if judge.target is None else judge.target.reward
    return pa_ad(victim.mean, judge.env, box.epsilon, key, reward, Budget(steps=judge.steps))[0]


def _rat(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.loops.rat import Config, rat

    def harm(before: Any, action: Any, after: Any) -> Any:
        return -after.reward

    target = harm if judge.target is None else judge.target.reward
    scale = box.center, box.spread
    return rat(victim.mean, judge.env, target, box.epsilon, key, scale, Config(steps=judge.steps))[0]


HEURISTICS: Mapping[str, Made] = {"random": _random, "pgd": _pgd, "critic": _critic}
LEARNED: Mapping[str, Made] = {"sa_rl": _sa_rl, "pa_ad": _pa_ad, "rat": _rat}
ATTACKS = (*HEURISTICS, *LEARNED)


def parse(text: str, flag: str = "--attack") -> list[tuple[str, float]]:
    """``random:0.1,pgd:0.1,pgd:0.2`` as names and sizes.

    Raises:
      UserError: for an unknown attack, a size that is none, or one that is named twice.
    """
    found: list[tuple[str, float]] = []
    for part in (one.strip() for one in text.split(",")):
        name, colon, size = part.partition(":")
        if name not in ATTACKS:
            raise unknown("attack", name, ATTACKS)
        try:
            epsilon = float(size)
        except ValueError:
            epsilon = math.nan
        if not colon or not math.isfinite(epsilon) or epsilon <= 0:
            raise UserError(
                f"{flag} {part}: give the size as {name}:0.1, in standard deviations of each observation, above 0"
            )
        if (name, epsilon) in found:
            raise UserError(f"{flag} names {name}:{epsilon:g} twice")
        found.append((name, epsilon))
    return found
