"""The harness: verdicts, files, errors; and that SYSTEMS.md is what the committed results say."""

import dataclasses
import json
import types

import numpy as np
import pytest
from scipy import stats

from experiments import quoted, systems
from experiments.harness import Claim, command, finding, statistics
from jaxrl_reg.errors import UserError

CLAIM = Claim(
    statement="ours is better",
    paper="https://example.org",
    method="ours",
    baselines=("theirs",),
    ablation="ours without it",
    metric="score",
    systems=(3,),
    margin=0.5,
)
GOOD = {"ours": [3.0, 3.2, 2.9, 3.1], "theirs": [1.0, 1.1, 1.2, 0.9], "ours without it": [2.0, 2.1, 1.9, 2.0]}


def test_interval_is_the_paired_t_interval():
    x, y = np.random.default_rng(0).normal(size=(2, 7))
    mean, low, high = statistics.paired_difference(x, y)
    known = stats.ttest_rel(x, y).confidence_interval(0.95)
    np.testing.assert_allclose([mean, low, high], [np.mean(x - y), known.low, known.high])


def test_one_seed_proves_nothing():
    assert statistics.paired_difference([1.0], [0.0]) == (1.0, -np.inf, np.inf)


def test_a_claim_needs_every_rival_beaten_by_the_margin():
    assert all(d.holds for d in statistics.judge(CLAIM, GOOD))
    close = {**GOOD, "ours without it": [2.9, 3.3, 2.8, 3.0]}
    assert [d.holds for d in statistics.judge(CLAIM, close)] == [True, False]
    assert not statistics.judge(CLAIM, {**GOOD, "theirs": [np.nan] * 4})[0].holds


def test_lower_is_better_reverses_the_sign():
    claim = Claim(**{**CLAIM.__dict__, "higher_is_better": False})
    assert [d.holds for d in statistics.judge(claim, GOOD)] == [False, False]
    assert [d.holds for d in statistics.judge(claim, {name: [-v for v in vs] for name, vs in GOOD.items()})] == [
        True,
        True,
    ]


def test_a_claim_may_have_no_ablation_of_its_own():
    claim = dataclasses.replace(CLAIM, ablation=None)
    assert [d.rival for d in statistics.judge(claim, GOOD)] == ["theirs"]


def test_missing_arm_is_named():
    with pytest.raises(UserError, match="no values for theirs"):
        statistics.judge(CLAIM, {"ours": [1.0], "ours without it": [0.0]})


@pytest.mark.parametrize(("values", "code", "word"), [(GOOD, 0, "holds"), ({**GOOD, "ours": [1.0] * 4}, 1, "fails")])
def test_run_writes_json_and_figure_and_ends_with_the_verdict(tmp_path, monkeypatch, capsys, values, code, word):
    module = types.SimpleNamespace(CLAIM=CLAIM, run=lambda seeds, scale, say: say(f"at {scale}") or values)
    monkeypatch.setattr(finding, "load", lambda name: module)
    assert command.main(["run", "toy", "--seeds", "4", "--seed-offset", "10", "--out", str(tmp_path)]) == code
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith(f"toy: {word}  ours ")
    record = json.loads((tmp_path / "toy.json").read_text())
    assert record["seeds"] == [10, 11, 12, 13]
    assert record["values"] == values
    assert record["said"] == ["at small"]
    assert record["holds"] == (code == 0)
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    assert "toy" in systems.table(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "iqll"], "unknown experiment 'iqll'; did you mean 'iql'?"),
        (["run"], "name at least one experiment or give --all"),
        (["run", "iql", "--seeds", "1"], "--seeds 1: an interval needs at least 2 seeds"),
    ],
)
def test_bad_requests_are_one_line_and_exit_2(capsys, arguments, message):
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_closed_pipe_is_no_error(monkeypatch, close_pipe):
    errors = close_pipe()
    monkeypatch.setattr(finding, "names", lambda: ["iql"])
    assert command.main(["list"]) == 0
    assert errors.closed  # so that the interpreter's own complaint at exit is not seen either


def test_an_experiment_that_crashes_exits_2(tmp_path, monkeypatch, capsys):
    def crash(seeds, scale, say):
        raise RuntimeError("boom")

    monkeypatch.setattr(finding, "load", lambda name: types.SimpleNamespace(CLAIM=CLAIM, run=crash))
    assert command.main(["run", "toy", "--out", str(tmp_path)]) == 2
    assert "boom" in capsys.readouterr().err


def test_experiments_lie_in_families_beside_their_results():
    assert finding.load("iql").__name__ == "experiments.offline.iql"
    assert finding.results("iql") == finding.FOLDER / "offline" / "results"
    names = finding.names()
    assert len(names) == len(set(names))
    assert not {"_control", "systems", "arms"} & set(names)


def test_every_experiment_declares_its_claim():
    assert {"td3_bc", "iql", "rebrac", "cql", "edac"} <= set(finding.names())
    for name in finding.names():
        claim = finding.load(name).CLAIM
        assert claim.statement
        assert claim.baselines
        assert claim.paper.startswith("https://")
        assert claim.margin >= 0
        assert set(claim.systems) <= {number for number, *_ in systems.SYSTEMS}


def test_the_table_of_systems_lists_all_and_matches_the_committed_results():
    assert [number for number, *_ in systems.SYSTEMS] == list(range(1, 75))
    path = finding.FOLDER.parent / "SYSTEMS.md"
    assert path.read_text() == systems.table(finding.FOLDER), "run: python -m experiments table"


def test_the_readme_quotes_the_kept_runs():
    text = (finding.FOLDER.parent / "README.md").read_text()
    assert quoted.rewrite(text) == text, "run: python -m experiments quote"


def test_an_unfinished_run_cannot_be_quoted(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        quoted.keep(tmp_path)
