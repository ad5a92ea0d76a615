"""A small data set of the ``pointnav`` environment, made with NumPy: nothing to compile."""

import numpy as np

from jaxrl_reg import data


def make_pointnav(episodes=20, length=30, seed=0):
    """Noisy steps towards the goal (top right), ``episodes`` whole ones of ``length`` rows; scores 0 and 20."""
    rng = np.random.default_rng(seed)
    rows = {name: [] for name in ("observation", "action", "reward", "next_observation")}
    for _ in range(episodes):
        position = rng.uniform(-1.0, 1.0, 2)
        for _ in range(length):
            action = np.clip(0.3 * (0.9 - position) + rng.normal(scale=0.15, size=2), -0.4, 0.4)
            following = np.clip(position + 0.5 * action, -1.0, 1.0)
            reward = float(np.linalg.norm(following - 0.9) < 0.4)
            for name, value in zip(rows, (position, action, reward, following), strict=True):
                rows[name].append(value)
            position = following
    truncated = np.tile(np.arange(length) == length - 1, episodes)
    return data.from_arrays(
        rows["observation"],
        rows["action"],
        rows["reward"],
        np.zeros_like(truncated),
        truncated,
        rows["next_observation"],
        name="pointnav-test",
        score_random=0.0,
        score_expert=20.0,
    )


def save_pointnav(path):
    """Write it to ``path`` and return that."""
    data.save(make_pointnav(), path)
    return path
