"""PPO against NumPy in float64: two passes over two minibatches, their gradients by differences, number by number."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.types import Transition
from tests.agents import reference as ref

T, E, LR, CLIP, ENTROPY = 8, 2, 3e-2, 0.05, 0.1
EPOCHS, PARTS, LARGEST = 2, 2, 1.5


def trajectory():
    """``[T, E]``: one lane ends at step 3, the other is cut at step 5."""
    rng = np.random.default_rng(3)
    shape = (T, E)
    discount, last = np.ones(shape), np.zeros(shape)
    discount[3, 0], last[3, 0], last[5, 1], last[-1] = 0.0, 1.0, 1.0, 1.0
    arrays = {
        "observation": rng.normal(size=(*shape, 3)),
        "action": np.tanh(rng.normal(size=(*shape, 2))),
        "reward": rng.normal(size=shape),
        "discount": discount,
        "next_observation": rng.normal(size=(*shape, 3)),
        "last": last,
    }
    return Transition(**{name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()})


def tanh(params, x):
    layers = len(params)
    for i in range(layers):
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        x = np.tanh(x) if i < layers - 1 else x
    return x


def density(params, observation, u):
    """Of the action tanh(u)."""
    mean, log_std = np.split(tanh(params, observation), 2, -1)
    log_std = np.clip(log_std, -5, 2)
    normal = -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return (normal - np.log(1 - np.tanh(u) ** 2)).sum(-1), (mean, log_std)


def advantages(batch, values, following):
    found = np.zeros((T, E))
    for t in reversed(range(T)):
        delta = batch.reward[t] + 0.99 * batch.discount[t] * following[t] - values[t]
        later = found[t + 1] if t + 1 < T else 0.0
        found[t] = delta + 0.99 * 0.95 * (1 - batch.last[t]) * later
    return found


def step(params, moments, count, loss):
    gradient = ref.slopes(loss, params)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
    cut = min(1.0, LARGEST / norm)
    gradient = jax.tree.map(lambda leaf: leaf * cut, gradient)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments[1], gradient)

    def move(p, m, v):
        return p - LR * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-5)

    return jax.tree.map(move, params, first, second), (first, second), norm


@pytest.mark.parametrize("clip_value", [False, True])
def test_two_passes_over_a_trajectory(clip_value):
    config = {"epochs": EPOCHS, "minibatches": PARTS, "clip_value": clip_value, "normalise": False}
    pair = ref.Pair("ppo", LR, config, clip=CLIP, entropy_coef=ENTROPY, max_grad_norm=LARGEST)
    before, data, key = pair.state, trajectory(), jax.random.key(4)
    metrics = pair.update(data, key, 0)
    batch, actor, value = ref.as64(data), ref.as64(before.actor.params), ref.as64(before.value.params)
    values, following = (tanh(value, x)[..., 0] for x in (batch.observation, batch.next_observation))
    advantage = advantages(batch, values, following)
    u = np.arctanh(batch.action)
    table = batch.observation, u, density(actor, batch.observation, u)[0], values, advantage
    table = [x.reshape(T * E, *x.shape[2:]) for x in table]
    actor_moments, value_moments, count = ref.zeros(actor), ref.zeros(value), 0
    seen, norms = {"clipped": [], "value_loss": [], "actor_loss": [], "entropy": []}, []
    for epoch_key in jax.random.split(key, EPOCHS):
        order_key, part_key = jax.random.split(epoch_key)
        order = np.argsort(np.asarray(jax.random.bits(order_key, (T * E,))), kind="stable").reshape(PARTS, -1)
        for index, noise_key in zip(order, jax.random.split(part_key, PARTS), strict=True):
            count += 1
            o, own, old_log_prob, old_value, gain = (x[index] for x in table)
            target, standard = gain + old_value, (gain - gain.mean()) / (gain.std() + 1e-8)
            noise = ref.normal(noise_key, (len(index), 2))

            def surrogate(params, o=o, own=own, old=old_log_prob, standard=standard):
                ratio = np.exp(density(params, o, own)[0] - old)
                return -np.minimum(ratio * standard, np.clip(ratio, 1 - CLIP, 1 + CLIP) * standard).mean(), ratio

            def entropy(params, o=o, noise=noise):
                mean, log_std = density(params, o, np.zeros((len(o), 2)))[1]
                return -density(params, o, mean + np.exp(log_std) * noise)[0].mean()

            def actor_loss(params, surrogate=surrogate, entropy=entropy):
                return surrogate(params)[0] - ENTROPY * entropy(params)

            def value_loss(params, o=o, old=old_value, target=target):
                v = tanh(params, o)[:, 0]
                held = old + np.clip(v - old, -CLIP, CLIP) if clip_value else v
                return 0.5 * np.maximum((v - target) ** 2, (held - target) ** 2).mean()

            loss, ratio = surrogate(actor)
            found = (abs(ratio - 1) > CLIP).mean(), value_loss(value), loss, entropy(actor)
            for name, number in zip(seen, found, strict=True):
                seen[name].append(number)
            actor, actor_moments, norm = step(actor, actor_moments, count, actor_loss)
            value, value_moments, other = step(value, value_moments, count, value_loss)
            norms += [norm, other]
    assert 0 < np.mean(seen["clipped"]) < 1
    assert min(norms) < LARGEST < max(norms)  # the cut binds, and not always
    for name, numbers in seen.items():
        np.testing.assert_allclose(metrics[name], np.mean(numbers), rtol=2e-4, atol=1e-5, err_msg=name)
    ref.assert_tree_close(pair.state.actor.params, actor, 2e-5)
    ref.assert_tree_close(pair.state.value.params, value, 2e-5)
    rows = batch.observation.reshape(-1, 3)
    np.testing.assert_allclose(pair.state.statistics.mean, rows.mean(0), rtol=1e-4, atol=1e-5)


def test_observations_are_standardised_by_what_was_seen_before():
    """Scaling and shifting what is observed, and the statistics with it, changes neither losses nor parameters."""
    config = {"epochs": 1, "minibatches": 1, "normalise": True}
    pair = ref.Pair("ppo", LR, config)
    data, first = trajectory(), pair._state
    plain = pair.update(data, jax.random.key(4), 0)
    learnt = pair.state
    seen = first.statistics
    moved = first._replace(statistics=seen._replace(mean=seen.mean + 3.0, variance=4 * seen.variance))
    pair.edit(lambda _: moved)
    scaled = dataclasses.replace(
        data, observation=3 + 2 * data.observation, next_observation=3 + 2 * data.next_observation
    )
    other = pair.update(scaled, jax.random.key(4), 0)
    for name in plain:
        np.testing.assert_allclose(plain[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)
    ref.assert_tree_close(pair.state.actor.params, ref.as64(learnt.actor.params), 1e-4)
