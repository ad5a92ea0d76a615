"""The harness: verdicts, files, errors; and that SYSTEMS.md is what the committed results say."""

import dataclasses
import json
import types

import numpy as np
import pytest
from scipy import stats

from experiments import arms, quoted, systems
from experiments.harness import Claim, command, finding, history, statistics
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


def toy(values, **claim):
    """A module whose seeds all have the values of GOOD, or others, in turn."""

    def run(seeds, scale, say):
        say(f"at {scale}")
        return {arm: [points[seed % len(points)] for seed in seeds] for arm, points in values.items()}

    return types.SimpleNamespace(CLAIM=dataclasses.replace(CLAIM, **claim), run=run)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a module in the place of every experiment, with its results in ``tmp_path``."""
    monkeypatch.setattr(finding, "results", lambda name: tmp_path)
    monkeypatch.setattr(finding, "family", lambda name: "offline")
    return lambda module: monkeypatch.setattr(finding, "load", lambda name: module)


def stored(tmp_path):
    return json.loads((tmp_path / "toy.json").read_text())


@pytest.mark.parametrize(("values", "code", "word"), [(GOOD, 0, "holds"), ({**GOOD, "ours": [1.0] * 4}, 1, "fails")])
def test_run_writes_json_and_figure_and_ends_with_the_verdict(tmp_path, install, capsys, values, code, word):
    install(toy(values, seeds=4))
    assert command.main(["run", "toy", "--seed-offset", "12"]) == code
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith(f"toy: {word}  ours ")
    record = stored(tmp_path)["record"]
    assert record["seeds"] == [12, 13, 14, 15]
    assert record["values"] == values
    assert record["said"] == ["at small"]
    assert record["holds"] == (code == 0)
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    assert "toy" in systems.table(tmp_path, tmp_path)


def test_a_run_on_seeds_that_were_looked_at_is_kept_and_is_no_record(tmp_path, install, capsys):
    install(toy(GOOD))
    command.main(["run", "toy", "--seeds", "8"])  # seeds below 10 are for choosing settings
    assert "seeds 0 to 7 have been used before: this run joins the history" in capsys.readouterr().out
    assert stored(tmp_path)["record"] is None
    command.main(["run", "toy", "--seeds", "4", "--seed-offset", "20"])
    first = stored(tmp_path)["record"]
    command.main(["run", "toy", "--seeds", "4", "--seed-offset", "22"])
    assert "seeds 22, 23 have been used before" in capsys.readouterr().out
    command.main(["run", "toy", "--seeds", "4", "--seed-offset", "40"])  # nobody looked, but one record is enough
    assert "a record exists" in capsys.readouterr().out
    kept = stored(tmp_path)
    assert kept["record"] == first
    assert [run["seeds"][0] for run in kept["history"]] == [0, 22, 40]
    assert kept["power"]["seen"] == 8 + 4 + 2 + 4


def test_a_new_record_is_on_seeds_never_used_and_keeps_the_old_one(tmp_path, install, capsys):
    install(toy(GOOD, seeds=4))
    assert command.main(["record", "toy"]) == 0
    first = stored(tmp_path)["record"]
    assert first["seeds"] == [3000, 3001, 3002, 3003]
    command.main(["run", "toy", "--seed-offset", "3150"])
    assert command.main(["record", "toy", "--before", "2020"]) == 0  # the record is younger
    assert stored(tmp_path)["record"] == first
    assert command.main(["record", "toy", "--before", "9999"]) == 0
    kept = stored(tmp_path)
    assert kept["record"]["seeds"] == [3200, 3201, 3202, 3203]
    assert first in kept["history"]
    assert "2 of 2 held" in systems.table(tmp_path, tmp_path)


def test_values_of_other_settings_are_kept_but_say_nothing_about_power(tmp_path, install):
    install(toy(GOOD, seeds=4))
    command.main(["record", "toy"])
    install(toy({**GOOD, "ours": [2.6, 3.4, 2.2, 3.8]}, seeds=4, revision=2))
    command.main(["run", "toy", "--seed-offset", "2100"])
    kept = stored(tmp_path)
    assert kept["record"]["claim"]["revision"] == 2
    assert kept["power"]["seen"] == 4
    assert kept["history"][0]["values"] == GOOD
    assert "1 of 1 held with other settings" in systems.table(tmp_path, tmp_path)


def test_the_power_of_a_claim_is_printed_with_the_seeds_that_it_needs(tmp_path, install, capsys):
    install(toy(GOOD, seeds=4))
    assert command.main(["power", "toy"]) == 2
    assert "first: python -m experiments run toy --seeds 10" in capsys.readouterr().err
    command.main(["run", "toy"])
    assert "power 1.000 with 4 seeds" in capsys.readouterr().out
    assert command.main(["power", "toy"]) == 0
    out = capsys.readouterr().out
    assert "<- the claim's margin" in out
    assert "0.95 needs 3 seeds" in out
    install(toy(GOOD, seeds=2))
    assert command.main(["power", "toy"]) == 1


def test_a_system_holds_only_if_all_of_its_experiments_do(tmp_path, install):
    for name, values in {"one": GOOD, "two": {**GOOD, "ours": [1.0] * 4}}.items():
        install(toy(values, seeds=4))
        command.main(["record", name])
    text = systems.table(tmp_path, tmp_path)
    line = next(line for line in text.splitlines() if line.startswith("| 3 |"))
    assert "**fails**: 1 of 2 experiments hold<br>one holds" in line
    assert "two **fails**" in line
    assert '<img src="one.png"' in line


def test_the_table_says_why_a_record_is_missing(tmp_path, install, monkeypatch):
    monkeypatch.setattr(finding, "names", lambda: ["toy"])
    install(toy(GOOD, note="needs a night"))
    nothing = {"name": "toy", "record": None, "power": None, "history": []}
    assert systems.verdict(nothing) == "no record yet (needs a night)"
    command.main(["record", "toy"])
    install(toy(GOOD, note="needs a night", revision=2))
    assert systems.verdict(stored(tmp_path)) == "held with other settings; to be recorded anew (needs a night)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "iqll"], "unknown experiment 'iqll'; did you mean 'iql'?"),
        (["run"], "name at least one experiment or give --all"),
        (["run", "iql", "--seeds", "1"], "--seeds 1: an interval needs at least 2 seeds"),
        (["run", "iql", "--scale", "hour"], "iql has no scale hour; it has small and full"),
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


def test_an_experiment_that_crashes_exits_2(install, capsys):
    def crash(seeds, scale, say):
        raise RuntimeError("boom")

    install(types.SimpleNamespace(CLAIM=CLAIM, run=crash))
    assert command.main(["run", "toy"]) == 2
    assert "boom" in capsys.readouterr().err


def test_experiments_lie_in_families_beside_their_results():
    assert finding.load("iql").__name__ == "experiments.offline.iql"
    assert finding.results("iql") == finding.FOLDER / "offline" / "results"
    names = finding.names()
    assert len(names) == len(set(names))
    assert not {"_control", "systems", "arms"} & set(names)


def test_the_power_that_is_stored_is_that_of_the_stored_values():
    for path, kept in systems.read(finding.FOLDER):
        if not path.is_file():
            continue
        claim, file = finding.load(path.stem).CLAIM, history.read(path)
        seen = history.known_power(claim, file.runs, "small" if file.record is None else file.record["scale"])
        if seen is None:  # settings have changed since the record, and the table says so
            assert kept["power"] is None
            assert "to be recorded anew" in systems.verdict(kept)
            continue
        again = f"run: python -m experiments power {path.stem}"
        assert (kept["power"]["n"], kept["power"]["seen"]) == (claim.seeds, seen.seen), again
        assert kept["power"]["at_least"] == pytest.approx(seen.at_least, abs=1e-6), again
        if file.record is not None and file.record["holds"]:
            assert seen.at_least >= 0.95, f"{path.stem}: see python -m experiments power {path.stem}"


def test_every_experiment_declares_its_claim():
    assert {"td3_bc", "iql", "rebrac", "cql", "edac"} <= set(finding.names())
    for name in finding.names():
        claim = finding.load(name).CLAIM
        assert claim.statement
        assert claim.baselines
        assert claim.paper.startswith("https://")
        assert claim.margin >= 0
        assert claim.chosen, f"{name}: how was the number of seeds chosen?"
        assert set(claim.systems) <= {number for number, *_ in systems.SYSTEMS}


def test_the_table_of_systems_lists_all_and_matches_the_committed_results():
    assert [number for number, *_ in systems.SYSTEMS] == list(range(1, 75))
    path = finding.FOLDER.parent / "SYSTEMS.md"
    assert path.read_text() == systems.table(finding.FOLDER, finding.FOLDER.parent), "run: python -m experiments table"


def test_what_is_quoted_is_what_is_there():
    readme = quoted.README.read_text(encoding="utf-8")
    assert quoted.rewrite(readme) == readme, "run: python -m experiments quote"
    assert quoted.RESULTS.read_text(encoding="utf-8") == quoted.results(), "run: python -m experiments quote"


def test_an_unfinished_run_cannot_be_quoted(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        quoted.keep(tmp_path)


def test_training_that_is_kept_goes_on_from_its_folder(tmp_path, monkeypatch):
    """The first time nothing is there to go on from; what a sweep is told decides whether hours are lost."""
    told = []

    def sweep(run, **options):
        told.append((options["directory"], options["resume"]))
        if options["directory"] is not None:
            options["directory"].mkdir(parents=True, exist_ok=True)
        return types.SimpleNamespace(metrics={}, plan=types.SimpleNamespace(compile_seconds=0.0))

    monkeypatch.setattr(arms.population, "sweep", sweep)
    group = arms.Population("bc", ["BC"], None, None)
    for keep in (None, tmp_path / "0", tmp_path / "0"):
        group.sweep(None, [0, 1], None, str, keep)
    assert told == [(None, False), (tmp_path / "0", False), (tmp_path / "0", True)]
    assert finding.kept("breeze_walker", "hour", range(3000, 3005)).name == "hour-5-from-3000"
