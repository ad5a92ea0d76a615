"""Scaling of observations and rewards, fitted once on the host before training; policies that undo it when acting."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data.episodes import episode_returns, return_rank
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Agent, Array, Dataset, Key, Policy, Protocol, Transition, ZeroShot, pytree


@pytree
class Normalizer:
    """``(x - mean) / (std + eps)`` over the last axis; ``mean`` and ``std`` ``[O]``, ``eps`` a scalar.

    A pytree, so it can ride along in an agent's state or be vmapped.
    """

    mean: Array
    std: Array
    eps: Array | float = 1e-3

    def normalize(self, x: Array) -> Array:
        """``[..., O]`` -> ``[..., O]``."""
        return (x - self.mean) / (self.std + self.eps)

    def unnormalize(self, x: Array) -> Array:
        """The inverse of :meth:`normalize`."""
        return x * (self.std + self.eps) + self.mean


def fit_normalizer(dataset: Dataset | Any, eps: float = 1e-3) -> Normalizer:
    """Mean and (population) standard deviation of a data set's observations, or of an array's rows ``[N, O]``.

    ``eps`` 1e-3 is TD3+BC's (arXiv 2106.06860). Sums run in float64.
    """
    rows = np.asarray(dataset.observation if isinstance(dataset, Dataset) else dataset)
    if rows.ndim != 2 or len(rows) == 0:
        raise UserError(f"a normalizer needs rows [N, O] to fit, got shape {rows.shape}")
    mean = rows.mean(axis=0, dtype=np.float64)
    variance = np.mean(np.square(rows - mean), axis=0, dtype=np.float64)
    return Normalizer(jnp.asarray(mean, jnp.float32), jnp.asarray(np.sqrt(variance), jnp.float32), jnp.float32(eps))


def normalize_observations(dataset: Dataset, eps: float = 1e-3) -> tuple[Dataset, Normalizer]:
    """The data set with ``observation`` and ``next_observation`` normalised, and the normalizer for evaluation."""
    normalizer = fit_normalizer(dataset, eps)
    scaled = dataclasses.replace(
        dataset,
        observation=normalizer.normalize(dataset.observation),
        next_observation=normalizer.normalize(dataset.next_observation),
    )
    return scaled, normalizer


def scale_rewards(dataset: Dataset, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Dataset:
    """``reward * scale + shift``, with return ranks taken anew; ``shift=-1`` is the usual AntMaze choice.

    Reference scores keep their meaning: they belong to the environment's own rewards.
    """

    def scaled_of(reward):  # by NumPy: on a device each operation would be a program to compile first
        return None if reward is None else jnp.asarray(np.asarray(reward) * np.float32(scale) + np.float32(shift))

    dropped = scaled_of(dataset.dropped_reward)
    scaled = dataclasses.replace(dataset, reward=scaled_of(dataset.reward), dropped_reward=dropped)
    rank = return_rank(episode_returns(scaled))[np.asarray(dataset.episode)]
    return dataclasses.replace(scaled, return_rank=jnp.asarray(rank))


def normalize_rewards(dataset: Dataset, target: float = 1000.0) -> Dataset:
    """Rewards times ``target / (max return - min return)``, as IQL does on MuJoCo (arXiv 2110.06169, appendix B).

    Raises UserError if all episodes have the same return.
    """
    returns = episode_returns(dataset)
    spread = float(returns.max() - returns.min())
    if spread <= 0.0:
        raise UserError(f"{dataset.name}: every episode has return {returns[0]:g}, so there is no range to scale by")
    return scale_rewards(dataset, target / spread)


@pytree
class Preprocessing:
    """What was done to the data before training: observations ``(x - mean) / std``, rewards ``r * scale + shift``.

    ``mean`` and ``std`` ``[O]``, the others scalars, all float32. ``std`` includes what was added to it.
    """

    mean: Array
    std: Array
    reward_scale: Array
    reward_shift: Array

    def observe(self, observation: Array) -> Array:
        """Raw observations ``[..., O]`` as the agent saw them."""
        return (observation - self.mean) / self.std

    def pay(self, reward: Array) -> Array:
        """Raw rewards as the agent saw them."""
        return reward * self.reward_scale + self.reward_shift


def fit_preprocessing(
    dataset: Dataset,
    protocol: Protocol = Protocol(),  # noqa: B008 (frozen)
    *,
    normalise: bool | None = None,
    reward_scale: float | str | None = None,
) -> Preprocessing:
    """What ``protocol`` asks for, with the statistics of ``dataset``; ``normalise`` and ``reward_scale`` override it.

    ``reward_scale`` is a factor, ``"returns"`` (1000 over the range of the episodes' returns, as IQL does, arXiv
    2110.06169) or ``"none"``; given, it takes the place of the protocol's scale and shift. An observation that never
    changes is only shifted. Rewards that are not known, or of which the protocol has no use, stay as they are.

    Raises UserError for another ``reward_scale``, or for ``"returns"`` asked for where all returns are equal.
    """
    width = dataset.observation.shape[-1]
    mean, std = np.zeros(width, np.float32), np.ones(width, np.float32)
    if protocol.normalise if normalise is None else normalise:
        fitted = fit_normalizer(dataset, protocol.eps)
        mean, spread = np.asarray(fitted.mean), np.asarray(fitted.std)
        std = np.where(spread > 1e-6 * np.maximum(np.abs(mean), 1.0), spread + np.float32(protocol.eps), 1.0)
    scale, shift = 1.0, 0.0
    if dataset.rewarded and protocol.rewards:
        if reward_scale is not None:
            scale = _reward_scale(dataset, reward_scale)
        elif protocol.sparse is not None and sparse_rewards(dataset):
            scale, shift = protocol.sparse
        else:
            shift = protocol.reward_shift
            varied = protocol.reward_scale != "returns" or np.ptp(episode_returns(dataset)) > 0
            scale = _reward_scale(dataset, protocol.reward_scale) if varied else 1.0
    return Preprocessing(*(jnp.asarray(x, jnp.float32) for x in (mean, std, scale, shift)))


def _reward_scale(dataset: Dataset, wanted: float | str) -> float:
    if wanted == "returns":
        spread = float(np.ptp(episode_returns(dataset)))
        if spread <= 0.0:
            raise UserError(f"{dataset.name}: every episode has the same return, so there is no range to scale by")
        return 1000.0 / spread
    return reward_factor(wanted)


def reward_factor(wanted: float | str) -> float:
    """A factor for rewards from a number or its text, 1 for ``"none"``; raises UserError for any other."""
    if wanted == "none":
        return 1.0
    try:
        scale = float(wanted)
    except ValueError:
        scale = np.nan
    if not np.isfinite(scale) or scale <= 0:
        raise UserError(f"reward scale {wanted!r} is neither a number above 0 nor 'returns' or 'none'")
    return scale


def sparse_rewards(dataset: Dataset) -> bool:
    """Whether rewards are 0 before a goal and 1 at it: no other values, and most of them 0."""
    reward = np.asarray(dataset.reward)
    return bool(((reward == 0) | (reward == 1)).all() and 0 < reward.mean() < 0.5)


def preprocess(dataset: Dataset, preprocessing: Preprocessing) -> Dataset:
    """The data set as an agent trains on it; reference scores keep belonging to the environment's own rewards."""
    by_numpy = jax.tree.map(np.asarray, preprocessing)  # as ``scale_rewards``
    observed = dataclasses.replace(
        dataset,
        observation=jnp.asarray(by_numpy.observe(np.asarray(dataset.observation))),
        next_observation=jnp.asarray(by_numpy.observe(np.asarray(dataset.next_observation))),
    )
    if not dataset.rewarded:
        return observed
    return scale_rewards(observed, preprocessing.reward_scale, preprocessing.reward_shift)


