"""Terms of systems that learn from verified rewards: Lp-Reg, AEPO, APO, OREAL, SCoRe. SIREN's stand in ``entropy``."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.divergence import sampled_kl
from jaxrl_reg.losses.policy_gradient import log_ratio, policy_gradient_loss, ppo_clip_loss

Array = jax.Array


def min_p_log_proxy(logits: Array, threshold: Array | float) -> Array:
    """Log-probabilities of a policy without its noise, DETACHED: tokens below a share of the likeliest are left out.

    Args:
      logits: ``[..., V]``, of the policy that sampled, at its temperature.
      threshold: scalar in [0, 1], the share of the largest probability that a token needs; may be traced.
    Returns:
      ``[..., V]``, nats: the kept tokens' log-probabilities, each raised by the same amount; minus infinity elsewhere.
    Edges: where everything is kept, the policy itself.
    Source: Huang et al., 2025, Low-probability Tokens Sustain Exploration in RLVR (Lp-Reg).
    """
    logits, threshold = jax.lax.stop_gradient((logits, threshold))
    least = logits.max(-1, keepdims=True) + jnp.log(threshold)
    return jax.nn.log_softmax(jnp.where(logits >= least, logits, -jnp.inf), axis=-1)


def lowest_share(value: Array, candidate: Array, share: Array | float) -> Array:
    """True on the ``max(1, floor(share * candidates))`` smallest of the candidates; on none if that is 1 or fewer.

    By rank, so that ties (which go by position) never select more: a threshold would take every tied token.

    Args:
      value: ``[...]``, compared over the whole array.
      candidate: ``[...]``, true on what may be selected.
      share: scalar in [0, 1]; may be traced.
    Returns:
      ``[...]``, bool.
    Source: Huang et al., 2025, Low-probability Tokens Sustain Exploration in RLVR (Lp-Reg).
    """
    flat = jnp.where(candidate, value, jnp.inf).ravel()
    rank = jnp.argsort(jnp.argsort(flat, stable=True), stable=True).reshape(value.shape)
    most = jnp.maximum(1, jnp.floor(share * candidate.sum() + 1e-4).astype(jnp.int32))
    return candidate & (rank < most) & (most > 1)


@shapes(
    log_prob="...",
    old_log_prob="...",
    log_proxy="...",
    advantage="...",
    selected="...",
    clip="",
    clip_high="",
    coefficient="",
)
def lp_reg_loss(
    log_prob: Array,
    old_log_prob: Array,
    log_proxy: Array,
    advantage: Array,
    selected: Array,
    clip: Array | float,
    clip_high: Array | float,
    coefficient: Array | float,
) -> Array:
    """PPO's clipped surrogate; on selected tokens ``-A rho + c k3(log pi, log proxy)`` instead, unclipped.

    With one update per batch the regulariser's derivative is only ``1 - 1 / (kept mass)``: beside advantages of 1 a
    coefficient of order 30 is needed to see it.

    Args:
      log_prob: ``[...]``, of the policy that is trained, nats.
      old_log_prob: ``[...]``, of the policy that sampled, DETACHED.
      log_proxy: ``[...]``, ``min_p_log_proxy`` of the same tokens, DETACHED.
      advantage: ``[...]``, DETACHED.
      selected: ``[...]``, 1 on tokens to protect, DETACHED: unlikely ones with negative advantage, as from
        ``lowest_share``; those whose ``log_proxy`` is not above ``log_prob`` are taken out here.
      clip: scalar > 0.
      clip_high: scalar > 0.
      coefficient: scalar >= 0.
    Returns:
      ``[...]``, units of the advantage.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: k3 is held at 10 and log-ratios within +-20, past which gradients are 0; a token that the proxy has filtered
      out is treated like an unselected one.
    Source: Huang et al., 2025, Low-probability Tokens Sustain Exploration in RLVR (Lp-Reg).
    """
    old, proxy, advantage, selected = jax.lax.stop_gradient((old_log_prob, log_proxy, advantage, selected))
    chosen = (selected > 0) & (jax.lax.stop_gradient(log_prob) < proxy)
    surrogate = ppo_clip_loss(log_prob, old, advantage, clip, clip_high)
    plain = -advantage * jnp.exp(log_ratio(log_prob, old))
    pull = jnp.minimum(sampled_kl(log_prob, jnp.where(chosen, proxy, 0.0)), 10.0)
    return jnp.where(chosen, plain + coefficient * jnp.where(chosen, pull, 0.0), surrogate)


@shapes(entropy="", target="", low="", high="")
def regulating_temperature(
    entropy: Array | float, target: Array | float, low: Array | float, high: Array | float
) -> Array:
    """At which temperature to sample what is cloned: ``high`` while the entropy is below the target, else ``low``.

    Args:
      entropy: scalar, of the policy at temperature 1, nats per token.
      target: scalar, nats per token.
      low: scalar, below 1.
      high: scalar, above 1.
    Returns:
      scalar.
    Raises:
      ValueError: an argument is not a scalar.
    Edges: at the target itself, ``low``.
    Source: Wang et al., 2025, Arbitrary Entropy Policy Optimization (AEPO).
    """
    return jnp.where(entropy < target, high, low)


@shapes(log_prob="... T", reward="...")
def one_sided_reinforce_loss(log_prob: Array, reward: Array) -> Array:
    """``-R log pi`` with the reward of 0 or 1 DETACHED: right samples are cloned, wrong ones leave no trace.

    Args:
      log_prob: ``[..., T]``, at temperature 1, of samples drawn at the regulating one.
      reward: ``[...]``, of the completion.
    Returns:
      ``[..., T]``; the mean is over tokens of right completions.
    Raises:
      ValueError: shapes differ.
    Edges: 0 for reward 0, also where the log-probability is minus infinity.
    Source: Wang et al., 2025, Arbitrary Entropy Policy Optimization (AEPO).
    """
    return policy_gradient_loss(log_prob, jnp.broadcast_to(reward[..., None], log_prob.shape))


@shapes(right="... G")
def difficulty_weight(right: Array) -> Array:
    """DADS: ``1 - exp(-e s)`` for right completions of a group with pass rate ``0 < s < 1``, 1 for all others.

    It weights each completion's KL to the reference: hard questions are let go. Around 0.95 on average here, so compare
    with a constant of the measured mean.

    Args:
      right: ``[..., G]``, 1 for right, 0 for wrong.
    Returns:
      ``[..., G]``, in (0, 1]; DETACHED.
    Raises:
      ValueError: shapes.
    Edges: groups all right or all wrong have weight 1.
    Source: Hong et al., 2025, APO: Asymmetric Policy Optimization (difficulty-adaptive divergence shaping).
    """
    right = jax.lax.stop_gradient(right)
    rate = right.mean(-1, keepdims=True)
    return jnp.where((right > 0) & (rate < 1), 1.0 - jnp.exp(-jnp.e * rate), 1.0)


@shapes(length="... G", right="... G", sharpness="")
def overthinking_weight(length: Array, right: Array, sharpness: Array | float) -> Array:
    """STCR: ``2 - exp(-sharpness D)`` for a wrong completion ``D`` tokens longer than the group's right ones, else 1.

    It multiplies the advantage. The published base 1.00001 is ``sharpness = log 1.00001``: no effect on short ones.

    Args:
      length: ``[..., G]``, in tokens.
      right: ``[..., G]``, 1 for right, 0 for wrong.
      sharpness: scalar >= 0, per token.
    Returns:
      ``[..., G]``, in [1, 2); DETACHED.
    Raises:
      ValueError: shapes differ, or the sharpness is not a scalar.
    Edges: 1 for all of a group without a right one.
    Source: Hong et al., 2025, APO: Asymmetric Policy Optimization (suboptimal trajectory complexity regularisation).
    """
    length, right, sharpness = jax.lax.stop_gradient((length, right, sharpness))
    count = right.sum(-1, keepdims=True)
    mean = (length * right).sum(-1, keepdims=True) / jnp.maximum(count, 1.0)
    excess = jnp.where((right > 0) | (count == 0), 0.0, jnp.maximum(length - mean, 0.0))
    return 2.0 - jnp.exp(-sharpness * excess)


def running_mean(score: Array, mask: Array) -> Array:
    """Mean of the scores of all tokens up to each, ``[..., T]``; padding adds nothing."""
    real = mask > 0
    return jnp.cumsum(jnp.where(real, score, 0.0), axis=-1) / jnp.maximum(jnp.cumsum(real, axis=-1), 1)


@shapes(score="... T", mask="... T", right="...")
def outcome_score_loss(score: Array, mask: Array, right: Array, prefixes: bool = True) -> Array:
    """Cross-entropy of "the completion is right" against the sigmoid of its mean score; the label is DETACHED.

    With ``prefixes`` the mean over all prefixes, which is what makes single tokens' scores mean something; without, the
    whole completion alone, as released.

    Args:
      score: ``[..., T]``, of a reward model that has read token ``t``.
      mask: ``[..., T]``, above 0 on tokens that count.
      right: ``[...]``, 1 for right, 0 for wrong.
      prefixes: judge every prefix; static.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ.
    Edges: a row without tokens is 0 with ``prefixes``, else log 2; what stands on padding never matters.
    Source: Lyu et al., 2025, Exploring the Limit of Outcome Reward (OREAL); prefixes are ours.
    """
    mean, right = running_mean(score, mask), jax.lax.stop_gradient(right)
    if not prefixes:
        mean = mean[..., -1]
        return jax.nn.softplus(mean) - right * mean
    real = (mask > 0).astype(mean.dtype)
    each = jax.nn.softplus(mean) - right[..., None] * mean
    return (real * each).sum(-1) / jnp.maximum(real.sum(-1), 1.0)


@shapes(score="... T", mask="... T", threshold="")
def score_weights(score: Array, mask: Array, threshold: Array | float = 0.5) -> tuple[Array, Array]:
    """How far each prefix is above, and below, doubt: ``clip((P - h) / (1 - h), 0, 1)`` for ``P_t`` and for its rest.

    Args:
      score: ``[..., T]``, of a reward model.
      mask: ``[..., T]``, above 0 on tokens that count.
      threshold: scalar h in [0, 1).
    Returns:
      ``[..., T]`` for right completions and ``[..., T]`` for wrong ones, both DETACHED; 0 on padding.
    Raises:
      ValueError: shapes differ, or the threshold is not a scalar.
    Edges: scores of 0 weigh nothing at threshold 0.5.
    Source: Lyu et al., 2025, Exploring the Limit of Outcome Reward (OREAL).
    """
    likely = jax.nn.sigmoid(running_mean(score, mask))
    both = (jnp.clip((p - threshold) / (1.0 - threshold), 0.0, 1.0) for p in (likely, 1.0 - likely))
    first, second = (jax.lax.stop_gradient(jnp.where(mask > 0, weight, 0.0)) for weight in both)
    return first, second


@shapes(
    log_prob="... T",
    old_log_prob="... T",
    reference="... T",
    advantage="...",
    right="...",
    weight_right="... T",
    weight_wrong="... T",
    negative="",
    coefficient="",
)
def oreal_loss(
    log_prob: Array,
    old_log_prob: Array,
    reference: Array,
    advantage: Array,
    right: Array,
    weight_right: Array,
    weight_wrong: Array,
    negative: Array | float,
    coefficient: Array | float,
) -> Array:
    """Right: ``-w+ A log pi``, cloning; wrong: ``-c w- A rho``, policy gradient; both ``+ b k3(log pi, log ref)``.

    The caller takes the means over tokens of right and of wrong completions apart.

    Args:
      log_prob: ``[..., T]``, of the policy that is trained, nats.
      old_log_prob: ``[..., T]``, of the policy that sampled, DETACHED.
      reference: ``[..., T]``, of the reference, DETACHED.
      advantage: ``[...]``, leave-one-out, DETACHED.
      right: ``[...]``, 1 for right, 0 for wrong, DETACHED.
      weight_right: ``[..., T]``, w+ of ``score_weights``, DETACHED.
      weight_wrong: ``[..., T]``, w-, DETACHED.
      negative: scalar c >= 0, published as 0.5.
      coefficient: scalar b >= 0, published as 0.01.
    Returns:
      ``[..., T]``, units of the advantage.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log-ratios are held within +-20; a weight or advantage of 0 silences a token of any probability.
    Source: Lyu et al., 2025, Exploring the Limit of Outcome Reward (OREAL).
    """
    held = (old_log_prob, reference, advantage[..., None], right[..., None], weight_right, weight_wrong)
    old, reference, advantage, right, above, below = jax.lax.stop_gradient(held)
    cloned = policy_gradient_loss(log_prob, above * advantage)
    pushed = -negative * below * advantage * jnp.exp(log_ratio(log_prob, old))
    return jnp.where(right > 0, cloned, pushed) + coefficient * sampled_kl(log_prob, reference)


@shapes(first="...", second="...", bonus="")
def progress_reward(first: Array, second: Array, bonus: Array | float) -> Array:
    """``r2 + bonus (r2 - r1)``: the second attempt's reward, more for a mended one and less for a spoilt one.

    The first attempt keeps ``r1`` alone. Use a leave-one-out advantage: dividing by the standard deviation cancels it.

    Args:
      first: ``[...]``, reward of the first attempt.
      second: ``[...]``, of the second.
      bonus: scalar >= 0, published as 10.
    Returns:
      ``[...]``, units of reward.
    Raises:
      ValueError: shapes differ, or the bonus is not a scalar.
    Edges: none.
    Source: Kumar et al., 2024, Training Language Models to Self-Correct via Reinforcement Learning (SCoRe).
    """
    return second + bonus * (second - first)
