"""Objectives: what reaches the encoder, what each minimiser knows, and that pretraining is an ordinary run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, networks, representation
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import pretrain
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.types import Spec

SPEC = Spec(observation_dim=5, action_dim=2)
ENCODER = networks.mlp((5, 8, 3))
KEY = jax.random.key(0)


def noisy(x, key):
    return x + 0.1 * jax.random.normal(key, x.shape)


OBJECTIVES = {
    "autoencoding": representation.autoencoding(SPEC, ENCODER, (8,)),
    "autoencoding_noisy": representation.autoencoding(SPEC, ENCODER, (8,), bottleneck=representation.gaussian(3)),
    "augmented": representation.augmented_contrast(SPEC, ENCODER, noisy, (8,)),
    "classification": representation.temporal_classification(SPEC, ENCODER, (8,), reach=2),
    "cloning": representation.cloning(SPEC, ENCODER, (8,)),
    "contrastive": representation.contrastive_dynamics(SPEC, ENCODER, (8,), projection=4),
    "forward_quantised": representation.forward_dynamics(
        SPEC, ENCODER, (8,), with_action=False, bottleneck=representation.vector_quantised(3, 16, 1)
    ),
    "forward": representation.forward_dynamics(SPEC, ENCODER, (8,), reach=2),
    "inverse": representation.inverse_dynamics(SPEC, ENCODER, (8,)),
    "inverse_discrete": representation.inverse_dynamics(SPEC, ENCODER, (8,), discrete=True),
    "temporal": representation.temporal_contrast(SPEC, ENCODER),
}
NEED_ACTIONS = {"cloning", "contrastive", "forward", "inverse", "inverse_discrete"}
NEED_NEXT = set(OBJECTIVES) - {"autoencoding", "autoencoding_noisy", "augmented", "cloning"}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(64, 5)), rng.uniform(-1, 1, (64, 2)), rng.normal(size=64)]
    made = data.from_arrays(*rows, np.arange(64) % 4 == 3, np.zeros(64), rng.normal(size=(64, 5)), name="random")
    return data.future(2)(made, jax.random.key(1), 32)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_encoder_learns_from_what_the_objective_reads(name, batch):
    objective = OBJECTIVES[name]
    params = jax.jit(objective.init)(KEY)
    gradient = jax.jit(jax.grad(lambda params, batch: objective.loss(params, batch, KEY)[0]))

    def encoder_gradient(batch):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient(params, batch)["encoder"])])

    before = encoder_gradient(batch)
    assert np.isfinite(before).all()
    assert np.abs(before).max() > 1e-6
    assert objective.encode(params, batch.observation).shape == (32, 3)
    without = {
        "action": (dataclasses.replace(batch, action=batch.action[::-1]), name in NEED_ACTIONS),
        "next": (dataclasses.replace(batch, next_observation=batch.next_observation + 1.0), name in NEED_NEXT),
        "reward": (dataclasses.replace(batch, reward=batch.reward + 1.0), False),
    }
    for field, (changed, read) in without.items():
        assert (np.abs(encoder_gradient(changed) - before).max() > 1e-7) == read, field


def test_videos_need_no_actions(batch):
    for objective in (
        representation.forward_dynamics(SPEC, ENCODER, (8,), with_action=False),
        representation.contrastive_dynamics(SPEC, ENCODER, (8,), with_action=False),
    ):
        params, loss = jax.jit(objective.init)(KEY), jax.jit(objective.loss)
        values = [loss(params, dataclasses.replace(batch, action=a), KEY)[0] for a in (batch.action, None)]
        assert values[0] == values[1]


def test_the_next_encoding_can_be_held(batch):
    def through_next(hold):
        objective = representation.inverse_dynamics(SPEC, ENCODER, (8,), hold_next=hold)
        params = jax.jit(objective.init)(KEY)
        still = dataclasses.replace(batch, observation=jnp.zeros_like(batch.observation))
        gradient = jax.jit(jax.grad(lambda params: objective.loss(params, still, KEY)[0]))(params)
        return jnp.abs(gradient["encoder"]["Dense_0"]["kernel"]).max()  # all inputs are 0 but the next observation's

    assert through_next(False) > 1e-5
    assert through_next(True) == 0.0


def moved_and_unmoved(seed=0, rows=2000):
    """Actions move two of four state components, chance moves the others; observations mix all four."""
    rng = np.random.default_rng(seed)
    state, action = rng.normal(size=(rows, 4)), rng.uniform(-1, 1, (rows, 2))
    following = state + np.concatenate([action, rng.normal(size=(rows, 2))], 1)
    mix = np.random.default_rng(9).normal(size=(4, 5))
    ends = np.ones(rows)
    return state, data.from_arrays(state @ mix, action, 0 * ends, 0 * ends, ends, following @ mix, name="linear")


def test_inverse_dynamics_knows_what_actions_move_and_only_that():
    state, rows = moved_and_unmoved()
    test_state, test_rows = moved_and_unmoved(1)
    encoder = networks.mlp((5, 2))  # room for two directions
    objective = representation.inverse_dynamics(SPEC, encoder, ())
    run = pretrain(objective, batch_size=128, updates=600)
    state_after, history = jax.jit(run)(KEY, Hyper(learning_rate=1e-2), rows)
    assert history["loss"][0] < 0.1  # over all updates; a guess costs 1/3
    features = [objective.encode(state_after.params, x.observation) for x in (rows, test_rows)]
    known = [
        float(representation.linear_probe(features[0], state[:, part], features[1], test_state[:, part]))
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert known[0] > 0.99
    assert known[1] < 0.05


def test_pretraining_resumes_and_maps_like_any_run(batch):
    objective, rows = OBJECTIVES["autoencoding"], moved_and_unmoved(rows=64)[1]
    run = pretrain(objective, batch_size=16, updates=20, segments=2)
    rates = Hyper(learning_rate=jnp.array([1e-3, 1e-2]), weight_decay=jnp.full(2, 1e-4))
    whole, history = jax.jit(jax.vmap(run, in_axes=(None, 0, None)))(KEY, rates, rows)
    assert history["loss"].shape == (2, 2)
    assert history["loss"][1, 1] < history["loss"][0, 1]
    state, segment = jax.jit(run.init)(KEY, Hyper()), jax.jit(run.segment)
    for index in range(2):
        state, _ = segment(state, jnp.int32(index), KEY, Hyper(), rows)
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(left[0], right, atol=1e-5)
    with pytest.raises(UserError, match="multiple"):
        pretrain(objective, updates=21, segments=2)


def test_the_embedding_of_behavior_retrieval_ends_with_the_raw_action(batch):
    vae = representation.state_action_vae(SPEC, (16,), latent=3)
    params = jax.jit(vae.init)(KEY)
    embedded = jax.jit(vae.embed)(params, batch.observation, batch.action)
    assert embedded.shape == (32, 5)
    np.testing.assert_array_equal(embedded[:, 3:], batch.action)
    _, rows = moved_and_unmoved(rows=256)
    _, history = jax.jit(pretrain(vae, batch_size=64, updates=300, segments=3))(KEY, Hyper(learning_rate=3e-3), rows)
    assert history["observation_error"][-1] < 0.5 * history["observation_error"][0]
    loss, metrics = jax.jit(vae.loss)(params, batch, KEY)
    both = (metrics["observation_error"] + metrics["action_error"]) / 2
    np.testing.assert_allclose(loss, both + 1e-4 * metrics["kl"], rtol=1e-6)


def test_probes_tell_knowledge_from_noise():
    rng = np.random.default_rng(0)
    state, noise = jnp.asarray(rng.normal(size=(2000, 3))), jnp.asarray(rng.normal(size=(2000, 7)))
    mixed = state @ jnp.asarray(rng.normal(size=(3, 7))) * 1e3 + 5.0
    fit, test = slice(0, 1000), slice(1000, None)
    assert representation.linear_probe(mixed[fit], state[fit], mixed[test], state[test]) > 0.999
    assert abs(representation.linear_probe(noise[fit], state[fit], noise[test], state[test])) < 0.03
    label = (state[:, 0] * state[:, 1] > 0).astype(int)  # no linear model finds it
    read = jax.jit(lambda x: representation.classifier_probe(KEY, x[fit], label[fit], x[test], label[test], 2))
    assert read(mixed) > 0.9
    assert read(noise) < 0.6
