"""Models of whole trajectories that predict actions from the return asked for: Decision Transformer, Decision Mamba.

A step is three tokens: return-to-go, observation, action. The action is predicted at the observation's token, from
everything before it; no prediction at step ``t`` depends on an action at ``t`` or later. Windows are padded at their
END, where no real step can see, so padding needs no mask here: only the loss must leave it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import hashed_memory
from jaxrl_reg.networks.state_space import MambaMixer, filled
from jaxrl_reg.types import Array, Key, PyTree, Spec

MEMORY_BITS, MEMORY_KEY = 8, 16  # of a signature, and numbers in a key
Choose = Callable[[Array], Array]  # predicted action [..., A] -> action that is taken


class Prediction(NamedTuple):
    """``action`` ``[..., K, A]`` in [-1, 1]; after it, if the model has them, ``next_observation`` ``[..., K, O]`` and
    ``next_return`` ``[..., K]``, the next return-to-go."""

    action: Array
    next_observation: Array | None = None
    next_return: Array | None = None


class SequenceModel(NamedTuple):
    """A model of windows of ``K`` steps, and the same model one step at a time.

    ``init(key) -> params``; ``apply(params, togo [..., K], observation [..., K, O], action [..., K, A], time [..., K],
    key=None) -> Prediction``, with dropout where there is a key. ``start(shape) -> memory``, leaves ``[*shape, ...]``,
    and ``step(params, memory, togo [...], observation [..., O], time [...], choose) -> (action [..., A], memory)``:
    ``choose`` turns the predicted action into the one that is taken and remembered. ``time`` int32 counts steps since
    the episode's start.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[..., Prediction]
    start: Callable[[tuple[int, ...]], PyTree]
    step: Callable[[PyTree, PyTree, Array, Array, Array, Choose], tuple[Array, PyTree]]


def width_of(hidden: Sequence[int]) -> int:
    """The common width of the blocks. Raises ``UserError`` if they differ, or if there is none."""
    if not hidden or len(set(hidden)) > 1:
        text = ",".join(map(str, hidden))
        raise UserError(f"hidden={text}: a sequence model has one block per entry, all of one width, such as 64,64,64")
    return hidden[0]


class _Tokens(nn.Module):
    """Return, observation and action, each through a linear map of its own, and one learnt vector per time step."""

    width: int
    steps: int
    late: bool  # whether the time comes after the normalisation

    def setup(self):
        self.maps = [nn.Dense(self.width) for _ in range(3)]
        self.norm = nn.LayerNorm(epsilon=1e-5)
        self.times = nn.Embed(self.steps, self.width)

    def __call__(self, time: Array, inputs: Sequence[Array], first: int = 0) -> Array:
        """``[..., n, D]``: ``n`` inputs of one step, in the order above from kind ``first`` on."""
        x = jnp.stack([self.maps[first + i](x) for i, x in enumerate(inputs)], axis=-2)
        moment = self.times(jnp.clip(time, 0, self.steps - 1))[..., None, :]
        return self.norm(x) + moment if self.late else self.norm(x + moment)


def _flat(tokens: Array) -> Array:
    """``[..., K, 3, D]`` as ``[..., 3 K, D]``."""
    return tokens.reshape(*tokens.shape[:-3], -1, tokens.shape[-1])


def _triplets(tokens: Array) -> Array:
    """``[..., 3 K, D]`` as ``[..., K, 3, D]``."""
    return tokens.reshape(*tokens.shape[:-2], -1, 3, tokens.shape[-1])


