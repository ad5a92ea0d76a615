"""A trained token policy that leaves its run: it answers prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from jaxrl_reg.types import Policy, TokenSpec


class Answer:
    """A trained token policy as a function: ``answer(prompt) -> completion``, greedy.

    ``prompt`` holds ids, ``[n]`` with ``n`` up to the longest prompt of the task, or ``[B, n]`` for several; shorter
    ones are padded on the left here. The completion is a NumPy array ``[T]`` or ``[B, T]``, int32, padded after its
    end. ``about`` says which member this is; ``spec`` gives the sizes. A policy of two ``turns`` gives its first answer
    to such a prompt, and its second to what the task's ``follow(prompt, completion)`` makes of both.
    """

    def __init__(self, policy: Policy, spec: TokenSpec, about: Mapping[str, Any], turns: int = 1):
        import jax

        def answer(prompt: Any) -> Any:
            return policy.step(policy.start(prompt.shape[:-1]), prompt, 0.0, jax.random.key(0))[0]

        self.spec, self.about, self._turns = spec, about, turns
        self._answer = jax.jit(answer)

    def __call__(self, prompt: Any) -> np.ndarray:
        import numpy as np

        given, longest, ids = np.asarray(prompt), self.spec.prompt, self.spec.vocabulary
        if self._turns == 2 and given.ndim and given.shape[-1] == self.spec.second.prompt:
            longest = self.spec.second.prompt
        if given.ndim not in (1, 2) or not 1 <= given.shape[-1] <= longest:
            raise UserError(
                f"this policy takes prompts of 1 to {longest} ids, [n] or [B, n], not an array {list(given.shape)}"
            )
        if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= ids:
            raise UserError(f"this policy takes whole numbers from 0 to {ids - 1} as ids; got {given.tolist()}")
        width = [(0, 0)] * (given.ndim - 1) + [(longest - given.shape[-1], 0)]
        return np.asarray(self._answer(np.pad(given, width, constant_values=self.spec.PAD).astype(np.int32)))
