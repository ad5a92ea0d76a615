"""Brax, Playground and Gymnasium behind our contract."""

import builtins
import warnings
from types import SimpleNamespace
from typing import ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import quiet
from jaxrl_reg.envs.adapters import brax as brax_adapter
from jaxrl_reg.envs.adapters import playground as playground_adapter
from jaxrl_reg.errors import UserError

LIMIT, NUMBER = 20, 3
PLAYGROUND = "MuJoCo Playground is an optional extra with large dependencies: pip install jaxrl-reg[playground]"


@pytest.fixture(scope="module")
def pendulum():
    """The states of 60 steps, and what Brax says of each: environment 0 pushes, the others stand still."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Brax says about its age stays silent
        env = envs.make("brax/inverted_pendulum", backend="spring", episode_length=LIMIT)
    with quiet.python():
        import brax.envs

        raw = brax.envs.get_environment("inverted_pendulum", backend="spring")
    batch = envs.vectorize(env, NUMBER)
    traces = []

    @jax.jit
    def step(state, actions):  # Brax's own step from the same physics rides along: the compiler joins the two
        traces.append(1)
        with quiet.python():
            theirs = jax.vmap(raw.step)(envs.unwrap(state.inner), actions)
        return batch.step(state, actions), (theirs.obs, theirs.reward, theirs.done)

    states, expected = [jax.jit(batch.reset)(jax.random.key(0))], []
    for _ in range(3 * LIMIT):
        following, theirs = step(states[-1], jnp.array([[1.0], [0.0], [0.0]]))
        states.append(following)
        expected.append(theirs)
    return env, states, expected, traces


def test_brax_names_are_braxs_own(pendulum):
    import brax.envs

    assert set(brax_adapter.NAMES) == set(brax.envs._envs) - {"fast", "counting", *brax_adapter.BROKEN}


def test_brax_keeps_the_contract(pendulum):
    env, states, _, traces = pendulum
    assert (env.name, env.spec.observation_dim, env.spec.action_dim) == ("brax/inverted_pendulum", 4, 1)
    assert len(traces) == 1
    types = [jax.tree.map(jax.typeof, state) for state in states[:3]]
    assert types[0] == types[1] == types[2]
    assert not any(getattr(kind, "weak_type", False) for kind in jax.tree.leaves(types[0]))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(states[-1])} == {NUMBER}
    assert all(np.isfinite(state.final_observation).all() for state in states)


def test_brax_terminates_and_truncates(pendulum):
    _, states, _, _ = pendulum
    terminated = np.array([state.terminated for state in states])
    truncated = np.array([state.truncated for state in states])
    angle = np.array([state.final_observation[:, 1] for state in states])
    np.testing.assert_array_equal(terminated, np.abs(angle) > 0.2)  # the task's own rule
    assert terminated[:, 0].sum() >= 3  # pushed over
    assert terminated[:, 1:].sum() == 0
    np.testing.assert_array_equal(np.flatnonzero(truncated[:, 1]), [LIMIT, 2 * LIMIT, 3 * LIMIT])
    assert (terminated * truncated).sum() == 0
    at = np.flatnonzero(terminated[:, 0])
    starts = np.array([states[t].observation[0] for t in at])
    assert np.abs(starts).max() < 0.02  # the next episode's first observation, and never the same one
    assert len(np.unique(starts[:, 1])) == len(at)
    assert all(float(states[t].reward[0]) == 1 for t in at)


def test_brax_step_is_the_raw_environments_step(pendulum):
    _, states, expected, _ = pendulum
    for after, (observation, reward, done) in zip(states[1:], expected, strict=True):
        np.testing.assert_allclose(after.final_observation, observation, atol=1e-5)
        np.testing.assert_allclose(after.reward, reward)
        np.testing.assert_allclose(after.terminated, done)


def test_brax_renders_one_environment(pendulum):
    env, states, _, _ = pendulum
    one = [jax.tree.map(lambda leaf: leaf[1], envs.unwrap(state.inner)) for state in states[:3]]
    page = env.render(one)
    assert "<html" in page.lower()
    with pytest.raises(UserError, match="index the leading axis"):
        env.render([states[0].inner])


def test_brax_mistakes_are_named():
    for name, settings, message in (
        ("brax/hoper", {}, "did you mean 'hopper'"),
        ("brax/reacher", {"backend": "sping"}, "did you mean 'spring'"),
        ("brax/swimmer", {"backend": "generalized"}, "playground/SwimmerSwimmer6"),
        ("brax/hopper", {"healthy_rewards": 2.0}, "did you mean 'healthy_reward'"),
    ):
        with pytest.raises(UserError, match=message):
            envs.make(name, **settings)


def fake_state(module, **fields):
    """A state of either library for an environment without physics, which counts and keeps a raw key."""
    count, rng = fields["count"], fields["rng"]
    shared = {
        "obs": jnp.stack([count, jax.random.uniform(rng)]),
        "reward": 1.0,
        "done": jnp.where(count >= 3, 1.0, 0.0),
        "metrics": fields.get("metrics", {"count": jnp.zeros(())}),
        "info": {"rng": rng, "count": count},
    }
    physics = "pipeline_state" if "pipeline_state" in module.__dataclass_fields__ else "data"
    return module(**{physics: None}, **shared)


def fake(module, base, fixed=None):
    class Fake(base):
        calls: ClassVar[list] = []
        action_size = 1
        observation_size = 2
        backend = "spring"
        xml_path = mj_model = mjx_model = None

        def __init__(self, bonus=0.0, **_):
            self.bonus = bonus

        def reset(self, rng):
            return fake_state(module, count=jnp.zeros(()), rng=rng if fixed is None else fixed)

        def step(self, state, action):
            state.metrics["count"] = state.info["count"]  # in place, as both libraries do
            return fake_state(module, count=state.info["count"] + 1, rng=state.info["rng"], metrics=state.metrics)

    return Fake


def test_brax_states_are_not_written_into():
    import brax.envs

    brax.envs.register_environment("counting", fake(brax.envs.State, brax.envs.Env))
    env = envs.make("brax/counting", episode_length=9, bonus=1.0)
    state = env.reset(jax.random.key(0))
    assert state.inner.info["rng"].dtype == jnp.uint32
    following = [state]
    for _ in range(3):
        following.append(env.step(following[-1], jnp.zeros(1)))
    assert [float(s.metrics["count"]) for s in following] == [0, 0, 1, 2]
    assert [float(s.inner.metrics["count"]) for s in following] == [0, 0, 1, 2]
    assert [float(s.terminated) for s in following] == [0, 0, 0, 1]
    with jax.checking_leaks():
        jax.jit(env.step)(state, jnp.zeros(1))


def test_playground_names_and_shapes_without_compiling():
    dm_control_suite = pytest.importorskip("mujoco_playground", reason=PLAYGROUND).dm_control_suite
    assert set(playground_adapter.NAMES) == set(dm_control_suite.ALL_ENVS)
    env = envs.make("playground/CartpoleBalance", episode_length=30)
    assert (env.spec.observation_dim, env.spec.action_dim, env.spec.max_episode_steps) == (5, 1, 30)
    state = jax.eval_shape(env.reset, jax.random.key(0))
    following = jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((1,), jnp.float32))

    def types(state):
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype), getattr(leaf, "weak_type", False)), state)

    assert types(following) == types(state)
    assert state.observation.shape == (5,)


def test_playground_environments_that_share_a_first_state_do_not_share_their_chance(monkeypatch):
    playground = pytest.importorskip("mujoco_playground", reason=PLAYGROUND)
    MjxEnv, State, dm_control_suite = playground.MjxEnv, playground.State, playground.dm_control_suite

    kind = fake(State, MjxEnv, fixed=jnp.zeros(2, jnp.uint32))
    monkeypatch.setattr(dm_control_suite, "load", lambda name, config_overrides: kind())
    env = envs.vectorize(envs.make("playground/CartpoleBalance"), 3)
    state = jax.jit(env.reset)(jax.random.key(0))
    assert len(np.unique(state.observation[:, 1])) == 1
    step = jax.jit(env.step)
    for _ in range(5):  # past an auto-reset, after three steps
        state = step(state, jnp.zeros((3, 1)))
    np.testing.assert_array_equal(state.step, 2)
    assert len(np.unique(state.observation[:, 1])) == 3


def test_playground_episodes_are_drawn():
    """Poses worked out by hand: arms seen from above, a finger from the side; the camera goes along with a hopper."""
    pytest.importorskip("mujoco_playground", reason=PLAYGROUND)

    def scene(name, qpos, targets=()):
        states = [
            SimpleNamespace(data=SimpleNamespace(qpos=row, mocap_pos=np.reshape(targets, (-1, 3)))) for row in qpos
        ]
        return envs.make(f"playground/{name}").draw(states)

    reacher = scene("ReacherEasy", [np.zeros(2), [np.pi / 2, -np.pi / 2]], [0.1, -0.2, 0.01])
    straight = [[[0, 0], [0.12, 0]], [[0.12, 0], [0.22, 0]], [[0.24, 0], [0.24, 0]]]
    bent = [[[0, 0], [0, 0.12]], [[0, 0.12], [0.1, 0.12]], [[0.12, 0.12], [0.12, 0.12]]]
    np.testing.assert_allclose(np.sort(reacher.ends, axis=2), [straight, bent], atol=1e-7)
    np.testing.assert_allclose(reacher.radius, 0.01)
    np.testing.assert_allclose(reacher.still, [[[0.1, -0.2]] * 2])  # the target
    np.testing.assert_allclose(reacher.still_radius, [0.05])
    assert not reacher.follow
    assert reacher.seconds == pytest.approx(0.02)
    finger = scene("FingerTurnEasy", np.zeros((1, 3)), [0.3, 0.0, 0.6])
    np.testing.assert_allclose(finger.still, [[[0.3, 0.6]] * 2])
    assert scene("FingerSpin", np.zeros((1, 3)), [0.3, 0.0, 0.6]).still == ()  # which has no target
    hopper = scene("HopperHop", [np.zeros(7), [2.0, 0, 0, 0, 0, 0, 0]])
    assert hopper.follow
    np.testing.assert_allclose(
        hopper.ends[1] - hopper.ends[0], np.tile([2.0, 0.0], (*hopper.ends.shape[1:3], 1)), atol=1e-6
    )


def test_playground_settings_are_named():
    pytest.importorskip("mujoco_playground", reason=PLAYGROUND)
    with pytest.raises(UserError, match="did you mean 'ctrl_dt'"):
        envs.make("playground/CartpoleBalance", ctrl_td=0.1)


def test_missing_extras_are_named(monkeypatch):
    original = builtins.__import__

    def without(name, *rest, **kwargs):
        if name.split(".")[0] in ("mujoco_playground", "gymnasium"):
            raise ImportError(f"No module named {name!r}")
        return original(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"jaxrl-reg\[playground\]"):
        envs.make("playground/CartpoleBalance")
    with pytest.raises(UserError, match=r"jaxrl-reg\[gymnasium\]"):
        envs.evaluate_gymnasium("Pendulum-v1", None)


class Slope(gymnasium.Env):
    """Pays what it is told to do; terminates when it has been told to do much."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 1), np.float64)
    action_space = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([4.0, 1.0], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0, 1, (2, 1))
        return self.place, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.place = self.place + action[:, None]
        return self.place, float(action[0] + 10 * action[1]), bool(self.place[0, 0] > 6), False, {}


