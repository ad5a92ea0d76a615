"""Hyperparameter settings, stacked: a ``Hyper`` whose leaves have a leading axis ``[H]``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import as_float32

HyperT = TypeVar("HyperT")


def grid(hyper: HyperT, **axes: Any) -> HyperT:
    """Every combination of the given values; the last axis varies fastest, other leaves are repeated.

    Args:
      hyper: the setting to start from, every leaf a scalar.
      axes: hyperparameter name to a sequence (or array) of values.

    Returns:
      The same type, every leaf float32 ``[H]`` with ``H`` the product of the axes' lengths (1 without axes).

    Raises:
      UserError: for a name that ``hyper`` does not have, or an axis without values.

    Example:
      ``grid(rebrac.Hyper(), actor_bc_coef=[0.01, 0.1], discount=[0.99, 0.995])`` holds four settings.
    """
    names = [field.name for field in dataclasses.fields(hyper)]  # type: ignore[arg-type]
    values = {}
    for name, axis in axes.items():
        if name not in names:
            raise unknown("hyperparameter", name, names)
        values[name] = np.atleast_1d(np.asarray(axis, np.float32)).ravel()
        if values[name].size == 0:
            raise UserError(f"hyperparameter {name!r} has no values to sweep; give at least one")
    points = list(itertools.product(*values.values()))
    return stack([dataclasses.replace(hyper, **dict(zip(values, point, strict=True))) for point in points])  # type: ignore[type-var]


def stack(hypers: Sequence[HyperT]) -> HyperT:
    """Settings given one by one as a single one with leaves ``[H]``."""
    # By NumPy: as an operation of JAX it would be a program to compile before the first one that trains.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *[as_float32(hyper) for hyper in hypers])


def setting_count(hypers: Any) -> int:
    """``H``, the common leading length of all leaves.

    Raises:
      UserError: if leaves disagree or have no leading axis.
    """
    shapes = {np.shape(leaf) for leaf in jax.tree.leaves(hypers)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise UserError(
            f"hypers must have leaves of one shape [H], found {sorted(shapes)}; make them with population.grid"
        )
    return next(iter(shapes))[0]
