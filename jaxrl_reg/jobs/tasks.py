"""Agents that learn without a task: what they are judged by, and the labelled rows from which they infer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_reg.jobs.job import Keep
    from jaxrl_reg.jobs.learners import Learner
    from jaxrl_reg.jobs.settings import JobConfig
    from jaxrl_reg.loops.zero_shot import Labelled, Task
    from jaxrl_reg.types import Dataset, Env

LABEL_STREAM = 8


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
