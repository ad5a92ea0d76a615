"""Run directories: one process each, data known by what they hold, going on to a larger budget, no environment."""

import dataclasses
import errno
import json
import pathlib
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, data, jobs, population
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.sinks import read_parquet
from tests.pointnav_data import make_pointnav, save_pointnav

TOY = "tests.toy_agent"


@pytest.fixture(autouse=True)
def quietly(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.chdir(tmp_path)


def command(line):
    return cli.main(line.split())


def config(path, **changes):
    sizes = {"seeds": 2, "updates": 20, "segments": 2, "batch_size": 8, "eval_episodes": 2, "hidden": (8,)}
    return jobs.SweepConfig(**{"env": "pointnav", "agent": TOY, "dataset": str(path), **sizes, **changes})


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A finished run of 20 updates, and its data."""
    folder = tmp_path_factory.mktemp("short")
    path = save_pointnav(folder / "data.hdf5")
    jobs.sweep(config(path), directory=folder / "run", lean=True)
    return folder


def rows(directory):
    frame = read_parquet(directory / "metrics.parquet").drop(columns=["seconds", "updates_per_second"])
    return frame.sort_values(["agent", "member", "update"]).reset_index(drop=True)


def test_of_two_processes_only_one_begins_a_run_in_a_directory(tmp_path):
    settings = jobs.resolve(jobs.SweepConfig(agent=TOY))
    ends, together = [], threading.Barrier(2)

    def begin():
        together.wait()
        try:
            jobs.files.create_run(tmp_path / "run", settings, jobs.learners(TOY, settings))
            ends.append("begun")
        except UserError as error:
            ends.append(str(error))

    both = [threading.Thread(target=begin) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(end[:5] for end in ends) == ["anoth", "begun"]


def test_default_directories_are_made_once_and_removed_where_nothing_began(tmp_path):
    settings = jobs.SweepConfig(agent="lab/mine.py")
    paths = [jobs.default_directory(settings, tmp_path / "runs") for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.is_dir() and path.parent.name == "runs" for path in paths)
    (paths[0] / "config.json").write_text("{}")
    for path in paths:
        jobs.release(path)
    assert [path.exists() for path in paths] == [True, False, False]


def test_a_run_goes_on_to_a_larger_budget_as_if_it_had_been_asked_for_at_once(short, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(short / "run", directory)
    assert command(f"resume {directory} --updates 40") == 0
    stored = jobs.load_config(directory)
    assert (stored.updates, stored.segments) == (40, 4)
    assert jobs.finished(directory)
    whole = jobs.sweep(config(short / "data.hdf5", updates=40, segments=4), directory=tmp_path / "whole")
    ours, at_once = (
        frame[frame.agent == TOY].reset_index(drop=True) for frame in map(rows, (directory, tmp_path / "whole"))
    )
    np.testing.assert_array_equal(ours["eval/return"], at_once["eval/return"])
    assert ours["update"].max() == 40
    # The cloning baseline, which the lean run left out, was trained to the same budget.
    assert rows(directory).groupby("agent")["update"].max().to_dict() == {"bc": 40, TOY: 40}
    assert whole.result.metrics["eval/return"].shape == (1, 2, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--updates 10", "less than the 20 of this run"),
        ("--updates 45", "nearest: --updates 50"),
        ("--steps 4000", "go on with --updates N"),
    ],
)
def test_a_budget_that_does_not_fit_is_one_line(short, options, message, capsys):
    assert command(f"resume {short / 'run'} {options}") == 2
    assert message in capsys.readouterr().err
    assert jobs.load_config(short / "run").updates == 20


def test_what_ends_with_training_does_not_go_on(short, tmp_path):
    path, scheduled = short / "data.hdf5", config(short / "data.hdf5", agent="decision_mamba")
    resolved = jobs.resolve(scheduled.settled())
    jobs.files.create_run(tmp_path / "run", resolved, jobs.learners("decision_mamba", resolved))
    with pytest.raises(
        UserError, match=r"ramp_steps of decision_mamba ends with training .* jaxrl-reg sweep .*--updates 40"
    ):
        jobs.resume(tmp_path / "run", updates=40)
    early = jobs.resolve(config(path, early_stop="halving").settled())
    jobs.files.create_run(tmp_path / "early", early, jobs.learners(TOY, early))
    with pytest.raises(UserError, match="stopped settings early"):
        jobs.resume(tmp_path / "early", updates=40)


def test_a_run_finds_its_data_from_any_directory(short, tmp_path, monkeypatch):
    path = save_pointnav(tmp_path / "here.hdf5")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(population.Interrupted):
        jobs.sweep(config("here.hdf5"), directory="run", on_tick=stopping)
    assert jobs.load_config("run").dataset == str(path)
    assert jobs.load_config("run").data_dir == str(tmp_path / "datasets")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("resume ../run") == 0
    path.unlink()
    (tmp_path / "run" / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=f"{path} does not exist"):
        jobs.resume(tmp_path / "run")


def stopping(tick):
    if tick.done == 10 and tick.stage == "bc":
        import signal

        signal.raise_signal(signal.SIGINT)


def test_a_run_refuses_other_data_under_the_same_name(short, tmp_path):
    path = save_pointnav(tmp_path / "data.hdf5")
    with pytest.raises(population.Interrupted):
        jobs.sweep(config(path), directory=tmp_path / "run", on_tick=stopping)
    known = json.loads((tmp_path / "run" / "summary.json").read_text())["dataset"]["fingerprint"]
    other = make_pointnav()
    other = dataclasses.replace(other, reward=other.reward + 1.0)
    path.unlink()
    data.save(other, path)
    with pytest.raises(UserError, match=f"holds other data than this run was begun with .*{known}"):
        jobs.resume(tmp_path / "run")
    save_pointnav(path.with_name("again.hdf5")).replace(path)
    jobs.resume(tmp_path / "run")


def test_collected_data_that_are_gone_are_not_collected_anew(tmp_path):
    settings = jobs.resolve(jobs.SweepConfig(env="pointnav", agent=TOY, data_dir=str(tmp_path / "data")).settled())
    jobs.files.create_run(tmp_path / "run", settings, jobs.learners(TOY, settings))
    gone = str(tmp_path / "data" / "pointnav" / "medium-replay.hdf5")
    (tmp_path / "run" / "summary.json").write_text(json.dumps({"dataset": {"file": gone}}))
    with pytest.raises(UserError, match=f"{gone}, the data of this run, is not there"):
        jobs.resume(tmp_path / "run")


def without_an_environment(short):
    path = short / "data.hdf5"
    line = f"sweep --env none --agent {TOY} --dataset {path} --seeds 2 --updates 20 --segments 2 --batch-size 8"
    return f"{line} --grid bc_coef=0.1,1 --out"


def test_a_disk_that_fills_up_at_a_checkpoint_or_at_the_report_costs_a_line_and_no_numbers(
    short, tmp_path, capsys, monkeypatch
):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_at_the_report(path, content, write=pathlib.Path.write_bytes):
        return full() if path.name == "report.html.part" else write(path, content)

    run, whole = tmp_path / "run", tmp_path / "whole"
    go_on = f"; make room, then go on with: jaxrl-reg resume {run}"
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.CheckpointManager.save", full)
        assert command(f"{without_an_environment(short)} {run}") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "could not write checkpoint 2 in" in said
    assert said.endswith(go_on)
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", full_at_the_report)
        assert command(f"resume {run}") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"jaxrl-reg: could not write {run / 'report.html'}: No space left on device{go_on}"
    assert not list(run.glob("*.part"))
    assert command(f"resume {run}") == 0
    assert (run / "report.html").is_file()
    assert command(f"{without_an_environment(short)} {whole}") == 0
    pd.testing.assert_frame_equal(rows(run), rows(whole), check_exact=True)


def test_a_file_is_enough_to_train_on(short, tmp_path, capsys):
    assert command(f"{without_an_environment(short)} {tmp_path / 'run'}") == 0
    frame = rows(tmp_path / "run")
    assert not [name for name in frame if name.startswith("eval/")]
    assert frame.groupby("setting").size().tolist() == [4, 4]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Nothing was rolled out" in page
    assert "after 20 updates" in page
    assert any((tmp_path / "run" / "checkpoints" / TOY).iterdir())
    assert "bc_coef" in capsys.readouterr().out
    assert command(f"evaluate {tmp_path / 'run'}") == 2
    assert "there is nothing to roll out" in capsys.readouterr().err
    assert command(f"resume {tmp_path / 'run'} --updates 30") == 0
    assert rows(tmp_path / "run")["update"].max() == 30
    assert command(f"report {tmp_path / 'run'}") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [("", "give --dataset FILE"), ("--dataset {} --early-stop halving", "--early-stop compares scores")],
)
def test_what_needs_an_environment_is_refused_without_one(short, tmp_path, options, message, capsys):
    options = options.format(short / "data.hdf5")
    assert command(f"sweep --env none --agent {TOY} {options} --out {tmp_path / 'run'}") == 2
    assert message in capsys.readouterr().err


def test_what_a_run_writes_is_json(tmp_path):
    jobs.files.write_json(tmp_path / "x.json", {"a": [float("nan"), 1.5], "b": {"c": float("-inf")}})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == {"a": [None, 1.5], "b": {"c": "-inf"}}
