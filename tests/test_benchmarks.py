"""The pages of the benchmark: made from the record alone, and committed as they are made."""

import json
import pathlib

import pytest

from benchmarks.contest import Result, ratio
from benchmarks.page import page, share

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("record", sorted(DOCS.glob("benchmark*.json")), ids=lambda path: path.stem)
def test_the_page_is_what_the_record_says(record):
    assert record.with_suffix(".md").read_text() == page(json.loads(record.read_text()))


def result(count, unit, *seconds):
    return Result(count, {"unit": unit}, [{"cpu": s, "wall": 2 * s, "clean": True, "peak_bytes": 0} for s in seconds])


def test_ratios_are_taken_round_by_round():
    slow, fast = result(1, 4, 4.0, 8.0, 40.0), result(2, 8, 8.0, 4.0, 16.0)
    assert fast.per_unit("cpu") == [0.5, 0.25, 1.0]
    assert fast.per_unit("wall") == [1.0, 0.5, 2.0]
    assert ratio(slow, fast, "cpu") == {"median": 8.0, "min": 2.0, "max": 10.0}


def test_an_update_that_takes_its_products_time_has_a_share_of_one():
    # Q, V and the policy of IQL: multiply-adds of 256 rows through 17 or 23, 256 and 256 units, counted by hand.
    forward = {d: 2 * 256 * (d * 256 + 256 * 256 + 256) for d in (17, 23)}
    behind = 2 * 256 * (256 * 256 + 256)  # input gradients, none into the first layer
    policy = 2 * 256 * (17 * 256 + 256 * 256 + 6 * 256)
    wanted = (
        forward[17]  # V at the next observation
        + (2 * forward[17] + behind)  # V
        + 2 * forward[23]  # slow critics
        + 2 * (2 * forward[23] + behind)  # critics
        + (2 * policy + 2 * 256 * (256 * 256 + 6 * 256))
    )
    product = 2 * 256**3
    found = share("iql", result(1, 1, wanted / product), result(1, 1, 1.0), "cpu")
    assert found["median"] == pytest.approx(1.0)
