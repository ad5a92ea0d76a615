"""VC-FB: FB that values actions low where the data have none, for every task.

In words. F, B and actor as in FB. Added to the loss is how far F_j(s, a, z)^T z at sampled actions, as a log-sum-exp,
stands above that of the data's action. Half of the ``samples`` are uniform; the others are the policy's, its next ones,
valued in their own state, and the data's. The weight is ``conservative_weight`` times a multiplier, which grows while
the penalty exceeds ``target_penalty``; with ``target_penalty`` None there is no multiplier.

Metrics: those of FB; ``penalty``, summed over the two F; ``multiplier``.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents.zero_shot import _successor, fb
from jaxrl_reg.agents.zero_shot._successor import State
from jaxrl_reg.types import Agent, Paper, Protocol, Spec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Zero-Shot Reinforcement Learning from Low Quality Data",
    authors="Jeen, Bewley, Cullen",
    year=2024,
    url="https://arxiv.org/abs/2309.15178",
    deviations=fb.DEVIATIONS,
)
KIND = "offline"
PROTOCOL = Protocol(batch_size=512, updates=1_000_000, rewards=False, note="ExORL's data.")


@dataclasses.dataclass(frozen=True)
class Config(fb.Config):
    samples: int = setting(default=12, help="actions in the penalty", small=6)
    uniform_share: float = setting(
        default=0.5, help="fraction of them that is uniform; a third of the others is of each other kind"
    )
    target_penalty: float | None = setting(
        default=50.0, help="the multiplier holds the penalty there; None: no multiplier"
    )


@pytree
class Hyper(fb.Hyper):
    actor_learning_rate: float = setting(default=3e-5, help="Adam step size of the actor")
    conservative_weight: float = setting(
        default=1.0, help="weight of the penalty, times the multiplier; 0.01 in code without one"
    )
    multiplier_learning_rate: float = setting(default=1e-4, help="Adam step size of the multiplier's logarithm")


def make(config: Config, spec: Spec) -> Agent:
    return _successor.make(_successor.Config(**vars(config), conservatism="vc"), spec)
