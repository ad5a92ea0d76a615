"""Diffusion-QL, IDQL and FQL against NumPy in float64, step by step from the agents' own states.

Values are compared directly. Gradients, read off Adam's first moment, are compared with central differences of the
NumPy losses along random directions, so that no backward pass is shared. Random numbers are redrawn from the same keys.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg import agents
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import as_float32
from tests.agents import reference as ref

LR = 1e-2
T = 5
BETAS = 1 - np.exp(-0.1 / T - 0.5 * 9.9 * (2 * np.arange(1, T + 1) - 1) / T**2)
ABAR = np.cumprod(1 - BETAS)


def mish(x):
    return x * np.tanh(np.log1p(np.exp(x)))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def normalised(x, norm):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * norm["scale"] + norm["bias"]


def perceptron(params, x, activation):
    layers = sum(name.startswith("Dense") for name in params)
    for i in range(layers):
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        if i < layers - 1:
            x = activation(x)
            if f"LayerNorm_{i}" in params:
                x = normalised(x, params[f"LayerNorm_{i}"])
    return x


def q_values(params, observation, action, activation):
    x = np.concatenate([observation, action], -1)
    return np.stack([perceptron(ref.member(params, i), x, activation)[..., 0] for i in range(2)])


def eps_network(params, x, t, observation):
    """Diffusion-QL's: sinusoidal features of (t + 1) / T, a perceptron with mish."""
    angle = 1000 * (t + 1)[:, None] / T * 1e4 ** -(np.arange(8) / 7)
    time = perceptron(params["time"][0]["layers"], np.concatenate([np.cos(angle), np.sin(angle)], -1), mish)
    return perceptron(params["body"], np.concatenate([time, x, observation], -1), mish)


def resnet(params, x, t, observation):
    """IDQL's: learned Fourier features of the step's number, one residual block with LayerNorm."""
    angle = 2 * np.pi * (t + 1)[:, None] * params["time"][0]["frequencies"]
    time = perceptron(params["time"][0]["layers"], np.concatenate([np.cos(angle), np.sin(angle)], -1), mish)
    body = params["body"]

    def dense(i, x):
        return x @ body[f"Dense_{i}"]["kernel"] + body[f"Dense_{i}"]["bias"]

    h = dense(0, np.concatenate([time, x, observation], -1))
    h = h + dense(2, mish(dense(1, normalised(h, body["LayerNorm_0"]))))
    return dense(3, mish(h))


def velocity(params, z, t, observation):
    """FQL's flow: the time through a small network, a perceptron with gelu."""
    time = perceptron(params["time"][0]["layers"], t[:, None], gelu)
    return perceptron(params["body"], np.concatenate([time, z, observation], -1), gelu)


def denoising_error(network, params, observation, action, key):
    """``[B]`` and the one-step estimates of the clean action."""
    key_t, key_eps = jax.random.split(key)
    t = np.asarray(jax.random.randint(key_t, (len(action),), 0, T))
    eps, abar = ref.normal(key_eps, action.shape), ABAR[t][:, None]
    x = np.sqrt(abar) * action + np.sqrt(1 - abar) * eps
    predicted = network(params, x, t, observation)
    return ((predicted - eps) ** 2).mean(-1), (x - np.sqrt(1 - abar) * predicted) / np.sqrt(abar)


def chain(network, params, observation, key, shape=(), variance="small", clip_denoised=True, clip_sample=False):
    """Ancestral sampling, from the definition of the posterior."""
    key_noise, key_draw = jax.random.split(key)
    rows = np.broadcast_to(observation, (*shape, *observation.shape)).reshape(-1, 3)
    x = ref.normal(key_noise, (len(rows), 2))
    for index, t in enumerate(range(T - 1, -1, -1)):
        x0 = (x - np.sqrt(1 - ABAR[t]) * network(params, x, np.full(len(rows), t), rows)) / np.sqrt(ABAR[t])
        x0 = np.clip(x0, -1, 1) if clip_denoised else x0
        before = ABAR[t - 1] if t else 1.0
        mean = np.sqrt(before) * BETAS[t] * x0 + np.sqrt(1 - BETAS[t]) * (1 - before) * x
        x = mean / (1 - ABAR[t])
        if t:
            spread = BETAS[t] if variance == "large" else BETAS[t] * (1 - before) / (1 - ABAR[t])
            x = x + np.sqrt(spread) * ref.normal(jax.random.fold_in(key_draw, index), x.shape)
        x = np.clip(x, -1, 1) if clip_sample else x
    return np.clip(x, -1, 1).reshape(*shape, *observation.shape[:-1], 2)


