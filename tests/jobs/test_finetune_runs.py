"""Fine-tuning runs: nothing changes before the first update, both phases in one table, going on after a stop."""

import dataclasses
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import cli, data, jobs, population
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report import judged_by
from jaxrl_reg.io.sinks import read_parquet
from jaxrl_reg.jobs.kinds import finetune

LINE = "--steps 24 --num-envs 2 --updates-per-iteration 2 --segments 3"


@pytest.fixture(autouse=True)
def quietly(monkeypatch):
    monkeypatch.setattr(cli, "prepare", lambda: None)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Two settings and two seeds of TD3+BC on 60 rows of a pendulum that is pushed at random."""
    folder, rng = tmp_path_factory.mktemp("offline"), np.random.default_rng(0)
    observation, truncated = rng.uniform(-1, 1, (60, 3)), np.arange(60) % 20 == 19
    rows = data.from_arrays(
        observation,
        rng.uniform(-1, 1, (60, 1)),
        rng.uniform(-1, 0, 60),
        0 * truncated,
        truncated,
        observation + 0.1,
        name="pushed",
    )
    data.save(rows, folder / "pushed.hdf5")
    config = jobs.SweepConfig(
        env="pendulum",
        agent="td3_bc",
        dataset=str(folder / "pushed.hdf5"),
        grid={"alpha": (1.0, 2.5)},
        seeds=2,
        seed_offset=5,
        updates=8,
        segments=2,
        batch_size=8,
        hidden=(8,),
        eval_episodes=2,
        action_low=(-2.0,),
        action_high=(2.0,),
    )
    jobs.sweep(config, directory=folder / "run", lean=True)
    return folder / "run"


@pytest.fixture(scope="module")
def online(offline, tmp_path_factory):
    directory = tmp_path_factory.mktemp("online") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare", lambda: None)
        assert cli.main(f"finetune {offline} {LINE} --out {directory}".split()) == 0
    return directory


def rows(directory, phase="online"):
    frame = read_parquet(directory / "metrics.parquet").drop(columns=["seconds", "updates_per_second"])
    frame = frame[frame["phase"] == phase] if "phase" in frame else frame
    return frame.sort_values(["member", "update", "evaluation"]).reset_index(drop=True)


def evaluated_first(directory, seeds):
    """Returns of the online phase before its first update, a row for every setting."""
    job = finetune.make(jobs.resolve(finetune.continuing(directory, steps=24, num_envs=2, segments=3)))
    (member,) = job.learners
    _, run = job.run(member, None)

    def first(state, seed, hyper):
        key = jax.random.key(seed)
        return run.evaluate(run.init(key, hyper, state), jnp.int32(-1), key, hyper)["eval/return"]

    over_seeds = jax.vmap(first, in_axes=(0, 0, None))
    return jax.jit(jax.vmap(over_seeds, in_axes=(0, None, 0)))(job.start(member), jnp.array(seeds), member.hypers)


def test_the_first_evaluation_before_any_update_is_the_last_one_of_before(offline):
    before = rows(offline)
    wanted = before[before["update"] == 8]["eval/return"].to_numpy().reshape(2, 2)
    assert np.unique(wanted).size == 4
    np.testing.assert_allclose(evaluated_first(offline, [5, 6]), wanted, rtol=1e-5)


@pytest.mark.parametrize("agent", ["iql", "cal_ql"])
def test_so_it_is_for_policies_that_are_drawn_from_and_for_agents_of_other_papers(offline, tmp_path, agent):
    config = dataclasses.replace(jobs.load_config(offline), agent=agent, grid={}, seeds=1, updates=2, segments=1)
    jobs.sweep(config, directory=tmp_path / "run", lean=True)
    (wanted,) = rows(tmp_path / "run").query("agent != 'bc'")["eval/return"]
    np.testing.assert_allclose(evaluated_first(tmp_path / "run", [5]), [[wanted]], rtol=1e-5)


def test_both_phases_stand_in_one_table_and_one_report(offline, online):
    before, after = rows(online, "offline"), rows(online)
    assert before["update"].unique().tolist() == [4, 8]
    assert after["update"].unique().tolist() == [16, 24, 32]  # 8 steps in 4 iterations of 2 updates each
    assert after["segment"].unique().tolist() == [2, 3, 4]
    assert after["env_steps"].unique().tolist() == [8.0, 16.0, 24.0]
    for name in ("seed", "setting", "alpha"):
        assert sorted(before[name].unique()) == sorted(after[name].unique())
    np.testing.assert_array_equal(before["eval/return"], rows(offline)["eval/return"])
    facts = json.loads((online / "summary.json").read_text(encoding="utf-8"))
    assert facts["kind"] == "finetune"
    assert facts["actions"] == {"low": [-2.0], "high": [2.0]}
    assert (facts["axis"]["behind"], facts["axis"]["column"]) == (8, "update")
    page = (online / "report.html").read_text(encoding="utf-8")
    assert "after 32 updates" in page
    judged = judged_by(facts)
    assert (judged.behind, judged.phase) == (8, "online")
    curve = plots.Curve("a", np.array([4, 8, 16]), np.zeros(3))
    (axes,) = plots.learning_curves([curve], since=(judged.behind, judged.phase)).axes
    (line,) = (line for line in axes.lines if line.get_label() == "online from here")
    assert list(line.get_xdata()) == [8, 8]
    assert isinstance(jobs.load_config(online), finetune.FinetuneConfig)
    assert jobs.load_policy(online).about["updates"] == 32
    assert jobs.load_policy(offline).about["updates"] == 8


def test_a_fine_tuning_run_stopped_and_resumed_is_bit_identical(offline, online, tmp_path, monkeypatch):
    stopped = tmp_path / "stopped"

    def stop(one):
        if one.done == 8:  # after the first segment
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(population.Interrupted):
        jobs.finetune(offline, out=stopped, steps=24, num_envs=2, updates_per_iteration=2, segments=3, on_tick=stop)
    assert rows(stopped)["update"].max() < 32
    jobs.resume(stopped)
    left, right = rows(online), rows(stopped)
    np.testing.assert_array_equal(left["eval/return"], right["eval/return"])
    np.testing.assert_array_equal(left["critic_loss"], right["critic_loss"])


def test_settings_that_fall_behind_online_are_stopped(offline, online, tmp_path):
    line = f"finetune {offline} {LINE} --early-stop halving --out {tmp_path / 'run'}"
    assert cli.main(line.split()) == 0
    ended = rows(tmp_path / "run").groupby("alpha")["update"].max()
    assert sorted(ended) == [16, 32]
    whole = rows(online)  # who goes on is not disturbed by who stopped
    kept = whole[whole["alpha"] == ended.idxmax()]["eval/return"]
    after = rows(tmp_path / "run")
    np.testing.assert_allclose(after[after["alpha"] == ended.idxmax()]["eval/return"], kept, rtol=1e-5)
    assert (tmp_path / "run" / "report.html").exists()


def test_what_the_offline_run_decides_is_not_asked_again(offline, capsys):
    assert cli.main(f"finetune {offline} --backend mjx".split()) == 2
    assert "--backend is for going on in another environment: name that with --env" in capsys.readouterr().err
    for words in ("--seeds 3", "--grid alpha=1", "--evolve"):
        assert cli.main(f"finetune {offline} {words}".split()) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert f"{words.split()[0]} cannot be given here: every seed and setting of" in said


def test_what_cannot_be_gone_on_from_is_one_line(offline, online, tmp_path, monkeypatch):
    moved = dataclasses.replace(jobs.load_config(offline), evolve=True)
    with monkeypatch.context() as patch:
        patch.setattr("jaxrl_reg.jobs.files.load_config", lambda _: moved)
        with pytest.raises(UserError, match=r"moved its hyperparameters while it was trained \(--evolve\)"):
            finetune.continuing(offline)
    with pytest.raises(UserError, match="is fine-tuning in the environment; finetune goes on from a run on a data set"):
        finetune.continuing(online)
    with pytest.raises(UserError, match="is not a run directory"):
        finetune.continuing(tmp_path)
    config = finetune.continuing(offline, steps=24, num_envs=2, segments=3)
    for share in (1.0, -0.1, "half"):
        with pytest.raises(UserError, match="neither a share from 0 to below 1 nor pooled"):
            jobs.resolve(dataclasses.replace(config, offline_fraction=share))
    with pytest.raises(UserError, match="n_critics is 2 in the agent that was trained and cannot become 3"):
        finetune.make(jobs.resolve(dataclasses.replace(config, settings={"n_critics": 3})))
    assert jobs.resolve(config).offline_fraction == 0.5
    assert jobs.resolve(dataclasses.replace(config, agent="iql", grid={})).offline_fraction == "pooled"


def test_the_policy_keeps_its_statistics_whatever_data_are_beside_it(offline, online, tmp_path):
    """Observations of the other data are 100 times as large: by their statistics the policy would see next to 0."""
    facts = json.loads((offline / "summary.json").read_text(encoding="utf-8"))
    kept = facts["preprocessing"]["td3_bc"]
    assert json.loads((online / "summary.json").read_text(encoding="utf-8"))["preprocessing"]["td3_bc"] == kept
    rows = data.load(offline.parent / "pushed.hdf5")
    larger = {name: 100 * getattr(rows, name) for name in ("observation", "next_observation")}
    data.save(dataclasses.replace(rows, **larger), tmp_path / "larger.hdf5")
    options = {"steps": 24, "num_envs": 2, "segments": 3, "dataset": str(tmp_path / "larger.hdf5")}
    for refit, spread, words in ((False, 1.0, "kept from the offline run"), (True, 100.0, "taken anew on these data")):
        job = finetune.make(jobs.resolve(finetune.continuing(offline, refit_statistics=refit, **options)))
        found = job.preprocessing["td3_bc"]
        np.testing.assert_allclose(found.std, spread * np.asarray(kept["std"]), rtol=1e-2)
        assert words in job.about["preprocessing"]["td3_bc"]
        assert float(jnp.abs(job.data.observation).max()) > 50
    agent, run = job.run(job.learners[0], None)
    state, hyper = (
        jax.tree.map(lambda leaf: leaf[0], tree) for tree in (job.start(job.learners[0]), job.learners[0].hypers)
    )
    key, state = jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], state)
    member, _ = jax.jit(run.train)(run.init(key, hyper, state), jnp.int32(0), key, hyper, agent.prepare(job.data))
    raw = np.asarray(found.mean) + np.asarray(member.replay.rows.observation[:10]) * np.asarray(found.std)
    np.testing.assert_allclose(np.square(raw[:, :2]).sum(axis=1), 1.0, rtol=1e-3)  # sine and cosine of the angle


def test_other_data_under_the_same_name_are_refused(offline, tmp_path, monkeypatch):
    config = jobs.resolve(finetune.continuing(offline, steps=24, num_envs=2, segments=3))
    file = offline.parent / "pushed.hdf5"
    kept = file.read_bytes()
    other = data.load(file)
    data.save(dataclasses.replace(other, reward=other.reward + 1), file)
    try:
        with pytest.raises(UserError, match=r"holds other data than .* was trained on"):
            finetune.make(config)
    finally:
        file.write_bytes(kept)
