"""CrossQ and batch renormalisation, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.agents import crossq
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.networks.normalisation import BatchStatistics, batch_renorm
from jaxrl_reg.policies import gaussian
from jaxrl_reg.types import as_float32
from tests.agents import reference as ref

RNG = np.random.default_rng(0)


def test_batch_renorm():
    x = RNG.normal(2.0, 3.0, size=(50, 4))
    old = BatchStatistics(jnp.array([0.0, 2.0, 2.0, 30.0]), jnp.array([1.0, 9.0, 4.0, 9.0]), jnp.float32(5.0))
    plain, new = batch_renorm(x, old, True, warmup=6)
    m, v = x.mean(0), x.var(0)
    np.testing.assert_allclose(plain, (x - m) / np.sqrt(v + 1e-3), atol=1e-5)  # too early to be renormalised
    np.testing.assert_allclose(new.mean, 0.99 * old.mean + 0.01 * m, rtol=1e-5)
    np.testing.assert_allclose(new.variance, 0.99 * old.variance + 0.01 * v, rtol=1e-5)
    assert new.count == 6.0
    found, _ = batch_renorm(x, old, True, warmup=5)
    running = (x - np.asarray(old.mean)) / np.sqrt(np.asarray(old.variance) + 1e-3)
    np.testing.assert_allclose(found[:, 1:3], running[:, 1:3], atol=1e-4)  # within the bounds: the running moments
    s = np.sqrt(v + 1e-3)
    np.testing.assert_allclose(found[:, 3], (x - m)[:, 3] / s[3] * (s[3] / np.sqrt(9.001)) - 5.0, rtol=1e-4)
    still, same = batch_renorm(x, old, False)
    np.testing.assert_allclose(still, running, rtol=1e-4)
    assert same is old


def test_batch_renorm_stops_gradients_into_its_corrections():
    x = jnp.asarray(RNG.normal(size=(20, 1)), jnp.float32)
    old = BatchStatistics(jnp.full(1, 0.3), jnp.full(1, 1.5), jnp.float32(9.0))
    late = jax.grad(lambda x: (batch_renorm(x, old, True, warmup=0)[0] ** 3).sum())(x)
    assert abs(float(late.sum())) < 1e-3  # a shift of all rows changes nothing, as d does not follow


def forward(params, x):
    """One critic in training, plain batch normalisation before every layer."""
    layers = sum(name.startswith("Dense") for name in params)
    for i in range(layers):
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
        x = params[f"Norm_{i}"]["scale"] * x + params[f"Norm_{i}"]["bias"]
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        x = np.maximum(x, 0.0) if i < layers - 1 else x
    return x[:, 0]


def test_both_sides_of_the_equation_pass_together():
    agent = crossq.make(crossq.Config(hidden=(8,), critic_hidden=(8, 8), policy_delay=2), ref.SPEC)
    hyper = as_float32(crossq.Hyper(discount=0.9))
    state, batch = agent.init(jax.random.key(0), hyper), ref.batch()
    # A policy that is hardly random: its action is the mode.
    last = state.actor.params["Dense_1"]
    last = {"kernel": last["kernel"].at[:, 2:].set(0.0), "bias": last["bias"].at[2:].set(-20.0)}
    state = state._replace(actor=state.actor._replace(params={**state.actor.params, "Dense_1": last}))
    after, metrics = quick(agent.update)(state, batch, hyper, jax.random.key(1), jnp.int32(1))

    key = jax.random.split(jax.random.key(1))[0]
    policy = gaussian.squashed(ref.SPEC, (8,))
    next_action, log_prob = policy.sample(state.actor.params, batch.next_observation, key)
    rows = ref.as64(batch)
    x = np.concatenate(
        [
            np.concatenate([rows.observation, rows.action], 1),
            np.concatenate([rows.next_observation, ref.as64(next_action)], 1),
        ]
    )
    values = np.stack([forward(ref.member(ref.as64(state.critic.params), i), x) for i in range(2)])
    now, following = values[:, : ref.B], values[:, ref.B :]
    target = rows.reward + 0.9 * rows.discount * (following.min(0) - ref.as64(log_prob))
    np.testing.assert_allclose(metrics["critic_loss"], np.square(now - target).mean(-1).sum(), rtol=1e-3)
    for leaf, old in zip(jax.tree.leaves(after.actor), jax.tree.leaves(state.actor), strict=True):
        np.testing.assert_array_equal(leaf, old)  # not its turn
    np.testing.assert_allclose(after.moments[0].mean[0], 0.01 * x.mean(0), atol=1e-5)  # of both sides
    moved = quick(agent.update)(state, batch, hyper, jax.random.key(1), jnp.int32(2))[0]
    assert int(moved.actor.opt_state[0].count) == 1
