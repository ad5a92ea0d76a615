"""Sweeps that are judged in Gymnasium's environments, from config to report."""

import json
import runpy

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs import learnt_rewards

from ..envs import host_worlds

GOALS = "gymnasium/jaxrl_reg_test/Goals-v0"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Walks in the square, as OGBench writes them."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "walks.npz"
    actions = rng.uniform(-1, 1, (90, 2)).astype("f4")
    places = np.cumsum(0.5 * actions, axis=0).astype("f4")
    np.savez(path, observations=places, actions=actions, terminals=np.arange(90) % 9 == 8)
    return path


def config(file, **more):
    asked = {"env": GOALS, "agent": "gc_iql", "dataset": str(file), "seeds": 2, "updates": 4, "segments": 2}
    return jobs.SweepConfig(**{**asked, "eval_episodes": 2, "batch_size": 8, "hidden": (8,), **more})


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    said, path = [], tmp_path_factory.mktemp("runs") / "run"
    outcome = jobs.sweep(config(file), directory=path, say=said.append)
    return path, outcome, said


def test_an_agent_that_takes_goals_is_judged_by_its_success_at_every_task(run):
    path, outcome, said = run
    assert any("by the fraction that succeeds of 2 episodes of each of task1, task2" in line for line in said)
    rows = pd.read_parquet(path / "metrics.parquet")
    assert set(rows["agent"]) == {"gc_iql", "bc"}
    assert len(rows) == 2 * 2 * 2
    means = rows[["eval/task1", "eval/task2"]].mean(axis=1)
    np.testing.assert_allclose(rows["eval/success"], means)
    assert rows["eval/length"].between(1, 8).all()
    score = json.loads((path / "summary.json").read_text(encoding="utf-8"))["score"]
    assert (score["metric"], score["name"]) == ("eval/success", "success rate")
    assert set(outcome.table["agent"]) == {"gc_iql", "bc"}, "returns of the data stand beside success rates"
    assert "success rate" in (path / "report.html").read_text(encoding="utf-8")


def test_more_episodes_of_a_finished_run_are_had_on_the_host(run):
    path = run[0]
    before = len(pd.read_parquet(path / "metrics.parquet"))
    jobs.evaluate(path, episodes=3)
    rows = pd.read_parquet(path / "metrics.parquet")
    assert len(rows) == before + 4
    assert set(rows.loc[rows["evaluation"] == 1, "episodes"]) == {3}


def test_a_policy_that_takes_goals_leaves_a_run_whose_tasks_are_the_environments_own(run, tmp_path, monkeypatch):
    path, to = run[0], tmp_path / "policy"
    with pytest.raises(UserError, match=r"no inferred tasks; give a goal, which is an observation$"):
        jobs.load_policy(path)
    with pytest.raises(UserError, match="has tasks of its own; more episodes of them: jaxrl-reg evaluate"):
        jobs.zeroshot(path)
    monkeypatch.setattr(cli, "prepare", lambda: None)
    assert cli.main(["export", str(path), "--to", str(to), "--goal", "-1,2"]) == 0
    assert json.loads((to / "policy.json").read_text(encoding="utf-8"))["goal"] == [-1.0, 2.0]
    seen = np.array([[0.5, -0.5]], np.float32)
    wanted = jobs.load_policy(path, goal=[-1, 2])(seen)
    np.testing.assert_allclose(runpy.run_path(str(to / "act.py"))["act"](seen)[0], wanted, rtol=1e-5)
    assert np.abs(jobs.load_policy(path, goal=[2, -1])(seen) - wanted).max() > 1e-4


def test_a_policy_acts_in_the_bounds_of_the_environment_whatever_those_of_the_data(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "line.npz"
    walked = {"observations": rng.normal(size=(20, 2)), "actions": rng.uniform(-9, 9, (20, 1))}
    np.savez(path, **walked, terminals=np.arange(20) % 5 == 4)
    asked = config(path, env="gymnasium/jaxrl_reg_test/Line-v0", agent="bc", action_low=(-9.0,), action_high=(9.0,))
    assert jobs.kinds.of(asked).make(jobs.resolve(asked)).facts()["actions"] == {"low": [-0.5], "high": [1.5]}


@pytest.mark.parametrize("env", [GOALS, "none"])
def test_a_reward_learnt_from_pairs_is_what_is_trained_on(env, file, tmp_path, monkeypatch):
    """Of data that have no rewards of their own."""
    monkeypatch.setattr(learnt_rewards, "UPDATES", 20)
    columns = {name: [0, 1, 2, 3] for name in ("first_episode", "first_step")}
    columns |= {"second_episode": [4, 5, 6, 7], "second_step": [1, 0, 3, 2], "preference": [1.0, 0.0, 1.0, 0.5]}
    pd.DataFrame(columns).to_parquet(tmp_path / "pairs.parquet")
    asked = config(file, env=env, agent="iql", reward_from_pairs=str(tmp_path / "pairs.parquet"), pair_steps=3)
    job = jobs.kinds.of(asked).make(jobs.resolve(asked))
    assert any(line.startswith("rewards learnt from 4 pairs") for line in job.lines)
    assert np.std(job.data.reward) > 0.1


def test_what_cannot_be_trained_for_such_a_world_is_one_line(file):
    with pytest.raises(UserError, match="medium is not collected: give data of yours"):
        jobs.sweep(config("medium"), directory="nowhere")
    with pytest.raises(UserError, match="not the same environment"):
        jobs.sweep(config(file, env="gymnasium/Pendulum-v1"), directory="nowhere")
    assert host_worlds.Goals.task_infos
