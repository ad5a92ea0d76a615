"""Sub-trajectories as arrays of standardised channels: what a generative model of trajectories learns and draws.

A window of ``L`` steps is ``x [L, C]`` with ``C = O + A + 2`` channels: observation, action, reward, termination. Each
channel is standardised over the whole data set.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data.samplers import take_windows, window_starts
from jaxrl_reg.types import Array, Dataset, Key, Transition, pytree

EDGE = 0.999  # actions are brought to +-EDGE before the inverse of tanh, which makes at most +-3.8 of them


@pytree
class TrajectoryScaler:
    """Between transitions and channels; ``mean`` and ``std`` ``[C]``. Made by ``fit_trajectory_scaler``."""

    mean: Array
    std: Array
    observation_dim: int = dataclasses.field(metadata={"static": True})
    squash: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def channels(self) -> int:
        """``C``."""
        return self.mean.shape[-1]

    def encode(self, batch: Transition) -> Array:
        """Windows with leaves ``[..., L, ...]`` as ``[..., L, C]``."""
        return (self._columns(batch) - self.mean) / self.std

    def observation(self, x: Array) -> Array:
        """The observations ``[..., O]`` in channels ``[..., C]``."""
        o = self.observation_dim
        return x[..., :o] * self.std[:o] + self.mean[:o]

    def action(self, x: Array) -> Array:
        """The actions ``[..., A]`` in channels ``[..., C]``; differentiable, and in [-1, 1] if they are squashed."""
        part = slice(self.observation_dim, -2)
        action = x[..., part] * self.std[part] + self.mean[part]
        return jnp.tanh(action) if self.squash else action

    def decode(self, x: Array) -> Transition:
        """``[..., L, C]`` as transitions with leaves ``[..., L - 1, ...]``, each of them complete.

        A step's successor is the next step of its window, so a window ends where it terminates (channel above 0.5) and
        otherwise one step before its last. After an early end the rows repeat from the beginning: shapes stay fixed and
        any row may be drawn. A window that terminates in its last step leaves out its first. ``last`` is 1 at the end
        of a window; ``return_rank`` is None.
        """
        rows = x.shape[-2] - 1
        raw = x[..., -2:] * self.std[-2:] + self.mean[-2:]
        terminated = raw[..., 1] > 0.5
        end = jnp.where(terminated.any(-1), jnp.argmax(terminated, axis=-1) + 1, rows)[..., None]
        observation, action = self.observation(x), jnp.clip(self.action(x), -1.0, 1.0)
        step = jnp.where(end > rows, 1, 0) + jnp.arange(rows) % end  # [..., L - 1]
        following = jnp.minimum(step + 1, rows)
        final = step == end - 1
        terminal = jnp.take_along_axis(terminated, step, axis=-1)

        def at(values: Array, rows: Array) -> Array:
            return jnp.take_along_axis(values, rows[..., None], axis=-2)

        own, next_action = at(action, step), at(action, following)
        return Transition(
            observation=at(observation, step),
            action=own,
            reward=jnp.take_along_axis(raw[..., 0], step, axis=-1),
            discount=1.0 - terminal.astype(jnp.float32),
            next_observation=at(observation, following),
            last=final.astype(jnp.float32),
            next_action=jnp.where(terminal[..., None], own, next_action),
        )

    def _columns(self, batch: Transition) -> Array:
        action = jnp.arctanh(jnp.clip(batch.action, -EDGE, EDGE)) if self.squash else batch.action
        ends = jnp.stack([batch.reward, 1.0 - batch.discount], axis=-1)
        return jnp.concatenate([batch.observation, action, ends], axis=-1)


def fit_trajectory_scaler(dataset: Dataset, squash: bool = True) -> TrajectoryScaler:
    """Mean and standard deviation of every channel; a channel that never changes gets standard deviation 1.

    ``squash`` models the inverse tanh of the actions, as Policy-Guided Diffusion does, so that every draw lies in
    [-1, 1]; actions at the bounds then dominate the scale. Without it draws are clipped. Sums run in float64.
    """
    width = dataset.spec.observation_dim + dataset.spec.action_dim + 2
    scaler = TrajectoryScaler(jnp.zeros(width), jnp.ones(width), dataset.spec.observation_dim, squash)
    whole = Transition(dataset.observation, dataset.action, dataset.reward, dataset.discount, dataset.next_observation)
    rows = np.asarray(scaler.encode(whole), np.float64)
    std = rows.std(axis=0)
    std = np.where(std > 1e-6, std, 1.0)
    return dataclasses.replace(
        scaler, mean=jnp.asarray(rows.mean(axis=0), jnp.float32), std=jnp.asarray(std, jnp.float32)
    )


@pytree
class Trajectories:
    """A data set seen as windows of one length, and its scaler; an argument of every compiled function."""

    dataset: Dataset
    starts: Array  # [M] int32, rows at which a whole window begins
    scaler: TrajectoryScaler
    length: int = dataclasses.field(metadata={"static": True})

    def sample(self, key: Key, batch_size: int) -> Array:
        """``batch_size`` windows in channels, ``[B, L, C]``."""
        which = jax.random.randint(key, (batch_size,), 0, self.starts.shape[0])
        return self.scaler.encode(take_windows(self.dataset, self.starts[which], self.length))


def trajectories(dataset: Dataset, length: int = 32, stride: int = 8, squash: bool = True) -> Trajectories:
    """Windows of ``length`` steps within one episode: every ``stride``-th, and the one that ends with the episode.

    Raises UserError if no episode is that long.
    """
    starts = jnp.asarray(window_starts(dataset, length, stride))
    return Trajectories(dataset, starts, fit_trajectory_scaler(dataset, squash), length)
