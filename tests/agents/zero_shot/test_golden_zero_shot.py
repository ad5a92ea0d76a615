"""FB, BREEZE, successor features and GC-IQL against NumPy in float64: one update from states whose copies differ."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.agents import reference as ref

LR, D, KEY = 1e-2, 4, jax.random.key(11)
DATA = ref.batch()
BATCH = ref.as64(DATA)


def sphere(x):
    return D**0.5 * x / np.linalg.norm(x, axis=-1, keepdims=True)


def net(params, *inputs):
    """First layer tanh(LayerNorm(.)), then ReLU."""
    return ref.forward(params, np.concatenate(inputs, -1), "first_tanh")[0]


def both(params, *inputs):
    return np.stack([net(ref.member(params, i), *inputs) for i in range(2)])


def uniform(key, shape):
    return np.asarray(jax.random.uniform(key, shape), np.float64)


def shifted(tree, scale=1.2):
    """Slow copies that are not the networks they follow."""
    return jax.tree.map(lambda leaf: scale * leaf + 0.02, tree)


def smoothed(action, key):
    noise = np.clip(0.2 * ref.normal(key, action.shape), -0.3, 0.3)
    return np.clip(action + noise, -1, 1)


def check_step(before, after, loss, bound=np.inf, decay=0.0):
    """As ``ref.check_descent``; where a clamp to ``bound`` binds, every number of the gradient is compared."""
    found = ref.flat(optax.tree_utils.tree_get(after.opt_state, "mu"))
    if max(np.abs(leaf).max() for leaf in found.values()) < 0.0999 * bound:
        ref.check_descent(before, after, loss, 1, LR, decay, tolerance=1e-3)
        return
    params = ref.as64(before.params)
    gradient = jax.tree.map(lambda leaf: np.clip(leaf, -bound, bound), ref.slopes(loss, params))
    found = jax.tree.map(lambda leaf: 10 * leaf, optax.tree_utils.tree_get(after.opt_state, "mu"))
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    assert size > 1e-3
    ref.assert_tree_close(found, gradient, 1e-3 * size)
    moved, _ = ref.adam(params, ref.as64(found), ref.zeros(params), 1, LR)
    moved = jax.tree.map(lambda p, start: p - LR * decay * start, moved, params)
    ref.assert_tree_close(after.params, moved, LR / 1000)


def off_diagonal(x):
    return x[~np.eye(ref.B, dtype=bool)].mean()


def task_actor(params, s, z):
    seen, asked = np.maximum(net(params["state"], s), 0), np.maximum(net(params["task"], s, z), 0)
    return np.tanh(net(params["body"], seen, asked))


def tasks(keys, backward, ratio):
    """On the sphere, or of a state of the batch."""
    row_key, mix_key = jax.random.split(keys[1])
    goals = sphere(backward)[np.asarray(jax.random.permutation(row_key, ref.B))]
    mixed = uniform(mix_key, (ref.B, 1)) < ratio
    assert 0 < mixed.mean() < 1
    return np.where(mixed, goals, sphere(ref.normal(keys[0], (ref.B, D))))


def representation_loss(z, ahead, next_value=None):
    """Of F and B: the measure, B's orthonormality, and with ``next_value`` the pull of F^T z."""

    def loss(params):
        f, b = (
            both(params["forward"], BATCH.observation, BATCH.action, z),
            sphere(net(params["backward"], BATCH.next_observation)),
        )
        total = sum(off_diagonal((m - 0.98 * ahead) ** 2) / 2 - np.diag(m).mean() for m in f @ b.T)
        total += 0.3 * (off_diagonal((b @ b.T) ** 2) - 2 * D)
        if next_value is not None:
            reward = ((b @ np.linalg.inv(b.T @ b / ref.B + 1e-2 * np.eye(D))) * z).sum(-1)
            total += 0.5 * 0.5 * (((f * z).sum(-1) - reward - 0.98 * next_value) ** 2).mean(1).sum()
        return total

    return loss


