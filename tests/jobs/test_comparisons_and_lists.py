"""Comparisons of tasks that share a name and of online agents; the list of runs."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, data, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import comparison
from tests.pointnav_data import make_pointnav, save_pointnav

OFFLINE, OFF_POLICY = "tests.toy_agent", "tests.jobs.off_policy_toy"
SMALL = "--seeds 2 --segments 2 --batch-size 8 --eval-episodes 2 --hidden 8"


@pytest.fixture(autouse=True)
def quietly(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.chdir(tmp_path)


def command(line):
    return cli.main(line.split())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two data sets of the same file name, and a comparison in an environment."""
    folder = tmp_path_factory.mktemp("compared")
    for name, more in (("mine", 0.0), ("theirs", 1.0)):
        (folder / name).mkdir()
        rows = make_pointnav()
        data.save(dataclasses.replace(rows, reward=rows.reward + more), folder / name / "replay.hdf5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare", lambda: None)
        patch.chdir(folder)
        files = "mine/replay.hdf5,theirs/replay.hdf5"
        assert (
            command(f"compare --agents {OFFLINE} --envs pointnav --datasets {files} --updates 20 {SMALL} --out table")
            == 0
        )
        line = f"compare --agents {OFF_POLICY} --envs pointnav --steps 32 --num-envs 4 --warmup 4 {SMALL} --out online"
        assert command(line) == 0
    return folder


def test_two_files_of_the_same_name_are_two_columns(compared):
    page = (compared / "table" / "comparison.md").read_text()
    assert "| agent | all | pointnav-mine-replay | pointnav-theirs-replay |" in page
    behaviour = next(line for line in page.splitlines() if line.startswith("| behaviour"))
    first, second = (float(cell) for cell in behaviour.strip("| ").split("|")[2:])
    assert second > first  # a reward more at every step, judged by each data set's own references
    config = jobs.SweepConfig()
    assert list(jobs.comparison.tasks_of(config, ["a/b"], ["x/one.hdf5", "x/two.hdf5", "x/one.hdf5"])) == [
        "a-b-one",
        "a-b-two",
    ]
    with pytest.raises(UserError, match=r"x/a/r\.hdf5 and y/a/r\.hdf5 would be one column"):
        jobs.comparison.tasks_of(config, ["e"], ["x/a/r.hdf5", "y/a/r.hdf5"])


def test_agents_of_the_same_last_name_have_a_folder_each():
    assert jobs.comparison._folders(["iql", "lab.mine", "other.mine", "here/own.py"]) == [
        "iql",
        "lab-mine",
        "other-mine",
        "own",
    ]


def test_online_agents_are_compared_in_environments(compared, capsys):
    page = (compared / "online" / "comparison.md").read_text()
    assert "| agent | pointnav |" in page
    assert "32 environment steps of 4 environments" in page
    assert "behaviour" not in page
    assert command(f"compare --agents {OFFLINE},{OFF_POLICY}") == 2
    error = capsys.readouterr().err
    assert "takes agents of one kind of run" in error
    assert command(f"compare --agents {OFF_POLICY} --updates 10") == 2
    assert "--updates belongs to training on a data set" in capsys.readouterr().err


def test_two_online_agents_get_the_same_steps(tmp_path):
    config = jobs.OnlineConfig(env="pointnav", steps=192, num_envs=4, unroll=8, segments=3)
    tasks = {"pointnav": {"env": "pointnav"}}
    planned = jobs.comparison._plan(config, ["ppo", OFF_POLICY], tasks, {}, {}, tmp_path)
    sizes = [(one.agent, one.steps, one.num_envs, one.unroll) for _, one in planned]
    assert sizes == [("ppo", 192, 4, 8), (OFF_POLICY, 192, 16, 1)]
    assert [path.name for path, _ in planned] == ["ppo", "off_policy_toy"]


def test_a_diverged_run_says_so_in_the_table_of_a_comparison():
    entries = [
        comparison.Entry("a", "t", np.array([1.0, np.nan, 3.0]), False, np.nan, 1.0, {}),
        comparison.Entry("b", "t", np.array([1.0, 2.0, 3.0]), False, np.nan, 1.0, {}),
    ]
    frame = comparison.table(entries)
    assert {row["agent"]: comparison.cell(row) for row in frame.to_dict("records")}["a"] == "1 diverged"


def test_runs_are_listed_best_first_with_their_scores(compared, capsys, tmp_path):
    found = jobs.runs(compared)
    assert set(found["agent"]) == {OFFLINE, OFF_POLICY}
    assert sorted(found["run"]) == [
        "online/pointnav/off_policy_toy",
        "table/pointnav-mine-replay/toy_agent",
        "table/pointnav-theirs-replay/toy_agent",
    ]
    assert found["kind"].value_counts().to_dict() == {"offline": 2, "online": 1}
    assert (found["low"] <= found["score"]).all()
    assert (found["score"] <= found["high"]).all()
    assert (found["state"].str.len() == 16).all()  # finished, to the minute
    same = found[found.agent == OFFLINE]["score"].tolist()
    assert same == sorted(same, reverse=True)
    assert command(f"runs {compared} --agent {OFF_POLICY}") == 0
    out = capsys.readouterr().out
    assert "online/pointnav/off_policy_toy" in out
    assert "mine-replay" not in out
    assert command(f"runs {compared} --agent toy") == 2
    assert command(f"runs {tmp_path}") == 2
    assert "holds no runs" in capsys.readouterr().err


def test_a_run_that_has_not_begun_or_cannot_be_read_is_listed_as_such(tmp_path):
    config = jobs.resolve(jobs.SweepConfig(agent=OFFLINE))
    jobs.files.create_run(tmp_path / "one", config, jobs.learners(OFFLINE, config))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "config.json").write_text("{")
    states = dict(jobs.runs(tmp_path)[["run", "state"]].to_numpy())
    assert states["one"] == "not begun to train"
    assert "damaged" in states["two"]


def test_rows_know_environment_data_set_spread_and_clock(tmp_path):
    path = save_pointnav(tmp_path / "d.hdf5")
    config = jobs.SweepConfig(env="pointnav", agent=OFFLINE, dataset=str(path), seeds=1, updates=4, segments=2)
    config = dataclasses.replace(config, batch_size=4, eval_episodes=3, hidden=(4,))
    outcome = jobs.sweep(config, directory=tmp_path / "run", lean=True)
    frame = pd.read_parquet(outcome.directory / "metrics.parquet")
    assert frame["environment"].unique().tolist() == ["pointnav"]
    assert frame["dataset"].unique().tolist() == [str(path)]
    assert (np.diff(frame["seconds"]) > 0).all()
    assert (frame["updates_per_second"] > 0).all()
    assert (frame["eval/return_std"] >= 0).all()


def test_a_diverged_run_says_so_where_tasks_are_put_to_it():
    from jaxrl_reg.evaluation import report

    rows = [
        {"agent": "fb", "setting": 0, "seed": s, "task": t, "score": 1.0 + s, "behaviour": 0.5, "diverged": s == 1}
        for s in range(3)
        for t in ("left", "right")
    ]
    (served,) = report.served(pd.DataFrame(rows))
    assert served.label == "fb (1 of 3 diverged)"
    (whole,) = report.served(pd.DataFrame(rows).assign(diverged=False))
    assert whole.label == "fb"
