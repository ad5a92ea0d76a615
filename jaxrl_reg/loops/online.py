"""Online training: environments, replay and updates in one scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.data import buffers
from jaxrl_reg.envs import vectorize
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops._means import pack, unpack, updates_of
from jaxrl_reg.loops.offline import INIT, MEASURE, TRAIN, Evaluator, evaluate_agent
from jaxrl_reg.loops.rollout import Extras, rollout, uniform_actions
from jaxrl_reg.types import Agent, Array, Env, EnvState, Key, Metrics, PyTree, Run, Transition

KINDS = ("off_policy", "on_policy")
Draw = Callable[[buffers.Buffer, PyTree, Key, int], Transition]  # replay, data, key, batch size


class Start(NamedTuple):
    """What an agent has behind it that training goes on with: its updates so far, and their segments."""

    updates: int = 0
    segments: int = 0


class OnlineState(NamedTuple):
    """What a segment starts from: ``replay`` is None on-policy; ``ongoing`` and ``finished`` ``[E]`` are the reward so
    far in the episode under way, and the return of the last finished one (NaN before there is one)."""

    agent: PyTree
    env: EnvState
    replay: PyTree
    ongoing: Array
    finished: Array


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
    start: Start | None = None,
    draw: Draw | None = None,
    preprocess: Callable[[Transition], Transition] | None = None,
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
      updates: updates of the agent per iteration; whole cycles of it (``Agent.cycle``) are one turn of a loop each.
      batch_size: rows per update.
      warmup: environment steps with uniformly random actions and no updates, before the first iteration; rounded up to
        whole iterations. With ``start`` the agent acts in them, exploring.
      capacity: rows of the replay buffer, the oldest overwritten first; all rows are kept by default.
      evaluate: ``fn(act, key) -> metrics``, such as ``evaluation.returns.evaluator(env, episodes)``.
      kind: ``"off_policy"`` or ``"on_policy"``; by default the agent's own.
      extras: see ``loops.rollout``; kept in the replay.
      start: the run goes on with a trained agent, ``run.init(key, hyper, state)`` with its state; steps and random
        numbers are counted on from there. Evaluating that first state as segment -1 repeats its last evaluation.
      draw: ``fn(replay, data, key, batch_size) -> batch``, off-policy; by default uniform rows of the replay.
      preprocess: ``fn(rows) -> rows``, what is learned from in their place, off-policy: observations and rewards as the
        agent was trained on them. ``agent.act`` still sees the environment's, and ``train/return`` counts them.

    Returns:
      A ``Run`` whose data only ``draw`` sees, or an on-policy agent that is held to them (``Agent.begin`` and
      ``beside``): ``run(key, hyper) -> (OnlineState, history)``. Beside the agent's
      metrics, ``train/return`` is the mean return of the environments' last finished episodes, exploration included;
      NaN until one has finished.

    Raises:
      UserError: for an agent that does not learn online, or numbers that do not divide.
    """
    kind = kind or agent.kind
    if kind not in KINDS:
        raise UserError(
            f"online training needs an agent of kind {' or '.join(KINDS)}, this one is {kind}; take sac, td3 or ppo, "
            "give your own agent its kind, or go on with a trained one by loops.finetune"
        )
    if agent.curriculum is not None:
        raise UserError("this agent chooses its levels and would be given others here; take loops.levels.levelled")
    sizes = {"num_envs": num_envs, "unroll": unroll, "updates": updates, "segments": segments, "steps": steps}
    for size, number in sizes.items():
        if number < 1:
            raise UserError(f"{size}={number} must be at least 1")
    per_iteration = num_envs * unroll
    if steps % (segments * per_iteration):
        raise UserError(f"steps={steps} must be a multiple of segments*num_envs*unroll={segments * per_iteration}")
    on_policy = kind == "on_policy"
    updates, warmup = (1, 0) if on_policy else (updates, -(-warmup // per_iteration))
    behind = start or Start()
    updates_in_turn = updates_of(agent, updates)
    if behind.updates % len(updates_in_turn):  # a cycle begins with update 0, and this run within one
        updates_in_turn = (agent.update,)
    iterations = steps // (segments * per_iteration)
    capacity = capacity or warmup * per_iteration + steps
    vector, uniform = vectorize(env, num_envs), uniform_actions(env.spec.action_dim)
    batch_of: Draw = draw or (lambda replay, data, key, size: buffers.sample(replay, key, size))

    def beside(rows: Transition, data: PyTree, key: Key) -> Transition:
        if agent.beside is None or not on_policy:
            return rows
        return dataclasses.replace(rows, extras={**rows.extras, **agent.beside(data, key, rows)})

    def init(key: Key, hyper: PyTree, state: PyTree = None) -> OnlineState:
        key = jax.random.fold_in(key, INIT)
        key = key if start is None else jax.random.fold_in(key, behind.segments)  # not again the keys of its beginning
        agent_key, env_key = jax.random.split(key)
        env_state, replay = vector.reset(env_key), None
        if not on_policy:
            _, rows = jax.eval_shape(lambda state: rollout(vector, uniform, state, env_key, 1, extras), env_state)
            replay = buffers.init(capacity, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[2:], leaf.dtype), rows))
        ongoing, finished = jnp.zeros(num_envs), jnp.full(num_envs, jnp.nan)
        state = agent.init(agent_key, hyper) if state is None else state
        return OnlineState(state, env_state, replay, ongoing, finished)

    def train(
        state: OnlineState, index: Array, key: Key, hyper: PyTree, data: PyTree = None
    ) -> tuple[OnlineState, Metrics]:
        now = index + behind.segments
        key, measure_key = (jax.random.fold_in(jax.random.fold_in(key, use), now) for use in (TRAIN, MEASURE))

        if agent.begin is not None and on_policy:
            state = state._replace(agent=agent.begin(state.agent, data, now))

        measures_rows = agent.measure is not None and on_policy  # it has no replay to draw them from

        def iteration(i: Array, carry: tuple[OnlineState, Array, PyTree]) -> tuple[OnlineState, Array, PyTree]:
            state, totals, _ = carry
            act_key, learn_key = jax.random.split(jax.random.fold_in(key, i))
            # From the loop's counter: unbatched, so a delayed update stays a real branch under vmap.
            step = behind.updates + (index * iterations + i - warmup) * updates

            def act(observation: Array, key: Key) -> Array:
                agent_key, uniform_key = jax.random.split(key)
                action = agent.act(state.agent, observation, hyper, agent_key, True)
                if start is not None or not warmup:
                    return action
                return jnp.where(i < warmup, uniform(observation, uniform_key), action)

            env_state, rows = rollout(vector, act, state.env, act_key, unroll, extras)
            returns = track(state.ongoing, state.finished, rows)
            rows = rows if preprocess is None else preprocess(rows)
            rows = beside(rows, data, jax.random.fold_in(act_key, unroll))
            replay = None if on_policy else buffers.add(state.replay, rows)

            def turn(number: Array, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
                agent_state, totals = carry
                for phase, update in enumerate(updates_in_turn):
                    u = number * len(updates_in_turn) + phase
                    sample_key, update_key = jax.random.split(jax.random.fold_in(learn_key, u))
                    batch = rows if replay is None else batch_of(replay, data, sample_key, batch_size)
                    agent_state, metrics = update(agent_state, batch, hyper, update_key, step + u)
                    totals = totals + pack(metrics)
                return agent_state, totals

            # A loop of no turns is how nothing is learned in the warm-up: a branch would copy the agent's state.
            count = jnp.where(i < warmup, 0, updates // len(updates_in_turn))
            agent_state, totals = jax.lax.fori_loop(0, count, turn, (state.agent, totals))
            return OnlineState(agent_state, env_state, replay, *returns), totals, rows if measures_rows else ()

        names = list(metrics_of(state, key, hyper, data))
        # The warm-up comes before the first segment's iterations, in the same loop: one compilation of the physics.
        begin = jnp.where(index == 0, 0, warmup)
        latest = ()
        if measures_rows:
            shapes = jax.eval_shape(lambda state: trajectory(state, key, data), state)
            latest = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        start_of = state, jnp.zeros(len(names)), latest
        state, totals, latest = jax.lax.fori_loop(begin, warmup + iterations, iteration, start_of)
        metrics = unpack(totals / (iterations * updates), names)
        if agent.measure is not None:
            sample_key, measure_key = jax.random.split(measure_key)
            batch = latest if on_policy else batch_of(state.replay, data, sample_key, batch_size)
            metrics |= agent.measure(state.agent, batch, hyper, measure_key)
        return state, {**metrics, "train/return": jnp.nanmean(state.finished)}

    def metrics_of(state: OnlineState, key: Key, hyper: PyTree, data: PyTree) -> Metrics:
        """The names and shapes of what ``agent.update`` reports."""

        def once(state):
            batch = trajectory(state, key, data) if on_policy else batch_of(state.replay, data, key, batch_size)
            return agent.update(state.agent, batch, hyper, key, jnp.int32(0))[1]

        return jax.eval_shape(once, state)

    def trajectory(state: OnlineState, key: Key, data: PyTree) -> Transition:
        """Rows ``[T, E]`` as an iteration makes them; only their shapes are asked for."""
        rows = rollout(vector, uniform, state.env, key, unroll, extras)[1]
        return beside(rows if preprocess is None else preprocess(rows), data, key)

    if evaluate is None:
        return Run(init, train, None, segments, iterations * updates)
    # Among choices one without a memory that always takes the likeliest goes round in circles, see ``levelled``.
    judge = evaluate_agent(agent, evaluate, start is None and env.levels is not None and env.spec.discrete)

    def evaluation(state: OnlineState, index: Array, key: Key, hyper: PyTree) -> Metrics:
        return judge(state.agent, index + behind.segments, key, hyper)

    return Run(init, train, evaluation, segments, iterations * updates)