def ahead_of(slow, z, next_action):
    following = both(slow["forward"], BATCH.next_observation, next_action, z)
    measures = following @ sphere(net(slow["backward"], BATCH.next_observation)).T
    assert (measures.argmin(0) != measures.argmin(0)[:, :1]).any()  # entry by entry, not row by row
    return measures.min(0)


def value_of(params, action, z):
    values = (both(params["forward"], BATCH.observation, action, z) * z).sum(-1)
    return ref.mixed(values).min(0)


SIZES = {"features": D, "preprocessor": (), "backward_hidden": (8,)}


def apart(state):
    return state._replace(target_representation=shifted(state.target_representation))


def test_fb():
    pair = ref.Pair("fb", LR, SIZES, orthonormality=0.3, tau=0.1)
    pair.edit(apart)
    before = pair.state
    metrics, after = pair.update(DATA, KEY, 0), pair.state
    keys, online, slow = jax.random.split(KEY, 9), ref.as64(before.representation.params), before.target_representation
    actor, slow = ref.as64(before.actor.params), ref.as64(slow)
    z = tasks(keys, net(online["backward"], BATCH.observation), 0.5)
    next_action = smoothed(task_actor(actor, BATCH.next_observation, z), keys[2])
    loss = representation_loss(z, ahead_of(slow, z, next_action))
    check_step(before.representation, after.representation, loss, 1.0)
    np.testing.assert_allclose(metrics["critic_loss"], loss(online), rtol=1e-4)
    learnt = ref.as64(after.representation.params)

    def actor_loss(params):
        action = smoothed(task_actor(params, BATCH.observation, z), keys[8])
        return -(both(learnt["forward"], BATCH.observation, action, z) * z).sum(-1).min(0).mean()

    value_of(learnt, smoothed(task_actor(actor, BATCH.observation, z), keys[8]), z)  # each F is the smaller somewhere
    check_step(before.actor, after.actor, actor_loss, 1.0)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(actor), rtol=1e-4)
    ref.assert_tree_close(after.target_representation, ref.mix(learnt, slow, 0.1), 1e-6)


@pytest.mark.parametrize("name", ["vc_fb", "mc_fb"])
def test_conservative_fb(name):
    """Values (VC) or measures (MC) at uniform actions, the policy's and its next in their own state, and the data's."""
    config = {**SIZES, "samples": 6, "target_penalty": None}
    pair = ref.Pair(name, LR, config, orthonormality=0.3, conservative_weight=0.4)
    pair.edit(apart)
    before = pair.state
    metrics, after = pair.update(DATA, KEY, 0), pair.state
    keys, online = jax.random.split(KEY, 9), ref.as64(before.representation.params)
    actor, slow = ref.as64(before.actor.params), ref.as64(before.target_representation)
    z = tasks(keys, net(online["backward"], BATCH.observation), 0.5)
    next_action = smoothed(task_actor(actor, BATCH.next_observation, z), keys[2])
    plain = representation_loss(z, ahead_of(slow, z, next_action))
    draw_key, uniform_key = jax.random.split(keys[5])
    anywhere = 2 * uniform(uniform_key, (3, ref.B, 2)) - 1
    states = np.stack([BATCH.observation, BATCH.next_observation])
    tiled = np.broadcast_to(z, (2, ref.B, D))
    drawn = smoothed(task_actor(actor, states, tiled), draw_key)
    others = np.concatenate([np.broadcast_to(BATCH.observation, (3, ref.B, 3)), states])
    actions = np.concatenate([anywhere, drawn])

    def penalty(params):
        own = both(params["forward"], BATCH.observation, BATCH.action, z)
        elsewhere = both(params["forward"], others, actions, np.broadcast_to(z, (5, ref.B, D)))
        elsewhere = np.concatenate([elsewhere, own[:, None]], 1)
        if name == "vc_fb":
            samples, of_data = (elsewhere * z).sum(-1), (own * z).sum(-1)
        else:
            reached = sphere(net(params["backward"], BATCH.next_observation)).T
            samples, of_data = elsewhere @ reached, own @ reached
        return sum((np.log(np.exp(samples[j]).sum(0)) - of_data[j]).mean() for j in range(2))

    def loss(params):
        return plain(params) + 0.4 * penalty(params)

    np.testing.assert_allclose(metrics["penalty"], penalty(online), rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], loss(online), rtol=1e-4)
    check_step(before.representation, after.representation, loss, 1.0)


