"""Policies held to what they were: each pull against the formula, what is not held, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg import agents, losses
from jaxrl_reg.agents import anchoring, ppo, td3
from jaxrl_reg.errors import UserError
from jaxrl_reg.population import grid
from jaxrl_reg.types import Spec, Transition, as_float32

SPEC, DISCRETE = Spec(3, 2, 5), Spec(3, 2, 5, discrete=True)
CONFIG = td3.Config(hidden=(6,), policy_freq=2)
PPO = ppo.Config(hidden=(6,), epochs=1, minibatches=1)
UPDATES = 6


def trajectory(length=8, envs=4):
    keys = jax.random.split(jax.random.key(5), 4)
    observation, following = (1.0 + jax.random.normal(key, (length, envs, 3)) for key in keys[:2])
    action = jax.random.uniform(keys[2], (length, envs, 2), minval=-0.9, maxval=0.9)
    reward = jax.random.normal(keys[3], (length, envs))
    return Transition(observation, action, reward, jnp.ones_like(reward), following, jnp.zeros_like(reward))


BATCH = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trajectory())
TRAINED = td3.make(CONFIG, SPEC).init(jax.random.key(0), as_float32(td3.Hyper()))


def held(kind, strengths, importance=()):
    """States of TD3 after a few updates with each of the strengths, and the last metrics; one program."""
    agent = anchoring.make(td3, anchoring.parse(kind), CONFIG, SPEC)
    hypers = grid(anchoring.hyper_of(td3)(actor_learning_rate=1e-2), anchor_coef=strengths)

    def run(hyper):
        state = anchoring.begin(agent, TRAINED, hyper, jax.random.key(2), importance)

        def step(state, i):
            return agent.update(state, BATCH, hyper, jax.random.key(i), i)

        return jax.lax.scan(step, state, jnp.arange(UPDATES))

    return jax.jit(jax.vmap(run))(hypers)


def actor(state, member):
    return jax.tree.map(lambda leaf: np.asarray(leaf[member]), state.agent.actor.params)


START = jax.tree.map(np.asarray, TRAINED.actor.params)


def changed(state, member):
    return jax.tree.map(np.subtract, actor(state, member), START)


def test_without_strength_every_pull_is_plain_and_with_it_the_policy_stays():
    important = jax.tree.map(jnp.zeros_like, TRAINED.actor.params)
    first = important["Dense_0"]
    first["kernel"] = first["kernel"].at[0].set(1.0)
    found = {
        "l2": held("l2", [0.0, 100.0]),
        "ewc": held("ewc", [0.0, 1e4], important),
        "kl": held("kl", [0.0, 1e4]),
    }
    plain = changed(found["l2"][0], 0)
    size = sum(leaf.size for leaf in jax.tree.leaves(plain))
    length = float(optax.tree.norm(plain))
    np.testing.assert_allclose(found["l2"][1]["moved"][0, -1], length / size**0.5, rtol=1e-5)
    for state, metrics in found.values():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), changed(state, 0), plain)
        assert float(metrics["moved"][1, -1]) < float(metrics["moved"][0, -1])
    for kind in ("l2", "kl"):
        assert float(optax.tree.norm(changed(found[kind][0], 1))) < 0.6 * length, kind
    kept = np.abs(changed(found["ewc"][0], 1)["Dense_0"]["kernel"])  # what is important moves least
    assert kept[0].max() < 0.6 * kept[1:].mean()
    assert found["kl"][1]["penalty"][0, -1] == 0.0 < found["kl"][1]["penalty"][1, -1]


def test_adapters_change_kernels_by_so_many_ranks_and_nothing_else():
    state, _ = held("lora:1", [0.0])
    for layer in changed(state, 0).values():
        assert np.linalg.matrix_rank(layer["kernel"], tol=1e-6) == 1
        np.testing.assert_array_equal(layer["bias"], 0.0)


def test_statistics_of_observations_stay_those_of_the_start():
    """Weights that are not moved act in the old world as before, though what is seen now is elsewhere."""
    hyper = as_float32(anchoring.hyper_of(ppo)(actor_learning_rate=0.0))
    trained = ppo.make(PPO, SPEC).init(jax.random.key(0), hyper)
    agent = anchoring.make(ppo, anchoring.parse("none"), PPO, SPEC)
    state = anchoring.begin(agent, trained, hyper, jax.random.key(2))
    after, _ = jax.jit(agent.update)(state, trajectory(), hyper, jax.random.key(3), jnp.int32(0))
    seen = trajectory().observation[0]
    acts = [agent.act(one, seen, hyper, jax.random.key(0), False) for one in (state, after)]
    np.testing.assert_array_equal(*acts)


def test_importance_is_the_fisher_information_of_what_the_policy_says():
    """Against the divergence itself: small steps along three weights, with the statistics that acted."""
    agent, observations = ppo.make(PPO, SPEC), BATCH.observation
    state = agent.init(jax.random.key(0), as_float32(ppo.Hyper()))
    state = state._replace(statistics=ppo.merge(state.statistics, observations))
    found = anchoring.fisher(agent, state, observations)
    flat, back = jax.flatten_util.ravel_pytree(state.actor.params)
    spoken = agent.distribution(state, state.actor.params, observations)

    @jax.jit
    def divergence(change):
        return anchoring.divergence(spoken, agent.distribution(state, back(flat + change), observations)).mean()

    for place in (0, 7, flat.size - 1):
        step = jnp.zeros_like(flat).at[place].set(0.03)
        wanted = float(divergence(step) + divergence(-step)) / 0.03**2
        got = float(jax.flatten_util.ravel_pytree(found)[0][place])
        assert got == pytest.approx(wanted, rel=0.1, abs=2e-3)


def test_choices_are_held_by_their_own_divergence_and_a_chain_adds_its_importance():
    before = ppo.make(PPO, DISCRETE)
    state = before.init(jax.random.key(0), as_float32(ppo.Hyper()))
    logits = before.distribution(state, state.actor.params, BATCH.observation)
    other = logits + jnp.array([0.0, 0.5])
    np.testing.assert_allclose(anchoring.divergence(logits, other), losses.categorical_kl(logits, other))
    once = anchoring.fisher(before, state, BATCH.observation)
    agent = anchoring.make(ppo, anchoring.parse("ewc"), PPO, DISCRETE)
    hyper = as_float32(anchoring.hyper_of(ppo)())
    second = anchoring.begin(agent, state, hyper, jax.random.key(1), once)
    twice = anchoring.fisher(agent, second, BATCH.observation)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(two, 2 * one, rtol=1e-5), once, twice)
    third = anchoring.begin(agent, second, hyper, jax.random.key(2), twice)
    assert jax.tree.structure(third) == jax.tree.structure(second)  # not one within the other


def test_what_cannot_be_is_said_in_a_line():
    for text, words in (("l3", "l2"), ("lora", "rank"), ("lora:0", "rank"), ("l2:3", "--anchor-coef")):
        with pytest.raises(UserError, match=words):
            anchoring.parse(text)
    with pytest.raises(UserError, match="cannot be held"):
        anchoring.make(agents.load("iql"), anchoring.Anchor(), None, SPEC)
    names = [field.name for field in dataclasses.fields(anchoring.hyper_of(ppo))]
    assert names == [*(field.name for field in dataclasses.fields(ppo.Hyper)), "anchor_coef"]
    assert len(anchoring.make(td3, anchoring.Anchor(), CONFIG, SPEC).cycle) == 2
