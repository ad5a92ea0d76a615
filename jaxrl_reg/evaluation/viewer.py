"""A page that plays an episode and asks the network for nothing."""

from __future__ import annotations

import json

import numpy as np

from jaxrl_reg.types import Scene

FRAMES = 400  # at most; longer episodes skip evenly


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
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxrl_reg.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    data = json.dumps(drawn, separators=(",", ":"), allow_nan=False)
    return environment.get_template("viewer.html").render(title=title, data=data)