BREEZE = {
    **SIZES,
    "actor": "gaussian",
    "representation": "mlp",
    "standardise": False,
    "warm_restarts": False,
    "second_moment": 0.999,
}


def test_breeze():
    changes = {"behaviour_ratio": 0.3, "f_weight": 0.5, "inverse_temperature": 2.0, "expectile": 0.9, "tau": 0.1}
    rates = {"weight_decay": 0.3, "actor_weight_decay": 0.2, "actor_average_rate": 0.2, "orthonormality": 0.3}
    pair = ref.Pair("breeze", LR, BREEZE, **changes, **rates)
    pair.edit(lambda state: apart(state)._replace(average_actor=shifted(state.average_actor)))
    before = pair.state
    metrics, after = pair.update(DATA, KEY, 0), pair.state
    keys, online = jax.random.split(KEY, 9), ref.as64(before.representation.params)
    actor, average, slow, value = map(
        ref.as64, (before.actor.params, before.average_actor, before.target_representation, before.value.params)
    )
    z = tasks(keys, net(online["backward"], BATCH.observation), 0.5)
    mean = task_actor(average["mean"], BATCH.next_observation, z)
    drawn = np.clip(mean + np.exp(average["log_std"]) * ref.normal(keys[2], mean.shape), -1, 1)
    own = uniform(keys[3], (ref.B, 1)) < 0.3
    assert 0 < own.mean() < 0.5
    next_action = np.where(own, BATCH.next_action, drawn)
    next_value = net(value, BATCH.next_observation, z)[:, 0]
    loss = representation_loss(z, ahead_of(slow, z, next_action), next_value)
    check_step(before.representation, after.representation, loss, 1.0, decay=0.3)
    np.testing.assert_allclose(metrics["critic_loss"], loss(online), rtol=1e-4)

    of_data = value_of(online, BATCH.action, z)  # of F as it was

    def value_loss(params):
        u = of_data - net(params, BATCH.observation, z)[:, 0]
        return (np.where(u < 0, 0.1, 0.9) * u**2).mean()

    check_step(before.value, after.value, value_loss, decay=0.3)
    np.testing.assert_allclose(metrics["expectile_loss"], value_loss(value), rtol=1e-4)
    learnt = ref.as64(after.representation.params)
    better = value_of(learnt, BATCH.action, z) - net(ref.as64(after.value.params), BATCH.observation, z)[:, 0]
    weight = np.minimum(np.exp(2.0 * better), 100.0)
    np.testing.assert_allclose(metrics["weight"], weight.mean(), rtol=1e-4)

    def actor_loss(params):
        mean, log_std = task_actor(params["mean"], BATCH.observation, z), params["log_std"]
        z_score = (BATCH.action - mean) / np.exp(log_std)
        return -(weight * (-0.5 * z_score**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)).mean()

    check_step(before.actor, after.actor, actor_loss, 1.0, decay=0.2)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(actor), rtol=1e-4)
    ref.assert_tree_close(after.target_representation, ref.mix(learnt, slow, 0.1), 1e-6)
    ref.assert_tree_close(after.average_actor, ref.mix(ref.as64(after.actor.params), average, 0.2), 1e-6)


