import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data


def rows(seed=0, extras=True):
    rng = np.random.default_rng(seed)
    n = 60
    return data.from_arrays(
        rng.normal(size=(n, 3)),
        rng.uniform(-1, 1, (n, 2)),
        rng.normal(size=n),
        np.arange(n) % 20 == 19,
        np.zeros(n),
        rng.normal(size=(n, 3)),
        name="one",
        extras={"physics": rng.normal(size=(n, 4)), "level": np.arange(n)} if extras else None,
    )


def test_same_for_copies_and_files_whatever_their_name_and_scores(tmp_path):
    one = rows()
    named = dataclasses.replace(one, name="two", score_random=jnp.float32(1.0))
    data.save(one, tmp_path / "one.hdf5")
    wanted = data.fingerprint(one)
    assert len(wanted) == 16
    assert int(wanted, 16) >= 0
    assert wanted == data.fingerprint(rows()) == data.fingerprint(named)
    assert wanted == data.fingerprint(data.load(tmp_path / "one.hdf5"))


@pytest.mark.parametrize(
    "column", ["observation", "action", "reward", "discount", "next_observation", "next_action", "last"]
)
def test_one_changed_number_in_any_column_shows(column):
    one = rows()
    values = getattr(one, column)
    other = dataclasses.replace(one, **{column: values.at[7].add(0.25)})
    assert data.fingerprint(other) != data.fingerprint(one)


def test_extras_shapes_and_order_of_rows_show():
    one = rows()
    moved = {**one.extras, "physics": one.extras["physics"].at[3, 1].add(1.0)}
    others = [
        rows(seed=1),
        rows(extras=False),
        dataclasses.replace(one, extras=moved),
        data.head(one, 59),
        dataclasses.replace(one, reward=one.reward[::-1]),
        dataclasses.replace(one, observation=one.observation.reshape(30, 6)),
    ]
    assert len({data.fingerprint(each) for each in (one, *others)}) == 7
