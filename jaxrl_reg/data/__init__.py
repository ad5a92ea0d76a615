"""Data sets on the device: reading and writing, cutting, normalising, sampling; replay buffers for online agents."""

from jaxrl_reg.data import buffers, retrieval
from jaxrl_reg.data.dataset import (
    add_returns_to_go,
    concatenate,
    episode_returns,
    first_episodes,
    from_arrays,
    from_transitions,
    head,
    normalised_score,
    subset,
    summary,
    top_fraction,
    validate,
)
from jaxrl_reg.data.files import load, metadata, names, save
from jaxrl_reg.data.normalisation import (
    Normalizer,
    fit_normalizer,
    normalize_observations,
    normalize_rewards,
    scale_rewards,
)
from jaxrl_reg.data.samplers import Sampler, hindsight, n_step, take, take_windows, uniform, window_starts, windows

__all__ = [
    "Normalizer",
    "Sampler",
    "add_returns_to_go",
    "buffers",
    "concatenate",
    "episode_returns",
    "first_episodes",
    "fit_normalizer",
    "from_arrays",
    "from_transitions",
    "head",
    "hindsight",
    "load",
    "metadata",
    "n_step",
    "names",
    "normalised_score",
    "normalize_observations",
    "normalize_rewards",
    "retrieval",
    "save",
    "scale_rewards",
    "subset",
    "summary",
    "take",
    "take_windows",
    "top_fraction",
    "uniform",
    "validate",
    "window_starts",
    "windows",
]
