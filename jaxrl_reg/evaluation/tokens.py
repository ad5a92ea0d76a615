"""How often at least one of several completions is right, and how often the one that most agree on."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key, Metrics, TokenTask


def pass_at_k(right: Array, k: int) -> Array:
    """Probability that at least one of ``k`` of the ``n`` completions drawn is right: ``1 - C(n - c, k) / C(n, k)``.

    Unbiased for a fresh set of ``k`` completions; ``1 - (1 - c / n)^k`` is not.

    Args:
      right: ``[..., n]``, 1 for right, 0 for wrong.
      k: how many are drawn without replacement; static, 1 to n.
    Returns:
      ``[...]``.
    Raises:
      ValueError: ``k`` outside 1 to n.
    Source: Chen et al., 2021, Evaluating Large Language Models Trained on Code, eq. 1.
    """
    n = right.shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"pass_at_k: k={k} must be from 1 to the number {n} of completions")
    wrong = n - (right > 0).sum(-1, keepdims=True)
    drawn = jnp.arange(k)
    return 1.0 - (jnp.maximum(wrong - drawn, 0) / (n - drawn)).prod(-1)


def majority_at_k(answers: Array, right: Array) -> Array:
    """Whether the most frequent of ``k`` answers is right; of equally frequent ones the first that was given.

    Args:
      answers: ``[..., k, T]``, int32, equal rows being equal answers.
      right: ``[..., k]``, 1 for right, 0 for wrong.
    Returns:
      ``[...]``, 0 or 1; its mean over prompts is unbiased for ``k`` completions.
    Source: Wang et al., 2023, Self-Consistency Improves Chain of Thought Reasoning in Language Models.
    """
    alike = (answers[..., :, None, :] == answers[..., None, :, :]).all(-1)
    first = jnp.argmax(alike.sum(-1), axis=-1)
    return jnp.take_along_axis(right, first[..., None], axis=-1)[..., 0]


def gains(first: Array, second: Array) -> Metrics:
    """Of the rewards of two answers to the same prompts, alike in shape: ``gain``, how much more the second ones earn
    on average; ``mended`` and ``spoilt``, the shares of first ones after which the second earns more, and less.

    Source: Kumar et al., 2024, Training Language Models to Self-Correct via Reinforcement Learning, section 3.
    """
    shares = {"mended": second > first, "spoilt": second < first}
    return {"gain": (second - first).mean(), **{name: x.mean(dtype=jnp.float32) for name, x in shares.items()}}


def evaluator(
    task: TokenTask, prompts: int = 256, samples: int = 1, turns: int = 1
) -> Callable[[Callable[[Array, Key, bool], Array], Key], Metrics]:
    """``loops.rlvr``'s ``evaluate``: fresh prompts, their greedy completions and ``samples`` sampled ones of each.

    Args:
      task: what is asked, and its judge.
      prompts: how many.
      samples: sampled completions of each.
      turns: 2 for an agent that answers twice: each completion is then followed by ``task.follow`` and another one.
    Returns:
      ``fn(complete, key)`` with ``complete(prompt [N, P], key, explore) -> completion [N, T]``, giving ``return``, the
      mean reward of greedy completions, and ``length``, theirs in tokens; ``reward/NAME``, each part of a reward that
      has several; ``sampled``, the mean reward of sampled ones; with ``samples > 1`` ``pass_at_k`` and
      ``majority_at_k``, of k = ``samples`` // 2 and all samples, right being a reward of 1. With two turns these are
      of the first, ``second/return`` and ``second/sampled`` of the second, and there is what ``gains`` gives.
    Raises:
      UserError: if one of the numbers is below 1.
    """
    for name, number in (("prompts", prompts), ("samples", samples)):
        if number < 1:
            raise UserError(f"{name}={number} must be at least 1")

    def run(complete: Callable[[Array, Key, bool], Array], key: Key) -> Metrics:
        draw_key, greedy_key, sample_key, *more = jax.random.split(key, 3 if turns == 1 else 5)
        prompt = jax.vmap(task.draw)(jax.random.split(draw_key, prompts))
        greedy = complete(prompt, greedy_key, False)
        ends = (greedy == task.spec.EOS).astype(jnp.int32)
        found = {"return": jax.vmap(task.verify)(prompt, greedy).mean()}
        found["length"] = (jnp.cumsum(ends, -1) - ends == 0).sum(-1).mean(dtype=jnp.float32)
        if task.parts is not None:
            parts = jax.vmap(task.parts)(prompt, greedy)
            found |= {f"reward/{name}": value.mean() for name, value in parts.items()}
        several = complete(jnp.repeat(prompt, samples, axis=0), sample_key, True).reshape(prompts, samples, -1)
        reward = jax.vmap(jax.vmap(task.verify, (None, 0)))(prompt, several)
        found["sampled"] = reward.mean()
        if samples > 1:
            right = (reward >= 1.0 - 1e-6).astype(jnp.float32)
            found["pass_at_k"] = pass_at_k(right, samples // 2).mean()
            found["majority_at_k"] = majority_at_k(several, right).mean()
        if turns == 2:
            assert task.follow is not None
            again = complete(jax.vmap(task.follow)(prompt, greedy), more[0], False)
            found["second/return"] = jax.vmap(task.verify)(prompt, again).mean()
            again = complete(jax.vmap(jax.vmap(task.follow, (None, 0)))(prompt, several), more[1], True)
            second = jax.vmap(jax.vmap(task.verify, (None, 0)))(prompt, again)
            found |= {"second/sampled": second.mean(), **gains(reward, second)}
        return found

    return run
