"""Tasks for token policies: a prompt of a few symbols, one exact answer or many, a judge that is a pure function.

``make("reverse")`` is a ``TokenTask``; ``envs.make("tokens/reverse", longest=4)`` the same with another setting. Ids
are 0 padding, 1 end, 2 separator, which ends every prompt, then the task's symbols. Prompts are padded on the left, so
that one program serves every length.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax.numpy as jnp

from jaxrl_reg.envs import _reasoning, _sequences
from jaxrl_reg.errors import unknown
from jaxrl_reg.types import Array, TokenTask

_MAKERS = {
    "copy": _sequences.copy,
    "digit_sum": _sequences.digit_sum,
    "modular": _sequences.modular,
    "parity": _sequences.parity,
    "procedures": _reasoning.procedures,
    "recall": _sequences.recall,
    "reverse": _sequences.reverse,
    "sort": _sequences.sort,
    "split": _reasoning.split,
    "steps": _reasoning.steps,
    "styles": _reasoning.styles,
}
NAMES = tuple(_MAKERS)

procedure_effects = _reasoning.procedure_effects
style_of = _reasoning.style_of


def again(prompt: Array, completion: Array) -> Array:
    """``TokenTask.follow`` of all tasks here: the prompt, what was answered, the separator, ``[P + T + 1]``.

    It is well formed whatever was answered, a completion without an end included.
    """
    return jnp.concatenate([prompt, completion, jnp.array([_sequences.SEP])]).astype(jnp.int32)


def make(member: str, **settings: Any) -> TokenTask:
    """The task ``member`` of ``NAMES``; its settings are the arguments of the function that makes it.

    Raises:
      UserError: for an unknown task or setting, with the nearest one, or a value that the task cannot have.
    """
    if member not in _MAKERS:
        raise unknown("task of tokens", member, NAMES)
    known = list(inspect.signature(_MAKERS[member]).parameters)
    for key in settings:
        if key not in known:
            raise unknown(f"setting of tokens/{member}", key, known)
    return _MAKERS[member](**settings)._replace(follow=again)
