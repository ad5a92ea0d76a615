"""Our own environments: the contract that each of them keeps, and episodes computed by hand."""

import dataclasses
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import gridworld, pointmaze, pointnav, probe
from jaxrl_reg.errors import UserError
from jaxrl_reg.tabular import discounted

# Those of MJX's Gymnasium tasks are compared with Gymnasium's: test_envs_mjx.
OWN = [name for name in envs.names() if name.split("/")[0] not in ("brax", "playground", "mjx", "tokens")]


def batch_of(env):
    """Three copies with auto-reset, compiled; the list grows by one with each trace of the step."""
    batch, traces = envs.vectorize(env, 3), []

    @jax.jit
    def step(state, actions):
        traces.append(1)
        return batch.step(state, actions)

    return jax.jit(batch.reset), step, traces


@pytest.mark.parametrize("name", OWN)
def test_contract(name):
    """Shapes, strong types, one trace, determinism, and 300 finite steps through ends and auto-resets."""
    env = envs.make(name)
    assert env.name == name
    reset, step, traces = batch_of(env)
    state = reset(jax.random.key(1))
    types = jax.tree.map(jax.typeof, state)
    assert state.observation.shape == state.final_observation.shape == (3, env.spec.observation_dim)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state)} == {3}
    assert jax.dtypes.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    for leaf in (state.observation, state.final_observation, state.reward, state.terminated, state.truncated):
        assert leaf.dtype == jnp.float32
    assert not any(getattr(kind, "weak_type", False) for kind in jax.tree.leaves(types))
    assert not any(np.any(x) for x in (state.reward, state.terminated, state.truncated, state.step))

    rng, ends = np.random.default_rng(0), np.zeros(3)
    for _ in range(300):
        before, actions = state, rng.uniform(-1.5, 1.5, (3, env.spec.action_dim)).astype(np.float32)
        state = step(before, actions)
        ended = np.asarray(state.terminated + state.truncated)
        assert set(ended) <= {0, 1}  # never in both ways
        for leaf in (state.observation, state.final_observation, state.reward):
            assert np.isfinite(leaf).all()
        assert not state.metrics["nonfinite"].any()
        same = (state.observation == state.final_observation).all(-1)
        assert same[ended == 0].all()
        np.testing.assert_array_equal(state.step, np.where(ended, 0, before.step + 1))
        assert (before.step < env.spec.max_episode_steps).all()
        ends += ended
    assert ends.all()
    assert jax.tree.map(jax.typeof, state) == types
    again = step(before, actions)
    np.testing.assert_array_equal(again.observation, state.observation)
    np.testing.assert_array_equal(reset(jax.random.key(1)).observation, reset(jax.random.key(1)).observation)
    assert len(traces) == 1


def test_pendulum_steps_like_gymnasiums():
    theirs, env = gymnasium.make("Pendulum-v1"), envs.make("pendulum")
    seen, _ = theirs.reset(seed=0)
    angle, speed = theirs.unwrapped.state
    state = env.reset(jax.random.key(0))
    state = dataclasses.replace(state, inner=type(state.inner)(jnp.float32(angle), jnp.float32(speed)))
    step = jax.jit(env.step)
    for torque in np.random.default_rng(0).uniform(-2, 2, 200):
        state = step(state, jnp.array([torque / 2], jnp.float32))
        seen, reward, _, truncated, _ = theirs.step(np.array([torque], np.float32))
        np.testing.assert_allclose(state.final_observation, seen, atol=2e-3)
        np.testing.assert_allclose(state.reward, reward, atol=5e-3)
        assert bool(state.truncated) == truncated
    assert truncated
    starts = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), 500)).inner
    assert np.abs(starts.angle).max() > 3.0
    assert 0.9 < np.abs(starts.speed).max() <= 1.0


def test_gridworld_episode_by_hand():
    env = envs.make("gridworld", layout="S.#\n..G", step_reward=-0.1, episode_length=4)
    up, right, down, left = jnp.eye(4) * 2 - 1
    # Cells are 0 1 # / 2 3 4. Right to 1, right against the wall, down to 3, right into the goal.
    state = env.reset(jax.random.key(0))
    cells, rewards, ends = [int(state.inner)], [], []
    for action in (right, right, down, right):
        state = env.step(state, action)
        cells.append(int(state.inner))
        rewards.append(float(state.reward))
        ends.append((float(state.terminated), float(state.truncated)))
        np.testing.assert_array_equal(state.observation, np.eye(5)[cells[-1]])
    assert cells == [0, 1, 1, 3, 4]
    np.testing.assert_allclose(rewards, [-0.1, -0.1, -0.1, 1.0], rtol=1e-6)
    assert ends == [(0, 0), (0, 0), (0, 0), (1, 0)]  # the goal on the last allowed step terminates, not truncates

    state = env.reset(jax.random.key(0))
    for action in (down, left, up, up):
        state = env.step(state, action)
    assert (int(state.inner), float(state.terminated), float(state.truncated)) == (0, 0, 1)
    _, _, _, _, position = gridworld.matrices("S.#\n..G")
    np.testing.assert_allclose(position[:3], [(-2 / 3, 0.5), (0, 0.5), (-2 / 3, -0.5)], atol=1e-6)
    seen = envs.make("gridworld", observe="position").reset(jax.random.key(0)).observation
    np.testing.assert_allclose(seen, [-0.8, 0.8], atol=1e-6)


