"""A few demonstrations of one task, and many episodes of who knows what: which of those to clone as well?

A point in the plane walks for 25 steps. The large set has 25 noisy walks to each of four goals and 25 random ones; a
demonstration is a walk to the first goal. Policies are ridge regressions on radial features, so that nothing depends on
how long anything trained; demonstrations and retrieved rows weigh half each, as in the published batches.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg import representation
from jaxrl_reg.data import curation, retrieval
from jaxrl_reg.loops.pretrain import Hyper, pretrain
from jaxrl_reg.types import Spec, Transition

CLAIM = Claim(
    statement="With two demonstrations, cloning them together with the rows of a mixed data set that resemble one of "
    "them in observation and action reaches the goal more often, by at least 0.15, than cloning them alone, than "
    "adding all rows, and than retrieving by the observation alone",
    paper="https://arxiv.org/abs/2304.08742",
    method="retrieval",
    baselines=("demonstrations only", "all rows"),
    ablation="retrieval by observation alone",
    metric="success within 25 steps, two demonstrations",
    systems=(34,),
    margin=0.15,
    seeds=5,
    chosen="seeds 100 to 104: over demonstrations only 0.244, sd 0.033; power 0.996",
)
GOALS = 0.8 * jnp.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
STEPS, SPEED, REACHED, NOISE, PER_KIND = 25, 0.1, 0.25, 0.3, 25
THRESHOLD = 0.85
SIDE, WIDTH, RIDGE = 9, 0.35, 1e-2  # radial features: centres along each side, their width; penalty of the regression
SPEC = Spec(observation_dim=2, action_dim=2)
SIZES = {"small": (16, 64, 500), "full": (32, 256, 5000)}  # data sets per seed, episodes, updates of the autoencoder


def walk(key, start, act):
    """Positions and actions ``[STEPS, 2]`` and the position after them; ``act(position, key)``."""

    def step(position, key):
        action = act(position, key)
        return position + SPEED * action, (position, action)

    final, (seen, done) = jax.lax.scan(step, start, jax.random.split(key, STEPS))
    return seen, done, final


def starts(key, count):
    return jax.random.uniform(key, (count, 2), minval=-0.5, maxval=0.5)


def walks(key, count, goal=None):
    """``count`` noisy walks to ``goal``, or with random steps; positions and actions ``[count * STEPS, 2]``."""

    def act(position, key):
        if goal is None:
            return jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return jnp.clip(3.0 * (goal - position) + NOISE * jax.random.normal(key, (2,)), -1.0, 1.0)

    start_key, walk_key = jax.random.split(key)
    seen, done, _ = jax.vmap(lambda key, start: walk(key, start, act))(
        jax.random.split(walk_key, count), starts(start_key, count)
    )
    return seen.reshape(-1, 2), done.reshape(-1, 2)


def features(position):
    line = jnp.linspace(-1.0, 1.0, SIDE)
    centres = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    distance = jnp.square(position[..., None, :] - centres).sum(-1)
    return jnp.concatenate([jnp.exp(-distance / (2 * WIDTH**2)), jnp.ones((*position.shape[:-1], 1))], -1)


def clone(seen, done, weight):
    """Coefficients ``[F, 2]`` of the weighted ridge regression from position to action."""
    x = features(seen)
    gram = x.T @ (weight[:, None] * x) + RIDGE * jnp.eye(x.shape[1])
    return jnp.linalg.solve(gram, x.T @ (weight[:, None] * done))


def learnt(key, seen, done, updates):
    """The published space of comparison, an autoencoder of observation and action, as a function of both."""
    vae = representation.state_action_vae(SPEC, (64, 64), latent=4)
    table = Transition(seen, done, jnp.zeros(len(seen)), jnp.ones(len(seen)), seen)

    def sample(table, key, size):
        rows = jax.random.randint(key, (size,), 0, len(seen))
        return jax.tree.map(lambda column: column[rows], table)

    state, _ = pretrain(vae, batch_size=100, updates=updates, sample=sample)(key, Hyper(), table)
    return functools.partial(vae.embed, state.params)


@functools.partial(jax.jit, static_argnames=("demonstrations", "episodes", "updates"))
def member(key, demonstrations, episodes, updates):
    """Success of every arm; and precision and recall of what was retrieved at the published threshold."""
    keys = jax.random.split(key, 8)
    kinds = [walks(k, PER_KIND, goal) for k, goal in zip(keys[:5], (*GOALS, None), strict=True)]
    seen, done = (jnp.concatenate(parts) for parts in zip(*kinds, strict=True))
    task = walks(keys[5], demonstrations, GOALS[0])
    right = jnp.arange(len(seen)) < PER_KIND * STEPS
    both = jnp.square(retrieval.column_scales((seen, done)))
    score = curation.similarity((seen, done), task, both)
    blind = curation.similarity((seen,), task[:1], both[:2])
    embed = learnt(keys[7], seen, done, updates)
    nearby = curation.similarity((embed(seen, done),), (embed(*task),))
    ratio = curation.density_ratio((seen, done), task, 0.3, both)
    chosen = {
        "demonstrations only": jnp.zeros(len(seen), bool),
        "all rows": jnp.ones(len(seen), bool),
        "oracle": right,
        "retrieval by observation alone": curation.keep(blind, THRESHOLD),
        "retrieval": curation.keep(score, THRESHOLD),
        **{f"retrieval, threshold {delta}": curation.keep(score, delta) for delta in (0.7, 0.8, 0.9)},
        "retrieval of the best fifth": curation.keep(score, 0.8, "quantile"),
        "retrieval in a learnt space": curation.keep(nearby, THRESHOLD),
        "density ratio, best fifth": curation.keep(ratio, 0.8, "quantile"),
    }
    fresh = starts(keys[6], episodes)

    def success(kept):
        share = jnp.where(kept.any(), 0.5, 1.0)
        weight = jnp.concatenate(
            [kept * (1.0 - share) / jnp.maximum(kept.sum(), 1), jnp.full(len(task[0]), share / len(task[0]))]
        ) * len(seen)
        policy = clone(jnp.concatenate([seen, task[0]]), jnp.concatenate([done, task[1]]), weight)

        def act(position, key):
            return jnp.clip(features(position) @ policy, -1.0, 1.0)

        final = jax.vmap(lambda start: walk(keys[7], start, act)[2])(fresh)
        return (jnp.linalg.norm(final - GOALS[0], axis=-1) < REACHED).mean()

    kept = chosen["retrieval"]
    hits = (kept & right).sum()
    return {arm: success(rows) for arm, rows in chosen.items()}, (hits / kept.sum(), hits / right.sum())


def run(seeds, scale, say):
    sets, *sizes = SIZES[scale]
    values = {}
    for demonstrations in (2, 1, 4):
        keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), i) for seed in seeds for i in range(sets)])
        arms, quality = jax.lax.map(lambda key, n=demonstrations: member(key, n, *sizes), keys)
        arms = {arm: np.asarray(found).reshape(len(seeds), sets).mean(1).tolist() for arm, found in arms.items()}
        say(f"{demonstrations} demonstrations: " + ", ".join(f"{arm} {np.mean(v):.2f}" for arm, v in arms.items()))
        say("retrieved at {}: precision {:.2f}, recall {:.2f}".format(THRESHOLD, *(float(q.mean()) for q in quality)))
        if demonstrations == 2:
            values = arms
            continue
        count = {1: "one demonstration", 4: "four demonstrations"}[demonstrations]
        values |= {f"{arm}, {count}": arms[arm] for arm in (CLAIM.method, *CLAIM.baselines)}
    return values
