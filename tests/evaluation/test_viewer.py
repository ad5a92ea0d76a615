"""The scene of an episode against positions worked out by hand, and the page that plays it."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import drawing
from jaxrl_reg.evaluation import report, viewer
from jaxrl_reg.loops.rollout import record
from jaxrl_reg.types import Scene

HALF = np.sqrt(0.5)


def test_a_body_s_capsule_is_turned_and_moved():
    """A capsule of half length 1 along its own z, in a body turned by 90 degrees about y: it lies along x."""
    model = SimpleNamespace(
        ngeom=3,
        geom_bodyid=np.array([0, 1, 1]),
        geom_type=np.array([0, drawing.CAPSULE, drawing.BOX]),
        geom_size=np.array([[20, 20, 0.1], [0.1, 1.0, 0], [0.2, 0.2, 0.5]]),
        geom_pos=np.array([[0, 0, 0], [0, 0, 0.5], [0, 0, 0]]),
        geom_quat=np.array([[1, 0, 0, 0.0]] * 3),
    )
    position = np.array([[[0, 0, 0], [3, 0, 2.0]]])
    quaternion = np.array([[[1, 0, 0, 0], [HALF, 0, HALF, 0]]])
    scene = drawing.bodies(model, position, quaternion, 0.05)
    np.testing.assert_allclose(scene.ends[0, 0], [[2.5, 2.0], [4.5, 2.0]], atol=1e-12)  # z = 0.5 +- 1 became x
    np.testing.assert_allclose(scene.ends[0, 1], [[2.7, 2.0], [3.3, 2.0]], atol=1e-12)  # 0.5 less its radius of 0.2
    np.testing.assert_allclose(scene.radius, [0.1, 0.2])


@pytest.mark.parametrize("name", ["pointnav", "pendulum"])
def test_an_episode_becomes_a_page_that_asks_the_network_for_nothing(name):
    env = envs.make(name, episode_length=4)
    recording = jax.jit(lambda key: record(env, lambda o, k: 0.3 * jax.numpy.ones(env.spec.action_dim), key, 4))
    scene = env.draw(recording(jax.random.key(0)).frames())
    assert scene.ends.shape == (5, 1, 2, 2)
    assert np.abs(np.diff(scene.ends, axis=0)).max() > 0  # it moves
    page = viewer.page(scene, "<b>")
    assert "<b>" not in page
    assert not report._asks_elsewhere(page)
    drawn = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page).group(1))
    np.testing.assert_allclose(drawn["frames"], scene.ends, atol=1e-3)


def test_a_long_episode_skips_frames_evenly_and_keeps_its_time():
    ends = np.zeros((1001, 1, 2, 2))
    page = viewer.page(Scene(ends, np.ones(1), 0.01))
    drawn = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page).group(1))
    assert len(drawn["frames"]) == 334
    assert drawn["milliseconds"] == pytest.approx(30)
