"""Tasks put to an agent after training: labels by executing again, judging in the graph, the verb and its refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, data, envs, jobs
from jaxrl_reg.envs import pointnav
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import statistics
from jaxrl_reg.loops import zero_shot
from tests import task_agent
from tests.pointnav_data import make_pointnav

SEEDS, STRIDES = 2, (0.0, 0.4)


def with_physics():
    rows = make_pointnav(episodes=40)
    return dataclasses.replace(rows, extras={"physics": rows.observation})


@pytest.fixture(scope="module")
def env():
    return envs.make("pointnav")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sweep of an agent that serves tasks, from beginning to end."""
    folder = tmp_path_factory.mktemp("zeroshot")
    data.save(with_physics(), folder / "rows.hdf5")
    config = jobs.SweepConfig(
        env="pointnav",
        agent="tests.task_agent",
        dataset=str(folder / "rows.hdf5"),
        grid={"stride": STRIDES},
        seeds=SEEDS,
        updates=4,
        segments=2,
        batch_size=8,
        eval_episodes=8,
        hidden=(8,),
    )
    said = []
    outcome = jobs.sweep(config, directory=folder / "run", say=said.append)
    return outcome, said


def test_rows_are_executed_again_and_labelled_by_what_they_lead_to(env):
    rows = with_physics()
    tasks = [*zero_shot.tasks_of(env, ["bottom_left", "top_right"]), zero_shot.own_reward()]
    shifted = dataclasses.replace(rows, next_observation=rows.next_observation + 5, reward=rows.reward - 7)
    labelled = zero_shot.relabel(env, shifted, tasks, jax.random.key(0), samples=10_000)
    assert labelled.observation.shape == (rows.size, 2)
    np.testing.assert_allclose(labelled.observation, rows.next_observation, atol=1e-6)
    for values, task in zip(labelled.reward, ("bottom_left", "top_right", "top_right"), strict=True):
        expected = np.linalg.norm(np.asarray(rows.next_observation) - pointnav.GOALS[task], axis=1) < 0.4
        np.testing.assert_array_equal(values, expected)
    some = zero_shot.relabel(env, rows, tasks, jax.random.key(0), samples=50)
    places = {tuple(row) for row in np.asarray(labelled.observation).round(5).tolist()}
    assert some.observation.shape == (50, 2)
    assert {tuple(row) for row in np.asarray(some.observation).round(5).tolist()} <= places


def test_without_physics_only_rewards_of_observations_serve(env):
    rows = make_pointnav()
    task = zero_shot.task_of("east", lambda s, a, following: following[0] - s[0] + 0 * a[0], env)
    labelled = zero_shot.relabel(env, rows, [task, zero_shot.own_reward()], jax.random.key(0))
    np.testing.assert_array_equal(labelled.observation, rows.next_observation)
    np.testing.assert_allclose(labelled.reward[0], rows.next_observation[:, 0] - rows.observation[:, 0], atol=1e-6)
    np.testing.assert_array_equal(labelled.reward[1], rows.reward)
    with pytest.raises(UserError, match=r"'pointnav-test' holds no physics states.*top_left"):
        zero_shot.relabel(env, rows, zero_shot.tasks_of(env, ["top_left"]), jax.random.key(0))


def test_every_task_is_judged_by_its_own_reward(env):
    """Going to each corner reaches it; going to the opposite one does not."""
    tasks = zero_shot.tasks_of(env)
    labelled = zero_shot.relabel(env, with_physics_everywhere(), tasks, jax.random.key(0))
    agent = task_agent.make(task_agent.Config(), env.spec)
    state = agent.init(jax.random.key(0), task_agent.Hyper())
    results = jax.jit(lambda key: zero_shot.judge(env, tasks, 8)(zero_shot.serve(agent, state, labelled), key))(
        jax.random.key(1)
    )
    assert results["return"].shape == (4, 8)
    assert results["return"].min() > 20  # of 30 steps
    wrong = labelled._replace(reward=labelled.reward[::-1])  # corners in the order of the tasks: opposite ones last
    results = zero_shot.judge(env, tasks, 8)(zero_shot.serve(agent, state, wrong), jax.random.key(1))
    assert results["return"].max() < 8


def with_physics_everywhere():
    rng = np.random.default_rng(0)
    position = rng.uniform(-1, 1, (2000, 2))
    action = rng.uniform(-0.3, 0.3, (2000, 2))
    following = np.clip(position + 0.5 * action, -1, 1)
    ends = np.arange(2000) % 20 == 19
    return data.from_arrays(
        position, action, ends * 0.0, ends * 0, ends, following, name="everywhere", extras={"physics": position}
    )


def test_the_data_are_judged_by_the_mean_over_tasks(env):
    rows = with_physics_everywhere()
    judged = zero_shot.mean_relabelled(env, rows)
    reached = np.asarray(rows.observation)[np.minimum(np.arange(2000) + 1, np.asarray(rows.end) - 1)]
    goals = np.array(list(pointnav.GOALS.values()))
    inside = np.linalg.norm(reached[:, None] - goals, axis=-1) < 0.4
    np.testing.assert_allclose(judged.reward, inside.mean(axis=1))
    assert np.isnan(judged.score_expert)


