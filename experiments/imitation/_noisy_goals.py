"""Cloning a walker whose recorded moves are partly wrong: one program for every arm and seed.

State (position, goal) in [-1, 1]^4, eight directions, the right one being the one best aligned with the goal. The
network 4-256-256-8 is trained by SGD (0.05, momentum 0.9, decay 1e-3, cosine) on epochs of 64 rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses, networks, transforms
from jaxrl_reg.evaluation import classification

ANGLES = jnp.arange(8) * jnp.pi / 4
MOVES = jnp.stack([jnp.cos(ANGLES), jnp.sin(ANGLES)], 1)
STEP, NEAR, LENGTH, BATCH, TESTED = 0.08, 0.1, 45, 64, 2000


@dataclasses.dataclass(frozen=True)
class Task:
    """Rows, epochs, share of recorded moves drawn at random, and noise of what is seen in training and in the test."""

    rows: int
    epochs: int
    wrong: float
    seen_noise: float = 0.0
    test_noise: float = 0.0


def right(state: jax.Array) -> jax.Array:
    """Number of the best direction of states ``[..., 4]``."""
    return ((state[..., 2:] - state[..., :2]) @ MOVES.T).argmax(-1)


def compared(task: Task, arms: Sequence[tuple[float, float]], seeds: Sequence[int]) -> dict[str, jax.Array]:
    """Measures ``[arms, seeds]``; an arm is (weight of early-learning regularisation, final weight of the past's
    predictions in the label)."""
    network = networks.mlp((4, 256, 256, 8))
    steps = task.epochs * (task.rows // BATCH)

    def optimiser() -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(0.05, steps)
        return optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(schedule, momentum=0.9))

    def train(seed: jax.Array, arm: jax.Array) -> dict[str, jax.Array]:
        early, past_weight = arm
        key = jax.random.key(seed)
        state_key, wrong_key, move_key, first_key, key = jax.random.split(key, 5)
        states = jax.random.uniform(state_key, (task.rows, 4), minval=-1.0, maxval=1.0)
        truth = right(states)
        swapped = jax.random.uniform(wrong_key, (task.rows,)) < task.wrong
        label = jnp.where(swapped, jax.random.randint(move_key, (task.rows,), 0, 8), truth)
        one_hot = jax.nn.one_hot(label, 8)
        params = network.init(first_key)

        def step(carry, number):
            params, opt_state, early_table, past_table = carry
            epoch, part = number // (task.rows // BATCH), number % (task.rows // BATCH)
            order = jax.random.permutation(jax.random.fold_in(key, epoch), task.rows)
            rows = jax.lax.dynamic_slice(order, (part * BATCH,), (BATCH,))
            noise = task.seen_noise * jax.random.normal(jax.random.fold_in(key, task.epochs + number), (BATCH, 4))
            soft = losses.self_evolution_target(one_hot[rows], past_table[rows], number / steps, past_weight, 1.0)

            def loss(params):
                logits = network.apply(params, states[rows] + noise)
                target = losses.early_learning_target(early_table[rows], logits, 0.7)
                total = losses.cross_entropy_loss(logits, soft) + early * losses.early_learning_loss(logits, target)
                return total.mean(), (target, jax.nn.softmax(logits))

            gradients, (target, said) = jax.grad(loss, has_aux=True)(params)
            changes, opt_state = optimiser().update(gradients, opt_state, params)
            early_table = transforms.update_rows(early_table, rows, target)
            past_table = transforms.update_rows(past_table, rows, said)
            return (optax.apply_updates(params, changes), opt_state, early_table, past_table), None

        carry = (params, optimiser().init(params), jnp.zeros((task.rows, 8)), one_hot)
        params = jax.lax.scan(step, carry, jnp.arange(steps))[0][0]
        memorised = (network.apply(params, states).argmax(-1) == label) & (label != truth)
        share = memorised.sum() / jnp.maximum((label != truth).sum(), 1)
        return {"memorised": share, **judged(params, jax.random.fold_in(key, 2 * steps + task.epochs))}

    def judged(params, key: jax.Array) -> dict[str, jax.Array]:
        state_key, noise_key, walk_key = jax.random.split(key, 3)
        states = jax.random.uniform(state_key, (TESTED, 4), minval=-1.0, maxval=1.0)
        noise = task.test_noise * jax.random.normal(noise_key, (TESTED, 4))
        log_p = jax.nn.log_softmax(network.apply(params, states + noise))
        correct = (log_p.argmax(-1) == right(states)).astype(jnp.float32)
        sure = jnp.exp(log_p.max(-1))

        def walk(state, key):
            seen = state + task.test_noise * jax.random.normal(key, state.shape)
            place = jnp.clip(state[:, :2] + STEP * MOVES[network.apply(params, seen).argmax(-1)], -1.0, 1.0)
            state = jnp.concatenate([place, state[:, 2:]], 1)
            return state, jnp.linalg.norm(state[:, 2:] - place, axis=1) < NEAR

        reached = jax.lax.scan(walk, states[:400], jax.random.split(walk_key, LENGTH))[1].any(0)
        return {
            "success": reached.mean(),
            "accuracy": correct.mean(),
            "nll": -jnp.take_along_axis(log_p, right(states)[:, None], 1).mean(),
            "ece": classification.expected_calibration_error(sure, correct),
            "overconfidence": (sure - correct).mean(),
        }

    members = jax.vmap(jax.vmap(train, (0, None)), (None, 0))
    return jax.jit(members)(jnp.asarray(list(seeds)), jnp.asarray(arms, jnp.float32))
