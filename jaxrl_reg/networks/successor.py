"""Networks of forward-backward representations: F(s, a, z), B(s), and actors that are given a task z.

Forward networks share ``apply(params, observation [..., O], action [..., A], z [..., D], *, key=None) -> [N, ..., D]``,
``N`` heads on one trunk; backward networks ``apply(params, observation [..., O], *, key=None) -> [..., D]``, not yet on
the sphere. Leading axes broadcast, so that several actions for one state and task cost one look at those two. Dropout,
where there is any, is active only where ``apply`` is given a key: whether targets have it is the caller's choice.

Default sizes are the papers'. ``limit`` caps the widths, of the inner layer of a transformer's feed-forward part at
four times it. Linear layers start orthogonal with gain 1, biases at zero; so do the value projections of B, which
BREEZE's code leaves to Xavier's draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.networks.feedforward import mlp, orthogonal
from jaxrl_reg.networks.stacked import ensemble
from jaxrl_reg.types import Array, Key, Network, PyTree, Spec

NO_LIMIT = 1 << 30


def _capped(widths: Sequence[int], limit: int | None) -> tuple[int, ...]:
    return tuple(min(width, limit or NO_LIMIT) for width in widths)


def _unit_mlp(sizes: Sequence[int], activation: str = "relu", **options) -> Network:
    return mlp(sizes, activation, init="orthogonal", gain=1.0, **options)


def _joined(*inputs: Array) -> Array:
    """Inputs side by side, leading axes broadcast."""
    shape = jnp.broadcast_shapes(*(x.shape[:-1] for x in inputs))
    return jnp.concatenate([jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in inputs], axis=-1)


def _preprocessor(inputs: int, widths: tuple[int, ...], layer_norm: str) -> Network:
    return _unit_mlp((inputs, *widths), layer_norm=layer_norm, final_activation="relu")


def forward_mlp(
    spec: Spec,
    features: int,
    *,
    preprocessor: Sequence[int] = (1024, 1024, 512),
    head: Sequence[int] = (256, 256),
    heads: int = 2,
    limit: int | None = None,
) -> Network:
    """F of FB and its conservative kin: (s, a) and (s, z) pass a network each, which all heads share.

    With an empty ``preprocessor`` the heads see (s, a, z) side by side and share nothing. The first layer of every
    network is ``tanh(LayerNorm(.))``. Heads of 1024 are those of the FB and VC-FB papers, 256 those of their code in
    BREEZE's comparison.

    Returns:
      ``init(key) -> params`` and ``apply(params, observation, action, z, *, key=None) -> [heads, ..., features]``.
    """
    if not preprocessor:
        whole = (spec.observation_dim + spec.action_dim + features, *_capped(head, limit), features)
        plain = ensemble(_unit_mlp(whole, layer_norm="first_tanh"), heads)

        def direct(params: PyTree, observation: Array, action: Array, z: Array, *, key: Key | None = None) -> Array:
            return plain.apply(params, _joined(observation, action, z))

        return Network(plain.init, direct)
    preprocessor = _capped(preprocessor, limit)
    of_action = _preprocessor(spec.observation_dim + spec.action_dim, preprocessor, "first_tanh")
    of_task = _preprocessor(spec.observation_dim + features, preprocessor, "first_tanh")
    body = (2 * preprocessor[-1], *_capped(head, limit), features)
    top = ensemble(_unit_mlp(body, layer_norm="first_tanh"), heads)

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 3)
        return {"action": of_action.init(keys[0]), "task": of_task.init(keys[1]), "heads": top.init(keys[2])}

    def apply(params: PyTree, observation: Array, action: Array, z: Array, *, key: Key | None = None) -> Array:
        acted = of_action.apply(params["action"], _joined(observation, action))
        asked = of_task.apply(params["task"], _joined(observation, z))
        return top.apply(params["heads"], _joined(acted, asked))

    return Network(init, apply)


def backward_mlp(
    spec: Spec, features: int, hidden: Sequence[int] = (256, 256, 256), *, limit: int | None = None
) -> Network:
    """B of FB and its conservative kin: first layer ``tanh(LayerNorm(.))``. Not yet on the sphere."""
    return _unit_mlp((spec.observation_dim, *_capped(hidden, limit), features), layer_norm="first_tanh")


def task_actor(
    spec: Spec,
    features: int,
    *,
    preprocessor: Sequence[int] = (1024, 1024, 512),
    hidden: Sequence[int] = (1024, 1024),
    limit: int | None = None,
) -> Network:
    """Deterministic actor of FB: ``apply(params, observation [..., O], z [..., D]) -> [..., A]`` in [-1, 1].

    s and (s, z) pass a network each, whose outputs meet in another; the output is a tanh.
    """
    preprocessor = _capped(preprocessor, limit)
    of_state = _preprocessor(spec.observation_dim, preprocessor, "first_tanh")
    of_task = _preprocessor(spec.observation_dim + features, preprocessor, "first_tanh")
    body = (2 * preprocessor[-1], *_capped(hidden, limit), spec.action_dim)
    top = _unit_mlp(body, layer_norm="first_tanh", final_activation="tanh")

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 3)
        return {"state": of_state.init(keys[0]), "task": of_task.init(keys[1]), "body": top.init(keys[2])}

    def apply(params: PyTree, observation: Array, z: Array) -> Array:
        seen = of_state.apply(params["state"], observation)
        asked = of_task.apply(params["task"], _joined(observation, z))
        return top.apply(params["body"], _joined(seen, asked))

    return Network(init, apply)


def _dense(width: int, x: Array) -> Array:
    return nn.Dense(width, kernel_init=nn.initializers.zeros)(x)  # filled by ``orthogonal``


def _dropout(key: Key | None, rate: float, shape: tuple[int, ...], total: int) -> Callable[[Array], Array]:
    """``drop(x [*shape, n])``, to be called until ``total`` columns are used up.

    All masks come from one draw: a generator for each would multiply the compile time.
    """
    if key is None:
        return lambda x: x
    kept = jax.random.bits(key, (*shape, total), jnp.uint16) >= round(rate * 2**16)
    start = 0

    def drop(x: Array) -> Array:
        nonlocal start
        start += x.shape[-1]
        return jnp.where(kept[..., start - x.shape[-1] : start], x / (1.0 - rate), 0.0)

    return drop


class _Attention(nn.Module):
    """Blocks over tokens ``[..., 2, W]``: attention, whose output alone goes on, then a feed-forward part beside it."""

    blocks: int
    inner: int

    def dropped(self, width: int) -> int:
        """Columns that ``drop`` is called with in all."""
        return self.blocks * (self.inner + 2 * width)

    @nn.compact
    def __call__(self, x: Array, drop: Callable[[Array], Array]) -> Array:
        width = x.shape[-1]
        for _ in range(self.blocks):
            # A bias of the keys would shift all scores of a query alike: no effect, and a gradient of rounding errors.
            query, key, value = _dense(width, x), nn.Dense(width, use_bias=False)(x), _dense(width, x)
            scores = jnp.einsum("...id,...jd->...ij", query, key) * width**-0.5
            attended = jax.nn.softmax(scores, axis=-1) @ value  # no residual around it
            h = nn.RMSNorm(epsilon=1e-6)(nn.LayerNorm(epsilon=1e-5)(attended))
            h = drop(jax.nn.gelu(_dense(self.inner, h), approximate=False))
            x = nn.LayerNorm(epsilon=1e-5)(drop(attended + drop(_dense(width, h))))
        return x


def forward_attention(
    spec: Spec,
    features: int,
    *,
    preprocessor: Sequence[int] = (1024, 1024, 512),
    inner: int = 2048,
    blocks: int = 2,
    head: int = 256,
    heads: int = 2,
    dropout: float = 0.1,
    limit: int | None = None,
) -> Network:
    """F of BREEZE: (s, z) and (s, a) become two tokens that attend to each other; linear heads on both.

    Attention has one head and no output projection, and no path leads around it. A head is two linear layers without
    anything between. The biases of keys, which have no effect, are left out.

    Returns:
      ``init(key) -> params`` and ``apply(params, observation, action, z, *, key=None) -> [heads, ..., features]``.
    """
    preprocessor = _capped(preprocessor, limit)
    width, (head,) = preprocessor[-1], _capped((head,), limit)
    of_action = _preprocessor(spec.observation_dim + spec.action_dim, preprocessor, "none")
    of_task = _preprocessor(spec.observation_dim + features, preprocessor, "none")
    trunk = _Attention(blocks, min(inner, 4 * limit if limit else inner))
    top = ensemble(_unit_mlp((2 * width, head, features), "identity"), heads)

    def init(key: Key) -> PyTree:
        action_key, task_key, trunk_key, head_key = jax.random.split(key, 4)
        return {
            "action": of_action.init(action_key),
            "task": of_task.init(task_key),
            "trunk": orthogonal(trunk_key, trunk.init(trunk_key, jnp.zeros((1, 2, width)), lambda x: x)["params"]),
            "heads": top.init(head_key),
        }

    def apply(params: PyTree, observation: Array, action: Array, z: Array, *, key: Key | None = None) -> Array:
        acted = of_action.apply(params["action"], _joined(observation, action))
        asked = of_task.apply(params["task"], _joined(observation, z))
        tokens = jnp.stack(jnp.broadcast_arrays(asked, acted), axis=-2)
        drop = _dropout(key, dropout, tokens.shape[:-1], trunk.dropped(width))
        mixed = jnp.asarray(trunk.apply({"params": params["trunk"]}, tokens, drop))
        return top.apply(params["heads"], mixed.reshape(*mixed.shape[:-2], 2 * width))

    return Network(init, apply)


class _OneToken(nn.Module):
    """A post-norm transformer whose source and target are one token each.

    Softmax over one token is 1, so attention is its value and output projections, and queries and keys, which nothing
    depends on, are left out. What stays of the attention heads is that dropout of a weight takes a whole head at once.
    """

    width: int
    features: int
    layers: int
    attention_heads: int
    inner: int

    def dropped(self) -> int:
        """Columns that ``drop`` is called with in all."""
        return self.layers * (3 * (self.attention_heads + self.width) + 2 * (self.inner + self.width))

    @nn.compact
    def __call__(self, x: Array, drop: Callable[[Array], Array]) -> Array:
        def norm(x: Array) -> Array:
            return nn.LayerNorm(epsilon=1e-5)(x)

        def attention(x: Array) -> Array:
            value = _dense(self.width, x)
            weight = drop(jnp.ones((*value.shape[:-1], self.attention_heads)))
            return drop(_dense(self.width, jnp.repeat(weight, self.width // self.attention_heads, axis=-1) * value))

        def feed_forward(x: Array) -> Array:
            return drop(_dense(self.width, drop(jax.nn.relu(_dense(self.inner, x)))))

        source = _dense(self.width, x)
        for _ in range(self.layers):
            source = norm(source + attention(source))
            source = norm(source + feed_forward(source))
        source = norm(source)
        query = self.param("query", nn.initializers.normal(1.0), (self.width,))
        target = jnp.broadcast_to(query, source.shape)
        for _ in range(self.layers):
            target = norm(target + attention(target))
            target = norm(target + attention(source))
            target = norm(target + feed_forward(target))
        return _dense(self.features, norm(target))


def backward_transformer(
    spec: Spec,
    features: int,
    *,
    width: int = 256,
    layers: int = 2,
    attention_heads: int = 8,
    inner: int = 2048,
    dropout: float = 0.1,
    limit: int | None = None,
) -> Network:
    """B of BREEZE: a transformer of ``layers`` encoder and decoder layers that reads one state with one learned query.

    ``apply(params, observation [..., O], *, key=None) -> [..., features]``, not yet on the sphere. The projections of
    queries and keys, which have no effect for single tokens, are left out: 0.79 of the released code's 5.81 million
    weights.
    """
    (width,) = _capped((width,), limit)
    inner = min(inner, 4 * limit if limit else inner)
    module = _OneToken(width, features, layers, math.gcd(attention_heads, width), inner)

    def init(key: Key) -> PyTree:
        return orthogonal(key, module.init(key, jnp.zeros((1, spec.observation_dim)), lambda x: x)["params"])

    def apply(params: PyTree, observation: Array, *, key: Key | None = None) -> Array:
        drop = _dropout(key, dropout, observation.shape[:-1], module.dropped())
        return jnp.asarray(module.apply({"params": params}, observation, drop))

    return Network(init, apply)
