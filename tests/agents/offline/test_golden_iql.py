"""IQL against a NumPy version with its own backward passes and Adam."""

import jax
import numpy as np

from jaxrl_reg.agents import iql
from tests.agents import reference as ref

LR = 1e-2  # large, so that an error in the direction of a step is far above the tolerance
DECAY = 10


def value_step(params, moments, count, batch, target_q, hyper):
    values, inputs = ref.forward(params, batch.observation)
    advantage = target_q - values[:, 0]
    side = np.where(advantage < 0, 1 - hyper.expectile, hyper.expectile)
    loss = (side * advantage**2).mean()
    gradients, _ = ref.backward(params, inputs, (-2 * side * advantage / ref.B)[:, None])
    params, moments = ref.adam(params, gradients, moments, count, LR)
    return params, moments, advantage, loss, gradients


def actor_step(params, moments, count, batch, advantage, hyper, learning_rate):
    weight = np.minimum(np.exp(hyper.inverse_temperature * advantage), 2.0)
    raw, inputs = ref.forward(params["mean"], batch.observation)
    mean, log_std = np.tanh(raw), params["log_std"]
    z = (batch.action - mean) / np.exp(log_std)
    log_prob = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
    d_mean = -weight[:, None] / ref.B * z / np.exp(log_std)
    gradients = {
        "mean": ref.backward(params["mean"], inputs, d_mean * (1 - mean**2))[0],
        "log_std": (-weight[:, None] / ref.B * (z**2 - 1)).sum(0),
    }
    params, moments = ref.adam(params, gradients, moments, count, learning_rate)
    return params, moments, -(weight * log_prob).mean(), gradients


def critic_step(params, moments, count, batch, target):
    x = np.concatenate([batch.observation, batch.action], -1)
    gradients, loss = [], 0.0
    for i in range(2):
        own = ref.member(params, i)
        q, inputs = ref.forward(own, x)
        error = q[:, 0] - target
        loss += (error**2).mean()
        gradients.append(ref.backward(own, inputs, (2 * error / ref.B)[:, None])[0])
    gradients = ref.stack(gradients)
    params, moments = ref.adam(params, gradients, moments, count, LR)
    return params, moments, loss, gradients


def test_updates_equal_numpy():
    pair = ref.Pair("iql", LR, {"max_weight": 2.0, "decay_steps": DECAY}, tau=0.1)
    state, h = pair.state, iql.Hyper()
    actor, critic, value, target_critic = (
        ref.as64(tree) for tree in (state.actor.params, state.critic.params, state.value.params, state.target_critic)
    )
    ref.assert_tree_close(target_critic, critic, 0.0)
    actor_moments, critic_moments, value_moments = ref.zeros(actor), ref.zeros(critic), ref.zeros(value)
    for count in (1, 2, 3):
        data = ref.batch(count)
        step = 4 * (count - 1)  # far enough apart for the decay to show
        metrics, state = pair.update(data, jax.random.key(count), step), pair.state

        batch = ref.as64(data)
        target_q = ref.q_values(target_critic, batch.observation, batch.action).min(0)
        value, value_moments, advantage, value_loss, value_gradients = value_step(
            value, value_moments, count, batch, target_q, h
        )
        rate = LR * 0.5 * (1 + np.cos(np.pi * step / DECAY))
        actor, actor_moments, actor_loss, actor_gradients = actor_step(
            actor, actor_moments, count, batch, advantage, h, rate
        )
        next_value = ref.forward(value, batch.next_observation)[0][:, 0]
        target = batch.reward + 0.99 * batch.discount * next_value
        critic, critic_moments, critic_loss, critic_gradients = critic_step(
            critic, critic_moments, count, batch, target
        )
        target_critic = ref.mix(critic, target_critic, 0.1)

        if count == 1:  # Adam's first moment is then a tenth of the gradient
            for model, gradients in (
                (state.value, value_gradients),
                (state.actor, actor_gradients),
                (state.critic, critic_gradients),
            ):
                first = jax.tree.map(lambda m: 10 * m, model.opt_state[0].mu)
                ref.assert_tree_close(first, gradients, 1e-5)
        np.testing.assert_allclose(metrics["value_loss"], value_loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["actor_loss"], actor_loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=1e-5)
        ref.assert_tree_close(state.value.params, value, 1e-5)
        ref.assert_tree_close(state.actor.params, actor, 1e-5)
        ref.assert_tree_close(state.critic.params, critic, 1e-5)
        ref.assert_tree_close(state.target_critic, target_critic, 1e-5)
