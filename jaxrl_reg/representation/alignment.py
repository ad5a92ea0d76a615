"""Two groups of sensors that see the same state, encoded so that either can stand for the other.

A policy that reads the features of one group then acts on those of the other when the first fails. The contrast between
the two features of one row does that from few rows that both have seen. A discrepancy between the two clouds of
features, the source's other ingredient, matches the clouds without making rows correspond: in our experiment it is
worse than nothing alone and adds nothing beside the contrast. So it is off by default.

Source: Ren et al., 2025, Modality Alignment with Multi-scale Bilateral Attention for Multimodal Recommendation
(MambaRec), equations of its contrastive and discrepancy terms. Left out: graphs of users and items, and their ranking
loss; its multi-scale block over time is ``networks.refinement``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import mlp
from jaxrl_reg.types import Array, Key, Metrics, Network, PyTree, Spec, Transition


class SensorAlignment(NamedTuple):
    """An ``Objective`` that encodes two groups: ``encode(params, observation [..., O]) -> [..., D]`` reads the first,
    ``encode_other`` the second. Features have the length 1."""

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    encode: Callable[[PyTree, Array], Array]
    encode_other: Callable[[PyTree, Array], Array]
    advance: Callable[[PyTree, Array], PyTree] | None = None


def sensor_alignment(
    spec: Spec,
    encoders: tuple[Network, Network],
    groups: tuple[Sequence[int], Sequence[int]],
    hidden: Sequence[int] = (),
    *,
    projection: int = 64,
    temperature: float = 0.2,
    contrast: float = 1.0,
    discrepancy: float = 0.0,
    bandwidth: float = 0.3,
) -> SensorAlignment:
    """``contrast`` times InfoNCE in both directions (their mean) plus ``discrepancy`` times the squared MMD.

    Args:
      spec: of the observations that both groups are columns of.
      encoders: of the first and of the second group's columns.
      groups: columns of each, disjoint.
      hidden: widths of the head of each on top of its encoder.
      projection: features, ``D``.
      temperature: of the contrast.
      contrast, discrepancy: weights.
      bandwidth: of the discrepancy's kernel between unit vectors; at 1 or more it sees little but their means.
    Raises:
      UserError: for columns that do not exist or that both groups have.
    """
    columns = [np.asarray(group, int) for group in groups]
    for name, group in zip(("first", "second"), columns, strict=True):
        if not group.size or group.min() < 0 or group.max() >= spec.observation_dim:
            raise UserError(
                f"the {name} group has columns {group.tolist()}; observations have those from 0 to "
                f"{spec.observation_dim - 1}"
            )
    both = sorted(set(columns[0].tolist()) & set(columns[1].tolist()))
    if both:
        raise UserError(f"columns {both} are in both groups; a sensor that fails is in one of them")
    heads = [
        mlp((_width(encoder, group.size), *hidden, projection))
        for encoder, group in zip(encoders, columns, strict=True)
    ]

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 4)
        parts = zip(("encoder", "other_encoder", "head", "other_head"), (*encoders, *heads), keys, strict=True)
        return {name: network.init(key) for name, network, key in parts}

    def encode(params: PyTree, observation: Array) -> Array:
        return _unit(heads[0].apply(params["head"], encoders[0].apply(params["encoder"], observation[..., columns[0]])))

    def encode_other(params: PyTree, observation: Array) -> Array:
        features = encoders[1].apply(params["other_encoder"], observation[..., columns[1]])
        return _unit(heads[1].apply(params["other_head"], features))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        first, second = encode(params, batch.observation), encode_other(params, batch.observation)
        there, back = losses.info_nce_loss(first, second, temperature), losses.info_nce_loss(second, first, temperature)
        contrasted = 0.5 * (there + back).mean()
        apart = losses.mmd_loss(first, second, bandwidth)
        value = contrast * contrasted + discrepancy * apart
        return value, {"loss": value, "contrast": contrasted, "discrepancy": apart}

    return SensorAlignment(init, loss, encode, encode_other)


def _width(encoder: Network, size: int) -> int:
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    return jax.eval_shape(encoder.apply, params, jax.ShapeDtypeStruct((1, size), jnp.float32)).shape[-1]


def _unit(x: Array) -> Array:
    return losses.project_sphere(x) / x.shape[-1] ** 0.5