def steps_of(pair, count):
    """``(state before, state after, metrics, batch, key, number)`` of consecutive updates."""
    for number in range(1, count + 1):
        before, data, key = pair.state, ref.batch(number), jax.random.key(number)
        metrics = pair.update(data, key, number - 1)
        yield before, pair.state, metrics, ref.as64(data), key, number


@pytest.mark.parametrize("estimate", ["chain", "one_step"])
def test_diffusion_ql(estimate):
    config = {"estimate": estimate, "backup_candidates": 2, "average_every": 2, "candidates": 3}
    pair = ref.Pair("diffusion_ql", LR, config, tau=0.1, eta=0.7, gradient_clip=1e6)
    pair.edit(lambda state: ref.crossing(state, ref.batch(1), functools.partial(q_values, activation=mish)))
    pairs_seen, orders_differ = set(), False
    for before, after, metrics, batch, key, number in steps_of(pair, 4):
        next_key, loss_key, chain_key, pair_key = jax.random.split(key, 4)
        actor, target_actor, target_critic = map(
            ref.as64, (before.actor.params, before.target_actor, before.target_critic)
        )
        next_action = chain(eps_network, target_actor, batch.next_observation, next_key, (2,))
        next_observation = np.stack([batch.next_observation] * 2)
        next_q = q_values(target_critic, next_observation, next_action, mish)  # [critics, samples, B]
        orders_differ |= (next_q.max(1).min(0) - next_q.min(0).max(0)).max() > 1e-3
        target = batch.reward + 0.99 * batch.discount * next_q.max(1).min(0)

        def critic_loss(params, target=target, batch=batch):
            return ((q_values(params, batch.observation, batch.action, mish) - target) ** 2).mean(1).sum()

        ref.check_descent(before.critic, after.critic, critic_loss, number, LR)
        np.testing.assert_allclose(metrics["critic_loss"], critic_loss(ref.as64(before.critic.params)), rtol=1e-5)
        np.testing.assert_allclose(metrics["target"], target.mean(), rtol=1e-5)

        critic = ref.as64(after.critic.params)
        i, j = np.asarray(jax.random.permutation(pair_key, 2))
        pairs_seen.add((int(i), int(j)))

        def terms(params, batch=batch, loss_key=loss_key, chain_key=chain_key, critic=critic):
            error, x0 = denoising_error(eps_network, params, batch.observation, batch.action, loss_key)
            if estimate == "chain":
                action = chain(eps_network, params, batch.observation, chain_key)
            else:
                action = np.clip(x0, -1, 1)
            return error, q_values(critic, batch.observation, action, mish)

        scale = np.abs(terms(actor)[1][j]).mean()  # stands still

        def actor_loss(params, terms=terms, i=i, scale=scale):
            error, values = terms(params)
            return (error - 0.7 * values[i] / scale).mean()

        ref.check_descent(before.actor, after.actor, actor_loss, number, LR)
        np.testing.assert_allclose(metrics["actor_loss"], actor_loss(actor), rtol=1e-5)
        np.testing.assert_allclose(metrics["bc_loss"], terms(actor)[0].mean(), rtol=1e-5)
        moved = ref.mix(ref.as64(after.actor.params), target_actor, 0.1) if number % 2 else target_actor
        ref.assert_tree_close(after.target_actor, moved, 1e-6)
        ref.assert_tree_close(after.target_critic, ref.mix(critic, target_critic, 0.1), 1e-6)
    assert len(pairs_seen) == 2  # the critics do swap
    assert orders_differ  # each critic's best sample, then the smaller; not the best of the smaller ones

    state, key = pair.state, jax.random.key(9)
    observation = ref.as64(ref.batch().observation)
    action = pair.agent.act(state, ref.batch().observation, pair.hyper, key, False)
    drawn = chain(eps_network, ref.as64(state.target_actor), observation, jax.random.split(key)[0], (3,))
    scores = q_values(ref.as64(state.target_critic), np.stack([observation] * 3), drawn, mish).min(0)
    np.testing.assert_allclose(action, drawn[scores.argmax(0), np.arange(ref.B)], atol=1e-5)


