"""BESO and DM1 against NumPy in float64: the loss of plans, one step of AdamW, and the average that acts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import generative
from tests.agents import reference as ref

LR, KEY = 1e-2, jax.random.key(3)


def mish(x):
    return x * np.tanh(np.log1p(np.exp(x)))


def perceptron(params, x):
    """``(output, last hidden layer)``."""
    layers = len(params)
    for i in range(layers - 1):
        x = mish(x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"])
    last = params[f"Dense_{layers - 1}"]
    return x @ last["kernel"] + last["bias"], x


def windows(length):
    """``[B, length, ...]``; the first step of some windows did not take place."""
    rng = np.random.default_rng(0)
    mask = np.ones((ref.B, length))
    mask[::3, 0] = 0.0
    arrays = {
        "observation": rng.normal(size=(ref.B, length, 3)),
        "action": np.tanh(rng.normal(size=(ref.B, length, 2))),
    }
    goal = rng.normal(size=(ref.B, 3))
    columns = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    extras = {"mask": jnp.asarray(mask, jnp.float32), "goal": jnp.asarray(goal, jnp.float32)}
    return dataclasses.replace(ref.batch(), **columns, extras=extras)


def test_beso():
    """A chunk of two after one past action: levels of their own, masks, and whole goals left out."""
    config = {"chunk": 2, "execute": 1, "history": 2}
    pair = ref.Pair("beso", LR, config, drop_rate=0.4, weight_decay=0.3)
    data = windows(3)
    batch, before = ref.as64(data), pair.state
    metrics, after = pair.update(data, KEY, 0), pair.state
    drop_key, loss_key, _ = jax.random.split(KEY, 3)
    kept = 1.0 - np.asarray(jax.random.bernoulli(drop_key, 0.4, (ref.B,)), np.float64)
    assert 0.3 < kept.mean() < 1
    key_sigma, key_eps = jax.random.split(loss_key)
    drawn = generative.log_logistic(key_sigma, (ref.B, 2), 0.5, sigma_min=0.02, sigma_max=5.0)
    sigma = np.asarray(drawn, np.float64)[:, [0, 1, 1]]  # one level for the past action, one for those to come
    eps = ref.normal(key_eps, (ref.B, 3, 2))
    mask = batch.extras["mask"][:, :2]
    seen = (batch.observation[:, :2] * mask[..., None]).reshape(ref.B, -1)
    total = np.sqrt(sigma**2 + 0.25)[..., None]
    x = batch.action + sigma[..., None] * eps
    wanted = (batch.action - 0.25 / total**2 * x) * total / (0.5 * sigma[..., None])
    counted = np.stack([mask[:, 0], np.ones(ref.B), np.ones(ref.B)], 1)[..., None]

    def predict(params):
        known = x / total
        known = np.concatenate([known[:, :1] * mask[:, :1, None], known[:, 1:]], 1).reshape(ref.B, -1)
        noise = np.log(sigma) / 4
        time = perceptron(params["time"]["layers"], noise[:, -1:])[0]
        goal = batch.extras["goal"] * kept[:, None]
        between = noise[:, :1] * mask[:, :1]
        inputs = np.concatenate([time, between, known, seen, mask, goal, kept[:, None]], 1)
        return perceptron(params["body"], inputs)[0].reshape(x.shape)

    def loss(params):
        error = counted * (predict(params) - wanted) ** 2
        return (error.sum((1, 2)) / (2 * counted.sum((1, 2)))).mean()

    ref.check_descent(before.actor, after.actor, loss, 1, LR, decay=0.3)
    old = ref.as64(before.actor.params)
    np.testing.assert_allclose(metrics["actor_loss"], loss(old), rtol=1e-4)
    denoised = 0.25 / total**2 * x + 0.5 * sigma[..., None] / total * predict(old)
    error = ((denoised - batch.action) ** 2)[:, 1:].mean()
    np.testing.assert_allclose(metrics["action_error"], error, rtol=1e-4)
    average = ref.mix(ref.as64(after.actor.params), ref.as64(before.average_actor), 0.9)  # forgets its start at first
    ref.assert_tree_close(after.average_actor, average, 1e-6)


def test_dm1():
    """The average velocity by MeanFlow's identity, its derivative by differences, and features driven apart."""
    changes = {"dispersive_weight": 0.7, "dispersive_scale": 0.4, "power": 0.5, "weight_decay": 0.3}
    pair = ref.Pair("dm1", LR, {"chunk": 2, "execute": 1}, **changes)
    data = windows(2)
    batch, before = ref.as64(data), pair.state
    metrics, after = pair.update(data, KEY, 0), pair.state
    plan, observation = batch.action.reshape(ref.B, 4), batch.observation[:, 0]
    key_a, key_b, key_equal, key_eps = jax.random.split(KEY, 4)
    a, b = (np.asarray(generative.logit_normal_time(k, (ref.B,)), np.float64) for k in (key_a, key_b))
    t, r = np.maximum(a, b), np.minimum(a, b)
    r = np.where(np.asarray(jax.random.uniform(key_equal, (ref.B,))) < 0.5, t, r)
    assert 0 < (r == t).mean() < 1
    eps = ref.normal(key_eps, plan.shape)
    z, v = (1 - t)[:, None] * plan + t[:, None] * eps, eps - plan

    def field(params, z, r, t):
        def embedded(network, time):
            angle = 10 * time[:, None] * 1e4 ** -(np.arange(8) / 7)
            return perceptron(network["layers"], np.concatenate([np.cos(angle), np.sin(angle)], -1))[0]

        times = embedded(params["time"][0], t), embedded(params["time"][1], t - r)
        return perceptron(params["body"], np.concatenate([*times, z, observation], -1))

    old, h = ref.as64(before.actor.params), 1e-5
    ends = [field(old, z + s * v, r, t + s)[0] for s in (h, -h)]  # along the path, r standing still
    target = v - (t - r)[:, None] * (ends[0] - ends[1]) / (2 * h)
    scale = (((field(old, z, r, t)[0] - target) ** 2).sum(-1) + 0.01) ** 0.5  # stands still

    def spread(features):
        distance = ((features[:, None] - features) ** 2).sum(-1)
        return np.log(np.exp(-distance / (features.shape[1] * 0.4)).mean())

    def loss(params):
        u, features = field(params, z, r, t)
        return (((u - target) ** 2).sum(-1) / scale).mean() + 0.7 * spread(features)

    ref.check_descent(before.actor, after.actor, loss, 1, LR, decay=0.3)
    u, features = field(old, z, r, t)
    np.testing.assert_allclose(metrics["actor_loss"], loss(old), rtol=1e-4)
    np.testing.assert_allclose(metrics["dispersive_loss"], spread(features), rtol=1e-4)
    np.testing.assert_allclose(metrics["flow_error"], ((u - target) ** 2).sum(-1).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["action_error"], ((z - t[:, None] * u - plan) ** 2).mean(), rtol=1e-4)
    average = ref.mix(ref.as64(after.actor.params), ref.as64(before.average_actor), 0.9)
    ref.assert_tree_close(after.average_actor, average, 1e-6)
