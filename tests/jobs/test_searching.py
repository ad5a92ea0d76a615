"""``collect --behavior stax``: data sets of a search that a sweep finds, its picture, and what too little is told."""

import jax
import numpy as np
import pytest

from jaxrl_reg import data, envs, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.report.page import picture_of
from jaxrl_reg.loops import search, solutions
from jaxrl_reg.search import outcomes

WORLD = """
from jaxrl_reg import envs
def make(radius=1.2):
    return envs.make("rooms", layout="....G ..... ..... S....", radius=radius, episode_length=6, speed=0.3)
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "small_world.py").write_text(WORLD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return jobs.SweepConfig(
        env="small_world.py", dataset="stax-rewarding", data_dir="data", collect_steps=960, scale="small"
    )


def test_the_job_writes_data_sets_that_a_sweep_finds(config):
    said, ticks = [], []
    path = jobs.collect(config, say=said.append, on_tick=ticks.append)
    assert path == jobs.dataset_path(config)
    assert {item.name for item in path.parent.iterdir()} == {
        "stax.hdf5", "stax-rewarding.hdf5", "stax.npz", "stax.png",
    }  # fmt: skip
    assert (ticks[-1].done, ticks[-1].total, ticks[-1].score_name) == (960, 960, "max_fitness")
    kept = np.load(path.parent / "stax.npz")
    every, rewarding = data.load(path.with_name("stax.hdf5")), data.load(path)
    # 960 steps are 160 episodes of 6: one round of 150 of the smallest search, and its first 8.
    assert every.size == 6 * 158
    np.testing.assert_allclose(data.episode_returns(every), kept["fitness"])
    np.testing.assert_array_equal(every.extras["physics"][:, :2], every.observation)
    np.testing.assert_allclose(every.next_observation[5::6], kept["place"], atol=1e-6)
    returns = data.episode_returns(rewarding)
    assert len(returns) == len(kept["rewarding"]) <= 64
    assert (returns > 0).all()
    np.testing.assert_allclose(returns.max(), kept["fitness"].max())
    assert data.metadata(path)["behavior"] == "stax"
    assert "150 episodes" in said[0]
    assert "rewarding solutions" in "\n".join(said)
    shown = picture_of({"dataset": {"picture": jobs.collection.picture_beside(path)}})
    assert shown["collected"][0].startswith("data:image/png;base64,iVBOR")
    assert picture_of({"dataset": {"picture": "gone.png"}}) == picture_of({}) == {}
    said.clear()
    assert jobs.explore(config, "stax", say=said.append) == path.with_name("stax.hdf5")
    assert "already there" in said[0]
    path.unlink()
    with pytest.raises(UserError, match="found nothing rewarding; search with more --collect-steps"):
        jobs.collect(config)


def test_too_few_steps_are_refused_with_what_is_needed(config):
    with pytest.raises(UserError, match=r"at least 158 episodes, and there is room for 53: 320 steps of"):
        jobs.explore(jobs.SweepConfig(**{**vars(config), "collect_steps": 300}), "stax")
    with pytest.raises(UserError, match="unknown behavior 'staxx'; did you mean 'stax'"):
        jobs.explore(config, "staxx")


def test_sizes_fit_the_budget():
    for budget in (158, 500, 1_500, 2_000, 7_470, 100_000):
        sizes, rounds = search.within(budget)
        cost = sizes.evaluations(True)
        assert sizes.population + rounds * cost <= budget < sizes.population + (rounds + 1) * cost
    assert search.within(7_470) == (search.Sizes(), 5)
    assert search.within(7_469)[0].population == 16


def test_solutions_of_another_network_or_none_are_refused():
    env = envs.make("rooms")
    policy = outcomes.policy(env.spec, (2,))
    with pytest.raises(UserError, match="solutions have 3 weights, the policy 12"):
        solutions.episodes(env, policy, jax.random.key(0), np.zeros((2, 3)), name="mine")
    with pytest.raises(UserError, match="no solutions to play"):
        solutions.episodes(env, policy, jax.random.key(0), np.zeros((0, 12)), name="mine")
