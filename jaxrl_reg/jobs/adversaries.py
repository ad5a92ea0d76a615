"""The attacks that a run can be put under, by name: what each is made of, from the victim, the world and a size."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.jobs.opponents import HIDDEN

if TYPE_CHECKING:
    from jaxrl_reg.evaluation.attacks import Attack
    from jaxrl_reg.loops.learnt import Learnt
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
Learns = Callable[[Victim, Judge, Box, "Key"], "Learnt"]


def _random(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.evaluation import attacks

    return attacks.random_attack(box.epsilon)


def _pgd(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.evaluation import attacks

    return attacks.mad(victim.mean, box.epsilon)


def _critic(victim: Victim, judge: Judge, box: Box, key: Key) -> Attack:
    from jaxrl_reg.evaluation import attacks

    return attacks.critic(victim.mean, victim.q, box.epsilon)


def _paid(judge: Judge) -> Any:
    """What an adversary is paid: the target's reward; None: what the victim loses."""
    return None if judge.target is None else judge.target.reward


def _sarsa(victim: Victim, judge: Judge, box: Box, key: Key) -> Learnt:
    from jaxrl_reg.loops.sarsa import Config, sarsa

    config = Config(steps=judge.steps, hidden=HIDDEN)
    return sarsa(victim.mean, judge.env, key, _paid(judge), (box.center, box.spread), config)[0]


def _reinforced(kind: str, victim: Victim, judge: Judge, box: Box, key: Key) -> Learnt:
    from jaxrl_reg.loops.adversaries import Budget, learn

    budget = Budget(steps=judge.steps, hidden=HIDDEN)
    return learn(kind, victim.mean, judge.env, box.epsilon, key, _paid(judge), budget)[0]


def _rat(victim: Victim, judge: Judge, box: Box, key: Key) -> Learnt:
    from jaxrl_reg.loops.rat import Case, Config, learn

    def harm(before: Any, action: Any, after: Any) -> Any:
        return -after.reward

    case = Case(victim.mean, judge.env, _paid(judge) or harm, box.epsilon, (box.center, box.spread))
    return learn(case, key, Config(steps=judge.steps, hidden=HIDDEN))[0]


HEURISTICS: Mapping[str, Made] = {"random": _random, "pgd": _pgd, "critic": _critic}
LEARNED: Mapping[str, Learns] = {
    "sarsa": _sarsa,
    "sa_rl": functools.partial(_reinforced, "sa_rl"),
    "pa_ad": functools.partial(_reinforced, "pa_ad"),
    "rat": _rat,
}
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
