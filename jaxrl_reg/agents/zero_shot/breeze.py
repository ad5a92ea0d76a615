"""BREEZE: forward-backward representations with values checked on the data, and a diffusion policy that stays there.

In words. F and B as in ``_successor``, by attention. V(s, z) is a high ``expectile`` of min_j F_j(s, a, z)^T z over the
data's actions. F^T z is also pulled, with ``f_weight``, to r_z(s') + gamma V(s', z), r_z being the reward that B knows
by z. The actor denoises the data's actions, weighted by exp(inverse_temperature (min_j F_j^T z - V)). Its slow average
makes the next actions of the temporal difference, but for a fraction ``behaviour_ratio`` that are the data's, and acts:
of ``candidates`` samples the one of the largest min_j F_j^T z. So V and the weights are in-sample; the measure itself
bootstraps on the policy's samples.

Every part is a switch of ``Config``, so that the paper's ablations are settings of one agent, and FB, VC-FB and MC-FB
others. Coefficients that only a switched-off part reads are in ``Config`` too.

Metrics: ``critic_loss``, the sum of ``fb_loss`` and, weighted, ``orthonormality_loss`` of B and ``q_loss`` of the pull
on F^T z; ``q`` mean of F^T z on the batch's actions; ``expectile_loss`` of V; ``actor_loss``; ``weight`` mean actor
weight.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents.zero_shot import _successor
from jaxrl_reg.agents.zero_shot._successor import State, mix_z, sample_z
from jaxrl_reg.types import Agent, Paper, Protocol, Spec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make", "mix_z", "sample_z"]

PAPER = Paper(
    title="Towards Robust Zero-Shot Reinforcement Learning",
    authors="Zheng, Teyssier, Zheng, Luo, Zhan",
    year=2025,
    url="https://arxiv.org/abs/2510.15382",
    deviations="Slow copies and sampled next actions carry no dropout, which the released code leaves on everywhere "
    "(target_dropout puts it back into the copies). The covariance in r_z has a ridge. Actions are brought to [-1, 1] "
    f"when acting. With value=none an action of the policy stands in for V. {_successor.DEVIATIONS}",
)
KIND = "offline"
PROTOCOL = Protocol(
    batch_size=512,
    updates=1_000_000,
    rewards=False,
    note="ExORL's data. The agent standardises observations and actions itself, with running moments.",
)


@dataclasses.dataclass(frozen=True)
class Config(_successor.Config):
    actor: str = setting(
        default="diffusion", help="diffusion, diffusion_bc (no weights), gaussian or deterministic (as in FB)"
    )
    representation: str = setting(default="attention", help="networks of F and B: attention or mlp", small="mlp")
    value: str = setting(
        default="expectile", help="what knows the value of tasks beside F: expectile, a network V, or none"
    )
    f_regularisation: bool = setting(
        default=True, help="pull F^T z to the reward that B knows by z, and the value after it"
    )
    standardise: bool = setting(
        default=True, help="observations, and actions of a diffusion actor, by their moments in the data"
    )
    warm_restarts: bool = setting(
        default=True, help="learning rate of F and B: cosines down to a tenth, each twice as long"
    )
    second_moment: float = setting(default=0.99, help="Adam's beta_2 for F, B and V")


@pytree
class Hyper(_successor.Hyper):
    orthonormality: float = setting(default=10.0, help="weight of the orthonormality of B; 1 in FB")
    value_learning_rate: float = setting(default=3e-4, help="AdamW step size of V")
    weight_decay: float = setting(default=0.03, help="of F, B and V, per unit of the learning rate")
    actor_weight_decay: float = setting(default=0.01, help="of the actor, per unit of the learning rate")
    actor_average_rate: float = setting(default=0.001, help="step of the acting actor towards the trained one")
    expectile: float = setting(
        default=0.99, help="towards 1: V is the best of the data's actions; 0.7 for Kitchen", range=(0.5, 0.999)
    )
    inverse_temperature: float = setting(default=0.05, help="alpha of the actor's weights; 0.1 for Kitchen")
    f_weight: float = setting(default=0.001, help="weight of the pull on F^T z; 1e-4 for some data")
    behaviour_ratio: float = setting(
        default=0.0, help="fraction of next actions that are the data's; 0.1 to 0.2 for some data"
    )


def make(config: Config, spec: Spec) -> Agent:
    return _successor.make(config, spec)
