"""Small networks that a search starts from: a policy whose weights are a genome, an encoder of final observations."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.networks import mlp
from jaxrl_reg.types import Network, Spec


def policy(spec: Spec, hidden: Sequence[int] = (8, 8)) -> Network:
    """``observation [..., O] -> action [..., A]`` in (-1, 1), tanh throughout: few weights, since every one of them is
    mutated."""
    return mlp((spec.observation_dim, *hidden, spec.action_dim), "tanh", final_activation=jnp.tanh)


def encoder(size: int, code: int = 10, hidden: Sequence[int] = (64,)) -> Network:
    """``outcome [..., size] -> [..., code]``, SELU between layers."""
    return mlp((size, *hidden, code), jax.nn.selu)
