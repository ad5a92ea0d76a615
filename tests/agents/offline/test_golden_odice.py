"""ODICE against NumPy with its own backward passes, projection and Adam; its two rival gradients; imitation."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_reg import agents
from jaxrl_reg.agents import odice
from jaxrl_reg.errors import UserError
from tests.agents import reference as ref

LR, LAM, ETA, DECAY = 1e-2, 0.6, 0.8, 0.3
KEY = jax.random.key(3)
CONFIG = {"layer_norm": "none"}


def vector(trees):
    return np.concatenate([leaf.ravel() for tree in trees for leaf in jax.tree.leaves(tree)])


def values(params, x):
    return np.stack([ref.forward(ref.member(params, i), x)[0][:, 0] for i in range(2)])


def value_gradients(params, target, batch):
    """Gradients of the linear, forward and backward part, a list of the two heads each; and the forward residuals."""
    next_low = values(target, batch.next_observation).min(0)
    low = values(target, batch.observation).min(0)
    parts, residuals = ([], [], []), []
    for i in range(2):
        own = ref.member(params, i)
        v, here = ref.forward(own, batch.observation)
        next_v, there = ref.forward(own, batch.next_observation)
        y = batch.reward + 0.99 * batch.discount * next_low - v[:, 0]
        y_back = batch.reward + 0.99 * batch.discount * next_v[:, 0] - low
        slope, slope_back = (np.maximum(r / 2 + 1, 0) for r in (y, y_back))
        count = 2 * ref.B  # means over rows and heads
        outputs = (
            (here, np.full(ref.B, (1 - LAM) / count)),
            (here, -LAM * slope / count),
            (there, LAM * ETA * slope_back * 0.99 * batch.discount / count),
        )
        for part, (inputs, dy) in zip(parts, outputs, strict=True):
            part.append(ref.backward(own, inputs, dy[:, None])[0])
        residuals.append(y)
    return *parts, np.stack(residuals)


def projected(linear, forward, backward):
    f, b = vector(forward), vector(backward)  # both heads as one vector
    coefficient = (f @ b) / (f @ f)
    heads = [
        jax.tree.map(lambda a, x, y: a + x + (y - coefficient * x), *trees)
        for trees in zip(linear, forward, backward, strict=True)
    ]
    return ref.stack(heads), (f @ b) / np.sqrt((f @ f) * (b @ b))


def actor_step(params, moments, count, batch, weight):
    mean, inputs = ref.forward(params["mean"], batch.observation)  # no tanh
    z = (batch.action - mean) / np.exp(params["log_std"])
    log_prob = (-0.5 * z**2 - params["log_std"] - 0.5 * np.log(2 * np.pi)).sum(-1)
    slope = weight[:, None] / ref.B
    gradients = {
        "mean": ref.backward(params["mean"], inputs, -slope * z / np.exp(params["log_std"]))[0],
        "log_std": (-slope * (z**2 - 1)).sum(0),
    }
    decayed = jax.tree.map(lambda g, p: g + DECAY * p, gradients, params)  # through Adam, not beside it
    params, moments = ref.adam(params, decayed, moments, count, LR)
    return params, moments, -(weight * log_prob).mean()


def test_updates_equal_numpy():
    pair = ref.Pair("odice", LR, CONFIG, tau=0.1, lam=LAM, eta=ETA, actor_weight_decay=DECAY)
    actor, value, target = (ref.as64(x) for x in (pair.state.actor.params, pair.state.value.params, pair.state[2]))
    ref.assert_tree_close(target, value, 0.0)
    actor_moments, value_moments = ref.zeros(actor), ref.zeros(value)
    for count in (1, 2, 3):
        data = ref.batch(count)
        metrics, batch = pair.update(data, KEY, count), ref.as64(data)
        linear, forward, backward, residual = value_gradients(value, target, batch)
        gradient, cosine = projected(linear, forward, backward)
        if count == 1:  # Adam's first moment is then a tenth of the gradient
            first = jax.tree.map(lambda m: 10 * m, pair.state.value.opt_state[0].mu)
            ref.assert_tree_close(first, gradient, 1e-5)
        y = residual
        expected = (1 - LAM) * values(value, batch.observation) + LAM * np.where(y > -2, y**2 / 4 + y, -1)
        np.testing.assert_allclose(metrics["value_loss"], expected.mean(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(metrics["cosine"], cosine, atol=1e-5)
        np.testing.assert_allclose(metrics["residual"], y.mean(), rtol=1e-5, atol=1e-6)

        weight = np.clip(y, 0, 100)  # the residuals of before the step
        assert metrics["active"] == (weight > 0).mean() < 1
        actor, actor_moments, actor_loss = actor_step(actor, actor_moments, count, batch, weight.mean(0))
        np.testing.assert_allclose(metrics["actor_loss"], actor_loss, rtol=1e-5)
        value, value_moments = ref.adam(value, gradient, value_moments, count, LR)
        target = ref.mix(value, target, 0.1)
        ref.assert_tree_close(pair.state.value.params, value, 1e-5)
        ref.assert_tree_close(pair.state.actor.params, actor, 1e-5)
        ref.assert_tree_close(pair.state.target_value, target, 1e-5)


def one_update(data, **config):
    """The state before, after and the metrics of one update by an agent of that configuration."""
    agent = agents.make("odice", ref.SPEC, hidden=ref.HIDDEN, layer_norm="none", **config)
    hyper = dataclasses.replace(odice.Hyper(), lam=LAM, eta=ETA, value_learning_rate=LR)
    before = jax.jit(agent.init)(KEY, hyper)
    after, metrics = jax.jit(agent.update)(before, data, hyper, KEY, 0)
    return before, after, metrics


def moved(after):
    return ref.as64(jax.tree.map(lambda m: 10 * m, after.value.opt_state[0].mu))


def test_the_semi_gradient_has_no_backward_part_and_the_ratio_weighs_more_rows():
    data = ref.batch()
    before, after, metrics = one_update(data, gradient="semi", weight="ratio")
    value = ref.as64(before.value.params)
    linear, forward, _, residual = value_gradients(value, value, ref.as64(data))
    heads = [jax.tree.map(np.add, *trees) for trees in zip(linear, forward, strict=True)]
    ref.assert_tree_close(moved(after), ref.stack(heads), 1e-5)
    ratio = np.maximum(residual / 2 + 1, 0)
    np.testing.assert_allclose(metrics["weight"], ratio.mean(), rtol=1e-5)
    assert metrics["active"] == (ratio > 0).mean() > (residual > 0).mean()


def test_the_true_gradient_is_that_of_one_loss_without_targets():
    data = ref.batch()
    before, after, _ = one_update(data, gradient="true")
    batch, params = ref.as64(data), ref.as64(before.value.params)

    def loss(params):
        v, next_v = values(params, batch.observation), values(params, batch.next_observation)
        y = batch.reward + 0.99 * batch.discount * next_v - v  # each head against itself
        return ((1 - LAM) * v + LAM * np.where(y > -2, y**2 / 4 + y, -1)).mean()

    direction = jax.tree.map(lambda p: np.random.default_rng(p.size).normal(size=p.shape), params)
    h = 1e-5
    ends = [loss(jax.tree.map(lambda p, d, s=s: p + s * d, params, direction)) for s in (h, -h)]
    slope = sum(np.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (moved(after), direction)), strict=True))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-3)


def test_imitation_ignores_rewards_and_squashes_the_mean():
    data = ref.batch()
    before, _, metrics = one_update(data, imitation=True, divergence="reverse_kl", n_values=1, actor_hidden=(4,))
    batch, value = ref.as64(data), ref.as64(before.value.params)
    v, next_v = (ref.forward(ref.member(value, 0), x)[0][:, 0] for x in (batch.observation, batch.next_observation))
    y = 0.99 * batch.discount * next_v - v
    np.testing.assert_allclose(metrics["weight"], np.exp(y - 1).mean(), rtol=1e-5)
    mean = np.tanh(ref.forward(ref.as64(before.actor.params)["mean"], batch.observation)[0])
    log_prob = -(0.5 * (batch.action - mean) ** 2).sum(-1) - np.log(2 * np.pi)
    np.testing.assert_allclose(metrics["actor_loss"], -(np.exp(y - 1) * log_prob).mean(), rtol=1e-5)
    assert before.actor.params["mean"]["Dense_0"]["kernel"].shape == (3, 4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gradient": "ortogonal"}, "unknown gradient 'ortogonal'; did you mean 'orthogonal'"),
        ({"divergence": "kl"}, "unknown divergence 'kl'"),
        ({"weight": "ratios"}, "unknown weight 'ratios'; did you mean 'ratio'"),
    ],
)
def test_unknown_choices_are_one_line(config, message):
    with pytest.raises(UserError, match=message):
        agents.make("odice", ref.SPEC, **config)
