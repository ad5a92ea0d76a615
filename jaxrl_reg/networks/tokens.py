"""A causal transformer over token ids, read whole or one token at a time with its keys and values remembered.

Columns are positions: a prompt has the first ``P``, padded on the left, so every completion starts at column ``P``.
Only the padding of the PROMPT is hidden from later columns; a padding token that is sampled is a token like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks.sequence import AttentionBlock, width_of
from jaxrl_reg.networks.state_space import filled
from jaxrl_reg.types import Array, Key, PyTree, TokenSpec


class TokenModel(NamedTuple):
    """``init(key) -> params`` and ``apply(params, tokens [..., S]) -> logits [..., S, V]``, ``S`` up to ``P + T``.

    ``start(params, prompt [..., P]) -> (logits [..., V], memory)`` reads a prompt at once, and ``step(params, memory,
    token [...], column) -> (logits [..., V], memory)`` one token more, written at ``column`` (``P`` is the first of a
    completion). Logits are of what comes next. Both ways give the same ones to rounding.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array], Array]
    start: Callable[[PyTree, Array], tuple[Array, PyTree]]
    step: Callable[[PyTree, PyTree, Array, Array], tuple[Array, PyTree]]


class _TokenTransformer(nn.Module):
    columns: int
    vocabulary: int
    outputs: int
    width: int
    blocks: int
    heads: int

    @nn.compact
    def __call__(self, tokens: Array, real: Array, memory: PyTree = None, column: Array = 0):
        """Tokens ``[..., n]`` from ``column`` on; ``real`` ``[..., keys]`` are the columns that later ones may see."""
        columns = column + jnp.arange(tokens.shape[-1])
        x = nn.Embed(self.vocabulary, self.width)(tokens) + nn.Embed(self.columns, self.width)(columns)
        keys = jnp.arange(real.shape[-1])
        # A hidden column sees itself: a softmax over nothing would be NaN, and so would every gradient.
        mask = (keys == columns[:, None]) | ((keys < columns[:, None]) & real[..., None, :])
        kept = []
        for i in range(self.blocks):
            block = AttentionBlock(self.width, self.heads)
            if memory is None:
                x = block(x, mask=mask)
            else:
                x, pair = block(x, mask=mask, memory=memory[i], column=column)
                kept.append(pair)
        return nn.Dense(self.outputs, name="head")(nn.LayerNorm(epsilon=1e-5)(x)), tuple(kept)


def _module(
    spec: TokenSpec, hidden: Sequence[int], heads: int, columns: int | None = None, outputs: int | None = None
) -> _TokenTransformer:
    width = width_of(hidden)
    if width % heads:
        raise UserError(f"heads={heads} must divide the width {width} of the blocks")
    columns = spec.prompt + spec.completion if columns is None else columns
    outputs = spec.vocabulary if outputs is None else outputs
    return _TokenTransformer(columns, spec.vocabulary, outputs, width, len(hidden), heads)


def _real(spec: TokenSpec, tokens: Array) -> Array:
    """Which columns later ones may see."""
    return (tokens != spec.PAD) | (jnp.arange(tokens.shape[-1]) >= spec.prompt)


def token_transformer(
    spec: TokenSpec, hidden: Sequence[int] = (64, 64), heads: int = 4, columns: int | None = None
) -> TokenModel:
    """Causal attention over prompt and completion, one block per entry of ``hidden``; the first policy is uniform.

    ``columns`` is how many positions are told apart, at least ``P + T``, which is the default: models of several sizes
    with the same number of them have the same parameters.

    Raises ``UserError`` for blocks of several widths, or heads that do not divide them.
    """
    module, size, width = _module(spec, hidden, heads, columns), spec.prompt + spec.completion, width_of(hidden)

    def init(key: Key) -> PyTree:
        inputs = jnp.zeros((1, size), jnp.int32), jnp.ones((1, size), bool)
        params = filled(jax.eval_shape(lambda key: module.init(key, *inputs)["params"], key), key)
        return {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}

    def real(tokens: Array) -> Array:
        return _real(spec, tokens)

    def apply(params: PyTree, tokens: Array) -> Array:
        logits, _ = module.apply({"params": params}, tokens, real(tokens))
        return logits

    def start(params: PyTree, prompt: Array) -> tuple[Array, PyTree]:
        shape = (*prompt.shape[:-1], size, heads, width // heads)
        memory = tuple((jnp.zeros(shape), jnp.zeros(shape)) for _ in hidden)
        seen = jnp.concatenate([real(prompt), jnp.ones((*prompt.shape[:-1], spec.completion), bool)], axis=-1)
        logits, memory = module.apply({"params": params}, prompt, seen, memory, 0)
        return logits[..., -1, :], (seen, memory)

    def step(params: PyTree, memory: PyTree, token: Array, column: Array) -> tuple[Array, PyTree]:
        seen, pairs = memory
        logits, pairs = module.apply({"params": params}, token[..., None], seen, pairs, column)
        return logits[..., 0, :], (seen, pairs)

    return TokenModel(init, apply, start, step)


class TokenScorer(NamedTuple):
    """A reward model on a policy's network: ``of(params) -> params`` gives its head one output, with weights of 0, and
    keeps the rest; ``apply(params, prompt [..., P], completion [..., T]) -> score [..., T]``, of each token after it
    was read."""

    of: Callable[[PyTree], PyTree]
    apply: Callable[[PyTree, Array, Array], Array]


def token_scorer(spec: TokenSpec, hidden: Sequence[int] = (64, 64), heads: int = 4) -> TokenScorer:
    """The ``TokenScorer`` of a policy's ``token_transformer`` with the same sizes."""
    module = _module(spec, hidden, heads, outputs=1)

    def of(params: PyTree) -> PyTree:
        head = params["head"]
        head = {"kernel": jnp.zeros_like(head["kernel"][:, :1]), "bias": jnp.zeros_like(head["bias"][:1])}
        return {**jax.tree.map(jnp.copy, params), "head": head}

    def apply(params: PyTree, prompt: Array, completion: Array) -> Array:
        tokens = jnp.concatenate([prompt, completion], axis=-1)
        scores, _ = module.apply({"params": params}, tokens, _real(spec, tokens))
        return scores[..., spec.prompt :, 0]

    return TokenScorer(of, apply)
