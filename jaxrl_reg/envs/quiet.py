"""Silence for what the simulators say about themselves at each start; everything else passes."""

from __future__ import annotations

import contextlib
import io
import warnings
from types import ModuleType

from jaxrl_reg.errors import need

NOISE = (
    "JAXopt is no longer maintained",
    "Brax System, piplines and environments",
    "Accessing `.*` directly from `Data` is deprecated",
)
NOTICES = ("Failed to import warp:", "Failed to import mujoco_warp:")  # a back end that nobody asked for


def mjx() -> ModuleType:
    """The module ``mujoco.mjx``, imported on use: seconds that other environments need not pay."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            need("mujoco")
            from mujoco import mjx
    finally:  # also where the import fails, of which the lines may tell why
        for line in told.getvalue().splitlines():
            if not line.startswith(NOTICES):
                print(line)
    return mjx


@contextlib.contextmanager
def python():
    """Around the import, the loading and the tracing of Brax."""
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        yield


@contextlib.contextmanager
def models():
    """Around the compilation of MuJoCo models; MuJoCo would also write a log file into the working directory."""
    need("mujoco")
    import mujoco

    def warn(message):
        if "settotalmass" not in message:
            warnings.warn(message, stacklevel=2)

    before = mujoco.get_mju_user_warning()  # pyright: ignore[reportAttributeAccessIssue]
    mujoco.set_mju_user_warning(warn)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)  # pyright: ignore[reportAttributeAccessIssue]
