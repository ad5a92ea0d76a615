"""What was shown and what came back, in one model: rank contents by the response, foretell it, and ask for a high one.

8 receivers have tastes in 4 dimensions, 16 contents have attributes there. Sequences of 10 contents come from a random
Markov chain; the response to each is how far it, and its change from the one before, agree with the taste, plus noise,
in 10 bins. 1,500 sequences to learn from, 600 fresh ones to judge by. Metric: five contents in a row are hidden, and
the true ones must be chosen among 25 candidates, by the responses.

Ablation of the source's thesis: the same model, to which no behaviour is ever shown. Specialists of each direction are
printed beside: each is a little better at its own, so the two directions do not help each other.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from experiments.preferences._fit import keys
from jaxrl_reg import losses
from jaxrl_reg.data.bins import to_bins
from jaxrl_reg.networks.two_streams import two_streams
from jaxrl_reg.representation.content_behaviour import two_way_loss, two_way_masks

CLAIM = Claim(
    statement="One model of contents and behaviours chooses the contents that got a response among 25, by at least 0.5 "
    "of accuracy more often than the same model without behaviours; it also foretells responses and can be asked for "
    "high ones. Not claimed, because it is not so here: that it beats a model of one direction, or that the directions "
    "help each other",
    paper="https://arxiv.org/abs/2309.00359",
    method="both ways",
    baselines=("content only",),
    ablation=None,
    metric="accuracy among 25 candidates",
    systems=(7,),
    margin=0.5,
    seeds=5,
    chosen="margin from a prototype; seeds 0 and 1: over content only 0.768, sd 0.014; power 1.000",
)
RECEIVERS, CONTENTS, BINS, TASTE, LENGTH, RUN = 8, 16, 10, 4, 10, 5
ROWS, TEST, CANDIDATES, STEPS, BATCH, HIGH = 1500, 600, 25, 1200, 96, 8
EDGES = np.array([-1.8, -1.1, -0.65, -0.3, 0.0, 0.3, 0.65, 1.1, 1.8])
ARMS = {"both ways": (0.5, 1.0), "content only": (0.5, 0.0), "forward only": (1.0, 1.0), "reverse only": (0.0, 1.0)}
NETWORK = two_streams(CONTENTS, BINS, RECEIVERS, LENGTH)


def response(world, content, who):
    """Mean response to each step of ``content [..., T]``."""
    tastes, attributes, _ = world
    u = attributes[content]
    change = jnp.diff(u, axis=-2, prepend=u[..., :1, :])
    return ((u + 0.6 * change) * tastes[who][..., None, :]).sum(-1) / 2.0


def shown(key, world, count):
    """Contents ``[count, T]``, who was shown them, and the bins of what came back."""
    who_key, first_key, chain_key, noise_key = jax.random.split(key, 4)
    who = jax.random.randint(who_key, (count,), 0, RECEIVERS)
    first = jax.random.randint(first_key, (count,), 0, CONTENTS)

    def step(content, key):
        following = jax.random.categorical(key, world[2][content])
        return following, following

    _, rest = jax.lax.scan(step, first, jax.random.split(chain_key, LENGTH - 1))
    content = jnp.concatenate([first[None], rest]).T
    noisy = response(world, content, who) + 0.25 * jax.random.normal(noise_key, content.shape)
    return content, who, to_bins(noisy, EDGES)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
@functools.partial(jax.vmap, in_axes=(None, 0))
def judged(key, arm):
    """``[seeds, ARMS]`` of each: accuracy among candidates, of hidden behaviours, and the mean response asked for."""
    forward, behaviours_shown = arm
    keys = jax.random.split(key, 9)
    shapes = ((RECEIVERS, TASTE), (CONTENTS, TASTE), (CONTENTS, CONTENTS))
    world = [jax.random.normal(one, shape) for one, shape in zip(keys[:3], shapes, strict=True)]
    content, who, behaviour = shown(keys[3], world, ROWS)
    blind = behaviours_shown == 0

    def read(params, content, behaviour, who, hide_content, hide_behaviour):
        real = jnp.ones(content.shape)
        return NETWORK.apply(params, content, behaviour, who, hide_content, hide_behaviour | blind, real)

    def loss(params, key):
        row_key, mask_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (BATCH,), 0, ROWS)
        hidden = two_way_masks(mask_key, BATCH, LENGTH, forward)
        told, came = read(params, content[rows], behaviour[rows], who[rows], *hidden)
        nll = losses.cross_entropy_loss(told, jax.nn.one_hot(content[rows], CONTENTS))
        behaviour_nll = losses.cross_entropy_loss(came, jax.nn.one_hot(behaviour[rows], BINS))
        return two_way_loss(nll, behaviour_nll, *hidden)

    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(3e-3, STEPS)))

    def body(carry, key):
        params, moments = carry
        changes, moments = optimiser.update(jax.grad(loss)(params, key), moments, params)
        return (optax.apply_updates(params, changes), moments), None

    params = NETWORK.init(keys[4])
    (params, _), _ = jax.lax.scan(body, (params, optimiser.init(params)), jax.random.split(keys[5], STEPS))
    content, who, behaviour = shown(keys[6], world, TEST)
    nothing, everything = (jnp.full(content.shape, hidden) for hidden in (False, True))
    # Candidates: the true run, and those of other sequences at the same place.
    gap = jnp.broadcast_to((jnp.arange(LENGTH) >= 3) & (jnp.arange(LENGTH) < 3 + RUN), content.shape)
    others = content[jax.random.randint(keys[7], (TEST, CANDIDATES - 1), 0, TEST)]
    candidates = jnp.concatenate([content[:, None], others], axis=1)
    log_p = jax.nn.log_softmax(read(params, content, behaviour, who, gap, nothing)[0])
    each = jnp.take_along_axis(log_p[:, None], candidates[..., None], axis=-1)[..., 0]
    scores = jnp.where(gap[:, None], each, 0.0).sum(-1)
    # A tie with the true one counts as lost, so that a copy of it gives nothing away.
    ranked = (scores[:, :1] > scores[:, 1:]).all(-1).mean()
    simulated = (read(params, content, behaviour, who, nothing, everything)[1].argmax(-1) == behaviour).mean()
    wanted = jnp.full(content.shape, HIGH)

    def ask(drawn, i):
        half_key, draw_key = jax.random.split(jax.random.fold_in(keys[8], i))
        anew = jax.random.bernoulli(half_key, 0.5, content.shape) | (i == 0)
        logits = read(params, drawn, wanted, who, anew, nothing)[0]
        return jnp.where(anew, jax.random.categorical(draw_key, logits), drawn), None

    drawn, _ = jax.lax.scan(ask, jnp.zeros_like(content), jnp.arange(8))
    return ranked, simulated, response(world, drawn, who).mean(), response(world, content, who).mean()


def run(seeds, scale, say):
    parts = [np.asarray(part) for part in judged(keys(seeds), jnp.array(list(ARMS.values())))]
    for column, arm in enumerate(ARMS):
        numbers = [part[:, column].mean() for part in parts]
        say(
            "{}: chosen among 25 {:.3f}; behaviour foretold {:.3f} (10 bins); asked for bin 8 of 9, response {:.3f}; "
            "of the data {:.3f}".format(arm, *numbers)
        )
    return {arm: parts[0][:, column].tolist() for column, arm in enumerate(ARMS)}
