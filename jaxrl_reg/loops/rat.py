"""RAT: make a trained policy do what someone prefers, by perturbing what it sees.

Three learners. A reward learnt from preferences between segments of trajectories (``_preferred``). An intention policy,
soft actor-critic on that reward, in the victim's action space and not under attack. The adversary, a network from
observations to perturbations within the box, which makes the victim's action that of the intention, each state weighted
by a fourth network (``_targeted``).

Every episode begins with the victim under attack and goes on with the intention after a random number of steps, so that
the intention knows the states to which the victim is brought. Rewards are computed when rows are sampled, so a better
reward relabels the replay by itself.

Deviations from Bai et al. 2025: the adversary is deterministic, so its outer loss has no entropy; exploration is a
tenth of the iterations with random actions, not of a state entropy; one step of the weighting per iteration, with the
chain rule per state (the released code multiplies means, one number for all states); standardised observations, and a
box of equal size in all coordinates.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import networks
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.online import sac
from jaxrl_reg.data import buffers
from jaxrl_reg.envs import vectorize
from jaxrl_reg.envs.attacked import Reward
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.evaluation.attacks import Attack, Mean
from jaxrl_reg.loops._preferred import Preferences, Preferred, preferences
from jaxrl_reg.loops._targeted import Intended, imitate, teaching, weigh
from jaxrl_reg.loops.learnt import Learnt, attack_of, network, seen
from jaxrl_reg.loops.rollout import transition
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Env, EnvState, Key, Metrics, Network, PyTree, Transition, as_float32

WEIGHTINGS = ("state", "none")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes; all static. One iteration is ``unroll`` steps of ``num_envs`` environments, then the updates."""

    steps: int = 50_000  # environment steps, rounded down to whole iterations
    num_envs: int = 16
    unroll: int = 64
    hidden: tuple[int, ...] = (64, 64)
    updates: int = 64  # of the intention per iteration
    batch_size: int = 256
    labels: int = 400  # pairs that are asked about, in ``rounds`` rounds over the first 60% of the iterations
    rounds: int = 8
    segment: int = 10  # steps of a segment
    reward_steps: int = 100  # Adam steps on all labels after each round
    adversary_steps: int = 16  # Adam steps per iteration
    weighting: str = "state"  # or "none": every state counts the same
    beta: float = 0.0  # how sure the judge is, per unit of the target; 0: always right

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise unknown("weighting", self.weighting, WEIGHTINGS)
        if not 1 <= self.segment <= self.unroll:
            raise UserError(f"segment={self.segment} must be between 1 and unroll={self.unroll}")
        if not 1 <= self.rounds <= self.labels:
            raise UserError(f"rounds={self.rounds} must be between 1 and labels={self.labels}")

    @property
    def iterations(self) -> int:
        return max(1, self.steps // (self.num_envs * self.unroll))

    @property
    def asked(self) -> int:
        """Rounds that there are iterations for."""
        return max(1, min(self.rounds, int(0.6 * self.iterations)))


class Rates(NamedTuple):
    """Adam's step sizes, and those of the intention."""

    adversary: float = 1e-3
    weighting: float = 1e-3
    reward: float = 3e-3
    intention: sac.Hyper = sac.Hyper(
        actor_learning_rate=1e-3, critic_learning_rate=1e-3, temperature_learning_rate=1e-3, tau=0.01
    )


RATES = Rates()


class Case(NamedTuple):
    """Who is attacked, where, for what and how far.

    ``victim``: ``mean(observation [..., O]) -> action [..., A]``, with gradients. ``env``: one environment.
    ``target``: ``(before, action [A], after) -> scalar``, what the judge prefers more of; nothing else sees it.
    ``epsilon [O]``: the largest perturbation of each coordinate; may be traced. ``scale``: mean and standard deviation
    ``[O]`` of the observations, for the networks; None: 0 and 1.
    """

    victim: Mean
    env: Env
    target: Reward
    epsilon: Array
    scale: tuple[Array, Array] | None = None


class Learners(NamedTuple):
    """All that learns, with the answers that the reward is learnt from."""

    intention: sac.State
    adversary: _common.Trainable
    weighting: _common.Trainable
    reward: Preferred


class State(NamedTuple):
    """What an iteration starts from."""

    learners: Learners
    env: EnvState
    switch: Array  # [E], the step of the episode from which on the intention acts
    replay: Any


def rat(
    victim: Mean,
    env: Env,
    target: Reward,
    epsilon: Array,
    key: Key,
    scale: tuple[Array, Array] | None = None,
    config: Config = Config(),
    rates: Rates = RATES,
) -> tuple[Attack, Metrics]:
    """The attack on one victim; to be mapped over victims and sizes. What it is of: ``Case``.

    Returns:
      The attack, and metrics ``[iterations]``: ``target`` mean pay per step of the judge while the intention acted,
      ``agreement`` share of the pairs that the learnt reward orders as the judge, ``attack_loss`` nats, ``weight_std``.
    Raises:
      UserError: for sizes that do not go together.
    """
    found, metrics = learn(Case(victim, env, target, epsilon, scale), key, config, rates)
    return attack_of("rat", found, victim, jnp.asarray(epsilon), env.spec, config.hidden), metrics


def learn(case: Case, key: Key, config: Config = Config(), rates: Rates = RATES) -> tuple[Learnt, Metrics]:
    """What ``rat`` is made of, without the rest of the learners."""
    learners, _, metrics = turn(None, case, key, config, rates)
    return Learnt(learners.adversary.params, *_scale(case)), metrics


def turn(
    before: Learners | None, case: Case, key: Key, config: Config = Config(), rates: Rates = RATES
) -> tuple[Learners, Array, Metrics]:
    """A whole training on one victim that goes on with what the learners knew, None: nothing.

    The world begins anew, and the replay is empty: what another victim was brought to is not where this one is. The
    oldest answers of the judge make room for new ones.

    Returns:
      The learners, the observations ``[steps, O]`` of this turn, and the metrics of ``rat``.
    """
    parts = _parts(case, config, rates)
    state = _init(parts, jax.random.fold_in(key, 0))
    state = state if before is None else state._replace(learners=before)

    def iteration(state: State, index: Array) -> tuple[State, Metrics]:
        return _iteration(parts, state, jax.random.fold_in(key, index + 1), index)

    state, metrics = jax.lax.scan(iteration, state, jnp.arange(config.iterations))
    return state.learners, state.replay.rows.observation, metrics


def fresh(env: Env, key: Key, config: Config, rates: Rates = RATES) -> Learners:
    """Learners that know nothing yet."""
    nobody = lambda observation: jnp.zeros((*observation.shape[:-1], env.spec.action_dim))  # noqa: E731
    case = Case(nobody, env, lambda *_: jnp.zeros(()), jnp.zeros(env.spec.observation_dim))
    return _init(_parts(case, config, rates), key).learners


class _Parts(NamedTuple):
    """A case with the networks of its learners."""

    case: Case  # with arrays as ``epsilon`` and ``scale``
    config: Config
    rates: Rates
    vector: Env
    intention: Agent
    adversary: Network
    weights: Network
    reward: Preferences

    def seen(self, observation: Array) -> Array:
        return seen(observation, *_scale(self.case))

    def shift(self, params: PyTree, observation: Array) -> Array:
        """The perturbation ``[..., O]``."""
        return self.case.epsilon * self.adversary.apply(params, self.seen(observation))

    def features(self, rows: Transition) -> Array:
        return jnp.concatenate([self.seen(rows.observation), jnp.clip(rows.action, -1.0, 1.0)], axis=-1)


def _scale(case: Case) -> tuple[Array, Array]:
    size = case.env.spec.observation_dim
    return (jnp.zeros(size), jnp.ones(size)) if case.scale is None else case.scale


def _parts(case: Case, config: Config, rates: Rates) -> _Parts:
    spec, hidden, rates = case.env.spec, config.hidden, as_float32(rates)
    reward = preferences(
        spec.observation_dim + spec.action_dim,
        hidden,
        labels=config.labels,
        rounds=config.asked,
        segment=config.segment,
        steps=config.reward_steps,
        beta=config.beta,
        learning_rate=rates.reward,
    )
    return _Parts(
        case._replace(epsilon=jnp.asarray(case.epsilon)),
        config,
        rates,
        vectorize(case.env, config.num_envs),
        sac.make(sac.Config(hidden=hidden), spec),
        network("rat", spec, hidden),
        networks.mlp((spec.observation_dim, *hidden, 1), activation="tanh"),
        reward,
    )


def _init(parts: _Parts, key: Key) -> State:
    config, rates = parts.config, parts.rates
    keys = jax.random.split(key, 6)
    first = parts.vector.reset(keys[0])
    action = jnp.zeros((config.num_envs, parts.case.env.spec.action_dim))
    row = jax.eval_shape(functools.partial(_act_once, parts), first, action)[1]
    row = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), row)
    learners = Learners(
        parts.intention.init(keys[1], rates.intention),
        _common.trainable(parts.adversary.init(keys[2]), adam(rates.adversary)),
        _common.trainable(parts.weights.init(keys[3]), adam(rates.weighting)),
        parts.reward.init(keys[4]),
    )
    replay = buffers.init(config.iterations * config.num_envs * config.unroll, row)
    return State(learners, first, _switches(parts, keys[5]), replay)


