"""All agents in one table: what is run, what is skipped, and that the numbers are those of the runs."""

import dataclasses
import json
import types

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import agents, cli, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import comparison
from tests.pointnav_data import save_pointnav

SEEDS, UPDATES = 3, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return str(save_pointnav(tmp_path_factory.mktemp("data") / "noisy.hdf5"))


@pytest.fixture(scope="module")
def config():
    sizes = {"batch_size": 8, "eval_episodes": 2, "hidden": (8, 8)}
    return jobs.SweepConfig(seeds=SEEDS, updates=UPDATES, segments=2, settings={"alpha": 1.0}, **sizes)


@pytest.fixture(scope="module")
def options(dataset, folder):
    return {"envs": ("pointnav",), "datasets": (dataset,), "directory": folder}


@pytest.fixture(scope="module")
def compared(config, options):
    said = []
    return jobs.compare(config, agents=("bc", "td3_bc"), say=said.append, **options), said


def test_the_table_is_that_of_the_runs(compared, folder):
    table, said = compared
    assert [line for line in said if " of 2:" in line] == [
        "1 of 2: bc on pointnav-noisy",
        "2 of 2: td3_bc on pointnav-noisy",
    ]
    assert set(table["agent"]) == {"bc", "td3_bc", "behaviour"}
    assert table["agent"].tolist()[-1] == "behaviour"
    for name in ("bc", "td3_bc"):
        frame = pd.read_parquet(folder / "pointnav-noisy" / name / "metrics.parquet")
        assert set(frame["agent"]) == {name}  # no baseline beside it
        last = frame[frame["update"] == UPDATES]["eval/score"]
        row = table[table["agent"] == name].iloc[0]
        np.testing.assert_allclose(row["score"], last.mean(), rtol=1e-5)  # of three scores none is trimmed
        assert row["low"] <= row["score"] <= row["high"]
        assert row["seeds"] == SEEDS
    scores = table[table["agent"] != "behaviour"]["score"].tolist()
    assert scores == sorted(scores, reverse=True)
    page = (folder / "comparison.md").read_text()
    assert f"| bc | {table[table['agent'] == 'bc']['score'].iloc[0]:.1f} [" in page
    assert "3 seeds from 0, 20 updates of batch 8, hidden layers 8x8" in page
    assert (folder / "comparison.png").stat().st_size > 1000


def test_what_the_scale_fixes_is_given_and_named_on_the_page(compared, folder):
    # A setting that is asked for comes with those of the scale; the page says where the latter come from.
    preset = jobs.COMPARISONS["small"]
    fixed = json.loads((folder / "pointnav-noisy" / "td3_bc" / "config.json").read_text())["config"]["settings"]
    assert fixed["tau"] == preset["settings"]["tau"]
    assert fixed["critic_learning_rate"] == preset["settings"]["critic_learning_rate"]
    page = (folder / "comparison.md").read_text()
    assert f"alpha=1.0, critic_learning_rate={preset['settings']['critic_learning_rate']}, tau=" in page
    assert preset["note"] in page


def test_a_setting_goes_to_the_agents_that_have_it(compared, folder):
    stored = {n: json.loads((folder / "pointnav-noisy" / n / "config.json").read_text()) for n in ("bc", "td3_bc")}
    assert stored["td3_bc"]["hypers"]["alpha"] == [1.0]
    assert stored["bc"]["config"]["settings"] == {}


def test_again_nothing_is_trained_and_what_was_stopped_is_resumed(compared, config, options, folder, monkeypatch):
    calls, sweep = [], jobs.sweep

    def counted(one, **how):
        calls.append((one.agent, how["resume"], how["lean"]))
        return sweep(one, **how)

    monkeypatch.setattr(jobs.comparison, "sweep", counted)
    again = jobs.compare(config, agents=("bc", "td3_bc"), **options)
    assert calls == []
    pd.testing.assert_frame_equal(again, compared[0])
    summary = folder / "pointnav-noisy" / "bc" / "summary.json"
    facts = json.loads(summary.read_text())
    del facts["finished"]
    summary.write_text(json.dumps(facts))
    resumed = jobs.compare(config, agents=("bc", "td3_bc"), **options)
    assert calls == [("bc", True, True)]
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), compared[0].drop(columns="seconds"))


