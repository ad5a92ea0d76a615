"""A noise on inputs that a policy learns while a classifier is pretrained, and sensors that fail afterwards.

Five classes in 16 numbers, 6 of which inform (centres N(0, I), spread 0.7); 100 rows. A perceptron is pretrained on
x * m, with a cell of the mask m for each number, drawn from Beta distributions that a second network gives; the weights
of steps 280, 290 and 300 are averaged, and 100 slow steps without a mask follow. Metric: accuracy on fresh rows of
which each number is 0 with probability a quarter.

REINFORCE with the paper's sign learns to leave alone what informs, so it ends near no noise at all; with the other sign
it covers what informs, which is what a sensor that fails does. The released code's form learns nothing: its masks stay
those of fixed uniform noise, which is nearly as good.
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
from jaxrl_reg.transforms.trees import averaged

CLAIM = Claim(
    statement="A classifier pretrained under noise masks that learn to hurt it (policy gradient, sign -1) bears "
    "sensors that fail better than one pretrained without, and than one under masks that learn to help it (sign +1, "
    "the paper's). Not claimed, because it is not so here: that the paper's sign beats fixed uniform noise",
    paper="https://arxiv.org/abs/2406.14568",
    method="learnt mask, sign -1",
    baselines=("no mask", "learnt mask, sign +1"),
    ablation=None,
    metric="accuracy with failing sensors",
    systems=(5,),
    margin=0.005,
    seeds=28,
    chosen="44 recorded seeds: over sign +1 0.018, sd 0.018; power 0.97",
)
CLASSES, INFORM, DIM, ROWS, TEST, BATCH = 5, 6, 16, 100, 2000, 50
ARMS = {  # masked, learnt, weight of REINFORCE with its sign, weight of the released form
    "no mask": (0.0, 0.0, 0.0, 0.0),
    "fixed uniform mask": (1.0, 0.0, 0.0, 0.0),
    "released form": (1.0, 1.0, 0.0, 1.0),
    "learnt mask, sign +1": (1.0, 1.0, 1.0, 0.0),
    "learnt mask, sign -1": (1.0, 1.0, -1.0, 0.0),
}


def rows(key, centres, count):
    label_key, key = jax.random.split(key)
    label = jax.random.randint(label_key, (count,), 0, CLASSES)
    spread = jnp.where(jnp.arange(DIM) < INFORM, 0.7, 1.0)
    return jnp.pad(centres, ((0, 0), (0, DIM - INFORM)))[label] + spread * jax.random.normal(key, (count, DIM)), label


def relu(params, x):
    return forward(params, x, jax.nn.relu)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
@functools.partial(jax.vmap, in_axes=(None, 0))
def trained(key, arm):
    """``[seeds, ARMS]`` of each: accuracy with failing sensors and without, mean mask where numbers inform and not."""
    masked, learnt, reinforced, released = arm
    keys = jax.random.split(key, 8)
    centres = jax.random.normal(keys[0], (CLASSES, INFORM))
    x, label = rows(keys[1], centres, ROWS)
    model, masker = mlp(keys[2], (DIM, 64, 64, CLASSES)), mlp(keys[3], (DIM, 64, 2 * DIM), last=0.1)
    fast, slow, of_mask = optax.adam(3e-3), optax.adam(3e-4), optax.adam(1e-3)

    def drawn(key):
        row_key, mask_key = jax.random.split(key)
        chosen = jax.random.randint(row_key, (BATCH,), 0, ROWS)
        return mask_key, x[chosen], jax.nn.one_hot(label[chosen], CLASSES)

    def concentrations(masker, base, x):
        head = 10.0 * learnt * relu(masker, x)
        return head, jnp.split(losses.blend_parameters(base, head), 2, axis=-1)

    def pretrain(carry, key):
        model, masker, base, moments, mask_moments = carry
        key, x, target = drawn(key)

        def loss(model, masker):
            head, (a, b) = concentrations(masker, base, x)
            mask = jax.lax.stop_gradient(jax.random.beta(key, a, b))
            value = losses.cross_entropy_loss(relu(model, x * jnp.where(masked > 0, mask, 1.0)), target)
            log_prob = losses.beta_log_prob(mask, a, b)
            judged = (value - value.mean()) / (value.std() + 1e-6)
            policy = jnp.abs(reinforced) * losses.mask_policy_loss(log_prob, judged, jnp.sign(reinforced))
            policy += released * losses.pooled_mask_loss(log_prob, value)
            return value.mean() + policy.mean(), head.mean(0)

        (of_model, of_masker), head = jax.grad(loss, argnums=(0, 1), has_aux=True)(model, masker)
        changes, moments = fast.update(of_model, moments)
        mask_changes, mask_moments = of_mask.update(of_masker, mask_moments)
        model, masker = optax.apply_updates(model, changes), optax.apply_updates(masker, mask_changes)
        return (model, masker, 0.99 * base + 0.01 * head, moments, mask_moments), None

    def finetune(carry, key):
        model, moments = carry
        _, x, target = drawn(key)
        gradient = jax.grad(lambda model: losses.cross_entropy_loss(relu(model, x), target).mean())(model)
        changes, moments = slow.update(gradient, moments)
        return (optax.apply_updates(model, changes), moments), None

    carry = model, masker, jnp.zeros(2 * DIM), fast.init(model), of_mask.init(masker)
    snapshots, step_keys = [], jax.random.split(keys[4], 300)
    for start, end in ((0, 280), (280, 290), (290, 300)):
        carry, _ = jax.lax.scan(pretrain, carry, step_keys[start:end])
        snapshots.append(carry[0])
    model = averaged(snapshots)
    (model, _), _ = jax.lax.scan(finetune, (model, slow.init(model)), jax.random.split(keys[5], 100))
    x, label = rows(keys[6], centres, TEST)
    works = jax.random.bernoulli(keys[7], 0.75, x.shape)
    failing, whole = ((relu(model, seen).argmax(-1) == label).mean() for seen in (x * works, x))
    _, (a, b) = concentrations(carry[1], carry[2], x)
    mask = (a / (a + b)).mean(0)
    return failing, whole, mask[:INFORM].mean(), mask[INFORM:].mean()


def run(seeds, scale, say):
    found = trained(keys(seeds), jnp.array(list(ARMS.values())))
    failing, whole, inform, noise = (np.asarray(part) for part in found)
    for column, arm in enumerate(ARMS):
        means = [part[:, column].mean() for part in (failing, whole, inform, noise)]
        say("{}: failing {:.3f}, whole {:.3f}; mean mask where numbers inform {:.2f}, else {:.2f}".format(arm, *means))
    return {arm: failing[:, column].tolist() for column, arm in enumerate(ARMS)}