def _switches(parts: _Parts, key: Key) -> Array:
    return jax.random.randint(key, (parts.config.num_envs,), 0, parts.case.env.spec.max_episode_steps + 1)


def _act_once(parts: _Parts, before: EnvState, action: Array) -> tuple[EnvState, Transition]:
    after = parts.vector.step(before, action)
    row = transition(before, action, after)
    return after, dataclasses.replace(row, reward=jnp.zeros_like(row.reward), last=None, extras={})


def _iteration(parts: _Parts, state: State, key: Key, index: Array) -> tuple[State, Metrics]:
    config = parts.config
    act_key, ask_key, learn_key, attack_key = jax.random.split(key, 4)
    state, rows, paid, intended = _collect(parts, state, act_key, index)
    number, due = _round_of(config, index)

    def ask(reward: Preferred) -> Preferred:
        return parts.reward.ask(reward, parts.features(rows), paid, ask_key, number == 0)

    reward = jax.lax.cond(due, ask, lambda reward: reward, state.learners.reward)

    def learn(intention: sac.State, key: Key) -> tuple[sac.State, None]:
        sample_key, update_key = jax.random.split(key)
        batch = buffers.sample(state.replay, sample_key, config.batch_size)
        batch = dataclasses.replace(batch, reward=parts.reward.pay(reward, parts.features(batch)))
        return parts.intention.update(intention, batch, parts.rates.intention, update_key, jnp.int32(0))[0], None

    intention, _ = jax.lax.scan(learn, state.learners.intention, jax.random.split(learn_key, config.updates))
    learners, metrics = _imitate(
        parts, state.learners._replace(intention=intention, reward=reward), state.replay, attack_key
    )
    pay = jnp.where(intended, paid, 0.0).sum() / jnp.maximum(intended.sum(), 1)
    metrics = {"target": pay, "agreement": parts.reward.agreement(reward), **metrics}
    return state._replace(learners=learners), metrics


