"""SAC, and what RND and DIAYN make of it, against NumPy in float64: every term of one update from the same state."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.agents import reference as ref

LR, TAU = 1e-2, 0.1
ALPHA = 0.3


@functools.cache
def rows():
    """The reference's batch, its last two observed numbers a skill, constant over a step."""
    data = ref.batch()
    skill = np.eye(2, dtype=np.float32)[np.arange(ref.B) % 2]
    observation, following = (
        np.concatenate([np.asarray(x)[:, :1], skill], 1) for x in (data.observation, data.next_observation)
    )
    return dataclasses.replace(data, observation=jnp.asarray(observation), next_observation=jnp.asarray(following))


def check_sac(before, after, batch, key, reward, metrics):
    """One update of SAC on ``batch`` with this ``reward``."""
    next_key, actor_key = jax.random.split(key)
    actor, target_critic = ref.as64(before.actor.params), ref.as64(before.target_critic)
    next_action, next_log_prob = ref.squashed(actor, batch.next_observation, ref.normal(next_key, (ref.B, 2)))
    next_q = ref.mixed(ref.q_values(target_critic, batch.next_observation, next_action)).min(0)
    target = reward + 0.99 * batch.discount * (next_q - ALPHA * next_log_prob)

    def critic_loss(params):
        return ((ref.q_values(params, batch.observation, batch.action) - target) ** 2).mean(1).sum()

    ref.check_descent(before.critic, after.critic, critic_loss, 1, LR)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss(ref.as64(before.critic.params)), rtol=1e-5)

    noise, critic = ref.normal(actor_key, (ref.B, 2)), ref.as64(after.critic.params)
    ref.mixed(ref.q_values(critic, batch.observation, ref.squashed(actor, batch.observation, noise)[0]))

    def actor_loss(params):
        action, log_prob = ref.squashed(params, batch.observation, noise)
        return (ALPHA * log_prob - ref.q_values(critic, batch.observation, action).min(0)).mean()

    ref.check_descent(before.actor, after.actor, actor_loss, 1, LR)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(actor), rtol=1e-4, atol=1e-5)
    log_prob = ref.squashed(actor, batch.observation, noise)[1]
    np.testing.assert_allclose(metrics["entropy"], -log_prob.mean(), rtol=1e-5)

    def temperature_loss(log_temperature):
        return -(np.exp(log_temperature) * (log_prob - 2.0)).mean()  # the target is minus the number of dimensions

    ref.check_descent(before.log_temperature, after.log_temperature, temperature_loss, 1, LR)
    ref.assert_tree_close(after.target_critic, ref.mix(critic, target_critic, TAU), 1e-6)


@functools.cache
def pair(name):
    made = ref.Pair(name, LR, {"initial_temperature": ALPHA, **({"features": 4} if name == "rnd" else {})}, tau=TAU)
    if name == "sac":
        made.edit(lambda state: ref.crossing(state, rows()))
    else:
        made.edit(lambda state: state._replace(base=ref.crossing(state.base, rows())))
    return made, made._state


def update(name, step=0):
    """``before, after, metrics`` of one update from the pair's first state."""
    made, first = pair(name)
    made.edit(lambda _: first)
    before = made.state
    metrics = made.update(rows(), jax.random.key(5), step)
    return before, made.state, metrics


def test_sac():
    before, after, metrics = update("sac")
    batch = ref.as64(rows())
    check_sac(before, after, batch, jax.random.key(5), batch.reward, metrics)


@pytest.mark.parametrize("step", [0, 1])
def test_rnd_pays_for_what_it_cannot_predict(step):
    before, after, metrics = update("rnd", step)
    batch = ref.as64(rows())
    following = batch.next_observation
    count, total = 1.0, 1.0 + ref.B  # one imaginary state of mean 0 and variance 1
    mean = following.sum(0) / total
    within = count + ref.B * following.var(0)
    variance = (within + following.mean(0) ** 2 * count * ref.B / total) / total
    np.testing.assert_allclose(after.moments.mean, mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after.moments.variance, variance, rtol=1e-5)
    seen = np.clip((following - mean) / np.sqrt(variance + 1e-6), -5, 5)
    features = ref.forward(ref.as64(before.target_features), seen)[0]

    def error(params):
        return ((ref.forward(params, seen)[0] - features) ** 2).sum(-1)

    ref.check_descent(before.predictor, after.predictor, lambda params: error(params).mean(), 1, LR)
    ref.assert_tree_close(after.target_features, before.target_features, 0.0)
    wrong = error(ref.as64(before.predictor.params))
    unit = wrong.mean() if step == 0 else 1.0 + 0.01 * (wrong.mean() - 1.0)
    np.testing.assert_allclose(metrics["novelty"], unit, rtol=1e-5)
    check_sac(before.base, after.base, batch, jax.random.key(5), wrong / unit, metrics)


def test_diayn_pays_for_states_that_give_the_skill_away():
    before, after, metrics = update("diayn")
    batch = ref.as64(rows())
    skill = batch.observation[:, 1:].argmax(-1)

    def log_q(params):
        logits = ref.forward(params, batch.next_observation[:, :1])[0]
        return (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[np.arange(ref.B), skill]

    ref.check_descent(before.discriminator, after.discriminator, lambda params: -log_q(params).mean(), 1, LR)
    told = log_q(ref.as64(before.discriminator.params))
    np.testing.assert_allclose(metrics["discriminator_loss"], -told.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["skill_accuracy"], (told > np.log(0.5)).mean(), rtol=1e-6)
    check_sac(before.base, after.base, batch, jax.random.key(5), told - np.log(0.5), metrics)
