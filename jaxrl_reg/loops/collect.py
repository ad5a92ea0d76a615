"""Data sets made here: train an agent online, keep everything it saw, and cut it up in the manner of D4RL."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import data
from jaxrl_reg.envs import vectorize
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.loops.online import OnlineState, online
from jaxrl_reg.loops.rollout import Extras, rollout, uniform_actions
from jaxrl_reg.types import Agent, Array, Dataset, Env, EnvState, Key, Metrics, PyTree, Run, Transition

COLLECT = 101  # stream of the evaluations inside a collection, beside those of the loops
DATASETS = ("random", "medium", "medium-replay", "expert", "medium-expert")


class Replay(NamedTuple):
    """Everything a collection saw. ``rows`` has leaves ``[T, E, ...]`` in time order, random warm-up first.

    After segment ``i``: ``snapshots`` (leading axis ``[S]``) are the acting parameters, ``returns[i]`` their mean
    return (-inf before there is one), ``times[i]`` the number of time steps seen by then (int32).
    """

    rows: Transition
    snapshots: PyTree
    returns: Array
    times: Array


class CollectState(NamedTuple):
    """What a segment of a collection starts from; ``snapshots`` and ``returns`` as in ``Replay``."""

    online: OnlineState
    snapshots: PyTree
    returns: Array


def acting(state: PyTree) -> PyTree:
    """The part of an agent's state that acts: its ``actor`` parameters, or the whole state if it has no such field."""
    actor = getattr(state, "actor", state)
    return getattr(actor, "params", actor)


def with_acting(state: PyTree, parameters: PyTree) -> PyTree:
    """``state`` acting with other parameters, those of an earlier ``acting(state)``."""
    if not hasattr(state, "actor"):
        return parameters
    actor = state.actor._replace(params=parameters) if hasattr(state.actor, "params") else parameters
    return state._replace(actor=actor)


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """Call it: ``(key, hyper) -> (agent state, Replay)``, one pure function for ``jit`` and ``vmap``.

    For progress or resume, drive ``run`` from the host instead: ``run.segment(state, index, key, hyper, None)`` for
    every index, jitted with the state donated, then ``replay(state)``. The numbers are the same, and ``train/return``
    among the metrics (with evaluations also ``eval/return``) is the live return. ``population.sweep`` takes ``run`` as
    well.
    """

    run: Run
    num_envs: int
    times: tuple[int, ...]

    def __call__(self, key: Key, hyper: PyTree) -> tuple[PyTree, Replay]:
        state, _ = self.run(key, hyper)
        return state.online.agent, self.replay(state)

    def replay(self, state: CollectState) -> Replay:
        """The replay of a finished run's state."""
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, self.num_envs, *leaf.shape[1:]), state.online.replay.rows)
        return Replay(rows, state.snapshots, state.returns, jnp.asarray(self.times, jnp.int32))


