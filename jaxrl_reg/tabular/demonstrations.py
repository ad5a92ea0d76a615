"""Demonstration-regularised reinforcement learning: clone a policy, then explore without straying far from it.

A cloned policy from ``N`` demonstrations has divergence of order ``S A H / N`` from the expert. Whoever maximises the
return minus ``lam`` times the divergence from the clone therefore loses at most ``lam KL(expert || clone)`` to the
expert, and needs to explore only where the clone goes. One algorithm for both cases of the paper: with ``features`` the
model is a ridge regression on them, without, it counts, which is the same for one-hot features and no ridge.

Source: Tiapkin et al., 2024, Demonstration-Regularized RL; the exploration follows Tiapkin et al., 2023, Fast Rates for
Maximum Entropy Exploration. Deviations: bonuses are ``scale width`` with one scale to choose, in units of value, since
those of the theory are far too large to be of use; the model's own expectation stands for the true one in the
certificate.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.losses import bradley_terry_loss, kl_regularised_value, log_barrier_cloning_loss
from jaxrl_reg.tabular import finite_horizon
from jaxrl_reg.tabular.finite_horizon import Process
from jaxrl_reg.types import Array, Key

_einsum = functools.partial(jnp.einsum, precision="highest")


def count(states: Array, actions: Array, sizes: tuple[int, int]) -> Array:
    """``[H, S, A]`` float32, how often each action was taken at each step; ``states`` and ``actions`` are ``[N, H]``
    and ``sizes`` is ``(S, A)``."""
    one_hot = (jax.nn.one_hot(x, size) for x, size in zip((states, actions), sizes, strict=True))
    return _einsum("nhs,nha->hsa", *one_hot)


def clone(counts: Array, barrier: Array | float = 1.0) -> Array:
    """Log of ``(n + barrier) / (N + A barrier)``, the policy of least ``log_barrier_cloning_loss``, shaped like
    ``counts [..., A]``. With a positive barrier no action is impossible, so divergences from it are finite."""
    smoothed = counts + barrier
    return jnp.log(smoothed) - jnp.log(smoothed.sum(-1, keepdims=True))


def clone_linear(
    counts: Array, features: Array, barrier: Array | float = 1.0, ridge: Array | float = 1e-3, iterations: int = 20
) -> Array:
    """The same within policies ``softmax(features [S, A, D] . theta_h)``: log-policy ``[H, S, A]`` for ``counts``
    ``[H, S, A]``, by Newton steps on the convex loss plus ``ridge / 2 |theta|^2``."""

    def objective(theta, counts):
        log_policy = jax.nn.log_softmax(features @ theta)
        return log_barrier_cloning_loss(log_policy, counts, barrier).sum() + 0.5 * ridge * theta @ theta

    def fit(counts):
        def body(theta, _):
            slope, curvature = jax.grad(objective)(theta, counts), jax.hessian(objective)(theta, counts)
            step = jnp.linalg.solve(curvature, slope)
            # Far from the solution a full Newton step overshoots: the best of a few lengths cannot.
            lengths = 0.5 ** jnp.arange(6.0)
            losses = jax.vmap(lambda length: objective(theta - length * step, counts))(lengths)
            return theta - lengths[jnp.argmin(losses)] * step, None

        theta, _ = jax.lax.scan(body, jnp.zeros(features.shape[-1]), None, iterations)
        return jax.nn.log_softmax(features @ theta)

    return jax.vmap(fit)(counts)


def prefer(key: Key, first: Array, second: Array) -> Array:
    """What a judge says who prefers the first of two returns ``[N]`` with probability ``sigma(first - second)``: 1 or 0
    for each pair, float32 ``[N]``."""
    return jax.random.bernoulli(key, jax.nn.sigmoid(first - second)).astype(jnp.float32)


def reward_from_preferences(
    first: tuple[Array, Array],
    second: tuple[Array, Array],
    preference: Array,
    sizes: tuple[int, int],
    ridge: Array | float = 1e-3,
    iterations: int = 500,
) -> Array:
    """The reward ``[H, S, A]`` within [0, 1] under which the comparisons of trajectories are likeliest.

    Bradley-Terry likelihood, mean over pairs, less ``ridge / 2`` times the square of the reward: what no comparison
    speaks of stays worth nothing. Convex; solved by accelerated projected gradient. Only differences of returns
    matter, so a step's reward is known up to what all trajectories share. No pessimism: whoever plans for it should
    stay near the policy that the trajectories came from, where errors average out.

    Args:
      first: states and actions int ``[N, H]`` each, of one trajectory of each pair.
      second: those of the other.
      preference: ``[N]``, 1 where the first was preferred; :func:`prefer`.
      sizes: ``(S, A)``.
      ridge: >= 0, nats per squared reward.
      iterations: static.
    """
    steps = jnp.arange(first[0].shape[1])
    reward = jnp.zeros((len(steps), *sizes))

    def objective(reward):
        one, other = (reward[steps, states, actions].sum(-1) for states, actions in (first, second))
        return bradley_terry_loss(one, other, preference).mean() + 0.5 * ridge * jnp.square(reward).sum()

    # A pair's return difference has at most 2 H entries of 1, and the logistic loss a curvature of at most 1/4.
    rate = 1.0 / (0.5 * len(steps) + ridge)

    def body(carry, index):
        reward, ahead = carry
        following = jnp.clip(ahead - rate * jax.grad(objective)(ahead), 0.0, 1.0)
        return (following, following + index / (index + 3.0) * (following - reward)), None

    (reward, _), _ = jax.lax.scan(body, (reward, reward), jnp.arange(iterations, dtype=reward.dtype))
    return reward


class Model(NamedTuple):
    """What counts say: ``transition [H, S, A, S]``, and ``width [H, S, A]``, how unsure, falling as ``1 / sqrt(n)``."""

    transition: Array
    width: Array


def estimate(
    counts: Array, features: Array | None = None, ridge: Array | float = 1.0, unseen: Array | float = 1.0
) -> Model:
    """The model of ``counts [H, S, A, S]``.

    Without features: frequencies, and a cell never seen leads nowhere and is ``unseen`` wide: at 1 it counts as seen
    once, which is enough near a reference; a huge number makes it as good as can be, the classical optimism, which
    tries everything. With ``features [S, A, D]``: ridge regression of the next state on them, and the features' norm in
    the inverse Gram matrix.
    """
    visits = counts.sum(-1)
    if features is None:
        seen = jnp.maximum(visits, 1.0)
        return Model(counts / seen[..., None], jnp.where(visits > 0, seen**-0.5, unseen))
    gram = _einsum("hsa,sad,sae->hde", visits, features, features) + ridge * jnp.eye(features.shape[-1])
    inverse = jnp.linalg.inv(gram)
    leading = _einsum("sad,hde->hsae", features, inverse)
    transition = _einsum("hsae,het->hsat", leading, _einsum("sad,hsat->hdt", features, counts))
    return Model(transition, jnp.sqrt(jnp.maximum(_einsum("hsae,sae->hsa", leading, features), 0.0)))


class Plan(NamedTuple):
    """Optimistic and pessimistic values, the optimistic policy, and how far it can be from the best."""

    upper: Array  # [H, S, A]
    lower: Array  # [H, S, A]
    log_policy: Array  # [H, S, A]
    certificate: Array  # [H, S]


def plan(
    model: Model, reward: Array, log_reference: Array, temperature: Array | float, bonus_scale: Array | float
) -> Plan:
    """Regularised value iteration with bonuses up and down, cut to what the rest of an episode can bring.

    The policy is greedy in the regularised sense for ``upper``. ``certificate`` sums ``max_a (upper - lower)^2 / (2
    lam)`` along it, which bounds its loss if the bounds hold: the regularised maximum is ``1 / lam``-smooth.
    """
    steps = reward.shape[0]

    def body(following, stage):
        transition, width, reward, reference, ceiling = stage
        bonus = bonus_scale * width

        def backup(value, bonus):
            return jnp.clip(reward + _einsum("sat,t->sa", transition, value) + bonus, 0.0, ceiling)

        upper, lower = backup(following[0], bonus), backup(following[1], -bonus)
        high, log_policy = kl_regularised_value(upper, reference, temperature)
        low, _ = kl_regularised_value(lower, reference, temperature)
        gap = jnp.square((upper - lower).max(-1)) / (2 * temperature)
        expected = _einsum("sa,sat,t->s", jnp.exp(log_policy), transition, following[2])
        gap = jnp.clip(gap + expected, 0.0, ceiling)
        return (high, low, gap), (upper, lower, log_policy, gap)

    nothing = jnp.zeros(reward.shape[1], reward.dtype)
    stages = (*model, reward, log_reference, steps - jnp.arange(steps, dtype=reward.dtype))
    return Plan(*jax.lax.scan(body, (nothing,) * 3, stages, reverse=True)[1])


class Trace(NamedTuple):
    """After each of ``N`` episodes: the true expected return of the policy one would stop with, and the certificate."""

    value: Array  # [N]
    certificate: Array  # [N]


def ucbvi_ent(
    key: Key,
    process: Process,
    log_reference: Array,
    temperature: Array | float,
    bonus_scale: Array | float,
    episodes: int,
    *,
    features: Array | None = None,
    ridge: Array | float = 1.0,
    unseen: Array | float = 1.0,
    widen: bool = True,
    reward: Array | None = None,
) -> Trace:
    """Identify a good policy of ``process``, whose rewards are known and whose transitions are not.

    Each episode follows the optimistic policy, but for one step, drawn uniformly from all and "none", at which the
    action of widest bounds is taken (``widen=False``: never, which with a uniform reference, a tiny temperature and a
    huge ``unseen`` is UCBVI). What one stops with is the plan of the plain model, without bonuses: the optimistic
    policy still explores.

    Args:
      key: typed; split per episode.
      process: what is to be learnt; only sampled from, and used to evaluate the trace.
      log_reference: ``[H, S, A]``, e.g. :func:`clone` of demonstrations.
      temperature: weight of the divergence from the reference, > 0, traced.
      bonus_scale: of ``bonus = scale width``, units of value, traced.
      episodes: static.
      features: ``[S, A, D]`` for the linear case.
      ridge: of the linear case's regression.
      unseen: width of a cell never seen, without features; see :func:`estimate`.
      reward: ``[H, S, A]`` within [0, 1], what is planned for where the process's own is not known, e.g.
        :func:`reward_from_preferences`; the trace's values are those of the process's own.
    Returns:
      :class:`Trace`.
    """
    steps, _, actions = process.reward.shape
    wanted = process.reward if reward is None else reward

    def body(counts, key):
        step_key, episode_key = jax.random.split(key)
        chosen = plan(estimate(counts, features, ridge, unseen), wanted, log_reference, temperature, bonus_scale)
        wide = jnp.argmax(chosen.upper - chosen.lower, axis=-1)
        at = jax.random.randint(step_key, (), 0, steps + 1) if widen else steps
        here = (jnp.arange(steps) == at)[:, None, None]
        log_policy = jnp.where(here, jnp.log(jax.nn.one_hot(wide, actions)), chosen.log_policy)
        states, taken, following = finite_horizon.episode(episode_key, process, log_policy)
        counts = counts.at[jnp.arange(steps), states, taken, following].add(1.0)

        model = process._replace(transition=estimate(counts, features, ridge).transition, reward=wanted)
        final = finite_horizon.soft_value_iteration(model, log_reference, temperature)[2]
        value = finite_horizon.start_value(process, jnp.exp(final))
        return counts, Trace(value, process.initial @ chosen.certificate[0])

    return jax.lax.scan(body, jnp.zeros(process.transition.shape), jax.random.split(key, episodes))[1]
