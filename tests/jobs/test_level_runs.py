"""Runs in worlds with levels, from the command line: sets, rival, pictures, going on after a stop."""

import json
import signal

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli
from jaxrl_reg.io.sinks import read_parquet

WORLD = (
    "--env maze --env-set height=4 --env-set width=4 --env-set view=1 --env-set episode_length=8 --env-set held_out=6"
)
SIZES = "--steps 96 --num-envs 4 --unroll 8 --segments 3 --hidden 8 --set minibatches=2 --set epochs=1"
DRED = (
    f"sweep --agent dred {WORLD} {SIZES} --seeds 2 --grid eta=0.5,1 --set data_levels=4 --set capacity=8 "
    "--set vae_steps=5 --set vae_hidden=8 --set vae_latent=2"
)


@pytest.fixture(autouse=True)
def quietly(monkeypatch):
    monkeypatch.setattr(cli, "prepare", lambda: None)


def command(line):
    return cli.main(line.split())


def rows(directory):
    frame = read_parquet(directory / "metrics.parquet").drop(columns=["seconds", "updates_per_second"])
    return frame.sort_values(["agent", "member", "step", "evaluation"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def dred(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "dred"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare", lambda: None)
        assert command(f"{DRED} --out {directory}") == 0
    return directory


def test_a_run_is_judged_on_held_out_levels_beside_domain_randomisation(dred):
    frame = rows(dred)
    assert sorted(frame["agent"].unique()) == ["dr", "dred"]
    own = frame[frame["agent"] == "dred"]
    assert own.groupby("setting")["step"].unique().map(list).tolist() == [[32, 64, 96]] * 2
    assert np.isfinite(own[["eval/solved", "eval/solved/held_out", "curriculum/score", "levels/path"]]).all(axis=None)
    assert own["env_steps"].max() == 2 * 96  # as many again only score levels
    assert frame[frame["agent"] == "dr"]["env_steps"].max() == 96
    facts = json.loads((dred / "summary.json").read_text())
    assert (facts["score"]["metric"], facts["score"]["name"], facts["score"]["baseline"]) == (
        "eval/solved",
        "solved share",
        "dr",
    )
    assert facts["sets"] == [["held_out", "eval/solved/held_out"]]


def test_the_report_shows_sets_and_the_levels_that_were_learnt_from(dred):
    table = pd.read_csv(dred / "sets.csv")
    assert table[["agent", "set", "runs"]].to_numpy().tolist() == [
        ["dred", "held_out", 2],
        ["dred", "held_out", 2],
        ["dr", "held_out", 2],
    ]
    last = rows(dred).query("step == 96 and agent == 'dr'")["eval/solved/held_out"]
    assert table["iqm"].iloc[-1] == pytest.approx(last.mean(), abs=1e-6)
    pictures = np.array(json.loads((dred / "levels.json").read_text())["segments"])
    assert pictures.shape == (3, 4, 4, 4, 3)
    page = (dred / "report.html").read_text()
    assert "Levels it had not seen" in page
    assert "Levels it learnt from" in page
    assert (dred / "levels.png").stat().st_size > 1000


def test_a_run_stopped_and_resumed_is_bit_identical(dred, tmp_path, monkeypatch):
    from jaxrl_reg.cli.display import Display

    shown = Display.tick

    def stopping(self, tick):
        shown(self, tick)
        if tick.done == 32:
            signal.raise_signal(signal.SIGINT)

    directory = tmp_path / "run"
    monkeypatch.setattr(Display, "tick", stopping)
    assert command(f"{DRED} --out {directory}") == 130
    assert rows(directory)["step"].max() < 96
    monkeypatch.setattr(Display, "tick", shown)
    assert command(f"resume {directory}") == 0
    pd.testing.assert_frame_equal(rows(directory), rows(dred), check_exact=True)
    assert (directory / "levels.json").read_text() == (dred / "levels.json").read_text()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"sweep --agent plr {WORLD} --steps 64 --num-envs 4 --unroll 4 --segments 2", "take --unroll 8 or shorter"),
        (
            "sweep --agent accel --env pointnav --steps 64 --num-envs 4 --unroll 8 --segments 2",
            "pointnav has no levels",
        ),
        (f"sweep --agent dr {WORLD} {SIZES} --against dr", "--against dr is the agent itself"),
        (f"sweep --agent plr {WORLD} {SIZES} --set score=max-mc", "unknown score of a level 'max-mc'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(line, words, capsys, tmp_path):
    assert command(f"{line} --out {tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
