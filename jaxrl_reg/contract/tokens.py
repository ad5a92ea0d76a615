"""What the suite gives to agents of kind ``tokens``, and what it asks of their completions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.types import Array, Completions, Key, TokenSpec

if TYPE_CHECKING:
    from jaxrl_reg.contract.subject import Subject

SPEC = TokenSpec(vocabulary=8, prompt=4, completion=4)
PROMPTS, GROUP = 4, 4
LESSONS = 40  # supervised steps in which a loss must fall


def example() -> Completions:
    """Random prompts, padded on the left, and random completions: some end, one is cut off, all of one group pay. The
    second turn, for agents that have one, shows them and is answered by those of the others."""
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, SPEC.vocabulary, (PROMPTS, SPEC.prompt))
    prompt[np.arange(SPEC.prompt) < np.arange(PROMPTS)[:, None] % 3] = SPEC.PAD
    completion = rng.integers(2, SPEC.vocabulary, (PROMPTS, GROUP, SPEC.completion))
    ends = rng.integers(1, SPEC.completion + 1, (PROMPTS, GROUP, 1))  # a completion of all columns has no end
    at = np.arange(SPEC.completion)
    completion = np.where(at < ends, completion, np.where(at == ends, SPEC.EOS, SPEC.PAD))
    reward = (np.arange(GROUP) < np.arange(PROMPTS)[:, None] + 1).astype(np.float32)
    first = Completions(
        jnp.asarray(prompt, jnp.int32),
        jnp.asarray(completion, jnp.int32),
        jnp.asarray(at <= ends, jnp.float32),
        jnp.asarray(reward),
        jnp.asarray(ends[..., 0] == SPEC.completion, jnp.float32),
    )
    shown = [np.broadcast_to(prompt[:, None], (PROMPTS, GROUP, SPEC.prompt)), completion]
    shown.append(np.full((PROMPTS, GROUP, 1), SPEC.vocabulary - 1))
    again = jnp.asarray(np.concatenate(shown, axis=-1), jnp.int32)
    second = jax.tree.map(lambda leaf: leaf[:, ::-1], dataclasses.replace(first, prompt=again))
    return dataclasses.replace(first, extras={"second": dataclasses.replace(second, prompt=again)})


def sampled(data: Completions, key: Key, batch_size: int) -> Completions:
    """The completions as they are, the groups in another order."""
    order = jax.random.permutation(key, data.reward.shape[0])
    return jax.tree.map(lambda leaf: leaf[order], data)


SAMPLERS = {"tokens": sampled}


def spec_of(data: Completions) -> TokenSpec:
    """The sizes that an agent for these completions is made for."""
    return SPEC


def observed(spec: TokenSpec, leading: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """What ``act`` sees, by its shape: ``[..., P]``."""
    return jax.ShapeDtypeStruct((*leading, spec.prompt), jnp.int32)


def constant(data: Completions, reward: float) -> Completions:
    """The same completions, every one paid the same, in both turns."""
    extras = {name: constant(second, reward) for name, second in data.extras.items()}
    return dataclasses.replace(data, reward=jnp.full_like(data.reward, reward), extras=extras)


def observations(spec: TokenSpec, count: int) -> Array:
    """Ordinary prompts, then nothing but padding, then the largest id everywhere: ``[3 count, P]``."""
    normal = jax.random.randint(jax.random.key(1), (count, spec.prompt), 2, spec.vocabulary)
    return jnp.concatenate([normal, jnp.zeros_like(normal), jnp.full_like(normal, spec.vocabulary - 1)])


def fault_of(completion: np.ndarray) -> str | None:
    """What is wrong with completions ``[..., T]`` as such; None: nothing."""
    if completion.min() < 0 or completion.max() >= SPEC.vocabulary:
        return f"gives ids from {completion.min()} to {completion.max()}; they lie in [0, {SPEC.vocabulary})"
    ends = completion == SPEC.EOS
    after = np.cumsum(ends, axis=-1) - ends > 0
    if (completion[after] != SPEC.PAD).any():
        return "goes on after the end token; only padding follows it"
    return None


def lessons(subject: Subject) -> tuple[str, list[float]]:
    """The name of the loss of ``imitate`` and its values over ``LESSONS`` steps on the first completions."""
    imitate, key = subject.agent.imitate, subject.key
    assert imitate is not None
    rows = subject.rows
    data = dataclasses.replace(jax.tree.map(lambda leaf: leaf[:, :1], rows), prompt=rows.prompt)

    def run(state, hyper):
        def body(state, i):
            return imitate(state, data, hyper, jax.random.fold_in(key, i), i)

        return jax.lax.scan(body, state, jnp.arange(LESSONS))[1]

    from jaxrl_reg.contract.subject import quick

    metrics = jax.device_get(quick(run)(subject.start(key, subject.hyper), subject.hyper))
    name = next((name for name in sorted(metrics) if "loss" in name), "")
    return name, [] if not name else metrics[name].tolist()