def _collect(parts: _Parts, state: State, key: Key, index: Array) -> tuple[State, Transition, Array, Array]:
    """A trajectory ``[T, E]``, what the judge would pay for each step, and where the intention acted."""
    warmup, learners = max(1, parts.config.iterations // 10), state.learners

    def body(carry: tuple[EnvState, Array], key: Key) -> Any:
        before, switch = carry
        own_key, random_key, switch_key = jax.random.split(key, 3)
        shown = before.observation + parts.shift(learners.adversary.params, before.observation)
        meant = parts.intention.act(learners.intention, before.observation, parts.rates.intention, own_key, True)
        anything = jax.random.uniform(random_key, meant.shape, minval=-1.0, maxval=1.0)
        meant = jnp.where(index < warmup, anything, meant)
        intended = before.step >= switch
        action = jnp.clip(jnp.where(intended[:, None], meant, parts.case.victim(shown)), -1.0, 1.0)
        after, row = _act_once(parts, before, action)
        paid = as_float32(jax.vmap(parts.case.target)(before, action, after))
        ended = after.terminated + after.truncated > 0
        switch = jnp.where(ended, _switches(parts, switch_key), switch)
        return (after, switch), (row, paid, intended)

    keys = jax.random.split(key, parts.config.unroll)
    (env, switch), (rows, paid, intended) = jax.lax.scan(body, (state.env, state.switch), keys)
    return State(learners, env, switch, buffers.add(state.replay, rows)), rows, paid, intended


def _round_of(config: Config, index: Array) -> tuple[Array, Array]:
    """Which round of questions comes after this iteration, and whether one does; both unbatched."""
    every = max(1, int(0.6 * config.iterations) // config.rounds)
    number = index // every
    return number, (index % every == 0) & (number < config.asked)


def _imitate(parts: _Parts, learners: Learners, replay: Any, key: Key) -> tuple[Learners, Metrics]:
    """Steps of the adversary towards the intention's actions, then one of the weighting."""
    config, rates, agent, own = parts.config, parts.rates, parts.intention, learners.intention
    keys = jax.random.split(key, config.adversary_steps + 1)
    spoken, valued = agent.distribution, agent.q
    assert spoken is not None and valued is not None  # noqa: PT018
    intended = Intended(
        lambda observation: spoken(own, own.actor.params, observation),
        lambda observation, action: valued(own, observation, action),
    )
    weights = None if config.weighting == "none" else parts.weights
    teacher = teaching(parts.case.victim, intended, parts.shift, weights, parts.seen)

    def observations(key: Key) -> Array:
        return buffers.sample(replay, key, config.batch_size).observation

    adversary, values = imitate(
        teacher, learners.adversary, learners.weighting.params, observations, keys[1:], rates.adversary
    )
    metrics = {"attack_loss": values.mean(), "weight_std": jnp.float32(0.0)}
    if weights is None:
        return learners._replace(adversary=adversary), metrics
    weighting, told = weigh(
        teacher, adversary.params, learners.weighting, observations(keys[0]), rates.adversary, rates.weighting
    )
    return learners._replace(adversary=adversary, weighting=weighting), {**metrics, **told}
