"""The point that walks through rooms: walls, sliding, mazes, pictures and goals, against the map as text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import rooms
from jaxrl_reg.errors import UserError

SMALL = "##### #S.G# #.#.# #...# #####"


def walls(layout):
    return np.array([[mark == "#" for mark in row] for row in layout.split()])


def walked(env, actions):
    """Positions ``[T, 2]`` and rewards ``[T]`` of one episode."""

    @jax.jit
    def walk(actions):
        def body(state, action):
            state = env.step(state, action)
            return state, (state.inner.position, state.reward, state.truncated)

        return jax.lax.scan(body, env.reset(jax.random.key(0)), actions)[1]

    return tuple(np.asarray(x) for x in walk(jnp.asarray(actions, jnp.float32)))


@pytest.mark.parametrize("layout", [rooms.LAYOUT, "random", SMALL])
def test_nobody_enters_a_wall_or_jumps_over_one(layout):
    settings = {"layout": layout, "seed": 3, "size": 4, "speed": 0.17}
    blocked = walls(rooms.random_layout(4, 3, 0.1) if layout == "random" else layout)
    rng = np.random.default_rng(0)
    actions = np.repeat(rng.uniform(-1, 1, (250, 2)), 4, axis=0)
    position, _, truncated = walked(envs.make("rooms", episode_length=1000, **settings), actions)
    height, width = blocked.shape
    row = np.floor((1 - position[:, 1]) / 2 * height).astype(int)
    column = np.floor((position[:, 0] + 1) / 2 * width).astype(int)
    assert not blocked[row, column].any()
    # Neighbours in time are in the same cell or in two that touch at a side, or both sides of a free corner.
    assert np.abs(np.diff(row)).max() <= 1
    assert np.abs(np.diff(column)).max() <= 1
    assert len({*zip(row, column, strict=True)}) > 4
    assert truncated.tolist() == [0] * 999 + [1]


def test_the_point_slides_along_walls_and_is_paid_at_the_goal():
    env = envs.make("rooms", layout=SMALL, speed=0.2, radius=0.2)
    position, reward, _ = walked(env, [[0.3, 0.4]] * 2 + [[1, 1]] * 20)
    np.testing.assert_allclose(position[0], [-0.4 + 0.06, 0.4 + 0.08], atol=1e-6)  # as it is: no longer than 1
    np.testing.assert_allclose(position[3] - position[2], [0.2 / np.sqrt(2), 0], atol=1e-6)  # up is a wall
    assert np.abs(position).max() < 0.6
    at_goal = np.linalg.norm(position - [0.4, 0.4], axis=1) < 0.2
    np.testing.assert_array_equal(reward, at_goal)
    assert at_goal.any()


def test_states_can_be_stored_and_effort_adds_up():
    env = envs.make("rooms")
    assert env.tasks.names == ("goal_0", "goal_1")
    state, action = env.reset(jax.random.key(0)), jnp.array([0.5, 1.0])
    np.testing.assert_allclose(state.observation, [-6 / 11, -6 / 11], atol=1e-6)
    for _ in range(2):
        state = env.step(state, action)
    np.testing.assert_allclose(state.inner.effort, 2 * 0.625)
    again = env.step(env.tasks.restore(env.tasks.physics(state)), action)
    np.testing.assert_array_equal(again.observation, env.step(state, action).observation)
    goals = np.float32([[-6 / 11, 6 / 11], [6 / 11, 6 / 11]])
    for number, name in enumerate(env.tasks.names):
        np.testing.assert_array_equal(env.tasks.reward(goals, name), np.eye(2)[number])


def test_a_picture_is_brightest_where_the_point_is():
    env = envs.make("rooms", observe="picture", pixels=11)
    picture = np.asarray(env.reset(jax.random.key(0)).observation).reshape(11, 11)
    assert np.unravel_index(picture.argmax(), (11, 11)) == (2, 2)  # y from below
    np.testing.assert_allclose(picture.max(), 1, atol=1e-6)
    np.testing.assert_allclose(picture[2, 3], np.exp(-((2 / 11) ** 2) / (2 * 0.15**2)), rtol=1e-5)


def test_random_mazes_are_trees_with_a_few_loops():
    for seed in range(5):
        tree, loops, open_ = (walls(rooms.random_layout(4, seed, chance)) for chance in (0.0, 0.3, 1.0))
        assert (~tree).sum() == 16 + 15  # rooms, and as few doors as join them
        assert (~tree).sum() < (~loops).sum() < (~open_).sum()
        assert tree[0].all()
        assert not open_[1:-1:2, 1:-1].any()
        assert open_[2:-1:2, 2:-1:2].all()  # the posts stand
        envs.make("rooms", layout="random", seed=seed, loops=0.0)  # checks that the goal can be reached
    assert rooms.random_layout(4, 0, 0.1) != rooms.random_layout(4, 1, 0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "S.. ..G #"}, "rooms: the layout needs rows of equal length"),
        ({"layout": "S.x ..G"}, "rooms: unknown character 'x'"),
        ({"layout": "... ..G"}, "no S"),
        ({"layout": "S.. ..."}, "no G"),
        ({"layout": "S#G"}, "no way from S to the goal in row 1, column 3"),
        ({"speed": 0.2}, "below a cell's side, 0.182"),
        ({"task": "goal_2"}, "did you mean 'goal_"),
        ({"observe": "pixels"}, "'position' or 'picture'"),
        ({"layout": "random", "size": 1}, "size of at least 2"),
        ({"layout": "random", "loops": 2.0}, "loops in"),
        ({"radius": 0.0}, "radius=0.0"),
    ],
)
def test_bad_maps_and_settings(settings, message):
    with pytest.raises(UserError, match=message):
        envs.make("rooms", **settings)
