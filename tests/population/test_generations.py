"""Population-based training between the segments of a sweep."""

import jax
import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.errors import UserError
from jaxrl_reg.population import Generations, parse_range

from .toy import Hyper, make_data, make_run

RATES = [1e-5, 1e-4, 0.05, 0.1]
MOVING = Generations({"learning_rate": parse_range("learning_rate", "log:0.00001:0.2")})
REQUEST = {"seeds": 2, "hypers": population.grid(Hyper(), learning_rate=RATES), "data": make_data(), "save_seconds": 0}


def train(segments=4, **options):
    return population.sweep(make_run(segments), generations=MOVING, **{**REQUEST, **options})


@pytest.fixture(scope="module")
def whole():
    return train()


def test_the_worst_copies_the_best_within_its_seed_and_its_rate_moves(whole):
    plain = population.sweep(make_run(4), **REQUEST)
    rates = whole.metrics["hyper/learning_rate"]
    assert rates.shape == (4, 2, 4)
    np.testing.assert_allclose(rates[:, :, 0], np.tile(np.float32(RATES)[:, None], 2))
    np.testing.assert_array_equal(whole.metrics["loss"][:, :, 0], plain.metrics["loss"][:, :, 0])
    for seed in range(2):
        scores = whole.metrics["eval/return"][:, seed, 0]
        worst, best = scores.argmin(), scores.argmax()
        pushed = rates[worst, seed, 1] / rates[best, seed, 0]
        assert np.isclose(pushed, 1.25, rtol=1e-5) or np.isclose(pushed, 0.8, rtol=1e-5) or rates[worst, seed, 1] == 0.2
        others = [slot for slot in range(4) if slot != worst]
        np.testing.assert_array_equal(rates[others, seed, 1], rates[others, seed, 0])
        # It goes on from the state of the best, not from its own, which has hardly moved.
        assert whole.metrics["eval/return"][worst, seed, 1] > scores[worst] / 2
    assert whole.metrics["eval/return"][:, :, -1].min() > plain.metrics["eval/return"][:, :, -1].min()


def test_stopped_and_resumed_is_bit_identical_and_so_is_a_longer_run(whole, tmp_path):
    def stop(progress):
        if progress.segment == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(directory=tmp_path / "a", on_segment=stop)
    train(segments=2, directory=tmp_path / "b")
    for folder in ("a", "b"):
        again = train(directory=tmp_path / folder, resume=True)
        for name, values in whole.metrics.items():
            np.testing.assert_array_equal(again.metrics[name], values, err_msg=f"{folder} {name}")
        for one, other in zip(*map(jax.tree.leaves, (again.state, whole.state)), strict=True):
            if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
                one, other = jax.random.key_data(one), jax.random.key_data(other)
            np.testing.assert_array_equal(one, other)
    restored = population.restore(tmp_path / "a", make_run(4), 2, REQUEST["hypers"])
    last = whole.metrics["hyper/learning_rate"][:, :, -1].ravel()
    np.testing.assert_array_equal(restored.hypers.learning_rate, last)


def test_what_cannot_move_is_refused():
    for ranges, message in (
        ({"learning_rat": "log:0.1:1"}, "did you mean 'learning_rate'"),
        ({"noise": "0.1,0.2"}, "noise is a choice"),
    ):
        moving = Generations({name: parse_range(name, text) for name, text in ranges.items()})
        with pytest.raises(UserError, match=message):
            population.sweep(make_run(4), generations=moving, **REQUEST)
    nothing = Generations(MOVING.ranges, score="eval/retrn")
    with pytest.raises(UserError, match="did you mean 'eval/return'"):
        population.sweep(make_run(4), generations=nothing, **REQUEST)
