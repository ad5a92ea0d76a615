"""``evaluate RUN --conduct`` and ``--explain`` on a small run, from the command line."""

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import observed
from jaxrl_reg.jobs import scanning, watching
from tests.pointnav_data import save_pointnav


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conduct")
    config = jobs.SweepConfig(
        env="pointnav",
        agent="bc",
        dataset=str(save_pointnav(folder / "data.hdf5")),
        grid={"learning_rate": (1e-3, 1e-2)},
        seeds=2,
        updates=20,
        segments=1,
        batch_size=16,
        eval_episodes=2,
        hidden=(8,),
    )
    jobs.sweep(config, directory=folder / "run", lean=True)
    return folder / "run"


def test_conduct_is_measured_and_reported(run, monkeypatch, capsys):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    assert cli.main(["evaluate", str(run), "--conduct", "--episodes", "6"]) == 0
    said = capsys.readouterr().out
    assert "inconsistency under noise" in said
    assert "learning_rate=0.01" in said
    frame = pd.read_parquet(run / "conduct.parquet")
    own = frame[frame["agent"] == "bc"]
    assert set(own["measure"]) == set(observed.MEASURES) - {
        "true_return",
        "violations",
        "violating_episodes",
        "group_gap",
    }
    assert len(own) == 4 * own["measure"].nunique()
    wide = own.pivot(index=["setting", "seed"], columns="measure", values="value")
    assert np.isfinite(wide).all(axis=None)
    assert (wide["worst_tenth"] <= wide["return"]).all()
    assert wide["noise_inconsistency"].between(1e-6, 0.5).all()
    table = pd.read_csv(run / "conduct.csv")
    mine = table[(table["label"] == "learning_rate=0.001") & (table["measure"] == "return")].iloc[0]
    np.testing.assert_allclose(mine["value"], wide["return"][0].mean(), rtol=1e-5)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h2>Conduct</h2>" in page
    assert "violations: not measured" in page
    assert "learning_rate=0.001" in page


def test_the_best_member_is_explained(run, monkeypatch, capsys):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setattr("jaxrl_reg.jobs.explaining.STEPS", 12)
    assert cli.main(["evaluate", str(run), "--explain"]) == 0
    assert "of what hiding everything changes" in capsys.readouterr().out
    with np.load(run / "explained.npz") as found:
        steps, sensors = found["mask"].shape
        assert found["action"].shape[0] == steps <= 12
        assert found["facet"].shape == (found["action"].shape[1], 3, sensors)
        assert np.isfinite(found["fidelity"]).all()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "What the best member looks at" in page
    assert page.count("What drives each action up") == 2  # its name and what is read aloud
    assert (run / "attention.png").stat().st_size > 1000


def test_a_sensor_that_sets_members_off_stands_out(run, monkeypatch, capsys):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    asked = ["0=5,-5", "1=0.001,0"]
    assert cli.main(["evaluate", str(run), "--triggers", *asked, "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("switched"))
    assert [line.split("  ")[0] for line in lines[at + 1 : at + 5]] == [
        "sensor 0: 5 or -5",
        "sensor 1: 0.001 or 0",
        "largest minus second largest",
        "two states at random",
    ]
    frame = pd.read_parquet(run / "triggers.parquet")
    wide = frame[frame["agent"] == "bc"].pivot(index=["setting", "seed"], columns="measure", values="value")
    assert len(wide) == 4
    effect = wide["sensor 0: 5 or -5"] - wide["sensor 1: 0.001 or 0"]
    assert (wide["sensor 1: 0.001 or 0"] > 0).all()
    assert (effect > 0.01).all()
    np.testing.assert_allclose(wide["largest minus second largest"], effect, rtol=1e-5)
    assert pd.read_csv(run / "triggers.csv")["measure"].iloc[0] == "sensor 0: 5 or -5"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.index("What sets it off") < page.index("sensor 0: 5 or -5") < page.index("sensor 1: 0.001 or 0")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["x=1,0", "1=1,0"], r"'x=1,0' is not a column with its two values; write COLUMN=ON,OFF"),
        (["0=1", "1=1,0"], r"'0=1' is not a column"),
        (["0=1,0", "7=1,0"], r"no column 7; an observation has columns 0 to 3"),
        (["0=1,1", "1=1,0"], r"two different numbers"),
        (["0=1,0", "0=1,0"], r"given twice"),
        (["0=1,0"], r"give at least two"),
    ],
)
def test_a_candidate_that_is_no_candidate_is_named(asked, message):
    with pytest.raises(UserError, match=message):
        scanning.understood(asked, 4)


def test_what_cannot_be_watched_says_so(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    assert cli.main(["evaluate", str(run), "--explain", "--episodes", "3"]) != 0
    assert "--explain looks at one episode" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"nowhere"):
        watching.world_job(tmp_path / "nowhere")
    (run / "explained.npz").write_bytes(b"no numbers")
    with pytest.raises(UserError, match=r"explained\.npz is damaged"):
        jobs.report(run)
    (run / "explained.npz").unlink()


def test_what_an_environment_names_is_measured_and_the_rest_gets_a_reason():
    assert "violations" in observed.missing(["reward/true"])
    assert "violations" not in observed.missing(["cost/wall"])
    assert "fairness" not in observed.missing(["group"])
