"""Runs that go on in another environment: what they begin with, both tasks in the report, resuming, one-line errors."""

import dataclasses
import json
import pathlib
import signal

import jax
import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, jobs, population
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import report
from jaxrl_reg.io.sinks import read_parquet
from jaxrl_reg.jobs.kinds import transfer

FIRST = (
    "sweep --env pendulum --agent ppo --steps 64 --num-envs 4 --unroll 8 --segments 2 --seeds 2 --seed-offset 3 "
    "--hidden 8 --eval-episodes 2 --set minibatches=2 --set epochs=1 --grid entropy_coef=0,0.1"
)
SPIN = """
from jaxrl_reg import envs

def make():
    return envs.with_reward(envs.make("pendulum"), lambda before, action, after: after.observation[..., 2])
"""
LINE = "--env spin.py --steps 96 --segments 3 --anchor ewc --anchor-coef 0,50 --set actor_learning_rate=0.01"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two settings and two seeds of PPO in ``first``, and their fine-tuning with two strengths in ``second``."""
    folder = tmp_path_factory.mktemp("transfer")
    (folder / "spin.py").write_text(SPIN, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare", lambda: None)
        patch.chdir(folder)
        assert cli.main([*FIRST.split(), "--out", "first"]) == 0
        assert cli.main(["finetune", "first", *LINE.split(), "--out", "second"]) == 0
    return folder


@pytest.fixture(autouse=True)
def there(monkeypatch, folder):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.chdir(folder)


def rows(directory):
    frame = read_parquet(f"{directory}/metrics.parquet").drop(columns=["seconds", "updates_per_second"])
    return frame.sort_values(["member", "step"]).reset_index(drop=True)


def test_every_member_goes_on_with_every_strength_and_is_judged_in_both_worlds():
    before, after = rows("first"), rows("second")
    assert after["step"].unique().tolist() == [0, 32, 64, 96]
    assert after["member"].nunique() == 8
    assert after.groupby("setting")[["entropy_coef", "anchor_coef"]].first().to_numpy().tolist() == [
        [0.0, 0.0],
        [0.0, 50.0],
        *[[pytest.approx(0.1), 0.0], [pytest.approx(0.1), 50.0]],
    ]
    begun = after[after["step"] == 0].set_index(["entropy_coef", "anchor_coef", "seed"])
    # The strengths of one member begin alike; only then do they part.
    for name in ("eval/return", "eval/return_1"):
        np.testing.assert_array_equal(begun.xs(0.0, level=1)[name], begun.xs(50.0, level=1)[name])
    assert begun["eval/return_1"].nunique() == 4
    ended = after[after["step"] == 96].set_index(["entropy_coef", "anchor_coef", "seed"])
    # Weights of the first layer hardly matter to a policy that has learnt next to nothing, so they are hardly held.
    assert (ended.xs(50.0, level=1)["moved"] < ended.xs(0.0, level=1)["moved"]).all()
    assert before["eval/return"].max() < 0 < abs(begun["eval/return"]).max()  # the pendulum's own reward is a cost


def test_what_the_members_begin_with_is_what_the_run_had_learnt():
    config = jobs.load_config("second")
    assert isinstance(config, transfer.TransferConfig)
    assert [one["env"] for one in config.earlier] == ["pendulum"]
    assert (config.behind_segments, config.behind_updates) == (2, 2)
    job = transfer.make(config)
    states = job.start(job.learners[0])
    assert jax.tree.leaves(states.agent.actor.params)[0].shape[:2] == (4, 2)
    for leaf in jax.tree.leaves(states.agent.actor.params):
        np.testing.assert_array_equal(leaf[0], leaf[1])  # strengths of one setting
    assert any((leaf[0] != leaf[2]).any() for leaf in jax.tree.leaves(states.agent.actor.params))
    assert min(float(leaf.min()) for leaf in jax.tree.leaves(states.importance)) >= 0
    assert max(float(leaf.max()) for leaf in jax.tree.leaves(states.importance)) > 0
    for leaf in jax.tree.leaves(states.agent.actor.opt_state):
        np.testing.assert_array_equal(leaf, 0)  # a new optimiser


def test_the_report_has_both_tasks_before_and_after():
    facts = json.loads(pathlib.Path("second/summary.json").read_text(encoding="utf-8"))
    assert facts["met"] == [["pendulum", "eval/return_1"], ["spin.py", "eval/return"]]
    table = pd.read_csv("second/met.csv")
    assert len(table) == 8
    frame = rows("second")
    one = table[(table["setting"] == 1) & (table["task"] == "pendulum")].iloc[0]
    own = frame[frame["setting"] == 1]
    for step, name in ((0, "before"), (96, "after")):
        wanted = own[own["step"] == step]["eval/return_1"].mean()  # of two seeds
        assert one[name] == pytest.approx(wanted, rel=1e-5)
    page = pathlib.Path("second/report.html").read_text(encoding="utf-8")
    assert "Every task, before and after" in page
    shown = report.brief_met(table)
    assert shown[0][1:] == ["pendulum", "spin.py"]
    assert "anchor_coef=50" in shown[2][0]


def test_stopped_and_resumed_it_is_bit_identical(tmp_path):
    def stop(one):
        if one.done == 32:
            signal.raise_signal(signal.SIGINT)

    options = {"env": "spin.py", "steps": 96, "segments": 3, "anchor": "ewc", "anchor_coef": "0,50"}
    options["settings"] = {"actor_learning_rate": "0.01"}
    config = transfer.continuing("first", **options)
    with pytest.raises(population.Interrupted):
        jobs.sweep(config, directory=tmp_path / "run", on_tick=stop, lean=True)
    assert rows(tmp_path / "run")["step"].max() < 96
    jobs.sweep(jobs.load_config(tmp_path / "run"), directory=tmp_path / "run", resume=True, lean=True)
    left, right = rows("second"), rows(tmp_path / "run")
    for name in ("eval/return", "eval/return_1", "actor_loss", "moved"):
        np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--env pendulum", "is what"),
        ("--env pointmaze", "a policy of one cannot act in the other"),
        ("--env spin.py --anchor l4", "unknown anchor"),
        ("--env spin.py --anchor lora", "needs the rank"),
        ("--env spin.py --anchor lora:2 --anchor-coef 1", "holds by its rank"),
        ("--env spin.py --anchor-coef 1", "nothing is held without --anchor"),
        ("--env spin.py --anchor l2 --anchor-coef much", "neither numbers"),
        ("--env spin.py --anchor l2 --anchor-coef 1,1", "must be different numbers"),
        ("--env spin.py --anchor kl --anchor-coef log:1:0.1", "neither numbers"),
        ("--anchor l2", "--anchor is for going on in another environment: name that with --env"),
        ("--env spin.py --offline-fraction 0.5", "--offline-fraction is for going on online from a run on a data set"),
        ("--steps 32", "name that with --env"),
        ("--env spin.py --set hidden=16", "cannot become"),
        ("--env spin.py --seeds 3", "--seeds cannot be given here"),
        ("--env spin.py --steps 33", "nearest"),
    ],
)
def test_what_does_not_fit_is_one_line(words, said, capsys):
    assert cli.main(["finetune", "first", *words.split(), "--out", "never"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_policy_that_a_member_leaves_is_its_own():
    """Of the checkpoint, held or not: what a deployed policy does is what evaluation saw."""
    act = jobs.load_policy("second", setting=1, seed=4)
    assert act.about["anchor_coef"] == 50.0
    free = jobs.load_policy("second", setting=0, seed=4)
    seen = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    left, right = act(seen), free(seen)
    assert left.shape == (5, 1)
    assert np.abs(left - right).max() > 1e-4


def test_strengths_are_spread_and_a_chain_needs_one_of_them():
    config = dataclasses.replace(jobs.load_config("second"), anchor_coef="log:0.01:1:3")
    np.testing.assert_allclose(transfer.strengths(config), [0.01, 0.1, 1.0])
    assert transfer.strengths(dataclasses.replace(config, anchor="lora:2", anchor_coef=None)) == (0.0,)
    assert transfer.strengths(dataclasses.replace(config, anchor="kl", anchor_coef=None))[0] == 0.0
    with pytest.raises(UserError, match="several strengths"):
        transfer.continuing("second", env="pendulum")
