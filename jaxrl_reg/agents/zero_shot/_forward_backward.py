"""F and B: the maps, what their slow copies say of a batch, and the loss with its switches. See ``_successor``.

F regularisation: F_j^T z is also pulled to r_z(s') + gamma V(s', z), where r_z(s') = B(s')^T Cov^-1 z is the reward
that B knows by z. Conservatism: ``vc`` keeps F_j^T z down, and ``mc`` all of F_j^T B, at actions other than the data's:
the log-sum-exp over uniform ones, the policy's, the policy's next ones in their own state and the data's, minus the
data's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.data import Normalizer
from jaxrl_reg.errors import unknown
from jaxrl_reg.networks import successor
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Array, Key, Metrics, PyTree, Spec, setting

SWITCHES = {
    "representation": ("mlp", "attention"),
    "value": ("none", "expectile"),
    "conservatism": ("none", "vc", "mc"),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the networks of F and B."""

    hidden: tuple[int, ...] = setting(default=(1024,), help="the first is the widest; papers: 256 to 1024", small=(16,))
    features: int = setting(default=50, help="D, the dimension of F, B and z; 100 for mazes", small=8)
    preprocessor: tuple[int, ...] = setting(
        default=(1024, 1024, 512),
        help="of an mlp for F: before its heads",
        small=(16,),
    )
    backward_hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="of an mlp for B", small=(16, 16))


@dataclasses.dataclass(frozen=True)
class Config(Sizes):
    """Of the maps and their loss."""

    representation: str = setting(default="mlp", help="networks of F and B: mlp or attention")
    value: str = setting(default="none", help="what knows the value of tasks beside F: none or expectile, a network V")
    f_regularisation: bool = setting(default=False, help="pull F^T z to the reward B knows by z, and the next value")
    detach_reward: bool = setting(default=False, help="no gradient into B through that reward")
    ridge: float = setting(default=1e-2, help="on the covariance of B in that reward; its mean eigenvalue is 1")
    target_dropout: bool = setting(default=False, help="dropout in the slow copies too, as in BREEZE's released code")
    conservatism: str = setting(default="none", help="none, vc or mc")
    samples: int = setting(default=12, help="actions in the penalty of conservatism", small=6)
    uniform_share: float = setting(default=0.5, help="fraction of them that is uniform; the other kinds share the rest")
    target_penalty: float | None = setting(default=None, help="held there by a multiplier; None: fixed weight")
    conservative_weight: float = setting(default=1.0, help="weight of the penalty, times the multiplier")
    multiplier_learning_rate: float = setting(default=1e-4, help="Adam step size of the multiplier's logarithm")


class Batch(NamedTuple):
    """Rows as the networks see them: ``s`` and ``following [B, O]``, ``a [B, A]``, ``z [B, D]``."""

    s: Array
    a: Array
    following: Array
    z: Array


class Ahead(NamedTuple):
    """What the slow copies say of where a batch led, at the next actions.

    ``measure [B, B]`` is the elementwise smaller of the two; ``value [B]`` of task z, the smaller of the two.
    """

    measure: Array
    value: Array


class Maps(NamedTuple):
    """Parameters are a dict of ``forward`` and ``backward``.

    ``forward(params, s, a, z, key=None) -> [2, ..., D]`` and ``backward(params, s, key=None) -> [..., D]``, on the
    sphere; dropout where there is a key. ``q(params, s, a, z) -> [...]``, the smaller value of task z. ``ahead(params,
    batch, next action [B, A], key) -> Ahead``. ``loss(params, batch, ahead, others, multiplier, key, hyper) -> (scalar,
    (values [2, B], multiplier, metrics))``, where ``others`` are states and actions ``[K, B, ...]`` for conservatism.
    """

    init: Callable[[Key], PyTree]
    forward: Callable[..., Array]
    backward: Callable[..., Array]
    q: Callable[[PyTree, Array, Array, Array], Array]
    ahead: Callable[[PyTree, Batch, Array, Key], Ahead]
    loss: Callable[..., tuple[Array, Any]]


