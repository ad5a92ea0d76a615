"""Bodies of a simulation as the capsules of a ``Scene``, which the report's viewer plays, whatever the physics."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_reg.types import Scene

CAPSULE, SPHERE, CYLINDER, BOX, ELLIPSOID = 3, 2, 5, 6, 4  # MuJoCo's numbers of shapes


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """``vector [..., 3]`` turned by unit ``quaternion [..., 4]`` (w, x, y, z)."""
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    twice = 2.0 * np.cross(axis, vector)
    return vector + w * twice + np.cross(axis, twice)


def balls(position: np.ndarray) -> np.ndarray:
    """``Scene.ends`` of one ball whose middle is at ``position [T, 2]``: a capsule of no length."""
    return np.stack([position, position], axis=1)[:, None]


def bodies(model: Any, position: np.ndarray, quaternion: np.ndarray, seconds: float) -> Scene:
    """The moving shapes of a MuJoCo ``model`` whose bodies are at ``position [T, B, 3]``, turned by ``[T, B, 4]``.

    Seen from the side: x and z. Body 0 is the world; its shapes are left out. Spheres are capsules of no length; boxes,
    cylinders and ellipsoids are drawn as capsules along their longest side.
    """
    shown = [g for g in range(model.ngeom) if model.geom_bodyid[g] > 0 and model.geom_type[g] in _HALF_LENGTHS]
    ends, radius = [], []
    for g in shown:
        axis, half, thick = _HALF_LENGTHS[int(model.geom_type[g])](np.asarray(model.geom_size[g]))
        offset = rotate(np.asarray(model.geom_quat[g]), half * np.eye(3)[axis])
        local = np.stack([model.geom_pos[g] - offset, model.geom_pos[g] + offset])  # [2, 3]
        body = int(model.geom_bodyid[g])
        ends.append(position[:, body, None] + rotate(quaternion[:, body, None], local[None]))
        radius.append(thick)
    return Scene(np.stack(ends, axis=1)[..., [0, 2]], np.asarray(radius), seconds, follow=True)


def motion(model: Any, qpos: np.ndarray, seconds: float) -> Scene:
    """The moving shapes of a MuJoCo ``model`` in the positions ``qpos [T, Q]``, ``seconds`` apart; see ``bodies``."""
    import mujoco

    poses = mujoco.MjData(model)  # pyright: ignore[reportAttributeAccessIssue]
    position, quaternion = [], []
    for row in qpos:
        poses.qpos[:] = row
        mujoco.mj_kinematics(model, poses)  # pyright: ignore[reportAttributeAccessIssue]
        position.append(poses.xpos.copy())
        quaternion.append(poses.xquat.copy())
    return bodies(model, np.stack(position), np.stack(quaternion), seconds)


def _longest(size: np.ndarray) -> tuple[int, float, float]:
    axis = int(size.argmax())
    thick = float(np.delete(size, axis).mean())
    return axis, float(size[axis]) - min(thick, float(size[axis])), thick


# Shape -> (axis of the capsule, half its length without the round ends, radius), from MuJoCo's sizes.
_HALF_LENGTHS = {
    SPHERE: lambda size: (2, 0.0, float(size[0])),
    CAPSULE: lambda size: (2, float(size[1]), float(size[0])),
    CYLINDER: lambda size: (2, float(size[1]), float(size[0])),
    BOX: _longest,
    ELLIPSOID: _longest,
}
