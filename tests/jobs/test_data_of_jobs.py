"""Data in jobs: read as asked, refused in one line, preprocessed as the paper of an agent does; statistics stay."""

import dataclasses
import importlib
import json
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import cli, data, jobs
from jaxrl_reg.data import preferences
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.files import read_json
from jaxrl_reg.jobs import deployment, kinds, learnt_rewards, preprocessing
from tests.pointnav_data import make_pointnav

SIZES = {"seeds": 2, "updates": 20, "segments": 2, "batch_size": 8, "eval_episodes": 2, "hidden": (8,)}


def config(path, **changes):
    return jobs.SweepConfig(**{"env": "pointnav", "agent": "td3_bc", "dataset": str(path), **SIZES, **changes})


def made(path, **changes):
    return kinds.load("offline").make(jobs.resolve(config(path, **changes)))


def refused(path, *parts, **changes):
    with pytest.raises(UserError) as error:
        made(path, **changes)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value), str(error.value)


@pytest.fixture(scope="module")
def columns():
    """Whole episodes of 30 steps in rooms of width 2: D4RL's arrays, positions far from zero."""
    rows = make_pointnav()
    names = ("observation", "action", "reward", "next_observation")
    arrays = {f"{name}s": np.asarray(getattr(rows, name)) for name in names}
    arrays["terminals"], arrays["timeouts"] = np.zeros(rows.size, bool), np.asarray(rows.last) == 1
    return arrays


@pytest.fixture
def file(tmp_path, columns):
    def write(name="data.hdf5", drop=(), **changes):
        path = tmp_path / name
        with h5py.File(path, "w") as opened:
            for key, value in {**columns, **changes}.items():
                if key not in drop:
                    opened[key] = value
        return path

    return write


def test_a_file_without_time_outs_takes_the_environments_limit_and_says_so(file):
    job = made(file(drop=["timeouts", "next_observations"]))
    assert job.about["episodes"] == 20
    assert any("after 30 steps, the environment's time limit" in line for line in job.lines)
    shorter = made(file(drop=["timeouts", "next_observations"]), max_episode_steps=15)
    assert shorter.about["episodes"] == 40
    assert any("where the environment allows 30" in line for line in shorter.lines)


def test_actions_are_rescaled_or_clipped_as_asked(file, columns):
    path = file(actions=columns["actions"] * 4)
    refused(path, "outside [-1, 1]", "--action-low", "--clip-actions")
    job = made(path, action_low=(-4.0,), action_high=(4.0, 4.0), max_episode_steps=15)
    np.testing.assert_allclose(job.data.action, columns["actions"], atol=1e-6)
    assert any("rescaled from [-4, 4]" in line for line in job.lines)
    assert job.facts()["actions"] == {"low": [-4.0, -4.0], "high": [4.0, 4.0]}
    clipped = made(path, clip_actions=True)
    assert any("clipped to [-1, 1]" in line for line in clipped.lines)
    assert clipped.facts()["actions"] == {"low": [-1.0, -1.0], "high": [1.0, 1.0]}


def test_integer_actions_are_not_trained_as_continuous_ones(file, columns):
    path = file(actions=np.zeros(600, int))
    refused(path, "integer actions", "discrete", "pointnav takes 2 continuous ones")


def test_what_has_no_rewards_trains_only_who_needs_none(tmp_path, columns):
    archive = {key: columns[key] for key in ("observations", "actions")}
    np.savez(tmp_path / "maze-navigate-v0.npz", **archive, terminals=columns["timeouts"], qpos=archive["observations"])
    path = tmp_path / "maze-navigate-v0.npz"
    refused(path, "has no rewards, and td3_bc learns from them", "gc_iql")
    refused(path, "has no rewards, and iql learns from them", agent="iql")
    for agent in ("bc", "gc_iql"):
        job = made(path, agent=agent)
        assert job.about["returns"] == []
        assert job.lines[0 if agent == "bc" else 1].endswith("20 episodes, no rewards")
    assert any("scores say what it does without one" in line for line in job.lines)
    own = made(path, agent="tests.toy_agent")
    assert any("wherever tests.toy_agent looks at one, it is 0" in line for line in own.lines)


