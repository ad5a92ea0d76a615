"""Terms of losses and pieces of networks that ``_switches`` turn on: one function for each place in an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses, networks, transforms
from jaxrl_reg.agents import _common
from jaxrl_reg.agents._switches import Kept, Switches
from jaxrl_reg.types import Array, Key, Metrics, Network, PyTree

HEADS = "heads"  # of the critics' parameters, for InFeR


def body(config: Switches, **perceptron: Any) -> dict[str, Any]:
    """Options of ``q_network`` or ``value_network``: residual blocks, or those of a ``perceptron``."""
    return perceptron if config.critic_body == "mlp" else {"body": config.critic_body}


def network(config: Switches, critics: Network) -> Network:
    """``critics``, alone or an ensemble, with what the switches add."""
    if config.critic_spectral == "penultimate":
        critics = transforms.spectrally_normalised(critics)
    if not config.initial_features:
        return critics
    plain = critics

    def init(key: Key) -> PyTree:
        params = plain.init(key)
        kernel = networks.output_layer(params)[0]
        heads = jax.random.normal(jax.random.fold_in(key, 1002), (*kernel.shape[:-1], 10)) * kernel.shape[-2] ** -0.5
        return {**params, HEADS: {"kernel": heads}}

    def apply(params: PyTree, *inputs: Array, **options: Any) -> Any:
        return plain.apply({name: part for name, part in params.items() if name != HEADS}, *inputs, **options)

    return Network(init, apply)


def remembered(config: Switches, actor: PyTree, critic: PyTree) -> Kept:
    """``Kept`` of an agent whose first parameters are these."""
    start = _common.copy(critic) if config.pull_to_start or config.initial_features else ()
    previous = _common.copy(critic) if config.churn else ()
    usage = transforms.usage_start(critic) if config.replacement_rate else ()
    return Kept(start, previous, _common.copy(actor) if config.policy_churn else (), usage)


def moved_on(config: Switches, kept: Kept, critic: PyTree = None, actor: PyTree = None) -> Kept:
    """``kept`` after an update of the critics, the actor, or both; given are their parameters BEFORE it."""
    if config.churn and critic is not None:
        kept = kept._replace(previous=critic)
    return kept._replace(previous_actor=actor) if config.policy_churn and actor is not None else kept


def of_layers(path: tuple, leaf: Array) -> float:
    """1 for the kernels and biases of layers, 0 for norms, vectors and temperatures."""
    return float(any(str(getattr(part, "key", "")).startswith("Dense") for part in path))


def optimiser(config: Switches, learning_rate: Array | float, start: PyTree = (), **options: Any) -> Any:
    """Adam of the critics; ``start`` from ``Kept``. Norms and vectors of power iteration are neither decayed nor
    pulled. ``options`` go to ``adam``."""

    def kernels(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(transforms.is_kernel, params)

    inner = transforms.adam(learning_rate, weight_decay=config.critic_weight_decay, mask=kernels, **options)
    if not config.pull_to_start:
        return inner
    which = jax.tree_util.tree_map_with_path(of_layers, start)
    return optax.chain(transforms.anchored(start, config.pull_to_start, which), inner)


def seen(coefficient: float, x: Array) -> Array:
    """Rows ``[..., B]`` that a loss with a churn penalty beside it sees: the first half; without one all."""
    return x[..., : x.shape[-1] // 2] if coefficient else x


def unseen(tree: PyTree) -> PyTree:
    """The other rows, of leaves ``[B, ...]``."""
    return jax.tree.map(lambda x: x[x.shape[0] // 2 :], tree)


def regularise(
    config: Switches,
    q: Network,
    found: tuple[Array, Metrics],
    params: PyTree,
    outputs: tuple[Array, Array],
    inputs: tuple[Array, ...],
    following: tuple[tuple[Array, ...], Array] | None,
    kept: Kept,
) -> tuple[Array, Metrics]:
    """A critics' loss and its metrics, ``found``, plus the terms that are switched on.

    ``outputs`` are values ``[N, B]`` or ``[B]`` and features ``[..., B, H]`` of ``q.apply(params, *inputs)``;
    ``following`` the inputs (s', a') that are bootstrapped from with the discount ``[B]``, for DR3.
    """
    loss, metrics = found
    values, features = outputs
    if config.dr3:
        assert following is not None
        arguments, discount = following
        after = q.apply(params, *arguments, features=True)[1]
        mask = jnp.broadcast_to(discount, after.shape[:-1])
        metrics = {**metrics, "dr3": _sum(losses.feature_product_loss(features, after, mask))}
        loss = loss + config.dr3 * metrics["dr3"]
    if config.initial_features:
        first = q.apply(kept.start, *inputs, features=True)[1] @ kept.start[HEADS]["kernel"]
        spread = jax.lax.stop_gradient(first.std(axis=-2, keepdims=True) + 1e-6)
        heads = features @ params[HEADS]["kernel"]
        error = losses.initial_feature_loss(heads / spread, first / spread, config.initial_feature_scale)
        metrics = {**metrics, "initial_features": _sum(error)}
        loss = loss + config.initial_features * metrics["initial_features"]
    if config.churn:
        before = q.apply(kept.previous, *unseen(inputs))
        change = losses.value_churn_loss(values[..., values.shape[-1] // 2 :], before)
        metrics = {**metrics, "churn": _sum(change)}
        loss = loss + config.churn * metrics["churn"]
    return loss, metrics


def _sum(values: Array) -> Array:
    """Mean over rows, sum over critics."""
    return values.mean(axis=-1).sum()


def holding(
    config: Switches,
    actor_loss: Callable[[PyTree], tuple[Array, Metrics]],
    distance: Callable[[Any, Any], Array],
    speak: Callable[[PyTree, Array], Any],
    observation: Array,
    kept: Kept,
) -> Callable[[PyTree], tuple[Array, Metrics]]:
    """``actor_loss(params) -> (loss, metrics)`` plus ``policy_churn`` times the mean distance, if switched on.

    That is between what ``speak(params, observation)`` says on the unseen rows and what the old parameters say.
    """
    if not config.policy_churn:
        return actor_loss

    def held(params: PyTree) -> tuple[Array, Metrics]:
        loss, metrics = actor_loss(params)
        new, old = (speak(one, unseen(observation)) for one in (params, jax.lax.stop_gradient(kept.previous_actor)))
        churn = distance(new, old).mean()
        return loss + config.policy_churn * churn, {**metrics, "policy_churn": churn}

    return held


def stepped(config: Switches, critic: _common.Trainable) -> _common.Trainable:
    """The critics after what follows an optimiser step: one power iteration."""
    if config.critic_spectral == "none":
        return critic
    return critic._replace(params=transforms.stepped(critic.params))
