"""Population-based training between the segments of ``sweep``: who copies whom, and what hyperparameters come of it.

The same exploit and explore as ``evolution.evolve``, decided on the host from the metrics of a segment, so that such a
run has progress, checkpoints and resume like any other. The settings of a sweep are the slots of a population; every
seed is a population of its own, and slots copy each other within it.

Source: Jaderberg et al., 2017, Population Based Training of Neural Networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.population.evolution import exploit, explore
from jaxrl_reg.population.search import Range

STREAM = 103  # of the keys that decide, beside those of the loops
PREFIX = "hyper/"  # of the metrics that say what a segment was trained with


class Generations(NamedTuple):
    """How a population moves. ``ranges`` are ``log`` or ``lin``, of the hyperparameters that move; ``score`` is the
    metric by which slots are compared, higher is better; the rest as in ``evolution``."""

    ranges: Mapping[str, Range]
    score: str = "eval/return"
    fraction: float = 0.25
    factor: float = 1.25
    resample: float = 0.0

    def check(self, hypers: Any) -> None:
        """Raises ``UserError`` for a hyperparameter that does not exist or cannot be pushed up or down."""
        known = [field.name for field in dataclasses.fields(hypers)]
        for name, one in self.ranges.items():
            if name not in known:
                raise unknown("hyperparameter", name, known)
            if one.kind == "choice":
                raise UserError(f"{name} is a choice; population-based training moves log:LOW:HIGH or lin:LOW:HIGH")

    def used(self, hypers: Any) -> dict[str, np.ndarray]:
        """The moving hyperparameters ``[M]`` as metrics of the segment that was trained with them."""
        return {PREFIX + name: np.asarray(getattr(hypers, name), np.float32) for name in self.ranges}

    def following(
        self, segment: int, seeds: np.ndarray, hypers: Any, metrics: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, Any]:
        """Who copies whom before segment ``segment``, and the hyperparameters of that segment.

        Args:
          segment: index of the segment to come.
          seeds: ``[S]``, of the populations.
          hypers: leaves ``[M]``, ``M = H S`` members in the order of ``checkpointing.layout``; what has moved is taken
            from ``metrics``.
          metrics: of the segment before, ``[M]`` each.

        Returns:
          ``[M]`` int, itself for a member that copies nobody; ``hypers`` with leaves ``[M]``.

        Raises:
          UserError: for a score that the run does not have.
        """
        if self.score not in metrics:
            raise unknown("metric", self.score, metrics)
        moved = {name: jnp.asarray(metrics[PREFIX + name]) for name in self.ranges}
        hypers = dataclasses.replace(hypers, **moved)
        slots = len(metrics[self.score]) // seeds.size

        def population(seed: Any, scores: Any, hypers: Any) -> tuple[Any, Any]:
            choose, push = jax.random.split(
                jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAM), segment)
            )
            parents = exploit(choose, scores, self.fraction)
            taken = jax.tree.map(lambda leaf: leaf[parents], hypers)
            pushed = explore(push, taken, self.ranges, self.factor, self.resample)
            copied = parents != jnp.arange(slots)
            return parents, jax.tree.map(lambda new, old: jnp.where(copied, new, old), pushed, hypers)

        def by_seed(leaf: Any) -> Any:
            return jnp.asarray(leaf).reshape(slots, seeds.size).T

        with jax.default_device(jax.local_devices(backend="cpu")[0]):  # small: the same decision on every machine
            scores = by_seed(metrics[self.score])
            parents, hypers = jax.vmap(population)(jnp.asarray(seeds), scores, jax.tree.map(by_seed, hypers))
        members = np.asarray(parents).T * seeds.size + np.arange(seeds.size)
        return members.ravel(), jax.tree.map(lambda leaf: np.asarray(leaf).T.ravel(), hypers)
