import dataclasses
import json
import shutil
import signal
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import agents, jobs, population
from jaxrl_reg.agents import bc
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Agent
from tests.pointnav_data import make_pointnav, save_pointnav

UPDATES, SEGMENTS, FRACTIONS, SEEDS = 40, 4, (0.2, 1.0), 2


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = save_pointnav(tmp_path_factory.mktemp("data") / "pointnav.hdf5")
    return jobs.SweepConfig(
        env="pointnav",
        agent="percent_bc",
        dataset=str(path),
        grid={"fraction": FRACTIONS},
        seeds=SEEDS,
        seed_offset=5,
        updates=UPDATES,
        segments=SEGMENTS,
        batch_size=16,
        eval_episodes=4,
        hidden=(8, 8),
        normalise="off",
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A sweep from beginning to end, and what it said."""
    said, ticks = [], []
    directory = tmp_path_factory.mktemp("runs") / "whole"
    outcome = jobs.sweep(config, directory=directory, say=said.append, on_tick=ticks.append)
    return outcome, said, ticks


def metrics(directory):
    frame = pd.read_parquet(directory / "metrics.parquet")
    timed = ["seconds", "updates_per_second"]  # what no two runs have in common
    assert (frame.loc[frame["evaluation"] == 0, timed].dropna() > 0).all(axis=None)
    frame = frame.drop(columns=timed)
    return frame.sort_values(["agent", "member", "update", "evaluation"]).reset_index(drop=True)


def test_a_sweep_leaves_everything_in_its_directory(config, finished):
    outcome, said, ticks = finished
    names = {path.name for path in outcome.directory.iterdir()}
    expected = {
        "config.json",
        "summary.json",
        "metrics.parquet",
        "table.csv",
        "curves.png",
        "profile.png",
        "report.html",
        "episode.html",
    }
    assert names == expected | {"checkpoints"}
    whole = dataclasses.replace(jobs.resolve(config.settled()), grid={"fraction": list(FRACTIONS)})
    assert jobs.load_config(outcome.directory) == whole
    assert jobs.finished(outcome.directory)
    stored = json.loads((outcome.directory / "config.json").read_text())
    assert stored["agent_config"]["hidden"] == [8, 8]
    assert stored["hypers"]["fraction"] == pytest.approx(FRACTIONS)
    assert stored["environment"]["versions"]["jax"] == jax.__version__
    first = next(line for line in said if line.startswith("percent_bc"))
    assert "4 members = 2 settings of fraction x 2 seeds" in first
    assert "114 parameters each" in first  # 2 x 8 + 8, 8 x 8 + 8, 8 x 2 + 2
    assert [tick.done for tick in ticks if tick.stage == "percent_bc"] == [0, 10, 20, 30, 40]


def test_metrics_have_a_row_per_member_and_evaluation_with_normalised_scores(finished):
    outcome, _, _ = finished
    frame = metrics(outcome.directory)
    assert frame.groupby("agent").size().to_dict() == {"bc": SEEDS * SEGMENTS, "percent_bc": 2 * SEEDS * SEGMENTS}
    assert sorted(frame["seed"].unique()) == [5, 6]
    assert frame.loc[frame.agent == "bc", "fraction"].isna().all()
    np.testing.assert_allclose(frame["eval/score"], 100 * frame["eval/return"] / 20.0, rtol=1e-5)
    rows = frame[(frame.agent == "percent_bc") & (frame.setting == 1) & (frame.seed == 6)]
    assert rows["fraction"].tolist() == [1.0] * SEGMENTS
    assert rows["update"].tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(rows["eval/return"], outcome.result.metrics["eval/return"][1, 1].astype(float))
    assert outcome.table["agent"].tolist() == ["percent_bc", "percent_bc", "bc", "behaviour"]


def test_a_member_is_the_plain_run_of_its_seed_setting_and_data(config, finished):
    outcome, _, _ = finished
    member = jobs.learner("percent_bc", jobs.resolve(config))
    _, run = jobs.kinds.offline.make(jobs.resolve(config)).run(member, None)
    hyper = jax.tree.map(lambda leaf: leaf[0], member.hypers)
    _, history = jax.jit(run)(jax.random.key(6), hyper, make_pointnav())
    for name, values in history.items():
        np.testing.assert_allclose(outcome.result.metrics[name][0, 1], values, rtol=1e-4, atol=1e-5, err_msg=name)


def interrupting(stage, done):
    def on_tick(tick):
        if (tick.stage, tick.done) == (stage, done):
            signal.raise_signal(signal.SIGINT)

    return on_tick


def test_interrupted_twice_and_resumed_equals_uninterrupted(config, finished, tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(population.Interrupted):
        jobs.sweep(config, directory=directory, on_tick=interrupting("bc", 10))
    assert metrics(directory)["update"].max() < UPDATES
    assert not jobs.finished(directory)
    (directory / "metrics.parquet").unlink()  # as if killed between checkpoint and file: the checkpoint knows all
    with pytest.raises(population.Interrupted):
        jobs.resume(directory, on_tick=interrupting("percent_bc", 20))
    outcome = jobs.resume(directory)
    pd.testing.assert_frame_equal(metrics(directory), metrics(finished[0].directory), check_exact=True)
    for resumed, whole in zip(*map(jax.tree.leaves, (outcome.result.state, finished[0].result.state)), strict=True):
        np.testing.assert_array_equal(resumed, whole)
    assert jobs.finished(directory)


def test_evaluate_appends_fresh_episodes_of_the_last_checkpoint(finished, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished[0].directory, directory)
    before = metrics(directory)
    table = jobs.evaluate(directory, 4)
    after = metrics(directory)
    added = after[after["evaluation"] > 0]
    pd.testing.assert_frame_equal(after[after["evaluation"] == 0][before.columns].reset_index(drop=True), before)
    assert added["update"].unique().tolist() == [UPDATES]
    assert added.groupby(["agent", "evaluation"]).size().to_dict() == {("bc", 1): 2, ("percent_bc", 1): 4}
    # Same checkpoints and number of episodes, other episodes: the starts are drawn anew every time.
    assert before.loc[before["update"] == UPDATES, "eval/return"].nunique() > 1
    last = after[after["update"] == UPDATES].pivot(
        index=["agent", "member"], columns="evaluation", values="eval/return"
    )
    assert (last.nunique(axis=1) > 1).any()
    # Two seeds: their IQM is their mean, over the episodes of both evaluations.
    rows = after[(after.agent == "bc") & (after["update"] == UPDATES)]
    np.testing.assert_allclose(table.loc[table.agent == "bc", "last_iqm"].iloc[0], rows["eval/score"].mean(), rtol=1e-5)


def test_report_needs_neither_data_nor_checkpoints(finished, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished[0].directory, directory, ignore=shutil.ignore_patterns("checkpoints", "*.html", "*.csv"))
    table = jobs.report(directory)
    pd.testing.assert_frame_equal(table, finished[0].table)
    assert (directory / "report.html").is_file()
    with pytest.raises(UserError, match="no checkpoint of percent_bc; continue it with"):
        jobs.evaluate(directory)


def test_data_of_another_environment_are_refused_before_anything_is_written(config, tmp_path):
    with pytest.raises(UserError, match="has 2 observations and 2 actions, pendulum has 3 and 1"):
        jobs.sweep(dataclasses.replace(config, env="pendulum"), directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_train_takes_one_setting(config):
    with pytest.raises(UserError, match="takes one setting"):
        jobs.train(config)


def test_settings_reach_config_and_hyperparameters_with_their_kinds():
    config = jobs.resolve(
        jobs.SweepConfig(
            agent="iql",
            updates=300,
            segments=3,
            hidden=(8,),
            settings={"n_critics": "3", "tau": "0.1", "layer_norm": "every"},
            grid={"expectile": ["0.5", 0.9]},
        )
    )
    member = jobs.learner("iql", config)
    assert (member.config.hidden, member.config.n_critics, member.config.layer_norm) == ((8,), 3, "every")
    assert member.config.decay_steps == 300  # the schedule ends with the run
    ramp = jobs.learner("decision_mamba", jobs.resolve(jobs.SweepConfig(updates=300, segments=3))).config.ramp_steps
    assert ramp == 300
    np.testing.assert_allclose(member.hypers.tau, [0.1, 0.1])
    np.testing.assert_allclose(member.hypers.expectile, [0.5, 0.9])
    other = jobs.learner("bc", config, own=False)
    assert other.config.hidden == (8,)
    assert other.hypers.learning_rate.shape == (1,)


def test_the_summary_leaves_out_episodes_that_were_cut(config):
    from jaxrl_reg import data

    n = 50  # an episode of 30 steps up to its time-out, then 20 rows cut where the recording ended
    zeros, ones = np.zeros((n, 2)), np.ones(n)
    truncated = np.arange(n) == 29
    rows = data.from_arrays(
        zeros, zeros, ones, ones * 0, truncated, zeros, name="x", score_random=0.0, score_expert=60.0
    )
    about = jobs.summarise(rows, config, None, limit=30)
    assert about["returns"] == [30.0]
    assert (about["episodes"], about["cut_episodes"], about["normalised"]) == (2, 1, True)
    elsewhere = jobs.summarise(rows, config, None, limit=99)
    assert elsewhere["returns"] == [30.0]
    assert "time out after at most 30 steps, where the environment allows 99" in elsewhere["notes"][0]


def test_d4rls_scores_hold_in_its_own_tasks_only(config, tmp_path):
    """Hopper data in D4RL's layout and under its name: 11 observations, 3 actions, references of its MuJoCo task."""
    import h5py

    from jaxrl_reg import data

    rng, path = np.random.default_rng(0), tmp_path / "hopper_medium-v2.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(30, 11)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (30, 3)).astype(np.float32)
        file["rewards"] = np.full(30, 100.0, np.float32)
        file["terminals"], file["timeouts"] = np.arange(30) == 9, np.arange(30) == 29
    rows = data.load(path)

    def about(env):
        return jobs.summarise(rows, dataclasses.replace(config, env=env, dataset=str(path)), None, limit=1000)

    assert about("mjx/hopper-v4")["normalised"]
    assert jobs.collection.data_line(about("mjx/hopper-v4")).endswith("normalised score 46.7")  # of 1000 and 2000
    for env in ("brax/hopper", "mjx/hopper-v5", "mjx/halfcheetah-v4"):
        assert not about(env)["normalised"]
        assert "D4RL's for hopper, which hold in mjx/hopper-v4, so returns stay" in jobs.collection.data_line(
            about(env)
        )
    for kind in ("copy.hdf5", "hopper-medium-v2.hdf5"):  # saved again, under whatever name, they are the same scores
        data.save(rows, tmp_path / kind)
        again = data.load(tmp_path / kind)
        assert float(again.score_expert) == float(rows.score_expert)
        assert not jobs.summarise(again, config, None, limit=1000)["normalised"]


class Steady(NamedTuple):
    """A cheap stand-in for soft actor-critic: it heads for the goal and has nothing to learn."""

    actor: jax.Array


def steady_module():
    def init(key, hyper):
        return Steady(jnp.zeros(2))

    def update(state, batch, hyper, key, step):
        return state, {}

    def act(state, observation, hyper, key, explore):
        return jnp.clip(0.9 - observation, -0.4, 0.4) + state.actor

    return types.SimpleNamespace(
        KIND="off_policy",
        Config=bc.Config,
        Hyper=bc.Hyper,
        make=lambda config, spec: Agent(init, update, act, kind="off_policy"),
    )


def test_collect_makes_the_five_data_sets_once(tmp_path, monkeypatch):
    from jaxrl_reg import data

    monkeypatch.setattr(agents, "load", lambda name: {"sac": steady_module()}[name])
    config = jobs.SweepConfig(
        env="pointnav", dataset="expert", data_dir=str(tmp_path), collect_steps=9600, hidden=(8, 8), seed_offset=0
    )
    said, ticks = [], []
    path = jobs.collect(config, say=said.append, on_tick=ticks.append)
    assert path == tmp_path / "pointnav" / "expert.hdf5"
    assert {item.name for item in path.parent.iterdir()} == {f"{name}.hdf5" for name in jobs.COLLECTED}
    rows = data.load(path)
    assert rows.size == 4800
    assert float(rows.score_expert) > float(rows.score_random)
    assert data.metadata(path)["env"] == "pointnav"
    assert (ticks[-1].done, ticks[-1].total, ticks[-1].unit) == (9600, 9600, "steps")
    said.clear()
    assert jobs.collect(config, say=said.append) == path  # there already
    assert said == []


def test_settings_of_the_agent_split_into_programs_and_numbers_run_through():
    config = jobs.resolve(
        jobs.SweepConfig(
            agent="rebrac",
            grid={"hidden": ("8x8", "16"), "actor_bc_coef": (0.1, 1)},
            sample={"n_critics": "2,4", "tau": "log:0.001:0.1"},
            draws=3,
            design="sobol",
        )
    )
    groups = jobs.learners("rebrac", config)
    assert {(group.config.hidden, group.config.n_critics) for group in groups} <= {
        (widths, n) for widths in ((8, 8), (16,)) for n in (2, 4)
    }
    counts = [population.setting_count(group.hypers) for group in groups]
    assert sum(counts) == 2 * 2 * 3
    assert [group.first for group in groups] == np.cumsum([0, *counts[:-1]]).tolist()
    assert len({group.folder for group in groups}) == len(groups) > 1
    one = groups[0]
    assert one.label == f"rebrac hidden=8x8 n_critics={one.config.n_critics}"
    assert list(one.swept) == ["hidden", "actor_bc_coef", "n_critics", "tau"]
    assert set(one.swept["hidden"]) == {"8x8"}
    np.testing.assert_array_equal(one.swept["tau"], one.hypers.tau)
    with pytest.raises(UserError, match=f"need {len(groups)} programs"):
        jobs.learner("rebrac", config)


def test_a_sweep_over_widths_plans_trains_resumes_and_reports_every_group(config, tmp_path):
    wide = dataclasses.replace(config, grid={"hidden": ("8x8", "4"), "fraction": FRACTIONS}, updates=8, segments=2)
    said, directory = [], tmp_path / "run"

    def stop(tick):
        if (tick.stage, tick.done) == ("percent_bc hidden=4", 4):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(population.Interrupted):
        jobs.sweep(wide, directory=directory, say=said.append, on_tick=stop)
    plan = next(i for i, line in enumerate(said) if line.startswith("2 programs one after the other, 6 compilations"))
    assert plan < next(i for i, line in enumerate(said) if "traced in" in line)
    assert said[plan + 1].startswith("  percent_bc hidden=8x8: 4 members on ")
    outcome = jobs.resume(directory)
    assert [result.metrics["eval/return"].shape for result in outcome.results] == [(2, 2, 2)] * 2
    frame = metrics(directory)
    frame = frame[frame.agent == "percent_bc"]
    assert sorted(frame["member"].unique()) == list(range(8))
    assert frame.groupby("setting")["hidden"].unique().map(list).tolist() == [["8x8"], ["8x8"], ["4"], ["4"]]
    assert set(outcome.table["hidden"].dropna()) == {"8x8", "4"}
    page = (directory / "report.html").read_text()
    assert 'data-value="8x8"' in page
    assert jobs.evaluate(directory, 2)["hidden"].notna().sum() == 4


def test_a_sweep_that_stops_settings_early_resumes_reports_and_is_evaluated_where_each_stopped(config, tmp_path):
    short = {"grid": {}, "sample": {"fraction": "lin:0.1:1"}, "draws": 4, "early_stop": "halving"}
    config = dataclasses.replace(config, updates=8, **short)
    said, directory = [], tmp_path / "run"
    with pytest.raises(population.Interrupted):
        jobs.sweep(config, directory=directory, on_tick=interrupting("percent_bc", (2 + 2 + 4 + 4) // 4))
    outcome = jobs.resume(directory, say=said.append)
    done = outcome.result.segments_trained
    assert sorted(done.tolist()) == [1, 1, 3, 4]
    assert "percent_bc: 3 of 4 settings stopped early; 56% of the updates of the whole sweep" in said
    frame = metrics(directory)
    frame = frame[frame.agent == "percent_bc"]
    assert frame.groupby("setting")["update"].max().tolist() == (2 * done).tolist()
    assert len(frame) == done.sum() * SEEDS
    table = outcome.table[outcome.table.agent == "percent_bc"]
    assert table["last_update"].tolist()[0] == 8  # what was stopped stands below what was not
    assert "stopped at 2" in (directory / "report.html").read_text()
    jobs.evaluate(directory, 2)
    again = metrics(directory)
    again = again[(again.agent == "percent_bc") & (again.evaluation == 1)]
    assert again.groupby("setting")["update"].unique().map(list).tolist() == [[2 * n] for n in done]


def test_ticks_say_how_every_member_stands(finished):
    outcome, _, ticks = finished
    last = [tick for tick in ticks if tick.stage == "percent_bc"][-1].members
    assert len(last) == 4
    scores = [one.score for one in last]
    assert scores == sorted(scores, reverse=True)
    frame = metrics(outcome.directory)
    frame = frame[(frame.agent == "percent_bc") & (frame["update"] == UPDATES)].set_index(["fraction", "seed"])
    for one in last:
        fraction = float(np.float32(one.label.removeprefix("fraction=")))
        assert one.score == frame.loc[(fraction, one.seed), "eval/score"]
        assert (one.updates, one.state) == (UPDATES, "")
