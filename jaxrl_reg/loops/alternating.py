"""Adversarial training: a policy learns under an adversary that learns against it, turn by turn (ATLA).

In every segment the agent first learns in its world, seen through the adversary as it is; then the adversary learns
against the agent as it is now, for as many steps. At the beginning the adversary does next to nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.envs.attacked import shown
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.evaluation.attacks import Attack, Mean, mean_of, perturbed
from jaxrl_reg.loops import adversaries
from jaxrl_reg.loops.offline import Evaluator, evaluate_agent
from jaxrl_reg.loops.online import OnlineState, online
from jaxrl_reg.types import Agent, Array, Env, EnvState, Key, Metrics, PyTree, Run, as_float32, policy_of

KINDS = ("sa_rl", "pa_ad")
ADVERSARY = 105  # stream of the adversary's training


class AlternatingState(NamedTuple):
    """As ``OnlineState``, with the adversary's state."""

    agent: PyTree
    env: EnvState
    replay: Any
    ongoing: Array
    finished: Array
    adversary: PyTree


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
    evaluate: Evaluator | None = None,
    **sizes: Any,
) -> Run:
    """A run like ``online``, under an adversary that is trained in turn.

    Beside the agent's metrics ``adversary/return``, what it takes off an episode (the mean over its last ones); with
    ``evaluate``, ``eval/...`` without an attack and ``eval/attacked``, the return under the adversary as it is then.

    Args:
      agent: an online agent whose action has gradients by what it sees.
      env: one environment.
      kind: ``sa_rl`` (ATLA) or ``pa_ad``.
      epsilon: largest perturbation, in standard deviations of each observation as the adversary has seen them.
      steps: environment steps of the agent; the adversary has about as many.
      num_envs: environments side by side, of each.
      segments: turns.
      unroll: steps of each environment per iteration.
      evaluate: as in ``online``.
      sizes: further ones of ``online``.
    Returns:
      A ``Run``.
    Raises:
      UserError: for another kind, a size that is none, an agent that cannot be attacked, or numbers that do not divide.
    Source: Zhang et al., 2021, Robust Reinforcement Learning on State Observations with Learned Optimal Adversary
    (ATLA); with ``pa_ad``, Sun et al., 2022 (PA-ATLA).
    """
    if kind not in KINDS:
        raise unknown("adversary to train against", kind, KINDS)
    if not epsilon > 0:
        raise UserError(f"an adversary needs a size above 0, got {epsilon}")
    if agent.policy is not None or (env.spec.discrete and agent.distribution is None):
        raise UserError("this agent has no action with gradients by what it sees; train ppo or sac under an adversary")
    numbers = {"num_envs": num_envs, "unroll": unroll}
    plain = online(agent, env, steps=steps, segments=segments, **numbers, **sizes)  # wrong settings show here
    budget = adversaries.Budget(max(1, steps // segments), num_envs, unroll, epochs=4, minibatches=1)
    hyper_of_adversary = as_float32(adversaries.HYPER)

    def victim_of(state: PyTree, hyper: PyTree) -> Mean:
        victim = mean_of(agent, env.spec, state, hyper)
        assert victim is not None
        return victim

    def learner(victim: Mean, epsilons: Array) -> tuple[Env, Agent]:
        world = adversaries.world_of(kind, victim, env, epsilons)
        return world, adversaries.agent_of(budget, world)

    def attack_of(adversary: PyTree, victim: Mean) -> Attack:
        epsilons = epsilon * jnp.sqrt(adversary.statistics.variance)
        _, opponent = learner(victim, epsilons)

        def act(observation: Array) -> Array:
            return opponent.act(adversary, observation, hyper_of_adversary, jax.random.key(0), False)

        return adversaries.attack_of(kind, act, victim, epsilons)

    def run_of(state: PyTree, adversary: PyTree, hyper: PyTree) -> Run:
        """The agent's, in its world as the adversary shows it to the agent as it is at the start of a turn."""
        seen = shown(env, attack_of(adversary, victim_of(state, hyper)))
        return online(agent, seen, steps=steps, segments=segments, **numbers, **sizes)

    def init(key: Key, hyper: PyTree) -> AlternatingState:
        first = plain.init(key, hyper)
        _, opponent = learner(victim_of(first.agent, hyper), jnp.ones(env.spec.observation_dim))
        adversary = opponent.init(jax.random.fold_in(key, ADVERSARY), hyper_of_adversary)
        begun = run_of(first.agent, adversary, hyper).init(key, hyper)
        return AlternatingState(*begun, adversary)

    def train(
        state: AlternatingState, index: Array, key: Key, hyper: PyTree, data: PyTree = None
    ) -> tuple[AlternatingState, Metrics]:
        own = OnlineState(*state[:-1])
        own, metrics = run_of(own.agent, state.adversary, hyper).train(own, index, key, hyper, data)
        epsilons = epsilon * jnp.sqrt(state.adversary.statistics.variance)
        world, opponent = learner(victim_of(own.agent, hyper), epsilons)
        turn = budget.iterations * num_envs * unroll
        against = online(opponent, world, steps=turn, **numbers)
        key = jax.random.fold_in(jax.random.fold_in(key, ADVERSARY), index + 1)
        begun = against.init(key, hyper_of_adversary, state.adversary)
        after, told = against.train(begun, jnp.int32(0), key, hyper_of_adversary, None)
        return AlternatingState(*own, after.agent), {**metrics, "adversary/return": told["train/return"]}

    if evaluate is None:
        return Run(init, train, None, segments, plain.updates_per_segment)
    judge = evaluate_agent(agent, evaluate)

    def evaluation(state: AlternatingState, index: Array, key: Key, hyper: PyTree) -> Metrics:
        attack = attack_of(state.adversary, victim_of(state.agent, hyper))
        attacked = agent._replace(
            policy=lambda member, hyper, explore: perturbed(policy_of(agent, member, hyper, explore), attack)
        )
        found = evaluate_agent(attacked, evaluate)(state.agent, index, key, hyper)
        return {**judge(state.agent, index, key, hyper), "eval/attacked": found["eval/return"]}

    return Run(init, train, evaluation, segments, plain.updates_per_segment)