def test_gradients_of_diffusion_ql_are_clipped_by_norm_and_settings_checked():
    config = {"estimate": "one_step", "backup_candidates": 2, "average_every": 2, "candidates": 3}
    pair = ref.Pair("diffusion_ql", LR, config, gradient_clip=0.1)  # the program of the test above
    for _, after, *_ in steps_of(pair, 1):
        for model in (after.actor, after.critic):
            first = ref.flat(optax.tree_utils.tree_get(model.opt_state, "mu"))
            assert np.sqrt(sum((leaf**2).sum() for leaf in first.values())) == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(UserError, match="one_step"):
        agents.make("diffusion_ql", ref.SPEC, estimate="onestep")
    with pytest.raises(UserError, match="aggregate"):
        agents.make("fql", ref.SPEC, aggregate="max")


def test_idql():
    config = {"actor_hidden": 8, "blocks": 1, "actor_dropout": 0.0, "candidates": 3, "max_weight": 1.5}
    changes = {"tau": 0.1, "actor_average_rate": 0.2, "inverse_temperature": 10.0, "weight_decay": 0.3}
    pair = ref.Pair("idql", LR, {**config, "decay_steps": 0}, **changes)
    weights_cut = False
    for before, after, metrics, batch, key, number in steps_of(pair, 2):
        loss_key = jax.random.split(key)[1]
        target_critic = ref.as64(before.target_critic)
        target_q = ref.q_values(target_critic, batch.observation, batch.action).min(0)

        def value(params, x):
            return ref.forward(params, x)[0][:, 0]

        def value_loss(params, batch=batch, target_q=target_q):
            u = target_q - value(params, batch.observation)
            return (np.where(u < 0, 0.3, 0.7) * u**2).mean()

        ref.check_descent(before.value, after.value, value_loss, number, LR)
        advantage = target_q - value(ref.as64(before.value.params), batch.observation)
        weight = np.minimum(np.exp(10 * advantage), 1.5)
        weights_cut |= bool((weight == 1.5).any() and (weight < 1.5).any())
        next_value = value(ref.as64(after.value.params), batch.next_observation)
        target = batch.reward + 0.99 * batch.discount * next_value

        def critic_loss(params, target=target, batch=batch):
            return ((ref.q_values(params, batch.observation, batch.action) - target) ** 2).mean(1).sum()

        ref.check_descent(before.critic, after.critic, critic_loss, number, LR)

        def actor_loss(params, batch=batch, weight=weight, loss_key=loss_key):
            return (weight * denoising_error(resnet, params, batch.observation, batch.action, loss_key)[0]).mean()

        ref.check_descent(before.actor, after.actor, actor_loss, number, LR, decay=0.3)
        np.testing.assert_allclose(metrics["actor_loss"], actor_loss(ref.as64(before.actor.params)), rtol=1e-5)
        np.testing.assert_allclose(metrics["critic_loss"], critic_loss(ref.as64(before.critic.params)), rtol=1e-5)
        average = ref.mix(ref.as64(after.actor.params), ref.as64(before.average_actor), 0.2)
        ref.assert_tree_close(after.average_actor, average, 1e-6)
        ref.assert_tree_close(after.target_critic, ref.mix(ref.as64(after.critic.params), target_critic, 0.1), 1e-6)
    assert weights_cut

    # Acting: noise of the full beta, every intermediate sample clipped, the estimates not; the best of three.
    state, key = pair.state, jax.random.key(9)
    observation = ref.as64(ref.batch().observation)
    action = pair.agent.act(state, ref.batch().observation, pair.hyper, key, False)
    how = {"variance": "large", "clip_denoised": False, "clip_sample": True}
    drawn = chain(resnet, ref.as64(state.average_actor), observation, jax.random.split(key)[0], (3,), **how)
    scores = ref.q_values(ref.as64(state.target_critic), np.stack([observation] * 3), drawn).min(0)
    np.testing.assert_allclose(action, drawn[scores.argmax(0), np.arange(ref.B)], atol=1e-5)


