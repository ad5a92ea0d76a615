"""Which steps and sensors of an episode a frozen policy's actions depend on: a mask learnt for that episode.

An entry (step, sensor) that is hidden is replaced by that of a random visited state. The mask is the probability that
each entry is shown, fitted so that the actions stay as they were (their consistency), that few entries are shown (a
prior over the rate), and that a sensor is shown over connected stretches. So it marks what must be seen together, not
what would change an action by itself. It begins from ``occlusion``, which is that.

Whether a mask is worth anything is measured: ``fidelity`` says how much of what hiding everything changes of the
actions is avoided by showing only its first entries, beside as many chosen at random. A policy whose actions have no
gradient (choices) is explained by occlusion alone.

Source: Queen et al., 2023, Encoding Time-Series Explanations through Self-Supervised Model Behavior Consistency
(TimeX), whose losses these are. Deviations: the mask is optimised for one episode instead of predicted by a network
that is trained on many, since here there is a policy and no data set of labels; so there are no landmarks and no second
model.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses
from jaxrl_reg.evaluation.logs import answers
from jaxrl_reg.losses.explanation import straight_through_mask
from jaxrl_reg.transforms import refine
from jaxrl_reg.types import Array, Key, Policy

DRAWS = 4  # of masks and of replacements, per step of the optimiser
JUDGED = 16  # draws of replacements that fidelity is measured with
SMALLEST = 1e-8


class Explanation(NamedTuple):
    """Of one episode of ``T`` steps and ``O`` sensors.

    ``mask [T, O]`` in [0, 1], chance that an entry is shown; 0 past the episode's end. ``occlusion [T, O]``, change of
    the actions when an entry alone is hidden, over their variance. ``action [T, A]``. ``fidelity`` of the mask's first
    entries, of occlusion's, and of random ones, ``[3]``: 1 keeps the actions, 0 is as bad as showing nothing.
    """

    mask: Array
    occlusion: Array
    action: Array
    fidelity: Array


def explain(
    policy: Policy,
    observation: Array,
    paid: Array,
    alive: Array,
    visited: Array,
    key: Key,
    *,
    share: float = 0.2,
    steps: int = 200,
    prior: float = 1.0,
    connected: float = 0.2,
    differentiable: bool = True,
) -> Explanation:
    """The mask of one episode.

    Args:
      policy: frozen; it may have a memory.
      observation: ``[T, O]``, what it saw.
      paid: ``[T]``, what it was paid the step before.
      alive: ``[T]``, 1 on real steps, which come first.
      visited: ``[N, O]``, states whose entries replace hidden ones.
      key: for masks and replacements.
      share: of all entries that the prior wants shown, and that fidelity keeps. In (0, 1).
      steps: of Adam, 0.1 per step, on logits.
      prior, connected: weights of ``losses.mask_prior_loss`` and ``losses.time_variation_loss``; the consistency of the
        actions, over their variance, has 1.
      differentiable: False leaves occlusion as the mask.
    """
    keys = jax.random.split(key, 5)
    action = _answered(policy, observation[None], paid, keys[0])[0]
    living = alive / jnp.maximum(alive.sum(), 1.0)
    centre = living @ action
    scatter = jnp.maximum(living @ jnp.square(action - centre).sum(axis=-1), SMALLEST)

    def error(mask: Array, other: Array) -> Array:
        """Squared change of the actions over their variance, ``[K, T]``, of masks ``[K, T, O]``."""
        seen = mask * observation + (1.0 - mask) * other
        return jnp.square(_answered(policy, seen, paid, keys[0]) - action).sum(axis=-1) / scatter

    hidden = _occluded(error, observation, visited, keys[1])
    logits = _first_guess(hidden * alive[:, None], alive, share)
    if differentiable and steps:
        others = _replacements(visited, keys[2], (DRAWS, *observation.shape))
        noise = jax.random.split(keys[3], DRAWS)

        def loss(logits: Array) -> Array:
            probability = jax.nn.sigmoid(logits)
            masks = jax.vmap(lambda one: straight_through_mask(one, probability))(noise)
            consistency = (error(masks, others) @ living).mean()
            by_sensor = jnp.where(alive > 0, probability.T, share)  # [O, T]
            size = losses.mask_prior_loss(by_sensor, share).mean()
            return consistency + prior * size + connected * losses.time_variation_loss(by_sensor).mean()

        logits, _ = refine(loss, logits, optax.adam(0.1), steps)
    mask = jax.nn.sigmoid(logits) * alive[:, None]
    judged = _replacements(visited, keys[4], (JUDGED, *observation.shape))
    chance = jax.random.uniform(jax.random.fold_in(keys[4], 1), mask.shape)

    def change(shown: Array) -> Array:
        return (error(jnp.broadcast_to(shown, judged.shape), judged) @ living).mean()

    everything = jnp.maximum(change(jnp.zeros_like(mask)), SMALLEST)

    def fidelity(score: Array) -> Array:
        return 1.0 - change(_first(score, share, alive)) / everything

    return Explanation(mask, hidden * alive[:, None], action, jax.lax.map(fidelity, jnp.stack([mask, hidden, chance])))


def _answered(policy: Policy, seen: Array, paid: Array, key: Key) -> Array:
    """Actions ``[K, T, A]`` in episodes in which ``seen [K, T, O]`` is seen."""
    rewards = jnp.broadcast_to(paid[:, None], (paid.shape[0], seen.shape[0]))
    return jnp.swapaxes(answers(policy, jnp.swapaxes(seen, 0, 1), rewards, key), 0, 1)


def _replacements(visited: Array, key: Key, shape: tuple[int, ...]) -> Array:
    """Visited states at random, ``[..., O]``: whole ones, so that hidden sensors fit each other."""
    return visited[jax.random.randint(key, shape[:-1], 0, visited.shape[0])]


def _occluded(error, observation: Array, visited: Array, key: Key) -> Array:
    """What hiding each entry alone changes at that step, ``[T, O]``: a sensor at a time, in the whole episode.

    For a policy with a memory the change includes what it remembers of the sensor.
    """
    length, size = observation.shape
    other = _replacements(visited, key, (DRAWS, length, size))

    def one(sensor: Array) -> Array:
        mask = 1.0 - jax.nn.one_hot(sensor, size)
        return error(jnp.broadcast_to(mask, other.shape), other).mean(axis=0)

    return jax.lax.map(one, jnp.arange(size)).T


def _first(score: Array, share: float, alive: Array) -> Array:
    """0 or 1: the ``share`` of the living entries with the largest ``score [T, O]``."""
    count = jnp.ceil(share * alive.sum() * score.shape[-1]).astype(jnp.int32)
    ranked = jnp.where(alive[:, None] > 0, score, -jnp.inf).ravel()
    place = jnp.argsort(jnp.argsort(-ranked, stable=True), stable=True)
    return (place < count).astype(score.dtype).reshape(score.shape)


def _first_guess(score: Array, alive: Array, share: float) -> Array:
    """Logits that order entries as ``score [T, O]`` does, from -2 to 2, with 0 at the ``share`` to be shown."""
    count = jnp.maximum(alive.sum() * score.shape[-1], 1.0)
    ranked = jnp.where(alive[:, None] > 0, score, -jnp.inf).ravel()
    place = jnp.argsort(jnp.argsort(-ranked, stable=True), stable=True).reshape(score.shape) / count
    return jnp.clip(4.0 * (share - place), -2.0, 2.0)
