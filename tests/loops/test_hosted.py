"""Evaluation in Gymnasium's environments between segments of training."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, envs, population
from jaxrl_reg.envs.adapters import gymnasium as adapter
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import hosted
from jaxrl_reg.loops.offline import EVALUATE
from jaxrl_reg.types import Policy, Run, pytree, setting

from ..envs import host_worlds

SEEDS = list(range(20, 27))


def steady(observation, reward, goal, episode, step):
    """The action depends on the episode and the step, so that mixing them up shows."""
    return np.clip(0.1 * observation[:, :1] + 0.1 * step[:, None] - 0.2 * (episode[:, None] % 3), -1.5, 1)


@pytest.mark.parametrize("side_by_side", [1, 3, 16])
def test_episodes_side_by_side_are_those_of_a_loop_by_hand(side_by_side):
    world = adapter.make("jaxrl_reg_test/Line-v0", side_by_side=side_by_side)
    assert (world.spec.observation_dim, world.spec.action_dim, world.spec.max_episode_steps) == (2, 1, 6)
    assert (world.tasks, world.goals, world.succeeds) == ((), False, False)
    found = world.episodes(steady, SEEDS)
    world.close()
    for episode, seed in enumerate(SEEDS):
        env, total, ended, step = host_worlds.Line(), 0.0, False, 0
        seen, _ = env.reset(seed=seed)
        while not ended and step < 6:
            wanted = steady(np.float32(seen).reshape(1, 2), None, None, np.array([episode]), np.array([step]))[0]
            seen, reward, ended, _, _ = env.step(np.float32(-0.5 + (np.clip(wanted, -1, 1) + 1)))
            total, step = total + reward, step + 1
        np.testing.assert_allclose(found["return"][episode], total, rtol=1e-5)
        assert found["length"][episode] == step
    assert 1 <= found["length"].min() < found["length"].max() == 6, "both ways of ending should happen"
    assert np.isnan(found["success"]).all()


def towards(observation, reward, goal, episode, step):
    return np.clip(2 * (goal - observation), -1, 1)


def test_every_task_has_its_goal_and_its_success():
    world = adapter.make("jaxrl_reg_test/Goals-v0", side_by_side=2)
    assert (world.tasks, world.goals, world.succeeds) == (("task1", "task2"), True, True)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    near, far = (world.episodes(towards, SEEDS, task) for task in (1, 2))
    np.testing.assert_array_equal(near["success"], 1)
    np.testing.assert_array_equal(near["return"], 1 - near["length"])
    np.testing.assert_array_equal(far["success"], 0)
    np.testing.assert_array_equal(far["length"], 8)
    again = world.episodes(towards, SEEDS, 1)
    np.testing.assert_array_equal(again["length"], near["length"])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_entries_of_a_dictionary_are_put_side_by_side():
    assert adapter.make("jaxrl_reg_test/Entries-v0").spec.observation_dim == 3
    seen = []

    def act(observation, reward, goal, episode, step):
        seen.append(observation)
        return np.zeros((len(observation), 1))

    world = adapter.make("jaxrl_reg_test/Entries-v0", observation_keys=["walked", "observation"], side_by_side=2)
    world.episodes(act, SEEDS[:2])
    assert [float(one[0, 0]) for one in seen] == list(range(len(seen)))
    assert (np.abs(seen[0][:, 1]) <= 1).all()
    with pytest.raises(UserError, match="did you mean 'observation'"):
        adapter.make("jaxrl_reg_test/Entries-v0", observation_keys=["obsevation"])


def test_what_cannot_be_had_is_one_line():
    with pytest.raises(UserError, match="did you mean 'Pendulum-v1'"):
        adapter.make("Pendulun-v1")
    with pytest.raises(UserError, match="must be boxes"):
        adapter.make("CartPole-v1")
    with pytest.raises(UserError, match="nowhere_at_all cannot be imported"):
        adapter.make("nowhere_at_all:Thing-v0")
    with pytest.raises(UserError, match="runs on the host"):
        envs.make("gymnasium/Pendulum-v1")
    world = adapter.make("jaxrl_reg_test/Line-v0")
    with pytest.raises(UserError, match="tells no goal"):
        hosted.judge(world, lambda *_: None, 2, goals=True)


def test_a_world_of_a_module_of_ones_own_and_of_gymnasium_itself():
    name = "tests.envs.host_worlds:jaxrl_reg_test/Line-v0"
    assert adapter.make(name).spec.max_episode_steps == 6
    pendulum = adapter.make("Pendulum-v1", episode_length=5, side_by_side=2)
    found = pendulum.episodes(lambda observation, *_: -observation[:, :1], SEEDS[:3])
    env = gymnasium.make("Pendulum-v1", max_episode_steps=5)
    seen, _ = env.reset(seed=SEEDS[2])
    total = 0.0
    for _ in range(5):
        seen, reward, *_ = env.step(np.clip(-2 * seen[:1], -2, 2))
        total += reward
    np.testing.assert_allclose(found["return"][2], total, rtol=1e-5)


@pytree
class Hyper:
    push: float = setting(default=0.0, help="where the policy heads for, with the goal")


def counting(state, hyper, goal):
    """Remembers how many steps it has taken in this episode, and acts on it."""

    def step(memory, observation, reward, key):
        return jnp.stack([0.1 * memory + hyper.push + state["w"]]) - 0.3, memory + 1

    return Policy(lambda shape: jnp.zeros(shape), step)


def make_run(world, segments=3):
    def train(state, index, key, hyper, data):
        noise = 0.1 * jax.random.normal(jax.random.fold_in(key, index))
        return {"w": state["w"] + noise}, {"loss": noise}

    run = Run(lambda key, hyper: {"w": 0.2 * jax.random.normal(key)}, train, None, segments, 1)
    return dataclasses.replace(run, judge=hosted.judge(world, counting, 3))


@pytest.fixture(scope="module")
def line():
    return adapter.make("jaxrl_reg_test/Line-v0", side_by_side=2)


REQUEST = {"seeds": [3, 5, 8], "hypers": population.grid(Hyper(), push=[-0.4, 0.1])}


@pytest.fixture(scope="module")
def swept(line):
    return population.sweep(make_run(line), **REQUEST)


def test_a_population_is_judged_after_every_segment(line, swept):
    assert set(swept.metrics) == {"alive", "loss", "eval/return", "eval/return_std", "eval/length"}
    assert swept.metrics["eval/return"].shape == (2, 3, 3)
    assert (swept.metrics["eval/return"][1] > swept.metrics["eval/return"][0]).all()
    alone = population.sweep(make_run(line), seeds=[5], hypers=population.grid(Hyper(push=0.1)))
    np.testing.assert_allclose(alone.metrics["eval/return"][0, 0], swept.metrics["eval/return"][1, 1], rtol=1e-5)


def test_memory_begins_anew_with_every_episode(line, swept):
    """The last segment of one member, episode by episode on a copy of the world."""
    state, hyper = swept.member(1, 0), swept.hyper(1)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), EVALUATE), 2)
    seeds = jax.random.randint(jax.random.split(key)[0], (3,), 0, np.iinfo(np.int32).max)
    totals = []
    for seed in seeds.tolist():
        env, total, ended, step = host_worlds.Line(), 0.0, False, 0
        env.reset(seed=seed)
        while not ended and step < 6:
            action = np.clip(0.1 * step + float(hyper.push) + float(state["w"]) - 0.3, -1, 1)
            _, reward, ended, _, _ = env.step(np.float32([-0.5 + action + 1]))
            total, step = total + reward, step + 1
        totals.append(total)
    np.testing.assert_allclose(swept.metrics["eval/return"][1, 0, -1], np.mean(totals), rtol=1e-4)
    np.testing.assert_allclose(swept.metrics["eval/return_std"][1, 0, -1], np.std(totals), rtol=1e-3)


def test_stopped_and_resumed_it_is_judged_the_same(line, swept, tmp_path):
    def stop(progress):
        raise KeyboardInterrupt

    how = {"directory": tmp_path, "save_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        population.sweep(make_run(line), on_segment=stop, **REQUEST, **how)
    again = population.sweep(make_run(line), resume=True, **REQUEST, **how)
    for name, values in swept.metrics.items():
        np.testing.assert_array_equal(again.metrics[name], values, err_msg=name)


def test_a_race_asks_the_judge_who_goes_on(line, swept):
    raced = population.race(make_run(line), population.stopping.halving(eta=2), **REQUEST)
    assert raced.segments_trained[1] == 3 > raced.segments_trained[0]
    np.testing.assert_allclose(raced.metrics["eval/return"][1], swept.metrics["eval/return"][1], rtol=1e-5)
    assert np.isnan(raced.metrics["eval/return"][0, :, -1]).all()


@pytest.mark.parametrize("name", ["gc_iql", "beso"])
def test_an_agent_that_takes_goals_is_given_them(name):
    module = agents.load(name)
    agent = module.make(module.Config(hidden=(8,)), adapter.make("jaxrl_reg_test/Goals-v0").spec)
    state = jax.jit(agent.init)(jax.random.key(0), module.Hyper())
    world = adapter.make("jaxrl_reg_test/Goals-v0", episode_length=3, side_by_side=2)
    one, stacked = jax.random.key(1), jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (state, module.Hyper()))
    taken = []

    def spied(state, hyper, goal):
        taken.append(goal is not None)
        return hosted.policy_for(agent)(state, hyper, goal)

    found = hosted.judge(world, spied, 2, goals=True).measure(stacked[0], 0, one[None], stacked[1])
    assert set(found) == {f"eval/{name}" for name in ("return", "return_std", "length", "success", "task1", "task2")}
    assert all(taken)
    assert found["eval/length"] == 3
    assert found["eval/success"] == (found["eval/task1"] + found["eval/task2"]) / 2
