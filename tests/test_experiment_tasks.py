"""Arms of zero-shot control: what is judged, at which checkpoints, and how a fall from the best one is counted."""

import dataclasses

import jax
import numpy as np

from experiments.arms import Arm
from experiments.offline import _control as control
from experiments.zero_shot import _maze, _tasks, breeze
from jaxrl_reg import envs

SEEDS = (3, 4)


def test_arms_are_judged_on_every_task_at_every_checkpoint():
    """An agent that goes where the rewards are: a stride of 0.4 arrives, none stays, one of 0.5 stalls the motor."""
    data = control.behaviour(jax.random.key(0), 3_000)
    data = dataclasses.replace(data, extras={"physics": data.observation})
    said = []
    world = _tasks.world(envs.make("pointnav", episode_length=30), data, said.append)
    arms = {name: Arm("tests.task_agent", {"stride": stride}) for name, stride in (("go", 0.4), ("stall", 0.5))}
    found = _tasks.train(
        arms,
        world,
        SEEDS,
        said.append,
        hidden=(8,),
        updates=4,
        batch_size=8,
        episodes=8,
        checkpoints=2,
        probe=breeze.beyond(world),
    )
    assert list(found) == ["go", "stall"]
    each = found["go"]
    assert each["iqm"].shape == (2, 2)
    scores = np.sort([each[task.name] for task in world.tasks], axis=0)
    np.testing.assert_allclose(each["iqm"], scores[1:3].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(each["return"], scores.mean(axis=0), rtol=1e-5)
    assert each["iqm"].min() > 0.6
    assert found["stall"]["iqm"].max() < 0.5
    assert each["beyond"].max() == 0.0
    assert found["stall"]["beyond"].min() > 0.5
    assert any(line.startswith("go: 0.") and ", beyond 0.000" in line for line in said)


def test_a_fall_is_from_the_best_checkpoint_to_the_last():
    np.testing.assert_allclose(_tasks.fallen(np.array([[0.1, 0.9, 0.4], [0.2, 0.3, 0.5]])), [0.5, 0.0])
    assert _tasks.interval(np.array([1.0, 2.0, 3.0])) == "2.000 [-0.484, 4.484]"


def test_a_veil_hides_who_is_near_whom_and_nothing_else():
    env, seen = envs.make("pointmaze"), _maze.veiled(envs.make("pointmaze"))
    key, action = jax.random.key(0), jax.numpy.array([1.0, -1.0])
    plain = env.step(env.reset(key), action)
    state = seen.step(seen.reset(key), action)
    assert state.observation.shape == (seen.spec.observation_dim,)
    np.testing.assert_allclose(state.observation, _maze.veil(plain.observation), atol=1e-5)
    np.testing.assert_allclose(seen.tasks.restore(seen.tasks.physics(state)).observation, state.observation, atol=1e-5)
    place = np.random.default_rng(0).uniform(-0.95, 0.95, (400, 2))
    waves = np.asarray(_maze.veil(np.pad(place, ((0, 0), (0, 2)))))[:, :-2]
    alike = waves @ waves.T / waves.shape[1]
    apart = np.linalg.norm(place[:, None] - place, axis=-1)
    assert alike[(apart < 0.03) & (apart > 0)].mean() > 0.95
    assert abs(alike[apart > 0.6]).mean() < 0.12
    differ = np.linalg.norm(waves[:, None] - waves, axis=-1) / np.sqrt(2 * waves.shape[1])
    assert differ[apart > 0.05].min() > 0.1  # no two places look the same
