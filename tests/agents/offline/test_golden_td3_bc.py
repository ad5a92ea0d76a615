"""TD3+BC against a NumPy version with its own backward passes and Adam, the delayed actor included."""

import jax
import numpy as np

from tests.agents import reference as ref

LR, TAU, ALPHA = 1e-2, 0.1, 2.5


def critic_step(params, moments, count, batch, target):
    x = np.concatenate([batch.observation, batch.action], -1)
    gradients, loss = [], 0.0
    for i in range(2):
        own = ref.member(params, i)
        q, inputs = ref.forward(own, x)
        error = q[:, 0] - target
        loss += (error**2).mean()
        gradients.append(ref.backward(own, inputs, (2 * error / ref.B)[:, None])[0])
    params, moments = ref.adam(params, ref.stack(gradients), moments, count, LR)
    return params, moments, loss, ref.stack(gradients)


def actor_step(params, moments, count, batch, critic):
    raw, inputs = ref.forward(params, batch.observation)
    action = np.tanh(raw)
    first = ref.member(critic, 0)
    q, q_inputs = ref.forward(first, np.concatenate([batch.observation, action], -1))
    scale = ALPHA / np.abs(q).mean()  # a constant: no gradient goes through it
    distance = ((action - batch.action) ** 2).mean(-1)
    loss = (distance - scale * q[:, 0]).mean()
    _, d_input = ref.backward(first, q_inputs, np.full((ref.B, 1), -scale / ref.B))
    d_action = d_input[:, 3:] + 2 * (action - batch.action) / (2 * ref.B)  # mean over two dimensions
    gradients, _ = ref.backward(params, inputs, d_action * (1 - action**2))
    params, moments = ref.adam(params, gradients, moments, count, LR)
    return params, moments, loss, gradients


def test_updates_equal_numpy():
    pair = ref.Pair("td3_bc", LR, tau=TAU, target_noise=0.4)
    state = pair.state
    actor, critic = ref.as64(state.actor.params), ref.as64(state.critic.params)
    target_actor, target_critic = ref.as64(state.target_actor), ref.as64(state.target_critic)
    ref.assert_tree_close(target_actor, actor, 0.0)
    ref.assert_tree_close(target_critic, critic, 0.0)
    actor_moments, critic_moments, actor_count = ref.zeros(actor), ref.zeros(critic), 0
    for step in range(3):
        data, key = ref.batch(step), jax.random.key(step + 1)
        metrics, state = pair.update(data, key, step), pair.state

        batch = ref.as64(data)
        noise = np.asarray(jax.random.normal(key, (ref.B, 2)), np.float64)
        smoothing = np.clip(0.4 * noise, -0.5, 0.5)
        assert np.abs(smoothing).max() == 0.5  # the cut is exercised
        next_action = np.clip(np.tanh(ref.forward(target_actor, batch.next_observation)[0]) + smoothing, -1, 1)
        next_q = ref.q_values(target_critic, batch.next_observation, next_action).min(0)
        target = batch.reward + 0.99 * batch.discount * next_q
        critic, critic_moments, critic_loss, critic_gradients = critic_step(
            critic, critic_moments, step + 1, batch, target
        )
        if step % 2 == 0:
            actor_count += 1
            actor, actor_moments, actor_loss, actor_gradients = actor_step(
                actor, actor_moments, actor_count, batch, critic
            )
            target_actor, target_critic = ref.mix(actor, target_actor, TAU), ref.mix(critic, target_critic, TAU)

        if step == 0:  # Adam's first moment is then a tenth of the gradient
            for model, gradients in ((state.critic, critic_gradients), (state.actor, actor_gradients)):
                first = jax.tree.map(lambda m: 10 * m, model.opt_state[0].mu)
                ref.assert_tree_close(first, gradients, 1e-5)
        np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["target"], target.mean(), atol=1e-6)
        np.testing.assert_allclose(metrics["actor_loss"], actor_loss, rtol=1e-4)  # of the latest actor update
        ref.assert_tree_close(state.critic.params, critic, 1e-5)
        ref.assert_tree_close(state.actor.params, actor, 1e-5)
        ref.assert_tree_close(state.target_actor, target_actor, 1e-5)
        ref.assert_tree_close(state.target_critic, target_critic, 1e-5)
