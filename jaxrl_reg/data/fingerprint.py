"""A short name for what a data set holds, so that a run can tell whether it is given the same one again."""

from __future__ import annotations

import hashlib

import jax
import numpy as np

from jaxrl_reg.types import Dataset

# The columns that were read; everything else in a data set follows from them.
COLUMNS = ("observation", "action", "reward", "discount", "next_observation", "next_action", "last")


def fingerprint(dataset: Dataset) -> str:
    """16 hexadecimal digits (BLAKE2b) of the names, shapes, types and values of all columns, extras included.

    The same on every machine and for every copy of a data set. Its name, its reference scores and what is derived from
    the columns have no part in it. A million rows of 30 numbers take a fraction of a second.
    """
    columns = {key: getattr(dataset, key) for key in COLUMNS}
    columns |= {f"extras/{key}": dataset.extras[key] for key in sorted(dataset.extras)}
    digest = hashlib.blake2b(digest_size=8)
    for key, column in columns.items():
        values = np.ascontiguousarray(jax.device_get(column))
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{key} {values.dtype.name} {values.shape};".encode())
        digest.update(values.data)
    return digest.hexdigest()
