"""Bodies of a simulation as the capsules of a ``Scene``, which the report's viewer plays, whatever the physics."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.types import Scene

CAPSULE, SPHERE, CYLINDER, BOX, ELLIPSOID = 3, 2, 5, 6, 4  # MuJoCo's numbers of shapes
SIDE, ABOVE = [0, 2], [0, 1]  # axes of the picture: x and z, x and y


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """``vector [..., 3]`` turned by unit ``quaternion [..., 4]`` (w, x, y, z)."""
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    twice = 2.0 * np.cross(axis, vector)
    return vector + w * twice + np.cross(axis, twice)


def balls(position: np.ndarray) -> np.ndarray:
    """``Scene.ends`` of one ball whose middle is at ``position [T, 2]``: a capsule of no length."""
    return np.stack([position, position], axis=1)[:, None]


def bodies(
    model: Any,
    position: np.ndarray,
    quaternion: np.ndarray,
    seconds: float,
    plane: list[int] = SIDE,
    follow: bool = True,
) -> Scene:
    """The shapes of a MuJoCo ``model`` whose bodies are at ``position [T, B, 3]``, turned by ``[T, B, 4]``.

    Those of bodies without a joint, among them the world (body 0), stand still where they are first, and so do the
    sites there that are visible, which mark targets. Planes are left out. Spheres are capsules of no length; boxes,
    cylinders and ellipsoids are drawn as capsules along their longest side.
    """
    moves = model.body_dofnum[model.body_weldid] > 0
    moving, still = [], []
    for kind, count in (("geom", model.ngeom), ("site", model.nsite)):
        body, shape, size, place, turn = (
            getattr(model, f"{kind}_{name}") for name in ("bodyid", "type", "size", "pos", "quat")
        )
        for g in range(count):
            fixed = not moves[body[g]]
            if shape[g] not in _HALF_LENGTHS or (kind == "site" and not (fixed and model.site_rgba[g][3] > 0)):
                continue
            axis, half, thick = _HALF_LENGTHS[int(shape[g])](np.asarray(size[g]))
            offset = rotate(np.asarray(turn[g]), half * np.eye(3)[axis])
            local = np.stack([place[g] - offset, place[g] + offset])  # [2, 3]
            times = slice(1) if fixed else slice(None)
            ends = position[times, body[g], None] + rotate(quaternion[times, body[g], None], local[None])
            (still if fixed else moving).append((ends[..., plane], thick))
    ends, radius = zip(*moving, strict=True)
    scene = Scene(np.stack(ends, axis=1), np.asarray(radius), seconds, follow)
    if still:
        ends, radius = zip(*still, strict=True)
        scene = scene._replace(still=np.concatenate(ends), still_radius=np.asarray(radius))
    return scene


def motion(
    model: Any,
    qpos: np.ndarray,
    seconds: float,
    plane: list[int] = SIDE,
    follow: bool = True,
    targets: np.ndarray | None = None,
) -> Scene:
    """The shapes of a MuJoCo ``model`` in the positions ``qpos [T, Q]``, ``seconds`` apart; see ``bodies``.

    ``targets [M, 3]`` are where the bodies without physics (MuJoCo's ``mocap``) are.
    """
    need("mujoco")
    import mujoco

    poses = mujoco.MjData(model)  # pyright: ignore[reportAttributeAccessIssue]
    if targets is not None:
        poses.mocap_pos[:] = targets
    position, quaternion = [], []
    for row in qpos:
        poses.qpos[:] = row
        mujoco.mj_kinematics(model, poses)  # pyright: ignore[reportAttributeAccessIssue]
        position.append(poses.xpos.copy())
        quaternion.append(poses.xquat.copy())
    return bodies(model, np.stack(position), np.stack(quaternion), seconds, plane, follow)


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
