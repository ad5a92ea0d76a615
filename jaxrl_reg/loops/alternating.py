"""Adversarial training: a policy learns under an adversary, which learns against it in turn (ATLA) or is a stored one.

In every segment of ``alternating`` the agent first learns in its world, seen through the adversary as it is; then the
adversary learns against the agent as it is now, for as many steps. At the beginning it does next to nothing, or, of
RAT, something at random. ``under`` is the same with adversaries that learn nothing more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.agents.online._statistics import Statistics, merge
from jaxrl_reg.envs.attacked import Reward, shown
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.evaluation.attacks import Attack, Mean, mean_of, perturbed
from jaxrl_reg.loops import adversaries, rat
from jaxrl_reg.loops.learnt import Learnt, attack_of
from jaxrl_reg.loops.offline import Evaluator, evaluate_agent
from jaxrl_reg.loops.online import OnlineState, online
from jaxrl_reg.types import Agent, Array, Env, EnvState, Key, Metrics, PyTree, Run, as_float32, policy_of

KINDS = ("sa_rl", "pa_ad", "rat")
ADVERSARY = 105  # stream of the adversary's training


class AlternatingState(NamedTuple):
    """As ``OnlineState``, with the adversary's state."""

    agent: PyTree
    env: EnvState
    replay: Any
    ongoing: Array
    finished: Array
    adversary: PyTree


class Opponent(NamedTuple):
    """An adversary that goes on learning: ``init(key)``, ``shifts(state, victim) -> Attack``, and a turn against the
    victim as it is, ``learn(state, victim, key) -> (state, metrics)``."""

    init: Callable[[Key], PyTree]
    shifts: Callable[[PyTree, Mean], Attack]
    learn: Callable[[PyTree, Mean, Key], tuple[PyTree, Metrics]]


class Imitating(NamedTuple):
    """RAT's learners between turns, and what they have seen."""

    learners: rat.Learners
    statistics: Statistics


def _reinforced(kind: str, env: Env, epsilon: float, target: Reward | None, budget: adversaries.Budget) -> Opponent:
    hyper, numbers = as_float32(adversaries.HYPER), {"num_envs": budget.num_envs, "unroll": budget.unroll}
    steps, nobody = budget.iterations * budget.num_envs * budget.unroll, lambda observation: observation

    def learner(victim: Mean, epsilons: Array) -> tuple[Env, Agent]:
        world = adversaries.world_of(kind, victim, env, epsilons, target)
        return world, adversaries.agent_of(budget, world)

    def init(key: Key) -> PyTree:
        return learner(nobody, jnp.ones(env.spec.observation_dim))[1].init(key, hyper)

    def shifts(state: PyTree, victim: Mean) -> Attack:
        epsilons = epsilon * jnp.sqrt(state.statistics.variance)
        return attack_of(kind, adversaries.kept(state), victim, epsilons, env.spec, budget.hidden)

    def learn(state: PyTree, victim: Mean, key: Key) -> tuple[PyTree, Metrics]:
        world, opponent = learner(victim, epsilon * jnp.sqrt(state.statistics.variance))
        against = online(opponent, world, steps=steps, **numbers)
        after, told = against.train(against.init(key, hyper, state), jnp.int32(0), key, hyper, None)
        return after.agent, {"adversary/return": told["train/return"]}

    return Opponent(init, shifts, learn)


