"""What all curricula share: levels replayed from a buffer, levels newly made, one rollout on both, scores, and back.

A curriculum is then a few functions: who is replayed, how new levels are made, what a rollout on a level is worth, and
which of the new ones are kept. Nothing is decided by a coin per iteration, which under ``vmap`` would pay for both
sides: every iteration replays a fixed number of levels and makes a fixed number of new ones, in one rollout.

Metrics, means over the iterations: ``curriculum/score`` over the levels that got one, ``curriculum/unscored`` the share
of rollouts without a finished episode, ``curriculum/solved`` the share of levels solved at least once in their rollout,
and with a buffer ``curriculum/filled``, its filled share.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.data import levels as buffers
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.losses import level_scores
from jaxrl_reg.types import Agent, Array, Curriculum, Key, Levels, Metrics, Played, PyTree, Spec, setting

SCORES = ("value_l1", "positive_value_loss", "max_mc", "learnability")
NAMED = ", ".join(SCORES)


class State(NamedTuple):
    """``buffer`` is None for a curriculum that remembers nothing; ``generator`` is what makes new levels, if learnt."""

    buffer: buffers.LevelBuffer | None
    generator: PyTree = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What sets one curriculum apart, for ``E`` environments.

    ``replay`` levels come from the buffer and ``fresh`` are new; the first ``E`` of the two together are learned from.
    ``weights(buffer, hyper, iteration) -> [N]`` says how likely each slot is drawn; all 0: new levels of the designer's
    are learned from instead. ``generate(key, state, replayed, hyper) -> levels [fresh]`` makes new ones. ``score`` is
    one of ``SCORES``; ``keep`` the rule of ``data.levels.insert``, None: new levels are used once. ``ground``: what was
    never solved is not kept. ``lifetime``: iterations after which a level leaves the buffer, 0: never. ``data(key)``
    are levels that stay in the buffer for good, and ``prepare(key, data) -> generator`` learns from them.
    """

    replay: int
    fresh: int
    generate: Callable[[Key, State, PyTree, Any], PyTree] | None = None
    weights: Callable[[buffers.LevelBuffer, Any, Array], Array] | None = None
    score: str = "value_l1"
    capacity: int = 0
    keep: str | None = None
    ground: bool = False
    lifetime: int = 0
    data: Callable[[Key], PyTree] | None = None
    prepare: Callable[[Key, PyTree], PyTree] | None = None
    warmup: int = 0


@dataclasses.dataclass(frozen=True)
class BufferConfig(ppo.Config):
    """PPO's, and the buffer of levels."""

    capacity: int = setting(default=256, help="slots of the buffer of levels", small=8)
    score: str = setting(default="max_mc", help=f"what makes a level worth replaying: {NAMED}")
    fill: float = setting(default=0.5, help="share of the buffer's slots that is tried before anything is learned")


def agent(config: Any, spec: Spec, recipe: Callable[[Levels, int], Recipe]) -> Agent:
    """PPO that learns on the levels of a curriculum: ``recipe(levels, num_envs)``.

    Raises:
      UserError: for a score that is not known, or measures of features, which the loop over levels does not take.
    """
    if (score := getattr(config, "score", SCORES[0])) not in SCORES:
        raise unknown("score of a level", score, SCORES)
    if config.measure_features:
        raise UserError("curricula are not asked for measures of features; leave measure_features off, or take ppo")
    return ppo.make(config, spec)._replace(
        curriculum=lambda levels, num_envs: curriculum(levels, num_envs, recipe(levels, num_envs))
    )


def filling(config: BufferConfig, num_envs: int) -> int:
    """``Recipe.warmup``: iterations that try as many levels as ``fill`` of the buffer has slots."""
    return math.ceil(config.fill * config.capacity / (2 * num_envs))


def given(levels: Levels, count: int) -> Callable[[Key], PyTree]:
    """``Recipe.data``: ``count`` levels of the distribution that is aimed at, each member its own."""
    if count < 1:
        raise UserError(f"data_levels={count} must be at least 1")
    return lambda key: levels.dataset(key, count)


def drawn(levels: Levels, count: int) -> Callable[[Key, State, PyTree, Any], PyTree]:
    """``Recipe.generate`` of the designer's own generator."""
    return lambda key, state, replayed, hyper: jax.vmap(levels.sample)(jax.random.split(key, count))


