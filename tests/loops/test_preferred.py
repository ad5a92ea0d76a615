"""A reward learnt from answers: who is asked about what, and in which units it pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.loops._preferred import _doubtful, preferences

LENGTH, LANES, LABELS, SEGMENT = 12, 3, 6, 4


@pytest.fixture(scope="module")
def asked():
    """Three rounds of two questions where there is room for six answers, and a fourth."""
    own = preferences(
        2, (4,), labels=LABELS, rounds=3, segment=SEGMENT, steps=5, beta=0.0, learning_rate=jnp.float32(1e-2)
    )

    def rounds(key):
        features = jax.random.normal(key, (4, LENGTH, LANES, 2))

        def one(state, number):
            paid = features[number, ..., 0]
            state = own.ask(state, features[number], paid, jax.random.fold_in(key, number), number == 0)
            return state, state

        state, states = jax.lax.scan(one, own.init(key), jnp.arange(4))
        return states, own.pay(state, state.pairs.first), own.agreement(state)

    return jax.device_get(jax.jit(rounds)(jax.random.key(0)))


def test_answers_are_the_judges_and_the_oldest_make_room(asked):
    states, _, agreement = asked
    pairs = states.pairs
    np.testing.assert_array_equal(pairs.count, [2, 4, 6, 6])
    gap = (pairs.first - pairs.second)[..., 0].sum(-1)  # [rounds, L]; the judge likes the first feature
    known = np.arange(LABELS) < pairs.count[:, None]
    np.testing.assert_array_equal(pairs.preference[known], gap[known] > 0)
    kept = (pairs.first[3] == pairs.first[2]).all(axis=(1, 2))
    np.testing.assert_array_equal(kept, [False, False, True, True, True, True])
    first, second = (np.asarray(x)[3] for x in (pairs.first, pairs.second))
    assert first.shape == second.shape == (LABELS, SEGMENT, 2)
    assert float(agreement) * LABELS == pytest.approx(round(float(agreement) * LABELS), abs=1e-5)


def test_it_pays_in_spreads_of_the_labelled_steps(asked):
    _, pay, _ = asked
    np.testing.assert_allclose(np.asarray(pay).std(), 1.0, rtol=1e-4)


def test_questions_are_about_what_the_members_disagree_on():
    """Members that disagree about lane 2 alone, and by how much of the feature."""

    def rewards(segments):
        return jnp.array([-1.0, 0.0, 1.0])[:, None, None, None] * jnp.maximum(segments[..., 0] - 10.0, 0.0)

    features = jnp.ones((LENGTH, LANES, 2)).at[:, 2, 0].set(11.0)
    features = features.at[..., 1].set(jnp.arange(LANES))
    paid, keys = features[..., 0], tuple(jax.random.split(jax.random.key(1)))
    segments, gap = _doubtful(rewards, features, paid, keys, 3, SEGMENT, jnp.bool_(False))
    assert ((segments[..., 0, 1] == 2).sum(axis=1) == 1).all()  # one of the two, or they would agree
    np.testing.assert_allclose(np.abs(gap), 10.0 * SEGMENT)
    anything, _ = _doubtful(rewards, features, paid, keys, 3, SEGMENT, jnp.bool_(True))
    assert not ((anything[..., 0, 1] == 2).sum(axis=1) == 1).all()
