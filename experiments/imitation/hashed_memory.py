"""A demonstrator did one of four things in each of 128 situations, up to 2,048 steps ago: what did it do here?

An observation is a rotated mixture of a situation's 8 numbers and of 24 of pure noise, plus noise of 0.05. Each episode
gives every situation an action, and holds 2,048 pairs of observation and action, a tenth of them random. An encoder is
trained to recall the clean action by the expectation of a hashed read over 512 pairs; then it acts by a table of
signatures of fixed size. Metric: accuracy over 128 queries in each of 8 fresh episodes.

Baselines have the same encoder: a window of the last 50 steps, as an agent without the memory has; and the same table
without the encoder, where noise makes the signatures.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from experiments.preferences._fit import forward, keys, mlp
from jaxrl_reg.networks import hashed_memory

CLAIM = Claim(
    statement="A memory of 16 signatures of 8 bits recalls what a demonstrator did in a situation up to 2,048 steps "
    "ago more often than attention to the last 50 steps does, and than the same memory of raw observations, by 0.3 of "
    "accuracy or more. Needed: an encoder trained through the expected read, and few enough situations for the bits",
    paper="https://arxiv.org/abs/2205.10249",
    method="16 signatures",
    baselines=("last 50 steps", "16 signatures, raw observations"),
    ablation=None,
    metric="accuracy",
    systems=(35,),
    margin=0.3,
    seeds=4,
    chosen="margin from a prototype; seeds 0 to 3: over the last 50 steps 0.538, sd 0.003, over raw observations 0.646",
)
SITUATIONS, ACTIONS, CODE, NOISE, KEY, BITS = 128, 4, 8, 24, 16, 8
LONG, SHORT, QUERIES, EPISODES, STEPS = 2048, 512, 128, 8, 600


def rotation(key, size):
    """A random orthogonal matrix, by reflections: products only, as members train side by side."""

    def reflected(matrix, axis):
        return matrix - 2.0 * jnp.outer(matrix @ axis, axis) / (axis @ axis), None

    return jax.lax.scan(reflected, jnp.eye(size), jax.random.normal(key, (size, size)))[0]


@jax.jit
@jax.vmap
def trained(key):
    """Accuracy of each arm of one seed, ``[6]``, and the loss at the end."""
    keys = jax.random.split(key, 7)
    codes = jax.random.normal(keys[0], (SITUATIONS, CODE))
    mixture = rotation(keys[1], CODE + NOISE)

    def look(key, situation):
        noise_key, more_key = jax.random.split(key)
        inputs = jnp.concatenate([codes[situation], jax.random.normal(noise_key, (*situation.shape, NOISE))], -1)
        return inputs @ mixture + 0.05 * jax.random.normal(more_key, inputs.shape)

    def episode(key, length):
        keys = jax.random.split(key, 6)
        clean = jax.random.randint(keys[0], (SITUATIONS,), 0, ACTIONS)
        situation = jax.random.randint(keys[1], (length,), 0, SITUATIONS)
        anything = jax.random.randint(keys[2], (length,), 0, ACTIONS)
        action = jnp.where(jax.random.bernoulli(keys[3], 0.1, (length,)), anything, clean[situation])
        asked = jax.random.randint(keys[4], (QUERIES,), 0, SITUATIONS)
        seen = jax.random.split(keys[5])
        return look(seen[0], situation), jax.nn.one_hot(action, ACTIONS), look(seen[1], asked), clean[asked]

    def encode(params, x):
        return forward(params, x, jax.nn.relu)

    def loss(params, key):
        def one(key):
            history, values, query, target = episode(key, SHORT)
            held, asked = encode(params, history), encode(params, query)
            read = hashed_memory.expected_read(asked, held[None], values[None], jnp.ones((1, SHORT)), BITS)
            log_p = jax.nn.log_softmax(8.0 * read)
            return -jnp.take_along_axis(log_p, target[:, None], axis=-1).mean()

        return jax.vmap(one)(jax.random.split(key, 4)).mean()

    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-3, STEPS)))

    def body(carry, key):
        params, moments = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        changes, moments = optimiser.update(gradient, moments)
        return (optax.apply_updates(params, changes), moments), value

    params = mlp(keys[2], (CODE + NOISE, 128, KEY))
    start = params, optimiser.init(params)
    (params, _), values = jax.lax.scan(body, start, jax.random.split(keys[3], STEPS))
    sizes = KEY, CODE + NOISE
    planes = [hashed_memory.rotations(one, 16, BITS, size) for one, size in zip(keys[4:6], sizes, strict=True)]

    def judge(key):
        history, done, query, target = episode(key, LONG)
        held, asked = encode(params, history), encode(params, query)

        def attended(last):
            kept = (jnp.arange(LONG) >= LONG - last).astype(jnp.float32)[None]
            return hashed_memory.expected_read(asked, held[None], done[None], kept, BITS)

        def remembered(held, asked, planes):
            table = hashed_memory.encode(held, done, jnp.ones(LONG), planes)
            return jax.vmap(lambda one: hashed_memory.read(table, one, planes))(asked)

        reads = [
            remembered(held, asked, planes[0]),
            remembered(held, asked, planes[0][:4]),
            remembered(history, query, planes[1]),
            attended(50),
            attended(LONG),
        ]
        right = [(read.argmax(-1) == target).mean() for read in reads]
        common = done.sum(0).argmax() == target
        return jnp.stack([*right, common.mean()])

    return jax.lax.map(judge, jax.random.split(keys[6], EPISODES)).mean(0), values[-50:].mean()


ARMS = (
    "16 signatures",
    "4 signatures",
    "16 signatures, raw observations",
    "last 50 steps",
    "attention to all 2,048 steps",
    "the most common action",
)


def run(seeds, scale, say):
    accuracy, loss = map(np.asarray, trained(keys(seeds)))
    say(f"training: {loss.mean():.3f} nats at the end")
    for column, arm in enumerate(ARMS):
        say(f"{arm}: {accuracy[:, column].mean():.3f}")
    return {arm: accuracy[:, column].tolist() for column, arm in enumerate(ARMS)}
