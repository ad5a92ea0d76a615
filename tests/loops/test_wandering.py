"""A body that wanders: through a wall's opening to the goal, the same beside others, and again with what it learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs, population
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.wandering import wander
from jaxrl_reg.search import cognitive_graph
from jaxrl_reg.search.cognitive_graph import GOAL, Hyper

LAYOUT = "####### #.....# #..#..# #S.#.G# #..#..# #..#..# #######"
SPEED, SLOTS = 0.1, 64
place = np.float32([4 / 7, 0.0])


@pytest.fixture(scope="module")
def world():
    return envs.make("rooms", layout=LAYOUT, speed=SPEED)


@pytest.fixture(scope="module")
def run(world):
    return wander(world, place, speed=SPEED, legs=160, segments=2, capacity=SLOTS)


@pytest.fixture(scope="module")
def wandered(world):
    """One program for any goal and for a graph from before."""

    @jax.jit
    def train(hyper, goal, graph):
        run = wander(world, goal, speed=SPEED, legs=160, segments=2, capacity=SLOTS)
        return run(jax.random.key(1), hyper, None, graph)

    return train


@pytest.fixture(scope="module")
def fresh(world):
    start = world.reset(jax.random.key(0)).inner.position
    return lambda goal: jax.jit(cognitive_graph.fresh, static_argnums=2)(start, goal, SLOTS)


@pytest.fixture(scope="module")
def alone(wandered, fresh):
    return wandered(Hyper(), place, fresh(place))


def test_the_goal_behind_a_wall_is_found(alone, wandered, fresh):
    state, history = alone
    assert history["solved"][-1] == 1
    assert np.linalg.norm(state.env.inner.position - place) < 0.1
    assert 20 < history["steps"][-1] < 1000  # the straight way around the wall is 22 steps
    assert history["legs"][-1] > history["failures"][-1] > 0
    assert state.steps == state.env.step
    assert state.graph.seen[GOAL]
    assert history["vertices"][-1] == state.graph.alive.sum()
    _, forgiving = wandered(Hyper(left=1.0, avoidance=0.0), place, fresh(place))
    assert forgiving["solved"][-1] == 0  # nothing is learnt from a failure
    assert forgiving["failures"][-1] > history["failures"][-1]


def test_what_was_learnt_is_used_again(alone, wandered):
    _, again = wandered(Hyper(), place, alone[0].graph)
    assert again["solved"][-1] == 1
    assert again["steps"][-1] < alone[1]["steps"][-1]


def test_a_goal_that_was_found_stays_known_when_there_is_another(alone):
    graph = alone[0].graph
    corner = np.float32([-0.8, -0.8])
    moved, here = jax.jit(cognitive_graph.continued)(graph, place, corner)
    places = np.asarray(cognitive_graph.places(moved))
    np.testing.assert_allclose(places[GOAL], corner, atol=1e-5)
    np.testing.assert_allclose(places[here], place, atol=0.08)
    assert moved.seen[here]
    assert not moved.seen[GOAL]
    before, after = (int(g.experienced.sum()) for g in (graph, moved))
    assert before == after > 0
    np.testing.assert_allclose(moved.weight, moved.weight.T, atol=1e-6)


def test_who_is_there_already_takes_no_step(world, wandered, fresh):
    start = np.asarray(world.reset(jax.random.key(0)).inner.position)
    state, history = wandered(Hyper(), start, fresh(start))
    assert (history["solved"][-1], history["steps"][-1], state.legs) == (1, 0, 0)


def test_a_search_is_the_same_in_a_population_and_resumed(run, alone, tmp_path):
    request = {"seeds": [1, 2], "hypers": population.grid(Hyper(), left=[0.1, 1.0]), "placement": "map"}

    class Stop(Exception):
        pass

    def stop(progress):
        raise Stop

    with pytest.raises(Stop):
        population.sweep(run, directory=tmp_path, save_seconds=0, on_segment=stop, **request)
    resumed = population.sweep(run, directory=tmp_path, resume=True, **request)
    for name, values in alone[1].items():
        np.testing.assert_array_equal(resumed.metrics[name][0, 0], values, err_msg=name)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), resumed.member(0, 0).graph, alone[0].graph)


def test_bad_requests_are_refused(world):
    with pytest.raises(UserError, match="pendulum has no tasks"):
        wander(envs.make("pendulum"), jnp.zeros(2), speed=0.1, legs=1)
    wide = world._replace(tasks=world.tasks._replace(extent=((-1.0, 1.0), (0.0, 3.0))))
    with pytest.raises(UserError, match=r"\[-1, 1\], and those of rooms reach from 0.0 to 3.0"):
        wander(wide, jnp.zeros(2), speed=0.1, legs=1)
    with pytest.raises(UserError, match="capacity of at least 8"):
        wander(world, jnp.zeros(2), speed=0.1, legs=1, capacity=4)
    with pytest.raises(UserError, match="multiple"):
        wander(world, jnp.zeros(2), speed=0.1, legs=3, segments=2)
