"""Flow policies: flow matching in several steps, MeanFlow and shortcut models in one or a few.

Each constructor returns a ``GenerativePolicy``; see ``policies.diffusion`` for its contract and ``best_of_k``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import generative
from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.policies.diffusion import GenerativePolicy, batched
from jaxrl_reg.types import Array, Key, Network, PyTree, Spec


def matching(
    network: Network,
    spec: Spec,
    steps: int = 10,
    *,
    method: str = "euler",
    density: Callable[..., Array] = generative.uniform_time,
    clip: float | None = 1.0,
) -> GenerativePolicy:
    """Flow matching, the teacher of FQL. The network ``apply(params, z, t [B], observation)`` is the velocity.

    ``method`` is one of ``generative.METHODS``. For FQL's target, ``integrate_noise`` takes the noise as an argument.
    """

    def field(params: PyTree, observation: Array) -> generative.Velocity:
        return lambda z, t: network.apply(params, z, t, observation)

    def loss(params: PyTree, observation: Array, action: Array, key: Key):
        return generative.flow_matching_loss(key, field(params, observation), action, density=density)

    def draw(params: PyTree, observation: Array, noise: Array, key: Key) -> Array:
        return integrate_noise(network, params, observation, noise, steps, method=method)

    return GenerativePolicy(network.init, loss, batched(draw, spec, clip))


def integrate_noise(
    network: Network, params: PyTree, observation: Array, noise: Array, steps: int, *, method: str = "euler"
) -> Array:
    """The action ``[B, A]``, unclipped, that the flow makes of ``noise [B, A]``: the target of a one-step student."""

    def velocity(z: Array, t: Array) -> Array:
        return network.apply(params, z, t, observation)

    return generative.integrate(velocity, noise, generative.flow_times(steps), method=method)


def _jumping(
    network: Network, spec: Spec, steps: int, clip: float | None, loss_of: Callable, **options: bool
) -> GenerativePolicy:
    def field(params: PyTree, observation: Array, **options: bool) -> generative.AverageVelocity:
        # A loss may ask about the first rows alone (shortcut models do); they are those of the first observations.
        return lambda z, r, t: network.apply(params, z, r, t, observation[: z.shape[0]], **options)

    def loss(params: PyTree, observation: Array, action: Array, key: Key):
        return loss_of(key, field(params, observation, **options), action)

    def draw(params: PyTree, observation: Array, noise: Array, key: Key) -> Array:
        return generative.jump(field(params, observation), noise, generative.flow_times(steps))

    return GenerativePolicy(network.init, loss, batched(draw, spec, clip))


def meanflow(
    network: Network,
    spec: Spec,
    steps: int = 1,
    *,
    equal_fraction: Array | float = 0.75,
    power: Array | float = 1.0,
    offset: Array | float = 0.01,
    clip: float | None = 1.0,
    features: bool = False,
) -> GenerativePolicy:
    """MeanFlow: one step from noise to action without distillation. The network is made with ``times=2``.

    Its loss is normalised per row, so a weight against a critic's loss means the same from start to end. With
    ``features`` its ``aux`` has ``"features" [B, D]``, the network's last hidden layer (``apply(..., features=True)``).
    """

    def loss(key: Key, field: generative.AverageVelocity, action: Array):
        return generative.meanflow_loss(
            key, field, action, equal_fraction=equal_fraction, power=power, offset=offset, features=features
        )

    return _jumping(network, spec, steps, clip, loss, **({"features": True} if features else {}))


def shortcut(
    network: Network,
    spec: Spec,
    steps: int = 1,
    *,
    max_level: int = 7,
    bootstrap_fraction: float = 0.125,
    flow_step: float = 0.0,
    clip: float | None = 1.0,
) -> GenerativePolicy:
    """Shortcut models; ``steps`` should be a power of two. The network is made with ``times=2``."""

    def loss(key: Key, field: generative.AverageVelocity, action: Array):
        return generative.shortcut_loss(
            key, field, action, max_level=max_level, bootstrap_fraction=bootstrap_fraction, flow_step=flow_step
        )

    return _jumping(network, spec, steps, clip, loss)


class Generator(NamedTuple):
    """A map from noise to actions in one evaluation, with no training loss of its own: FQL's student, R0's generator.

    ``init(key) -> params``; ``noise(observation [..., O], key, shape=()) -> [*shape, ..., A]`` standard normal;
    ``apply(params, observation, noise [..., A]) -> action [..., A]``, unclipped; ``sample(params, observation, key,
    shape=())``, clipped.
    """

    init: Callable[[Key], PyTree]
    noise: Callable[..., Array]
    apply: Callable[[PyTree, Array, Array], Array]
    sample: Callable[..., Array]


def one_step(
    spec: Spec, hidden: Sequence[int] = (256, 256), activation: str = "gelu", *, clip: float | None = 1.0
) -> Generator:
    """A ``Generator`` that is a perceptron of observation and noise.

    Taught by ``integrate_noise`` (FQL), by a reward (``losses.reward_generator_loss``) or by a distance between
    distributions (``losses.energy_distance_loss``).
    """
    network = mlp((spec.observation_dim + spec.action_dim, *hidden, spec.action_dim), activation)

    def noise(observation: Array, key: Key, shape: tuple[int, ...] = ()) -> Array:
        return jax.random.normal(key, (*shape, *observation.shape[:-1], spec.action_dim))

    def apply(params: PyTree, observation: Array, noise: Array) -> Array:
        observation = jnp.broadcast_to(observation, (*noise.shape[:-1], spec.observation_dim))
        return network.apply(params, jnp.concatenate([observation, noise], axis=-1))

    def sample(params: PyTree, observation: Array, key: Key, shape: tuple[int, ...] = ()) -> Array:
        action = apply(params, observation, noise(observation, key, shape))
        return action if clip is None else jnp.clip(action, -clip, clip)

    return Generator(network.init, noise, apply, sample)
