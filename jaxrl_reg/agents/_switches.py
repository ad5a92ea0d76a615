"""Switches against the loss of plasticity, for critics that bootstrap and for PPO's value: one text for each.

All are static and off by default; what is off compiles to nothing and leaves no leaf in the state. Structure of the
critics: ``critic_body`` (residual blocks: SimBa, BRO), ``critic_feature_norm`` (SimNorm), ``critic_spectral`` (spectral
normalisation). Their optimiser: ``critic_weight_decay`` (AdamW, kernels alone), ``pull_to_start`` (L2-init). Terms of
their loss: ``dr3``, ``initial_features`` (InFeR), ``churn`` (CHAIN); ``policy_churn`` is one of the actor's. Between
updates: ``redo_period`` draws dormant units anew (ReDo), ``replacement_rate`` the least useful ones (continual
backprop), ``reset_period`` everything, or with ``reset_shrink`` a mixture of old and new weights (shrink and perturb).

A churn penalty needs rows that the loss beside it does not see: the second half of each batch is kept for it, so ask
for twice the rows. What a reset does not touch: the replay, running statistics of observations, the first weights.

Metrics, where they are on: ``dr3``, ``initial_features``, ``churn``, ``policy_churn``, the penalties before their
weights, summed over critics.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.networks import BODIES
from jaxrl_reg.types import PyTree, setting

SPECTRAL = ("none", "penultimate")
OF_PERCEPTRONS = (  # what residual blocks have no place for
    "critic_layer_norm",
    "critic_feature_norm",
    "critic_spectral",
    "redo_period",
    "replacement_rate",
)


@dataclasses.dataclass(frozen=True)
class Switches:
    """Part of a ``Config``."""

    critic_body: str = setting(
        default="mlp",
        help="simba, bro: a residual block with LayerNorm in place of each hidden layer, all of one width",
    )
    critic_feature_norm: str = setting(default="none", help="simplex: softmax within 8 units of the last hidden layer")
    critic_spectral: str = setting(default="none", help="penultimate: last hidden layer of spectral norm 1")
    critic_weight_decay: float = setting(default=0.0, help="decoupled decay of the critics' kernels (AdamW)")
    pull_to_start: float = setting(default=0.0, help="pull of critics to their first weights (L2-init, 1e-3); 0: off")
    dr3: float = setting(default=0.0, help="weight of the product of the critics' consecutive features (0.01); 0: off")
    initial_features: float = setting(default=0.0, help="weight of InFeR: heads say what they first said (0.1); 0: off")
    initial_feature_scale: float = setting(default=1.0, help="times what the heads first said (InFeR's beta)")
    churn: float = setting(default=0.0, help="weight of the critics' change on the batch's second half (0.1); 0: off")
    policy_churn: float = setting(default=0.0, help="weight of the policy's change there (5e-4); 0: off")
    redo_period: int = setting(default=0, help="updates between two searches for dormant units (ReDo, 1000); 0: off")
    redo_threshold: float = setting(default=0.1, help="share of the layer's mean activity that is still dormant")
    replacement_rate: float = setting(
        default=0.0, help="share of the critics' units drawn anew in an update (continual backprop, 1e-4); 0: off"
    )
    reset_period: int = setting(default=0, help="updates between two resets (200000); 0: off")
    reset_shrink: float = setting(default=0.0, help="share of the old weights that a reset leaves; 0: a full reset")
    reset_perturb: float = setting(default=1.0, help="share of new weights that a reset adds")


class Kept(NamedTuple):
    """What switches remember, a part of the state: the critics' first weights, those before the last update, the
    actor's before its last, and what use the critics' units are of; ``()`` where nobody asks."""

    start: PyTree = ()
    previous: PyTree = ()
    previous_actor: PyTree = ()
    usage: PyTree = ()


def check(config: Switches, agent: str = "", refused: tuple[str, ...] = ()) -> None:
    """Raises ``UserError`` for settings that mean nothing; ``refused`` are switches that ``agent`` does not have."""
    if config.critic_spectral not in SPECTRAL:
        raise unknown("critic_spectral", config.critic_spectral, SPECTRAL)
    if config.critic_body not in BODIES:
        raise unknown("critic_body", config.critic_body, BODIES)
    defaults = {field.name: field.default for field in dataclasses.fields(Switches)}
    for name, default in defaults.items():
        value = getattr(config, name)
        if name in refused and value != default:
            raise UserError(f"{agent} has nothing that {name} applies to; leave it at {default}")
        if not isinstance(value, str) and value < 0:
            raise UserError(f"{name}={value} must not be below 0")
    _refuse_pairs(config)
    for name in ("reset_shrink", "reset_perturb"):
        if not config.reset_period and getattr(config, name) != defaults[name]:
            raise UserError(f"{name}={getattr(config, name)} does nothing without resets; set reset_period too")


def _refuse_pairs(config: Switches) -> None:
    """Raises ``UserError`` for settings that do not go together."""
    off = {field.name: field.default for field in dataclasses.fields(config)}
    for name in OF_PERCEPTRONS if config.critic_body != "mlp" else ():
        if name in off and getattr(config, name) != off[name]:
            raise UserError(f"critic_body={config.critic_body} has no {name}; leave it at {off[name]}")
    if config.replacement_rate > 1:
        raise UserError(f"replacement_rate={config.replacement_rate} is a share of units; give at most 1, such as 1e-4")
    if config.replacement_rate and config.redo_period:
        raise UserError("redo_period and replacement_rate would draw each other's new units anew; take one of them")
    if config.replacement_rate and config.critic_spectral != "none":
        raise UserError("replacement_rate needs the critics' kernels as they are; leave critic_spectral at none")


def reported(config: Switches) -> tuple[str, ...]:
    """Names of the metrics of those terms that are on."""
    return tuple(name for name in ("dr3", "initial_features", "churn", "policy_churn") if getattr(config, name))
