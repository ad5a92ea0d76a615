"""Content and behaviour both ways: masks, the loss's two means, and a model of a receiver whose taste is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, representation
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.data import samplers
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.pretrain import Hyper, pretrain
from jaxrl_reg.representation.content_behaviour import two_way_loss, two_way_masks

LENGTH, CONTENTS = 4, 5
ANSWER = np.array([[0, 1, 2, 0, 1], [2, 1, 0, 2, 1]])  # of each of two receivers to each content


def rows():
    rng = np.random.default_rng(0)
    content, who = rng.integers(0, CONTENTS, 1600), np.repeat(rng.integers(0, 2, 400), 4)
    end = np.arange(1600) % 4 == 3
    zero = np.zeros(1600)
    return data.from_arrays(
        np.zeros((1600, 1)), 1.8 * np.eye(CONTENTS)[content] - 0.9, zero, zero, end, np.zeros((1600, 1)), name="shown",
        extras={"behaviour": ANSWER[who, content], "who": who},
    )  # fmt: skip


@quick
def hidden(key):
    return two_way_masks(key, 4000, 6, 0.3, content_runs=(2, 3))


def test_each_row_hides_one_run_of_one_kind():
    contents, behaviours = map(np.asarray, hidden(jax.random.key(0)))
    assert not (contents.any(axis=1) & behaviours.any(axis=1)).any()
    assert (contents.any(axis=1) | behaviours.any(axis=1)).all()
    assert abs(behaviours.any(axis=1).mean() - 0.3) < 0.03
    for masks, lengths in ((contents, {2, 3}), (behaviours, set(range(1, 7)))):
        masks = masks[masks.any(axis=1)]
        assert set(masks.sum(axis=1)) == lengths
        assert (np.abs(np.diff(masks.astype(int), axis=1, prepend=0, append=0)).sum(axis=1) == 2).all()
    assert contents[:, 0].any()
    assert contents[:, -1].any()


def test_each_kind_is_averaged_over_its_own():
    given = jnp.array([[0.5, 1.0, 2.0]]), jnp.array([[0.2, 0.4, 0.6]])
    masks = jnp.array([[1, 0, 1]]), jnp.array([[0, 1, 1]])
    np.testing.assert_allclose(two_way_loss(*given, *masks, 2.0), 2.25, rtol=1e-6)
    np.testing.assert_allclose(two_way_loss(*given, 0 * masks[0], masks[1]), 0.5, rtol=1e-6)


def test_one_model_simulates_ranks_and_is_asked():
    model = representation.content_behaviour(CONTENTS, 3, LENGTH, 2, width=16, blocks=1)
    run = pretrain(model, batch_size=64, updates=300, sample=samplers.windows(LENGTH, pad="right"))
    state, history = quick(run)(jax.random.key(0), Hyper(learning_rate=1e-2), rows())
    assert history["behaviour_accuracy"].shape == (1,)

    @quick
    def used(params):
        content = jnp.array([[0, 1, 2, 3]] * 2)
        who, behaviour = jnp.arange(2), jnp.asarray(ANSWER)[:, :4]
        simulated = model.simulate(params, who, content)
        gap = jnp.array([[False, True, False, False]] * 2)
        each = [content[0], content[0].at[1].set(2), content[0].at[0].set(4)]
        candidates = jnp.broadcast_to(jnp.stack(each), (2, 3, 4))
        scores = model.rank(params, who, behaviour, content, gap, candidates)
        blind = model.rank(params, who, behaviour, content.at[:, 1].set(4), gap, candidates)
        wanted = jnp.full((64, LENGTH), 2)
        drawn = model.ask(params, jnp.repeat(who, 32), wanted, jax.random.key(1))
        return simulated, scores, blind, drawn

    simulated, scores, blind, drawn = used(state.params)
    np.testing.assert_array_equal(simulated.argmax(axis=-1), ANSWER[:, :4])
    assert (scores[:, 0] > scores[:, 1] + 1.0).all()
    np.testing.assert_allclose(scores[:, 0], scores[:, 2], atol=1e-6)  # it differs where nothing is hidden
    np.testing.assert_allclose(scores, blind, atol=1e-6)  # what is hidden is not read
    got = ANSWER[np.repeat([0, 1], 32)[:, None], np.asarray(drawn)]
    assert (got == 2).mean() > 0.8
    batch = samplers.take_windows(rows(), jnp.arange(4), LENGTH, "right")
    with pytest.raises(UserError, match="to_bins"):
        model.loss(state.params, dataclasses.replace(batch, extras={"mask": batch.extras["mask"]}), jax.random.key(0))
