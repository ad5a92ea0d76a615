"""Occupancy-regularised PPO: PPO on a reward that NumPy makes, what its discriminator learns, what it is held to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, networks
from jaxrl_reg.agents.online import occupancy_reg, ppo
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.data import from_arrays
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Spec, Transition, as_float32

T, E = 16, 8
GRID, BODY = Spec(3, 2, discrete=True), Spec(3, 2)
SMALL = {"hidden": (4,), "epochs": 1, "minibatches": 1, "discriminator_hidden": (8,), "normalise": False}
PPOS = ("hidden", "epochs", "minibatches", "normalise")
HYPER = as_float32(occupancy_reg.Hyper(coefficient=0.7, discriminator_learning_rate=0.02))


def reference_set(rows=512, seed=0):
    """One of three states, one-hot, with probabilities 0.5, 0.3, 0.2; the first of two actions in 0.8 of the rows, as
    numbers of which the largest counts; rewards with a spread of 2."""
    rng = np.random.default_rng(seed)
    state = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    first = rng.random(rows) < 0.8
    action = np.where(first[:, None], [0.4, -0.3], [-0.9, 0.1])
    reward = np.where(np.arange(rows) % 2, 2.0, -2.0)
    last = np.arange(rows) % 32 == 31
    return from_arrays(np.eye(3)[state], action, reward, np.zeros(rows, bool), last, np.eye(3)[state], name="three")


def trajectory(states, actions, extras, seed=1):
    rng = np.random.default_rng(seed)
    observation = np.eye(3)[states].reshape(T, E, 3)
    action = (2 * np.eye(2)[actions] - 1).reshape(T, E, 2)
    arrays = {
        "observation": observation,
        "action": action,
        "reward": rng.normal(size=(T, E)),
        "discount": np.ones((T, E)),
        "next_observation": observation,
        "last": np.zeros((T, E)),
    }
    return Transition(**{name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}, extras=extras)


def made(spec=GRID, **config):
    return agents.make("occupancy_reg", spec, **{**SMALL, **config})


DATA = reference_set()
RNG = np.random.default_rng(2)
STATES, ACTIONS = RNG.choice(3, T * E, p=[0.2, 0.3, 0.5]), RNG.choice(2, T * E, p=[0.6, 0.4])


@pytest.fixture(scope="module")
def batch():
    agent = made()
    rows = trajectory(STATES, ACTIONS, {})
    return dataclasses.replace(rows, extras=agent.beside(DATA, jax.random.key(5), rows))


def test_beside_a_trajectory_lie_as_many_rows_of_the_reference(batch):
    extras = batch.extras
    assert extras["reference/observation"].shape == (T, E, 3)
    assert extras["reference/action"].shape == (T, E, 2)
    np.testing.assert_allclose(extras["reference/scale"], 2.0, rtol=1e-6)
    seen = np.asarray(DATA.observation)
    np.testing.assert_allclose(extras["reference/mean"], seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(extras["reference/std"], seen.std(0), rtol=1e-5)
    assert len(np.unique(np.asarray(extras["reference/observation"]).reshape(-1, 3), axis=0)) == 3
    flat = dataclasses.replace(DATA, reward=jnp.ones_like(DATA.reward))
    assert float(made().beside(flat, jax.random.key(0), batch)["reference/scale"]) == 1.0
    with pytest.raises(UserError, match="--reference"):
        made().beside(None, jax.random.key(0), batch)
    with pytest.raises(UserError, match="--reference"):
        made().update(None, dataclasses.replace(batch, extras={}), HYPER, jax.random.key(0), jnp.int32(0))


def penalised(divergence, d):
    ratio = np.exp(np.minimum(d, 8.0))
    if divergence == "kl":
        return d
    if divergence == "chi2":
        return ratio - 1
    cut = int(0.01 * len(d))
    mean = np.sort(ratio - 1)[cut : len(d) - cut].mean()
    return (ratio - 1) / np.sqrt(mean) if mean > 0 else ratio - 1


@pytest.fixture(scope="module")
def plain():
    return quick(ppo.make(ppo.Config(**{name: SMALL[name] for name in PPOS}), GRID).update)


@pytest.mark.parametrize(("divergence", "measure"), [("sqrt_chi2", "state_action"), ("kl", "state")])
def test_the_rest_is_ppo_on_the_reward_less_the_penalty(batch, plain, divergence, measure):
    """Scores are those of the discriminator AFTER its steps, on states and choices, whatever numbers these came as; it
    has learnt the ratio of two distributions that are known."""
    agent = made(divergence=divergence, measure=measure, discriminator_steps=300)
    state, key = agent.init(jax.random.key(0), HYPER), jax.random.key(3)
    after, metrics = quick(agent.update)(state, batch, HYPER, key, jnp.int32(0))
    x = (np.eye(3)[STATES] - np.asarray(batch.extras["reference/mean"])) / np.asarray(batch.extras["reference/std"])
    x = np.concatenate([x, 2 * np.eye(2)[ACTIONS] - 1], axis=1) if measure == "state_action" else x
    network = networks.mlp((x.shape[1], 8, 1), activation="tanh")
    d = np.asarray(network.apply(after.discriminator.params, jnp.asarray(x, jnp.float32))[:, 0], np.float64)
    taken = 0.7 * 2.0 * penalised(divergence, d)
    np.testing.assert_allclose(metrics["occupancy_penalty"], taken.mean(), rtol=1e-3, atol=1e-5)
    less = dataclasses.replace(batch, reward=batch.reward - jnp.asarray(taken.reshape(T, E), jnp.float32))
    wanted, _ = plain(state.ppo, less, HYPER, jax.random.split(key)[1], jnp.int32(0))
    moved = [jax.tree.leaves((one.actor.params, one.value.params)) for one in (after.ppo, wanted, state.ppo)]
    for found, right, before in zip(*moved, strict=True):
        np.testing.assert_allclose(found, right, atol=2e-5)
        assert np.abs(np.asarray(right) - np.asarray(before)).max() > 1e-4

    own, base = np.zeros((3, 2)), np.zeros((3, 2))
    np.add.at(own, (STATES, ACTIONS), 1 / len(STATES))
    theirs = batch.extras["reference/observation"].reshape(-1, 3), batch.extras["reference/action"].reshape(-1, 2)
    np.add.at(base, tuple(np.asarray(x).argmax(1) for x in theirs), 1 / len(STATES))
    if divergence == "kl":
        own, base = own.sum(1), base.sum(1)
        known = (own * np.log(own / base)).sum()
    else:
        known = np.sqrt(((own - base) ** 2 / base).sum())
    np.testing.assert_allclose(metrics["occupancy_divergence"], known, rtol=0.2)
    assert float(metrics["discriminator_loss"]) < 2 * np.log(2)
    assert float(metrics["held"]) == 0.0


def test_over_actions_the_reference_is_cloned_once_and_states_do_not_count(batch):
    agent = made(measure="action", divergence="kl", clone_steps=600)
    start = agent.init(jax.random.key(0), HYPER)
    begin = quick(agent.begin)
    state = begin(start, DATA, jnp.int32(0))
    later = begin(state, DATA, jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, later.reference, state.reference)
    _, metrics = quick(agent.update)(state, batch, HYPER, jax.random.key(1), jnp.int32(0))
    # The policy begins nearly uniform; the clone takes the first action in 0.8 of the rows, wherever it is.
    d = np.where(ACTIONS == 0, np.log(0.5 / 0.8), np.log(0.5 / 0.2)).mean()
    np.testing.assert_allclose(metrics["occupancy_divergence"], d, atol=0.06)
    np.testing.assert_allclose(metrics["occupancy_penalty"], 1.4 * metrics["occupancy_divergence"], rtol=1e-5)
    assert float(metrics["discriminator_loss"]) == 0.0

    released = made(measure="action", divergence="kl", clone_steps=600, penalise="loss")
    _, metrics = quick(released.update)(state, batch, HYPER, jax.random.key(1), jnp.int32(0))
    kl = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    np.testing.assert_allclose(metrics["penalty"], 1.4 / (1 - 0.99) * kl, rtol=0.15)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"divergence": "chi"}, "did you mean 'chi2'"),
        ({"measure": "states"}, "did you mean 'state'"),
        ({"penalise": "reward", "measure": "actions"}, "did you mean 'action'"),
        ({"penalise": "loss"}, "measure=action"),
        ({"penalise": "loss", "measure": "action", "divergence": "tv"}, "closed forms"),
    ],
)
def test_refusals(config, message):
    with pytest.raises(UserError, match=message):
        made(BODY, **config)
