"""Demonstrations of eight groups, some rare and one careless: what is the worst group left with?

A row is one choice among 24 of rates k^-1.5, in one of 8 groups of rates g^-2; in sight are 16 numbers, 0.4 of a centre
of the choice and 0.9 of one of the choice in this group plus N(0, 1), and the group. 5% of the choices are drawn anew,
in the second most frequent group 50%; those that are judged are clean. 12,000 rows, a network of 64 units. The loss of
each row is weighted by ``q / p`` of its group, with ``q`` by ``losses.robust`` as ``bc`` has it. Metric: the smallest
accuracy of a group, its choices at their rates.

Weights by choice instead, and corrections of the trained model's logits, are printed beside: for choices the correction
does more. So is what every arm costs the other groups.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from experiments.preferences._fit import forward, keys, mlp
from jaxrl_reg import losses
from jaxrl_reg.losses.robust import group_mean

CLAIM = Claim(
    statement="With groups of demonstrations, weights from a box around their shares leave the worst group with more "
    "than plain cloning, a divergence ball and group DRO do, by at least 0.01 of accuracy. Not claimed, because it is "
    "not so here: that they beat giving every group the same weight, which does more for the worst group at ten times "
    "the price for all; nor anything of sequences",
    paper="https://arxiv.org/abs/2505.17631",
    method="box",
    baselines=("plain", "divergence ball", "group DRO"),
    ablation=None,
    metric="accuracy of the worst group",
    systems=(6,),
    margin=0.01,
    seeds=22,
    chosen="margin from a prototype; seeds 0 to 4: over plain 0.026, a divergence ball 0.020, group DRO 0.073: "
    "a power of 0.979",
)
CHOICES, GROUPS, DIM, ROWS, STEPS, BATCH, NOISY, DECAY = 24, 8, 16, 12_000, 1500, 256, 1, 0.95
CHOICE_RATE = np.arange(1, CHOICES + 1.0) ** -1.5 / (np.arange(1, CHOICES + 1.0) ** -1.5).sum()
GROUP_RATE = np.arange(1, GROUPS + 1.0) ** -2.0 / (np.arange(1, GROUPS + 1.0) ** -2.0).sum()
# Which weights (0 plain, 1 box, 2 divergence, 3 group DRO, 4 all alike), and whether of choices rather than groups.
ARMS = {"plain": (0, 0), "box": (1, 0), "divergence ball": (2, 0), "group DRO": (3, 0), "balanced": (4, 0)}
BESIDE = {"choices: box": (1, 1), "choices: balanced": (4, 1)}
RHO, TEMPERATURE, STEP_SIZE = 0.5, 2.0, 0.02


def seen(key, centres, choice, group):
    shared, own = centres
    mean = 0.4 * shared[choice] + 0.9 * own[group, choice]
    x = mean + jax.random.normal(key, mean.shape)
    return jnp.concatenate([x, jnp.broadcast_to(jax.nn.one_hot(group, GROUPS), (*mean.shape[:-1], GROUPS))], -1)


def shares(method, average, rate, before):
    """``q`` by each method in turn, and the one asked for; of units without rows (rate 0) nothing."""
    box = losses.box_weights(average, rate, losses.robust_radius(rate, RHO))
    ball = losses.divergence_weights(average, rate, TEMPERATURE)
    followed = losses.group_dro_weights(before, average, STEP_SIZE)
    alike = (rate > 0) / (rate > 0).sum()
    return jnp.stack([rate, box, ball, followed, alike])[method]


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
@functools.partial(jax.vmap, in_axes=(None, 0))
def trained(key, arm):
    """``[seeds, arms]`` of each: accuracy by choice and group ``[3, GROUPS, CHOICES]`` (logits less 0, 0.5 and 1 of
    the log rates), and the shares in the end."""
    method, by_choice = arm
    keys = jax.random.split(key, 9)
    centres = jax.random.normal(keys[0], (CHOICES, DIM)), jax.random.normal(keys[1], (GROUPS, CHOICES, DIM))
    choice = jax.random.choice(keys[2], CHOICES, (ROWS,), p=jnp.asarray(CHOICE_RATE))
    group = jax.random.choice(keys[3], GROUPS, (ROWS,), p=jnp.asarray(GROUP_RATE))
    x = seen(keys[4], centres, choice, group)
    anew = jax.random.uniform(keys[5], (ROWS,)) < jnp.where(group == NOISY, 0.5, 0.05)
    label = jnp.where(anew, jax.random.choice(keys[6], CHOICES, (ROWS,), p=jnp.asarray(CHOICE_RATE)), choice)
    unit = jnp.where(by_choice > 0, label, group)
    count = jax.nn.one_hot(unit, CHOICES).sum(0)
    rate = (count + (jnp.arange(CHOICES) < jnp.where(by_choice > 0, CHOICES, GROUPS))).astype(jnp.float32)
    rate = rate / rate.sum()
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-3, STEPS)))

    def body(carry, key):
        params, moments, average, known, share = carry
        rows = jax.random.randint(key, (BATCH,), 0, ROWS)

        def loss(params):
            each = losses.cross_entropy_loss(
                forward(params, x[rows], jax.nn.relu), jax.nn.one_hot(label[rows], CHOICES)
            )
            mean, count = group_mean(each, unit[rows], CHOICES)
            old = jnp.where(known > 0, DECAY, 0.0)
            newer = jnp.where(count > 0, old * average + (1 - old) * mean, average)
            now = shares(method, newer, rate, share)
            weight = jnp.where(rate > 0, now / jnp.maximum(rate, 1e-9), 0.0)[unit[rows]]
            return (jax.lax.stop_gradient(weight) * each).mean(), (newer, known + count, now)

        gradient, (average, known, share) = jax.grad(loss, has_aux=True)(params)
        changes, moments = optimiser.update(gradient, moments)
        return (optax.apply_updates(params, changes), moments, average, known, share), None

    params = mlp(keys[7], (DIM + GROUPS, 64, CHOICES))
    first = (rate > 0) / (rate > 0).sum()
    start = params, optimiser.init(params), jnp.zeros(CHOICES), jnp.zeros(CHOICES), first
    (params, *_, share), _ = jax.lax.scan(body, start, jax.random.split(keys[8], STEPS))
    which, where = jnp.meshgrid(jnp.arange(CHOICES), jnp.arange(GROUPS))
    inputs = seen(jax.random.fold_in(key, 1), centres, jnp.tile(which, (60, 1, 1)), jnp.tile(where, (60, 1, 1)))
    logits = forward(params, inputs, jax.nn.relu)
    prior = jnp.log(jnp.bincount(label, length=CHOICES) + 1.0)
    right = [(logits - tau * prior).argmax(-1) == which for tau in (0.0, 0.5, 1.0)]
    return jnp.stack(right).mean(1), share


def run(seeds, scale, say):
    arms = {**ARMS, **BESIDE}
    right, share = map(np.asarray, trained(keys(seeds), jnp.array(list(arms.values()))))
    by_group = right @ CHOICE_RATE  # [seeds, arms, 3, GROUPS]
    worst, mean = by_group.min(-1), by_group @ GROUP_RATE
    macro = (right * GROUP_RATE[:, None]).sum(-2).mean(-1)
    shown = [(name, i, 0) for i, name in enumerate(arms)] + [("plain, tau 0.5", 0, 1), ("plain, tau 1", 0, 2)]
    for name, i, tau in shown:
        numbers = [part[:, i, tau].mean() for part in (worst, mean, macro)]
        say("{}: worst group {:.3f}, all rows {:.3f}, mean over choices {:.3f}".format(name, *numbers))
    say(f"group DRO gives {share[:, 3, NOISY].mean():.2f} of its weight to the group of noisy choices")
    return {arm: worst[:, column, 0].tolist() for column, arm in enumerate(ARMS)}
