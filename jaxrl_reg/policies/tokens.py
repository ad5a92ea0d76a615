"""Autoregressive policies: the observation is a prompt, the action a whole completion."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.entropy import categorical_entropy
from jaxrl_reg.losses.tokens import completion_mask, token_logprobs, truncate_logits
from jaxrl_reg.networks.tokens import token_transformer
from jaxrl_reg.policies import Policy
from jaxrl_reg.types import Array, Key, PyTree, TokenSpec


def make(spec: TokenSpec, hidden: Sequence[int] = (64, 64), heads: int = 4, columns: int | None = None) -> Policy:
    """A causal transformer that completes prompts ``[..., P]`` int32 with completions ``[..., T]`` int32.

    ``apply(params, prompt, completion) -> logits [..., T, V]``, of each token given those before it;
    ``sample(params, prompt, key, shape=(), temperature=1, top_k=0, top_p=1) -> (completion [*shape, ..., T], log_prob
    [*shape, ..., T])``: all columns in one ``scan`` with keys and values remembered, padding after the first end token;
    ``log_prob(params, prompt, completion, temperature=1) -> [..., T]``, which equals what ``sample`` gave;
    ``mode(params, prompt) -> [..., T]``, greedy; ``entropy(params, prompt, completion, temperature=1) -> [..., T]``,
    exact. All of them are 0 after the first end token. Log-probabilities are at the temperature and BEFORE truncation,
    so train with ``top_k`` and ``top_p`` off; these two are static, the temperature may be traced. Policies of several
    sizes with the same number of ``columns``, the sum of theirs or more, have the same parameters.
    """
    model = token_transformer(spec, hidden, heads, columns)

    def apply(params: PyTree, prompt: Array, completion: Array) -> Array:
        logits = model.apply(params, jnp.concatenate([prompt, completion[..., :-1]], axis=-1))
        return logits[..., spec.prompt - 1 :, :]

    def generate(params: PyTree, prompt: Array, choose) -> tuple[Array, Array]:
        """``choose(logits [..., V], t) -> (token [...], log_prob [...])``, column after column."""

        def body(carry, t):
            logits, memory, done = carry
            token, log_prob = choose(logits, t)
            token = jnp.where(done, spec.PAD, token).astype(jnp.int32)
            log_prob = jnp.where(done, 0.0, log_prob)
            logits, memory = model.step(params, memory, token, spec.prompt + t)
            return (logits, memory, done | (token == spec.EOS)), (token, log_prob)

        start = (*model.start(params, prompt), jnp.zeros(prompt.shape[:-1], bool))
        _, (tokens, log_probs) = jax.lax.scan(body, start, jnp.arange(spec.completion))
        return jnp.moveaxis(tokens, 0, -1), jnp.moveaxis(log_probs, 0, -1)

    def sample(
        params: PyTree,
        prompt: Array,
        key: Key,
        shape: tuple[int, ...] = (),
        temperature: Array | float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> tuple[Array, Array]:
        def choose(logits: Array, t: Array) -> tuple[Array, Array]:
            logits = logits / temperature
            token = jax.random.categorical(jax.random.fold_in(key, t), truncate_logits(logits, top_k, top_p))
            return token, token_logprobs(logits, token)

        return generate(params, jnp.broadcast_to(prompt, (*shape, *prompt.shape)), choose)

    def mode(params: PyTree, prompt: Array) -> Array:
        return generate(params, prompt, lambda logits, t: (jnp.argmax(logits, axis=-1), jnp.zeros(logits.shape[:-1])))[
            0
        ]

    def log_prob(params: PyTree, prompt: Array, completion: Array, temperature: Array | float = 1.0) -> Array:
        return log_prob_of(apply(params, prompt, completion) / temperature, completion)

    def log_prob_of(logits: Array, completion: Array) -> Array:
        return token_logprobs(logits, completion, completion_mask(completion, spec.EOS))

    def entropy(params: PyTree, prompt: Array, completion: Array, temperature: Array | float = 1.0) -> Array:
        each = categorical_entropy(apply(params, prompt, completion) / temperature)
        return jnp.where(completion_mask(completion, spec.EOS) > 0, each, 0.0)

    def entropy_of(logits: Array, key: Key | None = None) -> Array:
        return categorical_entropy(logits)

    return Policy(model.init, apply, sample, log_prob, mode, log_prob_of, entropy_of, entropy)
