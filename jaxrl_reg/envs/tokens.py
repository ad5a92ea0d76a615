"""Tasks for token policies: a prompt of a few symbols, one exact answer or many, a judge that is a pure function.

``make("reverse")`` is a ``TokenTask``; ``envs.make("tokens/reverse", longest=4)`` the same with another setting. Ids
are 0 padding, 1 end, 2 separator, which ends every prompt, then the task's symbols. Prompts are padded on the left, so
that one program serves every length.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.envs import _procedures, _reasoning, _sequences
from jaxrl_reg.errors import unknown
from jaxrl_reg.types import Array, TokenSpec, TokenTask

_MAKERS = {
    "copy": _sequences.copy,
    "digit_sum": _sequences.digit_sum,
    "modular": _sequences.modular,
    "parity": _sequences.parity,
    "procedures": _procedures.procedures,
    "recall": _sequences.recall,
    "reverse": _sequences.reverse,
    "sort": _sequences.sort,
    "split": _reasoning.split,
    "steps": _reasoning.steps,
    "styles": _reasoning.styles,
}
NAMES = tuple(_MAKERS)

Procedures = _procedures.Procedures
procedure_effects = _procedures.procedure_effects
style_of = _reasoning.style_of


def again(prompt: Array, completion: Array) -> Array:
    """``TokenTask.follow`` of all tasks here: the prompt, what was answered, the separator, ``[P + T + 1]``.

    It is well formed whatever was answered, a completion without an end included.
    """
    return jnp.concatenate([prompt, completion, jnp.array([_sequences.SEP])]).astype(jnp.int32)


def maker(member: str) -> Callable[..., TokenTask]:
    """The function behind a name; its arguments are the task's settings, and ``prefix``, see ``prefixed``.

    Raises ``UserError`` for an unknown name.
    """
    if member not in _MAKERS:
        raise unknown("task of tokens", member, NAMES)
    own = _MAKERS[member]

    @functools.wraps(own)
    def made(prefix: str = "", **settings: Any) -> TokenTask:
        return prefixed(own(**settings), prefix)._replace(follow=again)

    last = inspect.Parameter("prefix", inspect.Parameter.KEYWORD_ONLY, default="", annotation="str")
    signature = inspect.signature(own)
    made.__signature__ = signature.replace(parameters=[*signature.parameters.values(), last])
    return made


def make(member: str, **settings: Any) -> TokenTask:
    """The task ``member`` of ``NAMES``; its settings are the arguments of the function that makes it.

    Raises:
      UserError: for an unknown task or setting, with the nearest one, or a value that the task cannot have.
    """
    function = maker(member)
    known = list(inspect.signature(function).parameters)
    for key in settings:
        if key not in known:
            raise unknown(f"setting of tokens/{member}", key, known)
    return function(**settings)


def prefixed(task: TokenTask, words: str) -> TokenTask:
    """The task with ``words`` in front of every question, an instruction to train under; the judge does not see them.

    A word of the task's own (``task.decode``) is its symbol, any other one a new symbol after the vocabulary. They
    stand right before the first symbol of a prompt, after its padding.
    """
    own = {task.decode([token]): token for token in range(1, task.spec.vocabulary)}
    new = [word for word in dict.fromkeys(words.split()) if word not in own]
    ids = own | {word: task.spec.vocabulary + i for i, word in enumerate(new)}
    row = jnp.array([ids[word] for word in words.split()], jnp.int32)
    if not row.size:
        return task

    def put(prompt: Array) -> Array:
        padding = jnp.argmax(prompt != task.spec.PAD)
        return jax.lax.dynamic_update_slice(jnp.pad(prompt, (row.size, 0)), row, (padding,))

    def question(prompt: Array) -> Array:
        padding = jnp.argmax(prompt != task.spec.PAD)
        rest = prompt[row.size :]
        return jnp.where(jnp.arange(rest.size) < padding, task.spec.PAD, rest)

    def behind(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return None if function is None else lambda prompt, *rest: function(question(prompt), *rest)

    spec = task.spec
    names = {token: word for word, token in ids.items()}
    return task._replace(
        draw=lambda key: put(task.draw(key)),
        verify=lambda prompt, completion: task.verify(question(prompt), completion),
        solve=behind(task.solve),
        parts=behind(task.parts),
        spec=TokenSpec(spec.vocabulary + len(new), spec.prompt + row.size, spec.completion),
        decode=lambda tokens: " ".join(names[int(token)] for token in tokens if int(token) != spec.PAD),
    )