def test_idql_trains_with_dropout_and_acts_without():
    agent = agents.make("idql", ref.SPEC, hidden=(8,), actor_hidden=8, blocks=1, actor_dropout=0.5, candidates=1)
    plain = agents.make("idql", ref.SPEC, hidden=(8,), actor_hidden=8, blocks=1, actor_dropout=0.0, candidates=1)
    hyper, data, key = as_float32(agents.load("idql").Hyper()), ref.batch(), jax.random.key(1)

    @jax.jit
    def run(key):
        state = agent.init(key, hyper)
        losses = [a.update(state, data, hyper, key, jnp.int32(0))[1]["actor_loss"] for a in (agent, plain)]
        return losses, [a.act(state, data.observation, hyper, key, False) for a in (agent, plain)]

    (dropped, whole), (action, same) = run(key)
    assert abs(float(dropped - whole)) > 1e-3
    np.testing.assert_array_equal(action, same)


@pytest.mark.parametrize(("aggregate", "normalise_q"), [("mean", False), ("min", True)])
def test_fql(aggregate, normalise_q):
    config = {"aggregate": aggregate, "normalise_q": normalise_q, "steps": 3}
    pair = ref.Pair("fql", LR, config, tau=0.1, alpha=0.6)
    first = pair._state.actor.params["one_step"]["Dense_2"]
    first["kernel"] = 20 * first["kernel"]  # so that actions leave [-1, 1], where the critics must not follow

    def one_step(params, observation, noise):
        return perceptron(params["one_step"], np.concatenate([observation, noise], -1), gelu)

    for before, after, metrics, batch, key, number in steps_of(pair, 2):
        next_key, flow_key, noise_key = jax.random.split(key, 3)
        actor, target_critic = ref.as64(before.actor.params), ref.as64(before.target_critic)
        next_action = np.clip(one_step(actor, batch.next_observation, ref.normal(next_key, (ref.B, 2))), -1, 1)
        next_q = q_values(target_critic, batch.next_observation, next_action, gelu)
        target = batch.reward + 0.99 * batch.discount * getattr(next_q, aggregate)(0)

        def critic_loss(params, target=target, batch=batch):
            return ((q_values(params, batch.observation, batch.action, gelu) - target) ** 2).mean(1).sum()

        ref.check_descent(before.critic, after.critic, critic_loss, number, LR)
        np.testing.assert_allclose(metrics["critic_loss"], critic_loss(ref.as64(before.critic.params)), rtol=1e-5)

        noise = z = ref.normal(noise_key, (ref.B, 2))
        for t in (1.0, 2 / 3, 1 / 3):  # from noise at 1 down to data at 0
            z = z - velocity(actor["flow"], z, np.full(ref.B, t), batch.observation) / 3
        wanted = np.clip(z, -1, 1)
        assert (np.abs(z) > 1).any()  # so the clip counts
        key_t, key_eps = jax.random.split(flow_key)
        t, eps = np.asarray(jax.random.uniform(key_t, (ref.B,)), np.float64), ref.normal(key_eps, (ref.B, 2))
        critic = ref.as64(after.critic.params)

        def terms(params, batch=batch, t=t, eps=eps, noise=noise, critic=critic):
            between = (1 - t)[:, None] * batch.action + t[:, None] * eps
            predicted = velocity(params["flow"], between, t, batch.observation)
            action = one_step(params, batch.observation, noise)
            values = q_values(critic, batch.observation, np.clip(action, -1, 1), gelu).mean(0)
            return ((predicted - (eps - batch.action)) ** 2).mean(-1), action, values

        assert (np.abs(terms(actor)[1]) > 1).any()
        scale = 1 / np.abs(terms(actor)[2]).mean() if normalise_q else 1.0

        def actor_loss(params, terms=terms, wanted=wanted, scale=scale):
            error, action, values = terms(params)
            return (error + 0.6 * ((action - wanted) ** 2).mean(-1) - scale * values).mean()

        ref.check_descent(before.actor, after.actor, actor_loss, number, LR)
        np.testing.assert_allclose(metrics["actor_loss"], actor_loss(actor), rtol=1e-5)
        ref.assert_tree_close(after.target_critic, ref.mix(critic, target_critic, 0.1), 1e-6)

    state, key = pair.state, jax.random.key(9)
    action = pair.agent.act(state, ref.batch().observation, pair.hyper, key, True)
    expected = one_step(ref.as64(state.actor.params), ref.as64(ref.batch().observation), ref.normal(key, (ref.B, 2)))
    np.testing.assert_allclose(action, np.clip(expected, -1, 1), atol=1e-5)