def edited(levels: Levels, count: int, edits: int) -> Callable[[Key, State, PyTree, Any], PyTree]:
    """``Recipe.generate`` by ``edits`` random changes of each of the first ``count`` levels replayed."""

    def generate(key: Key, state: State, replayed: PyTree, hyper: Any) -> PyTree:
        parents = jax.tree.map(lambda leaf: leaf[:count], replayed)
        return jax.vmap(lambda key, level: levels.mutate(key, level, edits))(jax.random.split(key, count), parents)

    return generate


def scores(kind: str, levels: Levels, played: Played, best: Array, hyper: Any) -> tuple[Array, Array, Array]:
    """Scores, best returns of the finished episodes and shares of them that were solved, ``[E]`` each; minus infinity
    where no episode was finished. ``best`` ``[E]`` is the best return that was known before.
    """
    rows, ended = played.rows, played.rows.last > 0
    so_far = level_scores.running_return(rows.reward, rows.last)
    reached = jnp.where(ended, so_far, -jnp.inf).max(0)
    solved = levels.solved(so_far, rows.reward, 1.0 - rows.discount) & ended
    share = jnp.where(ended.any(0), solved.sum(0) / jnp.maximum(ended.sum(0), 1), -jnp.inf)
    if kind == "learnability":
        return level_scores.learnability(share), reached, share
    if kind == "max_mc":
        return level_scores.max_mc_score(played.value, jnp.maximum(best, reached), rows.last), reached, share
    advantage = losses.generalised_advantage_estimation(
        rows.reward, played.value, played.next_value, rows.discount, rows.last, hyper.discount, hyper.gae_lambda
    )
    positive = kind == "positive_value_loss"
    return level_scores.value_loss_score(advantage, rows.last, positive), reached, share


def curriculum(levels: Levels, num_envs: int, recipe: Recipe) -> Curriculum:
    """The curriculum of a recipe."""

    def init(key: Key, hyper: PyTree) -> State:
        if not recipe.capacity:
            return State(None)
        data_key, generator_key = jax.random.split(key)
        data = None if recipe.data is None else recipe.data(data_key)
        made = () if recipe.prepare is None else recipe.prepare(generator_key, data)
        return State(buffers.init(jax.eval_shape(levels.sample, key), recipe.capacity, data), made)

    def propose(state: State, key: Key, hyper: PyTree, iteration: Array) -> tuple[PyTree, Array]:
        draw_key, other_key, fresh_key = jax.random.split(key, 3)
        shown, slots = [], []
        replayed = None
        if recipe.replay and recipe.weights is not None and state.buffer is not None:
            weights = recipe.weights(state.buffer, hyper, iteration)
            slot = buffers.draw(weights, draw_key, recipe.replay)
            empty = ~(weights > 0).any()
            others = jax.vmap(levels.sample)(jax.random.split(other_key, recipe.replay))
            replayed = jax.tree.map(lambda new, old: jnp.where(empty, new, old), others, buffers.at(state.buffer, slot))
            shown.append(replayed)
            slots.append(jnp.where(empty, -1, slot))
        if recipe.fresh and recipe.generate is not None:
            shown.append(recipe.generate(fresh_key, state, replayed, hyper))
            slots.append(jnp.full(recipe.fresh, -1, jnp.int32))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *shown), jnp.concatenate(slots)

    def record(state: State, played: Played, hyper: PyTree, iteration: Array) -> tuple[State, Metrics]:
        buffer, slot = state.buffer, played.slot
        known = jnp.full(slot.shape, -jnp.inf)
        if buffer is not None:
            known = jnp.where(slot >= 0, buffer.best_return[slot], known)
        score, best, share = scores(recipe.score, levels, played, known, hyper)
        scored = score > -jnp.inf
        number = jnp.maximum(scored.sum(), 1)
        metrics = {
            "curriculum/score": jnp.where(scored, score, 0.0).sum() / number,
            "curriculum/unscored": 1.0 - scored.mean(),
            "curriculum/solved": (share > 0).sum() / number,
        }
        if buffer is None:
            return state, metrics
        buffer = buffers.visited(buffers.aged(buffer), slot, score, best)
        if recipe.lifetime:
            buffer = buffers.since(buffer, iteration - recipe.lifetime)
        if recipe.keep is not None:
            new = jnp.where(slot < 0, score, -jnp.inf)
            options = {"rule": recipe.keep, "ground": recipe.ground}
            buffer = buffers.insert(buffer, played.level, new, best, iteration, **options)
        return state._replace(buffer=buffer), {**metrics, "curriculum/filled": buffer.filled.mean()}

    return Curriculum(init, propose, record, recipe.replay + recipe.fresh - num_envs, recipe.warmup)
