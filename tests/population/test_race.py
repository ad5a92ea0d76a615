import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.errors import UserError
from jaxrl_reg.population import placement, stopping
from jaxrl_reg.types import Run

from .toy import Hyper, make_data, make_run

SEGMENTS = 9
HYPERS = population.sample(Hyper(), 9, learning_rate="log:0.001:0.3", noise="lin:0:0.5")
REQUEST = {"seeds": [4, 2], "hypers": HYPERS, "data": make_data()}


def made_up(settings=27, total=20, noise=0.0, seed=0):
    """Curves that rise to a limit which two hyperparameters decide; the last third of training brings little."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(settings, 2))
    limit = 1.0 - np.square(features[:, 0] - 0.5) - 0.3 * np.square(features[:, 1])
    speed = 1.0 + 0.5 * np.tanh(features[:, 1])
    curves = limit[:, None] * (1.0 - np.exp(-speed[:, None] * np.arange(1, total + 1) / 4.0))
    return curves + noise * random.normal(size=curves.shape), features


# --------------------------------------------------------------------------------------------------------- the rules


def test_halving_keeps_the_best_third_at_every_rung():
    curves, features = made_up()
    done = stopping.replay(stopping.halving(), curves, features)
    assert sorted(done.tolist()) == [1] * 18 + [3] * 6 + [9] * 2 + [20]
    assert set(np.argsort(-curves[:, 0])[:9]) == set(np.flatnonzero(done > 1))
    third = np.flatnonzero(done > 1)
    assert set(third[np.argsort(-curves[third, 2])[:3]]) == set(np.flatnonzero(done > 3))
    assert stopping.replay(stopping.everyone, curves, features).tolist() == [20] * 27
    late = stopping.replay(stopping.halving(eta=2, first=5), curves[:5], features[:5])
    assert sorted(late.tolist()) == [5, 5, 10, 20, 20]


def test_halving_drops_what_failed_first():
    curves, features = made_up(9)
    curves[curves[:, 0].argmax()] = -np.inf
    done = stopping.replay(stopping.halving(), curves, features)
    assert done[np.isneginf(curves[:, 0])].tolist() == [1]


def test_asha_promotes_from_the_rungs_so_far_as_worked_by_hand():
    """Nine settings in groups of three, rungs at 1 and 3 segments, the end at 9.

    0, 1, 2 come first and end the rung at .1 .5 .3: a third of three is one, so 1 goes on before 3 has begun. Of one at
    the next rung none may go on; 3, 4, 5 follow (.9 .2 .6): the best two of six are 3 and 5. At 3 segments 1, 3, 5 have
    .5 .7 .8: one of three, 5, trains to the end. Then 6, 7, 8 (0, .7, .4): the best three of nine are 3, 7, 5; only 7
    still waits. With its .6 at 3 segments it is not the best of four, which 5 was.
    """
    curves = np.zeros((9, 9))
    curves[:, 0] = [0.1, 0.5, 0.3, 0.9, 0.2, 0.6, 0.0, 0.7, 0.4]
    curves[[1, 3, 5, 7], 2] = [0.5, 0.7, 0.8, 0.6]
    rule, done, asked = stopping.asha(eta=3, groups=3), np.zeros(9, int), []
    while True:
        now = rule(stopping.Curves(np.where(np.arange(9) < done[:, None], curves, np.nan), done, np.zeros((9, 0))))
        if not now.any():
            break
        asked.append(np.flatnonzero(now).tolist())
        done = done + now
    assert asked == [[0, 1, 2], [1], [1], [3, 4, 5], [3, 5], [3, 5], *[[5]] * 6, [6, 7, 8], [7], [7]]
    assert sorted(stopping.replay(stopping.halving(), curves, np.zeros((9, 0)))) == [1] * 6 + [3] * 2 + [9]
    done = np.array([3, 3, 3, 1, 1, 1, 0, 0, 0])  # the highest rung is served first: 1 before 3 and 5, those before 6
    curves[:6, 0], curves[:3, 2] = [0.1, 0.2, 0.3, 0.9, 0.4, 0.8], [0.5, 0.6, 0.4]
    seen = np.where(np.arange(9) < done[:, None], curves, np.nan)
    assert np.flatnonzero(rule(stopping.Curves(seen, done, np.zeros((9, 0))))).tolist() == [1]


def test_asha_brings_one_to_the_end_and_never_promotes_what_failed():
    curves, features = made_up(7, total=9)
    done = stopping.replay(stopping.asha(), curves, features)  # the best of two at the second rung is no third of them
    assert sorted(done.tolist()) == [1] * 5 + [3, 9]
    assert curves[done == 9, 2] == curves[done > 1, 2].max()
    best = curves[:, 0].argmax()
    curves[best, 0:] = -np.inf
    done = stopping.replay(stopping.asha(), curves, features)
    assert done[best] == 1
    assert done.max() == 9
    late = np.where(np.arange(9) > 1, -np.inf, curves)  # all go NaN between two rungs
    assert sorted(stopping.replay(stopping.asha(), late, features).tolist()) == [1] * 1 + [3] * 6
    assert stopping.replay(stopping.asha(), np.full((7, 9), -np.inf), features).tolist() == [1] * 7


def test_ridge_finds_a_line_and_says_how_far_off_it_is():
    random = np.random.default_rng(0)
    x, weights = random.normal(size=(60, 4)), np.array([1.0, -2.0, 0.5, 0.0])
    fresh = random.normal(size=(400, 4))
    for noise in (0.1, 1.0):
        mean, spread = stopping.predict(x, 5.0 + x @ weights + noise * random.normal(size=60), fresh)
        error = mean - (5.0 + fresh @ weights)
        assert np.sqrt(np.mean(error**2)) < noise
        covered = np.abs(error + noise * random.normal(size=400)) < 1.96 * spread
        assert 0.88 < covered.mean() <= 1.0
        assert np.median(spread) < 1.6 * noise
    still = np.ones((5, 3))  # nothing to learn from: the mean, and the spread of the targets
    mean, spread = stopping.predict(still, np.arange(5.0), still[:2])
    np.testing.assert_allclose(mean, 2.0)
    assert (spread > 1.0).all()


def test_teachers_are_the_best_so_far_and_others_drawn_but_none_that_failed():
    scores = np.arange(20.0)
    scores[[3, 19]] = -np.inf
    taught = stopping.teachers_of(scores, 7)
    assert taught.sum() == 7
    assert taught[[18, 17, 16]].all()
    assert not taught[[3, 19]].any()
    assert stopping.teachers_of(np.full(20, -np.inf), 7).sum() == 0
    assert (taught[:16].sum(), taught[:8].any()) == (4, True)  # not just the next best


def test_prediction_finds_the_best_for_few_updates_and_teachers_train_to_the_end():
    shares, lost = [], []
    for seed in range(20):
        curves, features = made_up(40, noise=0.01, seed=seed)
        done = stopping.replay(stopping.prediction(whole=5, probability=0.9, first=2), curves, features)
        assert (done[stopping.teachers_of(curves[:, 1], 5)] == 20).all()
        assert done.min() >= 2
        shares.append(done.sum() / curves.size)
        lost.append(curves[:, -1].max() - curves[done == 20, -1].max())
    assert np.mean(shares) < 0.45
    assert np.mean(lost) < 0.03  # limits lie between -8 and 1


def test_prediction_does_not_stop_those_that_lead_however_wrong_it_is():
    """The teachers, told by their feature, all fall at the end; of the others the first to be stopped would win."""
    curves = np.linspace(0.0, 1.0, 20)[:, None] + np.linspace(0.0, 0.1, 10)
    features = np.linspace(-1.0, 1.0, 20)[:, None]
    taught = stopping.teachers_of(curves[:, 0], 4)
    curves[taught] *= np.where(np.arange(10) < 9, 1.0, 5.0)  # they jump: nobody else seems able to reach that
    others = np.flatnonzero(~taught)
    for leaders in (0, 1, 3):
        done = stopping.replay(stopping.prediction(whole=4, leaders=leaders), curves, features)
        assert set(np.flatnonzero(done == 10)) == {*np.flatnonzero(taught), *others[len(others) - leaders :]}


def test_a_stopped_setting_never_comes_back():
    curves, features = made_up(30, noise=0.05, seed=3)
    for rule in (stopping.halving(), stopping.prediction(whole=5, probability=0.7, first=2)):
        done, out = np.zeros(30, int), np.zeros(30, bool)
        taught = np.zeros(30, bool)
        while True:
            seen = np.where(np.arange(20) < done[:, None], curves, np.nan)
            asked = rule(stopping.Curves(seen, done, features))
            if not asked.any():
                break
            assert not (asked & out).any()
            waiting = (done == 2) & (done.max() < 20)  # those that prediction lets wait for the teachers
            out |= ~asked & ~waiting & (done < 20)
            taught |= asked
            done = done + asked
        assert out.sum() > 5


def test_false_stops_are_those_above_the_best_that_was_kept():
    curves = np.array([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    assert stopping.false_stops(curves, np.array([1, 2, 1, 1])) == pytest.approx(2 / 3)
    assert stopping.false_stops(curves, np.array([2, 2, 2, 2])) == 0.0


def test_every_rule_has_a_name():
    curves, features = made_up(12, noise=0.01)
    for name in stopping.RULES:
        assert (stopping.replay(stopping.named(name), curves, features) == 20).any(), name


def test_features_are_standardised_and_logarithmic_where_they_span_decades():
    hypers = population.grid(Hyper(), learning_rate=[0.001, 0.01, 0.1])
    np.testing.assert_allclose(stopping.features(hypers)[:, 0], [-1.2247, 0.0, 1.2247], atol=1e-3)
    assert stopping.features(population.grid(Hyper())).shape == (1, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stopping.halving(eta=1), "eta=1 of at least 2"),
        (lambda: stopping.asha(groups=0), "groups=0 of at least 1"),
        (lambda: stopping.prediction(whole=2), "whole=2 of at least 3"),
        (lambda: stopping.prediction(leaders=-1), "leaders=-1 of at least 0"),
        (lambda: stopping.named("halvin"), "unknown stopping rule 'halvin'; did you mean 'halving'"),
    ],
)
def test_bad_rules_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


# ---------------------------------------------------------------------------------------------------------- the race


@pytest.fixture(scope="module")
def whole():
    return population.sweep(make_run(SEGMENTS), **REQUEST)


@pytest.fixture(scope="module")
def raced():
    rounds, plans = [], []
    result = population.race(
        make_run(SEGMENTS), stopping.halving(), on_round=rounds.append, on_plan=plans.append, **REQUEST
    )
    return result, rounds, plans


def test_a_race_in_which_all_go_on_is_the_sweep(whole):
    result = population.race(make_run(SEGMENTS), stopping.everyone, **REQUEST)
    for name, values in whole.metrics.items():
        np.testing.assert_allclose(result.metrics[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(result.state["w"], whole.state["w"], rtol=1e-5, atol=1e-6)
    assert result.segments_trained.tolist() == whole.segments_trained.tolist() == [SEGMENTS] * 9


def test_the_race_does_what_the_replay_says_and_members_have_the_numbers_of_the_sweep(whole, raced):
    result, rounds, plans = raced
    scores = whole.metrics["eval/return"].mean(axis=1)
    done = stopping.replay(stopping.halving(), scores, stopping.features(HYPERS))
    np.testing.assert_array_equal(result.segments_trained, done)
    for name, values in whole.metrics.items():
        ran = np.arange(SEGMENTS) < done[:, None]
        for seed in range(2):
            np.testing.assert_allclose(result.metrics[name][:, seed][ran], values[:, seed][ran], rtol=1e-4, atol=1e-6)
            assert np.isnan(result.metrics[name][:, seed][~ran]).all()
    assert [int(r.trained.sum()) for r in rounds] == [9, 3, 3] + [1] * 6
    assert rounds[-1].updates == done.sum() * 8 * 2
    assert np.isnan(rounds[1].metrics["loss"]).all(axis=1).sum() == 6
    assert len(plans) == 1
    assert plans[0].members == 18
    assert len(result.frame()) == done.sum() * 2


def test_an_asynchronous_race_does_what_the_replay_says_and_resumes(whole, tmp_path):
    def stop(one):
        if one.done.max() == 3:  # a setting that was promoted is ahead of some that have not begun
            assert (one.done == 0).any()
            raise KeyboardInterrupt

    run, rule = make_run(SEGMENTS), stopping.asha(groups=3)
    with pytest.raises(KeyboardInterrupt):
        population.race(run, rule, directory=tmp_path, save_seconds=0, on_round=stop, **REQUEST)
    result = population.race(run, rule, directory=tmp_path, resume=True, **REQUEST)
    scores = whole.metrics["eval/return"].mean(axis=1)
    done = stopping.replay(rule, scores, stopping.features(HYPERS))
    np.testing.assert_array_equal(result.segments_trained, done)
    assert done.max() == SEGMENTS
    ran = np.broadcast_to(np.arange(SEGMENTS) < done[:, None, None], (9, 2, SEGMENTS))
    np.testing.assert_allclose(result.metrics["loss"][ran], whole.metrics["loss"][ran], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", [{"placement": "vmap"}, {"placement": "vmap", "chunk": 2}, {"one": True}])
def test_placement_changes_nothing_but_rounding(raced, how):
    how = {"devices": jax.devices()[:1]} if how.get("one") else how
    other = population.race(make_run(SEGMENTS), stopping.halving(), **REQUEST, **how)
    np.testing.assert_array_equal(other.segments_trained, raced[0].segments_trained)
    np.testing.assert_allclose(other.metrics["loss"], raced[0].metrics["loss"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_resume_is_bit_identical(raced, tmp_path, at):
    def stop(one):
        if one.done.max() == at:
            raise KeyboardInterrupt

    run = make_run(SEGMENTS)
    with pytest.raises(KeyboardInterrupt):
        population.race(run, stopping.halving(), directory=tmp_path, save_seconds=0, on_round=stop, **REQUEST)
    again = population.race(run, stopping.halving(), directory=tmp_path, resume=True, **REQUEST)
    for name, values in raced[0].metrics.items():
        np.testing.assert_array_equal(again.metrics[name], values)
    np.testing.assert_array_equal(again.state["w"], raced[0].state["w"])
    np.testing.assert_array_equal(jax.random.key_data(again.state["key"]), jax.random.key_data(raced[0].state["key"]))
    with pytest.raises(UserError, match="segments differ"):
        population.race(make_run(5), stopping.halving(), directory=tmp_path, resume=True, **REQUEST)


def test_a_member_that_goes_nan_is_noted_and_its_setting_stops():
    run, notes = make_run(SEGMENTS), []

    def train(state, index, key, hyper, data):
        after, metrics = run.train(state, index, key, hyper, data)
        bad = (hyper.noise > 1) & (index == 1)
        return {**after, "w": jnp.where(bad, jnp.nan, after["w"])}, metrics

    best = int(np.argmax(population.race(run, stopping.halving(), **REQUEST).segments_trained))
    hypers = dataclasses.replace(HYPERS, noise=HYPERS.noise.at[best].set(1.1))
    hypers = dataclasses.replace(hypers, learning_rate=hypers.learning_rate.at[best].set(0.05))
    result = population.race(
        dataclasses.replace(run, train=train), stopping.halving(), on_note=notes.append, **{**REQUEST, "hypers": hypers}
    )
    if result.segments_trained[best] > 1:
        assert result.segments_trained[best] == 3
        assert [("went NaN in segment 2" in note) for note in notes] == [True, True]
        np.testing.assert_array_equal(result.failed_at[best], [1, 1])
    assert np.isfinite(result.metrics["eval/return"][result.segments_trained == SEGMENTS]).all()


def test_out_of_memory_at_run_time_does_the_block_again_in_smaller_chunks(raced, monkeypatch):
    module, notes, chunks = sys.modules["jaxrl_reg.population.race"], [], []
    compile_ = module.compile_programs

    def compile_small(*args):
        programs = compile_(*args)
        chunks.append((programs.plan.chunk, programs.evaluation_chunk))

        def unless(too_large, segment, position, program):
            def call(*arguments):
                if too_large and int(arguments[position]) == segment:
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
                return program(*arguments)

            return call

        return dataclasses.replace(
            programs,
            train=unless(chunks[-1][0] > 2, 1, -2, programs.train),
            evaluate=unless(chunks[-1][1] > 1, 3, -1, programs.evaluate),
        )

    monkeypatch.setattr(module, "compile_programs", compile_small)
    how = {"placement": "vmap", "devices": jax.devices()[:1], "on_note": notes.append}
    result = population.race(make_run(SEGMENTS), stopping.halving(), **REQUEST, **how)
    assert chunks == [(3, 3), (2, 2), (1, 1)]
    assert [note.split(" with ")[0] for note in notes] == [f"out of memory; going on from segment {n}" for n in (2, 4)]
    assert notes[1].endswith("with 1 members side by side in training, 1 in evaluation")
    np.testing.assert_array_equal(result.segments_trained, raced[0].segments_trained)
    for name in ("loss", "eval/return"):
        np.testing.assert_allclose(result.metrics[name], raced[0].metrics[name], rtol=1e-4, atol=1e-6)


def test_chunk_is_halved_until_the_program_fits(monkeypatch):
    def train(state, index, key, hyper, data):  # sorting needs its 80 kB at once, for every member side by side
        return state + jnp.sort(jax.random.normal(jax.random.fold_in(key, index), (20_000,)))[0], {"x": state}

    run = Run(lambda key, hyper: jnp.zeros(()), train, None, 1, 1)
    request = {"seeds": 32, "hypers": population.grid(Hyper()), "score": "x", "placement": "vmap"}
    request |= {"devices": jax.devices()[:1]}
    large = population.race(run, stopping.everyone, **request).plan
    assert large.chunk == 4  # of eight blocks
    monkeypatch.setattr(placement, "memory_limit", lambda device: int((large.total_bytes - 8) / 0.8))
    small = population.race(run, stopping.everyone, **request).plan
    assert small.chunk < 4
    assert small.total_bytes < large.total_bytes
    monkeypatch.setattr(placement, "memory_limit", lambda device: 100)
    with pytest.raises(UserError, match=r"32 members need .* take fewer seeds"):
        population.race(run, stopping.everyone, **request)


def test_an_unknown_score_is_refused():
    with pytest.raises(UserError, match="unknown metric 'eval/retur'; did you mean 'eval/return'"):
        population.race(make_run(2), stopping.halving(), score="eval/retur", **REQUEST)
