"""FB: forward and backward representations of every policy's future, learnt without rewards; any reward is a task.

In words. F and B as in ``_successor``. The actor is deterministic and climbs min_j F_j(s, a, z)^T z; it also makes the
next actions of the temporal difference. Nothing keeps it near the data: where those are narrow, see ``vc_fb``,
``mc_fb`` and ``breeze``.

Metrics: ``critic_loss``, the sum of ``fb_loss`` and the weighted ``orthonormality_loss`` of B; ``q`` mean of F^T z on
the batch's actions; ``actor_loss``.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents.zero_shot import _forward_backward, _successor
from jaxrl_reg.agents.zero_shot._successor import State, mix_z, sample_z
from jaxrl_reg.types import Agent, Paper, Protocol, Spec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make", "mix_z", "sample_z"]

DEVIATIONS = (
    "F has LayerNorm and tanh in the first layer of its preprocessors and of its heads; the authors' code has them in "
    f"the preprocessors alone, the code that compares FB with its kin nowhere in F. {_successor.DEVIATIONS}"
)
PAPER = Paper(
    title="Learning One Representation to Optimize All Rewards",
    authors="Touati, Ollivier",
    year=2021,
    url="https://arxiv.org/abs/2103.07945",
    deviations=DEVIATIONS,
)
KIND = "offline"
PROTOCOL = Protocol(
    batch_size=512, updates=1_000_000, rewards=False, note="ExORL's data, as the later zero-shot benchmark trains it."
)


@dataclasses.dataclass(frozen=True)
class Config(_forward_backward.Sizes):
    """The sizes of F and B bound the actor's too."""


@pytree
class Hyper(_successor.Hyper):
    policy_noise: float = setting(default=0.2, help="scale of the noise on the actor's actions in the losses")
    noise_clip: float = setting(default=0.3, help="largest noise on the actor's actions")


def make(config: Config, spec: Spec) -> Agent:
    return _successor.make(_successor.Config(**vars(config)), spec)
