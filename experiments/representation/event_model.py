"""Who drives whom in a stream of events: lesions of a model that foretells the next one.

Of 16 units, four hubs fire at random and each makes three followers of its own fire more often, one to three bins
later. ``event_model`` learns on windows of 24 events to foretell each from those before. Then the events of one unit at
a time are masked: by how much less likely the events of every other become (``lesion_influence``) is held against the
twelve connections that there are. Metric: area under the ROC curve over all ordered pairs of units. Baseline: the
correlation of firing in the same bin, which knows no direction. Said beside it: the correlation of a bin with the three
before, which does as well here, and the gain in nats over each unit's frequency.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from experiments.representation._pretrained import table, trained
from jaxrl_reg import representation
from jaxrl_reg.evaluation.classification import auroc

CLAIM = Claim(
    statement="Lesions of a model of events tell which unit drives which: area under the ROC curve of directed "
    "connections larger by at least 0.2 than by correlation within a bin. Not claimed, because it is not so here: "
    "better than by correlation with earlier bins, which this circuit gives away",
    paper="https://arxiv.org/abs/2311.00136",
    method="lesions of the model",
    baselines=("correlation in a bin",),
    ablation=None,
    metric="area under the ROC curve of connections",
    systems=(12,),
    margin=0.2,
    seeds=5,
    chosen="5 recorded seeds: over correlation in a bin 0.46, sd 0.06; power 1.00",
)
UNITS, HUBS, LENGTH, BINS, PARTS, TESTED, STEPS, LAGS = 16, 4, 24, 120_000, 16, 200, 600, 3


def fired(seed):
    """Whether each unit fires in each bin, ``[BINS, UNITS]``, and the connections ``[UNITS, UNITS]``, on the host."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(UNITS)
    drives = np.zeros((UNITS, UNITS))
    for hub in range(HUBS):
        drives[order[hub], order[HUBS + 3 * hub : HUBS + 3 * hub + 3]] = 1.0
    lag = rng.integers(1, LAGS + 1, (UNITS, UNITS))
    hubs = drives.any(axis=1)
    fires = (rng.random((BINS, UNITS)) < np.where(hubs, 0.03, 0.01)).astype(float)
    for i, j in np.argwhere(drives):
        driven = np.roll(fires[:, i], lag[i, j]) * (rng.random(BINS) < 0.3)
        fires[:, j] = np.maximum(fires[:, j], driven)
    return fires, drives


def windows(fires):
    """Windows of 24 events, each with its unit and the bins since the last one (at most 15), ``[M, 24]`` each."""
    at, unit = np.nonzero(fires)
    since = np.minimum(np.diff(at, prepend=0), PARTS - 1)
    many = len(unit) // LENGTH
    return (x[: many * LENGTH].reshape(many, LENGTH).astype(np.int32) for x in (unit, since))


def measured(model, key, unit, since):
    """Influence ``[UNITS, UNITS]``, and nats gained over the frequencies, on windows that were held out."""
    real = jnp.ones(unit.shape)
    rows, held = ([x[TESTED:] for x in (unit, since, real)], [x[:TESTED] for x in (unit, since, real)])
    data = table(jnp.zeros((len(rows[0]), 1)), unit=rows[0], bin=rows[1], mask=rows[2])
    params = trained(key, model, data, STEPS, size=32, rate=3e-3, decay=1e-1)

    def score(shown):
        return model.score(params, held[0], held[1], shown)

    influence = representation.lesion_influence(score, held[0], held[2], UNITS)
    share = jax.nn.one_hot(rows[0], UNITS).mean((0, 1))
    return influence, score(held[2]).mean() - jnp.log(share)[held[0]].mean()


def run(seeds, scale, say):
    model = representation.event_model(UNITS, PARTS, LENGTH, width=24, blocks=1, heads=2)
    worlds = [fired(seed) for seed in seeds]
    tokens = [list(windows(fires)) for fires, _ in worlds]
    least = min(len(unit) for unit, _ in tokens)
    unit, since = (jnp.asarray(np.stack([pair[i][:least] for pair in tokens])) for i in range(2))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    compiled = jax.jit(lambda inputs: jax.lax.map(lambda one: measured(model, *one), inputs))
    influence, gain = compiled((keys, unit, since))
    values: dict[str, list[float]] = {"lesions of the model": [], "correlation in a bin": [], "with earlier bins": []}
    pairs = ~np.eye(UNITS, dtype=bool)
    directed = []
    for (fires, drives), found in zip(worlds, np.asarray(influence), strict=True):
        now = np.corrcoef(fires.T)
        later = [np.corrcoef(fires[:-k].T, fires[k:].T)[:UNITS, UNITS:] for k in range(1, LAGS + 1)]
        for arm, scores in zip(values, (found, now, np.max(later, axis=0)), strict=True):
            values[arm].append(float(auroc(jnp.asarray(scores[pairs]), jnp.asarray(drives[pairs]))))
        directed.append((found > found.T)[drives > 0].mean())
    say(f"gained over the units' frequencies: {np.mean(gain):.3f} nats; right direction: {np.mean(directed):.3f}")
    for arm, found in values.items():
        say(f"{arm}: {np.mean(found):.3f}")
    return values
