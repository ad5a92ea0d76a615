"""The second turn of a run on verified rewards: a prompt that shows the first answer, and another try."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.losses.tokens import completion_mask
from jaxrl_reg.types import Array, Completions, Key, TokenTask

SYMBOLS = 3  # the first id that is neither padding, end nor separator
WRONG, REPEATED = 0.7, 0.8  # of the lessons: first answers with a wrong symbol; second ones that repeat the first


def check_follow(task: TokenTask, name: str = "") -> None:
    """Raise ``UserError`` for a task without a second turn, or with one of another size."""
    name = name or task.name or "the task"
    if task.follow is None:
        raise UserError(f"this agent answers twice, and {name} asks once; give its TokenTask a follow")
    ids = (jax.ShapeDtypeStruct((n,), jnp.int32) for n in (task.spec.prompt, task.spec.completion))
    found, wanted = jax.eval_shape(task.follow, *ids).shape, (task.spec.second.prompt,)
    if found != wanted:
        raise UserError(f"{name}: follow gives a prompt {list(found)}; it must be {list(wanted)}, padded on the left")


def asked_again(task: TokenTask, prompt: Array, completion: Array) -> Array:
    """Prompts ``[B, G, P + T + 1]`` of the second turn after completions ``[B, G, T]`` of prompts ``[B, P]``."""
    assert task.follow is not None
    return jax.vmap(jax.vmap(task.follow, (None, 0)))(prompt, completion)


def with_second_lessons(task: TokenTask, batch: Completions, key: Key) -> Completions:
    """Lessons ``[B, 1]`` with those of the second turn beside them.

    They make an answerer as language models are: shown an answer, which often has one symbol wrong, it mostly gives the
    same again, and otherwise the right one. What mends more is left to be learnt from rewards.
    """
    wrong_key, which_key, again_key = jax.random.split(key, 3)
    rows = batch.completion.shape[:2]
    right = batch.completion
    spoilt = jax.vmap(jax.vmap(lambda one, key: one_wrong(one, key, task.spec.vocabulary, task.spec.EOS)))(
        right, jax.random.split(wrong_key, rows)
    )
    shown = jnp.where(jax.random.bernoulli(which_key, WRONG, (*rows, 1)), spoilt, right)
    answer = jnp.where(jax.random.bernoulli(again_key, REPEATED, (*rows, 1)), shown, right)
    prompt = asked_again(task, batch.prompt, shown)
    second = dataclasses.replace(
        batch, prompt=prompt, completion=answer, mask=completion_mask(answer, task.spec.EOS), extras={}
    )
    return dataclasses.replace(batch, extras={**batch.extras, "second": second})


def one_wrong(completion: Array, key: Key, vocabulary: int, eos: int) -> Array:
    """``[T]`` with one of the symbols before its end replaced by another; as it is where there is none."""
    place_key, symbol_key = jax.random.split(key)
    before = jnp.cumsum(completion == eos) == 0
    at = jnp.arange(completion.shape[0])
    place = jax.random.randint(place_key, (), 0, jnp.maximum(before.sum(), 1))
    count = vocabulary - SYMBOLS
    other = SYMBOLS + (completion - SYMBOLS + jax.random.randint(symbol_key, (), 1, max(count, 2))) % count
    return jnp.where((at == place) & before, other, completion).astype(jnp.int32)
