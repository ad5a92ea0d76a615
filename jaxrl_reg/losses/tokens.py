"""Token sequences: which tokens count, how likely they are, and what a sampler may draw.

Ids are int32. A completion ``[..., T]`` is padded on the right; its mask is 1 up to and INCLUDING its first end token,
which is an action like any other, and 0 after it. Masks are selected with before anything is multiplied, so what stands
on padding never matters, NaN included.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


def completion_mask(completion: Array, eos: int = 1) -> Array:
    """1 on every token up to and including the first ``eos``, 0 after it.

    Args:
      completion: ``[..., T]``, int32 ids.
      eos: id of the token that ends a completion.
    Returns:
      ``[..., T]``, float32.
    Edges: a completion without ``eos`` was cut off and counts whole; padding before ``eos`` is an ordinary token.
    Source: as trl's GRPOTrainer and verl's ``response_mask`` have it.
    """
    ends = (completion == eos).astype(jnp.int32)
    return (jnp.cumsum(ends, axis=-1) - ends == 0).astype(jnp.float32)


def token_logprobs(logits: Array, tokens: Array, mask: Array | None = None) -> Array:
    """``log softmax(logits)[token]`` per position.

    ``logits[..., t, :]`` is what predicts ``tokens[..., t]``: the caller does the shifting and divides by the sampling
    temperature beforehand.

    Args:
      logits: ``[..., V]``, any shift.
      tokens: ``[...]``, integer ids in [0, V); on padding anything, -100 included.
      mask: ``[...]``, 0 where a token does not count; None: all count.
    Returns:
      ``[...]``, nats, of the dtype of the logits and computed in float32 at least; 0 where the mask is 0.
    Raises:
      ValueError: shapes differ.
    Edges: a token whose logit is minus infinity has minus infinity, with a finite gradient; gradients are 0 where the
      mask is, even where the logits are NaN.
    Source: ``selective_log_softmax`` of trl.
    """
    if logits.shape[:-1] != tokens.shape or (mask is not None and mask.shape != tokens.shape):
        got = f"logits {list(logits.shape)}, tokens {list(tokens.shape)}"
        got += "" if mask is None else f", mask {list(mask.shape)}"
        raise ValueError(f"token_logprobs: expected logits [..., V], tokens [...] and mask [...] alike; got {got}")
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if mask is not None:
        wide = jnp.where((mask > 0)[..., None], wide, 0.0)
        tokens = jnp.where(mask > 0, tokens, 0)
    found = jnp.take_along_axis(jax.nn.log_softmax(wide, axis=-1), tokens[..., None], axis=-1)[..., 0]
    return (found if mask is None else jnp.where(mask > 0, found, 0.0)).astype(logits.dtype)


@shapes(logps="... T", mask="... T")
def sequence_logprobs(logps: Array, mask: Array, average: bool = False) -> Array:
    """Log-probability of each completion: the sum over its tokens, or with ``average`` their mean.

    The sum is the completion's log-probability; the mean is what length-normalised losses compare.

    Args:
      logps: ``[..., T]``, per token, nats, as from ``token_logprobs``.
      mask: ``[..., T]``, 1 on tokens that count, 0 elsewhere, DETACHED.
      average: divide by the number of tokens; static.
    Returns:
      ``[...]``, nats, or nats per token.
    Raises:
      ValueError: shapes differ.
    Edges: 0 with gradient 0 for a row without tokens; what stands under mask 0 is never touched, NaN included.
    Source: DPO's sum (Rafailov et al., 2023), SimPO's mean (Meng et al., 2024).
    """
    mask = jax.lax.stop_gradient(mask)
    total = jnp.where(mask > 0, jnp.where(mask > 0, logps, 0.0) * mask, 0.0).sum(-1)
    count = mask.sum(-1)
    return total / jnp.where(count > 0, count, 1.0) if average else total


def truncate_logits(logits: Array, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Array:
    """Minus infinity on tokens that a sampler shall not draw; the defaults keep everything and compile to nothing.

    Args:
      logits: ``[..., V]``, already divided by the temperature.
      top_k: keep the ``k`` likeliest, and whatever ties with the last of them; 0: all.
      top_p: keep a token while the probability of those before it, sorted, is below this: the kept ones hold at least
        ``top_p``, and the likeliest always stays; 1: all.
      min_p: keep probabilities of at least this share of the largest one; 0: all.
    Returns:
      ``[..., V]``.
    Raises:
      ValueError: a setting outside its range.
    Edges: at least one token stays. Ties at the border of ``top_p`` stay together.
    Source: Holtzman et al., 2020, The Curious Case of Neural Text Degeneration (top-p); Minh et al., 2024, Min-p.
    """
    if top_k < 0 or not 0.0 < top_p <= 1.0 or not 0.0 <= min_p <= 1.0:
        raise ValueError(f"top_k={top_k} must be >= 0, top_p={top_p} in (0, 1], min_p={min_p} in [0, 1]")
    original = logits
    if 0 < top_k < original.shape[-1]:
        least = jax.lax.top_k(original, top_k)[0][..., -1:]
        logits = jnp.where(original >= least, logits, -jnp.inf)
    if top_p < 1.0:
        order = -jnp.sort(-original, axis=-1)
        probability = jax.nn.softmax(order, axis=-1)
        before = jnp.cumsum(probability, axis=-1) - probability
        least = jnp.where(before < top_p, order, jnp.inf).min(-1, keepdims=True)
        logits = jnp.where(original >= least, logits, -jnp.inf)
    if min_p > 0.0:
        least = original.max(-1, keepdims=True) + jnp.log(min_p)
        logits = jnp.where(original >= least, logits, -jnp.inf)
    return logits