class AttentionBlock(nn.Module):
    """Attention and a wider layer, each after a normalisation and added to its input."""

    width: int
    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Array, deterministic: bool = True, mask: Array | None = None, memory: PyTree = None, column: Array = 0
    ):
        """``[..., n, D] -> [..., n, D]``; ``mask`` ``[..., n, keys]``: which keys a query sees, None: those up to it.

        With a ``memory`` of keys and values ``[..., S, heads, D / heads]`` those of ``x`` are written from ``column``
        on, all ``S`` are attended to, and the result is ``(output, memory)``.
        """

        def drop(x: Array) -> Array:
            return nn.Dropout(self.dropout)(x, deterministic=deterministic) if self.dropout > 0 else x

        # No bias: that of the keys cannot change anything, and Adam would walk along the rounding of its gradient.
        h = nn.Dense(3 * self.width, use_bias=False)(nn.LayerNorm(epsilon=1e-5)(x))
        h = h.reshape(*h.shape[:-1], 3, self.heads, -1)
        query, key, value = (h[..., i, :, :] for i in range(3))
        if memory is not None:
            held = zip(memory, (key, value), strict=True)
            key, value = (jax.lax.dynamic_update_slice_in_dim(old, new, column, axis=-3) for old, new in held)
        scores = jnp.einsum("...qhd,...khd->...hqk", query, key) / jnp.sqrt(query.shape[-1])
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool)) if mask is None else mask[..., None, :, :]
        weights = drop(nn.softmax(jnp.where(seen, scores, -1e9), axis=-1))
        h = jnp.einsum("...hqk,...khd->...qhd", weights, value)
        x = x + drop(nn.Dense(self.width)(h.reshape(*x.shape)))
        h = nn.relu(nn.Dense(4 * self.width)(nn.LayerNorm(epsilon=1e-5)(x)))
        x = x + drop(nn.Dense(self.width)(h))
        return x if memory is None else (x, (key, value))


class _Transformer(nn.Module):
    action_dim: int
    width: int
    blocks: int
    heads: int
    dropout: float
    steps: int

    @nn.compact
    def __call__(
        self, togo: Array, observation: Array, action: Array, time: Array, deterministic: bool, found: Array | None
    ) -> Array:
        """``found`` ``[..., K, E]`` is what each step read in a memory; None: there is none."""
        x = _Tokens(self.width, self.steps, late=False)(time, (togo[..., None], observation, action))
        if found is not None:
            x = x.at[..., 1, :].add(nn.Dense(self.width, use_bias=False, name="memory")(found))
        x = _flat(x)
        if self.dropout > 0:
            x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        for i in range(self.blocks):  # the name is that of stored parameters
            x = AttentionBlock(self.width, self.heads, self.dropout, name=f"_AttentionBlock_{i}")(x, deterministic)
        x = _triplets(nn.LayerNorm(epsilon=1e-5)(x))
        return nn.tanh(nn.Dense(self.action_dim)(x[..., 1, :]))


def decision_transformer(
    spec: Spec,
    hidden: Sequence[int] = (128, 128, 128),
    context: int = 20,
    *,
    heads: int = 1,
    dropout: float = 0.1,
    memory: int = 0,
) -> SequenceModel:
    """Causal attention over the last ``context`` steps; one block per entry of ``hidden``.

    Acting keeps these steps and reads them all again each time, as attention to a sliding window must. With ``memory``
    signatures every step also reads a table of the whole episode (see ``networks.hashed_memory``); ``apply`` then takes
    ``past``, (observation ``[..., P, O]``, action ``[..., P, A]``, mask ``[..., P]``) from before the window, and gives
    what a read is on average; acting reads the table.

    Raises ``UserError`` for blocks of several widths, or heads that do not divide them.
    """
    width = width_of(hidden)
    if width % heads:
        raise UserError(f"heads={heads} must divide the width {width} of the blocks")
    module = _Transformer(spec.action_dim, width, len(hidden), heads, dropout, spec.max_episode_steps)
    recall = hashed_memory.recall(memory, MEMORY_BITS, MEMORY_KEY, spec.action_dim) if memory else None

    def init(key: Key) -> PyTree:
        def shapes(key: Key) -> PyTree:
            found = None if recall is None else jnp.zeros((1, context, recall.size))
            return module.init(key, *_blank_window(spec, context, (1,)), True, found)["params"]

        params = filled(jax.eval_shape(shapes, key), key)
        if recall is None:
            return params
        # Beside the module's, whose calls leave what they do not know alone.
        scale = spec.observation_dim**-0.5
        keys = scale * jax.random.normal(jax.random.fold_in(key, 1), (spec.observation_dim, MEMORY_KEY))
        return {**params, "memory_keys": {"kernel": keys}}

    def apply(params, togo, observation, action, time, key=None, past=None) -> Prediction:
        found = None
        if recall is not None:
            found = recall.expected(params["memory_keys"]["kernel"], observation, action, past)
        return predict(params, togo, observation, action, time, found, key)

    def predict(params, togo, observation, action, time, found, key=None) -> Prediction:
        rngs = None if key is None else {"dropout": key}
        inputs = (togo, observation, action, time)
        return Prediction(jnp.asarray(module.apply({"params": params}, *inputs, key is None, found, rngs=rngs)))

    def start(shape: tuple[int, ...]) -> PyTree:
        carry = (*_blank_window(spec, context, shape), jnp.zeros(shape, jnp.int32))
        if recall is None:
            return carry
        table = hashed_memory.empty(memory, MEMORY_BITS, recall.size)
        return (*carry, jnp.zeros((*shape, context, recall.size)), jnp.broadcast_to(table, (*shape, *table.shape)))

    def step(params, carry, togo, observation, time, choose) -> tuple[Array, PyTree]:
        *window, count = carry[:5]
        place = jnp.arange(context) == jnp.minimum(count, context - 1)[..., None]  # [..., K]
        full = (count >= context)[..., None]

        def put(column: Array, new: Array) -> Array:
            axes = (1,) * (new.ndim - count.ndim)
            moved = jnp.where(full.reshape(*full.shape, *axes), jnp.roll(column, -1, axis=count.ndim), column)
            return jnp.where(place.reshape(*place.shape, *axes), jnp.expand_dims(new, count.ndim), moved)

        blank = jnp.zeros((*count.shape, spec.action_dim))
        window = [put(*pair) for pair in zip(window, (togo, observation, blank, time), strict=True)]
        found = None
        if recall is not None:
            name, (reads, table) = observation @ params["memory_keys"]["kernel"], carry[5:]
            found = put(reads, hashed_memory.read(table, name, recall.planes))
        predicted = predict(params, *window, found).action
        action = choose(jnp.where(place[..., None], predicted, 0.0).sum(axis=-2))
        window[2] = jnp.where(place[..., None], action[..., None, :], window[2])
        if recall is None:
            return action, (*window, count + 1)
        table = hashed_memory.write(table, name, recall.value(action), recall.planes)
        return action, (*window, count + 1, found, table)

    return SequenceModel(init, apply, start, step)