def _imitating(env: Env, epsilon: float, target: Reward | None, config: rat.Config) -> Opponent:
    size = env.spec.observation_dim

    def harm(before: EnvState, action: Array, after: EnvState) -> Array:
        return -after.reward

    def init(key: Key) -> Imitating:
        return Imitating(rat.fresh(env, key, config), Statistics(jnp.zeros(size), jnp.ones(size), jnp.float32(1e-4)))

    def scales(state: Imitating) -> tuple[Array, Array]:
        return state.statistics.mean, jnp.sqrt(state.statistics.variance)

    def shifts(state: Imitating, victim: Mean) -> Attack:
        center, spread = scales(state)
        found = Learnt(state.learners.adversary.params, center, spread)
        return attack_of("rat", found, victim, epsilon * spread, env.spec, config.hidden)

    def learn(state: Imitating, victim: Mean, key: Key) -> tuple[Imitating, Metrics]:
        scale = scales(state)
        case = rat.Case(victim, env, target or harm, epsilon * scale[1], scale)
        learners, seen, told = rat.turn(state.learners, case, key, config)
        metrics = {f"adversary/{name}": told[name][-1] for name in ("target", "agreement", "attack_loss")}
        return Imitating(learners, merge(state.statistics, seen)), metrics

    return Opponent(init, shifts, learn)


