"""Masks drawn by ranks, transformers over the entries of a vector, and the objectives that hide some of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, losses, representation
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import pretrain
from jaxrl_reg.loops.offline import INIT
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.networks.feature_tokens import feature_tokens
from jaxrl_reg.types import Spec

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(256, 2))
    observation = latent @ rng.normal(size=(2, 6)) + 0.05 * rng.normal(size=(256, 6))
    ends = np.arange(256) % 8 == 7
    return data.from_arrays(
        observation, rng.uniform(-1, 1, (256, 1)), np.zeros(256), ends, 0 * ends, observation, name="rows"
    )


def test_contexts_and_targets_are_disjoint_and_targets_differ():
    draw = jax.jit(lambda key: representation.context_and_targets(key, 50, 10, (0.2, 0.5), (0.2, 0.9), 3))
    differ = []
    for seed in range(8):
        shown, hidden = map(np.asarray, draw(jax.random.key(seed)))
        assert not (shown & hidden).any()
        sizes = shown.sum(1), hidden.sum(2)
        assert len(np.unique(sizes[0])) == len(np.unique(sizes[1])) == 1  # one size for all rows of a batch
        assert 1 <= sizes[0][0] <= 5
        assert 1 <= sizes[1][0, 0] <= 9
        differ.append((hidden[0] != hidden[1]).any() or sizes[0][0] + sizes[1][0, 0] == 10)
    assert all(differ)  # unless nothing else is left; the released code draws one set and calls it several
    whole = np.mean([np.asarray(draw(jax.random.key(seed))[1]).mean((0, 1)) for seed in range(40)], axis=0)
    assert whole.min() > 0.1  # every entry is a target now and then, the last one as well


def test_every_row_shows_exactly_as_many():
    draw = jax.jit(lambda key, keep: representation.dirichlet_mask(key, 400, (2, 5, 1), keep))
    for keep in (1, 4, 8):
        visible = np.asarray(draw(KEY, keep))
        np.testing.assert_array_equal(visible.sum(1), keep)
    visible = np.asarray(representation.dirichlet_mask(KEY, 400, (4, 4), 4, 0.1))
    alone = ((visible[:, :4].sum(1) == 4) | (visible[:, 4:].sum(1) == 4)).mean()
    assert alone > 0.5  # a small concentration shows one group whole
    even = np.asarray(representation.dirichlet_mask(KEY, 400, (4, 4), 4, 1e4))
    assert (even[:, :4].sum(1) == 2).all()


def test_hidden_entries_are_seen_by_nobody():
    network = feature_tokens(4, (8,), 2)
    params, x = network.init(KEY), jnp.array([1.0, 2, 3, 4])
    visible = jnp.array([1, 0, 1, 0])
    first, second = (network.apply(params, x.at[1].set(value), visible) for value in (0.0, 100.0))
    np.testing.assert_array_equal(first[jnp.array([0, 1, 3])], second[jnp.array([0, 1, 3])])  # the register comes first
    assert np.isfinite(network.apply(params, x, jnp.zeros(4))).all()
    assert network.apply(params, jnp.zeros((2, 3, 4))).shape == (2, 3, 5, 8)
    with pytest.raises(UserError, match="nothing to attend to"):
        feature_tokens(4, (8,), 2, registers=0)


def test_golden_numbers():
    assert losses.token_cosine(jnp.array([[1.0, 0], [1, 1], [0, 1]])) == pytest.approx(0.471405, abs=1e-5)
    prediction, target = jnp.array([[1.0, 0, 2, 2]]), jnp.array([[0.0, 0, 1, 4]])
    visible, group = jnp.array([[0.0, 1, 0, 0]]), jnp.array([0, 0, 1, 1])
    assert losses.group_reconstruction_loss(prediction, target, visible, group, 2) == pytest.approx(3.5)
    all_seen = losses.group_reconstruction_loss(prediction, target, jnp.ones((1, 4)), group, 2)
    assert all_seen == 0  # 0 / 0 in the released code


def length(tree):
    return np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def test_the_target_follows_by_average_alone_and_decay_leaves_it(rows):
    objective = representation.masked_prediction(rows.spec, (8,), 2, predictor=(8,), targets=2)
    run = pretrain(objective, batch_size=16, updates=12, segments=2)
    trained = jax.jit(run)
    state, history = trained(KEY, Hyper(jnp.float32(1e-2), jnp.float32(0.0)), rows)
    assert history["loss"][-1] < history["loss"][0]
    assert -1 <= history["token_cosine"][-1] <= 1
    params = objective.init(KEY)
    gradient = jax.grad(lambda p: objective.loss(p, data.uniform(rows, KEY, 8), KEY)[0])(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["target"]))
    # Decay alone: the encoder shrinks by a tenth an update, the target follows at its own pace.
    decayed, _ = trained(KEY, Hyper(jnp.float32(1e-6), jnp.float32(1e5)), rows)
    first = objective.init(jax.random.fold_in(KEY, INIT))["encoder"]
    sizes = [length(decayed.params[name]) / length(first) for name in ("encoder", "target")]
    assert sizes[0] < 0.5
    assert sizes[1] > 0.95
    pairs = zip(*map(jax.tree.leaves, (state.params["encoder"], state.params["target"])), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) > 0
    features = objective.encode(state.params, rows.observation[:3])
    assert features.shape == (3, 7 * 8)
    end = objective.advance(state.params, jnp.float32(1.0))
    np.testing.assert_array_equal(jax.tree.leaves(end["target"])[0], jax.tree.leaves(state.params["target"])[0])


def test_an_encoder_that_is_its_own_target_can_make_its_task_easier(rows):
    batch = data.uniform(rows, KEY, 8)
    values = []
    for detached in (True, False):
        objective = representation.masked_prediction(rows.spec, (8,), 2, predictor=(8,), targets=2, detached=detached)
        params = objective.init(KEY)
        value, gradient = jax.jit(jax.value_and_grad(lambda p, loss=objective.loss: loss(p, batch, KEY)[0]))(params)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["target"]))
        values.append((value, gradient["encoder"]))
    # At first the copy is the encoder: the same error, and a gradient that also goes through the targets.
    np.testing.assert_allclose(values[0][0], values[1][0], rtol=1e-6)
    assert length(jax.tree.map(lambda a, b: a - b, values[0][1], values[1][1])) > 0.1 * length(values[0][1])


def test_missing_sensors_are_filled_in(rows):
    objective = representation.masked_sensors(rows.spec, (3, 3), (16,), 2, decoder=(16,))
    run = jax.jit(pretrain(objective, batch_size=64, updates=300))
    state, _ = run(KEY, Hyper(jnp.float32(1e-2), jnp.float32(0.0)), rows)
    x = rows.observation
    visible = jnp.broadcast_to(jnp.array([1, 1, 1, 0, 0, 0]), x.shape)
    told = objective.impute(state.params, x, visible)
    np.testing.assert_array_equal(told[:, :3], x[:, :3])
    error = jnp.square(told - x)[:, 3:].mean() / x[:, 3:].var(0).mean()
    assert error < 0.3  # 1: the mean
    with pytest.raises(UserError, match="make 5 entries"):
        representation.masked_sensors(rows.spec, (3, 2))


def test_a_teachers_label_and_an_affine_response(rows):
    from jaxrl_reg.networks import mlp

    spec = Spec(6, 1)
    teacher = representation.random_teacher(spec, mlp((6, 4)), (8,), projection=16, start=0.5)
    run = jax.jit(pretrain(teacher, batch_size=16, updates=20, segments=2))
    state, history = run(KEY, Hyper(jnp.float32(1e-2), jnp.float32(100.0)), rows)
    first = teacher.init(jax.random.fold_in(KEY, 0))["teacher"]
    assert jax.tree.structure(first) == jax.tree.structure(state.params["teacher"])
    assert history["loss"][0] > 0
    with pytest.raises(UserError, match="nothing to learn"):
        representation.random_teacher(spec, mlp((6, 4)), start=0.0)
    affine = representation.linear_response(spec, mlp((6, 2)), (8,))
    value, metrics = jax.jit(affine.loss)(affine.init(KEY), data.uniform(rows, KEY, 64), KEY)
    assert value == pytest.approx(float(metrics["reconstruction"] + 10 * metrics["invariance"]), rel=1e-5)
