"""Windows that stay in their episode, and actions that a few labelled steps teach to a whole set of videos."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, representation
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import pretrain
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.types import Spec

LENGTHS = (4, 5, 1)
MOVES = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def walks(lengths, seed=0):
    """Random walks on the plane, with one-hot actions; the observation is the position."""
    rng = np.random.default_rng(seed)
    choice = rng.integers(4, size=sum(lengths))
    last = np.cumsum(np.bincount(np.cumsum(lengths) - 1, minlength=sum(lengths))) * 0
    last[np.cumsum(lengths) - 1] = 1
    seen, following = [], []
    for length, first in zip(lengths, np.cumsum(lengths) - np.array(lengths), strict=True):
        path = rng.normal(size=2) + np.concatenate([np.zeros((1, 2)), MOVES[choice[first : first + length]].cumsum(0)])
        seen.append(path[:-1])
        following.append(path[1:])
    columns = np.concatenate(seen), np.eye(4)[choice], 0 * last, 0 * last, last, np.concatenate(following)
    return data.from_arrays(*columns, name="walks")


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_windows_never_look_into_another_episode(radius):
    rows = walks(LENGTHS)
    window, mask = jax.jit(data.take_around, static_argnums=2)(rows, jnp.arange(10), radius)
    assert window.shape == (10, 2 * radius + 2, 2)
    for row in range(10):
        start, end = int(rows.start[row]), int(rows.end[row])
        path = np.concatenate([rows.observation[start:end], rows.next_observation[end - 1 : end]])
        for column, at in enumerate(range(row - radius - start, row - start + radius + 2)):
            exists = 0 <= at < len(path)
            assert mask[row, column] == exists
            np.testing.assert_array_equal(window[row, column], path[at] if exists else 0.0)
    with pytest.raises(UserError, match="radius of at least 0"):
        data.take_around(rows, 0, -1)


def test_sixty_labels_are_enough_to_label_videos():
    few, videos = walks([20] * 3), walks([25] * 40, seed=1)
    model = representation.labeller(Spec(2, 4), (), radius=0, discrete=True)
    run = pretrain(model, batch_size=60, updates=400, sample=data.around(0))
    state, _ = jax.jit(run)(jax.random.key(0), Hyper(learning_rate=3e-2), few)
    blank = dataclasses.replace(videos, action=jnp.zeros_like(videos.action))
    for block in (64, 4096):  # 1000 rows are no multiple of 64
        found = jax.jit(lambda v, p, block=block: representation.label(v, model, p, block=block))(blank, state.params)
        np.testing.assert_array_equal(found.action, videos.action)
        np.testing.assert_array_equal(found.next_action, videos.next_action)
    assert ((found.extras["confidence"] > 0.5) & (found.extras["confidence"] <= 1.0)).all()
    data.validate(found)


def test_continuous_labels_stay_in_bounds():
    model = representation.labeller(Spec(2, 4), (8,), radius=1)
    found = representation.label(walks(LENGTHS), model, jax.tree.map(lambda x: 50 * x, model.init(jax.random.key(0))))
    assert jnp.abs(found.action).max() == 1.0
    assert (found.extras["confidence"] == 1.0).all()


def test_factors_are_labelled_one_by_one():
    """Two factors, the sign of either axis; the confidence is the product of what each gives its best."""
    rng = np.random.default_rng(0)
    step = rng.choice([-1.0, 1.0], size=(200, 2))
    action = np.concatenate([np.eye(2)[(step[:, k] > 0).astype(int)] for k in range(2)], 1)
    seen, last = rng.normal(size=(200, 2)), np.ones(200)
    rows = data.from_arrays(seen, action, 0 * last, 0 * last, last, seen + step, name="signs")
    model = representation.labeller(Spec(2, 4), (), radius=0, discrete=(2, 2))
    run = pretrain(model, batch_size=100, updates=300, sample=data.around(0))
    state, _ = jax.jit(run)(jax.random.key(0), Hyper(learning_rate=3e-2), rows)
    found = jax.jit(lambda rows, params: representation.label(rows, model, params))(rows, state.params)
    np.testing.assert_array_equal(found.action, action)
    logits = model.loss(jax.tree.map(jnp.zeros_like, state.params), data.around(0)(rows, jax.random.key(1), 8), None)
    np.testing.assert_allclose(logits[0], 2 * np.log(2), rtol=1e-6)  # a sum over factors
    even = model.predict(jax.tree.map(jnp.zeros_like, state.params), jnp.zeros((3, 2, 2)), jnp.ones((3, 2)))
    np.testing.assert_allclose(even[1], 0.25)
    with pytest.raises(UserError, match="makes 5 numbers"):
        representation.labeller(Spec(2, 4), (), radius=0, discrete=(2, 3)).loss(
            state.params, data.around(0)(rows, jax.random.key(1), 8), None
        )
