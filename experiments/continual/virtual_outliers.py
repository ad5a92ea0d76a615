"""Heads learnt one task after another, without rehearsal, compared without a task's name: ten tasks of two classes.

Classes are N(mu, 0.7^2 I) with mu ~ N(0, I_16), seen through a frozen random encoder with 32 features; 60 rows of each
to learn from and 60 fresh ones. A linear head per task sees its own classes only: 300 steps of cross-entropy, then 100
with the margins on its energy beside it. Metric: accuracy over all twenty classes at the end.

Each head knows its own task; what margins change is that heads can be compared. "Real rows only" is the margin without
any outliers and does as well: the outliers, around the boundary rows or around 0 as the released code draws them, add
nothing, and outliers as long as the rows do harm.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from experiments.preferences._fit import fit, keys
from jaxrl_reg import losses
from jaxrl_reg.data.outliers import virtual_outliers

CLAIM = Claim(
    statement="Heads of ten tasks that were learnt one after another with margins on their energy (OVOR) are told "
    "apart without a task's name better than heads learnt by masked cross-entropy alone. It is the margin on real rows "
    "that does it: virtual outliers add nothing here",
    paper="https://arxiv.org/abs/2402.04129",
    method="energy margins",
    baselines=("masked cross-entropy",),
    ablation=None,
    metric="accuracy over all classes, no task named",
    systems=(43,),
    margin=0.2,
    seeds=10,
    chosen="seeds 0 to 9, see: python -m experiments power virtual_outliers",
)
TASKS, CLASSES, DIM, HIDDEN, FEATURES, ROWS = 10, 2, 16, 128, 32, 60
KEEP, SCALE, INSIDE, OUTSIDE = 40 * CLASSES, 0.1, -15.0, -3.0
ARMS = {  # weight of the margin on real rows, weight on outliers, which outliers
    "masked cross-entropy": (0.0, 0.0, 0),
    "energy margins": (1.0, 1.0, 0),
    "real rows only": (1.0, 0.0, 0),
    "outliers around 0, as released": (1.0, 1.0, 1),
    "outliers as long as the rows": (1.0, 1.0, 2),
}


def logits(head, features):
    kernel, bias = head
    return features @ kernel + bias


def drawn(key, features):
    """Outliers of a task by three rules ``[3, KEEP, FEATURES]``."""
    sizes = {"neighbours": 10, "boundary": 24, "draws": 20, "keep": KEEP}
    around, _ = virtual_outliers(key, features, jnp.ones(len(features)), scale=SCALE, **sizes)
    committed = jnp.tile(SCALE * jax.random.normal(key, (sizes["draws"], FEATURES)), (KEEP // sizes["draws"], 1))
    return jnp.stack([around, committed, around * jnp.linalg.norm(features, axis=-1).mean()])


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
@functools.partial(jax.vmap, in_axes=(None, 0))
def trained(key, arm):
    """``[seeds, ARMS]`` of each: accuracy over all classes, of heads on their own task, of the least energy."""
    inside, outside, which = arm
    keys = jax.random.split(key, 6)
    means = jax.random.normal(keys[0], (TASKS, CLASSES, 1, DIM))
    first = jax.random.normal(keys[1], (DIM, HIDDEN)) / DIM**0.5
    second = jax.random.normal(keys[2], (HIDDEN, FEATURES)) / HIDDEN**0.5
    x = means + 0.7 * jax.random.normal(keys[3], (2, TASKS, CLASSES, ROWS, DIM))
    known, fresh = (1.5 * jnp.tanh(x @ first) @ second).reshape(2, TASKS, CLASSES * ROWS, FEATURES)
    label = jnp.repeat(jnp.arange(CLASSES), ROWS)
    target = jax.nn.one_hot(label, CLASSES)

    def task(key, features):
        outliers = drawn(key, features)[which.astype(int)]

        def cloning(head, _):
            return losses.cross_entropy_loss(logits(head, features), target).mean()

        def with_margins(head, rows):
            real, virtual = (losses.energy(logits(head, seen)) for seen in (features, outliers))
            value = inside * losses.energy_margin_loss(real, INSIDE).mean()
            return cloning(head, rows) + value + outside * losses.energy_margin_loss(virtual, OUTSIDE, -1.0).mean()

        head = fit(key, (jnp.zeros((FEATURES, CLASSES)), jnp.zeros(CLASSES)), cloning, label, 300, rate=1e-2)
        return fit(key, head, with_margins, label, 100, rate=1e-2)

    heads = jax.vmap(task)(jax.random.split(keys[4], TASKS), known)
    every = jax.vmap(lambda features: jax.vmap(logits, (0, None))(heads, features))(fresh)  # [task, head, row, class]
    own = jnp.moveaxis(every, 1, 2)  # [task, row, head, class]
    truth = jnp.arange(TASKS)[:, None] * CLASSES + label
    accuracy = (own.reshape(TASKS, CLASSES * ROWS, -1).argmax(-1) == truth).mean()
    within = (own[jnp.arange(TASKS), :, jnp.arange(TASKS)].argmax(-1) == label).mean()
    told = (losses.energy(own).argmin(-1) == jnp.arange(TASKS)[:, None]).mean()
    return accuracy, within, told


def run(seeds, scale, say):
    found = trained(keys(seeds), jnp.array(list(ARMS.values())))
    accuracy, within, told = (np.asarray(part) for part in found)
    for column, arm in enumerate(ARMS):
        means = [part[:, column].mean() for part in (accuracy, within, told)]
        say("{}: all classes {:.3f}, own task {:.3f}, task of least energy {:.3f}".format(arm, *means))
    return {arm: accuracy[:, column].tolist() for column, arm in enumerate(ARMS)}
