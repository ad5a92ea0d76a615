"""Losses that an adversary changes every episode: policies by follow-the-regularised-leader, and their exact regret.

Dynamics are known (a simulator), losses are not: of each episode only those along the way are seen. Each step and state
keeps the sum ``X`` of its estimated values and plays ``argmin_p <p, X> + psi(p)``. With negative entropy as ``psi`` the
analysis breaks when an estimate is very negative, which linear features make it, so step sizes must be small. Two ways
out: the log barrier, which stands any loss, and an estimator of the same mean that is never very negative.

Shapes: ``H`` steps, ``S`` states, ``A`` actions, ``D`` features, ``K`` episodes. Less loss is better.

Source: Dai, Luo, Wei, Zimmert, 2023, Refined Regret for Adversarial MDPs with Linear Function Approximation; bonuses as
in Luo, Wei, Lee, 2021. Deviations: expectations under the current policy are sums over the known dynamics instead of
simulated episodes; step sizes and ridges of :func:`schedule` are chosen for use, since those of the theory are far too
small; bonuses are off unless asked for. The version without a simulator is left out.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.losses import kl_regularised_value, log_barrier_policy, magnitude_reduced
from jaxrl_reg.losses.successor import solve
from jaxrl_reg.tabular import finite_horizon
from jaxrl_reg.tabular.finite_horizon import Process
from jaxrl_reg.types import Array, Key

Regulariser = Literal["log_barrier", "entropy"]
Estimator = Literal["magnitude_reduced", "plain", "importance"]
REGULARISERS: tuple[Regulariser, ...] = ("log_barrier", "entropy")
ESTIMATORS: tuple[Estimator, ...] = ("magnitude_reduced", "plain", "importance")
KINDS = ("fixed", "switch", "flip")

_einsum = functools.partial(jnp.einsum, precision="highest")


def linear_process(key: Key, states: int, actions: int, features: int, steps: int) -> tuple[Process, Array]:
    """A random linear process and its ``features [S, A, D]``: ``P_h(t | s, a) = features[s, a] . mu_h[:, t]``.

    Features are Dirichlet(0.2) on the simplex, so not orthogonal, and ``mu_h`` Dirichlet(0.5); the first state is
    uniform and the process's own reward 0. Losses ``features . theta_h`` make every policy's values linear.
    """
    feature_key, mu_key = jax.random.split(key)
    phi = jax.random.dirichlet(feature_key, jnp.full(features, 0.2), (states, actions))
    mu = jax.random.dirichlet(mu_key, jnp.full(states, 0.5), (steps, features))
    transition = _einsum("sad,hdt->hsat", phi, mu)
    return Process(transition, jnp.zeros((steps, states, actions)), jnp.full(states, 1.0 / states)), phi


def adversary(key: Key, episodes: int, steps: int, features: int, kind: str = "switch", gap: float = 0.2) -> Array:
    """Coefficients ``theta [K, H, D]``, 0 or 1, of the losses ``features . theta``; chosen before anything is played.

    Bernoulli with mean 0.5, except that one feature of each step has a mean lower by ``gap``. ``"switch"``: from a
    third of the episodes on it is another one instead, lower by ``2 gap``. ``"flip"``: two features take turns, eight
    times. Raises ``UserError`` for an unknown kind.
    """
    if kind not in KINDS:
        raise unknown("kind of adversary", kind, KINDS)
    choice_key, draw_key = jax.random.split(key)
    order = jax.vmap(lambda key: jax.random.permutation(key, features))(jax.random.split(choice_key, steps))  # [H, D]
    first, second = (jax.nn.one_hot(order[:, rank % features], features) for rank in (0, 1))
    episode = jnp.arange(episodes)[:, None, None]
    if kind == "fixed":
        lower = gap * first
    elif kind == "switch":
        lower = gap * jnp.where(3 * episode < episodes, first, 2.0 * second)
    else:
        lower = gap * jnp.where((8 * episode // episodes) % 2 == 0, first, second)
    mean = jnp.broadcast_to(0.5 - lower, (episodes, steps, features))
    return jax.random.bernoulli(draw_key, mean).astype(jnp.float32)


def linear_losses(features: Array, coefficients: Array) -> Array:
    """``[K, H, S, A]``, the losses of ``coefficients [K, H, D]`` for ``features`` ``[S, A, D]`` or ``[H, S, A, D]``."""
    features = jnp.broadcast_to(features, (coefficients.shape[1], *features.shape[-3:]))
    return _einsum("hsad,khd->khsa", features, coefficients)


def best_in_hindsight(process: Process, losses: Array) -> tuple[Array, Array]:
    """``(loss, policy [H, S, A])``: the least expected total of ``losses [K, H, S, A]`` that one policy for all
    episodes can have, and a policy that has it. Dynamics do not change, so this is value iteration on the sum."""
    value, q = finite_horizon.value_iteration(process._replace(reward=-losses.sum(0)))
    return -process.initial @ value[0], jax.nn.one_hot(q.argmax(-1), q.shape[-1])


def inverse_covariance(features: Array, occupancy: Array, ridge: Array | float) -> Array:
    """``G [H, D, D]``, the inverse of ``ridge I + sum_sa occupancy phi phi'`` for ``features [H, S, A, D]`` and
    ``occupancy [H, S, A]``, the probability of each pair at each step. ``ridge`` > 0."""
    covariance = _einsum("hsa,hsad,hsae->hde", occupancy, features, features)
    identity = jnp.eye(features.shape[-1], dtype=covariance.dtype)
    return jax.vmap(lambda matrix: solve(matrix + ridge * identity, identity))(covariance)


def geometric_resampling(vectors: Array, ridge: Array | float, rate: Array | float = 0.5) -> Array:
    """``[D, D]``, the same inverse for one step from samples ``vectors [N, D]`` of the features alone, to compare.

    ``rate (I + sum_n prod_{i <= n} (I - rate (ridge I + phi_i phi_i')))``: biased by what more than ``N`` terms would
    add, and exact in the mean but for that. ``rate (ridge + |phi|^2)`` must be at most 1.
    """
    identity = jnp.eye(vectors.shape[-1], dtype=vectors.dtype)

    def body(carry, phi):
        product, total = carry
        product = product @ (identity - rate * (ridge * identity + jnp.outer(phi, phi)))
        return (product, total + product), None

    return rate * jax.lax.scan(body, (identity, identity), vectors)[0][1]


def estimate_values(
    features: Array,
    occupancy: Array,
    states: Array,
    actions: Array,
    losses: Array,
    ridge: Array | float,
    *,
    estimator: Estimator = "magnitude_reduced",
) -> Array:
    """Estimates ``[H, S, A]`` of the expected loss to come of every pair, from one episode.

    ``"plain"``: ``phi(s, a)' G phi(s_h, a_h) L_h``, with the mean ``Q - ridge phi' G theta``. ``"magnitude_reduced"``:
    the same mean, and at least ``-(H - h) |phi| / sqrt(ridge)``; costs the square of ``S A``. ``"importance"``: ``L_h /
    (occupancy + ridge)`` for what was played and 0 elsewhere, for which features do not matter.

    Args:
      features: ``[H, S, A, D]``, norms at most 1.
      occupancy: ``[H, S, A]``, the probability of each pair at each step under the policy that played.
      states: ``[H]``, visited.
      actions: ``[H]``, taken.
      losses: ``[H]``, suffered, within [0, 1].
      ridge: > 0, traced.
      estimator: which.
    Raises:
      UserError: there is no such estimator.
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    steps = len(occupancy)
    at = jnp.arange(steps)
    to_go = jnp.cumsum(losses[::-1])[::-1][:, None, None]
    if estimator == "importance":
        played = jnp.zeros(occupancy.shape, occupancy.dtype).at[at, states, actions].set(1.0)
        return played * to_go / (occupancy + ridge)
    leading = _einsum("hsad,hde->hsae", features, inverse_covariance(features, occupancy, ridge))
    kernel = _einsum("hsae,he->hsa", leading, features[at, states, actions])
    if estimator == "plain":
        return kernel * to_go
    every = _einsum("hsae,htbe->hsatb", leading, features)
    bound = jnp.broadcast_to((steps - at.astype(kernel.dtype))[:, None, None], kernel.shape)
    correction = bound * _einsum("hsatb,htb->hsa", jnp.minimum(every, 0.0), occupancy)
    return magnitude_reduced(kernel, jnp.broadcast_to(to_go, kernel.shape), bound, correction)


def dilated_bonus(process: Process, features: Array, inverse: Array, policy: Array, scale: Array | float) -> Array:
    """``B [H, S, A]``, what is taken off the estimates so that rarely seen features are tried.

    ``b + (1 + 1 / H) E[B of what follows]`` with ``b = scale (|phi|_G^2 + its mean under the policy)``; ``features [H,
    S, A, D]``, ``inverse`` as of :func:`inverse_covariance`, ``policy [H, S, A]``.
    """
    steps = policy.shape[0]
    width = _einsum("hsad,hde,hsae->hsa", features, inverse, features)
    local = scale * (width + (policy * width).sum(-1, keepdims=True))

    def body(following, stage):
        transition, chance, bonus = stage
        total = bonus + (1.0 + 1.0 / steps) * _einsum("sat,t->sa", transition, following)
        return (chance * total).sum(-1), total

    stages = (process.transition, policy, local)
    return jax.lax.scan(body, jnp.zeros(policy.shape[1], policy.dtype), stages, reverse=True)[1]


def schedule(episodes: int, steps: int, regulariser: Regulariser, estimator: Estimator) -> tuple[float, float]:
    """``(step size, ridge)`` that work at a few thousand episodes and have the rates of the theory.

    What each analysis permits is kept: ``step H <= ridge`` for entropy on plain estimates, ``step H <= sqrt(ridge)``
    for entropy on reduced ones, anything for the barrier.
    """
    if regulariser == "log_barrier":
        return 30.0 / episodes**0.5, 10.0 / episodes
    if estimator == "magnitude_reduced":
        return (100.0 / episodes) ** 0.5 / steps, 100.0 / episodes
    if estimator == "plain":
        ridge = 10.0 * episodes ** (-2.0 / 3.0)
        return ridge / steps, ridge
    return 10.0 / episodes**0.5, 3.0 / episodes


class Trace(NamedTuple):
    """After each of ``K`` episodes, all exact expectations but for the smallest estimate."""

    value: Array  # [K], the expected loss of the policy that played this episode
    optimum: Array  # scalar, the total of the policy that is best for all K episodes together
    regret: Array  # [K], the total so far less that of the policy which is best for the episodes so far
    estimate_min: Array  # [K], the smallest entry of this episode's estimates


def optimise_policy(
    key: Key,
    process: Process,
    losses: Array,
    features: Array,
    step_size: Array | float | None = None,
    ridge: Array | float | None = None,
    bonus: Array | float | None = None,
    *,
    regulariser: Regulariser = "log_barrier",
    estimator: Estimator = "plain",
) -> Trace:
    """Play ``K`` episodes of ``process`` against ``losses`` and see of each only what lies along the way.

    Args:
      key: typed; split per episode.
      process: dynamics, known to the learner; its own reward is not used.
      losses: ``[K, H, S, A]`` within [0, 1].
      features: ``[S, A, D]`` or ``[H, S, A, D]``, norms at most 1, in which every policy's values are linear;
        one-hot ones fit everything.
      step_size: > 0, nats per unit of loss, traced; by default :func:`schedule`.
      ridge: > 0, traced; by default :func:`schedule`.
      bonus: scale of :func:`dilated_bonus`, >= 0, traced; None: no bonus.
      regulariser: "log_barrier" or "entropy".
      estimator: of :func:`estimate_values`.
    Returns:
      :class:`Trace`.
    Raises:
      UserError: no such regulariser or estimator, or shapes that do not fit the process.
    """
    if regulariser not in REGULARISERS:
        raise unknown("regulariser", regulariser, REGULARISERS)
    steps, size, choices = process.transition.shape[:3]
    if losses.ndim != 4 or losses.shape[1:] != (steps, size, choices):
        raise UserError(f"losses have shape {losses.shape}, expected (episodes, {steps}, {size}, {choices})")
    if features.ndim not in (3, 4) or features.shape[:-1] not in ((size, choices), (steps, size, choices)):
        raise UserError(f"features have shape {features.shape}, expected ({size}, {choices}, D) or with {steps} before")
    if losses.shape[0] < 1:
        raise UserError("losses of no episode were given")
    usual = schedule(losses.shape[0], steps, regulariser, estimator)
    step_size, ridge = (usual[0] if step_size is None else step_size), (usual[1] if ridge is None else ridge)
    features = jnp.broadcast_to(features, (steps, size, choices, features.shape[-1]))
    process = process._replace(reward=jnp.zeros((steps, size, choices), losses.dtype))
    uniform = jnp.full((steps, size, choices), -jnp.log(float(choices)), losses.dtype)

    def chosen(total):
        if regulariser == "log_barrier":
            return log_barrier_policy(total, step_size)
        return kl_regularised_value(-total, uniform, 1.0 / step_size)[1]

    def body(total, episode):
        key, loss = episode
        log_policy = chosen(total)
        policy = jnp.exp(log_policy)
        occupancy = finite_horizon.visitation(process, policy)[..., None] * policy
        states, actions, _ = finite_horizon.episode(key, process, log_policy)
        suffered = loss[jnp.arange(steps), states, actions]
        found = estimate_values(features, occupancy, states, actions, suffered, ridge, estimator=estimator)
        least = found.min()
        if bonus is not None:
            inverse = inverse_covariance(features, occupancy, ridge)
            found = found - dilated_bonus(process, features, inverse, policy, bonus)
        total = total + found
        # Only differences matter, and sums of single precision should not grow with the episodes.
        return total - total.min(-1, keepdims=True), ((occupancy * loss).sum(), least)

    keys = jax.random.split(key, losses.shape[0])
    _, (value, least) = jax.lax.scan(body, jnp.zeros_like(uniform), (keys, losses))
    best = jax.vmap(lambda so_far: best_in_hindsight(process, so_far[None])[0])(jnp.cumsum(losses, axis=0))
    return Trace(value, best[-1], jnp.cumsum(value) - best, least)
