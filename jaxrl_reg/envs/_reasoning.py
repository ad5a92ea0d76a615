"""Tasks of tokens with many right answers, or with room to reason first: split, steps, styles."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.envs._sequences import EOS, FIRST, PAD, SEP, at_least, decoder, digits, drawn_row
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key, Metrics, TokenSpec, TokenTask

ANSWER = FIRST  # of the tasks that reason first: only what follows it is judged
OTHER, THINK, DIRECT = 0, 1, 2  # what ``style_of`` says
TAGS = ("none", "think", "direct")


def split(modulus: int = 7, times: int = 2) -> TokenTask:
    """A number q; right are any ``times`` pairs (a, b), each with a + b = q modulo ``modulus``.

    There are ``modulus ** times`` right answers, each as easy: the task for entropy and diversity.
    """
    at_least("split", modulus=(modulus, 2), times=(times, 1))
    length = 2 * times + 1

    def draw(key: Key) -> Array:
        return jnp.stack([FIRST + jax.random.randint(key, (), 0, modulus), jnp.int32(SEP)]).astype(jnp.int32)

    def verify(prompt: Array, completion: Array) -> Array:
        numbers = completion[:-1] - FIRST
        sums = (numbers[0::2] + numbers[1::2]) % modulus
        right = jnp.all(sums == prompt[0] - FIRST) & jnp.all(numbers >= 0) & (completion[-1] == EOS)
        return right.astype(jnp.float32)

    def solve(prompt: Array, key: Key) -> Array:
        first = jax.random.randint(key, (times,), 0, modulus)
        second = (prompt[0] - FIRST - first) % modulus
        pairs = jnp.stack([first, second], axis=1).reshape(-1)
        return jnp.append(FIRST + pairs, EOS).astype(jnp.int32)

    spec = TokenSpec(FIRST + modulus, 2, length)
    return TokenTask(draw, verify, solve, spec, "tokens/split", decode=decoder(list(map(str, range(modulus)))))


def answered(completion: Array, right: Array) -> Array:
    """1 where the completion has one ANSWER before its end, and ``right`` and EOS follow it."""
    ends = completion == EOS
    before = jnp.cumsum(ends) == 0
    marked = (completion == ANSWER) & before
    at = jnp.argmax(marked)
    last = completion.shape[0] - 1
    value, end = completion[jnp.minimum(at + 1, last)], completion[jnp.minimum(at + 2, last)]
    good = (marked.sum() == 1) & (at + 2 <= last) & (value == right) & (end == EOS)
    return good.astype(jnp.float32)


def _summed(numbers: Array, count: Array, modulus: int, length: int) -> Array:
    """Running sums of the first ``count`` numbers, ANSWER, their sum, EOS: ``[length]``; symbols follow ANSWER."""
    sums = jnp.cumsum(numbers) % modulus
    at = jnp.arange(length)
    body = jnp.take(jnp.append(sums, 0), jnp.minimum(at, numbers.shape[0]))
    row = jnp.where(at < count, ANSWER + 1 + body, PAD)
    return closed(row, count, ANSWER + 1 + sums[-1])


def closed(row: Array, at: Array, value: Array) -> Array:
    """``row`` with ANSWER, ``value``, EOS from column ``at`` on."""
    columns = jnp.arange(row.shape[0])
    row = jnp.where(columns == at, ANSWER, row)
    row = jnp.where(columns == at + 1, value, row)
    return jnp.where(columns == at + 2, EOS, row).astype(jnp.int32)


def steps(modulus: int = 10, shortest: int = 3, longest: int = 6) -> TokenTask:
    """Numbers below ``modulus``; anything may be written, then ANSWER and their sum modulo that.

    ``solve`` writes the running sums first. The direct answer needs none of them, and is far harder to learn.
    """
    at_least("steps", modulus=(modulus, 2), shortest=(shortest, 1), longest=(longest, shortest))
    spec = TokenSpec(ANSWER + 1 + modulus, longest + 1, longest + 3)

    def draw(key: Key) -> Array:
        return drawn_row(key, modulus, shortest, longest, ANSWER + 1)

    def verify(prompt: Array, completion: Array) -> Array:
        return answered(completion, ANSWER + 1 + digits(prompt, ANSWER + 1)[0].sum() % modulus)

    def solve(prompt: Array, key: Key) -> Array:
        return _summed(*digits(prompt, ANSWER + 1), modulus, spec.completion)

    words = ["=", *map(str, range(modulus))]
    return TokenTask(draw, verify, solve, spec, "tokens/steps", decode=decoder(words))


def style_of(prompt: Array, completion: Array) -> Array:
    """How a completion of ``styles`` answers: THINK, as many numbers as the question has and then ANSWER; DIRECT,
    ANSWER at once; else OTHER, int32. Both end with one more symbol and EOS; whether it is right has no say."""
    count = prompt.shape[0] - 2
    columns = jnp.arange(completion.shape[0])
    symbol = (completion > ANSWER) & (columns < count)

    def ends(at: int) -> Array:
        return (completion[at] == ANSWER) & (completion[at + 1] > ANSWER) & (completion[at + 2] == EOS)

    think = jnp.all(symbol[:count]) & ends(count)
    return jnp.where(think, THINK, jnp.where(ends(0), DIRECT, OTHER)).astype(jnp.int32)


def styles(
    modulus: int = 5, longest: int = 4, tag: str = "think", format: float = 0.5, agree: float = 0.8
) -> TokenTask:
    """``steps`` of one length under a tag: ``format`` of the reward is for answering in the tag's style, the rest for
    being right; both are ``parts``.

    ``tag`` is none, think, direct, or ``mixed``: any of the three, for a warm start. ``solve`` answers in the tag's
    style with probability ``agree`` and in the other otherwise; without a tag each half of the time, and without a tag
    any style has the right format. A direct answer is the right sum, which a small model cannot learn to give at once.

    Source of the task: Taveekitworachai et al., 2025, Prior Prompt Engineering for Reinforcement Fine-Tuning (arXiv
    2505.14157), its core without language.
    """
    at_least("styles", modulus=(modulus, 2), longest=(longest, 1))
    if tag not in (*TAGS, "mixed"):
        raise UserError(f"tokens/styles: tag={tag} must be one of {', '.join((*TAGS, 'mixed'))}")
    for name, share in (("format", format), ("agree", agree)):
        if not 0.0 <= share <= 1.0:
            raise UserError(f"tokens/styles: {name}={share} must be from 0 to 1")
    think = ANSWER + 1 + modulus  # ids of the tags: think, direct; none is padding
    spec = TokenSpec(think + 2, longest + 2, longest + 3)

    def draw(key: Key) -> Array:
        tag_key, number_key = jax.random.split(key)
        drawn = jax.random.randint(tag_key, (), 0, 3) if tag == "mixed" else jnp.int32(TAGS.index(tag))
        numbers = ANSWER + 1 + jax.random.randint(number_key, (longest,), 0, modulus)
        head = jnp.where(drawn == 0, PAD, think + drawn - 1)
        return jnp.concatenate([head[None], numbers, jnp.array([SEP])]).astype(jnp.int32)

    def asked(prompt: Array) -> Array:
        return jnp.where(prompt[0] == PAD, OTHER, prompt[0] - think + THINK)  # OTHER: no style is asked for

    def parts(prompt: Array, completion: Array) -> Metrics:
        right = answered(completion, ANSWER + 1 + digits(prompt[1:], ANSWER + 1)[0].sum() % modulus)
        style, wanted = style_of(prompt, completion), asked(prompt)
        fits = jnp.where(wanted == OTHER, style != OTHER, style == wanted)
        return {"format": format * fits.astype(jnp.float32), "right": (1.0 - format) * right}

    def verify(prompt: Array, completion: Array) -> Array:
        paid = parts(prompt, completion)
        return paid["format"] + paid["right"]

    def solve(prompt: Array, key: Key) -> Array:
        numbers, count = digits(prompt[1:], ANSWER + 1)
        long = _summed(numbers, count, modulus, spec.completion)
        short = closed(jnp.zeros(spec.completion, jnp.int32), jnp.int32(0), ANSWER + 1 + numbers.sum() % modulus)
        wanted = asked(prompt)
        chance = jnp.where(wanted == OTHER, 0.5, jnp.where(wanted == THINK, agree, 1.0 - agree))
        return jnp.where(jax.random.bernoulli(key, chance), long, short)

    words = ["=", *map(str, range(modulus)), "[think]", "[direct]"]
    return TokenTask(draw, verify, solve, spec, "tokens/styles", parts=parts, decode=decoder(words))
