"""Keys and a camera: a categorical policy over what is held, with a second one for the aim, asked only where it moves.

Actions are rows ``[..., G + C]``: of each of ``G`` groups of keys the number of the one that is held (0: none), then
``C`` camera movements. Of a group at most one key can be held, so all groups and a switch, whether the camera moves,
are one categorical choice; where it does, a second one gives a joint bin of all axes. Bins are fine near 0 and coarse
away from it (mu-law). Independent heads could not say "walk, or look around, but not both"; what this one cannot say
is that the aim depends on the keys.

Probabilities sum to 1 over binned actions: the bin at rest belongs to the switch alone, and is masked in the aim (in
the published space it can be said in two ways). Divergence and entropy follow from the chain rule: the aim's counts as
often as the switch is on; see ``losses.switched_kl``.

Source: Baker et al., 2022, Video PreTraining (VPT): Learning to Act by Watching Unlabeled Online Videos, as in the
released action mapping. Left out: the inventory key, which excludes all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import mlp
from jaxrl_reg.policies import Policy
from jaxrl_reg.types import Array, Key, PyTree, Spec


class Space(NamedTuple):
    """What can be held and how the camera is binned; static."""

    groups: tuple[int, ...]  # keys of each group, "none" included
    axes: int = 2  # of the camera
    bins: int = 11  # of each axis, odd, so that one is rest
    limit: float = 10.0  # movements are cut to +- this
    mu: float = 10.0  # the larger, the finer near 0

    @property
    def choices(self) -> int:
        """Combinations of keys, times two for the switch."""
        return 2 * math.prod(self.groups)

    @property
    def aims(self) -> int:
        """Joint bins of all axes."""
        return self.bins**self.axes

    @property
    def rest(self) -> int:
        """The joint bin in which no axis moves."""
        return self.aims // 2


class Distribution(NamedTuple):
    """``logits [..., choices]``, keys first and the switch last in the numbering; ``aim [..., aims]``, rest masked."""

    logits: Array
    aim: Array


def quantise(movement: Array, space: Space) -> Array:
    """Bin, int32, of each camera movement: linear in ``sign(x) log(1 + mu |x| / limit)``, cut at the limit."""
    x = jnp.clip(movement / space.limit, -1.0, 1.0)
    curved = jnp.sign(x) * jnp.log1p(space.mu * jnp.abs(x)) / math.log1p(space.mu)
    return jnp.round((curved + 1.0) * (space.bins // 2)).astype(jnp.int32)


def movement(bins: Array, space: Space) -> Array:
    """The movement in the middle of each bin, the inverse of :func:`quantise` on its values."""
    curved = bins / (space.bins // 2) - 1.0
    return space.limit * jnp.sign(curved) * jnp.expm1(jnp.abs(curved) * math.log1p(space.mu)) / space.mu


def encode(action: Array, space: Space) -> tuple[Array, Array]:
    """Number of the choice and of the aim, int32 ``[...]``, of actions ``[..., G + C]``."""
    keys, camera = jnp.split(action, [len(space.groups)], axis=-1)
    aim = _number(quantise(camera, space), (space.bins,) * space.axes)
    held = _number(jnp.round(keys).astype(jnp.int32), space.groups)
    return 2 * held + (aim != space.rest), aim


def decode(choice: Array, aim: Array, space: Space) -> Array:
    """The action ``[..., G + C]`` of a choice and an aim ``[...]``; the aim counts only where the switch is on."""
    aim = jnp.where(moves(choice), aim, space.rest)
    keys = _digits(choice // 2, space.groups)
    camera = movement(_digits(aim, (space.bins,) * space.axes), space)
    return jnp.concatenate([keys.astype(camera.dtype), camera], axis=-1)


def moves(choice: Array) -> Array:
    """Is the switch of a choice on?"""
    return choice % 2 == 1


def switch(space: Space) -> Array:
    """``[choices]``, 1 where the switch is on: broadcast, the last argument of ``losses.switched_kl``."""
    return moves(jnp.arange(space.choices)).astype(jnp.float32)


def log_prob(distribution: Distribution, action: Array, space: Space) -> Array:
    """Nats ``[...]``, of binned actions: the keys' and, where the camera moves, the aim's."""
    choice, aim = encode(action, space)
    on = moves(choice)
    # At rest the aim is masked, and minus infinity times nothing would be NaN in the gradient.
    aim = jnp.where(on, aim, 0)
    inner = _at(jax.nn.log_softmax(distribution.aim), aim)
    return _at(jax.nn.log_softmax(distribution.logits), choice) + jnp.where(on, inner, 0.0)


def entropy(distribution: Distribution) -> Array:
    """Nats ``[...]``, exact: the choice's, and the aim's as often as the switch is on."""

    def of(logits: Array) -> Array:
        log_p = jax.nn.log_softmax(logits)
        finite = jnp.where(jnp.isfinite(log_p), log_p, 0.0)
        return -(jnp.exp(log_p) * finite).sum(-1)

    on = jax.nn.softmax(distribution.logits)[..., 1::2].sum(-1)
    return of(distribution.logits) + on * of(distribution.aim)


def make(
    spec: Spec, space: Space, hidden: Sequence[int] = (256, 256), *, temperature: float = 1.0, **options
) -> Policy:
    """``apply(params, observation [..., O]) -> Distribution``; actions ``[..., G + C]`` as above.

    ``temperature`` divides all logits, within ``apply``, so that old and new densities share it. ``mode`` is the
    likeliest choice and, if that moves the camera, the likeliest aim. ``options`` go to ``networks.mlp``.

    Raises ``UserError`` if the spec's actions are not the space's, or the number of bins is even.
    """
    wanted = len(space.groups) + space.axes
    if spec.action_dim != wanted:
        raise UserError(f"hierarchical: action_dim={spec.action_dim}; the space's groups and axes make {wanted}")
    if space.bins % 2 == 0:
        raise UserError(f"hierarchical: bins={space.bins} has none in the middle for a camera at rest; make it odd")
    network = mlp((spec.observation_dim, *hidden, space.choices + space.aims), **options)
    resting = jnp.arange(space.aims) == space.rest

    def apply(params: PyTree, observation: Array) -> Distribution:
        logits, aim = jnp.split(network.apply(params, observation) / temperature, [space.choices], axis=-1)
        return Distribution(logits, jnp.where(resting, -jnp.inf, aim))

    def sample(params: PyTree, observation: Array, key: Key, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        distribution = apply(params, observation)
        keys, out = jax.random.split(key), (*shape, *distribution.logits.shape[:-1])
        choice, aim = (jax.random.categorical(k, x, shape=out) for k, x in zip(keys, distribution, strict=True))
        action = decode(choice, aim, space)
        return action, log_prob(distribution, action, space)

    def mode(params: PyTree, observation: Array) -> Array:
        distribution = apply(params, observation)
        return decode(distribution.logits.argmax(-1), distribution.aim.argmax(-1), space)

    return Policy(
        network.init,
        apply,
        sample,
        lambda params, observation, action: log_prob(apply(params, observation), action, space),
        mode,
        lambda distribution, action: log_prob(distribution, action, space),
        lambda distribution, key: entropy(distribution),
        lambda params, observation: entropy(apply(params, observation)),
    )


def _number(digits: Array, sizes: Sequence[int]) -> Array:
    number = jnp.zeros(digits.shape[:-1], jnp.int32)
    for place, size in enumerate(sizes):
        number = number * size + jnp.clip(digits[..., place], 0, size - 1)
    return number


def _digits(number: Array, sizes: Sequence[int]) -> Array:
    digits = []
    for size in reversed(sizes):
        digits.append(number % size)
        number = number // size
    return jnp.stack(digits[::-1], axis=-1)


def _at(values: Array, index: Array) -> Array:
    values = jnp.broadcast_to(values, (*index.shape, values.shape[-1]))
    return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]
