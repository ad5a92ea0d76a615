"""Learning from verified rewards: a supervised warm start, then groups of completions sampled, verified, learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.tokens import gains
from jaxrl_reg.loops._means import averaged
from jaxrl_reg.loops._turns import asked_again, check_follow, with_second_lessons
from jaxrl_reg.loops.offline import EVALUATE, INIT, MEASURE, TRAIN, per_segment
from jaxrl_reg.losses.groups import informative
from jaxrl_reg.losses.tokens import completion_mask
from jaxrl_reg.types import Agent, Array, Completions, Key, Metrics, PyTree, Run, TokenTask

Complete = Callable[[Array, Key, bool], Array]  # prompt [..., P], key, explore -> completion [..., T]
Judge = Callable[[Complete, Key], Metrics]


def judged(task: TokenTask, prompt: Array, completion: Array) -> tuple[Completions, Metrics]:
    """What an agent learns from, of prompts ``[B, P]`` and completions ``[B, G, T]``, and the parts of its reward.

    The parts are means, called ``reward/NAME``; none for a reward of one part.
    """

    def each(function: Callable[[Array, Array], PyTree]) -> PyTree:
        return jax.vmap(jax.vmap(function, (None, 0)))(prompt, completion)

    mask = completion_mask(completion, task.spec.EOS)
    truncated = 1.0 - (completion == task.spec.EOS).any(-1).astype(jnp.float32)
    batch = Completions(prompt, completion, mask, each(task.verify), truncated)
    parts = {} if task.parts is None else each(task.parts)
    return batch, {f"reward/{name}": value.mean() for name, value in parts.items()}


def solved(task: TokenTask, key: Key, count: int, turns: int = 1) -> Completions:
    """``count`` prompts with one right answer each, ``G = 1``; for two turns with lessons of the second."""
    assert task.solve is not None
    draw_key, solve_key, *again_key = jax.random.split(key, 1 + turns)
    prompt = jax.vmap(task.draw)(jax.random.split(draw_key, count))
    answer = jax.vmap(task.solve)(prompt, jax.random.split(solve_key, count))[:, None]
    ones = jnp.ones(answer.shape[:2])
    batch = Completions(prompt, answer, completion_mask(answer, task.spec.EOS), ones, jnp.zeros_like(ones))
    return batch if turns == 1 else with_second_lessons(task, batch, *again_key)


def rlvr(
    agent: Agent,
    task: TokenTask,
    *,
    updates: int,
    prompts: int = 16,
    group: int = 8,
    segments: int = 1,
    warm_up: int = 0,
    warm_up_batch: int = 64,
    warm_up_learning_rate: float | None = 2e-3,
    oversample: int = 1,
    lessons: TokenTask | None = None,
    evaluate: Judge | None = None,
) -> Run:
    """A run that first imitates right answers, then learns from its own: one compiled program.

    One update draws ``prompts`` prompts, samples ``group`` completions of each by one ``agent.act`` of ``[B, G, P]``,
    verifies them and hands all to one ``agent.update``. The warm start is part of ``Run.init``; every member of a
    population has its own, by its key, and the same whatever learning rate is swept.

    Args:
      agent: of kind ``tokens``, such as ``grpo``.
      task: what is asked, and its judge.
      updates: calls of ``agent.update``.
      prompts: prompts in a batch, ``B``.
      group: completions of each, ``G``.
      segments: number of equal parts; metrics are averaged, and the agent evaluated, once per part.
      warm_up: supervised steps on right answers before the first update; 0: none.
      warm_up_batch: prompts in each of them.
      warm_up_learning_rate: what stands for the hyperparameter ``learning_rate`` in them; None: that itself.
      oversample: so many times the prompts are sampled, and groups whose rewards differ are kept first (DAPO's dynamic
        sampling, bounded). Those that are kept in spite of equal rewards have advantage 0.
      lessons: the task whose prompts and answers the warm start shows; by default ``task``.
      evaluate: ``fn(complete, key) -> metrics``, such as ``evaluation.tokens.evaluator(task)``.

    Returns:
      A ``Run`` without data, whose state is the agent's: ``run(key, hyper) -> (state, history)``. Beside the agent's
      metrics there are means over all that was sampled: ``train/return``, the reward, and ``train/reward/NAME``, each
      of its parts where it has several; ``train/length`` in tokens; ``train/truncated``, the share without an end;
      ``train/uninformative``, the share of groups whose rewards are all equal, which teach nothing (trl's
      ``frac_reward_zero_std``). These are of first answers; of an agent that answers twice there are
      ``train/second/return``, ``train/gain`` of the second over the first, and the shares ``train/mended`` and
      ``train/spoilt`` of first answers after which the second earned more or less.

    Raises:
      UserError: for an agent of another kind, a task without right answers to imitate, or numbers that do not divide.
    """
    lessons = lessons or task
    _check(agent, task, lessons, prompts=prompts, group=group, oversample=oversample, warm_up_batch=warm_up_batch)
    if agent.turns == 2:
        check_follow(task)
        check_follow(lessons)
    if warm_up < 0:
        raise UserError(f"warm_up={warm_up} must not be negative")
    if warm_up and lessons.solve is None:
        raise UserError(f"{lessons.name or 'the task'} has no right answers to show; take warm_up=0")
    length = per_segment(updates, segments)

    def init(key: Key, hyper: PyTree) -> PyTree:
        agent_key, lesson_key = jax.random.split(jax.random.fold_in(key, INIT))
        state = agent.init(agent_key, hyper)
        if not warm_up:
            return state
        assert agent.imitate is not None
        imitate = agent.imitate
        slow = hyper
        if warm_up_learning_rate is not None and hasattr(hyper, "learning_rate"):
            slow = dataclasses.replace(hyper, learning_rate=jnp.float32(warm_up_learning_rate))

        def lesson(i: Array, state: PyTree) -> PyTree:
            draw_key, learn_key = jax.random.split(jax.random.fold_in(lesson_key, i))
            return imitate(state, solved(lessons, draw_key, warm_up_batch, agent.turns), slow, learn_key, i)[0]

        return jax.lax.fori_loop(0, warm_up, lesson, state)

    def sampled(state: PyTree, hyper: PyTree, key: Key) -> tuple[Completions, Metrics]:
        draw_key, act_key, *again_key = jax.random.split(key, 1 + agent.turns)
        prompt = jax.vmap(task.draw)(jax.random.split(draw_key, prompts * oversample))
        completion = agent.act(state, jnp.repeat(prompt[:, None], group, axis=1), hyper, act_key, True)
        batch, parts = judged(task, prompt, completion)
        metrics = {
            "return": batch.reward.mean(),
            "length": batch.mask.sum(-1).mean(),
            "truncated": batch.truncated.mean(),
            "uninformative": 1.0 - informative(batch.reward).mean(),
            **parts,
        }
        if agent.turns == 2:
            follow = asked_again(task, prompt, batch.completion)
            answer = agent.act(state, follow, hyper, *again_key, True)
            second = dataclasses.replace(judged(task, prompt, answer)[0], prompt=follow)
            batch = dataclasses.replace(batch, extras={"second": second})
            metrics |= {"second/return": second.reward.mean(), **gains(batch.reward, second.reward)}
        return batch, {f"train/{name}": value for name, value in metrics.items()}

    def train(state: PyTree, index: Array, key: Key, hyper: PyTree, data: PyTree = None) -> tuple[PyTree, Metrics]:
        key, measure_key = (jax.random.fold_in(jax.random.fold_in(key, use), index) for use in (TRAIN, MEASURE))

        def body(state: PyTree, i: Array) -> tuple[PyTree, Metrics]:
            sample_key, update_key = jax.random.split(jax.random.fold_in(key, i))
            batch, metrics = sampled(state, hyper, sample_key)
            if oversample > 1:
                first = jnp.argsort(-informative(batch.reward), stable=True)[:prompts]
                batch = jax.tree.map(lambda leaf: leaf[first], batch)
            state, more = agent.update(state, batch, hyper, update_key, index * length + i)
            return state, {**metrics, **more}

        state, metrics = averaged([body], state, length)
        if agent.measure is not None:
            sample_key, measure_key = jax.random.split(measure_key)
            metrics |= agent.measure(state, sampled(state, hyper, sample_key)[0], hyper, measure_key)
        return state, metrics

    def evaluation(state: PyTree, index: Array, key: Key, hyper: PyTree) -> Metrics:
        assert evaluate is not None

        def complete(prompt: Array, key: Key, explore: bool) -> Array:
            return agent.act(state, prompt, hyper, key, explore)

        metrics = evaluate(complete, jax.random.fold_in(jax.random.fold_in(key, EVALUATE), index))
        return {f"eval/{name}": value for name, value in metrics.items()}

    return Run(init, train, None if evaluate is None else evaluation, segments, length)


def _check(agent: Agent, task: TokenTask, lessons: TokenTask, **sizes: int) -> None:
    if agent.kind != "tokens":
        raise UserError(f"verified rewards need an agent of kind tokens, this one is {agent.kind}; take grpo")
    if not isinstance(task, TokenTask):
        raise UserError("a token agent needs a task of tokens, such as envs.make('tokens/reverse')")
    if lessons.spec != task.spec:
        raise UserError(f"the lessons have the sizes {lessons.spec}, the task {task.spec}; they must be the same")
    for name, number in sizes.items():
        if number < 1:
            raise UserError(f"{name}={number} must be at least 1")