def test_another_budget_in_the_same_directory_is_refused(compared, config, options):
    other = dataclasses.replace(config, updates=2 * UPDATES)
    with pytest.raises(UserError, match=r"td3_bc holds a run with other numbers; choose another directory with --out"):
        jobs.compare(other, agents=("td3_bc",), **options)


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        ({"grid": {"alpha": (1.0, 2.0)}}, ("td3_bc",), "compare takes no grid"),
        ({}, ("bc",), "no agent of the comparison has alpha"),
        ({}, ("td3bc",), "unknown agent 'td3bc'; did you mean 'td3_bc'?"),
        ({}, ("td3_bc", "ppo"), "'ppo' learns from its own fresh experience"),
        ({"scale": "huge"}, ("td3_bc",), "unknown scale 'huge'"),
    ],
)
def test_refusals_before_anything_runs(changes, names, message, config, dataset, tmp_path):
    with pytest.raises(UserError) as raised:
        jobs.compare(
            dataclasses.replace(config, **changes),
            agents=names,
            envs=("pointnav",),
            datasets=(dataset,),
            directory=tmp_path,
        )
    assert message in str(raised.value)
    assert not any(tmp_path.iterdir())


def test_every_offline_agent_that_sees_rewards_is_found(monkeypatch):
    found = jobs.compared_agents()
    assert {"a2pr", "bc", "iql", "prdc", "rebrac", "td3_bc"} <= set(found)
    assert not {"sac", "td3", "ppo"} & set(found)

    def module(kind, zero_shot):
        return types.SimpleNamespace(
            KIND=kind, Config=dict, make=lambda config, spec: types.SimpleNamespace(zero_shot=zero_shot)
        )

    fakes = {"a": module("offline", None), "b": module("offline", "serves tasks"), "c": module("off_policy", None)}
    monkeypatch.setattr(agents, "names", lambda: list(fakes))
    monkeypatch.setattr(agents, "load", fakes.__getitem__)
    assert jobs.compared_agents() == ["a"]


def test_an_actor_with_blocks_of_one_width_is_as_wide_as_the_others():
    """Compared with 64-wide networks, IDQL's own 256 would take longer than all the others together."""
    config = jobs.SweepConfig(hidden=(32, 64))
    assert jobs.learner("idql", config).config.actor_hidden == 64
    assert jobs.learner("idql", dataclasses.replace(config, settings={"actor_hidden": 8})).config.actor_hidden == 8
    assert jobs.learner("odice", config).config.actor_hidden == ()  # as hidden


def entry(agent, task, scores, normalised=True):
    return comparison.Entry(agent, task, np.asarray(scores, float), normalised, 5.0, 1.0, {})


def test_tasks_are_pooled_only_for_agents_that_ran_on_all():
    entries = [
        entry("good", "x", [10.0, 20.0]),
        entry("good", "y", [30.0, 40.0]),
        entry("half", "x", [90.0, 90.0]),
        entry("lost", "x", [1.0, np.nan]),
        entry("lost", "y", [1.0, 2.0]),
    ]
    table = comparison.table(entries).set_index(["agent", "task"])
    assert table.loc[("good", "all"), "score"] == 25.0  # of four scores the outer two go
    assert ("half", "all") not in table.index
    assert np.isnan(table.loc[("lost", "x"), "score"])
    assert np.isnan(table.loc[("lost", "all"), "score"])
    assert table.loc[("behaviour", "y"), "score"] == 5.0
    raw = comparison.table([entry("good", task, [1.0, 2.0], normalised=False) for task in "xy"])
    assert "all" not in set(raw["task"])  # returns of two environments have no common unit


def test_shares_of_solved_levels_are_told_apart_and_who_took_more_steps_is_said():
    config = {"settings": {}, "hidden": (8,), "env": "maze", "seeds": 2, "seed_offset": 0, "eval_episodes": 1}
    entries = [
        entry(agent, "maze", scores, False)._replace(
            config=config, budget="64 steps", judged="solved share", played=played, behaviour=np.nan
        )
        for agent, scores, played in (("dr", [0.21, 0.23], 64.0), ("sfl", [0.24, 0.26], 128.0))
    ]
    page = comparison.markdown(comparison.table(entries), entries)
    assert "Interquartile mean over seeds of the solved share after" in page
    assert "| sfl | 0.250 [0.240, 0.260] |" in page
    assert "- maze: environment steps with those that only score levels: dr 64, sfl 128" in page
    same = [one._replace(played=64.0) for one in entries]
    assert "only score levels" not in comparison.markdown(comparison.table(same), same)


def test_the_command_line_says_its_own_numbers(capsys):
    assert cli.main(["compare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    updates = f"{jobs.COMPARISONS['small']['updates']:_}"
    assert f"gradient updates per member [small: {updates}; full: 1_000_000]" in text
    assert "environments [small: pointmaze; full: brax/hopper,brax/halfcheetah]" in text
    assert cli.main(["compare", "--agents", "td3bc", "--datasets", "medium"]) == 2
    assert "unknown agent 'td3bc'" in capsys.readouterr().err
