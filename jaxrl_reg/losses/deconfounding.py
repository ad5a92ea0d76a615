"""What logged rewards owe to something that was not chosen, and the rewards without it.

The model is ``reward = f(content) + confounders . effect + rest``: a season, a slot or an author's following moves both
what is done and what it brings. Estimators return the ``effect``; a learner then gets ``deconfounded_reward``. Only
what is fixed BEFORE the action may count as a confounder: of something that the action moves (clicks that a text
causes) this takes a true merit away. A confounder of rewards that are collected on-policy is no bias but variance.

Three estimates, by what is given. Confounders alone: right only where they have nothing to do with the content. With
content: right where nothing unseen moves both confounders and reward. With instruments, which move the confounders and
nothing else: right with such a hidden cause too. With a hidden cause the second is WORSE than leaving rewards alone.

Everything is DETACHED, since rewards are data. Sums are over rows, so rows are coupled. A non-linear effect is that of
features of a confounder (one-hot months); cross-fitting is a ``weight`` of 0 on the rows that are held out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.successor import lifted, solve

Array = jax.Array


@shapes(reward="B", confounders="B C", content="B D", instruments="B Z", weight="B", ridge="")
def confounder_effect(
    reward: Array,
    confounders: Array,
    content: Array | None = None,
    instruments: Array | None = None,
    weight: Array | None = None,
    ridge: Array | float = 1e-3,
) -> Array:
    """What one unit of each confounder adds to the reward: regression on confounders, content beside them or not, or
    two-stage least squares with instruments. All columns are centred.

    Args:
      reward: ``[B]``.
      confounders: ``[B, C]``, fixed before the action.
      content: ``[B, D]``, of state and action: what else the reward depends on. None: nothing.
      instruments: ``[B, Z]``, Z >= C, that move the confounders and the reward only through them. None: none.
      weight: ``[B]``, >= 0, of the rows. None: 1.
      ridge: scalar >= 0, per row, on the squares of every column: standardise columns first.
    Returns:
      ``[C]``, reward per unit of the confounder; DETACHED.
    Raises:
      ValueError: shapes differ, or there are fewer instruments than confounders: then no effect is identified.
    Edges: the effect of a confounder that does not vary, or that no instrument moves, is 0. With fewer rows than
      columns the ridge decides. A weak instrument gives an effect of any size: look at ``first_stage_f``.
    Source: Frisch and Waugh, 1933; Theil, 1953 (two-stage least squares); for rewards Loghmani, 2025, DeconfoundLM,
      which states no equations.
    """
    if instruments is not None and instruments.shape[1] < confounders.shape[1]:
        got = f"{confounders.shape[1]} confounders, {instruments.shape[1]} instruments"
        raise ValueError(f"confounder_effect: needs as many instruments as confounders or more; got {got}")
    given = jax.lax.stop_gradient((reward, confounders, content, instruments, weight, ridge))
    reward, confounders, content, instruments, weight, ridge = given
    share = _shares(reward, weight)
    with jax.default_matmul_precision("highest"):
        reward, confounders = _centred(reward[:, None], share), _centred(confounders, share)
        beside = [] if content is None else [_centred(content, share)]
        if instruments is not None:
            first = jnp.concatenate([*beside, _centred(instruments, share)], axis=1)
            confounders = first @ _regression(first, confounders, share, ridge)
        effect = _regression(jnp.concatenate([*beside, confounders], axis=1), reward, share, ridge)
    return effect[-confounders.shape[1] :, 0]


@shapes(reward="B", confounders="B C", effect="C", weight="B")
def deconfounded_reward(reward: Array, confounders: Array, effect: Array, weight: Array | None = None) -> Array:
    """``reward - (confounders - mean) . effect``: what would have been paid at the mean confounder.

    The mean stays in, so that unit and level of the reward do.

    Args:
      reward: ``[B]``.
      confounders: ``[B, C]``.
      effect: ``[C]``, of ``confounder_effect``.
      weight: ``[B]``, >= 0, of the rows in the mean. None: 1.
    Returns:
      ``[B]``, in units of the reward; DETACHED.
    Raises:
      ValueError: shapes differ.
    Edges: rewards as they are where no confounder varies.
    Source: Loghmani, 2025, DeconfoundLM: Aligning Language Models with Observational Data.
    """
    reward, confounders, effect, weight = jax.lax.stop_gradient((reward, confounders, effect, weight))
    with jax.default_matmul_precision("highest"):
        return reward - _centred(confounders, _shares(reward, weight)) @ effect


@shapes(features="B D", reward="B", confounders="B C", ridge="")
def orthogonal_direction(features: Array, reward: Array, confounders: Array, ridge: Array | float = 1e-3) -> Array:
    """The linear reward head that fits best among those uncorrelated with the confounders: ODIN's idea, in closed form.

    ``v = v0 - S^-1 K (K^T S^-1 K)^-1 K^T v0`` with ``S`` the covariance of the features, ``K`` theirs with the
    confounders and ``v0`` the plain regression. It also removes what truly pays where that moves the confounder.

    Args:
      features: ``[B, D]``.
      reward: ``[B]``.
      confounders: ``[B, C]``, C < D.
      ridge: scalar >= 0, on both matrices; what is left of the covariance is of its order.
    Returns:
      ``[D]``, reward per unit of each feature; DETACHED.
    Raises:
      ValueError: shapes differ.
    Edges: the plain regression where features and confounders have nothing to do with each other.
    Source: Chen et al., 2024, ODIN: Disentangled Reward Mitigates Hacking in RLHF, for a linear head.
    """
    features, reward, confounders, ridge = jax.lax.stop_gradient((features, reward, confounders, ridge))
    share = _shares(reward, None)
    with jax.default_matmul_precision("highest"):
        x, c, y = _centred(features, share), _centred(confounders, share), _centred(reward[:, None], share)
        shared = (x * share[:, None]).T
        answers = solve(lifted(shared @ x, ridge), jnp.concatenate([shared @ y, shared @ c], axis=1))
        plain, moved = answers[:, :1], answers[:, 1:]
        between = shared @ c
        return (plain - moved @ solve(lifted(between.T @ moved, ridge), between.T @ plain))[:, 0]


@shapes(confounder="B", instruments="B Z", content="B D")
def first_stage_f(confounder: Array, instruments: Array, content: Array | None = None) -> Array:
    """The F statistic of the instruments in the regression of a confounder on content and instruments.

    Below 10 the instruments are called weak: the estimate that rests on them is then biased towards the plain
    regression and has no useful error bars.

    Args:
      confounder: ``[B]``, one of them.
      instruments: ``[B, Z]``.
      content: ``[B, D]``. None: nothing beside the instruments.
    Returns:
      scalar >= 0, without unit; DETACHED.
    Raises:
      ValueError: shapes differ.
    Edges: 0 where there are no more rows than columns, and for a confounder that does not vary. Where the instruments
      say everything it is as large as rounding allows, and finite.
    Source: Staiger and Stock, 1997, Instrumental Variables Regression with Weak Instruments.
    """
    confounder, instruments, content = jax.lax.stop_gradient((confounder, instruments, content))
    rows, count = instruments.shape
    free = rows - count - 1 - (0 if content is None else content.shape[1])
    if free < 1:
        return jnp.zeros(())
    share = _shares(confounder, None)
    with jax.default_matmul_precision("highest"):
        beside = jnp.zeros((rows, 0)) if content is None else _centred(content, share)
        alone = _left_over(_centred(confounder[:, None], share), beside, share)
        both = _left_over(alone, jnp.concatenate([beside, _centred(instruments, share)], axis=1), share)
        of_alone, of_both = (share @ jnp.square(part[:, 0]) for part in (alone, both))
    least = jnp.finfo(of_both.dtype).eps * of_alone
    return jnp.maximum(of_alone - of_both, 0.0) / count * free / jnp.maximum(jnp.maximum(of_both, least), 1e-30)


def _shares(like: Array, weight: Array | None) -> Array:
    """The weight of every row in a mean, ``[B]``; 0 everywhere where no row counts."""
    weight = jnp.ones_like(like) if weight is None else weight
    return weight / jnp.maximum(weight.sum(), 1e-30)


def _centred(columns: Array, share: Array) -> Array:
    return columns - share @ columns


def _regression(columns: Array, wanted: Array, share: Array, ridge: Array | float) -> Array:
    """``[D, K]``: ridge regression of each of ``wanted [B, K]`` on ``columns [B, D]``, all centred."""
    shared = (columns * share[:, None]).T
    return solve(lifted(shared @ columns, ridge), shared @ wanted)


def _left_over(wanted: Array, columns: Array, share: Array) -> Array:
    """What a regression on the columns, of which there may be none, leaves of ``wanted [B, 1]``."""
    if not columns.shape[1]:
        return wanted
    return wanted - columns @ _regression(columns, wanted, share, 0.0)
