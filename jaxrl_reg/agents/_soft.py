"""The actor of soft actor-critic and its temperature, which SAC, CrossQ, CQL and SAC-N share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.types import Array, Key, Metrics, PyTree


def actor_loss(
    policy: Any,
    value: Callable[[Array], Array],
    temperature: Array,
    observation: Array,
    key: Key,
    counted: Callable[[Array], Array] = lambda rows: rows,
) -> Callable[[PyTree], tuple[Array, tuple[Array, Metrics]]]:
    """``loss(params) -> (scalar, (log_prob [B], metrics))``, the mean of ``alpha log pi(a|s) - value(a)``.

    Args:
      policy: ``sample(params, observation, key) -> (action [B, A], log_prob [B])``, reparameterised.
      value: of an action, ``[B, A] -> [B]``.
      temperature: alpha, reward per nat.
      observation: ``[B, O]``.
      key: of the actions.
      counted: the rows that the mean is over, ``[B] -> [...]``.
    """

    def loss(params: PyTree) -> tuple[Array, tuple[Array, Metrics]]:
        action, log_prob = policy.sample(params, observation, key)
        total = counted(losses.soft_actor_loss(value(action), log_prob, temperature)).mean()
        return total, (log_prob, {"actor_loss": total, "entropy": -log_prob.mean(), "temperature": temperature})

    return loss


def temperature_step(
    log_temperature: _common.Trainable, log_prob: Array, target_entropy: Array | float, optimiser: Any
) -> _common.Trainable:
    """One step of log alpha, which rises where the entropy of ``log_prob [B]`` is below ``target_entropy`` (nats)."""

    def loss(params: PyTree) -> tuple[Array, Metrics]:
        return losses.temperature_loss(params, log_prob, target_entropy).mean(), {}

    return _common.descend(loss, log_temperature, optimiser)[0]