def preprocess_batch(batch: Transition, preprocessing: Preprocessing) -> Transition:
    """Raw transitions, such as those that a replay is to hold, as an agent trained on preprocessed data takes them."""
    return dataclasses.replace(
        batch,
        observation=preprocessing.observe(batch.observation),
        next_observation=preprocessing.observe(batch.next_observation),
        reward=preprocessing.pay(batch.reward),
    )


def on_raw_policy(policy: Policy, preprocessing: Preprocessing) -> Policy:
    """``policy``, which knows preprocessed observations and rewards, for an environment that gives raw ones."""

    def start(shape: tuple[int, ...]) -> Any:
        return policy.start(shape), jnp.zeros(shape, jnp.bool_)

    def step(carry: Any, observation: Array, reward: Array, key: Key) -> tuple[Array, Any]:
        inner, begun = carry
        paid = jnp.where(begun, preprocessing.pay(reward), reward)  # before the first step nothing was paid
        action, inner = policy.step(inner, preprocessing.observe(observation), paid, key)
        return action, (inner, jnp.ones_like(begun))

    return Policy(start, step)


def on_raw(agent: Agent, preprocessing: Preprocessing) -> Agent:
    """``agent`` for raw observations: ``act``, ``q``, ``policy`` and ``zero_shot`` preprocess what they are given, and
    ``prepare`` takes a raw data set, so that ``update``, ``measure`` and ``sample`` stay as they are."""

    def act(state: Any, observation: Array, hyper: Any, key: Key, explore: bool) -> Array:
        return agent.act(state, preprocessing.observe(observation), hyper, key, explore)

    def prepare(dataset: Dataset) -> Any:
        done = preprocess(dataset, preprocessing)
        return done if agent.prepare is None else agent.prepare(done)

    changes: dict[str, Any] = {"act": act, "prepare": prepare}
    value = agent.q
    if value is not None:
        changes["q"] = lambda state, observation, action: value(state, preprocessing.observe(observation), action)
    inner = agent.policy
    if inner is not None:
        changes["policy"] = lambda state, hyper, explore: on_raw_policy(inner(state, hyper, explore), preprocessing)
    served = agent.zero_shot
    if served is not None:
        plans = served.policy
        changes["zero_shot"] = ZeroShot(
            lambda state, observation, reward: served.infer_z(state, preprocessing.observe(observation), reward),
            lambda state, goal: served.goal_z(state, preprocessing.observe(goal)),
            lambda state, observation, z, key: served.act(state, preprocessing.observe(observation), z, key),
            None if plans is None else lambda state, z: on_raw_policy(plans(state, z), preprocessing),
        )
    return agent._replace(**changes)


