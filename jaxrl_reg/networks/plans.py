"""Denoisers of goal-conditioned plans: noised actions, their noise, the recent past and a goal in, actions out.

All share ``apply(params, x [B, L, A], noise [B, L], observation [B, W, O], mask [B, W], goal [B, O], given [B])`` with
``L = W - 1 + C`` actions: those between the ``W`` observed steps, then the ``C`` to come. ``noise`` is ``log(sigma) /
4`` of each action. ``mask`` is 1 on steps that took place, ``given`` 1 where there is a goal; what they are 0 for
has no influence on the actions to come.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.networks.denoisers import time_embedding
from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.types import Array, Key, Network, PyTree, Spec


def _check(spec: Spec, chunk: int, history: int, x: Array, noise: Array, observation: Array) -> None:
    length = history - 1 + chunk
    wanted = [(length, spec.action_dim), (length,), (history, spec.observation_dim)]
    if [x.shape[1:], noise.shape[1:], observation.shape[1:]] != wanted:
        raise ValueError(
            f"expected actions [B, {length}, {spec.action_dim}], noise [B, {length}] and observations [B, {history}, "
            f"{spec.observation_dim}], got shapes {x.shape}, {noise.shape} and {observation.shape}"
        )


def plan_mlp(
    spec: Spec, chunk: int, history: int = 1, hidden: Sequence[int] = (256, 256, 256), activation: str = "mish"
) -> Network:
    """One perceptron for everything; what is not there enters as zeros, beside the mask that says so."""
    length, past, width = history - 1 + chunk, history - 1, 16
    embedding = time_embedding("linear", width, activation=activation)
    inputs = width + past + length * spec.action_dim + history * (spec.observation_dim + 1) + spec.observation_dim + 1
    network = mlp((inputs, *hidden, length * spec.action_dim), activation)

    def init(key: Key) -> PyTree:
        embedding_key, body_key = jax.random.split(key)
        return {"time": embedding.init(embedding_key), "body": network.init(body_key)}

    def apply(
        params: PyTree, x: Array, noise: Array, observation: Array, mask: Array, goal: Array, given: Array
    ) -> Array:
        _check(spec, chunk, history, x, noise, observation)
        rows, between = x.shape[0], mask[:, :past]
        known = jnp.concatenate([x[:, :past] * between[..., None], x[:, past:]], axis=1)
        features = [
            embedding.apply(params["time"], noise[:, -1]),
            noise[:, :past] * between,
            known.reshape(rows, -1),
            (observation * mask[..., None]).reshape(rows, -1),
            mask,
            goal * given[:, None],
            given[:, None],
        ]
        return network.apply(params["body"], jnp.concatenate(features, axis=-1)).reshape(x.shape)

    return Network(init, apply)


class _Transformer(nn.Module):
    width: int
    layers: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, tokens: Array, visible: Array, deterministic: bool) -> Array:
        """``tokens [B, N, width]``; ``visible [B, N, N]``, true where a query (axis 1) may look at a key."""
        normal = nn.initializers.normal(0.02)
        for _ in range(self.layers):
            attention = nn.MultiHeadDotProductAttention(
                self.heads, kernel_init=normal, dropout_rate=self.dropout, deterministic=deterministic
            )
            tokens = tokens + attention(nn.LayerNorm()(tokens), mask=visible[:, None])
            h = nn.gelu(nn.Dense(4 * self.width, kernel_init=normal)(nn.LayerNorm()(tokens)))
            tokens = tokens + nn.Dense(self.width, kernel_init=normal)(h)
        return nn.LayerNorm()(tokens)


class _PlanTransformer(nn.Module):
    chunk: int
    history: int
    action_dim: int
    width: int
    layers: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x, noise, observation, mask, goal, given, deterministic: bool):
        normal = nn.initializers.normal(0.02)
        length = x.shape[1]
        see = nn.Dense(self.width, kernel_init=normal)  # one map for states and goals
        place = self.param("place", normal, (length, self.width))
        nowhere = self.param("nowhere", normal, (self.width,))  # stands for the goal where there is none
        state = see(observation) + place[: self.history]
        level = nn.Dense(self.width, kernel_init=normal)(noise[..., None])
        action = nn.Dense(self.width, kernel_init=normal)(x) + place + level
        target = jnp.where(given[:, None, None] > 0, see(goal[:, None]), nowhere)

        # The goal comes before every step; of a step, its state before its action; the actions to come share a step.
        of_action = jnp.minimum(jnp.arange(length), self.history - 1)
        step = jnp.concatenate([jnp.array([-1]), jnp.arange(self.history), of_action])
        order = 2 * step + (jnp.arange(step.shape[0]) > self.history)
        exists = jnp.concatenate(
            [jnp.ones_like(mask[:, :1]), mask, mask[:, : self.history - 1], jnp.ones((x.shape[0], self.chunk))], axis=1
        )
        visible = (order[:, None] >= order) & (exists[:, None] > 0)
        tokens = jnp.concatenate([target, state, action], axis=1)
        out = _Transformer(self.width, self.layers, self.heads, self.dropout)(tokens, visible, deterministic)
        return nn.Dense(self.action_dim, kernel_init=normal)(out[:, -length:])


def plan_transformer(
    spec: Spec, chunk: int, history: int = 1, width: int = 240, layers: int = 4, heads: int = 4, dropout: float = 0.0
) -> Network:
    """A GPT over the tokens goal, states and actions: each attends to what came before it, and to nothing masked.

    Each action's noise is added to its token. The actions to come attend to one another, as they are denoised together.
    ``apply`` takes ``key`` as well: attention dropout is active only where it is given.
    """
    module = _PlanTransformer(chunk, history, spec.action_dim, width, layers, heads, dropout)

    def init(key: Key) -> PyTree:
        length = history - 1 + chunk
        zeros = [(length, spec.action_dim), (length,), (history, spec.observation_dim), (history,)]
        inputs = [jnp.zeros((1, *shape)) for shape in zeros]
        return module.init(key, *inputs, jnp.zeros((1, spec.observation_dim)), jnp.zeros(1), True)["params"]

    def apply(
        params: PyTree,
        x: Array,
        noise: Array,
        observation: Array,
        mask: Array,
        goal: Array,
        given: Array,
        *,
        key: Key | None = None,
    ) -> Array:
        _check(spec, chunk, history, x, noise, observation)
        rngs = None if key is None else {"dropout": key}
        out = module.apply({"params": params}, x, noise, observation, mask, goal, given, key is None, rngs=rngs)
        return jnp.asarray(out)

    return Network(init, apply)
