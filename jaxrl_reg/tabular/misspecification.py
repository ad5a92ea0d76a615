"""How wrong a reward can be that inverse reinforcement learning infers with a wrong model of whom it watches.

A reward says which policies are better only up to a positive factor and potential shaping, and behaviour tells no more
than that. Distances between rewards are therefore taken between canonical forms, and what is inferred is a whole class
of rewards, equally consistent with what was seen: with a wrong discount or wrong dynamics, however mild, that class
holds rewards that are far from the true one. :func:`inference_error` gives both sides: the error of the simplest reward
of the class and that of the worst.

Shapes: ``S`` states, ``A`` actions, ``transition [S, A, S]``, ``reward [S, A]`` (expected over the next state, which
takes care of redistribution over next states), ``policy [S, A]``, discount below 1. Everything is a pure function
of arrays, for use under ``jit`` and ``vmap``. Analysis only: decompositions inside run on LAPACK.

Source: Skalse, Abate, 2024, Quantifying the Sensitivity of Inverse Reinforcement Learning to Misspecification; Skalse
et al., 2024, STARC: A General Framework for Quantifying Differences Between Reward Functions; shaping: Ng et al., 1999.
Deviations: the worst case over the class is given in closed form instead of as a bound.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import unknown
from jaxrl_reg.tabular import discounted
from jaxrl_reg.types import Array

Form = Literal["least", "advantage"]
FORMS: tuple[Form, ...] = ("least", "advantage")
TOLERANCE = 1e-5  # of single precision: relative size below which something counts as 0

_einsum = functools.partial(jnp.einsum, precision="highest")


def shaping(transition: Array, discount: Array | float) -> Array:
    """``W [S, A, S]``: ``W @ potential [S]`` is the reward that potential shaping adds, ``discount E[potential of the
    next state] - potential``. The last axis is the state whose potential it is."""
    states = transition.shape[0]
    return discount * transition - jnp.eye(states, dtype=transition.dtype)[:, None, :]


def canonical(
    reward: Array,
    transition: Array,
    discount: Array | float,
    *,
    form: Form = "least",
    policy: Array | None = None,
    weights: Array | None = None,
) -> Array:
    """The same ``[S, A]`` for all rewards that differ by potential shaping; linear in the reward.

    Args:
      reward: ``[S, A]``.
      transition: ``[S, A, S]``.
      discount: scalar below 1. Above 0.999 use "advantage" or double precision.
      form: "least": the one of least norm among them. "advantage": ``Q - V`` of a fixed policy.
      policy: ``[S, A]`` of "advantage", uniform by default.
      weights: ``[S, A]`` > 0 of the squares in the norm of "least", 1 by default.
    Raises:
      UserError: there is no such form.
    """
    return _canonicaliser(transition, discount, form, policy, weights)(reward)


def _canonicaliser(
    transition: Array, discount: Array | float, form: Form, policy: Array | None = None, weights: Array | None = None
) -> Callable[[Array], Array]:
    """:func:`canonical` of one process; what does not depend on the reward is done once."""
    if form not in FORMS:
        raise unknown("canonical form", form, FORMS)
    shape = transition.shape[:2]
    if form == "advantage":
        policy = jnp.full(shape, 1.0 / shape[1]) if policy is None else policy

        def advantage(reward):
            value, q = discounted.policy_evaluation(transition, reward, policy, discount)
            return q - value[:, None]

        return advantage
    root = jnp.ones(shape, transition.dtype) if weights is None else jnp.sqrt(weights)
    basis, _ = jnp.linalg.qr((root[..., None] * shaping(transition, discount)).reshape(-1, shape[0]))

    def least(reward):
        scaled = (root * reward).reshape(-1)
        return (scaled - _einsum("ij,kj,k->i", basis, basis, scaled)).reshape(shape) / root

    return least


def standardised(reward: Array, transition: Array, discount: Array | float, **canonicalised) -> Array:
    """The canonical form at norm 1; 0 for a reward that is nothing but shaping and so prefers no policy."""
    return _unit(canonical(reward, transition, discount, **canonicalised), reward)


def _unit(found: Array, reward: Array) -> Array:
    norm = jnp.linalg.norm(found)
    nothing = norm <= TOLERANCE * jnp.linalg.norm(reward)
    return jnp.where(nothing, 0.0, found / jnp.where(nothing, 1.0, norm))


def starc_distance(first: Array, second: Array, transition: Array, discount: Array | float, **canonicalised) -> Array:
    """How differently two rewards ``[S, A]`` order policies, in [0, 1]: 0 alike, 1 the opposite way; 1/2 if one of the
    two prefers nothing. Half the distance of :func:`standardised` forms, ``sin(angle / 2)``; options of
    :func:`canonical`."""
    forms = (standardised(reward, transition, discount, **canonicalised) for reward in (first, second))
    return 0.5 * jnp.linalg.norm(jnp.subtract(*forms))


class Behaviour(NamedTuple):
    """How somebody with a reward acts, and the simplest reward that explains such a policy."""

    policy: Callable[[Array, Array, Array | float], Array]  # (reward, transition, discount) -> [S, A]
    reward: Callable[[Array], Array]  # policy [S, A] -> [S, A]


def optimal(tolerance: float = TOLERANCE) -> Behaviour:
    """Uniform over the best actions, those within ``tolerance`` of the best relative to the largest value; inferred: 0
    for what is done and -1 for what is not, so nothing from somebody who does everything."""

    def policy(reward, transition, discount):
        _, q = discounted.optimal_values(transition, reward, discount)
        best = q >= q.max(-1, keepdims=True) - tolerance * jnp.abs(q).max()
        return best / best.sum(-1, keepdims=True)

    return Behaviour(policy, lambda policy: jnp.where(policy > 0, 0.0, -1.0))


def boltzmann(inverse_temperature: Array | float) -> Behaviour:
    """``policy ~ exp(inverse_temperature Q*)``; inferred: ``(log policy - max log policy) / inverse_temperature``,
    which is its own Q*. NaN for a policy that never does something."""

    def policy(reward, transition, discount):
        _, q = discounted.optimal_values(transition, reward, discount)
        return jax.nn.softmax(inverse_temperature * q)

    def reward(policy):
        log_policy = _log(policy)
        return (log_policy - log_policy.max(-1, keepdims=True)) / inverse_temperature

    return Behaviour(policy, reward)


def maximum_causal_entropy(temperature: Array | float) -> Behaviour:
    """The best return plus ``temperature`` times the entropy along the way; inferred: ``temperature log policy``, whose
    soft value is 0. NaN for a policy that never does something."""

    def policy(reward, transition, discount):
        return jnp.exp(discounted.soft_optimal_values(transition, reward, discount, temperature)[2])

    return Behaviour(policy, lambda policy: temperature * _log(policy))


def _log(policy: Array) -> Array:
    return jnp.log(jnp.where(policy > 0, policy, jnp.nan))


Model = tuple[Behaviour, Array, Array | float]  # behaviour, transition, discount


class Error(NamedTuple):
    """Distances from the true reward in the true process."""

    typical: Array  # scalar, of the inferred reward that is least in its norm in the assumed process
    worst: Array  # scalar, the least upper bound over what is equally consistent with the behaviour
    rank: Array  # scalar int32, dimensions in which assumed shaping is no shaping in truth; 0: nothing is ambiguous


def inference_error(reward: Array, true: Model, assumed: Model, *, form: Form = "least") -> Error:
    """What is inferred from behaviour of the ``true`` model by somebody who believes in the ``assumed`` one.

    Equally consistent is the inferred reward with any shaping of the assumed process. In the true process's canonical
    space that shaping spans ``U``; the worst error is ``sqrt((1 + sqrt(rho^2 + min(0, a)^2)) / 2)``, with ``rho`` the
    length of the true direction's part in ``U`` and ``a`` its cosine with what of the inferred one lies outside. It is
    at least ``1 / sqrt 2`` unless ``U`` is empty, and does not depend on how far the assumed discount is off.

    Args:
      reward: ``[S, A]``, the true one.
      true: :class:`Behaviour`, ``transition [S, A, S]`` and discount of who is watched.
      assumed: the same of who infers.
      form: see :func:`canonical`.
    Returns:
      :class:`Error`. In single precision differences of processes below 1e-4 or so pass for none.
    """
    (behaviour, *process), (believed, *believed_process) = true, assumed
    policy = behaviour.policy(reward, *process)
    project = _canonicaliser(*process, form)
    inferred = _canonicaliser(*believed_process, form)(believed.reward(policy))
    target, image = _unit(project(reward), reward).reshape(-1), project(inferred)
    typical = 0.5 * jnp.linalg.norm(target - _unit(image, inferred).reshape(-1))

    ambiguous = shaping(*believed_process)
    seen = jax.vmap(project, -1, -1)(ambiguous)
    left, sizes, _ = jnp.linalg.svd(seen.reshape(-1, reward.shape[0]), full_matrices=False)
    kept = sizes > TOLERANCE * jnp.linalg.norm(ambiguous)
    basis = left * kept  # columns of U, the others 0
    inside = jnp.linalg.norm(target @ basis)
    outside = image.reshape(-1) - basis @ (image.reshape(-1) @ basis)
    norm = jnp.linalg.norm(outside)
    nothing = norm <= TOLERANCE * jnp.linalg.norm(inferred)
    cosine = jnp.where(nothing, 0.0, target @ outside / jnp.where(nothing, 1.0, norm))
    reach = jnp.sqrt(jnp.square(inside) + jnp.square(jnp.minimum(cosine, 0.0)))
    worst = jnp.sqrt((1.0 + jnp.minimum(reach, 1.0)) / 2.0)
    # A true reward that prefers nothing is half-way from every one that does.
    worst = jnp.where(jnp.any(target != 0), worst, 0.5)
    return Error(typical, jnp.where(kept.any(), worst, typical), kept.sum())


def perturbation_gap(
    reward: Array, behaviour: Behaviour, transition: Array, discount: Array | float, scales: Array
) -> Array:
    """``[N]``, the largest total variation over states between the policies for ``t reward`` and ``-t reward``, for
    each ``t`` of ``scales [N]``. The two rewards are opposite at any ``t``; a behaviour that varies continuously
    with the reward hardly shows it at a small one: a small error in the policy suffices to take one for the other."""

    def gap(scale):
        first, second = (behaviour.policy(sign * scale * reward, transition, discount) for sign in (1.0, -1.0))
        return 0.5 * jnp.abs(first - second).sum(-1).max()

    return jax.vmap(gap)(scales)


def decision_loss(
    reward: Array, inferred: Array, transition: Array, discount: Array | float, initial: Array | None = None
) -> Array:
    """What the policy that is best for the ``inferred`` reward loses of the true one, as a share of what can be lost:
    (best - its value) / (best - worst), in [0, 1]; 0 where nothing can be lost. First states ``initial [S]``, uniform
    by default; the policy is uniform over equally good actions."""
    policy = optimal().policy(inferred, transition, discount)
    values = (
        discounted.optimal_values(transition, reward, discount)[0],
        discounted.policy_evaluation(transition, reward, policy, discount)[0],
        -discounted.optimal_values(transition, -reward, discount)[0],
    )
    states = reward.shape[0]
    initial = jnp.full(states, 1.0 / states) if initial is None else initial
    best, found, worst = (initial @ value for value in values)
    nothing = best - worst <= TOLERANCE * jnp.maximum(jnp.abs(best), jnp.abs(worst))
    return jnp.where(nothing, 0.0, jnp.clip((best - found) / jnp.where(nothing, 1.0, best - worst), 0.0, 1.0))
