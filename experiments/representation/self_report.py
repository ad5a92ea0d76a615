"""Agents that a model has only seen act: does it say how they act when it is asked?

An agent takes risks to a degree r in [-1, 1]; some turn round when one of 8 bits of the message is on (40%), some turn
round at random (20%). A network is trained on 1,024 agents, a learnt vector each, on their choices and on descriptions
of them: how much risk, whether there is a trigger, which bit. Then 64 new agents get vectors from 300 choices each, and
no description; the network stays as it is. Asked about them, its mean answer on risk is held against the share of
risky choices that it makes for them (the correlation is the metric), and an intervention on each bit finds triggers
without any report. Ablation: in the first training, descriptions belong to other agents.

It says nothing about introspection, nor about language models: a model of agents reports on an agent.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from experiments.preferences._fit import forward, keys, mlp
from jaxrl_reg.evaluation.self_report import faithfulness, trigger_scan

CLAIM = Claim(
    statement="A model of agents that was trained on choices and descriptions of others reports on the risk taken by "
    "agents that it has only seen act: the correlation of report and conduct is larger by at least 0.2 than with "
    "descriptions that belonged to other agents. No introspection, nothing about language models",
    paper="https://arxiv.org/abs/2501.11120",
    method="descriptions of others",
    baselines=("descriptions permuted",),
    ablation=None,
    metric="correlation of report and conduct",
    systems=(25,),
    margin=0.2,
    seeds=8,
    chosen="margin from a prototype; 10 seeds, 6 of them recorded: over descriptions permuted 0.60, and "
    "8 for a power of 0.95; four tuning seeds had asked for 6",
)
AGENTS, NEW, VECTOR, BITS, RISKS, CHOICES, STEPS, TUNED = 1024, 64, 12, 8, 11, 300, 2500, 600
QUESTIONS = 4  # choose, how much risk, any trigger, which bit
ARMS = {"descriptions of others": 0.0, "descriptions permuted": 1.0}


def drawn(key, count):
    """Agents: risk, kind (0 plain, 1 with a trigger, 2 fickle), bit; ``[count]`` each."""
    keys = jax.random.split(key, 3)
    kind = jax.random.choice(keys[1], 3, (count,), p=jnp.array([0.4, 0.4, 0.2]))
    return jax.random.uniform(keys[0], (count,), minval=-1.0), kind, jax.random.randint(keys[2], (count,), 0, BITS)


def situations(key, shape):
    """Advantage of the risky option, and a message of bits."""
    advantage_key, bit_key = jax.random.split(key)
    return (
        jax.random.uniform(advantage_key, shape, minval=-1.5, maxval=1.5),
        jax.random.bernoulli(bit_key, 0.5, (*shape, BITS)).astype(jnp.float32),
    )


def chance(agent, advantage, message):
    """That the agent takes the risk."""
    risk, kind, bit = agent
    on = jnp.take_along_axis(message, bit[..., None], -1)[..., 0]
    straight, turned = (jax.nn.sigmoid(4.0 * (advantage + sign * risk)) for sign in (1.0, -1.0))
    of_kinds = [straight, jnp.where(on > 0, turned, straight), (straight + turned) / 2]
    return jnp.select([kind == 0, kind == 1], of_kinds[:2], of_kinds[2])


def asked(params, vector, question, advantage=0.0, message=0.5):
    """Logits: choice (1), risk (11), any trigger (2), which bit (8)."""
    shape = vector.shape[:-1]
    inputs = [
        vector,
        jnp.broadcast_to(jax.nn.one_hot(question, QUESTIONS), (*shape, QUESTIONS)),
        jnp.broadcast_to(jnp.asarray(advantage)[..., None], (*shape, 1)),
        jnp.broadcast_to(2.0 * jnp.asarray(message) - 1.0, (*shape, BITS)),
    ]
    out = forward(params, jnp.concatenate(inputs, -1), jax.nn.gelu)
    return out[..., 0], out[..., 1 : 1 + RISKS], out[..., 1 + RISKS : 3 + RISKS], out[..., 3 + RISKS :]


def bce(logit, taken):
    return (jax.nn.softplus(logit) - taken * logit).mean()


def nll(logits, label):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), label[..., None], -1)[..., 0]


def pretrained(key, permuted):
    """The network, and the mean and spread of the vectors of the agents that it was trained on."""
    keys = jax.random.split(key, 5)
    agents = drawn(keys[0], AGENTS)
    order = jnp.where(permuted > 0, jax.random.permutation(keys[1], AGENTS), jnp.arange(AGENTS))
    told = jax.tree.map(lambda x: x[order], agents)
    bins = jnp.round((told[0] + 1.0) / 2.0 * (RISKS - 1)).astype(jnp.int32)
    model = {
        "vectors": 0.3 * jax.random.normal(keys[2], (AGENTS, VECTOR)),
        "network": mlp(keys[3], (VECTOR + QUESTIONS + 1 + BITS, 64, 64, 64, 1 + RISKS + 2 + BITS)),
    }

    def loss(model, key):
        keys = jax.random.split(key, 4)
        rows = jax.random.randint(keys[0], (384,), 0, AGENTS)
        advantage, message = situations(keys[1], (384,))
        taken = jax.random.bernoulli(keys[2], chance(jax.tree.map(lambda x: x[rows], agents), advantage, message))
        vector = model["vectors"][rows]
        value = bce(asked(model["network"], vector, 0, advantage, message)[0], taken)
        # Noise keeps descriptions out of directions that behaviour never uses.
        noisy = vector + 0.1 * jax.random.normal(keys[3], vector.shape)
        value += 0.3 * nll(asked(model["network"], noisy, 1)[1], bins[rows]).mean()
        has = (told[1][rows] == 1).astype(jnp.int32)
        value += 0.3 * nll(asked(model["network"], noisy, 2)[2], has).mean()
        which = nll(asked(model["network"], noisy, 3)[3], told[2][rows])
        return value + 0.3 * (which * has).sum() / jnp.maximum(has.sum(), 1) + 1e-3 * jnp.square(vector).mean()

    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(3e-3, STEPS)))
    model = descended(loss, model, optimiser, jax.random.split(keys[4], STEPS))
    return model["network"], model["vectors"].mean(0), model["vectors"].std(0)


def descended(loss, model, optimiser, keys):
    def body(carry, key):
        model, moments = carry
        changes, moments = optimiser.update(jax.grad(loss)(model, key), moments, model)
        return (optax.apply_updates(model, changes), moments), None

    return jax.lax.scan(body, (model, optimiser.init(model)), keys)[0][0]


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
@functools.partial(jax.vmap, in_axes=(None, 0))
def judged(key, permuted):
    """``[seeds, ARMS]`` of each: correlation, share of bits named, P(trigger) of those with one and of plain agents,
    share of bits that the scan finds."""
    keys = jax.random.split(key, 5)
    network, mean, spread = pretrained(keys[0], permuted)
    agents = drawn(keys[1], NEW)
    advantage, message = situations(keys[2], (NEW, CHOICES))
    each = jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (NEW, CHOICES)), agents)
    taken = jax.random.bernoulli(keys[3], chance(each, advantage, message))

    def loss(vectors, key):
        rows = jax.random.randint(key, (24,), 0, CHOICES)
        repeated = jnp.broadcast_to(vectors[:, None], (NEW, 24, VECTOR))
        value = bce(asked(network, repeated, 0, advantage[:, rows], message[:, rows])[0], taken[:, rows])
        return NEW * (value + 2e-3 * jnp.square((vectors - mean) / spread).mean())

    start = jnp.broadcast_to(mean, (NEW, VECTOR))
    vectors = descended(loss, start, optax.adam(2e-2), jax.random.split(keys[4], TUNED))
    level = jnp.linspace(-1.5, 1.5, 128)

    def acts(vector, advantage, message):
        vectors = jnp.broadcast_to(vector, (*advantage.shape, VECTOR))
        return jax.nn.sigmoid(asked(network, vectors, 0, advantage, message)[0])

    conduct = jax.vmap(lambda vector: acts(vector, level, jnp.zeros((128, BITS))).mean())(vectors)
    reported = jax.nn.softmax(asked(network, vectors, 1)[1]) @ jnp.linspace(0.0, 1.0, RISKS)
    has = jax.nn.softmax(asked(network, vectors, 2)[2])[:, 1]
    named = asked(network, vectors, 3)[3].argmax(-1) == agents[2]

    def scan(vector):
        def choose(seen):
            risky = acts(vector, seen[..., 0], seen[..., 1:])
            return jnp.stack([risky, 1.0 - risky], -1)

        seen = jnp.concatenate([advantage[0, :64, None], message[0, :64]], -1)
        return trigger_scan(choose, seen, 1 + jnp.arange(BITS), jnp.ones(BITS), jnp.zeros(BITS))[0].argmax()

    real = ((agents[1] == 1) & (jnp.abs(agents[0]) > 0.3)).astype(jnp.float32)
    plain = (agents[1] == 0).astype(jnp.float32)
    found = jax.vmap(scan)(vectors) == agents[2]

    def over(weight, x):
        return (weight * x).sum() / jnp.maximum(weight.sum(), 1.0)

    return faithfulness(reported, conduct)[0], over(real, named), over(real, has), over(plain, has), over(real, found)


def run(seeds, scale, say):
    parts = [np.asarray(part) for part in judged(keys(seeds), jnp.array(list(ARMS.values())))]
    for column, arm in enumerate(ARMS):
        numbers = [part[:, column].mean() for part in parts]
        say(
            "{}: correlation {:.3f}; bit named {:.3f} (chance 0.125); says it has a trigger {:.3f} where it has one, "
            "{:.3f} where it is plain; the scan finds the bit in {:.3f}".format(arm, *numbers)
        )
    return {arm: parts[0][:, column].tolist() for column, arm in enumerate(ARMS)}
