"""Agents that learn without a task: what they are judged by, and the labelled rows from which they infer it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg.io.files import whole
from jaxrl_reg.jobs.job import Inference

if TYPE_CHECKING:
    from jaxrl_reg.jobs.job import Keep
    from jaxrl_reg.jobs.learners import Learner
    from jaxrl_reg.jobs.settings import JobConfig
    from jaxrl_reg.loops.zero_shot import Labelled, Task
    from jaxrl_reg.types import Dataset, Env

LABEL_STREAM = 8
REMEMBERED = "tasks.npz"  # in a run directory; see ``remember``


def known(env: Env, data: Dataset) -> list[Task]:
    """What an agent that serves tasks is judged by during training: all tasks of the environment, or its own reward
    where it offers none or the data hold no physics to relabel."""
    from jaxrl_reg.loops import zero_shot

    relabelled = env.tasks is not None and "physics" in data.extras
    return zero_shot.tasks_of(env) if relabelled else [zero_shot.own_reward()]


def label_rows(
    env: Env, data: Dataset, tasks: Sequence[Task], config: JobConfig, samples: int | None = None
) -> Labelled:
    """Rows of the data with their rewards for each of the tasks; the same ones for every call with this config."""
    import jax

    from jaxrl_reg.loops import zero_shot

    key = jax.random.fold_in(jax.random.key(config.seed_offset), LABEL_STREAM)
    return zero_shot.relabel(env, data, tasks, key, zero_shot.SAMPLES if samples is None else samples)


def keeping(env: Env, data: Dataset, config: JobConfig) -> Callable[[Learner], Keep]:
    """``Job.keep`` of such an agent: it serves the environment's own reward."""

    def keep(member: Learner) -> Keep:
        import jax.numpy as jnp

        from jaxrl_reg.loops import zero_shot
        from jaxrl_reg.types import policy_of

        agent = member.make(member.config, env.spec)
        if agent.zero_shot is None:
            return lambda state, hyper: policy_of(agent, state, hyper)
        labelled = label_rows(env, data, [zero_shot.own_reward()], config)

        def act(state: Any, hyper: Any) -> Any:
            return zero_shot.serve(agent, state, labelled)(jnp.int32(0))

        return act

    return keep


def inference(env: Env, data: Dataset, config: JobConfig) -> Inference:
    """``Job.infer`` of such an agent: of its own reward, first, and of all that it is judged by."""
    from jaxrl_reg.loops import zero_shot

    chosen = {task.name: task for task in (zero_shot.own_reward(), *known(env, data))}
    labelled = label_rows(env, data, list(chosen.values()), config)
    return Inference(list(chosen), labelled, lambda member: vectors_of(member, env))


def vectors_of(member: Learner, env: Env) -> Callable[[Any, Labelled], Any]:
    """``(state, labelled) -> [T, D]``: what a member infers of each task from the labelled rows."""
    import jax

    zero_shot = member.make(member.config, env.spec).zero_shot
    assert zero_shot is not None

    def vectors(state: Any, labelled: Labelled) -> Any:
        return jax.vmap(lambda reward: zero_shot.infer_z(state, labelled.observation, reward))(labelled.reward)

    return vectors


def remember(path: pathlib.Path, folder: str, names: Sequence[str], vectors: Any) -> None:
    """Keep the vectors ``[H, S, T, D]`` that the members of a program have inferred, beside those that are there:
    ``tasks.npz`` has one array ``[H, S, D]`` for each task, called after the program's ``folder`` and the task."""
    import numpy as np

    stored = path / REMEMBERED
    kept = {}
    if stored.exists():
        with np.load(stored, allow_pickle=False) as before:
            kept = {name: before[name] for name in before.files}
    kept |= {f"{folder}/{name}": np.asarray(vectors[:, :, t]) for t, name in enumerate(names)}
    with whole(stored) as partial, partial.open("wb") as file:
        np.savez(file, **kept)


def remembered(path: pathlib.Path, folder: str) -> dict[str, Any]:
    """What ``remember`` has kept for a program: task -> ``[H, S, D]``; empty if nothing."""
    import numpy as np

    stored = path / REMEMBERED
    if not stored.exists():
        return {}
    with np.load(stored, allow_pickle=False) as vectors:
        named = {name.partition("/"): vectors[name] for name in vectors.files}
    return {task: values for (owner, _, task), values in named.items() if owner == folder}