def test_a_slippery_grid_spreads_the_move_and_stays_a_distribution():
    transition, reward, initial, terminal, _ = gridworld.matrices("S.\n.G", slip=0.4, step_reward=-1.0)
    np.testing.assert_allclose(transition.sum(-1), 1, rtol=1e-6)
    # Right from the top left: 0.6 + 0.1 right, 0.1 down, and up or left stay put.
    np.testing.assert_allclose(transition[0, 1], [0.2, 0.7, 0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(transition[3, :, 3], 1)
    np.testing.assert_allclose(reward[3], 0)
    # Down from the top right enters the goal with 0.7: 0.7 * 1 + 0.3 * (-1).
    np.testing.assert_allclose(reward[1, 2], 0.4, rtol=1e-5)
    np.testing.assert_allclose(initial, [1, 0, 0, 0])
    np.testing.assert_allclose(terminal, [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("layout", "message"),
    [("", "equal length"), ("S.\n.", "equal length"), ("SX", "'X'"), ("GG", "no floor")],
)
def test_bad_maps_are_refused(layout, message):
    with pytest.raises(UserError, match=message):
        envs.make("gridworld", layout=layout)


def test_pointnav_by_hand():
    env = envs.make("pointnav", task="top_right", episode_length=3)
    state = env.reset(jax.random.key(0))
    state = dataclasses.replace(state, inner=jnp.array([0.3, 0.6]), observation=jnp.array([0.3, 0.6]))
    state = env.step(state, jnp.array([0.4, -0.2]))
    np.testing.assert_allclose(state.observation, [0.5, 0.5], rtol=1e-6)
    assert float(state.reward) == 0  # 0.566 from (0.9, 0.9)
    state = env.step(state, jnp.array([0.8, 0.8]))  # beyond what the motor can do
    np.testing.assert_allclose(state.observation, [0.5, 0.5], rtol=1e-6)
    state = env.step(state, jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(state.observation, [0.55, 0.75], rtol=1e-6)
    assert [float(x) for x in (state.reward, state.terminated, state.truncated)] == [1, 0, 1]  # 0.381 from the goal
    np.testing.assert_allclose(pointnav.dynamics(jnp.array([0.9, -0.9]), jnp.array([0.6, 0.0])), [1.0, -0.9])
    np.testing.assert_allclose(pointnav.dynamics(jnp.zeros(2), jnp.array([0.0, 0.61])), [0.0, 0.0])
    starts = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 500)).observation
    np.testing.assert_allclose(starts.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(starts.std(0), 3**-0.5, atol=0.05)


@pytest.mark.parametrize("name", probe.NAMES)
def test_probe_values_are_what_the_environment_pays(name):
    """The return of the best policy, summed along the episode, and of any first action, against the closed form."""
    env, discount = envs.make(f"probe/{name}"), 0.9
    for seed in range(3):
        first = env.reset(jax.random.key(seed))
        action = jnp.array([-0.3])
        values = probe.probe_values(name, first.observation, action, discount)
        best = jnp.nan_to_num(values.best_action)[None]
        for choice, expected in ((best, values.value), (action, values.q_value)):
            state = env.step(first, choice)
            total, weight = float(state.reward), 1.0
            while not float(state.terminated):
                state, weight = env.step(state, best), weight * discount
                total += weight * float(state.reward)
            np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-7)
            assert float(state.truncated) == 0
            assert int(state.step) == (2 if name == "3" else 1)
    seen = np.unique(jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 20)).observation)
    assert seen.tolist() == ([-1, 1] if name in "25" else [0])


def test_random_tabular_process_follows_its_transition_probabilities():
    transition, reward = discounted.random(4, 2, seed=3)
    env = envs.vectorize(envs.make("tabular", transition=transition, reward=reward), 64)
    features = envs.make("tabular", transition=transition, reward=reward, observations=np.arange(12.0).reshape(4, 3))
    assert features.spec.observation_dim == 3

    @jax.jit
    def program(key):
        def body(state, key):
            action = jax.random.uniform(key, (64, 2))
            following = env.step(state, action)
            pair = jnp.argmax(state.observation, -1), jnp.argmax(action, -1)
            return following, (*pair, jnp.argmax(following.final_observation, -1), following.reward)

        return jax.lax.scan(body, env.reset(key), jax.random.split(key, 400))[1]

    state, action, following, paid = (np.asarray(x).ravel() for x in program(jax.random.key(0)))
    counts = np.zeros((4, 2, 4))
    np.add.at(counts, (state, action, following), 1)
    np.testing.assert_allclose(counts / counts.sum(-1, keepdims=True), transition, atol=0.03)
    np.testing.assert_allclose(paid, np.asarray(reward)[state, action], rtol=1e-6)


