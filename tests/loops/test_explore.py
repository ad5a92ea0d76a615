"""Exploration without a task: what is kept, where it has been, and that the same call finds it again."""

import jax
import numpy as np
import pytest

from jaxrl_reg import data, envs, jobs
from jaxrl_reg.envs import pointnav
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.explore import CELLS, coverage, explore

SMALL = {"steps": 640, "num_envs": 4, "segments": 2, "updates": 1, "batch_size": 8, "warmup": 40, "hidden": (8,)}


def explored(behavior):
    env = envs.make("pointnav", episode_length=10)
    exploration = explore(behavior, env, **({**SMALL, "skills": 3} if behavior == "diayn" else SMALL))
    state, history = jax.jit(exploration.run)(jax.random.key(0), exploration.hyper)
    return env, exploration.dataset(state, behavior), history


@pytest.mark.parametrize("behavior", ["random", "diayn"])
def test_what_is_kept_is_the_world_without_the_skill(behavior):
    _, rows, _ = explored(behavior)
    assert rows.size == 640 + (0 if behavior == "random" else 40)
    assert rows.observation.shape[1] == 2
    np.testing.assert_array_equal(rows.extras["physics"], rows.observation)
    np.testing.assert_allclose(rows.next_observation, pointnav.dynamics(rows.observation, rows.action), atol=1e-6)
    going = np.asarray(rows.last[:-1]) == 0
    np.testing.assert_array_equal(rows.next_observation[:-1][going], rows.observation[1:][going])
    if behavior == "diayn":
        skill = np.asarray(rows.extras["skill"])
        np.testing.assert_array_equal(skill.sum(axis=1), 1)
        np.testing.assert_array_equal(skill[1:][going], skill[:-1][going])  # one skill per episode
        assert skill.any(axis=0).all()


def test_coverage_counts_visited_cells():
    env, rows, _ = explored("random")
    seen = coverage(env, rows)
    assert seen.counts.shape == (CELLS, CELLS)
    assert seen.counts.sum() == rows.size
    cells = np.clip(((np.asarray(rows.observation) + 1) / 2 * CELLS).astype(int), 0, CELLS - 1)
    assert seen.fraction == pytest.approx(len({tuple(cell) for cell in cells}) / CELLS**2)
    with pytest.raises(UserError, match="coverage needs"):
        coverage(envs.make("pendulum"), rows)


def test_bad_behaviour():
    with pytest.raises(UserError, match="unknown behavior 'rdn'; did you mean 'rnd'"):
        explore("rdn", envs.make("pointnav"), steps=64)


def test_the_job_writes_a_data_set_that_a_sweep_finds(tmp_path):
    config = jobs.SweepConfig(
        env="pointnav", dataset="rnd", data_dir=str(tmp_path), collect_steps=600, hidden=(8,), scale="small"
    )
    said, ticks = [], []
    path = jobs.collect(config, say=said.append, on_tick=ticks.append)
    assert path == jobs.dataset_path(config) == tmp_path / "pointnav" / "rnd.hdf5"
    assert {item.name for item in path.parent.iterdir()} == {"rnd.hdf5", "rnd.png"}
    rows, about = data.load(path), data.metadata(path)
    assert rows.size == 640 + 16  # whole segments, and the warm-up
    assert about["behavior"] == "rnd"
    assert f"{about['coverage']:.0%} of 400 cells" in said[-1]
    assert (ticks[0].stage, ticks[-1].done, ticks[-1].total) == ("rnd", 640, 640)
    said.clear()
    assert jobs.explore(config, "rnd", say=said.append) == path
    assert "already there" in said[0]
