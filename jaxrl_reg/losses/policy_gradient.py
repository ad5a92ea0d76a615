"""On-policy losses: the score-function gradient, clipped surrogates of it, and PPO's clipped value loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

_LARGEST_LOG_RATIO = 20.0  # a ratio of 5e8; beyond it float32 would soon overflow and infinity times 0 is NaN


@shapes(log_prob="...", advantage="...")
def policy_gradient_loss(log_prob: Array, advantage: Array) -> Array:
    """``-A log pi(a|s)`` with the advantage DETACHED; its gradient is the policy gradient.

    Args:
      log_prob: ``[...]``, nats.
      advantage: ``[...]``, in units of summed reward.
    Returns:
      ``[...]``; only its gradient means something.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input; with advantage 0 the loss is 0, also where the log-probability is minus infinity.
    Source: Williams, 1992, Simple Statistical Gradient-Following Algorithms; Sutton et al., 2000, Policy Gradient
      Methods.
    """
    advantage = jax.lax.stop_gradient(advantage)
    return jnp.where(advantage == 0, 0.0, -advantage * log_prob)


def log_ratio(log_prob: Array, reference: Array) -> Array:
    """``log_prob - reference`` held within +-20; 0 where both are minus infinity. Beyond that gradients are 0."""
    both = (log_prob == -jnp.inf) & (reference == -jnp.inf)
    difference = jnp.where(both, 0.0, log_prob) - jnp.where(both, 0.0, reference)
    return jnp.clip(difference, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)


@shapes(log_prob="...", old_log_prob="...", advantage="...", clip="", clip_high="", dual_clip="")
def ppo_clip_loss(
    log_prob: Array,
    old_log_prob: Array,
    advantage: Array,
    clip: Array | float,
    clip_high: Array | float | None = None,
    dual_clip: Array | float | None = None,
) -> Array:
    """``-min(rho A, clip(rho, 1 - eps, 1 + eps) A)``, ``rho = pi / pi_old``, advantage and old policy DETACHED.

    A wider ``clip_high`` is DAPO's clip-higher (0.2 and 0.28). With ``dual_clip`` c the loss of a negative advantage
    never exceeds ``-c A``: verl's ``clip_ratio_c``, trl's ``delta``.

    Args:
      log_prob: ``[...]``, of the policy that is trained, nats.
      old_log_prob: ``[...]``, of the policy that acted, nats.
      advantage: ``[...]``, usually standardised over the batch by the caller.
      clip: scalar eps > 0.
      clip_high: scalar > 0, the upper eps; None: the same.
      dual_clip: scalar c > 1, the largest ratio where the advantage is negative; None: no such bound.
    Returns:
      ``[...]``, units of the advantage.
    Raises:
      ValueError: shapes differ.
    Edges: log-ratios are held within +-20, so no ratio overflows; past that bound the gradient is 0. Where both
      log-probabilities are minus infinity the ratio is 1, without gradient.
    Source: Schulman et al., 2017, Proximal Policy Optimization Algorithms, eq. 7; Ye et al., 2020, Mastering Complex
      Control in MOBA Games (dual clip); Yu et al., 2025, DAPO (clip-higher).
    """
    advantage = jax.lax.stop_gradient(advantage)
    ratio = jnp.exp(log_ratio(log_prob, jax.lax.stop_gradient(old_log_prob)))
    return _clipped(ratio, advantage, clip, clip_high, dual_clip)


def _clipped(ratio, advantage, clip, clip_high, dual_clip=None) -> Array:
    high = clip if clip_high is None else clip_high
    loss = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + high) * advantage)
    if dual_clip is None:
        return loss
    return jnp.where(advantage < 0, jnp.minimum(loss, -dual_clip * advantage), loss)


@shapes(log_prob="... T", old_log_prob="... T", advantage="...", mask="... T", clip="", clip_high="")
def gspo_loss(
    log_prob: Array,
    old_log_prob: Array,
    advantage: Array,
    mask: Array,
    clip: Array | float,
    clip_high: Array | float | None = None,
) -> Array:
    """PPO's clipped surrogate with ONE ratio per completion, the geometric mean of its tokens' ratios (GSPO-token).

    ``s_t = sg(s) pi_t / sg(pi_t)``, ``s = exp(mean_t (log pi_t - log pi_old,t))``: every token has the value of the
    completion's ratio and a gradient of its own. Take ``sequence_mean`` of the result. Being means, ratios stay a
    hundred times nearer to 1 than those of tokens, and so do useful clips.

    Args:
      log_prob: ``[..., T]``, of the policy that is trained, nats.
      old_log_prob: ``[..., T]``, of the policy that acted, nats, DETACHED.
      advantage: ``[...]``, of the completion, DETACHED.
      mask: ``[..., T]``, 1 on tokens that count, 0 elsewhere, DETACHED.
      clip: scalar eps > 0.
      clip_high: scalar > 0, the upper eps; None: the same.
    Returns:
      ``[..., T]``, units of the advantage; 0 on padding.
    Raises:
      ValueError: shapes differ.
    Edges: a row without tokens is 0; what stands on padding never matters; log-ratios are held as in ``ppo_clip_loss``.
    Source: Zheng et al., 2025, Group Sequence Policy Optimization, eq. 5 and 14; trl
      ``importance_sampling_level="sequence"``.
    """
    advantage, old, mask = jax.lax.stop_gradient((advantage, old_log_prob, mask))
    real = mask > 0
    log_prob, old = jnp.where(real, log_prob, 0.0), jnp.where(real, old, 0.0)
    count = mask.sum(-1, keepdims=True)
    mean = (mask * log_ratio(log_prob, old)).sum(-1, keepdims=True) / jnp.where(count > 0, count, 1.0)
    still = jax.lax.stop_gradient(log_prob)
    ratio = jnp.exp(jax.lax.stop_gradient(mean)) * jnp.exp(jnp.where(still == -jnp.inf, 0.0, log_prob - still))
    return jnp.where(real, _clipped(ratio, advantage[..., None], clip, clip_high), 0.0)


@shapes(log_prob="...", old_log_prob="...", advantage="...", clip="", clip_high="")
def cispo_loss(
    log_prob: Array,
    old_log_prob: Array,
    advantage: Array,
    clip: Array | float,
    clip_high: Array | float | None = None,
) -> Array:
    """``-sg(clip(rho, 1 - eps, 1 + eps)) A log pi``: the ratio is clipped as a weight, so no token loses its gradient.

    Args:
      log_prob: ``[...]``, of the policy that is trained, nats.
      old_log_prob: ``[...]``, of the policy that acted, nats, DETACHED.
      advantage: ``[...]``, DETACHED.
      clip: scalar eps > 0; infinity: no lower bound, as in trl.
      clip_high: scalar > 0, the upper eps; None: the same. trl's ``epsilon_high`` is the bound itself, ``1 + eps``.
    Returns:
      ``[...]``; only its gradient means something.
    Raises:
      ValueError: shapes differ.
    Edges: log-ratios are held as in ``ppo_clip_loss``; with advantage 0 the loss is 0.
    Source: MiniMax, 2025, MiniMax-M1, eq. 4 and 5.
    """
    high = clip if clip_high is None else clip_high
    ratio = jnp.exp(log_ratio(*jax.lax.stop_gradient((log_prob, old_log_prob))))
    return policy_gradient_loss(log_prob, jnp.clip(ratio, 1.0 - clip, 1.0 + high) * advantage)


@shapes(value="...", old_value="...", target="...", clip="")
def clipped_value_loss(value: Array, old_value: Array, target: Array, clip: Array | float) -> Array:
    """Half the larger of two squared errors: of the value, and of the value held within ``clip`` of the old one.

    Args:
      value: ``[...]``, the prediction that is trained.
      old_value: ``[...]``, the prediction when the data were collected, DETACHED here.
      target: ``[...]``, for example ``lambda_return``, DETACHED here.
      clip: scalar > 0, units of value; infinity gives half the squared error.
    Returns:
      ``[...]``, squared units of value.
    Raises:
      ValueError: shapes differ.
    Edges: finite while the errors are below 1e19; an infinite ``clip``.
    Source: value clipping of the published PPO code (openai/baselines); not in the paper.
    """
    target, old_value = jax.lax.stop_gradient((target, old_value))
    held = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(held - target))
