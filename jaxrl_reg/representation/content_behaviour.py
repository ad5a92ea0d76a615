"""What an agent showed and what came back, in one model both ways: foretell the response, or what got it.

Content is what was done at each step of a window (an index of an action), behaviour what the receiver did then (a bin
of the reward, another agent's answer). Forward, a run of behaviours is hidden and simulated; in reverse a run of
contents, which may also be ranked among candidates. Asking for behaviours and drawing contents is optimising by
conditioning; Decision Transformer is the causal case of that with returns only.

In our experiment one model does all three, and each direction a little worse than a model of that direction alone: the
two do not help each other. Behaviours must be shown in training; a model that never saw any ranks near chance.

Source: Khandelwal et al., 2024, Large Content and Behavior Models to Understand, Simulate, and Optimize Content and
Behavior. Left out: text, pictures and the language model; the two tasks and their masks are the source's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.networks.two_streams import two_streams
from jaxrl_reg.types import Array, Key, Metrics, PyTree, Transition


class ContentBehaviour(NamedTuple):
    """An objective for ``loops.pretrain``, and what its parameters are good for; ``who [B]`` numbers the receivers.

    ``loss(params, batch, key)`` takes windows of ``samplers.windows(length)`` whose actions are one-hot contents, with
    ``extras["behaviour"]`` (see ``data.bins``) and, where there are several receivers, ``extras["who"]``, ``[B, T]``.
    ``simulate(params, who, content [B, T]) -> [B, T, behaviours]``, probabilities with all behaviours hidden: with
    their neighbours shown a good part would be interpolation. ``rank(params, who, behaviour [B, T], content, hidden
    [B, T], candidates [B, K, T]) -> [B, K]``, log-probability of each candidate's hidden part. ``ask(params, who,
    behaviour, key, rounds=8) -> content [B, T]``, drawn to get these behaviours.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    simulate: Callable[[PyTree, Array, Array], Array]
    rank: Callable[[PyTree, Array, Array, Array, Array, Array], Array]
    ask: Callable[..., Array]


def two_way_masks(
    key: Key,
    batch: int,
    length: int,
    forward: float | Array = 0.5,
    behaviour_runs: tuple[int, int] | None = None,
    content_runs: tuple[int, int] = (1, 5),
) -> tuple[Array, Array]:
    """Which contents and which behaviours are hidden, two of bool ``[batch, length]``: in each row a run of one kind.

    Args:
      key: for the kind of each row, and length and place of its run.
      batch, length: static.
      forward: chance that it is behaviours.
      behaviour_runs: least and greatest length, both included; 1 to ``length`` by default, so that all hidden occurs.
      content_runs: likewise, at most ``length``.
    """
    kind_key, size_key, place_key = jax.random.split(key, 3)
    ahead = jax.random.bernoulli(kind_key, forward, (batch, 1))
    ends = jnp.array([behaviour_runs or (1, length), content_runs])
    low, high = (jnp.where(ahead, *ends[:, i]) for i in range(2))
    high = jnp.minimum(high, length)
    size = low + jnp.floor(jax.random.uniform(size_key, (batch, 1)) * (high - low + 1)).astype(jnp.int32)
    first = jnp.floor(jax.random.uniform(place_key, (batch, 1)) * (length - size + 1)).astype(jnp.int32)
    step = jnp.arange(length)
    run = (step >= first) & (step < first + size)
    return run & ~ahead, run & ahead


def two_way_loss(
    content_nll: Array, behaviour_nll: Array, hide_content: Array, hide_behaviour: Array, weight: float | Array = 1.0
) -> Array:
    """Mean over hidden contents plus ``weight`` times the mean over hidden behaviours, all ``[B, T]``; nats.

    Each kind is averaged over its own: one mean over all would weigh the directions by how many tokens each hides.
    """
    contents = losses.masked_mean(content_nll, hide_content.astype(content_nll.dtype))
    return contents + weight * losses.masked_mean(behaviour_nll, hide_behaviour.astype(behaviour_nll.dtype))


