"""MC-FB: FB that expects few visits to any state from actions the data do not have.

In words. As VC-FB, but the penalty is on the measures F_j(s, a, z)^T B(s+), for all pairs of a row and a state of the
batch, instead of on the values F_j(s, a, z)^T z.

Metrics: those of FB; ``penalty``, summed over the two F; ``multiplier``.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents.zero_shot import _successor, vc_fb
from jaxrl_reg.agents.zero_shot._successor import State
from jaxrl_reg.types import Agent, Protocol, Spec, pytree

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = vc_fb.PAPER
KIND = "offline"
PROTOCOL = Protocol(batch_size=512, updates=1_000_000, rewards=False, note="ExORL's data.")


@dataclasses.dataclass(frozen=True)
class Config(vc_fb.Config):
    """As in VC-FB."""


@pytree
class Hyper(vc_fb.Hyper):
    """As in VC-FB."""


def make(config: Config, spec: Spec) -> Agent:
    return _successor.make(_successor.Config(**vars(config), conservatism="mc"), spec)
