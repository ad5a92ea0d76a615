"""A run directory with made-up metrics, and the parts of it."""

import json

import numpy as np
import pandas as pd

SEEDS, UPDATES = 8, (1000, 2000, 3000, 4000)


def make_frame(settings=(0.0, 0.1, 1.0), seeds=SEEDS, updates=UPDATES, episodes=10, normalised=True):
    """Returns that grow with updates; the middle setting is best; bc learns 300 of the expert's 1000."""
    rng = np.random.default_rng(3)
    rows = []
    for agent, values in (("bc", [None]), ("rebrac", settings)):
        for setting, value in enumerate(values):
            level = 300.0 if value is None else 900.0 - 250.0 * abs(setting - 1)
            for seed in range(seeds):
                for segment, update in enumerate(updates):
                    score = level * (segment + 1) / len(updates) + rng.normal(scale=60.0)
                    row = {
                        "agent": agent,
                        "member": setting * seeds + seed,
                        "seed": seed,
                        "setting": setting,
                        "actor_bc_coef": value,
                        "segment": segment,
                        "update": update,
                        "evaluation": 0,
                        "episodes": episodes,
                        "eval/return": score,
                        "eval/length": 100.0,
                    }
                    if normalised:
                        row["eval/score"] = 100.0 * (score - 20.0) / (1000.0 - 20.0)
                    rows.append(row)
    return pd.DataFrame(rows)


def make_about(normalised=True):
    rng = np.random.default_rng(4)
    return {
        "name": "medium-replay",
        "file": "datasets/brax-hopper-spring/medium-replay.hdf5",
        "rows": 20_000,
        "episodes": 150,
        "cut_episodes": 5,
        "observation": 11,
        "action": 3,
        "terminal_fraction": 0.004,
        "score_random": 20.0,
        "score_expert": 1000.0 if normalised else 20.0,
        "normalised": normalised,
        "returns": rng.gamma(3.0, 120.0, 150).tolist(),
    }


def make_run(directory, frame=None, about=None):
    """Write ``config.json``, ``summary.json`` and ``metrics.parquet``."""
    frame = make_frame() if frame is None else frame
    grid = sorted(frame["actor_bc_coef"].dropna().unique().tolist())
    config = {"env": "brax/hopper", "agent": "rebrac", "grid": {"actor_bc_coef": grid}, "settings": {}}
    config |= {"seeds": SEEDS, "updates": UPDATES[-1], "hidden": [64, 64]}
    stored = {
        "format": 1,
        "config": config,
        "agent_config": {"hidden": [64, 64], "layer_norm": True},
        "hypers": {"actor_bc_coef": grid, "discount": [0.99] * len(grid)},
        "environment": {
            "versions": {"python": "3.11.7", "jax": "0.10.2"},
            "commit": None,
            "platform": "Linux",
            "cores": 2,
            "devices": ["cpu:0 cpu"],
            "xla_flags": "",
            "precision": "default",
        },
        "created": "2026-01-01T12:00:00+00:00",
    }
    plan = {"plan": "24 members on 2 cpu devices", "parameters": 12345, "trace_seconds": 1.2, "compile_seconds": 5.3}
    training = {"rebrac": {**plan, "train_seconds": 412.0, "updates_per_second": 1234.5}}
    summary = {"dataset": about or make_about(), "wall": {"load the data": 0.4}, "training": training}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(stored))
    (directory / "summary.json").write_text(json.dumps(summary))
    frame.to_parquet(directory / "metrics.parquet", index=False)
    return directory
