"""RAT: make a trained policy do what someone prefers, by perturbing what it sees.

Three learners. A reward learnt from preferences between segments of trajectories (an ensemble of three, Bradley-Terry
on sums, asked about where its members disagree). An intention policy, soft actor-critic on that reward, in the victim's
action space and not under attack. The adversary, a network from observations to perturbations within the box, which
makes the victim's action that of the intention: ``losses.targeted_attack_loss``, each state weighted by ``1 + tanh`` of
a fourth network. The weighting is learnt so that one step of the adversary on the weighted loss raises the intention's
value of what the victim then does (``transforms.weight_hypergradient``).

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
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.online import sac
from jaxrl_reg.data import buffers
from jaxrl_reg.envs import vectorize
from jaxrl_reg.envs.attacked import Reward
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.evaluation.attacks import Attack, Mean
from jaxrl_reg.loops.learnt import Learnt, attack_of, network, seen
from jaxrl_reg.loops.rollout import transition
from jaxrl_reg.transforms import adam, weight_hypergradient
from jaxrl_reg.types import Array, Env, EnvState, Key, Metrics, PyTree, Transition, as_float32

WEIGHTINGS = ("state", "none")
LOG_STD = (math.log(0.2), 0.0)  # of the intention, where it is imitated
CANDIDATES = 10  # pairs looked at for each that is asked about


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


class Pairs(NamedTuple):
    """Segments ``[L, S, D]`` that were asked about, which of the two was preferred ``[L]``, how many there are, and
    where the next goes."""

    first: Array
    second: Array
    preference: Array
    count: Array
    place: Array


class Learners(NamedTuple):
    """All that learns, with the answers that the reward is learnt from: the first fields of ``State``."""

    intention: sac.State
    adversary: _common.Trainable
    weighting: _common.Trainable
    reward: _common.Trainable
    spread: Array
    pairs: Pairs


class State(NamedTuple):
    """What an iteration starts from."""

    intention: sac.State
    adversary: _common.Trainable
    weighting: _common.Trainable
    reward: _common.Trainable
    spread: Array  # of the reward that is learnt, over the labelled steps
    pairs: Pairs
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
    """The attack on one victim; to be mapped over victims and sizes.

    Args:
      victim: ``mean(observation [..., O]) -> action [..., A]``, with gradients.
      env: one environment.
      target: ``(before, action [A], after) -> scalar``: what the judge prefers more of. Nothing else sees it.
      epsilon: ``[O]``, the largest perturbation of each coordinate; may be traced.
      key: of its training.
      scale: mean and standard deviation ``[O]`` of the observations, for the networks.
      config: sizes.
      rates: step sizes.
    Returns:
      The attack, and metrics ``[iterations]``: ``target`` mean pay per step of the judge while the intention acted,
      ``agreement`` share of the pairs that the learnt reward orders as the judge, ``attack_loss`` nats, ``weight_std``.
    Raises:
      UserError: for sizes that do not go together.
    """
    found, metrics = learn(victim, env, target, epsilon, key, scale, config, rates)
    return attack_of("rat", found, victim, jnp.asarray(epsilon), env.spec, config.hidden), metrics


def learn(
    victim: Mean,
    env: Env,
    target: Reward,
    epsilon: Array,
    key: Key,
    scale: tuple[Array, Array] | None = None,
    config: Config = Config(),
    rates: Rates = RATES,
) -> tuple[Learnt, Metrics]:
    """What ``rat`` is made of, without the rest of the learners."""
    learners, _, metrics = turn(None, victim, env, target, epsilon, key, scale, config, rates)
    size = env.spec.observation_dim
    return Learnt(learners.adversary.params, *((jnp.zeros(size), jnp.ones(size)) if scale is None else scale)), metrics


def turn(
    before: Learners | None,
    victim: Mean,
    env: Env,
    target: Reward,
    epsilon: Array,
    key: Key,
    scale: tuple[Array, Array] | None = None,
    config: Config = Config(),
    rates: Rates = RATES,
) -> tuple[Learners, Array, Metrics]:
    """A whole training on one victim that goes on with what the learners knew, None: nothing.

    The world begins anew, and the replay is empty: what another victim was brought to is not where this one is. The
    oldest answers of the judge make room for new ones.

    Returns:
      The learners, the observations ``[steps, O]`` of this turn, and the metrics of ``rat``.
    """
    size = env.spec.observation_dim
    center, spread = (jnp.zeros(size), jnp.ones(size)) if scale is None else scale
    parts = _Parts(victim, env, target, jnp.asarray(epsilon), center, spread, config, as_float32(rates))
    state = parts.init(jax.random.fold_in(key, 0))
    state = state if before is None else State(*before, *state[len(before) :])

    def iteration(state: State, index: Array) -> tuple[State, Metrics]:
        return parts.iteration(state, jax.random.fold_in(key, index + 1), index)

    state, metrics = jax.lax.scan(iteration, state, jnp.arange(config.iterations))
    return Learners(*state[: len(Learners._fields)]), state.replay.rows.observation, metrics


def fresh(env: Env, key: Key, config: Config, rates: Rates = RATES) -> Learners:
    """Learners that know nothing yet."""
    zero = jnp.zeros(env.spec.observation_dim)
    nobody = lambda observation: jnp.zeros((*observation.shape[:-1], env.spec.action_dim))  # noqa: E731
    parts = _Parts(nobody, env, lambda *_: jnp.zeros(()), zero, zero, zero + 1.0, config, as_float32(rates))
    return Learners(*parts.init(key)[: len(Learners._fields)])


class _Parts:
    """The learners of one victim as pure functions, with what they share."""

    def __init__(
        self,
        victim: Mean,
        env: Env,
        target: Reward,
        epsilon: Array,
        center: Array,
        spread: Array,
        config: Config,
        rates: Rates,
    ):
        self.victim, self.env, self.target, self.epsilon = victim, env, target, epsilon
        self.center, self.spread, self.config, self.rates = center, spread, config, rates
        self.vector = vectorize(env, config.num_envs)
        size, hidden = env.spec.observation_dim, config.hidden
        self.sac_config = sac.Config(hidden=hidden)
        self.sac = sac.make(self.sac_config, env.spec)
        self.network = network("rat", env.spec, hidden)
        self.weights = networks.mlp((size, *hidden, 1), activation="tanh")
        one = networks.mlp((size + env.spec.action_dim, *hidden, 1), activation="relu")
        self.rewards = networks.ensemble(one, 3)

    def seen(self, observation: Array) -> Array:
        return seen(observation, self.center, self.spread)

    def shift(self, params: PyTree, observation: Array) -> Array:
        """The perturbation in units of epsilon, ``[..., O]`` in [-1, 1]."""
        return self.network.apply(params, self.seen(observation))

    def features(self, observation: Array, action: Array) -> Array:
        return jnp.concatenate([self.seen(observation), jnp.clip(action, -1.0, 1.0)], axis=-1)

    def init(self, key: Key) -> State:
        config, rates = self.config, self.rates
        keys = jax.random.split(key, 6)
        env_state = self.vector.reset(keys[0])
        row = jax.eval_shape(self.act_once, env_state, jnp.zeros((config.num_envs, self.env.spec.action_dim)))[1]
        row = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), row)
        empty = jnp.zeros((config.labels, config.segment, self.env.spec.observation_dim + self.env.spec.action_dim))
        return State(
            self.sac.init(keys[1], rates.intention),
            _common.trainable(self.network.init(keys[2]), adam(rates.adversary)),
            _common.trainable(self.weights.init(keys[3]), adam(rates.weighting)),
            _common.trainable(self.rewards.init(keys[4]), adam(rates.reward)),
            jnp.float32(1.0),
            Pairs(empty, empty, jnp.zeros(config.labels), jnp.int32(0), jnp.int32(0)),
            env_state,
            self.switches(keys[5]),
            buffers.init(config.iterations * config.num_envs * config.unroll, row),
        )

    def switches(self, key: Key) -> Array:
        return jax.random.randint(key, (self.config.num_envs,), 0, self.env.spec.max_episode_steps + 1)

    def act_once(self, before: EnvState, action: Array) -> tuple[EnvState, Transition]:
        after = self.vector.step(before, action)
        row = transition(before, action, after)
        return after, dataclasses.replace(row, reward=jnp.zeros_like(row.reward), last=None, extras={})

    def iteration(self, state: State, key: Key, index: Array) -> tuple[State, Metrics]:
        act_key, ask_key, learn_key, attack_key = jax.random.split(key, 4)
        state, rows, paid, intended = self.collect(state, act_key, index)
        number, due = self.round_of(index)
        asked = functools.partial(self.ask, rows=rows, paid=paid, key=ask_key, number=number)
        state = jax.lax.cond(due, asked, lambda state: state, state)
        intention, keys = state.intention, jax.random.split(learn_key, self.config.updates)

        def learn(intention: sac.State, key: Key) -> tuple[sac.State, None]:
            sample_key, update_key = jax.random.split(key)
            batch = self.sample(state, sample_key)
            step = jnp.int32(0)
            return self.sac.update(intention, batch, self.rates.intention, update_key, step)[0], None

        intention, _ = jax.lax.scan(learn, intention, keys)
        state, metrics = self.imitate(state._replace(intention=intention), attack_key)
        pay = jnp.where(intended, paid, 0.0).sum() / jnp.maximum(intended.sum(), 1)
        return state, {"target": pay, "agreement": self.agreement(state), **metrics}

    def collect(self, state: State, key: Key, index: Array) -> tuple[State, Transition, Array, Array]:
        """A trajectory ``[T, E]``, what the judge would pay for each step, and where the intention acted."""
        warmup = max(1, self.config.iterations // 10)

        def body(carry: tuple[EnvState, Array], key: Key) -> Any:
            before, switch = carry
            own_key, random_key, switch_key = jax.random.split(key, 3)
            shown = before.observation + self.epsilon * self.shift(state.adversary.params, before.observation)
            meant = self.sac.act(state.intention, before.observation, self.rates.intention, own_key, True)
            anything = jax.random.uniform(random_key, meant.shape, minval=-1.0, maxval=1.0)
            meant = jnp.where(index < warmup, anything, meant)
            intended = before.step >= switch
            action = jnp.clip(jnp.where(intended[:, None], meant, self.victim(shown)), -1.0, 1.0)
            after, row = self.act_once(before, action)
            paid = as_float32(jax.vmap(self.target)(before, action, after))
            ended = after.terminated + after.truncated > 0
            switch = jnp.where(ended, self.switches(switch_key), switch)
            return (after, switch), (row, paid, intended)

        (env, switch), (rows, paid, intended) = jax.lax.scan(
            body, (state.env, state.switch), jax.random.split(key, self.config.unroll)
        )
        replay = buffers.add(state.replay, rows)
        return state._replace(env=env, switch=switch, replay=replay), rows, paid, intended

    def round_of(self, index: Array) -> tuple[Array, Array]:
        """Which round of questions comes after this iteration, and whether one does; both unbatched."""
        every = max(1, int(0.6 * self.config.iterations) // self.config.rounds)
        number = index // every
        return number, (index % every == 0) & (number < self.config.asked)

    def ask(self, state: State, rows: Transition, paid: Array, key: Key, number: Array) -> State:
        """Pairs on which the ensemble disagrees, of this trajectory, to the judge; then the reward on all labels."""
        config = self.config
        count, length = config.labels // config.asked, config.segment
        start_key, env_key, label_key = jax.random.split(key, 3)
        shape = (CANDIDATES * count, 2)
        start = jax.random.randint(start_key, shape, 0, config.unroll - length + 1)
        lane = jax.random.randint(env_key, shape, 0, config.num_envs)
        times = start[..., None] + jnp.arange(length)
        segments = self.features(rows.observation, rows.action)[times, lane[..., None]]  # [N, 2, S, D]
        returns = self.rewards.apply(state.reward.params, segments)[..., 0].sum(-1)  # [3, N, 2]
        doubt = jax.nn.sigmoid(returns[..., 0] - returns[..., 1]).std(axis=0)
        doubt = jnp.where(number == 0, jnp.arange(len(doubt), dtype=jnp.float32), doubt)  # at first anything
        chosen = jax.lax.top_k(doubt, count)[1]
        worth = paid[times, lane[..., None]].sum(-1)[chosen]
        gap = worth[:, 0] - worth[:, 1]
        certain = jnp.where(gap == 0, 0.5, (gap > 0).astype(jnp.float32))
        if config.beta > 0:
            certain = jax.random.bernoulli(label_key, jax.nn.sigmoid(config.beta * gap)).astype(jnp.float32)
        place = (state.pairs.place + jnp.arange(count)) % config.labels  # over the oldest
        pairs = Pairs(
            state.pairs.first.at[place].set(segments[chosen, 0]),
            state.pairs.second.at[place].set(segments[chosen, 1]),
            state.pairs.preference.at[place].set(certain),
            jnp.minimum(state.pairs.count + count, config.labels),
            place[-1] + 1,
        )
        known = jnp.arange(config.labels) < pairs.count

        def loss(params: PyTree) -> tuple[Array, None]:
            first, second = self.sums(params, pairs)
            rows = losses.bradley_terry_loss(first, second, jnp.broadcast_to(pairs.preference, first.shape))
            return jnp.where(known, rows, 0.0).sum() / pairs.count, None

        def step(model: _common.Trainable, _: None) -> tuple[_common.Trainable, None]:
            return _common.descend(loss, model, adam(self.rates.reward))[0], None

        model, _ = jax.lax.scan(step, state.reward, None, length=config.reward_steps)
        paid_now = self.rewards.apply(model.params, pairs.first)[..., 0].mean(0)  # [L, S]
        weight = known[:, None] / (pairs.count * config.segment)
        mean = (weight * paid_now).sum()
        spread = jnp.sqrt((weight * jnp.square(paid_now - mean)).sum())
        return state._replace(reward=model, pairs=pairs, spread=jnp.maximum(spread, 1e-3))

    def sums(self, params: PyTree, pairs: Pairs) -> tuple[Array, Array]:
        """Returns of the segments under each member of the ensemble, ``[3, L]`` each."""
        first, second = (self.rewards.apply(params, x)[..., 0].sum(-1) for x in (pairs.first, pairs.second))
        return first, second

    def agreement(self, state: State) -> Array:
        first, second = (x.mean(0) for x in self.sums(state.reward.params, state.pairs))
        known = jnp.arange(self.config.labels) < state.pairs.count
        right = (first > second) == (state.pairs.preference > 0.5)
        return (known & right).sum() / jnp.maximum(known.sum(), 1)

    def sample(self, state: State, key: Key) -> Transition:
        """Rows of the replay, paid by the reward as it is now."""
        batch = buffers.sample(state.replay, key, self.config.batch_size)
        x = self.features(batch.observation, batch.action)
        paid = self.rewards.apply(state.reward.params, x)[..., 0].mean(0) / state.spread
        return dataclasses.replace(batch, reward=paid)

    def imitate(self, state: State, key: Key) -> tuple[State, Metrics]:
        """Steps of the adversary towards the intention's actions, then one of the weighting."""
        config, rates = self.config, self.rates
        keys = jax.random.split(key, config.adversary_steps + 1)

        def weight(params: PyTree, observation: Array) -> Array:
            if config.weighting == "none":
                return jnp.ones(observation.shape[:-1])
            return 1.0 + jnp.tanh(self.weights.apply(params, self.seen(observation))[..., 0])

        def answer(params: PyTree, observation: Array) -> Array:
            return self.victim(observation + self.epsilon * self.shift(params, observation))

        def rows_of(observation: Array) -> Callable[[PyTree], Array]:
            spoken = self.sac.distribution
            assert spoken is not None
            mean, log_std = spoken(state.intention, state.intention.actor.params, observation)
            mean, log_std = jnp.tanh(mean), jnp.clip(log_std, *LOG_STD)
            return lambda params: losses.targeted_attack_loss(
                answer(params, observation), mean, log_std, jnp.ones(observation.shape[:-1])
            )

        def inner(params: PyTree, observation: Array) -> Array:
            counted = jax.lax.stop_gradient(weight(state.weighting.params, observation))
            return (counted * rows_of(observation)(params)).mean()

        def step(model: _common.Trainable, key: Key) -> tuple[_common.Trainable, Array]:
            observation = buffers.sample(state.replay, key, config.batch_size).observation

            def loss(params: PyTree) -> tuple[Array, Array]:
                value = inner(params, observation)
                return value, value

            return _common.descend(loss, model, adam(rates.adversary))

        adversary, values = jax.lax.scan(step, state.adversary, keys[1:])
        metrics = {"attack_loss": values.mean(), "weight_std": jnp.float32(0.0)}
        if config.weighting == "none":
            return state._replace(adversary=adversary), metrics
        observation = buffers.sample(state.replay, keys[0], config.batch_size).observation
        params = adversary.params
        gradient = jax.grad(inner)(params, observation)
        moved = jax.tree.map(lambda p, g: p - rates.adversary * g, params, gradient)
        q = self.sac.q
        assert q is not None
        own = q

        def outer(params: PyTree) -> Array:
            return -own(state.intention, observation, answer(params, observation)).mean()

        slope = weight_hypergradient(rows_of(observation), jax.grad(outer)(moved), params, rates.adversary)
        slope = jax.lax.stop_gradient(slope / (slope.std() + 1e-12))

        def of_weights(params: PyTree) -> tuple[Array, Array]:
            counted = weight(params, observation)
            return (slope * counted).mean(), counted.std()

        weighting, spread = _common.descend(of_weights, state.weighting, adam(rates.weighting))
        return state._replace(adversary=adversary, weighting=weighting), {**metrics, "weight_std": spread}
