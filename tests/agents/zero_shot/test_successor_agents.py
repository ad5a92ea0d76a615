"""Forward-backward agents: what they know of a small world, and their losses in NumPy."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.agents import _common, fb, vc_fb
from jaxrl_reg.agents.zero_shot import _forward_backward, _successor
from jaxrl_reg.contract.transitions import example
from jaxrl_reg.data.samplers import uniform
from jaxrl_reg.loops import offline
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Spec, as_float32

STEPS, SPEC, D, B = 6, Spec(3, 2), 5, 8


def ring(episodes=30):
    """Walks around ``STEPS`` places whatever is done: the measure is the same for every policy. One-hot places."""
    place = (np.arange(episodes)[:, None] + np.arange(2 * STEPS)).ravel() % STEPS
    truncated = np.arange(place.size) % (2 * STEPS) == 2 * STEPS - 1
    action = np.random.default_rng(0).uniform(-1, 1, (place.size, 1))
    one_hot, nothing = np.eye(STEPS), np.zeros(place.size)
    return data.from_arrays(
        one_hot[place], action, nothing, nothing, truncated, one_hot[(place + 1) % STEPS], name="ring"
    )


def test_measure_and_values_of_a_ring():
    gamma, world = 0.8, ring()
    hyper = fb.Hyper(representation_learning_rate=3e-3, discount=gamma, tau=0.05)
    sizes = {"hidden": (32,), "features": STEPS, "preprocessor": (), "backward_hidden": (32,)}
    agent = fb.make(fb.Config(**sizes), world.spec)
    state, _ = jax.jit(offline(agent, batch_size=64, updates=1500))(jax.random.key(0), as_float32(hyper), world)
    maps = _forward_backward.make(_successor.Config(**sizes), world.spec)
    places, at_rest, params = jnp.eye(STEPS), jnp.zeros((STEPS, 1)), state.representation.params
    reward = np.float32(np.arange(STEPS) == 2)

    @jax.jit
    def asked():
        z = _successor.sample_z(jax.random.key(1), STEPS, STEPS)
        measure = maps.forward(params, places, at_rest, z).mean(axis=0) @ maps.backward(params, places).T
        task = agent.zero_shot.infer_z(state, places, reward)
        return measure, task, maps.q(params, places, at_rest, task), agent.zero_shot.goal_z(state, places[2])

    measure, task, values, goal = jax.device_get(asked())
    ahead = (np.arange(STEPS)[None] - np.arange(STEPS)[:, None] - 1) % STEPS
    expected = STEPS * gamma**ahead / (1 - gamma**STEPS)  # of density 1 / STEPS, for ever around
    np.testing.assert_allclose(measure, expected, atol=0.15 * expected.max())
    np.testing.assert_allclose(np.linalg.norm(task), STEPS**0.5, rtol=1e-5)
    assert np.argsort(values).tolist() == [2, 3, 4, 5, 0, 1]  # the place just before it first, itself last
    np.testing.assert_allclose(goal, task, atol=1e-5)


def test_tasks_are_on_the_sphere_and_mixed_from_the_batch():
    z = fb.sample_z(jax.random.key(0), 4000, D)
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), D**0.5, rtol=1e-5)
    np.testing.assert_allclose(z.T @ z / 4000, np.eye(D), atol=0.1)
    backward = jax.random.normal(jax.random.key(1), (4000, D))
    mixed = np.asarray(fb.mix_z(jax.random.key(2), z, backward, 0.3))
    own = (mixed == np.asarray(z)).all(axis=-1)
    assert 0.65 < own.mean() < 0.75
    goals = backward / jnp.linalg.norm(backward, axis=-1, keepdims=True) * D**0.5
    nearest = np.abs(mixed[~own][:50, None] - np.asarray(goals)).max(axis=-1)
    assert nearest.min(axis=1).max() < 1e-5  # each is one of them,
    assert (nearest.argmin(axis=1) != np.flatnonzero(~own)[:50]).mean() > 0.9  # but not its own row's
    np.testing.assert_array_equal(fb.mix_z(jax.random.key(2), z, backward, 0.0), z)
    slope = jax.grad(lambda x: fb.mix_z(jax.random.key(2), z, x, 1.0).sum())(backward)
    assert not np.any(slope)


def test_warm_restarts_double_their_period():
    rates = jax.vmap(lambda step: _common.warm_restarts(2.0, step, 5, 0.1))(jnp.arange(200))
    expected, done, period = [], 0, 5
    for _ in range(200):
        expected.append(0.2 + 0.9 * (1 + np.cos(np.pi * done / period)))
        done += 1
        if done == period:
            done, period = 0, 2 * period
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    np.testing.assert_allclose(rates[jnp.array([0, 5, 15, 35, 75, 155])], 2.0, rtol=1e-6)
    late = _common.warm_restarts(2.0, jnp.int32(5 * (2**20 - 1)), 5, 0.1)  # where a float32 logarithm would miss
    assert float(late) == pytest.approx(2.0)
    assert float(_common.warm_restarts(2.0, jnp.int32(5 * (2**20 - 1) - 1), 5, 0.1)) == pytest.approx(0.2)


NUMBERS = {"discount": 0.9, "orthonormality": 2.0, "f_weight": 0.5, "conservative_weight": 0.3, "target_penalty": 0.0}
HYPER = types.SimpleNamespace(**NUMBERS, multiplier_learning_rate=0.1)


def small_maps(**switches):
    return _forward_backward.make(_successor.Config(hidden=(8,), features=D, **switches), SPEC)


@functools.cache
def case():
    """A batch, other states and actions, parameters, and what the maps say of them."""
    maps, rng = small_maps(), np.random.default_rng(0)
    s, following, a, next_action = (jnp.asarray(rng.normal(size=(B, n)), jnp.float32) for n in (3, 3, 2, 2))
    others = (jnp.stack([s] * 9 + [following]), jnp.asarray(rng.normal(size=(10, B, 2)), jnp.float32))

    @jax.jit
    def run(key):
        keys = jax.random.split(key, 3)
        batch = _forward_backward.Batch(s, a, following, _successor.sample_z(keys[0], B, D))
        params, slow = maps.init(keys[1]), maps.init(keys[2])
        out = {
            "f": maps.forward(params, s, a, batch.z),
            "b": maps.backward(params, following),
            "late_f": maps.forward(slow, following, next_action, batch.z),
            "late_b": maps.backward(slow, following),
            "elsewhere": maps.forward(params, *others, batch.z),
            "z": batch.z,
        }
        return batch, params, maps.ahead(slow, batch, next_action, key), out

    batch, params, ahead, out = run(jax.random.key(3))
    out = types.SimpleNamespace(**{name: np.asarray(x, np.float64) for name, x in out.items()})
    return (params, batch, ahead, others), out


def loss_of(multiplier=None, **switches):
    """``total, values, multiplier, metrics``."""
    maps, (arguments, _) = small_maps(**switches), case()
    run = jax.jit(lambda *arguments: maps.loss(*arguments, multiplier, jax.random.key(0), HYPER))
    total, (values, multiplier, metrics) = run(*arguments)
    return total, values, multiplier, metrics


def off_diagonal(x):
    return x[~np.eye(B, dtype=bool)].mean()


def test_representation_loss_equals_numpy():
    total, values, _, metrics = loss_of(f_regularisation=True)
    (_, _, ahead, _), out = case()
    f, b, late_f, late_b, z = out.f, out.b, out.late_f, out.late_b, out.z
    smaller = np.minimum(late_f[0] @ late_b.T, late_f[1] @ late_b.T)  # entry by entry, not row by row
    assert (np.abs(smaller - late_f[0] @ late_b.T).max(axis=1) > 1e-3).any()
    np.testing.assert_allclose(ahead.measure, smaller, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ahead.value, (late_f * z).sum(-1).min(0), rtol=1e-4, atol=1e-4)
    fb_loss = sum(off_diagonal((m - 0.9 * smaller) ** 2) / 2 - np.diag(m).mean() for m in f @ b.T)
    orthonormality = off_diagonal((b @ b.T) ** 2) - 2 * D
    q = (f * z).sum(-1)
    reward = np.einsum("bd,de,be->b", b, np.linalg.inv(b.T @ b / B + 1e-2 * np.eye(D)), z)
    q_loss = 0.5 * ((q - reward - 0.9 * ahead.value) ** 2).mean(axis=1).sum()
    for name, expected in (("fb_loss", fb_loss), ("orthonormality_loss", orthonormality), ("q_loss", q_loss)):
        np.testing.assert_allclose(metrics[name], expected, rtol=2e-3)
    np.testing.assert_allclose(values, q, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(total, fb_loss + 2 * orthonormality + 0.5 * q_loss, rtol=2e-3)


def test_the_reward_that_b_knows_may_be_held_constant():
    switches = [{}, {"f_regularisation": True}, {"f_regularisation": True, "detach_reward": True}]

    @jax.jit
    def slopes(params, *rest):
        def one(switches):
            return jax.grad(lambda p: small_maps(**switches).loss(p, *rest, None, jax.random.key(0), HYPER)[0])(params)

        return [one(chosen)["backward"] for chosen in switches]

    without, coupled, detached = slopes(*case()[0])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), detached, without)
    gaps = jax.tree.map(lambda x, y: np.abs(x - y).max(), coupled, without)
    assert max(jax.tree.leaves(gaps)) > 1e-2


@pytest.mark.parametrize("kind", ["vc", "mc"])
def test_conservatism_equals_numpy(kind):
    total, values, _, metrics = loss_of(conservatism=kind)
    out = case()[1]
    elsewhere = np.concatenate([out.elsewhere, np.stack([out.f, out.f], axis=1)], axis=1)  # the data's action twice
    if kind == "vc":
        samples, own = (elsewhere * out.z).sum(-1), values
    else:
        samples, own = elsewhere @ out.b.T, out.f @ out.b.T
    penalty = sum(np.mean(np.log(np.exp(samples[j]).sum(0)) - own[j]) for j in range(2))
    np.testing.assert_allclose(metrics["penalty"], penalty, rtol=1e-4)
    expected = metrics["fb_loss"] + 2 * metrics["orthonormality_loss"] + 0.3 * penalty
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert metrics["multiplier"] == 1.0


def test_the_multiplier_steps_before_it_weighs():
    before = _common.trainable(jnp.zeros(()), adam(0.0))
    total, _, multiplier, metrics = loss_of(before, conservatism="vc")
    np.testing.assert_allclose(multiplier.params, 0.1, rtol=1e-3)  # the penalty is above: one step of Adam upwards
    np.testing.assert_allclose(metrics["multiplier"], np.exp(0.1), rtol=1e-3)
    expected = metrics["fb_loss"] + 2 * metrics["orthonormality_loss"] + 0.3 * np.exp(0.1) * metrics["penalty"]
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_penalised_actions_are_uniform_the_policys_and_its_next():
    config = _successor.Config(conservatism="vc")
    s, following = jnp.zeros((B, 3)), jnp.ones((B, 3))
    batch = _forward_backward.Batch(s, jnp.zeros((B, 2)), following, jnp.zeros((B, D)))
    scale = data.Normalizer(jnp.ones(2), 2 * jnp.ones(2), 0.0)

    def draw(states, z, key):
        return 10 + states[..., :2]

    states, actions = _forward_backward.other_actions(config, batch, draw, scale, jax.random.key(0))
    np.testing.assert_array_equal(states[:, 0, 0], [0] * 6 + [0, 0] + [1, 1])
    np.testing.assert_array_equal(actions[6:, 0, 0], [10, 10, 11, 11])
    assert -1 <= actions[:6].min() < -0.8  # uniform in [-1, 1], standardised to [-1, 0]
    assert -0.2 < actions[:6].max() <= 0.0
    assert _forward_backward.other_actions(_successor.Config(), batch, draw, scale, jax.random.key(0)) is None


def test_rewards_and_ends_are_not_looked_at():
    agent, hyper, world = (
        vc_fb.make(vc_fb.Config(hidden=(8,), features=D), SPEC),
        as_float32(vc_fb.Hyper()),
        example(),
    )
    batch = uniform(world, jax.random.key(1), 8)

    def update(reward, discount, following):
        state = agent.init(jax.random.key(0), hyper)
        seen = dataclasses.replace(batch, reward=reward, discount=discount, next_observation=following)
        return agent.update(state, seen, hyper, jax.random.key(2), jnp.int32(0))

    jaxpr = jax.make_jaxpr(update)(batch.reward, batch.discount, batch.next_observation).jaxpr
    read = {id(x) for equation in jaxpr.eqns for x in equation.invars}
    assert [id(x) in read for x in jaxpr.invars] == [False, False, True]
