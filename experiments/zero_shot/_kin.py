"""BREEZE, itself without weights in the actor's loss, FB and its conservative kin, at one size."""

from __future__ import annotations

from experiments.arms import Arm

RATES = ("representation_learning_rate", "actor_learning_rate", "value_learning_rate")


def arms(width: int, features: int, candidates: int, rate: float | None = None) -> dict[str, Arm]:
    """The arms at their own settings, which are the papers'; with a ``rate``, settings for few updates.

    Few updates: larger steps, plain networks, and neither standardisation nor warm restarts, which are meant for a
    million updates and are left out for the good of BREEZE.
    """
    size: tuple = (("features", features),)
    diffusion: tuple = (("candidates", candidates), ("steps", 5), ("train_candidates", 1))
    settings: dict[str, float] = {}
    if rate is not None:
        size += (("preprocessor", ()), ("backward_hidden", (width,)))
        diffusion += (("representation", "mlp"), ("standardise", False), ("warm_restarts", False))
        settings = dict.fromkeys(RATES, rate)
        settings |= {"actor_average_rate": 5e-3, "inverse_temperature": 10.0, "expectile": 0.9}
    own = {name: settings[name] for name in RATES[:2] if name in settings}
    return {
        "BREEZE": Arm("breeze", settings, size + diffusion),
        "BREEZE without weights": Arm("breeze", {**settings, "inverse_temperature": 0.0}, size + diffusion),
        "FB": Arm("fb", own, size),
        "VC-FB": Arm("vc_fb", own, size),
        "MC-FB": Arm("mc_fb", own, size),
    }
