"""Policies that leave their run: chosen, acting in the environment's own units, exported to run without the package."""

import json
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reg
from jaxrl_reg import envs, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.sinks import read_parquet
from jaxrl_reg.jobs import deployment, exporting, preprocessing
from jaxrl_reg.types import Policy, Spec, policy_of
from tests.pointnav_data import save_pointnav

SEEN = np.array([[0.1, -0.4], [0.7, 0.2], [-0.9, 0.9]], np.float32)


def config_of(path, agent, **more):
    sizes = {"seeds": 2, "seed_offset": 5, "updates": 4, "segments": 2, "batch_size": 8, "eval_episodes": 2}
    return jobs.SweepConfig(env="pointnav", agent=agent, dataset=str(path), hidden=(8,), **{**sizes, **more})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep over what is traced and what changes the program, and where it lies."""
    folder = tmp_path_factory.mktemp("deployment")
    grid = {"fraction": (0.1, 1.0), "policy": ("deterministic", "gaussian")}
    config = config_of(save_pointnav(folder / "pointnav.hdf5"), "percent_bc", grid=grid)
    outcome = jobs.sweep(config, directory=folder / "run", lean=True)
    return folder / "run", outcome


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    config = config_of(save_pointnav(folder / "pointnav.hdf5"), "tests.task_agent")
    return folder / "run", jobs.sweep(config, directory=folder / "run")


def last_scores(directory, agent):
    frame = read_parquet(directory / "metrics.parquet")
    frame = frame[(frame["agent"] == agent) & (frame["update"] == frame["update"].max())]
    return frame.set_index(["setting", "seed"])["eval/score"]


def test_the_best_member_acts_as_it_was_trained(trained):
    directory, outcome = trained
    scores = last_scores(directory, "percent_bc")
    act = jaxrl_reg.load_policy(directory)
    best = scores.groupby("setting").mean().max()
    assert scores.groupby("setting").mean()[act.about["setting"]] == best
    assert act.about["normalised score"] == pytest.approx(scores[act.about["setting"]].max())
    for setting, seed in ((0, 5), (3, 6)):  # the settings of the first program come first
        chosen = jobs.load_policy(directory, setting=setting, seed=seed)
        assert chosen.about["updates"] == 4
        assert chosen.about["fraction"] == pytest.approx((0.1, 1.0)[setting % 2])
        result, member = outcome.results[setting // 2], deployment.read_member(directory, setting, seed)
        policy = policy_of(member.agent, result.member(setting % 2, seed - 5), result.hyper(setting % 2))
        wanted, _ = policy.step(policy.start((3,)), SEEN, jnp.zeros(3), jax.random.key(0))
        np.testing.assert_allclose(chosen(SEEN), wanted, rtol=1e-6)
        chosen.reset()
        np.testing.assert_allclose(chosen(SEEN[1]), wanted[1], rtol=1e-5)


def test_observations_are_standardised_inside(trained):
    directory, outcome = trained
    facts = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    statistics = preprocessing.known(facts)["percent_bc"]
    assert not np.allclose(statistics.mean, 0.0, atol=0.05)
    program, member = jobs.learners("percent_bc", jobs.load_config(directory))[0], outcome.results[0].member(0, 0)
    bare = program.make(program.config, Spec(2, 2))
    key = jax.random.key(0)
    wanted = bare.act(member, statistics.observe(jnp.asarray(SEEN)), outcome.results[0].hyper(0), key, False)
    np.testing.assert_allclose(jobs.load_policy(directory, setting=0, seed=5)(SEEN), wanted, rtol=1e-5)


def test_neither_environment_nor_data_are_needed(trained, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("opened")

    monkeypatch.setattr(envs, "make", refuse)
    monkeypatch.setattr(jaxrl_reg.data, "load", refuse)
    assert jaxrl_reg.load_policy(trained[0])(SEEN).shape == (3, 2)


def test_what_is_not_there_is_one_line(trained, served, tmp_path):
    directory, _ = trained
    for wrong, words in (
        ({"setting": 4}, "settings 0 to 3, not 4"),
        ({"seed": 4}, "seeds 5 to 6, not 4"),
        ({"task": "reach"}, "takes neither a task nor a goal"),
    ):
        with pytest.raises(UserError, match=words):
            jobs.load_policy(directory, **wrong)
    with pytest.raises(UserError, match=r"no config\.json"):
        jobs.load_policy(tmp_path)
    with pytest.raises(UserError, match="unknown inferred task 'left'"):
        jobs.load_policy(served[0], task="left")
    act = jobs.load_policy(directory)
    with pytest.raises(UserError, match=r"observations \[2\] or \[B, 2\], not \[3\]"):
        act(np.zeros(3))
    act(SEEN)
    with pytest.raises(UserError, match=r"call reset\(\)"):
        act(SEEN[:2])


def test_an_agent_that_serves_tasks_keeps_what_it_inferred(served):
    directory, outcome = served
    member = deployment.read_member(directory, seed=6)
    act = jobs.load_policy(directory, seed=6)
    vectors = dict(np.load(directory / "tasks.npz"))
    own = next(iter(vectors))
    wanted = member.agent.zero_shot.act(
        outcome.result.member(0, 1), SEEN, jnp.asarray(vectors[own][0, 1]), jax.random.key(0)
    )
    np.testing.assert_allclose(act(SEEN), wanted, rtol=1e-6)
    goal = np.array([0.5, 0.5])
    towards = member.agent.zero_shot.goal_z(outcome.result.member(0, 1), jnp.asarray(goal, jnp.float32))
    wanted = member.agent.zero_shot.act(outcome.result.member(0, 1), SEEN, towards, jax.random.key(0))
    np.testing.assert_allclose(jobs.load_policy(directory, seed=6, goal=goal)(SEEN), wanted, rtol=1e-6)


def counting(actions):
    """A policy with a memory: it acts by ``actions`` plus the number of steps and all rewards so far."""

    def step(carry, observation, reward, key):
        count, paid = carry
        paid = paid + reward
        return actions(observation) + (count + paid)[..., None], (count + 1.0, paid)

    return Policy(lambda shape: (jnp.zeros(shape), jnp.zeros(shape)), step)


def test_actions_come_in_the_units_of_the_environment():
    limits = {"low": [-2.0, 0.0], "high": [2.0, 10.0]}
    scaled = deployment.in_own_units(counting(lambda seen: seen * 0.0 - 0.5), Spec(2, 2), limits)
    action, _ = scaled.step(scaled.start(()), SEEN[0], jnp.float32(0.0), jax.random.key(0))
    np.testing.assert_allclose(action, [-1.0, 2.5])
    whole = deployment.in_own_units(counting(lambda seen: seen), Spec(2, 2, discrete=True), None)
    action, _ = whole.step(whole.start((3,)), SEEN, jnp.zeros(3), jax.random.key(0))
    assert action.dtype == jnp.int32
    assert action.tolist() == [0, 0, 1]


def test_an_exported_policy_runs_where_the_package_is_not(trained, tmp_path):
    directory, _ = trained
    folder = jobs.export(directory, tmp_path / "policy", setting=3, seed=6)
    wanted = jobs.load_policy(directory, setting=3, seed=6)(SEEN)
    code = (
        "import json, runpy, sys\n"
        "for name in ('jaxrl_reg', 'flax', 'optax', 'orbax', 'brax'): sys.modules[name] = None\n"
        f"there = runpy.run_path({str(folder / 'act.py')!r})\n"
        f"print(json.dumps(there['act']({SEEN.tolist()!r})[0].tolist()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert out.returncode == 0, out.stderr
    np.testing.assert_allclose(json.loads(out.stdout), wanted, rtol=1e-5)
    facts = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    assert facts["platforms"] == ["cpu", "cuda", "tpu"]
    assert facts["member"]["policy"] == "gaussian"
    with pytest.raises(UserError, match="not an empty folder"):
        jobs.export(directory, folder)


def test_an_exported_program_that_another_jax_cannot_read_is_one_line(trained, tmp_path):
    folder = jobs.export(trained[0], tmp_path / "policy")
    (folder / "policy.bin").write_bytes(b"of another time" * 40)
    facts = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    assert facts["jax"] == jax.__version__
    year, month, _ = map(int, facts["written"].split("-"))
    until = f"{year + (month > 6)}-{(month + 5) % 12 + 1:02d}"  # half a year later
    words = rf"cannot read policy.bin: it was written by jax {jax.__version__} on {facts['written']}, .* up to {until};"
    with pytest.raises(SystemExit, match=words) as stopped:
        runpy.run_path(str(folder / "act.py"))
    assert "\n" not in str(stopped.value)


def test_a_memory_goes_through_the_exported_program_for_any_number_of_episodes():
    policy = counting(lambda seen: seen)
    program, memory = exporting._program(policy, Spec(2, 2))
    assert [leaf.shape for leaf in memory] == [(), ()]
    for episodes in (1, 3):
        carry, theirs = policy.start((episodes,)), [np.zeros(episodes, np.float32)] * 2
        for _ in range(2):
            wanted, carry = policy.step(carry, SEEN[:episodes], jnp.ones(episodes), jax.random.key(0))
            action, *theirs = program.call(
                SEEN[:episodes], np.ones(episodes, np.float32), np.zeros(2, np.uint32), *theirs
            )
            np.testing.assert_allclose(action, wanted)