def collect(
    agent: Agent,
    env: Env,
    *,
    steps: int,
    num_envs: int = 16,
    segments: int = 20,
    unroll: int = 1,
    updates: int = 4,
    batch_size: int = 256,
    warmup: int | None = None,
    episodes: int = 0,
    kind: str | None = None,
    extras: Extras | None = None,
) -> Collection:
    """Train an off-policy agent online and keep its whole experience in time order.

    Args:
      agent: ``sac`` or ``td3``, or your own off-policy agent.
      env: a single environment.
      steps: environment steps of training, all environments together.
      num_envs, unroll, updates, batch_size, kind, extras: as in ``loops.online``.
      segments: after each, the acting parameters are kept, with their return.
      warmup: environment steps with random actions first; by default a hundredth of ``steps``.
      episodes: greedy ones to evaluate each snapshot with. 0: its return is that of the environments' last finished
        episodes, exploration included, which saves compiling the physics a second time.

    Raises:
      UserError: for an agent that cannot learn from a replay online, or numbers that do not divide (see ``online``).
    """
    kind = kind or agent.kind
    if kind != "off_policy":
        raise UserError(
            f"collect needs an off-policy agent such as sac or td3, this one is {kind}; "
            "an offline agent learns from the data sets that collect makes"
        )
    warmup = steps // 100 if warmup is None else warmup
    warmup = -(-warmup // (num_envs * unroll)) * num_envs * unroll
    inner = online(
        agent,
        env,
        steps=steps,
        num_envs=num_envs,
        segments=segments,
        unroll=unroll,
        updates=updates,
        batch_size=batch_size,
        warmup=warmup,
        kind=kind,
        extras=extras,
    )
    score = evaluator(env, episodes) if episodes else None

    def init(key: Key, hyper: PyTree) -> CollectState:
        state = inner.init(key, hyper)
        empty = jax.tree.map(lambda leaf: jnp.zeros((segments, *leaf.shape), leaf.dtype), acting(state.agent))
        return CollectState(state, empty, jnp.full(segments, -jnp.inf))

    def train(
        state: CollectState, index: Array, key: Key, hyper: PyTree, _: None = None
    ) -> tuple[CollectState, Metrics]:
        now, metrics = inner.train(state.online, index, key, hyper, None)

        def act(observation: Array, act_key: Key) -> Array:
            return agent.act(now.agent, observation, hyper, act_key, False)

        if score is None:
            returns = metrics["train/return"]
            returns = jnp.where(jnp.isnan(returns), -jnp.inf, returns)  # NaN: no episode has finished yet
        else:
            scores = score(act, jax.random.fold_in(jax.random.fold_in(key, COLLECT), index))
            metrics = {**metrics, **{f"eval/{name}": value for name, value in scores.items()}}
            returns = scores["return"]
        snapshots = jax.tree.map(lambda kept, new: kept.at[index].set(new), state.snapshots, acting(now.agent))
        return CollectState(now, snapshots, state.returns.at[index].set(returns)), metrics

    each = steps // (segments * num_envs)
    times = tuple(warmup // num_envs + each * (index + 1) for index in range(segments))
    return Collection(Run(init, train, None, segments, inner.updates_per_segment), num_envs, times)


def d4rl_style(
    agent: Agent,
    env: Env,
    state: PyTree,
    hyper: PyTree,
    replay: Replay,
    key: Key,
    *,
    rows: int = 100_000,
    num_envs: int = 64,
    episodes: int = 100,
    name: str | None = None,
    extras: Extras | None = None,
) -> dict[str, Dataset]:
    """Five data sets from one collection, after Fu et al. 2020, D4RL, section 5; runs on the host, once.

    ``random``: uniform actions. ``medium``: the first snapshot whose return exceeds ``random + (best - random) / 3``,
    ``best`` being the highest return of a snapshot. ``medium-replay``: everything seen until that snapshot, warm-up
    included. ``expert``: the best snapshot. ``medium-expert``: both halves, so it has twice the rows. Policies act as
    they did when they explored. Episodes under way at a stream's end are cut there and count as truncated.

    ``score_random`` and ``score_expert``, in every data set, are the mean undiscounted returns of random actions and
    of the best snapshot's greedy actions over fresh episodes in ``env``. One program plays everything, because the
    physics is what takes long to compile.

    Args:
      agent, env, hyper: those of the collection.
      state, replay: what the collection returned, for one member.
      key: a new one.
      rows: in each of random, medium and expert, rounded up to whole steps of all environments.
      num_envs: environments side by side in these rollouts; fewer give longer streams and fewer cut episodes.
      episodes: for each of the two reference scores, rounded up to a multiple of ``num_envs``.
      name: the data sets are called ``{name}-{kind}``; by default the environment's name.
      extras: see ``loops.rollout``; must be the ones of ``collect``, so that all data sets have the same columns.

    Raises:
      UserError: if no snapshot is better than random actions.
    """
    name = name or env.name.replace("/", "-") or "collected"
    vector, length = vectorize(env, num_envs), env.spec.max_episode_steps
    random = uniform_actions(env.spec.action_dim)
    uniform, exploring, greedy = range(3)
    reset = jax.jit(vector.reset)

    @jax.jit
    def play(parameters: PyTree, how: Array, start: EnvState, key: Key) -> tuple[EnvState, Transition]:
        actor = with_acting(state, parameters)

        def act(observation: Array, key: Key) -> Array:
            choices = random(observation, key), *(agent.act(actor, observation, hyper, key, e) for e in (True, False))
            return jnp.stack(choices)[how]

        return rollout(vector, act, start, key, length, extras)

    def stream(parameters: PyTree, how: int, key: Key) -> Transition:
        """``[T, E]`` steps, ``rows`` or a little more, played in pieces of one episode's greatest length."""
        times = -(-rows // num_envs)
        now, pieces = reset(jax.random.fold_in(key, 0)), []
        for i in range(-(-times // length)):
            now, piece = play(parameters, jnp.int32(how), now, jax.random.fold_in(key, i + 1))
            pieces.append(jax.device_get(piece))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:times], *pieces)

    def score(parameters: PyTree, how: int, key: Key) -> float:
        """Mean return of whole episodes: the first of every environment, which no end of a piece can cut."""
        returns = []
        for i in range(-(-episodes // num_envs)):
            reset_key, act_key = jax.random.split(jax.random.fold_in(key, i))
            _, played = play(parameters, jnp.int32(how), reset(reset_key), act_key)
            last = np.asarray(played.last)
            first = np.cumsum(last, axis=0) - last == 0
            returns.append(np.where(first, played.reward, 0.0).sum(axis=0))
        return float(np.mean(returns))

    keys = jax.random.split(key, 5)
    returns = np.asarray(replay.returns)
    best = int(returns.argmax())
    snapshots = [jax.tree.map(lambda leaf, i=i: leaf[i], replay.snapshots) for i in range(len(returns))]
    score_random = score(snapshots[best], uniform, keys[0])
    score_expert = score(snapshots[best], greedy, keys[1])
    threshold = score_random + (returns[best] - score_random) / 3.0
    if not min(returns[best], score_expert) > score_random:
        raise UserError(
            f"{name}: nothing was learned, the best snapshot returns {score_expert:.4g} and random actions "
            f"{score_random:.4g}; collect more steps or change the settings"
        )
    medium = int((returns > threshold).argmax())

    trajectories = {
        "random": stream(snapshots[best], uniform, keys[2]),
        "medium": stream(snapshots[medium], exploring, keys[3]),
        "medium-replay": jax.tree.map(lambda leaf: leaf[: int(replay.times[medium])], replay.rows),
        "expert": stream(snapshots[best], exploring, keys[4]),
    }
    made = {
        kind: data.from_transitions(
            trajectory, name=f"{name}-{kind}", score_random=score_random, score_expert=score_expert
        )
        for kind, trajectory in trajectories.items()
    }
    made["medium-expert"] = data.concatenate([made["medium"], made["expert"]], name=f"{name}-medium-expert")
    return {kind: made[kind] for kind in DATASETS}