def test_parts_of_observations_are_chosen_on_the_command_line(file, columns, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    parts = {f"observations/{name}": columns["observations"][:, i] for i, name in enumerate("xy")}
    path = file(drop=["observations", "next_observations"], **parts)
    line = f"train --env pointnav --agent bc --dataset {path} --seeds 1 --updates 2 --segments 1 --eval-episodes 1"
    assert cli.main(f"{line} --hidden 4 --out {tmp_path / 'run'}".split()) == 2
    assert "--observation-keys x,y" in capsys.readouterr().err
    words = f"{line} --hidden 4 --out {tmp_path / 'run'} --observation-keys x,y --action-low -1,-2 --action-high 3"
    assert cli.main(words.split()) == 0
    stored = jobs.load_config(tmp_path / "run")
    assert (stored.observation_keys, stored.action_low, stored.action_high) == (("x", "y"), (-1.0, -2.0), (3.0,))
    member, seen, key = deployment.read_member(tmp_path / "run"), np.array([0.3, -0.6], np.float32), jax.random.key(0)
    inner = np.clip(member.agent.act(member.state, jnp.asarray(seen), member.hyper, key, False), -1.0, 1.0)
    own = np.array([-1.0, -2.0]) + (inner + 1) / 2 * np.array([4.0, 5.0])  # the policy acts in the data's own units
    np.testing.assert_allclose(jobs.load_policy(tmp_path / "run")(seen), own, rtol=1e-5)


def test_data_are_preprocessed_as_papers_do_or_as_asked(file, columns):
    path = file(rewards=columns["observations"][:, 0])
    job = made(path)
    (student,), (rival,) = job.learners, job.rivals
    assert sorted(job.preprocessing) == ["bc", "td3_bc"]
    assert job.about["preprocessing"] == {"td3_bc": "observations standardised over the data"}
    observation = np.asarray(job.data.observation)
    trained = job.run(student, None)[0].prepare(job.data)
    np.testing.assert_allclose(
        trained.observation, (observation - observation.mean(0)) / (observation.std(0) + 1e-3), atol=1e-4
    )
    cloned = job.run(rival, None)[0]
    assert cloned.prepare is None
    np.testing.assert_allclose(np.sum(job.about["returns"]), columns["observations"][:, 0].sum(), rtol=1e-3)
    scaled = made(path, agent="iql")
    spread = np.ptp(scaled.about["returns"])
    agent = scaled.run(scaled.learners[0], None)[0]
    np.testing.assert_allclose(agent.prepare(scaled.data).reward, scaled.data.reward * 1000 / spread, rtol=1e-3)
    assert any("rewards times" in line and "iql is trained on" in line for line in scaled.lines)
    assert made(path, agent="iql", reward_scale="none").about["preprocessing"] == {}
    both = made(path, normalise="on", reward_scale="0.5").about["preprocessing"]
    assert both["td3_bc"] == "observations standardised over the data, rewards times 0.5"
    assert both["bc"] == "observations standardised over the data"  # of rewards it has no use
    assert made(path, normalise="off").about["preprocessing"] == {}
    refused(path, "value of --normalise 'onn'; did you mean 'on'?", normalise="onn")
    refused(path, "neither a number above 0 nor 'returns' or 'none'", reward_scale="big")


def test_statistics_stay_with_the_run(tmp_path, file, columns):
    """Positions moved far away: an agent that were given them as they are would do something else."""
    path = file()
    outcome = jobs.sweep(config(path), directory=tmp_path / "run", lean=True)
    facts = read_json(tmp_path / "run" / "summary.json")
    job = made(path)
    stored = preprocessing.known(json.loads(json.dumps(facts)))["td3_bc"]
    for one, other in zip(jax.tree.leaves(stored), jax.tree.leaves(job.preprocessing["td3_bc"]), strict=True):
        assert one.tobytes() == other.tobytes()
    path.unlink()  # what is done with a run afterwards needs no data
    again = kinds.load("offline").reopen(jobs.load_config(tmp_path / "run"), facts)
    (member,) = again.learners
    state, hyper = outcome.result.member(0, 0), outcome.result.hyper(0)
    observation = jax.numpy.asarray(columns["observations"][:5])
    policy = again.keep(member)(state, hyper)
    action, _ = policy.step(policy.start((5,)), observation, jax.numpy.zeros(5), jax.random.key(0))
    plain = jobs.learner("td3_bc", jobs.load_config(tmp_path / "run"))
    agent = plain.make(plain.config, again.world.spec)
    wanted = agent.act(state, stored.observe(observation), hyper, jax.random.key(0), False)
    np.testing.assert_allclose(action, wanted, atol=1e-6)
    assert not np.allclose(action, agent.act(state, observation, hyper, jax.random.key(0), False), atol=1e-4)


def test_the_full_scale_is_the_papers_own(monkeypatch):
    def sizes(agent, **changes):
        found = jobs.resolve(jobs.SweepConfig(agent=agent, scale="full", **changes))
        return found.updates, found.batch_size, found.hidden

    assert sizes("rebrac") == (1_000_000, 1024, None)
    assert sizes("edac") == (3_000_000, 256, None)
    assert sizes("decision_transformer") == (100_000, 1280, None)
    assert sizes("rebrac", updates=100, batch_size=7) == (100, 7, None)
    lines = kinds.load("offline")._unpublished(jobs.resolve(jobs.SweepConfig(agent="dm1", scale="full")))
    assert lines == ["the paper of dm1 names no budget for data of its own: updates=1,000,000, batch_size=256"]
    assert kinds.load("offline")._unpublished(jobs.resolve(jobs.SweepConfig(agent="iql", scale="full"))) == []


def test_a_name_below_the_folder_of_data_sets_is_found(tmp_path):
    data.save(make_pointnav(), tmp_path / "datasets" / "mine" / "noisy.hdf5")
    job = made("mine/noisy", data_dir=str(tmp_path / "datasets"))
    assert job.about["rows"] == 600
    refused("mine/none", "data set mine/none does not exist", data_dir=str(tmp_path / "datasets"))


@pytest.mark.parametrize("by", ["pairs", "reward_from_pairs", "settings"])
def test_a_missing_file_of_pairs_is_told_before_data_are_collected_for_it(tmp_path, by):
    missing = str(tmp_path / "pairs.parquet")
    given = {by: {"pairs_file": missing} if by == "settings" else missing}
    agent = "iql" if by == "reward_from_pairs" else "preference"
    config = jobs.SweepConfig(env="pointnav", agent=agent, data_dir=str(tmp_path / "data"), **given)
    with pytest.raises(UserError, match=r"pairs\.parquet does not exist"):
        jobs.sweep(config, directory=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["h5py", "orbax", "jinja2", "matplotlib"])
def test_a_package_that_is_needed_at_the_end_is_missed_at_the_beginning(package, tmp_path, monkeypatch):
    asked = config("medium", data_dir=str(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs the package {package}; pip install"):
        jobs.sweep(asked, directory=tmp_path / "run")
    if package in ("h5py", "orbax"):
        with pytest.raises(UserError, match=f"needs the package {package}; pip install"):
            jobs.collect(asked, say=lambda line: pytest.fail(line))
    assert list(tmp_path.iterdir()) == []


def test_a_reward_learnt_from_pairs_stands_in_for_the_datas(file, tmp_path, monkeypatch):
    monkeypatch.setattr(learnt_rewards, "UPDATES", 300)
    path, pairs = file(), tmp_path / "pairs.parquet"
    rows = made(path, agent="iql", reward_scale="none").data
    preferences.table_of(preferences.judged(rows, 8, 400, temperature=0.05), rows).to_parquet(pairs)
    options = {"agent": "iql", "reward_scale": "none", "reward_from_pairs": str(pairs), "pair_steps": 8}
    job = made(path, **options)
    assert any(line.startswith("rewards learnt from 400 pairs") for line in job.lines)
    assert np.corrcoef(job.data.reward, rows.reward)[0, 1] > 0.5
    assert np.abs(job.data.reward - rows.reward).max() > 0.1
    np.testing.assert_array_equal(made(path, **options).data.reward, job.data.reward)
    refused(path, "bc learns without rewards", **{**options, "agent": "bc"})
    refused(path, "give them as --pairs", **{**options, "agent": "preference"})


def test_a_season_that_is_logged_beside_the_rewards_is_taken_out_of_them(file, columns):
    season = np.arange(len(columns["rewards"])) % 3
    path = file(rewards=columns["rewards"] + 5.0 * season, **{"infos/season": season})
    options = {"agent": "iql", "reward_scale": "none", "deconfound": ("season",)}
    job = made(path, **options)
    assert np.abs(job.data.reward - columns["rewards"] - 5.0).max() < 0.3  # at the mean of the season
    (note,) = (note for note in job.about["notes"] if "without the effect of season" in note)  # which the report shows
    assert note in job.lines
    refused(path, "missing key 'infos/seson'; it has season", **{**options, "deconfound": ("seson",)})
    refused(path, "bc learns without rewards, so leave out --deconfound", **{**options, "agent": "bc"})
    refused(path, "--instruments move what --deconfound names", agent="iql", instruments=("season",))
    both = jobs.SweepConfig(agent="iql", deconfound=("season",), reward_from_pairs="pairs.parquet")
    with pytest.raises(UserError, match="give one"):
        learnt_rewards.refuse(both)
    refused("medium", "medium is collected here", **options)


def test_random_data_train_no_expert(tmp_path):
    said = []
    asked = config("random", env="pendulum", collect_steps=6_400, data_dir=str(tmp_path))
    path = jobs.collect(asked, say=said.append)
    assert not any("soft actor-critic" in line for line in said)
    rows = data.load(path)
    assert np.isfinite(rows.score_random)
    assert np.isnan(rows.score_expert)
    np.testing.assert_allclose(rows.score_random, data.behaviour(rows).returns.mean(), rtol=1e-5)
    about = jobs.summarise(rows, asked, path, 200)
    assert "no expert's score is known" in jobs.collection.data_line(about)
    expert = dataclasses.replace(rows, score_random=rows.score_random, score_expert=rows.score_random * 0)
    data.save(expert, path.with_name("medium.hdf5"))
    path.unlink()
    assert float(data.load(jobs.collect(asked)).score_expert) == 0.0  # of what was collected beside it


def test_fine_tuning_keeps_the_statistics_of_the_run(tmp_path, file, monkeypatch):
    from jaxrl_reg.jobs.kinds import finetune

    loop = importlib.import_module("jaxrl_reg.loops.finetune")
    jobs.sweep(config(file(), reward_scale="2"), directory=tmp_path / "run", lean=True)
    facts = read_json(tmp_path / "run" / "summary.json")
    facts["preprocessing"]["td3_bc"]["mean"] = [0.25, -0.25]  # other than the data have now
    (tmp_path / "run" / "summary.json").write_text(json.dumps(facts))
    asked, made_with = jobs.resolve(finetune.continuing(tmp_path / "run", steps=8, num_envs=2, segments=1)), {}
    job = finetune.make(asked)
    (member,) = job.learners
    monkeypatch.setattr(loop, "finetune", lambda agent, *args, **options: made_with.update(options) or loop_run(agent))
    rows = data.take(job.data, jax.numpy.arange(4))

    def loop_run(agent):
        made_with["agent"] = agent
        return kinds.load("offline").run_of(jobs.learner("bc", config("x")), jobs.resolve(config("x")), job.world)[1]

    job.run(member, None)
    seen = made_with["preprocess"](rows)
    std = np.asarray(facts["preprocessing"]["td3_bc"]["std"])
    np.testing.assert_allclose(seen.observation, (rows.observation - np.array([0.25, -0.25])) / std, atol=1e-5)
    np.testing.assert_allclose(seen.reward, 2 * rows.reward)
    prepared = made_with["agent"].prepare(job.data)
    np.testing.assert_allclose(prepared.observation[:4], seen.observation, atol=1e-5)