def _blank_window(spec: Spec, context: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Returns, observations, actions and times of windows without steps."""
    sizes = ((), (spec.observation_dim,), (spec.action_dim,))
    return *(jnp.zeros((*shape, context, *size)) for size in sizes), jnp.zeros((*shape, context), jnp.int32)


def _from_whole_steps(fine: Array) -> Array:
    """What each of the three tokens of a step may know of whole steps ``[..., K, D]``: ``[..., K, 3, D]``.

    Return and observation get the step before, since theirs contains the action that they predict; the action's token
    gets its own.
    """
    before = jnp.pad(fine, [(0, 0)] * (fine.ndim - 2) + [(1, 0), (0, 0)])[..., :-1, :]
    return jnp.stack([before, before, fine], axis=-2)


class _GrainedBlock(nn.Module):
    """A Mamba mixer over tokens beside one over whole steps, both added to the input."""

    width: int
    state_size: int
    expand: int
    kernel: int

    def mixer(self) -> MambaMixer:
        return MambaMixer(self.width, self.state_size, self.expand, self.kernel, parent=None)

    def setup(self):
        self.norm = nn.RMSNorm(epsilon=1e-5)
        self.coarse = self.mixer()
        self.gather = nn.Dense(self.width)
        self.fine = self.mixer()
        self.fine_norm = nn.LayerNorm(epsilon=1e-5)

    def __call__(self, x: Array) -> Array:
        """``[..., 3 K, D] -> [..., 3 K, D]``."""
        h = self.norm(x)
        steps = _triplets(h)
        fine = self.fine(self.gather(steps.reshape(*steps.shape[:-2], -1)))
        return x + self.coarse(h) + self.fine_norm(_flat(_from_whole_steps(fine)))

    def start(self, shape: tuple[int, ...]) -> PyTree:
        memory = self.mixer().start(shape)
        return memory, memory, jnp.zeros((*shape, self.width))

    def before_action(self, memory: PyTree, x: Array) -> tuple[PyTree, Array, Array]:
        """The return's and the observation's token ``[..., 2, D]``; returns the memory, what the third call needs, and
        the output."""
        coarse, fine, last = memory
        h = self.norm(x)
        out = []
        for i in range(2):
            coarse, y = self.coarse.step(coarse, h[..., i, :])
            out.append(y)
        return (coarse, fine, last), h, x + jnp.stack(out, axis=-2) + self.fine_norm(last)[..., None, :]

    def after_action(self, memory: PyTree, earlier: Array, x: Array) -> tuple[PyTree, Array]:
        """The action's token ``[..., D]``, which completes the step."""
        coarse, fine, _ = memory
        h = self.norm(x)
        coarse, y = self.coarse.step(coarse, h)
        whole = jnp.concatenate([earlier.reshape(*h.shape[:-1], -1), h], axis=-1)
        fine, last = self.fine.step(fine, self.gather(whole))
        return (coarse, fine, last), x + y + self.fine_norm(last)


class _Mamba(nn.Module):
    spec: Spec
    blocks: tuple[_GrainedBlock, ...]
    dropout: float

    def setup(self):
        width, spec = self.blocks[0].width, self.spec
        self.tokens = _Tokens(width, spec.max_episode_steps, late=True)
        self.layers = [block.clone() for block in self.blocks]
        self.norm = nn.RMSNorm(epsilon=1e-5)
        self.to_action = nn.Dense(spec.action_dim)
        self.to_observation = nn.Dense(spec.observation_dim)
        self.to_return = nn.Dense(1)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, togo: Array, observation: Array, action: Array, time: Array, deterministic: bool = True
    ) -> Prediction:
        def drop(x: Array) -> Array:
            return self.drop(x, deterministic=deterministic) if self.dropout > 0 else x

        x = drop(_flat(self.tokens(time, (togo[..., None], observation, action))))
        for layer in self.layers:
            x = x + drop(layer(x) - x) if self.dropout > 0 else layer(x)
        x = _triplets(self.norm(x))
        return Prediction(
            nn.tanh(self.to_action(x[..., 1, :])),
            self.to_observation(x[..., 2, :]),
            self.to_return(x[..., 2, :])[..., 0],
        )

    def step(self, memory: PyTree, togo: Array, observation: Array, time: Array, choose: Choose):
        x = self.tokens(time, (togo[..., None], observation))
        memory, earlier = list(memory), []
        for i, layer in enumerate(self.layers):
            memory[i], h, x = layer.before_action(memory[i], x)
            earlier.append(h)
        action = choose(nn.tanh(self.to_action(self.norm(x[..., 1, :]))))
        x = self.tokens(time, (action,), first=2)[..., 0, :]
        for i, layer in enumerate(self.layers):
            memory[i], x = layer.after_action(memory[i], earlier[i], x)
        return action, tuple(memory)


