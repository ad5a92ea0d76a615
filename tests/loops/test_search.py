"""A search as a run: alone and in a population, stopped and resumed, and what it says it has found."""

import jax
import numpy as np
import pytest

from jaxrl_reg import envs, population
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import search
from jaxrl_reg.search import outcomes

SIZES = search.Sizes(
    population=6, generations=2, archived=2, neighbours=3, rewarding=8, emitters=3, candidates=2, bootstrap=5, chosen=2,
    steps=5, encoder_updates=3,
)  # fmt: skip
ROUND = 6 * 2 * 2 + 2 * (6 + 12 * 5) + 2 * 12 * 5


def world():
    """Half of the square is rewarded, so that there is something to emit from."""
    env = envs.make("rooms", layout="....G ..... ..... S....", radius=1.0, episode_length=6, speed=0.3)
    return env, outcomes.policy(env.spec, (3,))


def run(method, **settings):
    env, policy = world()
    return search.diversify(env, policy, method=method, **{"rounds": 2, "segments": 2, "sizes": SIZES, **settings})


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_search_is_the_same_alone_in_a_population_and_resumed(tmp_path):
    request = {"seeds": [3, 4], "hypers": population.grid(search.Hyper()), "placement": "map"}
    stax = run("stax", keep=True)

    class Stop(Exception):
        pass

    def stop(progress):
        raise Stop

    with pytest.raises(Stop):
        population.sweep(stax, directory=tmp_path, save_seconds=0, on_segment=stop, **request)
    seen = []
    resumed = population.sweep(stax, directory=tmp_path, resume=True, on_segment=seen.append, **request)
    assert [progress.segment for progress in seen] == [2]
    whole = population.sweep(stax, **request)
    same(whole.state, resumed.state)
    same(whole.metrics, resumed.metrics)
    state, history = jax.jit(stax)(jax.random.key(4), search.Hyper())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), state, whole.member(0, 1))

    metrics = {name: values[0, 1] for name, values in whole.metrics.items()}
    assert metrics["evaluations"].tolist() == [6 + ROUND, 6 + 2 * ROUND]
    assert metrics["novel"].tolist() == [4, 8]
    tried = state.found.tried
    assert tried.size == len(tried.fitness) == 6 + 2 * ROUND
    np.testing.assert_allclose(metrics["max_fitness"][-1], tried.fitness.max())
    rewarding = state.found.rewarding
    assert 0 < rewarding.size <= 8
    # Every row of the archive is something that was tried, with the fitness that it had.
    for row in range(int(rewarding.size)):
        twin = np.flatnonzero((np.asarray(tried.genome) == np.asarray(rewarding.genome[row])).all(1))
        assert len(twin)
        assert tried.fitness[twin[0]] == rewarding.fitness[row] > 0
        np.testing.assert_array_equal(tried.outcome[twin[0]], rewarding.extras["place"][row])
    cells = np.clip(np.floor((np.asarray(tried.outcome) + 1) / 2 * search.SIDE), 0, search.SIDE - 1).astype(int)
    visited = {tuple(cell) for cell in cells}
    assert metrics["coverage"][-1] == pytest.approx(len(visited) / search.SIDE**2)
    highest = [max(f for f, c in zip(tried.fitness, cells, strict=True) if tuple(c) == cell) for cell in visited]
    np.testing.assert_allclose(metrics["qd_score"][-1], np.sum(highest), rtol=1e-5)
    assert np.isfinite(history["reconstruction"]).all()


def test_reward_only_evolution_keeps_the_fittest_of_all():
    fitness = run("fitness", keep=True, sizes=SIZES.without_emitters(), segments=1)
    state, metrics = jax.jit(fitness)(jax.random.key(0), search.Hyper(mutation=0.5))
    assert SIZES.without_emitters().generations == 23  # 276 evaluations for 276
    assert metrics["evaluations"][-1] == 6 + 2 * ROUND
    everyone = np.sort(np.asarray(state.found.tried.fitness))[::-1]
    np.testing.assert_array_equal(np.asarray(state.population.fitness), everyone[:6])
    assert "reconstruction" not in metrics


def test_a_learning_rate_of_nothing_leaves_the_encoder_as_it_was():
    taxons = run("taxons", segments=1)
    train, key = jax.jit(taxons), jax.random.key(0)
    states = [train(key, search.Hyper(learning_rate=np.float32(rate)))[0] for rate in (0.0, 1e-2)]
    begun = jax.jit(taxons.init)(key, search.Hyper())
    same(begun.encoder, states[0].encoder)
    with pytest.raises(AssertionError):
        same(begun.encoder, states[1].encoder)


def test_bad_requests_are_refused():
    env, policy = world()
    with pytest.raises(UserError, match="unknown method of search 'stacks'; did you mean 'stax'"):
        search.diversify(env, policy, method="stacks", rounds=1)
    with pytest.raises(UserError, match="must be a positive multiple"):
        search.diversify(env, policy, rounds=3, segments=2)
    with pytest.raises(UserError, match="novelty compares places"):
        search.diversify(envs.make("pendulum"), policy, method="novelty", rounds=1)