def describe_preprocessing(preprocessing: Preprocessing) -> str:
    """What was done, in words; "" for nothing."""
    mean, std, scale, shift = (np.asarray(getattr(preprocessing, f.name)) for f in dataclasses.fields(preprocessing))
    said = ["observations standardised over the data"] if (mean != 0).any() or (std != 1).any() else []
    if scale != 1:
        said.append(f"rewards times {scale:.4g}")
    if shift != 0:
        said.append(f"{'rewards ' if scale == 1 else ''}{'plus' if shift > 0 else 'minus'} {abs(shift):.4g}")
    return ", ".join(said)


def preprocessing_to_json(preprocessing: Preprocessing) -> dict[str, Any]:
    """The statistics as numbers that JSON takes, float32 bit for bit."""
    return {f.name: np.asarray(getattr(preprocessing, f.name)).tolist() for f in dataclasses.fields(preprocessing)}


def preprocessing_from_json(values: Any) -> Preprocessing:
    """What ``preprocessing_to_json`` gave. Raises ``UserError`` for anything else."""
    names = [field.name for field in dataclasses.fields(Preprocessing)]
    try:
        arrays = {name: np.asarray(values[name], np.float32) for name in names}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"statistics of the data need the numbers {', '.join(names)}") from None
    return Preprocessing(**{name: jnp.asarray(array) for name, array in arrays.items()})