def decision_mamba(
    spec: Spec,
    hidden: Sequence[int] = (128, 128, 128),
    context: int = 20,
    *,
    state_size: int = 16,
    expand: int = 2,
    kernel: int = 4,
    dropout: float = 0.1,
) -> SequenceModel:
    """Mamba over tokens and, beside it, over whole steps, with heads for action, next observation and next return.

    Acting carries the memory of both and costs the same at every step. Because windows of ``context`` steps are all
    that it has learnt from, the memory is emptied after that many.

    Raises ``UserError`` for blocks of several widths.
    """
    block = _GrainedBlock(width_of(hidden), state_size, expand, kernel, parent=None)
    module = _Mamba(spec, (block,) * len(hidden), dropout)

    def init(key: Key) -> PyTree:
        shapes = ((1, 1), (1, 1, spec.observation_dim), (1, 1, spec.action_dim))
        inputs = (*map(jnp.zeros, shapes), jnp.zeros((1, 1), jnp.int32))
        return filled(jax.eval_shape(lambda key: module.init(key, *inputs)["params"], key), key)

    def apply(params, togo, observation, action, time, key=None) -> Prediction:
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, togo, observation, action, time, key is None, rngs=rngs)  # type: ignore

    def start(shape: tuple[int, ...]) -> PyTree:
        return tuple(block.start(shape) for _ in hidden), jnp.zeros(shape, jnp.int32)

    def step(params, memory, togo, observation, time, choose) -> tuple[Array, PyTree]:
        layers, count = memory
        fresh = count >= context

        def emptied(x: Array) -> Array:
            return jnp.where(fresh.reshape(*fresh.shape, *(1,) * (x.ndim - fresh.ndim)), 0.0, x)

        layers = jax.tree.map(emptied, layers)
        action, layers = module.apply({"params": params}, layers, togo, observation, time, choose, method="step")
        return action, (layers, jnp.where(fresh, 0, count) + 1)

    return SequenceModel(init, apply, start, step)
