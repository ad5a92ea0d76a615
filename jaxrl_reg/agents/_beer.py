"""BEER for any critics that bootstrap from their own kind, and what is measured of critics' features.

Paper: He, Zhou, Fang, Maghsudi, 2024, Adaptive Regularization of Representation Rank as an Implicit Constraint of
Bellman Equation, https://arxiv.org/abs/2404.12754. Consecutive features of a critic, phi(s, a) and phi'(s', a'), may be
no more alike than Bellman's equation allows; ``losses.representation`` has the bound. A critic that fits the target y
owes the part y - gamma Q'(s', a') to something else than its bootstrap: that part stands in the bound for the reward,
which it is for a single critic with a plain target. With the smallest of several critics, an entropy bonus or a penalty
in y, the bound stays the one that exact values meet. Likewise the last layer's bias is counted, not ignored.

Deviation: phi' comes from the target critics throughout, which the TD target has already computed; the released code
takes the online critic's, at the online actor's action, in the bound's numerator. Its gamma is 0.99 whatever the
agent's, ours the agent's; it keeps rows that terminate, we leave them out. Critics that bootstrap from a value of
states (IQL and its kin) have no a' of their own: there it is the data's next action. The bound holds for any.
ODICE's values fit no Bellman target, so they have no such bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks, transforms
from jaxrl_reg.losses.representation import measured as measured_of
from jaxrl_reg.types import Array, Key, Metrics, Network, PyTree, Transition, setting

COEFFICIENT = "weight of BEER's penalty on features more alike than Bellman's equation allows (paper 0.001); 0: off"
MEASURED_ROWS = 512  # of a trajectory, for ranks: their price grows with rows
MEASURED = "report rank, dormant units and norms of the critics, PPO's value among them, once per segment"


class Following(NamedTuple):
    """The side of Bellman's equation that stands still, for ``N`` critics: no gradient goes into it."""

    features: Array  # [N, B, H], phi'(s', a') of the target critics
    reward: Array  # [N, B], y - gamma Q'_j(s', a')
    discount: Array  # [B], 0 where the episode terminates
    gamma: Array | float


def following(features: Array, next_q: Array, target: Array, batch: Transition, gamma: Array | float) -> Following:
    """What follows ``batch``: ``features`` ``[N, B, H]`` and ``next_q`` ``[N, B]`` of the target critics at (s', a'),
    and the ``target`` ``[B]`` that all critics fit."""
    return Following(features, target - gamma * next_q, batch.discount, gamma)


def coefficient() -> Any:
    """The static setting ``beer`` of an agent's ``Config``."""
    return setting(default=0.0, help=COEFFICIENT)


def measured() -> Any:
    """The static setting ``measure_features`` of an agent's ``Config``."""
    return setting(default=False, help=MEASURED)


def bound(params: PyTree, features: Array, following: Following) -> Array:
    """``losses.beer_bound`` ``[N, B]`` of the critics ``params`` with ``features`` ``[N, B, H]`` at (s, a)."""
    kernel, bias = networks.output_layer(params)  # [N, H, 1], [N, 1]
    reward = following.reward - (1.0 - following.gamma) * bias
    squares = jnp.square(kernel).sum(axis=(-2, -1))
    each = jax.vmap(losses.beer_bound, (0, 0, 0, 0, None))
    return each(features, following.features, reward, squares, following.gamma)


def regularise(
    coefficient: float, loss: Array, metrics: Metrics, params: PyTree, features: Array, following: Following | None
) -> tuple[Array, Metrics]:
    """``loss`` plus ``coefficient`` times BEER's: the mean over the batch, summed over the critics ``params``.

    ``features`` ``[N, B, H]`` are those of (s, a); the gradient goes through them alone. ``metrics`` gain
    ``beer_loss``. With the coefficient 0, which is static, nothing is computed and nothing changes; ``following`` may
    then be None.
    """
    if coefficient == 0.0:
        return loss, metrics
    assert following is not None
    mask = jnp.broadcast_to(following.discount, following.reward.shape)
    excess = losses.beer_loss(features, following.features, bound(params, features, following), mask)
    penalty = excess.mean(axis=-1).sum()
    return loss + coefficient * penalty, {**metrics, "beer_loss": penalty}


def read_off(params: PyTree, features: Array) -> Metrics:
    """Means over critics ``params`` with ``features`` ``[..., B, H]``, what their last layer reads, of:

    ``effective_rank`` and ``srank`` of a batch's features, their length ``feature_norm``, the share ``dormant`` of
    units hardly in use (0.1), and ``kernel_norm``, the length of all weights.
    """
    if features.ndim == 2:
        params, features = jax.tree.map(lambda leaf: leaf[None], (params, features))
    found = jax.vmap(lambda h: measured_of((h,)))(features) | {"kernel_norm": jax.vmap(transforms.kernel_norm)(params)}
    return {name: values.mean() for name, values in found.items()}


def measure_value(
    wanted: bool, value: Network, standardise: Callable[[Any, Array], Array]
) -> Callable[..., Metrics] | None:
    """``Agent.measure`` of a ``value`` of states, if wanted: ``read_off`` at some rows of a trajectory ``[T, E]``.

    ``standardise(state.statistics, observation)`` is how the value sees observations.
    """

    def metrics(state: Any, batch: Transition, hyper: Any, key: Key) -> Metrics:
        rows = batch.observation.reshape(-1, batch.observation.shape[-1])
        rows = jax.random.choice(key, rows, (min(MEASURED_ROWS, len(rows)),), replace=False)
        seen = standardise(state.statistics, rows)
        return read_off(state.value.params, value.apply(state.value.params, seen, features=True)[1])

    return metrics if wanted else None


def measure(wanted: bool, q: Network, bootstrap: Callable[..., tuple]) -> Callable[..., Metrics] | None:
    """``Agent.measure`` for critics ``q``, if wanted; ``bootstrap(state, batch, hyper, key)`` ends with what follows.

    Means over critics of: ``feature_cosine`` of consecutive pairs, ``bellman_violation`` the share of pairs above the
    bound, and what ``read_off`` tells of the batch's features.
    """

    def metrics(state: Any, batch: Transition, hyper: Any, key: Key) -> Metrics:
        following = bootstrap(state, batch, hyper, key)[-1]
        features = q.apply(state.critic.params, batch.observation, batch.action, features=True)[1]
        cosine, mask = losses.feature_cosine(features, following.features), following.discount
        most = bound(state.critic.params, features, following)
        found = {
            "feature_cosine": (cosine * mask).sum(axis=-1) / jnp.maximum(mask.sum(), 1.0),
            "bellman_violation": jax.vmap(losses.violation_fraction, (0, 0, None))(cosine, most, mask),
        }
        found = {name: values.mean() for name, values in found.items()}
        return {**found, **read_off(state.critic.params, features)}

    return metrics if wanted else None
