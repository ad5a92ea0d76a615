"""The settings of token agents: what tells one member of the family from another, and what all of them sweep."""

from __future__ import annotations

import dataclasses

from jaxrl_reg.types import pytree, setting

ADVANTAGES = ("group", "centred", "leave_one_out", "batch")
SURROGATES = ("ppo", "gspo", "cispo", "reinforce")
AGGREGATIONS = ("token", "sequence", "constant")
PENALTIES = ("none", "k1", "k2", "k3", "reward")


@dataclasses.dataclass(frozen=True)
class Network:
    """The size of the transformer."""

    hidden: tuple[int, ...] = setting(default=(64, 64), help="width of the blocks of the transformer, one each")
    heads: int = setting(default=4, help="attention heads, which divide the width", small=2)


@dataclasses.dataclass(frozen=True)
class Sizes(Network):
    """What no variant fixes."""

    epochs: int = setting(
        default=2, help="passes over each batch of completions; with 1 of 1 minibatch nothing is clipped"
    )
    minibatches: int = setting(default=1, help="parts of each pass; must divide the prompts of a batch")


@dataclasses.dataclass(frozen=True)
class SizesOnPolicy(Sizes):
    """Of the variants that do not clip."""

    epochs: int = setting(default=1, help="passes over each batch; past the first they are off the policy")


@dataclasses.dataclass(frozen=True)
class Config(Sizes):
    """Everything that tells one member of the family from another."""

    advantage: str = setting(
        default="group", help="group (over the group's deviation), centred (Dr. GRPO), leave_one_out (RLOO) or batch"
    )
    surrogate: str = setting(default="ppo", help="ppo, gspo, cispo or reinforce")
    aggregation: str = setting(
        default="sequence", help="mean over: sequence (trl's grpo), token (trl's dapo) or constant (trl's dr_grpo)"
    )
    kl: str = setting(
        default="k3",
        help="estimator of the divergence from the reference: k1, k2 or k3 in the loss, reward (k1, off the reward) or "
        "none; k2 has the gradient of KL(policy || reference), k3 that of the reverse",
    )
    dual_clip: float | None = setting(default=None, help="largest ratio where the advantage is negative; trl's delta")
    mask_truncated: bool = setting(default=False, help="leave completions without an end out of the loss")
    overlong_buffer: int = setting(
        default=0, help="last columns over which a growing penalty, up to 1, is taken off the reward (DAPO); 0: none"
    )


@pytree
class Hyper:
    """What every variant has; those that clip or are held near a reference add their own."""

    learning_rate: float = setting(default=1e-3, help="Adam step size")
    max_grad_norm: float = setting(default=1.0, help="largest norm of the gradient")
    temperature: float = setting(default=1.0, help="of sampling, and of the log-probabilities that are trained")
    entropy_coef: float = setting(default=0.0, help="weight of the mean entropy of the tokens, in nats")


@pytree
class ClippedHyper(Hyper):
    """Of the variants that clip ratios."""

    clip_low: float = setting(default=0.2, help="how far ratios may fall below 1; trl's epsilon")
    clip_high: float = setting(default=0.2, help="how far ratios may rise above 1; trl's epsilon_high, DAPO: 0.28")
