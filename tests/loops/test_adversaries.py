"""Adversaries that learn: a line on which the victim goes right, and is shown that it is elsewhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.agents.online import ppo
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.envs import core
from jaxrl_reg.envs.attacked import attacked, shown
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.attacks import perturbed
from jaxrl_reg.evaluation.returns import episode_returns, evaluator
from jaxrl_reg.loops import adversaries, rat, sarsa
from jaxrl_reg.loops.alternating import alternating, under
from jaxrl_reg.loops.learnt import attack_of
from jaxrl_reg.types import Spec, as_float32

STEPS = 8


def line():
    """A place on a line that moves by 0.2 times the action; seen with a number that tells nothing."""

    def seen(x):
        return jnp.stack([x, jnp.float32(0.5)])

    def reset(key):
        x = jax.random.uniform(key, (), minval=-0.2, maxval=0.2)
        return core.Outcome(x, seen(x))

    def step(x, action, key):
        x = jnp.clip(x + 0.2 * action[0], -1.0, 1.0)
        return core.Outcome(x, seen(x), reward=x)

    env = core.environment(reset, step, Spec(2, 1), "line")
    return core.time_limit(env, STEPS)


def victim(observation):
    """Goes to 0.5, from wherever it seems to be."""
    return jnp.tanh(4.0 * (0.5 - observation[..., :1]))


def left(before, action, after):
    return -after.final_observation[0]


EPSILON = jnp.array([1.0, 0.0])
FAST = ppo.Hyper(actor_learning_rate=1e-2, value_learning_rate=1e-2)
BUDGET = adversaries.Budget(steps=1280, num_envs=8, unroll=16, hidden=(8,), epochs=4, minibatches=2)


def test_an_attacked_world_moves_by_what_the_victim_does_and_pays_the_adversary():
    env = line()
    shift = lambda observation, action, key: jnp.array([1.0, 0.0]) * action  # noqa: E731
    world = attacked(env, lambda observation, key: victim(observation), shift, 2, left)
    assert (world.spec.action_dim, world.spec.observation_dim) == (2, 2)
    state = world.reset(jax.random.key(0))
    after = world.step(state, jnp.array([3.0, 1.0]))  # clipped to 1
    moved = env.step(state, victim(state.observation + jnp.array([1.0, 0.0])))
    np.testing.assert_allclose(after.observation, moved.observation)
    np.testing.assert_allclose(after.reward, -moved.observation[0], rtol=1e-6)
    harm = attacked(env, lambda observation, key: victim(observation), shift, 2)
    lost = env.step(state, victim(state.observation)).reward
    np.testing.assert_allclose(harm.step(state, jnp.zeros(2)).reward, -lost)


@pytest.fixture(scope="module")
def plays():
    play = quick(lambda key: episode_returns(line(), 32)(lambda observation, key: victim(observation), key)["return"])
    return float(play(jax.random.key(7)).mean())


def test_what_learns_by_reinforcement_brings_the_victim_down(plays):
    """PA-AD; SA-RL differs from it by what its action is, and learns below, in turn."""

    def attacked_return(key):
        attack, _ = adversaries.pa_ad(victim, line(), EPSILON, key, budget=BUDGET, hyper=FAST)
        shown = perturbed(lambda observation, key: victim(observation), attack)
        return episode_returns(line(), 32)(shown, jax.random.key(7))["return"].mean()

    assert float(quick(attacked_return)(jax.random.key(0))) < plays - 1.0


def test_rat_brings_about_what_the_judge_prefers_and_learns_it_from_answers(plays):
    config = rat.Config(
        steps=1280, num_envs=8, unroll=16, hidden=(16,), updates=32, batch_size=64, labels=40, rounds=4, segment=4
    )

    def attacked_return(key):
        attack, metrics = rat.rat(victim, line(), left, EPSILON, key, config=config)
        shifts = attack(jnp.array([[0.3, 0.5], [-0.4, 0.5]]), key)
        total = episode_returns(line(), 32)(perturbed(lambda o, k: victim(o), attack), jax.random.key(7))
        return total["return"].mean(), shifts, metrics

    total, shifts, metrics = quick(attacked_return)(jax.random.key(0))
    assert float(total) < plays - 1.0
    assert np.abs(np.asarray(shifts)[:, 0]).max() <= 1.0
    np.testing.assert_array_equal(np.asarray(shifts)[:, 1], 0.0)  # a coordinate without room is left alone
    assert float(metrics["agreement"][-1]) > 0.9
    assert float(metrics["target"][-1]) > float(metrics["target"][0])
    assert float(metrics["weight_std"][-1]) > 0.0


def test_a_world_that_is_shown_perturbed_moves_by_the_truth():
    env, shift = line(), jnp.array([0.3, 0.0])
    false = shown(env, lambda observation, key: shift)
    state, true = false.reset(jax.random.key(2)), env.reset(jax.random.key(2))
    for action in (0.5, -1.0):
        np.testing.assert_allclose(state.observation, true.observation + shift, rtol=1e-6)
        np.testing.assert_array_equal(state.final_observation, state.observation)
        state, true = false.step(state, jnp.array([action])), env.step(true, jnp.array([action]))
    np.testing.assert_allclose(state.reward, true.reward)


def test_agent_and_adversary_learn_in_turn():
    agent = ppo.make(ppo.Config(hidden=(8,), epochs=2, minibatches=1), Spec(2, 1))
    sizes = {"steps": 512, "num_envs": 8, "unroll": 16, "segments": 2}
    run = alternating(agent, line(), "sa_rl", 1.0, evaluate=evaluator(line(), 32), **sizes)
    state, metrics = quick(run)(jax.random.key(0), as_float32(FAST))
    assert float(metrics["eval/return"][-1]) > 1.0
    assert float(metrics["eval/attacked"][-1]) < float(metrics["eval/return"][-1]) - 0.01
    # Each has seen as many steps as the other: its own world's truth, and what the other made of it.
    seen = state.agent.statistics.count, state.adversary.statistics.count
    np.testing.assert_allclose(seen, [512, 512], rtol=1e-3)
    with pytest.raises(UserError, match="did you mean 'sa_rl'"):
        alternating(agent, line(), "sarl", 1.0, **sizes)
    with pytest.raises(UserError, match="size above 0"):
        alternating(agent, line(), "sa_rl", 0.0, **sizes)


def test_an_attack_on_a_value_learnt_from_the_victims_episodes(plays):
    """Robust SARSA: the value is of what the adversary is paid, and changes less where it is held to be smooth."""
    config = sarsa.Config(steps=1280, num_envs=8, unroll=16, hidden=(16,), updates=32, batch_size=64)

    def attacked_return(key, rates):
        found, metrics = sarsa.sarsa(victim, line(), key, left, config=config, rates=rates)
        attack = attack_of("sarsa", found, victim, EPSILON, line().spec, config.hidden)
        total = episode_returns(line(), 32)(perturbed(lambda o, k: victim(o), attack), jax.random.key(7))
        return total["return"].mean(), metrics

    rates = sarsa.Rates(critic=1e-2, discount=0.9, tau=0.05)
    grid = jax.tree.map(lambda *x: jnp.stack(x), as_float32(rates), as_float32(rates._replace(smoothness=0.0)))
    total, metrics = jax.jit(jax.vmap(attacked_return, (None, 0)))(jax.random.key(0), grid)
    assert float(total[0]) < plays - 1.0
    smooth = np.asarray(metrics["smoothness"])[:, -1]
    assert smooth[0] < 0.7 * smooth[1]
    assert (np.asarray(metrics["td_loss"])[:, -1] < np.asarray(metrics["td_loss"])[:, 0]).all()


def test_agent_and_rat_learn_in_turn():
    """RAT goes on with what it knew: its answers of one turn make room for those of the next, its networks move on."""
    agent = ppo.make(ppo.Config(hidden=(8,), epochs=1, minibatches=1), Spec(2, 1))
    sizes = {"steps": 512, "num_envs": 8, "unroll": 16, "segments": 2}
    config = rat.Config(256, 8, 16, (8,), updates=8, batch_size=32, labels=12, rounds=1, segment=4, reward_steps=60)
    run = alternating(agent, line(), "rat", 1.0, target=left, imitation=config, evaluate=evaluator(line(), 32), **sizes)
    state, metrics = quick(run)(jax.random.key(0), as_float32(FAST))
    assert float(metrics["adversary/agreement"][-1]) > 0.7
    assert float(metrics["eval/attacked"][-1]) != float(metrics["eval/return"][-1])
    np.testing.assert_allclose(state.adversary.statistics.count, 512, rtol=1e-3)
    learners = state.adversary.learners
    assert int(learners.reward.pairs.count) == 12
    assert int(learners.adversary.opt_state[0].count) == 2 * 2 * config.adversary_steps  # turns, iterations


def test_an_agent_learns_under_an_adversary_that_stays_as_it_is():
    """What tells nothing is moved by a quarter while it learns, and again where it is judged under attack."""
    agent = ppo.make(ppo.Config(hidden=(8,), epochs=1, minibatches=1), Spec(2, 1))
    sizes = {"steps": 256, "num_envs": 8, "unroll": 16, "segments": 1}
    shift = jnp.array([-0.5, 0.25])
    run = under(agent, line(), lambda key: lambda observation, key: shift, evaluate=evaluator(line(), 32), **sizes)
    state, metrics = quick(run)(jax.random.key(0), as_float32(FAST))
    np.testing.assert_allclose(state.agent.statistics.mean[1], 0.75, rtol=1e-3)
    assert float(metrics["eval/attacked"][-1]) != float(metrics["eval/return"][-1])


def test_refusals():
    with pytest.raises(UserError, match="did you mean 'state'"):
        rat.Config(weighting="states")
    with pytest.raises(UserError, match="segment=40"):
        dataclasses.replace(rat.Config(), segment=40, unroll=16)
    with pytest.raises(UserError, match="rounds=9"):
        rat.Config(labels=8, rounds=9)
    with pytest.raises(UserError, match="updates=0"):
        sarsa.Config(updates=0)
    with pytest.raises(UserError, match="steps=0"):
        _ = adversaries.Budget(steps=0).iterations