def test_gymnasium_returns_equal_a_loop_by_hand():
    gymnasium.register("jaxrl_reg_test/Slope-v0", Slope, max_episode_steps=5)
    seen = []

    def act(observation, key):
        seen.append(np.asarray(observation))
        wide = jnp.stack([observation[0] * 0.9 - 1, jax.random.uniform(key, minval=-3, maxval=3)])
        return wide  # outside of [-1, 1] now and then

    found = envs.evaluate_gymnasium("jaxrl_reg_test/Slope-v0", act, episodes=4, seed=7)
    expected, lengths = [], []
    for seed in range(7, 11):
        env, total = Slope(), 0.0
        observation, _ = env.reset(seed=seed)
        for step in range(5):
            key = jax.random.fold_in(jax.random.key(seed), step)
            a, b = np.clip(act(np.asarray(observation, np.float32).ravel(), key), -1, 1)
            observation, reward, terminated, _, _ = env.step(np.array([-2 + 3 * (a + 1), (b + 1) / 2], np.float32))
            total += reward
            if terminated:
                break
        expected.append(total)
        lengths.append(step + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert min(lengths) < 5 == max(lengths)  # both ways of ending happened
    assert seen[0].shape == (2,)
    assert seen[0].dtype == np.float32
    again = envs.evaluate_gymnasium(Slope(), act, episodes=1, seed=10) if lengths[-1] < 5 else found[-1:]
    np.testing.assert_allclose(again, found[-1:])


def test_gymnasium_refuses_what_it_cannot_scale():
    with pytest.raises(UserError, match="must be boxes"):
        envs.evaluate_gymnasium("CartPole-v1", None)
    with pytest.raises(UserError, match="Pendulun-v1"):
        envs.evaluate_gymnasium("Pendulun-v1", None)
    unbounded = Slope()
    unbounded.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(UserError, match="no bounds"):
        envs.evaluate_gymnasium(unbounded, None)