def _imitation(budget: adversaries.Budget, segments: int) -> rat.Config:
    """Sizes of a turn of RAT, of which there are ``segments``."""
    length = max(8, budget.unroll)  # of a turn's rows off-policy, where the agent takes one step at a time
    labels = max(8, 400 // segments)
    return rat.Config(budget.steps, budget.num_envs, length, labels=labels, segment=min(10, length))


def _check(agent: Agent, env: Env, kind: str, epsilon: float) -> None:
    if kind not in KINDS:
        raise unknown("adversary to train against", kind, KINDS)
    if not epsilon > 0:
        raise UserError(f"an adversary needs a size above 0, got {epsilon}")
    if agent.policy is not None or (env.spec.discrete and agent.distribution is None):
        raise UserError("this agent has no action with gradients by what it sees; train ppo or sac under an adversary")


def alternating(
    agent: Agent,
    env: Env,
    kind: str,
    epsilon: float,
    *,
    steps: int,
    num_envs: int,
    segments: int,
    unroll: int,
    target: Reward | None = None,
    imitation: rat.Config | None = None,
    evaluate: Evaluator | None = None,
    **sizes: Any,
) -> Run:
    """A run like ``online``, under an adversary that is trained in turn.

    Beside the agent's metrics ``adversary/return``, what it takes off an episode (the mean over its last ones), or of
    RAT its own (``adversary/target``, ``/agreement``, ``/attack_loss``); with ``evaluate``, ``eval/...`` without an
    attack and ``eval/attacked``, the return under the adversary as it is then.

    Args:
      agent: an online agent whose action has gradients by what it sees.
      env: one environment.
      kind: ``sa_rl`` (ATLA), ``pa_ad`` or ``rat`` (RAT-ATLA, whose judge is asked again in every turn).
      epsilon: largest perturbation, in standard deviations of each observation as the adversary has seen them.
      steps: environment steps of the agent; the adversary has about as many.
      num_envs: environments side by side, of each.
      segments: turns.
      unroll: steps of each environment per iteration.
      target: what the adversary is after, ``(before, action, after) -> scalar``; None: what the agent loses.
      imitation: sizes of a turn of RAT; None: its defaults for as many steps, 400 answers in all turns together.
      evaluate: as in ``online``.
      sizes: further ones of ``online``.
    Returns:
      A ``Run``.
    Raises:
      UserError: for another kind, a size that is none, an agent that cannot be attacked, or numbers that do not divide.
    Source: Zhang et al., 2021, Robust Reinforcement Learning on State Observations with Learned Optimal Adversary
    (ATLA); with ``pa_ad``, Sun et al., 2022 (PA-ATLA); with ``rat``, Bai et al., 2025 (RAT-ATLA).
    """
    _check(agent, env, kind, epsilon)
    own = functools.partial(online, steps=steps, num_envs=num_envs, segments=segments, unroll=unroll, **sizes)
    plain = own(agent, env)  # wrong settings show here
    budget = adversaries.Budget(max(1, steps // segments), num_envs, unroll, epochs=4, minibatches=1)
    if kind == "rat":
        opponent = _imitating(env, epsilon, target, imitation or _imitation(budget, segments))
    else:
        opponent = _reinforced(kind, env, epsilon, target, budget)

    def victim_of(state: PyTree, hyper: PyTree) -> Mean:
        victim = mean_of(agent, env.spec, state, hyper)
        assert victim is not None
        return victim

    def run_of(state: PyTree, adversary: PyTree, hyper: PyTree) -> Run:
        """The agent's, in its world as the adversary shows it to the agent as it is at the start of a turn."""
        return own(agent, shown(env, opponent.shifts(adversary, victim_of(state, hyper))))

    def init(key: Key, hyper: PyTree) -> AlternatingState:
        first = plain.init(key, hyper)
        adversary = opponent.init(jax.random.fold_in(key, ADVERSARY))
        begun = run_of(first.agent, adversary, hyper).init(key, hyper)
        return AlternatingState(*begun, adversary)

    def train(
        state: AlternatingState, index: Array, key: Key, hyper: PyTree, data: PyTree = None
    ) -> tuple[AlternatingState, Metrics]:
        before = OnlineState(*state[:-1])
        after, metrics = run_of(before.agent, state.adversary, hyper).train(before, index, key, hyper, data)
        key = jax.random.fold_in(jax.random.fold_in(key, ADVERSARY), index + 1)
        adversary, told = opponent.learn(state.adversary, victim_of(after.agent, hyper), key)
        return AlternatingState(*after, adversary), {**metrics, **told}

    if evaluate is None:
        return Run(init, train, None, segments, plain.updates_per_segment)
    attacked = _both(agent, evaluate)

    def evaluation(state: AlternatingState, index: Array, key: Key, hyper: PyTree) -> Metrics:
        attack = opponent.shifts(state.adversary, victim_of(state.agent, hyper))
        return attacked(attack, state.agent, index, key, hyper)

    return Run(init, train, evaluation, segments, plain.updates_per_segment)


def under(
    agent: Agent, env: Env, attack: Callable[[Key], Attack], *, evaluate: Evaluator | None = None, **sizes: Any
) -> Run:
    """A run like ``online`` whose agent sees what an attack that learns nothing makes of its observations.

    ``attack(key)``, with a key of the member, is ``(observation [..., O], key) -> perturbation`` and knows no gradients
    of the agent: of stored adversaries one for each member. With ``evaluate``, ``eval/...`` is without the attack and
    ``eval/attacked`` the return under it.
    """
    plain = online(agent, env, **sizes)

    def run_of(key: Key) -> Run:
        return online(agent, shown(env, attack(jax.random.fold_in(key, ADVERSARY))), **sizes)

    def init(key: Key, hyper: PyTree) -> PyTree:
        return run_of(key).init(key, hyper)

    def train(
        state: OnlineState, index: Array, key: Key, hyper: PyTree, data: PyTree = None
    ) -> tuple[OnlineState, Metrics]:
        return run_of(key).train(state, index, key, hyper, data)

    if evaluate is None:
        return Run(init, train, None, plain.segments, plain.updates_per_segment)
    both = _both(agent, evaluate)

    def evaluation(state: OnlineState, index: Array, key: Key, hyper: PyTree) -> Metrics:
        return both(attack(jax.random.fold_in(key, ADVERSARY)), state.agent, index, key, hyper)

    return Run(init, train, evaluation, plain.segments, plain.updates_per_segment)


def _both(agent: Agent, evaluate: Evaluator) -> Callable[..., Metrics]:
    """Evaluation without an attack and under one."""
    judge = evaluate_agent(agent, evaluate)

    def evaluation(attack: Attack, state: PyTree, index: Array, key: Key, hyper: PyTree) -> Metrics:
        attacked = agent._replace(
            policy=lambda member, hyper, explore: perturbed(policy_of(agent, member, hyper, explore), attack)
        )
        found = evaluate_agent(attacked, evaluate)(state, index, key, hyper)
        return {**judge(state, index, key, hyper), "eval/attacked": found["eval/return"]}

    return evaluation
