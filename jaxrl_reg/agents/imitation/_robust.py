"""Cloning for the worst of several groups of rows: what ``bc`` multiplies the loss of each row by.

The group of a row is ``extras["group"]``, a whole number that says where it came from: a task, a source, an operator.
Loss and share of every group are followed from batch to batch (decay 0.95; shares are counts, plus one). A row's weight
is ``q_k / p_k``, with ``q`` as ``losses`` has it: ``box_weights``, ``divergence_weights`` or ``group_dro_weights``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.losses.robust import group_mean
from jaxrl_reg.types import Array, Dataset, Metrics, Transition

METHODS = ("none", "box", "divergence", "group_dro")
DECAY = 0.95  # of the average of a group's loss, per batch that has rows of it
STEPS_PER_STRENGTH = 0.02  # of group DRO: its step size is 0.01 at strength 0.5
HOW = 'data.from_arrays(..., extras={"group": numbers}) makes it, and data.save keeps it in an HDF5 file'


class Following(NamedTuple):
    """What is known of the groups, each ``[K]``: mean loss, share ``q`` of the worst case, rows seen."""

    loss_average: Array
    group_weight: Array
    seen: Array


def start(groups: int) -> Following:
    """Nothing seen, shares equal."""
    return Following(jnp.zeros(groups), jnp.full(groups, 1.0 / groups, jnp.float32), jnp.zeros(groups))


def check(method: str, groups: int, strength: float) -> None:
    """Raises ``UserError`` for an unknown method, one without groups, or a strength that it does not have."""
    if method not in METHODS:
        raise unknown("robust", method, METHODS)
    if method != "none" and groups < 2:
        raise UserError(f"robust={method} needs the number of groups in the data, at least 2, such as groups=4")
    if strength < 0 or (method == "box" and strength > 2):
        raise UserError(f"robust_strength={strength:g} must be at least 0, and of box at most 2; 0 is plain cloning")


def checked(data: Dataset, groups: int) -> Dataset:
    """``data`` as it is. Raises ``UserError`` unless every row has a group from 0 to ``groups - 1``."""
    if "group" not in data.extras:
        raise UserError(f'{data.name or "the data set"} has no extras["group"]; {HOW}')
    group = np.asarray(data.extras["group"])
    if group.shape != (data.size,):
        raise UserError(f'extras["group"] of {data.name} must be one number per row, not of shape {group.shape}')
    wrong = np.flatnonzero((group != np.round(group)) | (group < 0) | (group >= groups))
    if wrong.size:
        raise UserError(
            f'extras["group"] of {data.name} is {group[wrong[0]]:g} in row {wrong[0]}; groups={groups} are numbered 0 '
            f"to {groups - 1}"
        )
    return data


def follow(
    before: Following, loss: Array, batch: Transition, method: str, strength: float
) -> tuple[Following, Array, Metrics]:
    """What is known after a batch, the weight of each of its rows ``[B]``, and metrics; all DETACHED.

    Args:
      before: what was known.
      loss: ``[B]``.
      batch: with ``extras["group"] [B]``.
      method: of ``METHODS``, but ``none``.
      strength: ``rho`` of the box, the inverse temperature of the divergence ball, 50 step sizes of group DRO.
    """
    if "group" not in batch.extras:
        raise UserError(f'bc with robust={method} needs extras["group"] in its batches; {HOW}')
    group = jnp.round(batch.extras["group"]).astype(jnp.int32)
    groups = before.seen.size
    mean, count = group_mean(loss, group, groups)
    decay = jnp.where(before.seen > 0, DECAY, 0.0)
    average = jnp.where(count > 0, decay * before.loss_average + (1.0 - decay) * mean, before.loss_average)
    seen = before.seen + count
    rate = (seen + 1.0) / (seen + 1.0).sum()
    if method == "box":
        share = losses.box_weights(average, rate, losses.robust_radius(rate, strength))
    elif method == "divergence":
        share = losses.divergence_weights(average, rate, 1.0 / max(strength, 1e-8))
    else:
        share = losses.group_dro_weights(before.group_weight, average, STEPS_PER_STRENGTH * strength)
    ratio = share / rate
    metrics = {
        "worst_group_loss": jnp.where(seen > 0, average, -jnp.inf).max(),
        "largest_weight": ratio.max(),
    }
    return Following(average, share, seen), jax.lax.stop_gradient(ratio[group]), metrics
