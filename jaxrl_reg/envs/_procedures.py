"""The task of tokens whose operations recur: procedures; what a handbook needs to read its traces and fill hints in.

Source: Didolkar et al., 2025, Metacognitive Reuse (arXiv 2509.13237), its core without language.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs._reasoning import ANSWER, answered, closed
from jaxrl_reg.envs._sequences import PAD, SEP, at_least, decoder
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key, TokenSpec, TokenTask

HINTS = ("blank", "true", "mixed")
BLANK, NUMBER = ANSWER + 1, ANSWER + 2  # ids: no hint, and 0; operations follow the numbers


def procedure_effects(operations: int = 6, primitives: int = 3, modulus: int = 5, seed: int = 0) -> np.ndarray:
    """What each primitive step of each operation of ``procedures`` adds: ``[operations, primitives]``, on the host.

    The net effect of an operation is the sum of its row modulo ``modulus``.
    """
    return np.random.default_rng(seed).integers(0, modulus, (operations, primitives))


class Procedures(NamedTuple):
    """The world of ``procedures``. ``effects`` may be traced, so that one program serves many tables of operations."""

    effects: Array  # [operations, primitives], what each primitive step adds
    per_problem: int = 3  # operations in a prompt, K
    modulus: int = 5

    @property
    def operation(self) -> int:
        """The id of the first operation."""
        return NUMBER + self.modulus

    def task(self, hints: str = "mixed") -> TokenTask:
        """The task with ``hints`` as ``procedures`` describes them. Raises ``UserError`` for others."""
        if hints not in HINTS:
            raise UserError(f"tokens/procedures: hints={hints} must be one of {', '.join(HINTS)}")
        operations, primitives = self.effects.shape
        table = jnp.asarray(self.effects, jnp.int32)

        def draw(key: Key) -> Array:
            start_key, operation_key, hint_key, which_key = jax.random.split(key, 4)
            start = NUMBER + jax.random.randint(start_key, (1,), 0, self.modulus)
            chosen = jax.random.randint(operation_key, (self.per_problem,), 0, operations)
            given = NUMBER + jax.random.randint(hint_key, (self.per_problem,), 0, self.modulus)
            if hints == "true":
                given = NUMBER + table.sum(-1)[chosen] % self.modulus
            empty = hints == "blank" or (hints == "mixed") & jax.random.bernoulli(which_key)
            pairs = jnp.stack([self.operation + chosen, jnp.where(empty, BLANK, given)], axis=1).reshape(-1)
            return jnp.concatenate([start, pairs, jnp.array([SEP])]).astype(jnp.int32)

        def read(prompt: Array) -> tuple[Array, Array, Array]:
            """The number to start from, what each primitive step adds ``[K, primitives]``, whether hints are given."""
            chosen, given = prompt[1:-1:2] - self.operation, prompt[2:-1:2]
            follow = jnp.all(given != BLANK)
            hinted = jnp.zeros_like(table[chosen]).at[:, -1].set(given - NUMBER)
            return prompt[0] - NUMBER, jnp.where(follow, hinted, table[chosen]), follow

        def verify(prompt: Array, completion: Array) -> Array:
            start, added, _ = read(prompt)
            return answered(completion, NUMBER + (start + added.sum()) % self.modulus)

        def solve(prompt: Array, key: Key) -> Array:
            start, added, follow = read(prompt)
            values = (start + jnp.cumsum(added.reshape(-1))) % self.modulus
            short = values[primitives - 1 :: primitives]
            row = jnp.pad(jnp.where(follow, jnp.pad(short, (0, values.size - self.per_problem)), values), (0, 3))
            at = jnp.where(follow, self.per_problem, values.size)
            row = jnp.where(jnp.arange(row.size) < at, NUMBER + row, PAD)
            return closed(row, at, NUMBER + values[-1])

        spec = TokenSpec(self.operation + operations, 2 * self.per_problem + 2, primitives * self.per_problem + 3)
        words = ["=", "_", *map(str, range(self.modulus)), *(chr(ord("a") + i % 26) for i in range(operations))]
        return TokenTask(draw, verify, solve, spec, "tokens/procedures", decode=decoder(words))

    def trace(self, prompt: Array, completion: Array) -> tuple[Array, Array, Array, Array]:
        """Of a completion that writes every intermediate value: each operation ``[K]``, the number before and after it
        ``[K]``, and 1.0 where all values and the end of it are in their places, else 0.0."""
        primitives = self.effects.shape[1]
        count = primitives * self.per_problem
        values = completion[:count] - NUMBER
        whole = jnp.all((values >= 0) & (values < self.modulus)) & (answered(completion, NUMBER + values[-1]) > 0)
        whole &= completion[count] == ANSWER
        after = values[primitives - 1 :: primitives]
        before = jnp.concatenate([prompt[:1] - NUMBER, after[:-1]])
        return prompt[1:-1:2] - self.operation, before, after, whole.astype(jnp.float32)

    def hinted(self, prompt: Array, effect: Array, known: Array | bool = True) -> Array:
        """The prompt with ``effect`` ``[operations]`` as the hint of each of its operations, all blank where one of
        them is not ``known`` ``[operations]``."""
        chosen = prompt[1:-1:2] - self.operation
        all_known = jnp.all(jnp.broadcast_to(jnp.asarray(known), effect.shape)[chosen])
        hints = jnp.where(all_known, NUMBER + jnp.asarray(effect)[chosen], BLANK)
        return prompt.at[2:-1:2].set(hints.astype(prompt.dtype))


def procedures(
    operations: int = 6,
    primitives: int = 3,
    per_problem: int = 3,
    modulus: int = 5,
    seed: int = 0,
    hints: str = "mixed",
) -> TokenTask:
    """A number, then ``per_problem`` operations, each with a hint of its net effect or a blank; what comes out?

    An operation is ``primitives`` steps, each of which adds a number modulo ``modulus`` (``procedure_effects``). Where
    all hints are given they count, right or wrong, so blank them to judge against the operations themselves. ``solve``
    writes every intermediate value where hints are blank, and one for each operation where they are given. ``hints``
    says what ``draw`` gives: ``blank``, ``true``, or ``mixed``, half of the prompts blank and half with random hints,
    which can only be followed by reading them.
    """
    sizes = {"operations": (operations, 1), "primitives": (primitives, 1), "per_problem": (per_problem, 1)}
    at_least("procedures", **sizes, modulus=(modulus, 2))
    effects = jnp.asarray(procedure_effects(operations, primitives, modulus, seed), jnp.int32)
    return Procedures(effects, per_problem, modulus).task(hints)
