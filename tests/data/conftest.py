"""A hand-made data set: episode 0 terminates after 4 rows, 1 times out after 5, 2 times out after a single row."""

import numpy as np
import pytest

from jaxrl_reg import data


@pytest.fixture
def columns():
    """NumPy columns of ten rows; observations are [row, episode, step] and a final successor is marked by +100."""
    lengths = (4, 5, 1)
    episode = np.repeat(np.arange(3), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    row = np.arange(10)
    observation = np.stack([row, episode, step], axis=1).astype(np.float32)
    following = np.roll(observation, -1, axis=0)
    for final in (3, 8, 9):
        following[final] = observation[final] + np.array([100, 0, 1])
    random = np.random.default_rng(0)
    return {
        "observation": observation,
        "action": random.uniform(-1, 1, (10, 2)).astype(np.float32),
        "reward": random.normal(size=10).astype(np.float32),
        "terminated": row == 3,
        "truncated": (row == 8) | (row == 9),
        "next_observation": following,
    }


@pytest.fixture
def dataset(columns):
    extras = {"physics": np.arange(40, dtype=np.float32).reshape(10, 4), "tag": np.arange(10)}
    return data.from_arrays(**columns, name="hand", score_random=-1.5, score_expert=3.25, extras=extras)
