"""Online training on levels that the agent's curriculum chooses, all in one scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.envs.levelled import replaying
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops._means import pack, unpack
from jaxrl_reg.loops.offline import INIT, TRAIN, Evaluator, evaluate_agent
from jaxrl_reg.loops.online import track
from jaxrl_reg.loops.rollout import rollout
from jaxrl_reg.types import Agent, Array, Curriculum, Env, Key, Metrics, Played, PyTree, Run, Transition

SHOWN, PAGES = 6, 50  # levels of a segment, and segments, that are remembered, for looking at


Player = Callable[["LevelState", Key, PyTree, Array], tuple["LevelState", Metrics, Transition, PyTree]]


class LevelState(NamedTuple):
    """What a segment starts from. ``curriculum`` is the state of who chooses the levels. ``album``, leaves ``[PAGES,
    SHOWN, ...]``, has the first levels that the last rollout of segment ``index`` learned from, at ``index % PAGES``.
    ``finished`` ``[E]`` is the return of each environment's last finished episode, and ``env_steps`` counts all steps
    so far, also those that were only scored."""

    agent: PyTree
    curriculum: PyTree
    album: PyTree
    finished: Array
    env_steps: Array


def curriculum_of(agent: Agent, env: Env, num_envs: int) -> Curriculum:
    """Who chooses the levels of ``env`` for ``agent``.

    Raises:
      UserError: for an agent without a curriculum, or a world without levels.
    """
    if agent.curriculum is None or agent.value is None:
        raise UserError("this agent has no curriculum; take dr, plr, robust_plr, accel, sfl or dred")
    if env.levels is None:
        raise UserError(
            f"{env.name or 'this environment'} has no levels for a curriculum to choose from; maze and signposts have, "
            "and planar and brax bodies with --env-set dynamics=true; or take --agent ppo"
        )
    return agent.curriculum(env.levels, num_envs)


def _player(agent: Agent, curriculum: Curriculum, env: Env, num_envs: int, unroll: int) -> Player:
    """``play(state, key, hyper, iteration)``: an iteration as far as learning.

    Gives the new state, the metrics of curriculum and levels, the trajectory ``[T, E, ...]`` to learn from, and the
    first levels of it, ``[SHOWN, ...]`` or as many as there are.
    """
    total, levels, expected = num_envs + curriculum.extra, env.levels, agent.value
    world = replaying(env, total)
    assert levels is not None and world.levels is not None and expected is not None  # noqa: PT018
    begin = world.levels.reset

    def play(state: LevelState, key: Key, hyper: PyTree, iteration: Array) -> Any:
        propose_key, reset_key, act_key = jax.random.split(key, 3)
        level, slot = curriculum.propose(state.curriculum, propose_key, hyper, iteration)

        def act(observation: Array, key: Key) -> Array:
            return agent.act(state.agent, observation, hyper, key, True)

        _, rows = rollout(world, act, begin(reset_key, level), act_key, unroll)
        value, following = (expected(state.agent, seen) for seen in (rows.observation, rows.next_observation))
        chosen, told = curriculum.record(
            state.curriculum, Played(level, slot, rows, value, following), hyper, iteration
        )
        mine, batch = (jax.tree.map(lambda leaf: leaf[:num_envs], level), jax.tree.map(lambda x: x[:, :num_envs], rows))
        described = {f"levels/{name}": x.mean() for name, x in jax.vmap(levels.describe)(mine).items()}
        state = state._replace(
            curriculum=chosen,
            finished=track(jnp.zeros(num_envs), state.finished, batch)[1],
            env_steps=state.env_steps + total * unroll,
        )
        return state, {**told, **described}, batch, jax.tree.map(lambda leaf: leaf[:SHOWN], mine)

    return play


def _trainer(agent: Agent, play: Player, warmup: int, iterations: int) -> Callable[..., tuple[LevelState, Metrics]]:
    """``Run.train``: ``iterations`` of playing and learning, in the first segment after ``warmup`` of playing alone."""

    def train(
        state: LevelState, index: Array, key: Key, hyper: PyTree, data: PyTree = None
    ) -> tuple[LevelState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(key, TRAIN), index)

        def learn(state: PyTree, batch: PyTree, key: Key, step: Array) -> tuple[PyTree, Metrics]:
            return agent.update(state, batch, hyper, key, step)

        _, told, batch, first = jax.eval_shape(lambda state: play(state, key, hyper, jnp.int32(0)), state)
        learnt = jax.eval_shape(learn, state.agent, batch, key, jnp.int32(0))[1]

        def iteration(i: Array, carry: Any) -> Any:
            state, totals, sums, _ = carry
            play_key, learn_key = jax.random.split(jax.random.fold_in(key, i))
            number = index * iterations + i - warmup  # from the loop's counter, so never batched
            state, told, batch, first = play(state, play_key, hyper, number)

            def turn(_: Array, carry: Any) -> Any:
                agent_state, metrics = learn(carry[0], batch, learn_key, number)
                return agent_state, carry[1] + pack(metrics)

            # A loop of no turns is how nothing is learned in the warm-up, as in ``online``.
            counted = jnp.where(i < warmup, 0, 1)
            agent_state, totals = jax.lax.fori_loop(0, counted, turn, (state.agent, totals))
            return state._replace(agent=agent_state), totals, sums + counted * pack(told), first

        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
        start = state, jnp.zeros(len(learnt)), jnp.zeros(len(told)), empty
        begins = jnp.where(index == 0, 0, warmup)
        state, totals, sums, first = jax.lax.fori_loop(begins, warmup + iterations, iteration, start)
        album = jax.tree.map(lambda pages, page: pages.at[index % PAGES].set(page), state.album, first)
        metrics = {**unpack(totals / iterations, list(learnt)), **unpack(sums / iterations, list(told))}
        metrics |= {"train/return": jnp.nanmean(state.finished), "env_steps": state.env_steps}
        return state._replace(album=album), metrics

    return train


def levelled(
    agent: Agent,
    env: Env,
    *,
    steps: int,
    num_envs: int,
    segments: int = 1,
    unroll: int,
    evaluate: Evaluator | None = None,
) -> Run:
    """A run of an on-policy agent with a curriculum (``Agent.curriculum``) in a world with levels.

    One iteration: the curriculum proposes a level for each of ``E + X`` environments, which all begin anew and stay on
    it for ``unroll`` steps, episode after episode; it sees how that went; and the trajectory of the first ``E`` is
    handed to ``agent.update``.

    Args:
      agent: such as ``dr``, ``plr`` and ``dred``.
      env: a single environment, with levels.
      steps: environment steps that are learned from; those that only score levels come on top, see ``env_steps``.
      num_envs: environments that are learned from, ``E``; the curriculum adds its own ``extra`` ones, ``X``.
      segments: number of equal parts; metrics are averaged, and the agent evaluated, once per part.
      unroll: steps of each environment per iteration; at least one whole episode, or a level is left unscored.
      evaluate: ``fn(act, key) -> metrics``, such as ``evaluation.returns.level_evaluator(env)``. Where actions are
        choices the agent explores in it: one without a memory that always takes the likeliest goes round in circles.

    Returns:
      A ``Run`` without data. Beside the metrics of agent and curriculum, ``levels/...`` are the means of
      ``Levels.describe`` over what was learned from, ``train/return`` as in ``online``, and ``env_steps``.

    Raises:
      UserError: for an agent without a curriculum, a world without levels, or numbers that do not divide.
    """
    curriculum = curriculum_of(agent, env, num_envs)
    per_iteration = num_envs * unroll
    if min(steps, num_envs, segments, unroll) < 1 or steps % (segments * per_iteration):
        raise UserError(f"steps={steps} must be a multiple of segments*num_envs*unroll={segments * per_iteration}")
    iterations, levels = steps // (segments * per_iteration), env.levels
    shown = min(SHOWN, num_envs)
    assert levels is not None
    train = _trainer(agent, _player(agent, curriculum, env, num_envs, unroll), curriculum.warmup, iterations)

    def init(key: Key, hyper: PyTree) -> LevelState:
        agent_key, key = jax.random.split(jax.random.fold_in(key, INIT))
        level = jax.eval_shape(levels.sample, key)
        album = jax.tree.map(lambda leaf: jnp.zeros((PAGES, shown, *leaf.shape), leaf.dtype), level)
        states = agent.init(agent_key, hyper), curriculum.init(key, hyper)
        return LevelState(*states, album, jnp.full(num_envs, jnp.nan), jnp.float32(0))

    if evaluate is None:
        return Run(init, train, None, segments, iterations)
    judge = evaluate_agent(agent, evaluate, env.spec.discrete)

    def evaluation(state: LevelState, index: Array, key: Key, hyper: PyTree) -> Metrics:
        return judge(state.agent, index, key, hyper)

    return Run(init, train, evaluation, segments, iterations)