def make(config: Config, spec: Spec) -> Maps:
    """Maps of the networks that ``config.representation`` names. Raises ``UserError`` for an unknown switch."""
    for name, known in SWITCHES.items():
        if getattr(config, name) not in known:
            raise unknown(name, getattr(config, name), known)
    limit, size = config.hidden[0], config.features
    if config.representation == "mlp":
        f = successor.forward_mlp(spec, size, preprocessor=config.preprocessor, limit=limit)
        b = successor.backward_mlp(spec, size, config.backward_hidden, limit=limit)
    else:
        f = successor.forward_attention(spec, size, limit=limit)
        b = successor.backward_transformer(spec, size, limit=limit)

    def init(key: Key) -> PyTree:
        forward_key, backward_key = jax.random.split(key)
        return {"forward": f.init(forward_key), "backward": b.init(backward_key)}

    def forward(params: PyTree, s: Array, a: Array, z: Array, key: Key | None = None) -> Array:
        return f.apply(params["forward"], s, a, z, key=key)

    def backward(params: PyTree, s: Array, key: Key | None = None) -> Array:
        return losses.project_sphere(b.apply(params["backward"], s, key=key))

    def q(params: PyTree, s: Array, a: Array, z: Array) -> Array:
        return _value(forward(params, s, a, z), z).min(axis=0)

    def ahead(params: PyTree, batch: Batch, action: Array, key: Key) -> Ahead:
        forward_key, backward_key = jax.random.split(key) if config.target_dropout else (None, None)
        found = forward(params, batch.following, action, batch.z, forward_key)
        measure = _product(found, backward(params, batch.following, backward_key))
        return Ahead(measure.min(axis=0), _value(found, batch.z).min(axis=0))

    def loss(params, batch: Batch, ahead: Ahead, others: Any, multiplier: Any, key: Key, hyper: Any):
        keys = jax.random.split(key, 3)
        found = forward(params, batch.s, batch.a, batch.z, keys[0])
        reached = backward(params, batch.following, keys[1])
        values = _value(found, batch.z)
        fb = losses.fb_loss(_product(found, reached), ahead.measure, hyper.discount)
        with jax.default_matmul_precision("highest"):
            orthonormality = losses.orthonormality_loss(reached)
        total = fb + hyper.orthonormality * orthonormality
        metrics: Metrics = {"fb_loss": fb, "orthonormality_loss": orthonormality, "q": values.mean()}
        if config.f_regularisation:
            told = jax.lax.stop_gradient(reached) if config.detach_reward else reached
            y = losses.implicit_reward(told, batch.z, config.ridge) + hyper.discount * ahead.value
            q_loss = 0.5 * jnp.square(values - y).mean(axis=1).sum()
            total, metrics["q_loss"] = total + hyper.f_weight * q_loss, q_loss
        if config.conservatism != "none":
            elsewhere = forward(params, others[0], others[1], batch.z, keys[2])  # [2, K, B, D]
            repeated = jnp.broadcast_to(found[:, None], (2, config.samples - others[1].shape[0], *found.shape[1:]))
            elsewhere = jnp.concatenate([elsewhere, repeated], axis=1)
            if config.conservatism == "vc":
                excess = jax.vmap(losses.conservative_penalty)(_value(elsewhere, batch.z), values)
            else:
                both = _product(elsewhere, reached), _product(found, reached)
                excess = jax.vmap(losses.conservative_penalty)(*both)
            penalty = excess.reshape(2, -1).mean(axis=1).sum()
            weight, multiplier = _held(penalty, multiplier, hyper)
            total += hyper.conservative_weight * weight * penalty
            metrics |= {"penalty": penalty, "multiplier": weight}
        return total, (values, multiplier, {"critic_loss": total, **metrics})

    return Maps(init, forward, backward, q, ahead, loss)


def other_actions(
    config: Config, batch: Batch, draw: Callable[..., Array], scale: Normalizer, key: Key
) -> tuple[Array, Array] | None:
    """States and actions ``[K, B, ...]`` at which conservatism looks, besides the data's; None without it."""
    if config.conservatism == "none":
        return None
    draw_key, uniform_key = jax.random.split(key)
    uniform = round(config.uniform_share * config.samples)
    states = jnp.repeat(jnp.stack([batch.s, batch.following]), (config.samples - uniform) // 3, axis=0)
    anywhere = jax.random.uniform(uniform_key, (uniform, *batch.a.shape), minval=-1.0, maxval=1.0)
    actions = jnp.concatenate([scale.normalize(anywhere), draw(states, batch.z, key=draw_key)])
    here = jnp.broadcast_to(batch.s, (uniform, *batch.s.shape))
    return jnp.concatenate([here, states]), actions


def _value(found: Array, z: Array) -> Array:
    return jnp.sum(found * z, axis=-1)


def _product(found: Array, reached: Array) -> Array:
    return jnp.matmul(found, reached.T, precision="highest")  # [..., B, B]


def _held(penalty: Array, multiplier: _common.Trainable | None, hyper: Any) -> tuple[Array, _common.Trainable | None]:
    """The multiplier after its own step towards holding ``penalty`` at ``target_penalty``; 1 where there is none."""
    if multiplier is None:
        return jnp.ones(()), None

    def loss(log_weight):
        return losses.cql_lagrange_loss(log_weight, penalty, hyper.target_penalty, 0.5), {}

    multiplier, _ = _common.descend(loss, multiplier, adam(hyper.multiplier_learning_rate))
    return losses.cql_lagrange_weight(multiplier.params), multiplier
