"""Runs that train in the environment, from the command line: rows, report, rivals, going on after a stop."""

import json
import shutil
import signal

import jax
import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.sinks import read_parquet
from jaxrl_reg.jobs.kinds.online import nearest_divisor, rival_config

TOY = "tests.jobs.off_policy_toy"
PPO = (
    "sweep --env pointnav --agent ppo --steps 96 --num-envs 4 --unroll 8 --segments 3 --seeds 2 --seed-offset 3 "
    "--hidden 8 --eval-episodes 2 --set minibatches=2 --set epochs=1 --grid entropy_coef=0,0.1"
)
SMALL = "--env pointnav --steps 48 --num-envs 4 --segments 3 --seeds 2 --eval-episodes 2 --batch-size 8"


@pytest.fixture(autouse=True)
def quietly(monkeypatch):
    monkeypatch.setattr(cli, "prepare", lambda: None)


def command(line):
    return cli.main(line.split())


@pytest.fixture(scope="module")
def ppo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "ppo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare", lambda: None)
        assert command(f"{PPO} --out {directory}") == 0
    return directory


@pytest.fixture(scope="module")
def against(tmp_path_factory):
    """The toy beside PPO, on the same budget."""
    directory = tmp_path_factory.mktemp("runs") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare", lambda: None)
        assert command(f"sweep --agent {TOY} {SMALL} --against ppo --out {directory}") == 0
    return directory


def rows(directory):
    frame = read_parquet(directory / "metrics.parquet").drop(columns=["seconds", "updates_per_second"])
    return frame.sort_values(["agent", "member", "step", "evaluation"]).reset_index(drop=True)


def test_an_online_run_counts_environment_steps_and_needs_no_data(ppo):
    frame = rows(ppo)
    assert frame.groupby("setting")["step"].unique().map(list).tolist() == [[32, 64, 96]] * 2
    assert frame["update"].unique().tolist() == [1, 2, 3]  # one call of the agent per trajectory of 4 x 8 steps
    assert sorted(frame["seed"].unique()) == [3, 4]
    assert np.isfinite(frame[["eval/return", "eval/length"]]).all(axis=None)
    assert frame["environment"].unique().tolist() == ["pointnav"]
    facts = json.loads((ppo / "summary.json").read_text())
    assert (facts["kind"], facts["axis"]["name"], facts["axis"]["per_segment"]) == ("online", "environment steps", 32)
    assert (facts["score"]["metric"], facts["score"]["baseline"]) == ("eval/return", None)
    assert "dataset" not in facts
    page = (ppo / "report.html").read_text()
    assert "after 96 environment steps" in page
    assert "cloning" not in page
    assert "data's own policy" not in page
    assert (ppo / "episode.html").is_file()
    assert pd.read_csv(ppo / "table.csv")["last_step"].tolist() == [96, 96]
    assert isinstance(jobs.load_config(ppo), jobs.OnlineConfig)


def test_a_ppo_sweep_stopped_and_resumed_is_bit_identical(ppo, tmp_path, monkeypatch, capsys):
    from jaxrl_reg import population
    from jaxrl_reg.cli.display import Display

    shown = Display.tick

    def stopping(self, tick):
        shown(self, tick)
        if tick.done == 32:  # the segment under way ends first
            signal.raise_signal(signal.SIGINT)

    directory = tmp_path / "run"
    monkeypatch.setattr(Display, "tick", stopping)
    assert command(f"{PPO} --out {directory}") == 130
    assert rows(directory)["step"].max() < 96
    monkeypatch.setattr(Display, "tick", shown)
    assert command(f"resume {directory}") == 0
    assert "environment steps/s" in capsys.readouterr().out
    pd.testing.assert_frame_equal(rows(directory), rows(ppo), check_exact=True)
    job = jobs.kinds.load("online").make(jobs.load_config(ppo))
    states = []
    (member,) = job.learners
    for path in (ppo, directory):
        found = population.restore(path / "checkpoints" / "ppo", job.run(member, None)[1], [3, 4], member.hypers)
        states.append(found.states)
    for ours, whole in zip(*map(jax.tree.leaves, states), strict=True):
        if jax.dtypes.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, whole = jax.random.key_data(ours), jax.random.key_data(whole)
        np.testing.assert_array_equal(ours, whole)