def check_successor(before, after, phi, key, metrics, q_loss):
    """psi and the actor, with ``phi [B, D]`` of the next observations as the features see them now."""
    task_key, next_key, actor_key = jax.random.split(key, 3)
    normal_key, row_key, mix_key = jax.random.split(task_key, 3)
    second = phi.T @ phi / ref.B
    lifted = second + 1e-2 * (np.trace(second) / D + 1e-6) * np.eye(D)
    goals = sphere(phi[np.asarray(jax.random.permutation(row_key, ref.B))] @ np.linalg.inv(lifted))
    z = np.where(uniform(mix_key, (ref.B, 1)) < 0.5, goals, sphere(ref.normal(normal_key, (ref.B, D))))
    actor, slow = ref.as64(before.actor.params), ref.as64(before.target_successor)

    def pi(params, observation, key):
        return smoothed(np.tanh(net(params, observation, z)), key)

    following = both(slow, BATCH.next_observation, pi(actor, BATCH.next_observation, next_key), z)
    smaller = ref.mixed((following * z).sum(-1)).argmin(0)
    y = phi + 0.98 * BATCH.discount[:, None] * following[smaller, np.arange(ref.B)]
    assert (BATCH.discount == 0).any()

    def successor_loss(params):
        error = both(params, BATCH.observation, BATCH.action, z) - y
        if q_loss:
            return ((error * z).sum(-1) ** 2).mean(1).sum()
        return (error**2).mean((1, 2)).sum()

    check_step(before.successor, after.successor, successor_loss)
    np.testing.assert_allclose(metrics["successor_loss"], successor_loss(ref.as64(before.successor.params)), rtol=1e-3)
    learnt = ref.as64(after.successor.params)

    def actor_loss(params):
        action = pi(params, BATCH.observation, actor_key)
        return -(both(learnt, BATCH.observation, action, z) * z).sum(-1).min(0).mean()

    ref.mixed((both(learnt, BATCH.observation, pi(actor, BATCH.observation, actor_key), z) * z).sum(-1))
    check_step(before.actor, after.actor, actor_loss)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(actor), rtol=1e-3, atol=1e-4)
    ref.assert_tree_close(after.target_successor, ref.mix(learnt, slow, 0.1), 1e-6)


@pytest.mark.parametrize("q_loss", [False, True])
def test_sf_laplacian(q_loss):
    pair = ref.Pair("sf_laplacian", LR, {"features": D, "q_loss": q_loss}, orthonormality=0.3, tau=0.1)
    pair.edit(lambda state: state._replace(target_successor=shifted(state.target_successor)))
    before = pair.state
    metrics, after = pair.update(DATA, KEY, 0), pair.state

    def loss(params):
        here, there = sphere(net(params, BATCH.observation)), sphere(net(params, BATCH.next_observation))
        similarity = here @ here.T
        return ((here - there) ** 2).mean() + 0.3 * (off_diagonal(similarity**2) - 2 * np.diag(similarity).mean())

    check_step(before.features.map, after.features.map, loss)
    old = ref.as64(before.features.map.params)
    np.testing.assert_allclose(metrics["feature_loss"], loss(old), rtol=1e-4)
    here = sphere(net(old, BATCH.observation))
    second = np.eye(D) + 0.005 * (here.T @ here / ref.B - np.eye(D))
    np.testing.assert_allclose(after.features.second, second, atol=1e-5)
    phi = sphere(net(ref.as64(after.features.map.params), BATCH.next_observation))
    check_successor(before, after, phi, KEY, metrics, q_loss)


def with_goals():
    """The batch with goals, some of which are reached."""
    rng = np.random.default_rng(5)
    reached = np.arange(ref.B) % 3 == 0
    goal = np.where(reached[:, None], BATCH.next_observation, rng.normal(size=(ref.B, 3)))
    extras = {"goal": jnp.asarray(goal, jnp.float32), "goal_reached": jnp.asarray(reached, jnp.float32)}
    return dataclasses.replace(DATA, extras=extras), goal, 1.0 - reached


