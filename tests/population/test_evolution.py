import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.errors import UserError
from jaxrl_reg.population import search

from .toy import Hyper, make_data, make_run

RANGES = {"learning_rate": "log:0.001:0.5"}
COUNT = 8


def keys(count=COUNT):
    return jax.vmap(jax.random.key)(jnp.arange(count))


@pytest.fixture(scope="module")
def evolved():
    hypers = population.sample(Hyper(), COUNT, **RANGES)
    run, data = make_run(segments=5), make_data()
    out = jax.jit(population.evolve(run, RANGES))(jax.random.key(0), keys(), hypers, data)
    return run, hypers, data, out


def test_the_worst_copy_the_best_and_nobody_else_copies():
    scores = jnp.array([3.0, 1.0, 7.0, 5.0, 2.0, 6.0, 4.0, 0.0])
    copied = np.stack([population.exploit(jax.random.key(i), scores) for i in range(60)])
    others = [0, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(copied[:, others], np.tile(others, (60, 1)))
    for loser in (1, 7):
        assert set(copied[:, loser]) == {2, 5}


def test_members_without_a_score_copy_and_are_never_copied():
    scores = jnp.array([jnp.nan, 1.0, jnp.inf, 2.0, jnp.nan, 3.0, -jnp.inf, jnp.nan])
    for i in range(30):
        parents = np.asarray(population.exploit(jax.random.key(i), scores))
        assert set(parents[[0, 2, 4, 6, 7]]) <= {3, 5}
        np.testing.assert_array_equal(parents[[3, 5]], [3, 5])
    alone = population.exploit(jax.random.key(0), jnp.array([jnp.nan, 1.0, jnp.nan, jnp.nan]))
    np.testing.assert_array_equal(alone, [1, 1, 1, 1])
    np.testing.assert_array_equal(population.exploit(jax.random.key(0), jnp.full(4, jnp.nan)), [0, 1, 2, 3])
    np.testing.assert_array_equal(population.exploit(jax.random.key(0), jnp.zeros(1)), [0])


def test_exploring_moves_by_the_factor_within_the_range_and_only_what_it_is_told():
    hypers = Hyper(learning_rate=jnp.full(200, 0.1), noise=jnp.linspace(0.0, 1.0, 200))
    log = population.explore(jax.random.key(1), hypers, {"learning_rate": search.Range("log", (0.001, 0.12))}, 2.0)
    assert set(np.round(np.asarray(log.learning_rate), 5)) == {np.float32(0.05), np.float32(0.12)}
    np.testing.assert_array_equal(log.noise, hypers.noise)
    lin = population.explore(jax.random.key(1), hypers, {"noise": search.Range("lin", (0.0, 1.0))}, 1.25)
    inner = (hypers.noise > 0.25) & (hypers.noise < 0.75)
    np.testing.assert_allclose(jnp.abs(lin.noise - hypers.noise)[inner], 0.25, atol=1e-6)
    fresh = population.explore(
        jax.random.key(1), hypers, {"learning_rate": search.Range("log", (0.001, 1.0))}, 2.0, resample=1.0
    )
    assert np.unique(np.asarray(fresh.learning_rate)).size > 190


def test_a_copy_goes_on_from_its_parents_state_with_its_own_randomness(evolved):
    run, _, data, out = evolved
    parents, hypers = np.asarray(out.parents), out.hypers
    assert out.metrics["eval/return"].shape == parents.shape == (5, COUNT)
    np.testing.assert_array_equal(parents[-1], np.arange(COUNT))  # nothing is thrown away after the last segment
    assert (parents[:-1] != np.arange(COUNT)).sum() == 4 * 2

    # By hand, member by member: the same segments, with the copies that were recorded.
    states = [run.init(k, jax.tree.map(lambda x, m=m: x[0, m], hypers)) for m, k in enumerate(keys())]
    segment = jax.jit(run.segment)
    for t in range(5):
        made = [
            segment(states[m], jnp.int32(t), keys()[m], jax.tree.map(lambda x, m=m, t=t: x[t, m], hypers), data)
            for m in range(COUNT)
        ]
        for m in range(COUNT):
            np.testing.assert_allclose(out.metrics["eval/return"][t, m], made[m][1]["eval/return"], rtol=1e-4)
        states = [made[parents[t, m]][0] for m in range(COUNT)]
    for m in range(COUNT):
        np.testing.assert_allclose(out.state["w"][m], states[m]["w"], rtol=1e-5, atol=1e-6)
    rates = np.asarray(hypers.learning_rate)
    for t, m in zip(*np.nonzero(parents[:-1] != np.arange(COUNT)), strict=True):
        ratio = rates[t + 1, m] / rates[t, parents[t, m]]
        assert np.isclose(ratio, 1.25) or np.isclose(ratio, 0.8) or np.isclose(rates[t + 1, m], 0.5)


def test_ancestry_follows_the_copies_back():
    parents = np.array([[0, 0, 2], [0, 1, 1], [0, 1, 2]])
    np.testing.assert_array_equal(population.ancestry(parents, 2), [0, 1, 2])
    np.testing.assert_array_equal(population.ancestry(parents, 0), [0, 0, 0])


def test_devices_and_chunks_change_nothing_but_rounding(evolved):
    run, hypers, data, out = evolved
    for how in ({"chunk": COUNT}, {"devices": jax.devices()[:2]}):
        other = jax.jit(population.evolve(run, RANGES, **how))(jax.random.key(0), keys(), hypers, data)
        np.testing.assert_array_equal(other.parents, out.parents)
        np.testing.assert_allclose(other.state["w"], out.state["w"], rtol=1e-4, atol=1e-6)


def test_a_member_that_goes_nan_is_replaced(evolved):
    run, hypers, data, _ = evolved

    def train(state, index, key, hyper, data):
        after, metrics = run.train(state, index, key, hyper, data)
        return {**after, "w": jnp.where(hyper.noise > 1, jnp.nan, after["w"])}, metrics

    sick = dataclasses.replace(hypers, noise=hypers.noise.at[3].set(2.0))
    out = jax.jit(population.evolve(dataclasses.replace(run, train=train), RANGES))(
        jax.random.key(0), keys(), sick, data
    )
    assert out.parents[0, 3] != 3
    assert np.isnan(out.metrics["eval/return"][0, 3])
    assert np.isfinite(out.metrics["eval/return"][1:]).all()
    assert (out.hypers.noise[1:] < 1).all()


def test_bad_requests_are_refused():
    run, hypers = make_run(), population.sample(Hyper(), 4, **RANGES)
    for ranges, options, message in (
        ({"learning_rat": "lin:0:1"}, {}, "unknown hyperparameter 'learning_rat'; did you mean 'learning_rate'"),
        ({"noise": "0.1,0.2"}, {}, "noise is a choice"),
        (RANGES, {"score": "eval/retur"}, "unknown metric 'eval/retur'; did you mean 'eval/return'"),
        (RANGES, {"devices": jax.devices()[:1] * 3}, "4 members cannot be split over 3 devices"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(population.evolve(run, ranges, **options), jax.random.key(0), keys(4), hypers, make_data())
    with pytest.raises(UserError, match="3 keys and 4 settings"):
        jax.eval_shape(population.evolve(run, RANGES), jax.random.key(0), keys(3), hypers, make_data())
    with pytest.raises(ValueError, match=r"fraction=0\.6"):
        population.exploit(jax.random.key(0), jnp.zeros(4), 0.6)
