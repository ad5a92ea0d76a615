"""Tasks after training: rewards put to the data, a task vector inferred from them, episodes of it in the graph.

The protocol is ExORL's (arXiv 2201.13425): physics is set to a state of the data, its action is executed again, and the
reward and the observation are those of the state this leads to.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import foreign
from jaxrl_reg.data.samplers import take
from jaxrl_reg.envs import with_reward
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.evaluation.returns import episode_returns
from jaxrl_reg.loops.offline import EVALUATE
from jaxrl_reg.types import Agent, Array, Dataset, Env, EnvState, Key, Metrics, Policy, PyTree, memoryless

ZERO_SHOT = 102  # stream of the episodes that judge tasks, beside those of the loops
SAMPLES = 10_000  # labelled states from which a task vector is inferred
OWN = "own"  # the environment's own reward, where it offers no tasks


class Task(NamedTuple):
    """A reward with a name: ``reward(before, action [A], after) -> scalar`` from the environment's states.

    ``source`` is where a reward of the user's own comes from, for messages.
    """

    name: str
    reward: Callable[[EnvState, Array, EnvState], Array]
    source: str = ""


class Labelled(NamedTuple):
    """What steps of the data led to: ``observation [N, O]``, and the ``reward [T, N]`` of each task for it."""

    observation: Array
    reward: Array


def tasks_of(env: Env, names: Sequence[str] | None = None) -> list[Task]:
    """The tasks that ``env`` offers, all or the named ones; its own reward where it offers none.

    Raises ``UserError`` for a name that it does not know.
    """
    if env.tasks is None:
        for name in names or ():
            if name != OWN:
                raise unknown(f"task of {env.name}, which offers only its own reward,", name, [OWN])
        return [own_reward()]
    known = env.tasks
    for name in names or ():
        if name not in known.names:
            raise unknown(f"task of {env.name}", name, known.names)

    def task(name: str) -> Task:
        return Task(name, lambda before, action, after: known.reward(known.physics(after), name))

    return [task(name) for name in names or known.names]


def own_reward() -> Task:
    """What the environment itself pays, as a task."""
    return Task(OWN, lambda before, action, after: after.reward)


def task_of(name: str, function: Callable[[Array, Array, Array], Any], env: Env, source: str = "") -> Task:
    """A task from ``function(observation [O], action [A], next_observation [O]) -> scalar``, written in JAX.

    Raises ``UserError``, naming ``source``, if the function fails on one step or gives anything but one real number.
    """
    source = source or f"reward {name}"
    observation, action = (
        jax.ShapeDtypeStruct((n,), jnp.float32) for n in (env.spec.observation_dim, env.spec.action_dim)
    )
    try:
        out = jax.eval_shape(function, observation, action, observation)
    except Exception as error:  # the user's own; whatever it is, the line says where
        reason = str(error).strip().splitlines() or [""]
        raise UserError(f"{source} fails on one step: {type(error).__name__}: {reason[0][:160]}") from error
    shape = getattr(out, "shape", None)
    numeric = shape is not None and (jnp.issubdtype(out.dtype, jnp.number) or out.dtype == jnp.bool_)
    if shape != () or not numeric or jnp.issubdtype(out.dtype, jnp.complexfloating):
        found = f"an array of shape {shape}" if shape is not None else f"a {type(out).__name__}"
        raise UserError(
            f"{source} must give one number for observation [{observation.shape[0]}], action [{action.shape[0]}] and "
            f"next observation [{observation.shape[0]}], but gives {found}"
        )

    def reward(before, action, after):
        return jnp.asarray(function(before.observation, action, after.final_observation), jnp.float32)

    return Task(name, reward, source)


def load_task(text: str, env: Env) -> Task:
    """The task in ``my_file.py:my_reward``, see ``task_of``.

    Raises ``UserError`` for a file or function that is not there, or does not work.
    """
    path, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        raise UserError(f"reward {text!r} is not FILE.py:FUNCTION, such as my_rewards.py:far_left")
    if not pathlib.Path(path).is_file():
        raise UserError(f"reward {text}: there is no file {path}")
    module = foreign.load_file(path)
    function = getattr(module, name, None)
    if not callable(function):
        defined = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise unknown(f"function of {path}", name, defined)
    return task_of(name, function, env, f"{path}: {name}")


def relabel(env: Env, data: Dataset, tasks: Sequence[Task], key: Key, samples: int = SAMPLES) -> Labelled:
    """``samples`` rows of the data, without repetition, and what every task pays for them.

    With ``data.extras["physics"]`` and an environment with tasks, each row is executed again (see above). Without, the
    next observation and the reward are those in the data, which serves rewards of observations and the data's own.

    Raises:
      UserError: for a task of the environment when the data hold no physics, or a reward that is not finite.
    """
    rows = jax.random.permutation(key, data.size)[: min(samples, data.size)]
    batch = take(data, jnp.sort(rows))
    physics = batch.extras.get("physics") if env.tasks is not None else None
    if physics is None:
        named = [task.name for task in tasks if env.tasks is not None and task.name in env.tasks.names]
        if named:
            raise UserError(
                f"data set {data.name!r} holds no physics states, so it cannot be relabelled for {named[0]}; collect "
                "it with jaxrl-reg collect, or give a reward of observations"
            )
        zero = jnp.zeros((), jnp.float32)

    def label(row: Any) -> tuple[Array, Array]:
        if physics is not None:
            assert env.tasks is not None
            before = env.tasks.restore(row.extras["physics"])
            after = env.step(before, row.action)
        else:
            before = EnvState(row.observation, zero, zero, zero, row.observation, jnp.int32(0), jax.random.key(0), ())
            after = dataclasses.replace(
                before, observation=row.next_observation, final_observation=row.next_observation, reward=row.reward
            )
        rewards = [jnp.asarray(task.reward(before, row.action, after), jnp.float32) for task in tasks]
        return after.final_observation, jnp.stack(rewards)

    observation, reward = jax.jit(jax.vmap(label))(batch)
    for task, values in zip(tasks, np.asarray(reward).T, strict=True):
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            where = np.array2string(np.asarray(observation[wrong[0]]), precision=3)
            raise UserError(
                f"{task.source or f'reward {task.name}'} is {values[wrong[0]]} for {wrong.size:,} of {values.size:,} "
                f"states of the data, such as {where}"
            )
    return Labelled(observation, reward.T)


def judge(
    env: Env, tasks: Sequence[Task], episodes: int
) -> Callable[[Callable[[Array], Policy], Key], dict[str, Array]]:
    """Episodes of every task, all side by side: one program of the physics.

    Returns:
      ``fn(policy_of_task, key)`` with ``policy_of_task(index) -> Policy`` for a traced index, giving what
      ``evaluation.returns.episode_returns`` gives, each ``[T, episodes]``.
    """

    def run(policy_of_task: Callable[[Array], Policy], key: Key) -> dict[str, Array]:
        def one(index: Array) -> dict[str, Array]:
            def reward(before: EnvState, action: Array, after: EnvState) -> Array:
                return jnp.stack([jnp.asarray(task.reward(before, action, after), jnp.float32) for task in tasks])[
                    index
                ]

            paid = episode_returns(with_reward(env, reward), episodes)
            return paid(policy_of_task(index), jax.random.fold_in(key, index))

        return jax.vmap(one)(jnp.arange(len(tasks)))

    return run


def serve(agent: Agent, state: PyTree, labelled: Labelled) -> Callable[[Array], Policy]:
    """``policy_of_task`` for ``judge``: each task's vector inferred from the labelled states, acting greedily.

    Raises ``UserError`` for an agent that cannot serve tasks after training.
    """
    zero_shot = agent.zero_shot
    if zero_shot is None:
        raise UserError("this agent serves no tasks after training: it has no zero_shot")
    z = jax.vmap(lambda reward: zero_shot.infer_z(state, labelled.observation, reward))(labelled.reward)
    if (policy := zero_shot.policy) is not None:
        return lambda index: policy(state, z[index])
    return lambda index: memoryless(lambda observation, key: zero_shot.act(state, observation, z[index], key))


def evaluation(
    env: Env, agent: Agent, tasks: Sequence[Task], labelled: Labelled, episodes: int
) -> Callable[[PyTree, Array, Key, PyTree], Metrics]:
    """``Run.evaluate`` for an agent that learns without rewards: ``eval/return`` is the mean over tasks, and there is
    ``eval/<task>`` for each, means over ``episodes`` episodes; also ``eval/length``, and ``eval/return_std``, the
    standard deviation over a task's episodes, a mean over tasks."""
    run = judge(env, tasks, episodes)

    def evaluate(state: PyTree, index: Array, key: Key, hyper: PyTree) -> Metrics:
        results = run(serve(agent, state, labelled), jax.random.fold_in(jax.random.fold_in(key, EVALUATE), index))
        each = results["return"].mean(axis=1)
        return {
            "eval/return": each.mean(),
            "eval/return_std": results["return"].std(axis=1).mean(),
            "eval/length": results["length"].mean(),
            **{f"eval/{task.name}": value for task, value in zip(tasks, each, strict=True)},
        }

    return evaluate


def mean_reward(env: Env, tasks: Sequence[Task]) -> Env:
    """``env`` paying the mean over ``tasks``: what a policy that knows no task is judged by."""

    def reward(before: EnvState, action: Array, after: EnvState) -> Array:
        return jnp.mean(jnp.stack([jnp.asarray(task.reward(before, action, after)) for task in tasks]))

    return with_reward(env, reward)


def mean_relabelled(env: Env, data: Dataset) -> Dataset:
    """``data`` whose ``reward`` is the mean over the environment's tasks, for judging the policy that collected it.

    The state that a row led to is the next row's; at the end of an episode, where no row follows, the last state
    counts again. The scores of the data set's own task are dropped.
    """
    tasks = env.tasks
    if tasks is None or "physics" not in data.extras:
        return data
    following = jnp.minimum(jnp.arange(data.size) + 1, data.end - 1)
    reached = data.extras["physics"][following]
    reward = jnp.mean(jnp.stack([tasks.reward(reached, name) for name in tasks.names]), axis=0)
    nothing = jnp.full((), jnp.nan, jnp.float32)
    return dataclasses.replace(
        data, reward=reward, dropped_reward=None, rewarded=True, score_random=nothing, score_expert=nothing
    )
