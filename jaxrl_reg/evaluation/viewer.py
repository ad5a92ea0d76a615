"""A page that plays an episode and asks the network for nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.types import Scene

if TYPE_CHECKING:
    import jinja2

FRAMES = 400  # at most; longer episodes skip evenly


def templates() -> jinja2.Environment:
    """The pages of this package: what is put into them is escaped, and a name they lack is an error."""
    need("jinja2")
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("jaxrl_reg.evaluation", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def page(scene: Scene, title: str = "") -> str:
    """Self-contained HTML: a canvas, play and pause, a slider. See ``types.Scene`` for what is drawn."""
    times = len(scene.ends)
    stride = max(1, -(-times // FRAMES))

    def flat(ends: np.ndarray) -> list:
        return np.round(np.asarray(ends, float), 3).tolist()

    drawn = {
        "frames": flat(scene.ends[::stride]),
        "radius": np.round(scene.radius, 3).tolist(),
        "still": flat(scene.still),
        "stillRadius": np.round(scene.still_radius, 3).tolist(),
        "milliseconds": 1000.0 * scene.seconds * stride,
        "follow": scene.follow,
    }
    data = json.dumps(drawn, separators=(",", ":"), allow_nan=False)
    return templates().get_template("viewer.html").render(title=title, data=data)
