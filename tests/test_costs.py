"""Which tests are left to ``make test-all``."""

import pathlib

from tests import costs

ROOT = pathlib.Path(__file__).parents[1]


def test_the_dearest_go_until_the_others_fit_and_what_is_kept_stays():
    known = {"a": 5.0, "b": 3.0, "c": 2.0, "d": 2.0, costs.KEPT[0] + "::test": 9.0}
    assert costs.too_long(known, budget=21.0) == []
    assert costs.too_long(known, budget=14.0) == ["a", "b"]
    assert costs.too_long(known, budget=0.0) == ["a", "b", "c", "d"]


def test_every_listed_test_is_there_and_none_is_kept_too():
    for test in costs.listed():
        path, name = test.split("::")
        assert f"def {name.split('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), test
        assert not test.startswith(costs.KEPT)


def test_what_is_kept_is_there():
    for kept in costs.KEPT:
        path, _, name = kept.partition("::")
        assert (files := list(ROOT.glob(f"{path}*"))), kept
        assert not name or f"def {name}(" in files[0].read_text(encoding="utf-8"), kept


def test_costs_of_all_processes_are_read(tmp_path):
    (tmp_path / "1.txt").write_text("1.50 tests/a.py::one[x y]\n")
    (tmp_path / "2.txt").write_text("0.25 tests/a.py::two\n")
    assert costs.measured(tmp_path) == {"tests/a.py::one[x y]": 1.5, "tests/a.py::two": 0.25}
