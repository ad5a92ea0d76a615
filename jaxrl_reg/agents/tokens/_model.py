"""The policy of a token agent as its losses see it, and the optimiser of them all."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from jaxrl_reg.policies import Policy
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Array, PyTree


def optimiser(hyper: Any) -> optax.GradientTransformation:
    """Adam behind a bound on the gradient's norm."""
    # A second moment over the last 100 updates: these runs are too short for one over 1,000. Advantages of a group
    # sum to 0, and so do many gradients but for rounding, which a small eps would make into whole steps.
    return optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam(hyper.learning_rate, b2=0.99, eps=1e-5))


def each(prompt: Array, completion: Array) -> Array:
    """Prompts ``[B, P]`` of completions ``[B, G, T]``, one for each, ``[B, G, P]``; those that are so stay."""
    if prompt.ndim < completion.ndim:
        prompt = prompt[:, None]
    return jnp.broadcast_to(prompt, (*completion.shape[:-1], prompt.shape[-1]))


def score(policy: Policy, params: PyTree, prompt: Array, completion: Array, temperature: Array) -> tuple[Array, Array]:
    """Log-probabilities ``[B, G, T]`` and logits ``[B, G, T, V]``, both at the temperature."""
    logits = policy.apply(params, each(prompt, completion), completion) / temperature
    return policy.log_prob_of(logits, completion), logits
