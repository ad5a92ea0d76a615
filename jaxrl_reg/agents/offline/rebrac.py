"""ReBRAC: TD3+BC with the penalty in the target as well, and LayerNorm in deeper critics.

In words. Critics: fit y = r + gamma d (min_j Q'_j(s', a') - critic_bc_coef |a' - a'_data|^2), with a' the target
actor's action plus clipped noise and a'_data the data's next action. Actor, every ``policy_freq`` updates: minimise
actor_bc_coef |pi(s) - a|^2 - min_j Q_j(s, pi(s)) / mean |Q|, the divisor held constant. Both squared norms are sums
over action dimensions. Target networks move only with the actor. The update is written out in ``_td3``.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of data actions; ``target``
mean TD target; ``actor_loss``, ``bc_loss`` (mean squared distance per dimension of pi(s) to a) and ``q_policy`` (mean
of the smallest Q of the policy's actions), all three of the latest actor update.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg import losses
from jaxrl_reg.agents import _common, _td3
from jaxrl_reg.agents._td3 import State
from jaxrl_reg.types import Agent, Array, Paper, Protocol, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Revisiting the Minimalist Approach to Offline Reinforcement Learning",
    authors="Tarasov, Kurenkov, Nikulin, Kolesnikov",
    year=2023,
    url="https://arxiv.org/abs/2305.09836",
    deviations="The target actor averages the actor as it is after this step; the released code averages the one from "
    "before it, a lag of one actor update. PyTorch-style initialisation of every layer. LayerNorm with epsilon 1e-5, "
    "not 1e-6. Batch size is a setting of the run; the paper uses 1024.",
)
KIND = "offline"
PROTOCOL = Protocol(sparse=(100.0, 0.0), batch_size=1024, updates=1_000_000, note="AntMaze and Adroit: batches of 256.")


@dataclasses.dataclass(frozen=True)
class Config(_td3.Config):
    hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="widths of the hidden layers")
    n_critics: int = setting(default=2, help="number of critics; their minimum is used")
    critic_layer_norm: str = setting(default="every", help="LayerNorm in the critics: none, every or first_tanh")
    actor_layer_norm: str = setting(default="none", help="LayerNorm in the actor: none, every or first_tanh")


@pytree
class Hyper(_td3.Hyper):
    actor_learning_rate: float = setting(default=1e-3, help="Adam step size of the actor")
    critic_learning_rate: float = setting(default=1e-3, help="Adam step size of the critics")
    actor_bc_coef: float = setting(
        default=0.01, help="penalty on the actor's distance to the data; the paper's range is 0.001 to 0.1"
    )
    critic_bc_coef: float = setting(default=0.01, help="penalty in the target; the paper's range is 0 to 0.5")


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` at the first update if the batch has no ``next_action``."""

    def pull(batch: Transition, action: Array, hyper: Hyper) -> _td3.Pull:
        return _td3.Pull(batch.action, hyper.actor_bc_coef * spec.action_dim, 1.0)  # a sum, not a mean, over dimensions

    def target(batch: Transition, next_q: Array, next_action: Array, hyper: Hyper) -> Array:
        data_action = _common.present(batch.next_action, "rebrac", "next_action")
        return losses.rebrac_target(
            batch.reward, batch.discount, next_q, next_action, data_action, hyper.discount, hyper.critic_bc_coef
        )

    return _td3.make(config, spec, pull, target=target, pessimistic=True, actor_layer_norm=config.actor_layer_norm)