def content_behaviour(
    contents: int,
    behaviours: int,
    length: int,
    receivers: int = 1,
    *,
    width: int = 32,
    blocks: int = 2,
    heads: int = 2,
    forward: float = 0.5,
    weight: float = 1.0,
) -> ContentBehaviour:
    """A joint model of windows of ``length`` steps.

    Args:
      contents, behaviours, receivers: how many kinds of each.
      length: steps of a window.
      width, blocks, heads: of the transformer.
      forward: share of examples in which behaviours are hidden; 1 or 0 makes a specialist.
      weight: of the behaviours' loss.
    Raises:
      UserError: as ``networks.two_streams``.
    """
    network = two_streams(contents, behaviours, receivers, length, width, blocks, heads)

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        if "behaviour" not in batch.extras:
            raise UserError('the batch has no extras["behaviour"]; make it of the rewards with data.bins.to_bins')
        target, real = batch.action, batch.extras["mask"]
        behaviour = batch.extras["behaviour"].astype(jnp.int32)
        who = batch.extras.get("who", jnp.zeros_like(behaviour))[:, 0].astype(jnp.int32)
        masks = two_way_masks(key, behaviour.shape[0], length, forward)
        hide_content, hide_behaviour = (mask & (real > 0) for mask in masks)
        given = target.argmax(axis=-1), behaviour, who, hide_content, hide_behaviour, real
        told, came = network.apply(params, *given)
        nll = losses.cross_entropy_loss(told, jax.nn.one_hot(given[0], contents))
        behaviour_nll = losses.cross_entropy_loss(came, jax.nn.one_hot(behaviour, behaviours))
        value = two_way_loss(nll, behaviour_nll, hide_content, hide_behaviour, weight)
        right = (came.argmax(axis=-1) == behaviour).astype(jnp.float32)
        accuracy = losses.masked_mean(right, hide_behaviour.astype(jnp.float32))
        return value, {"loss": value, "behaviour_accuracy": accuracy}

    def read(params: PyTree, who: Array, content: Array, behaviour: Array, *hidden: Array) -> tuple[Array, Array]:
        return network.apply(params, content, behaviour, who, *hidden, jnp.ones(content.shape))

    def simulate(params: PyTree, who: Array, content: Array) -> Array:
        hidden = jnp.ones(content.shape, bool)
        return jax.nn.softmax(read(params, who, content, jnp.zeros_like(content), ~hidden, hidden)[1])

    def rank(params: PyTree, who: Array, behaviour: Array, content: Array, hidden: Array, candidates: Array) -> Array:
        hidden = hidden > 0
        log_p = jax.nn.log_softmax(read(params, who, content, behaviour, hidden, ~jnp.ones_like(hidden))[0])
        each = jnp.take_along_axis(log_p[:, None], candidates[..., None], axis=-1)[..., 0]  # [B, K, T]
        return jnp.where(hidden[:, None], each, 0.0).sum(axis=-1)

    def ask(params: PyTree, who: Array, behaviour: Array, key: Key, rounds: int = 8) -> Array:
        """All steps at once would be drawn as if they were independent: so a random half is drawn anew each round."""
        shown = jnp.zeros(behaviour.shape, bool)

        def draw(content: Array, i: Array) -> tuple[Array, None]:
            half_key, draw_key = jax.random.split(jax.random.fold_in(key, i))
            anew = jax.random.bernoulli(half_key, 0.5, behaviour.shape) | (i == 0)
            logits = read(params, who, content, behaviour, anew, shown)[0]
            return jnp.where(anew, jax.random.categorical(draw_key, logits), content), None

        return jax.lax.scan(draw, jnp.zeros_like(behaviour), jnp.arange(rounds))[0]

    return ContentBehaviour(network.init, loss, simulate, rank, ask)
