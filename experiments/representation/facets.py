"""A unit with several kinds of inputs: do climbs from the groups of what excites it show more of them than one mean?

A critic of 6 numbers, regressed on 4,000 rows, is high in five regions of the first two; the other four numbers say
nothing and spread three times as far. The 300 rows that excite it most are put into five groups, by what the critic
depends on (``evaluation.facets.value_facets``), and each group's mean climbs. Baseline: as many climbs from the mean of
all excited rows, resampled with replacement; ablation: groups by k-means on the raw numbers. Metric: regions in which a
climb ends. Said beside it: means of random groups of 15 rows, and single rows drawn at random.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from experiments.preferences._fit import fit, forward, keys, mlp
from jaxrl_reg.evaluation.facets import facet_starts, maximise_unit, value_facets

CLAIM = Claim(
    statement="The groups of inputs that excite a unit, found by what it depends on, each climb to an answer of their "
    "own: at least one more of a critic's five regions than from the mean of all of them, and than from groups of the "
    "raw numbers. Not claimed: that as many single rows, drawn at random, show fewer",
    paper="https://arxiv.org/abs/1602.03616",
    method="groups by dependence",
    baselines=("mean of all",),
    ablation="groups by raw numbers",
    metric="regions found, of five",
    systems=(60,),
    margin=1.0,
    seeds=32,
    chosen="seeds 0 to 9 and 24 recorded ones: over groups by raw numbers 1.7, sd 1.0",
)
STATE, REGIONS, ROWS, STEPS, TOP, FACETS, CLIMB, STEP = 6, 5, 4000, 1200, 300, 5, 60, 0.02
SPREAD = jnp.array([1.0, 1.0, 3.0, 3.0, 3.0, 3.0])


def measured(key):
    """Of groups by dependence, the mean of all, groups by raw numbers, random groups and single rows: regions found
    and the mean distance of the ends to the data, ``[5]`` each; and the critic's ``R^2``."""
    keys = jax.random.split(key, 8)
    turn = jax.random.uniform(keys[0], (), maxval=2.0 * jnp.pi) + 2.0 * jnp.pi * jnp.arange(REGIONS) / REGIONS
    regions = 0.65 * jnp.stack([jnp.cos(turn), jnp.sin(turn)], -1)
    x = SPREAD * jax.random.uniform(keys[1], (ROWS, STATE), minval=-1.0)

    def away(x):
        return jnp.sqrt(jnp.square(x[:, None, :2] - regions).sum(-1))

    target = jnp.exp(-jnp.square(away(x)) / (2.0 * 0.2**2)).max(-1)
    params = mlp(keys[2], (STATE, 64, 64, 1))

    def loss(params, rows):
        return jnp.square(forward(params, rows[0] / SPREAD, jax.nn.relu)[..., 0] - rows[1]).mean()

    params = fit(keys[3], params, loss, (x, target), STEPS, 128, optimiser=optax.adam(3e-3))

    def unit(x):
        return forward(params, x / SPREAD, jax.nn.relu)[..., 0]

    found = value_facets(unit, x, keys[4], facets=FACETS, top=TOP, steps=CLIMB, step_size=STEP)
    mean, spread = x.mean(0), x.std(0)
    scaled = (x - mean) / spread
    excited = scaled[jax.lax.top_k(jax.vmap(unit)(x), TOP)[1]]
    drawn = jax.random.permutation(keys[5], TOP)
    starts = [
        excited[jax.random.randint(keys[7], (FACETS, TOP), 0, TOP)].mean(1),
        facet_starts(excited * spread, excited, FACETS, keys[6]),
        excited[drawn[: 15 * FACETS]].reshape(FACETS, 15, STATE).mean(1),
        excited[drawn[:FACETS]],
    ]

    def climbed(start):
        low, high = scaled.min(0), scaled.max(0)
        return mean + spread * maximise_unit(lambda x: unit(mean + spread * x), start, CLIMB, STEP, low, high)

    ends = jnp.stack([found.found, *map(climbed, starts)])
    reached = jax.vmap(lambda end: ((away(end) < 0.25) & (jax.vmap(unit)(end) > 0.6)[:, None]).any(0).sum())(ends)
    distance = jnp.sqrt(jnp.square((ends[:, :, None] - x) / spread).sum(-1)).min(-1).mean(-1)
    return reached, distance, 1.0 - loss(params, (x, target)) / target.var()


def run(seeds, scale, say):
    reached, distance, known = map(np.asarray, jax.jit(lambda keys: jax.lax.map(measured, keys))(keys(seeds)))
    say(f"the critic explains {known.mean():.3f} of its target's variance")
    arms = (CLAIM.method, *CLAIM.rivals, "random groups", "single rows")
    for column, arm in enumerate(arms):
        means = reached[:, column].mean(), distance[:, column].mean()
        say("{}: {:.2f} regions, {:.2f} standard deviations from the data".format(arm, *means))
    return {arm: reached[:, column].tolist() for column, arm in enumerate(arms)}
