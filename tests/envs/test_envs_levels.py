"""Worlds with levels: what holds of any level, exact paths of mazes, and batches that stay on theirs."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import gridworld, levelled, maze, signposts
from jaxrl_reg.errors import UserError

SIDE, COUNT = 5, 32
GRID = maze.Grid(SIDE, SIDE)


@pytest.fixture(scope="module")
def env():
    return maze.make(SIDE, SIDE, view=1, episode_length=6, held_out=8)


@pytest.fixture(scope="module")
def drawn(env):
    """Levels of every origin, each with what reset, parts and description make of it: one program."""
    levels = env.levels

    def made(key):
        keys = jax.random.split(key, COUNT)
        anything = {
            "tiles": jax.random.randint(key, (COUNT, GRID.cells), 0, 3),
            "start": jax.random.randint(jax.random.fold_in(key, 1), (COUNT, 1), 0, GRID.cells),
            "goal": jax.random.randint(jax.random.fold_in(key, 2), (COUNT, 1), 0, GRID.cells),
        }
        designed = jax.vmap(levels.sample)(keys)
        found = {
            "designed": designed,
            "aimed": levels.dataset(key, COUNT),
            "mutated": jax.vmap(lambda key, level: levels.mutate(key, level, 12))(keys, designed),
            "repaired": jax.vmap(levels.join)(anything),
        }
        every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found.values(), levels.evaluation["held_out"])
        state = jax.vmap(levels.reset)(jax.random.split(key, every.start.shape[0]), every)
        again = jax.vmap(lambda level: levels.join(levels.parts(level)))(every)
        return found, every, state, levels.of(state), again, jax.vmap(levels.describe)(every)

    return jax.device_get(jax.jit(made)(jax.random.key(1)))


def shortest(tiles, start, goal):
    """Steps from start to goal by breadth-first search, None where there is no way."""
    board, queue, seen = tiles.reshape(SIDE, SIDE), collections.deque([(int(start), 0)]), {int(start)}
    while queue:
        cell, steps = queue.popleft()
        if cell == goal:
            return steps
        y, x = divmod(cell, SIDE)
        for down, right in maze.MOVES:
            v, u = y + down, x + right
            if 0 <= v < SIDE and 0 <= u < SIDE and board[v, u] != maze.WALL and v * SIDE + u not in seen:
                seen.add(v * SIDE + u)
                queue.append((v * SIDE + u, steps + 1))
    return None


def same(one, other):
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_level_is_the_same_in_a_state_and_after_its_parts(drawn):
    _, every, _, of, again, _ = drawn
    same(of, every)
    same(again, every)


def test_every_level_is_valid_wherever_it_comes_from(drawn):
    every = drawn[1]
    rows = np.arange(len(every.start))
    assert (every.start != every.goal).all()
    assert (every.tiles[rows, every.start] == maze.FLOOR).all()
    assert (every.tiles[rows, every.goal] == maze.FLOOR).all()
    assert set(np.unique(every.tiles)) == {maze.FLOOR, maze.WALL, maze.MOSS}


def test_paths_are_exact_and_what_is_aimed_at_can_be_solved(drawn):
    _, every, _, _, _, described = drawn
    paths = [shortest(*level) for level in zip(*every, strict=True)]
    np.testing.assert_array_equal(described["solvable"], [path is not None for path in paths])
    np.testing.assert_array_equal(described["path"], [path or 0 for path in paths])
    designed, aimed, held_out = paths[:COUNT], paths[COUNT : 2 * COUNT], paths[4 * COUNT :]
    assert None in designed
    assert None not in aimed
    assert None not in held_out
    alignment = described["alignment"].reshape(-1)
    assert alignment[COUNT : 2 * COUNT].mean() > alignment[:COUNT].mean() + 0.2  # moss says where the goal is


def test_edits_change_a_level_and_move_its_goal(drawn):
    found = drawn[0]
    before, after = found["designed"], found["mutated"]
    assert (before.start == after.start).all()
    assert (before.goal != after.goal).any()
    changed = (before.tiles != after.tiles).sum(1)
    assert 0 < changed.mean() <= 13  # an edit sets one tile, or the floor under a goal


def test_held_out_levels_are_nobodys_data(env):
    held_out = {level.tobytes() for level in env.levels.evaluation["held_out"].tiles}
    assert len(held_out) == 8
    dataset = jax.jit(jax.vmap(lambda key: env.levels.dataset(key, COUNT)))
    given = np.asarray(dataset(jax.vmap(jax.random.key)(jnp.arange(20))).tiles).reshape(-1, GRID.cells)
    assert not held_out & {level.tobytes() for level in given}


def test_a_reset_draws_the_designers_level(env):
    levels, key = env.levels, jax.random.key(3)

    @jax.jit
    def both(key):
        first, second = jax.random.split(key)
        return env.reset(key), levels.reset(second, levels.sample(first))

    ours, theirs = both(key)
    same(ours.inner, theirs.inner)
    same(ours.observation, theirs.observation)
    same(jax.random.key_data(ours.key), jax.random.key_data(theirs.key))


def test_the_hand_drawn_mazes_can_be_solved_and_the_prize_falls_with_time():
    world = maze.make(held_out=1)
    level = jax.tree.map(lambda leaf: leaf[0], world.levels.evaluation["prefab"])  # an empty square
    moves = jnp.array([[-1.0, -1, 1, -1]] * 6 + [[-1.0, 1, -1, -1]] * 6)  # down, then right

    @jax.jit
    def walk(level):
        state = world.levels.reset(jax.random.key(0), level)
        return jax.lax.scan(lambda s, a: ((s := world.step(s, a)), (s.reward, s.terminated)), state, moves)[1]

    reward, terminated = walk(level)
    np.testing.assert_allclose(reward, [0] * 11 + [1 - 0.9 * 12 / 30], rtol=1e-6)
    np.testing.assert_array_equal(terminated, [0] * 11 + [1])
    described = jax.jit(jax.vmap(world.levels.describe))(world.levels.evaluation["prefab"])
    np.testing.assert_array_equal(described["path"], [12, 24, 8, 12, 4, 10, 16, 6])
    assert world.levels.picture(level).shape == (7, 7, 3)


def test_a_slot_stays_on_its_level_until_others_are_chosen(env, drawn):
    batch = levelled.replaying(env, 4)
    levels = jax.tree.map(lambda leaf: jnp.asarray(leaf[:4]), drawn[0]["aimed"])
    traced = []

    @jax.jit
    def roll(key, levels):
        traced.append(1)

        def body(state, t):
            action = jax.random.uniform(jax.random.fold_in(key, t), (4, 4), minval=-1)
            after = batch.step(state, action)
            lone = jax.vmap(env.step)(dataclasses.replace(state, inner=state.inner.inner), action)
            return after, (after, batch.levels.of(after), lone)

        first = batch.levels.reset(key, levels)
        return first, jax.lax.scan(body, first, jnp.arange(14))[1]

    first, (states, kept, lone) = roll(jax.random.key(0), levels)
    ended = np.asarray(states.terminated + states.truncated) > 0
    assert ended.sum(0).min() >= 2  # several episodes each
    for ours, chosen in zip(jax.tree.leaves(kept), jax.tree.leaves(levels), strict=True):
        np.testing.assert_array_equal(ours, np.broadcast_to(chosen, ours.shape))
    begun = np.broadcast_to(first.observation, states.observation.shape)
    np.testing.assert_array_equal(np.asarray(states.observation)[ended], begun[ended])
    assert (np.asarray(states.step)[ended] == 0).all()
    np.testing.assert_array_equal(states.final_observation, lone.observation)  # what a lone environment would see
    np.testing.assert_array_equal(states.reward, lone.reward)
    keys = np.asarray(jax.random.key_data(states.key))
    assert len(np.unique(keys[ended], axis=0)) == ended.sum()  # every episode has its own random numbers
    roll(jax.random.key(1), jax.tree.map(lambda leaf: leaf[::-1], levels))
    assert len(traced) == 1  # another level is no other program


def test_levels_survive_every_wrapper(env):
    key = jax.random.key(0)
    wrapped = {
        "shorter": envs.time_limit(env, 3),
        "seen": envs.transform_observation(env, lambda x: 2.0 * x),
        "skilled": envs.with_skills(env, 2),
        "noisy": envs.with_noise(env, lambda key: jnp.zeros(1), lambda n, key: n, lambda x, n: jnp.append(x, n)),
        "paid": envs.with_reward(env, lambda before, action, after: 2.0 * after.reward),
    }
    level = jax.tree.map(lambda leaf: leaf[0], env.levels.evaluation["held_out"])

    @functools.partial(jax.jit, static_argnums=0)
    def begun(name, level):
        world = wrapped[name]
        state = world.step(world.levels.reset(key, level), jnp.zeros(4))
        return world.levels.of(state), state.observation.shape

    for name, world in wrapped.items():
        of, shape = begun(name, level)
        same(of, level)
        assert shape == (world.spec.observation_dim,)
    assert envs.vectorize(env, 2).levels is None  # it draws its own


def test_a_sign_tells_where_the_goal_is_and_the_designers_does_not():
    world = signposts.make(world_seed=3, held_out=200)
    levels = world.levels

    @jax.jit
    def made(key):
        keys = jax.random.split(key, 200)
        designed = jax.vmap(levels.sample)(keys)
        mutated = jax.vmap(lambda key, level: levels.mutate(key, level, 1))(keys, designed)
        every = [designed, mutated, levels.evaluation["held_out"]]
        again = [jax.vmap(lambda level: levels.join(levels.parts(level)))(one) for one in every]
        state = jax.vmap(levels.reset)(keys, designed)

        def towards(state, _):  # straight to the goal
            return jax.vmap(world.step)(state, 3.0 * (levels.of(state).goal - state.observation[:, :2])), None

        there = jax.lax.scan(towards, state, jnp.arange(16))[0]
        off = [jax.vmap(levels.describe)(one)["off_script"].mean() for one in every]
        return every, again, off, there.reward, levels.of(state)

    every, again, off, paid, of = jax.device_get(made(jax.random.key(0)))
    same(every, again)
    same(of, every[0])
    assert off[2] < 0.3 < 0.5 < off[0]  # the blur is 0.25
    assert ((every[0].sign != every[1].sign).sum(1) + (every[0].goal != every[1].goal).sum(1)).max() == 4
    assert paid.all()
    assert levels.solved(np.float32([0, 3]), np.float32([0, 1]), np.float32([0, 0])).tolist() == [False, True]
    assert levels.picture(jax.tree.map(lambda leaf: leaf[0], every[0])).shape == (5, 6, 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: maze.make(2, 5), "must be at least 3"),
        (lambda: maze.make(5, 5, view=0), "maze: view=0"),
        (lambda: signposts.make(noise=-1.0), "noise at least 0"),
        (lambda: levelled.replaying(gridworld.make(), 2), "gridworld has no levels"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(make, words):
    with pytest.raises(UserError, match=words):
        make()