@pytest.mark.slow
def test_training_is_evaluated_on_all_tasks(run):
    outcome, said = run
    metrics = outcome.result.metrics
    names = [f"eval/{task}" for task in pointnav.TASKS]
    np.testing.assert_allclose(metrics["eval/return"], np.mean([metrics[name] for name in names], axis=0), rtol=1e-5)
    assert (metrics["eval/return"][1] > 2 * metrics["eval/return"][0]).all()  # moving beats standing still
    assert any(line.startswith("judged by the mean return over top_left") for line in said)
    frame = pd.read_parquet(outcome.directory / "metrics.parquet")
    assert "eval/score" not in frame
    table = jobs.evaluate(outcome.directory, episodes=8)
    assert table["agent"].tolist() == ["tests.task_agent", "tests.task_agent", "bc", "behaviour"]


@pytest.mark.slow
def test_the_verb_judges_tasks_and_rewards_of_ones_own(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    outcome, _ = run
    file = tmp_path / "mine.py"
    file.write_text("def east(observation, action, next_observation):\n    return next_observation[0] > 0.5\n")
    line = ["zeroshot", str(outcome.directory), "--task", "top_left,top_right", "--reward", f"{file}:east"]
    assert cli.main([*line, "--episodes", "5", "--samples", "1000"]) == 0
    out = capsys.readouterr().out
    assert "stride=0.4" in out.splitlines()[-6]
    assert [row.split()[0] for row in out.splitlines()[-5:-1]] == ["top_left", "top_right", "east", "all"]
    frame = pd.read_parquet(outcome.directory / "zeroshot.parquet")
    assert len(frame) == SEEDS * len(STRIDES) * 3
    assert frame["samples"].unique().tolist() == [1000]
    assert (frame[frame["stride"] == np.float32(0.4)].query("task == 'east'")["score"] > 20).all()

    table = jobs.zeroshot(outcome.directory, ["bottom_left"], episodes=5)
    frame = pd.read_parquet(outcome.directory / "zeroshot.parquet")
    assert set(frame["task"]) == {"top_left", "top_right", "east", "bottom_left"}  # earlier ones are kept
    assert table["task"].tolist() == ["bottom_left", "all tasks"] * 2
    assert table["iqm"].tolist()[::2] == table["iqm"].tolist()[1::2]  # all tasks of this call
    moving = frame[(frame["setting"] == 1) & (frame["task"] == "top_right")]
    row = pd.read_csv(outcome.directory / "zeroshot.csv").query("setting == 1 and task == 'top_right'").iloc[0]
    assert row["iqm"] == pytest.approx(float(statistics.iqm(jnp.asarray(moving["score"])[:, None])), rel=1e-5)
    assert row["low"] <= row["iqm"] <= row["high"]
    page = (outcome.directory / "report.html").read_text()
    assert "Tasks put to it after training" in page
    assert (outcome.directory / "zeroshot.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def far(o, a, n):\n    return n",
            r"far must give one number for .* an array of shape \(2,\)",
        ),
        ("def far(o, a):\n    return o[0]", "far fails on one step: TypeError"),
        ("def far(o, a, n):\n    return None", "far must give one number .* gives a NoneType"),
        ("import jax.numpy as jnp\ndef far(o, a, n):\n    return jnp.sqrt(n[0] - 9)", "far is nan for 1,200 of 1,200"),
        ("def near(o, a, n):\n    return n[0]", "unknown function of .* 'far'"),
        ("def far(o, a, n:\n", "cannot be imported: SyntaxError"),
    ],
)
def test_a_reward_that_does_not_work_is_refused_in_one_line(env, tmp_path, source, message):
    file = tmp_path / "mine.py"
    file.write_text(source)

    def use():
        zero_shot.relabel(env, with_physics(), [zero_shot.load_task(f"{file}:far", env)], jax.random.key(0))

    with pytest.raises(UserError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_what_cannot_be_served_is_refused(run, tmp_path, env):
    outcome, _ = run
    with pytest.raises(UserError, match="unknown task of pointnav 'top_lft'; did you mean 'top_left'"):
        jobs.zeroshot(outcome.directory, ["top_lft"])
    with pytest.raises(UserError, match="task top_left is named twice"):
        jobs.zeroshot(outcome.directory, ["top_left", "top_left"])
    with pytest.raises(UserError, match=r"is not FILE\.py:FUNCTION"):
        jobs.zeroshot(outcome.directory, rewards=["mine.py"])
    with pytest.raises(UserError, match="there is no file"):
        jobs.zeroshot(outcome.directory, rewards=["nowhere.py:far"])
    with pytest.raises(UserError, match="offers only its own reward"):
        zero_shot.tasks_of(envs.make("pendulum"), ["swing"])
    jobs.files.create_run(
        tmp_path / "iql",
        jobs.resolve(jobs.SweepConfig(env="pointnav", agent="iql")),
        jobs.learners("iql", jobs.resolve(jobs.SweepConfig())),
    )
    with pytest.raises(UserError, match="iql learns one task"):
        jobs.zeroshot(tmp_path / "iql")
