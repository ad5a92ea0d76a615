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
        body_weldid=np.array([0, 1, 2, 1]),  # body 3 is welded to the first, which has a joint
        body_dofnum=np.array([0, 1, 0, 0]),
        ngeom=5,
        geom_bodyid=np.array([0, 1, 1, 3, 0]),
        geom_type=np.array([0, drawing.CAPSULE, drawing.BOX, drawing.SPHERE, drawing.SPHERE]),
        geom_size=np.array([[20, 20, 0.1], [0.1, 1.0, 0], [0.2, 0.2, 0.5], [0.3, 0, 0], [0.4, 0, 0]]),
        geom_pos=np.array([[0, 0, 0], [0, 0, 0.5], [0, 0, 0], [0, 0, 1], [7, 8, 9]]),
        geom_quat=np.array([[1, 0, 0, 0.0]] * 5),
        nsite=3,
        site_bodyid=np.array([2, 1, 2]),
        site_type=np.array([drawing.SPHERE] * 3),
        site_size=np.array([[0.5, 0, 0]] * 3),
        site_pos=np.array([[0, 0, 0.5]] * 3),
        site_quat=np.array([[1, 0, 0, 0.0]] * 3),
        site_rgba=np.array([[1, 1, 1, 1.0], [1, 1, 1, 1.0], [1, 1, 1, 0.0]]),  # a target, one that moves, one unseen
    )
    position = np.array([[[0, 0, 0], [3, 0, 2.0], [4, 5, 6], [3, 1, 2]]])
    quaternion = np.array([[[1, 0, 0, 0], [HALF, 0, HALF, 0], [1, 0, 0, 0], [1, 0, 0, 0]]])
    scene = drawing.bodies(model, position, quaternion, 0.05)
    np.testing.assert_allclose(scene.ends[0, 0], [[2.5, 2.0], [4.5, 2.0]], atol=1e-12)  # z = 0.5 +- 1 became x
    np.testing.assert_allclose(scene.ends[0, 1], [[2.7, 2.0], [3.3, 2.0]], atol=1e-12)  # 0.5 less its radius of 0.2
    np.testing.assert_allclose(scene.ends[0, 2], [[3.0, 3.0]] * 2)
    np.testing.assert_allclose(scene.radius, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(scene.still, [[[7.0, 9.0]] * 2, [[4.0, 6.5]] * 2])
    np.testing.assert_allclose(scene.still_radius, [0.4, 0.5])
    above = drawing.bodies(model, position, quaternion, 0.05, drawing.ABOVE, follow=False)
    np.testing.assert_allclose(above.still, [[[7.0, 8.0]] * 2, [[4.0, 5.0]] * 2])
    np.testing.assert_allclose(above.ends[0, 0], [[2.5, 0.0], [4.5, 0.0]], atol=1e-12)
    assert scene.follow
    assert not above.follow


@pytest.mark.parametrize("name", ["pointnav", "pendulum"])
def test_an_episode_becomes_a_page_that_asks_the_network_for_nothing(name):
    env = envs.make(name, episode_length=4)
    recording = jax.jit(lambda key: record(env, lambda o, k: 0.3 * jax.numpy.ones(env.spec.action_dim), key, 4))
    scene = env.draw(recording(jax.random.key(0)).frames())
    assert scene.ends.shape == (5, 1, 2, 2)
    assert np.abs(np.diff(scene.ends, axis=0)).max() > 0  # it moves
    page = viewer.page(scene, "<b>")
    assert "<b>" not in page
    assert not report.asks_elsewhere(page)
    drawn = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page).group(1))
    np.testing.assert_allclose(drawn["frames"], scene.ends, atol=1e-3)


def test_a_long_episode_skips_frames_evenly_and_keeps_its_time():
    ends = np.zeros((1001, 1, 2, 2))
    page = viewer.page(Scene(ends, np.ones(1), 0.01))
    drawn = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page).group(1))
    assert len(drawn["frames"]) == 334
    assert drawn["milliseconds"] == pytest.approx(30)
