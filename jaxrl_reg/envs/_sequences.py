"""Tasks of tokens with one right answer: copy, reverse, sort, modular, digit_sum, parity, recall; and their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key, TokenSpec, TokenTask

PAD, EOS, SEP, FIRST = TokenSpec.PAD, TokenSpec.EOS, 2, 3  # FIRST: id of a task's first symbol
Answer = Callable[[Array], Array]  # prompt [P] -> completion [T]


def at_least(task: str, **settings: tuple[int, int]) -> None:
    """Raise ``UserError`` for the first of ``name=(value, least)`` that is below its least."""
    for name, (value, least) in settings.items():
        if not isinstance(value, int) or value < least:
            raise UserError(f"tokens/{task}: {name}={value} must be a whole number of at least {least}")


def decoder(symbols: Sequence[str]) -> Callable[[Any], str]:
    """``TokenTask.decode`` where ``symbols`` are the words of the ids from ``FIRST`` on."""
    words = ["", "<eos>", ">", *symbols]
    return lambda ids: " ".join(words[int(token)] for token in ids if int(token) != PAD)


def with_one_answer(draw: Callable[[Key], Array], answer: Answer, spec: TokenSpec, name: str, symbols) -> TokenTask:
    """The task whose every prompt has one right completion: ``answer(prompt)``, with its end token."""

    def verify(prompt: Array, completion: Array) -> Array:
        right = answer(prompt)
        return jnp.all((right == PAD) | (completion == right)).astype(jnp.float32)  # what follows the end is not read

    def solve(prompt: Array, key: Key) -> Array:
        return answer(prompt)

    return TokenTask(draw, verify, solve, spec, f"tokens/{name}", decode=decoder(symbols))


def drawn_row(key: Key, base: int, shortest: int, longest: int, first: int = FIRST) -> Array:
    """A prompt ``[longest + 1]``: ``shortest`` to ``longest`` symbols of ``base``, ids from ``first`` on, then SEP."""
    length_key, symbol_key = jax.random.split(key)
    count = jax.random.randint(length_key, (), shortest, longest + 1)
    symbols = first + jax.random.randint(symbol_key, (longest,), 0, base)
    return jnp.append(jnp.where(jnp.arange(longest) >= longest - count, symbols, PAD), SEP).astype(jnp.int32)


def ended(symbols: Array, count: Array) -> Array:
    """The first ``count`` of ``symbols`` ``[K]``, then EOS, then padding: ``[K + 1]``."""
    at = jnp.arange(symbols.shape[0] + 1)
    row = jnp.append(symbols, PAD)
    return jnp.where(at < count, row, jnp.where(at == count, EOS, PAD)).astype(jnp.int32)


def digits(prompt: Array, first: int = FIRST) -> tuple[Array, Array]:
    """Of a prompt of ``drawn_row``: its symbols from the first real one on as numbers ``[P - 1]``, and their count.

    What stands past the count is 0, so that sums and running sums over it are those of the symbols.
    """
    body = prompt[:-1]
    count = (body != PAD).sum()
    at = jnp.arange(body.shape[0])
    found = jnp.take(body, jnp.clip(at + body.shape[0] - count, 0, body.shape[0] - 1)) - first
    return jnp.where(at < count, found, 0), count


def _row_task(name: str, base: int, shortest: int, longest: int, arranged: Callable[[Array, Array], Array]):
    at_least(name, base=(base, 2), shortest=(shortest, 1), longest=(longest, shortest))

    def answer(prompt: Array) -> Array:
        numbers, count = digits(prompt)
        return ended(FIRST + arranged(numbers, count), count)

    spec = TokenSpec(FIRST + base, longest + 1, longest + 1)
    words = [str(number) for number in range(base)]
    return with_one_answer(lambda key: drawn_row(key, base, shortest, longest), answer, spec, name, words)


def copy(base: int = 10, shortest: int = 3, longest: int = 6) -> TokenTask:
    """``shortest`` to ``longest`` symbols of ``base``; the answer is the same ones."""
    return _row_task("copy", base, shortest, longest, lambda numbers, count: numbers)


def reverse(base: int = 10, shortest: int = 3, longest: int = 6) -> TokenTask:
    """``shortest`` to ``longest`` symbols of ``base``; the answer is the same ones from the last to the first."""

    def arranged(numbers: Array, count: Array) -> Array:
        return jnp.take(numbers, jnp.maximum(count - 1 - jnp.arange(numbers.shape[0]), 0))

    return _row_task("reverse", base, shortest, longest, arranged)


def sort(base: int = 10, shortest: int = 3, longest: int = 6) -> TokenTask:
    """``shortest`` to ``longest`` symbols of ``base``; the answer is the same ones in rising order."""

    def arranged(numbers: Array, count: Array) -> Array:
        return jnp.sort(jnp.where(jnp.arange(numbers.shape[0]) < count, numbers, base))

    return _row_task("sort", base, shortest, longest, arranged)


def modular(modulus: int = 13, operation: str = "add") -> TokenTask:
    """Two numbers below ``modulus``; the answer is their sum (``add``) or product (``multiply``) modulo that."""
    at_least("modular", modulus=(modulus, 2))
    if operation not in ("add", "multiply"):
        raise UserError(f"tokens/modular: operation={operation} must be add or multiply")

    def draw(key: Key) -> Array:
        return jnp.append(FIRST + jax.random.randint(key, (2,), 0, modulus), SEP).astype(jnp.int32)

    def answer(prompt: Array) -> Array:
        a, b = prompt[0] - FIRST, prompt[1] - FIRST
        value = (a + b if operation == "add" else a * b) % modulus
        return ended(FIRST + value[None], 1)

    return with_one_answer(draw, answer, TokenSpec(FIRST + modulus, 3, 2), "modular", list(map(str, range(modulus))))


def digit_sum(shortest: int = 2, longest: int = 5) -> TokenTask:
    """``shortest`` to ``longest`` decimal digits; the answer is their sum in decimal, without a leading 0."""
    at_least("digit_sum", shortest=(shortest, 1), longest=(longest, shortest))
    if longest > 11:
        raise UserError(f"tokens/digit_sum: longest={longest} must be at most 11, so that sums have two digits")

    def answer(prompt: Array) -> Array:
        total = digits(prompt)[0].sum()
        two = total >= 10
        written = jnp.stack([jnp.where(two, total // 10, total), total % 10])
        return ended(FIRST + written, 1 + two)

    spec = TokenSpec(FIRST + 10, longest + 1, 3)
    return with_one_answer(
        lambda key: drawn_row(key, 10, shortest, longest), answer, spec, "digit_sum", list(map(str, range(10)))
    )


def parity(shortest: int = 3, longest: int = 8) -> TokenTask:
    """``shortest`` to ``longest`` bits; the answer is 1 if an odd number of them are 1, else 0."""
    at_least("parity", shortest=(shortest, 1), longest=(longest, shortest))

    def answer(prompt: Array) -> Array:
        return ended(FIRST + digits(prompt)[0].sum()[None] % 2, 1)

    spec = TokenSpec(FIRST + 2, longest + 1, 2)
    return with_one_answer(lambda key: drawn_row(key, 2, shortest, longest), answer, spec, "parity", ["0", "1"])


def recall(pairs: int = 4, base: int = 10) -> TokenTask:
    """``pairs`` of a key and a value, all keys different, then one of the keys; the answer is its value."""
    at_least("recall", pairs=(pairs, 1), base=(base, max(pairs, 2)))

    def draw(key: Key) -> Array:
        keys_key, values_key, query_key = jax.random.split(key, 3)
        keys = jax.random.permutation(keys_key, base)[:pairs]
        values = jax.random.randint(values_key, (pairs,), 0, base)
        query = keys[jax.random.randint(query_key, (), 0, pairs)]
        row = jnp.append(jnp.stack([keys, values], axis=1).reshape(-1), query)
        return jnp.append(FIRST + row, SEP).astype(jnp.int32)

    def answer(prompt: Array) -> Array:
        keys, values, query = prompt[0 : 2 * pairs : 2], prompt[1 : 2 * pairs : 2], prompt[2 * pairs]
        return ended(values[jnp.argmax(keys == query)][None], 1)

    spec = TokenSpec(FIRST + base, 2 * pairs + 2, 2)
    return with_one_answer(draw, answer, spec, "recall", list(map(str, range(base))))
