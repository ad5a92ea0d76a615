"""Networks of values: of states, or an ensemble of state and action, perceptrons or residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.networks.residual import STYLES, residual_mlp
from jaxrl_reg.networks.stacked import ensemble
from jaxrl_reg.types import Array, Key, Network, Spec

BODIES = ("mlp", *STYLES)


def _scalar(network: Network) -> Network:
    """Drop the output axis of width one; several inputs are concatenated."""

    def apply(params, *inputs: Array, key: Key | None = None, features: bool | str = False):
        x = inputs[0] if len(inputs) == 1 else jnp.concatenate(inputs, axis=-1)
        out = network.apply(params, x, key=key, features=features)
        return (out[0][..., 0], out[1]) if features else out[..., 0]

    return Network(network.init, apply)


def _body(inputs: int, hidden: Sequence[int], body: str, options: dict[str, Any]) -> Network:
    """``[..., inputs] -> [..., 1]``; ``options`` are a perceptron's."""
    if body not in BODIES:
        raise unknown("body", body, BODIES)
    if body == "mlp":
        return mlp((inputs, *hidden, 1), **options)
    if options:
        raise UserError(f"body={body} takes no {next(iter(options))}: its blocks are what they are")
    if not hidden or len(set(hidden)) > 1:
        raise UserError(f"body={body} needs hidden layers of one width, one for each block, got {tuple(hidden)}")
    return residual_mlp((inputs, hidden[0], 1), len(hidden), style=body)


def value_network(spec: Spec, hidden: Sequence[int] = (256, 256), *, body: str = "mlp", **options) -> Network:
    """State value: ``apply(params, observation [..., O]) -> [...]``.

    ``options`` go to :func:`mlp`. With another ``body`` there are none, and ``hidden`` has an equal width for each
    block of :func:`residual_mlp`.
    """
    return _scalar(_body(spec.observation_dim, hidden, body, options))


def q_network(
    spec: Spec, hidden: Sequence[int] = (256, 256), n_critics: int = 2, *, body: str = "mlp", **options
) -> Network:
    """An ensemble of action values: ``apply(params, observation [..., O], action [..., A]) -> [N, ...]``.

    Parameters are stacked on axis 0; ``apply`` works for any slice of them, so an actor loss that needs only the first
    critic passes ``members(params, 1)`` and gets ``[1, ...]``. ``features=True`` also returns ``[N, ..., hidden[-1]]``.
    ``body`` and ``options`` are those of :func:`value_network`.
    """
    return ensemble(_scalar(_body(spec.observation_dim + spec.action_dim, hidden, body, options)), n_critics)