def expectile_regression(values, old, following, going, gamma, expectile):
    """Of steps to a goal, summed over two values: whether a row counts more is told by one advantage for both."""
    advantage = -1 + gamma * going * following.min(0) - old.mean(0)
    weight = np.where(advantage < 0, 1 - expectile, expectile)
    return (weight * (-1 + gamma * going * following - values) ** 2).sum(0).mean()


def test_hilp():
    pair = ref.Pair("hilp", LR, {"features": D}, expectile=0.8, distance_discount=0.9, tau=0.1)

    def apart(state):
        maps = state.features._replace(target_maps=shifted(state.features.target_maps))
        return state._replace(target_successor=shifted(state.target_successor), features=maps)

    pair.edit(apart)
    before = pair.state
    data, goal, going = with_goals()
    metrics, after = pair.update(data, KEY, 0), pair.state

    def value(params, observation):
        return -np.linalg.norm(both(params, observation) - both(params, goal), axis=-1)

    slow = ref.as64(before.features.target_maps)
    old, following = value(slow, BATCH.observation), value(slow, BATCH.next_observation)

    def loss(params):
        return expectile_regression(value(params, BATCH.observation), old, following, going, 0.9, 0.8)

    check_step(before.features.maps, after.features.maps, loss)
    np.testing.assert_allclose(metrics["feature_loss"], loss(ref.as64(before.features.maps.params)), rtol=1e-4)
    learnt = ref.as64(after.features.maps.params)
    first = ref.member(learnt, 0)
    mean = 0.005 * net(first, BATCH.observation).mean(0)
    np.testing.assert_allclose(after.features.mean, mean, atol=1e-6)
    ref.assert_tree_close(after.features.target_maps, ref.mix(learnt, slow, 0.1), 1e-6)
    check_successor(before, after, net(first, BATCH.next_observation) - mean, KEY, metrics, False)


def test_gc_iql():
    pair = ref.Pair("gc_iql", LR, {"max_weight": 1.5}, expectile=0.8, inverse_temperature=4.0, tau=0.1)
    pair.edit(lambda state: state._replace(target_value=shifted(state.target_value)))
    before = pair.state
    data, goal, going = with_goals()
    metrics, after = pair.update(data, KEY, 0), pair.state
    here, there = (np.concatenate([x, goal], -1) for x in (BATCH.observation, BATCH.next_observation))

    def value(params, x):
        return np.stack([ref.forward(ref.member(params, i), x)[0][:, 0] for i in range(2)])

    slow = ref.as64(before.target_value)
    old, following = value(slow, here), value(slow, there)

    def value_loss(params):
        return expectile_regression(value(params, here), old, following, going, 0.99, 0.8)

    check_step(before.value, after.value, value_loss)
    np.testing.assert_allclose(metrics["value_loss"], value_loss(ref.as64(before.value.params)), rtol=1e-4)
    # A step that arrives is followed by nothing: no value of the goal at the goal is ever trained.
    now = ref.as64(before.value.params)
    advantage = going * value(now, there).mean(0) - value(now, here).mean(0)
    weight = np.minimum(np.exp(4.0 * advantage), 1.5)
    assert 0 < (weight == 1.5).mean() < 1
    np.testing.assert_allclose(metrics["weight"], weight.mean(), rtol=1e-4)

    def actor_loss(params):
        mean, log_std = np.tanh(ref.forward(params["mean"], here)[0]), params["log_std"]
        z = (BATCH.action - mean) / np.exp(log_std)
        return -(weight * (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)).mean()

    check_step(before.actor, after.actor, actor_loss)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(ref.as64(before.actor.params)), rtol=1e-4)
    ref.assert_tree_close(after.target_value, ref.mix(ref.as64(after.value.params), slow, 0.1), 1e-6)