def test_a_rival_has_the_same_steps_and_the_report_compares_with_it(against):
    frame = rows(against)
    assert frame.groupby("agent")["step"].max().to_dict() == {"ppo": 48, TOY: 48}
    facts = json.loads((against / "summary.json").read_text())
    assert facts["score"]["baseline"] == "ppo"
    table = pd.read_csv(against / "table.csv")
    assert table["agent"].tolist() == [TOY, "ppo"]
    assert np.isfinite(table["minus_baseline"].iloc[0])
    page = (against / "report.html").read_text()
    assert "ppo reaches" in page
    assert "minus ppo" in page
    updates = frame[frame.agent == TOY]["update"].max()
    assert updates == 48 // 4 * 4  # four updates in each iteration of four environments


def test_fresh_episodes_of_an_online_run(against, tmp_path):
    import shutil

    directory = tmp_path / "run"
    shutil.copytree(against, directory)
    assert command(f"evaluate {directory} --episodes 3") == 0
    fresh = rows(directory).query("evaluation == 1")
    assert fresh.groupby("agent").size().to_dict() == {"ppo": 2, TOY: 2}
    assert fresh["step"].unique().tolist() == [48]
    assert fresh["episodes"].unique().tolist() == [3]


def test_a_rival_that_learns_in_another_way_has_sizes_of_its_own_that_divide():
    config = jobs.resolve(jobs.OnlineConfig(agent="ppo", against="sac", steps=96, num_envs=4, unroll=8, segments=3))
    other = rival_config(config, "sac")
    assert (other.steps, other.segments, other.num_envs, other.unroll) == (96, 3, 16, 1)
    assert other.updates_per_iteration == 4
    assert nearest_divisor(12, 5) == 6
    assert jobs.resolve(other) == other


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--agent ppo --updates 100", "--updates belongs to training on a data set, and ppo means training in the"),
        (
            "--agent rebrac --num-envs 4",
            "--num-envs belongs to training in the environment, and rebrac means training on",
        ),
        ("--agent sac --dataset medium --unroll 2", "--unroll belongs to training in the environment"),
        ("--agent ppo --dataset medium", "'ppo' learns from its own fresh experience and cannot be trained on a data"),
        ("--agent ppo --steps 100 --num-envs 4 --unroll 8 --segments 1", "nearest: --steps 96 or --steps 128"),
        ("--agent ppo --steps 128 --num-envs 4 --unroll 8 --segments 3", "or keep it with --segments 4"),
        ("--agent ppo --against rebrac", "'rebrac' learns from a data set and not in the environment"),
        ("--agent ppo --against ppo", "ppo is the agent itself"),
        ("--agent ppo --against pp", "did you mean 'ppo'?"),
        ("--agent sac --capacity 0", "capacity=0 must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_one_line_before_anything_is_written(line, message, tmp_path, capsys):
    assert command(f"sweep --env pointnav {line} --out {tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_a_command_line_means(capsys):
    def kind(line):
        return cli.config_of(cli.parse(line.split())).kind

    assert kind("sweep --agent ppo") == kind("sweep --agent td3") == "online"
    assert kind("sweep") == kind("sweep --agent sac --dataset medium") == "offline"
    for line in ("sweep --agent sac", "sweep --agent sac --dataset medium"):
        (said,) = jobs.kinds.announce(cli.config_of(cli.parse(line.split())))
        assert ("online" in said) == ("dataset medium" not in line)


def test_default_sizes_divide_for_every_kind_of_agent_and_scale():
    for agent in ("ppo", "sac"):
        for scale in ("small", "full"):
            config = jobs.resolve(jobs.OnlineConfig(agent=agent, scale=scale))
            assert config.steps % (config.segments * config.num_envs * config.unroll) == 0
            assert config.capacity <= 1_000_000
            jobs.resolve(rival_config(config, "sac" if agent == "ppo" else "ppo"))


def test_a_data_agent_is_refused_by_the_library_call():
    with pytest.raises(UserError, match="learns from a data set"):
        jobs.resolve(jobs.OnlineConfig(agent="iql"))


def test_population_based_training_from_the_command_line(tmp_path, capsys):
    line = f"sweep --agent {TOY} {SMALL} --sample learning_rate=log:0.001:0.1 --draws 4 --evolve"
    assert command(f"{line} --out {tmp_path / 'run'}") == 0
    frame = rows(tmp_path / "run")
    rates = frame.pivot_table(index=["slot", "seed"], columns="step", values="hyper/learning_rate")
    assert rates.shape == (4 * 2, 3)
    assert (rates.nunique(axis=1) > 1).any()
    assert rates.min(axis=None) >= 0.000999
    assert pd.read_csv(tmp_path / "run" / "table.csv")["slot"].tolist() != []
    assert "slot" in capsys.readouterr().out
    for options, message in (
        ("--evolve", "give at least one, such as --sample"),
        ("--sample noise=0.1,0.2 --evolve", "give noise as log:LOW:HIGH"),
        ("--sample noise=lin:0:1 --grid learning_rate=0.1 --evolve", "takes no grid"),
        ("--sample noise=lin:0:1 --evolve --early-stop halving", "exclude each other"),
        ("--sample noise=lin:0:1 --draws 1 --evolve", "at least 2"),
    ):
        assert command(f"sweep --agent {TOY} {SMALL} {options} --out {tmp_path / 'other'}") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("env", "asked", "wanted"),
    [("gridworld", {}, 0.01), ("gridworld", {"entropy_coef": 0.3}, 0.3), ("pointnav", {}, 0.0)],
)
def test_choices_are_rewarded_for_staying_open_unless_asked_otherwise(env, asked, wanted):
    config = jobs.OnlineConfig(
        env=env, steps=64, num_envs=4, unroll=8, segments=1, seeds=1, hidden=(8,), settings=asked
    )
    (member,) = jobs.kinds.load("online").make(jobs.resolve(config)).learners
    np.testing.assert_allclose(member.hypers.entropy_coef, [wanted])


def save_reference(path):
    """Rows of the garden as a collection writes them: trained on the true reward, with both beside."""
    from jaxrl_reg import data, envs

    spec, rng, rows = envs.make("tomato").spec, np.random.default_rng(0), 64
    seen = rng.random((rows, spec.observation_dim))
    true = rng.random(rows)
    proxy = true + 0.1 * rng.random(rows)
    ends = np.arange(rows) % 16 == 15
    extras = {"reward/true": true, "reward/proxy": proxy}
    action = rng.uniform(-1, 1, (rows, spec.action_dim))
    made = data.from_arrays(seen, action, true, np.zeros(rows, bool), ends, seen, extras=extras, name="garden")
    data.save(made, path)
    return np.corrcoef(proxy, true)[0, 1], proxy


def test_a_job_that_is_held_to_a_data_set_is_paid_by_the_proxy_and_tells_how_it_correlates(tmp_path):
    path = tmp_path / "garden.hdf5"
    correlation, proxy = save_reference(path)
    config = jobs.resolve(jobs.OnlineConfig(env="tomato", agent="occupancy_reg", reference=str(path)).settled())
    kind = jobs.kinds.load("online")
    job = kind.make(config)
    np.testing.assert_allclose(job.data.reward, proxy, rtol=1e-6)
    bound = f"asks for coefficient={np.sqrt(1 - correlation**2):.2g}"
    (line,) = [line for line in job.lines if f"proxy and true reward correlate at {correlation:.3f}" in line]
    assert bound in line
    assert job.about["returns"] == pytest.approx(proxy.reshape(4, 16).sum(1).round(4).tolist(), abs=1e-3)
    assert np.isnan(job.data.score_random)  # those that are known are of the true reward
    assert kind.reopen(config, {}).data is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--env pointnav --agent ppo --reference medium", "--reference is a data set that an agent such as occupancy"),
        ("--env pointnav --agent occupancy_reg --reference mediun", "did you mean 'medium'"),
        ("--env tomato --agent ppo --env-set reward=ture", "unknown reward of tomato 'ture'; did you mean 'true'"),
        ("--env tomato --agent orpo", "--agent occupancy_reg"),
    ],
)
def test_what_a_reference_or_a_reward_cannot_be(line, message, tmp_path, capsys):
    assert command(f"sweep {line} --data-dir {tmp_path} --out {tmp_path / 'run'}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_reference_that_is_not_there_is_collected_of_a_policy_that_means_well(tmp_path):
    config = jobs.OnlineConfig(env="tomato", agent="occupancy_reg", data_dir=str(tmp_path), collect_steps=640)
    job = jobs.kinds.load("online").make(jobs.resolve(config.settled()))
    assert job.collect is not None
    source = jobs.references._source(config, job.world, "medium")
    assert (source.env_settings, source.dataset) == ({"reward": "true"}, "medium")
    assert jobs.dataset_path(source).parent == tmp_path / "tomato-reward=true"
    other = jobs.SweepConfig(env="tomato", data_dir=str(tmp_path), dataset="medium")
    assert jobs.dataset_path(other).parent == tmp_path / "tomato"


TARGETS = """
def left(observation, action, next_observation):
    return -next_observation[0]
"""


def test_members_are_attacked_by_the_same_episodes_and_a_second_call_goes_on(ppo, tmp_path, capsys):
    run, targets = tmp_path / "run", tmp_path / "targets.py"
    shutil.copytree(ppo, run)
    targets.write_text(TARGETS, encoding="utf-8")
    line = f"evaluate {run} --attack random:0.3,pgd:0.3,critic:0.3 --target {targets}:left --episodes 4"
    assert command(line) == 0
    said = capsys.readouterr().out
    assert "critic is left out: ppo has no critic of actions" in said
    frame = read_parquet(run / "attacks.parquet")
    assert frame.groupby("attack").size().to_dict() == {"none": 4, "pgd": 4, "random": 4}
    assert frame.groupby("attack")["epsilon"].max().to_dict() == {"none": 0.0, "pgd": 0.3, "random": 0.3}
    assert set(frame["seed"]) == {3, 4}
    by = frame.pivot(index=["setting", "seed"], columns="attack", values="target")
    assert (by["pgd"] != by["none"]).all()
    assert (by["pgd"] != by["random"]).all()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Under attack" in page
    assert "What an attacker wants" in page
    assert (run / "robustness_target.png").stat().st_size > 1000
    table = pd.read_csv(run / "attacks.csv")
    assert (table["return_low"] <= table["return"]).all()

    assert command(line.replace("random:0.3,", "")) == 0
    assert "pgd:0.3 is in attacks.parquet already" in capsys.readouterr().out
    assert jobs.attacks._there(run / "attacks.parquet", "pgd", 0.3, [0, 1], {"episodes": 4}) is True
    targets.write_text(TARGETS.replace("-next", "next"), encoding="utf-8")
    changed = jobs.attacks._digest(f"{targets}:left")
    assert jobs.attacks._there(run / "attacks.parquet", "pgd", 0.3, [0, 1], {"against": changed}) is False


def test_an_adversary_that_has_learnt_is_kept_put_to_others_and_trained_under(ppo, tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    for to in (run, other):
        shutil.copytree(ppo, to)
    line = f"evaluate {run} --attack sa_rl:0.3 --attack-steps 64 --episodes"
    assert command(f"{line} 2") == 0
    before = read_parquet(run / "attacks.parquet")
    assert command(f"{line} 3") == 0  # other episodes, the same adversary
    assert "sa_rl:0.3 has learnt already" in capsys.readouterr().out
    assert command(f"evaluate {other} --adversary {run} --episodes 2") == 0
    frame = read_parquet(other / "attacks.parquet")
    assert frame.groupby("attack").size().to_dict() == {"none": 4, "sa_rl of run": 4}
    pd.testing.assert_series_equal(frame["return"], before["return"])  # copies of one run, each its own adversary

    shutil.copytree(run / "adversaries" / "sa_rl-0.3", run / "adversaries" / "sa_rl-0.5")
    sizes = "--unroll 4 --hidden 8 --set minibatches=2 --set epochs=1"
    train = f"sweep --agent ppo {SMALL} {sizes} --out {tmp_path / 'robust'} --adversary"
    assert command(f"{train} {run}") == 2
    assert "has sa_rl:0.3, sa_rl:0.5; say which" in capsys.readouterr().err
    assert command(f"{train} {run}:rat:0.1") == 2
    assert f"{run} has sa_rl:0.3, sa_rl:0.5" in capsys.readouterr().err
    assert command(f"{train} {run}:sa_rl:0.3") == 0
    assert "eval/attacked" in read_parquet(tmp_path / "robust" / "metrics.parquet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--adversary nowhere", "nowhere holds no adversary; learn one first"),
        ("--attack pgb:0.1", "did you mean 'pgd'"),
        ("--attack pgd", "give the size as pgd:0.1"),
        ("--attack pgd:-1", "above 0"),
        ("--attack pgd:0.1,pgd:0.10", "pgd:0.1 twice"),
        ("--target t.py:f", "add --attack"),
        ("--attack rat:0.1 --target t.py:f", "no file t.py"),
    ],
)
def test_what_an_attack_cannot_be(ppo, options, message, capsys):
    assert command(f"evaluate {ppo} {options}") == 2
    assert message in capsys.readouterr().err
    assert not (ppo / "attacks.parquet").exists()


@pytest.mark.parametrize(
    ("adversary", "message"),
    [
        ("sarl:0.1", "did you mean 'sa_rl'"),
        ("pgd:0.1", "unknown adversary to train against 'pgd'"),
        ("sa_rl", "--adversary sa_rl: give the size as sa_rl:0.1"),
        ("sa_rl:0.1,pa_ad:0.1", "one at a time"),
        ("rat:0.1 --adversary-target t.py:f", "no file t.py"),
    ],
)
def test_what_cannot_be_trained_against(adversary, message, tmp_path, capsys):
    assert command(f"sweep --env pointnav --agent ppo --adversary {adversary} --out {tmp_path / 'run'}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