def test_pointmaze_agrees_with_mujoco_and_its_walls_hold():
    import mujoco

    env = envs.make("pointmaze")
    model = mujoco.MjModel.from_xml_string(pointmaze.MJCF)
    model.opt.iterations = 100  # MuJoCo's C solver to convergence: ours, with 4 iterations, must not differ
    reference = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    reset, step, _ = batch_of(env)
    state = reset(jax.random.key(0))
    start = np.array([0.3, 0.4])
    reference.qpos[:] = start
    physics = pointmaze.Physics(jnp.tile(jnp.asarray(start, jnp.float32), (3, 1)), jnp.zeros((3, 2)))
    state = dataclasses.replace(state, inner=state.inner._replace(inner=physics))
    # The wall behind the centre, the corner of the square, then at random.
    plan = [(-1.0, -0.9)] * 25 + [(1.0, 1.0)] * 35 + [tuple(a) for a in rng.uniform(-1, 1, (20, 2))]
    places, rewards = [], []
    for action in plan:
        state = step(state, jnp.tile(jnp.array(action, jnp.float32), (3, 1)))
        reference.ctrl[:] = action
        for _ in range(pointmaze.SUBSTEPS):
            mujoco.mj_step(model, reference)
        places.append(pointmaze.physics(state)[0, :2])
        rewards.append(float(state.reward[0]))
        np.testing.assert_allclose(places[-1], reference.qpos, atol=2e-4)
    np.testing.assert_array_equal(pointmaze.physics(state), state.observation)
    np.testing.assert_allclose(places[24], [0.1, 0.1], atol=0.02)  # ball and wall touch at 0.05 + 0.05
    assert np.abs(places).max() < 0.97
    assert rewards[24] == 0
    assert rewards[59] == 1
    stored = jnp.array([[-0.9, 0.9, 3.0, 3.0], [-0.5, 0.8, 0.0, 0.0]])
    np.testing.assert_array_equal(pointmaze.reward(stored, "reach_top_left"), [1, 0])


def test_pointmaze_physics_can_be_read_from_wrapped_states():
    env = envs.vectorize(envs.transform_observation(envs.make("pointmaze"), lambda o: 10 * o), 2)
    state = jax.eval_shape(env.reset, jax.random.key(0))
    assert jax.eval_shape(pointmaze.physics, state).shape == (2, 4)


def test_make_suggests_the_nearest_name():
    for name, setting, message in (
        ("pendulm", {}, "did you mean 'pendulum'"),
        ("probe/6", {}, "did you mean 'probe/"),
        ("brax", {}, "unknown environment 'brax'"),
        ("core", {}, "unknown environment 'core'"),
        ("playground/CartpoleBalanse", {}, "did you mean 'playground/CartpoleBalance'"),
        ("pendulum", {"episode_lenght": 5}, "did you mean 'episode_length'"),
        ("probe/1", {"size": 5}, "probe/1 has no settings"),
        ("pointmaze", {"task": "reach_topleft"}, "did you mean 'reach_top_left'"),
        ("pointnav", {"task": "top_rihgt"}, "did you mean 'top_right'"),
        ("gridworld", {"observe": "pixels"}, "'one_hot' or 'position'"),
        ("no_such_package.env", {}, "no module 'no_such_package'"),
        ("jaxrl_reg.errors", {}, "no function make"),
    ):
        with pytest.raises(UserError, match=message):
            envs.make(name, **setting)


def test_make_takes_the_path_of_a_foreign_module(tmp_path, monkeypatch):
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "maze.py").write_text(
        "from jaxrl_reg import envs\ndef make(size=2):\n    return envs.make('pendulum', episode_length=size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert envs.make("my_lab.maze", size=7).spec.max_episode_steps == 7
    with pytest.raises(UserError, match=r"setting of my_lab\.maze"):
        envs.make("my_lab.maze", sizes=7)
    assert "my_lab.maze" in sys.modules


def test_importing_the_environments_imports_no_simulator():
    import subprocess

    code = (
        "import sys, jaxrl_reg.envs as e; e.names(); "
        "print(sorted({'brax', 'mujoco', 'mujoco_playground', 'gymnasium', 'flax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_a_simulator_starts_without_a_word():
    import subprocess

    code = "import jaxrl_reg.envs as e; e.make('pointmaze'); e.make('brax/hopper')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("", "")
