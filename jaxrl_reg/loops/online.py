"""Online training: environments, replay and updates in one scan."""

from __future__ import annotations

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.data import buffers
from jaxrl_reg.envs import vectorize
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.offline import INIT, TRAIN, Evaluator, evaluate_agent
from jaxrl_reg.loops.rollout import Extras, rollout, uniform_actions
from jaxrl_reg.types import Agent, Array, Env, EnvState, Key, Metrics, PyTree, Run, Transition

KINDS = ("off_policy", "on_policy")


class OnlineState(NamedTuple):
    """What a segment starts from: ``replay`` is None on-policy; ``ongoing`` and ``finished`` ``[E]`` are the reward so
    far in the episode under way, and the return of the last finished one (0 before there is one)."""

    agent: PyTree
    env: EnvState
    replay: PyTree
    ongoing: Array
    finished: Array


def kind_of(agent: Agent) -> str | None:
    """``KIND`` of the module that made ``agent``, or None if that has none."""
    return getattr(sys.modules.get(agent.update.__module__), "KIND", None)


def track(ongoing: Array, finished: Array, trajectory: Transition) -> tuple[Array, Array]:
    """``ongoing`` and ``finished`` after a trajectory ``[T, E]``."""

    def body(carry, row):
        ongoing, finished = carry
        reward, last = row
        ongoing = ongoing + reward
        return (jnp.where(last > 0, 0.0, ongoing), jnp.where(last > 0, ongoing, finished)), None

    return jax.lax.scan(body, (ongoing, finished), (trajectory.reward, trajectory.last))[0]


def online(
    agent: Agent,
    env: Env,
    *,
    steps: int,
    num_envs: int = 1,
    segments: int = 1,
    unroll: int = 1,
    updates: int = 1,
    batch_size: int = 256,
    warmup: int = 1_000,
    capacity: int | None = None,
    evaluate: Evaluator | None = None,
    kind: str | None = None,
    extras: Extras | None = None,
) -> Run:
    """A run that acts and learns. One iteration is ``unroll`` steps of ``num_envs`` environments, then the updates.

    Off-policy, the steps go into a replay buffer and ``updates`` uniform batches come out of it. On-policy, the
    trajectory ``[unroll, num_envs]`` is handed to one ``agent.update``, and ``updates``, ``batch_size``, ``warmup`` and
    ``capacity`` have no say.

    Args:
      agent: an off-policy agent such as ``sac`` and ``td3``, or an on-policy one such as ``ppo``.
      env: a single environment; it is vectorised here, with auto-reset.
      steps: environment steps of training, all environments together, ``warmup`` not counted.
      num_envs: environments side by side, ``E``.
      segments: number of equal parts; metrics are averaged, and the agent evaluated, once per part.
      unroll: steps of each environment per iteration.
      updates: calls of ``agent.update`` per iteration.
      batch_size: rows per update.
      warmup: environment steps with uniformly random actions, before the first iteration.
      capacity: rows of the replay buffer, the oldest overwritten first; all rows are kept by default.
      evaluate: ``fn(act, key) -> metrics``, such as ``evaluation.returns.evaluator(env, episodes)``.
      kind: ``"off_policy"`` or ``"on_policy"``; by default the ``KIND`` of the agent's module.
      extras: see ``loops.rollout``; kept in the replay.

    Returns:
      A ``Run`` without data: ``run(key, hyper) -> (OnlineState, history)``. Beside the agent's metrics,
      ``train/return`` is the mean return of the environments' last finished episodes, exploration included.

    Raises:
      UserError: for an agent that does not learn online, or numbers that do not divide.
    """
    kind = kind or kind_of(agent)
    if kind not in KINDS:
        raise UserError(
            f"online training needs an agent of kind {' or '.join(KINDS)}, the one of {agent.update.__module__} is "
            f"{kind}; take sac, td3 or ppo, or pass kind= for your own"
        )
    on_policy, per_iteration = kind == "on_policy", num_envs * unroll
    sizes = {"num_envs": num_envs, "unroll": unroll, "updates": updates, "segments": segments, "steps": steps}
    for size, value in sizes.items():
        if value < 1:
            raise UserError(f"{size}={value} must be at least 1")
    if steps % (segments * per_iteration):
        raise UserError(f"steps={steps} must be a multiple of segments*num_envs*unroll={segments * per_iteration}")
    if not on_policy and (warmup < num_envs or warmup % num_envs):
        raise UserError(f"warmup={warmup} must be a positive multiple of num_envs={num_envs}")
    if capacity is None:
        capacity = warmup + steps
    iterations = steps // (segments * per_iteration)
    updates = 1 if on_policy else updates
    vector = vectorize(env, num_envs)

    def init(key: Key, hyper: PyTree) -> OnlineState:
        agent_key, env_key, warmup_key = jax.random.split(jax.random.fold_in(key, INIT), 3)
        env_state, zeros, replay = vector.reset(env_key), jnp.zeros(num_envs), None
        returns = zeros, zeros
        if not on_policy:
            act = uniform_actions(env.spec.action_dim)
            env_state, rows = rollout(vector, act, env_state, warmup_key, warmup // num_envs, extras)
            replay = buffers.add(buffers.init(capacity, jax.tree.map(lambda leaf: leaf[0, 0], rows)), rows)
            returns = track(*returns, rows)
        return OnlineState(agent.init(agent_key, hyper), env_state, replay, *returns)

    def train(
        state: OnlineState, index: Array, key: Key, hyper: PyTree, data: None = None
    ) -> tuple[OnlineState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(key, TRAIN), index)

        def iteration(state: OnlineState, i: Array) -> tuple[OnlineState, Metrics]:
            act_key, learn_key = jax.random.split(jax.random.fold_in(key, i))
            # From the scan index: unbatched, so a delayed update stays a real branch under vmap.
            step = (index * iterations + i) * updates

            def act(observation: Array, key: Key) -> Array:
                return agent.act(state.agent, observation, hyper, key, True)

            env_state, rows = rollout(vector, act, state.env, act_key, unroll, extras)
            returns = track(state.ongoing, state.finished, rows)
            if on_policy:
                agent_state, metrics = agent.update(state.agent, rows, hyper, learn_key, step)
                return OnlineState(agent_state, env_state, None, *returns), metrics

            replay = buffers.add(state.replay, rows)

            def update(agent_state: PyTree, u: Array) -> tuple[PyTree, Metrics]:
                sample_key, update_key = jax.random.split(jax.random.fold_in(learn_key, u))
                batch = buffers.sample(replay, sample_key, batch_size)
                return agent.update(agent_state, batch, hyper, update_key, step + u)

            agent_state, metrics = jax.lax.scan(update, state.agent, jnp.arange(updates))
            return OnlineState(agent_state, env_state, replay, *returns), jax.tree.map(jnp.mean, metrics)

        state, metrics = jax.lax.scan(iteration, state, jnp.arange(iterations))
        return state, {**jax.tree.map(jnp.mean, metrics), "train/return": state.finished.mean()}

    def evaluation(state: OnlineState, index: Array, key: Key, hyper: PyTree) -> Metrics:
        return evaluate_agent(agent, evaluate)(state.agent, index, key, hyper)

    return Run(init, train, None if evaluate is None else evaluation, segments, iterations * updates)
