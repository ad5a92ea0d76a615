"""Nearest rows against NumPy in float64, where rounding bites, in a population, and through an inverted file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxrl_reg.data import retrieval
from jaxrl_reg.errors import UserError

ROWS, QUERIES = 1000, 12


def table(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=(rows, width)), jnp.float32) for width in (3, 2))


def queries(count=QUERIES, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, 5)), jnp.float32)


def brute(query, parts, weight, k):
    rows = np.concatenate([np.asarray(part, np.float64) for part in parts], -1)
    distance = (np.asarray(weight, np.float64) * (np.asarray(query, np.float64)[:, None] - rows) ** 2).sum(-1)
    order = np.argsort(distance, axis=-1, kind="stable")[:, :k]
    return np.take_along_axis(distance, order, -1), order


WEIGHT = jnp.array([4.0, 0.25, 1.0, 1.0, 0.5])


@pytest.mark.parametrize(("k", "chunk"), [(1, 128), (5, 128), (3, 999), (2, 4096)])
def test_equals_numpy_whatever_the_blocks(k, chunk):
    distance, rows = retrieval.nearest(queries(), table(), WEIGHT, k, chunk=chunk)
    expected, order = brute(queries(), table(), WEIGHT, k)
    np.testing.assert_array_equal(rows, order)  # 1000 is no multiple of 128: the last block overlaps
    np.testing.assert_allclose(distance, expected, rtol=1e-5)
    assert rows.dtype == jnp.int32
    assert all(len(set(row)) == k for row in rows.tolist())  # rows of the overlap count once


def test_all_rows_in_order_and_the_first_of_equals():
    parts = (jnp.array([[0.0], [2.0], [1.0], [2.0]]),)
    distance, rows = retrieval.nearest(jnp.array([[2.0]]), parts, k=4, chunk=2)
    assert rows.tolist() == [[1, 3, 2, 0]]
    np.testing.assert_allclose(distance, [[0, 0, 1, 4]])


def test_far_from_the_origin_rounding_decides_nothing():
    """At 1000 a float32 product is off by 0.1; neighbours here differ by 0.01. Centring and measuring again help."""
    rng = np.random.default_rng(0)
    offset = np.array([1000.0, -3000.0])
    rows = (offset + 0.01 * rng.integers(-300, 300, (4000, 2))).astype(np.float32)
    query = (rows[::500].astype(np.float64) + 0.004).astype(np.float32)
    distance, _ = retrieval.nearest(jnp.asarray(query), (jnp.asarray(rows),), chunk=512)
    expected, _ = brute(query, (rows,), np.ones(2), 1)
    np.testing.assert_allclose(distance, expected, atol=1e-9)
    products = (query**2).sum(-1)[:, None] - 2 * query @ rows.T + (rows**2).sum(-1)  # what would have been done
    chosen = ((query - rows[products.argmin(-1)]) ** 2).sum(-1)
    assert chosen.max() > 10 * expected.max()


def test_a_population_shares_one_table():
    members, rows, chunk = 6, 4096, 512

    def search(query, weight, parts):
        return retrieval.nearest(query, parts, weight, chunk=chunk)[1]

    parts, weights = table(rows), jnp.stack([WEIGHT * (i + 1) ** jnp.array([1, 1, 1, 0, 0]) for i in range(members)])
    batch = jnp.stack([queries(seed=i) for i in range(members)])
    mapped = jax.vmap(search, in_axes=(0, 0, None))
    found = jax.jit(mapped)(batch, weights, parts)
    for i in range(members):
        np.testing.assert_array_equal(found[i], brute(batch[i], parts, weights[i], 1)[1])
    largest = max(sizes(jax.make_jaxpr(mapped)(batch, weights, parts).jaxpr))
    assert largest <= max(members * QUERIES * chunk, rows * 3)  # a block of distances; never members x rows x columns
    assert largest < members * rows * 5


def sizes(jaxpr):
    """Number of elements of every array that the program makes, loops included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


def test_no_gradient_goes_through():
    gradient = jax.grad(lambda query: retrieval.nearest(query, table())[0].sum())(queries())
    np.testing.assert_array_equal(gradient, 0)


def test_scales_standardise_columns():
    parts = (jnp.array([[0.0, 5.0], [2.0, 5.0]]),)
    np.testing.assert_allclose(retrieval.column_scales(parts), [1 / 1.001, 1000.0], rtol=1e-6)


@pytest.fixture(scope="module")
def crowded():
    """Half of all rows in one corner: k-means alone would put them into one cell."""
    rng = np.random.default_rng(0)
    points = np.concatenate([0.05 * rng.normal(size=(2000, 5)), rng.normal(size=(2000, 5))]).astype(np.float32)
    return jnp.asarray(points[:, :3]), jnp.asarray(points[:, 3:])


@pytest.fixture(scope="module")
def index(crowded):
    return retrieval.cells(crowded, WEIGHT, 40, key=jax.random.key(0))


def test_cells_hold_every_row_once_and_none_is_crowded(crowded, index):
    rows = np.asarray(index.rows)
    assert sorted(rows[rows >= 0].tolist()) == list(range(4000))
    assert (rows >= 0).sum(1).max() <= 2 * 4000 / 40
    assert (rows >= 0).sum(1).min() > 0


def test_recall_rises_with_probes_to_the_exact_answer(crowded, index):
    query = jnp.concatenate(crowded, -1)[::62][:64] + 0.05 * queries(64)
    distance, true = retrieval.nearest(query, crowded, WEIGHT, 3)
    search = jax.jit(retrieval.nearest_in_cells, static_argnames=("k", "probes"))
    shares = []
    for probes in (1, 4, 16, index.centre.shape[0]):
        found = search(query, crowded, index, WEIGHT, k=3, probes=probes)
        shares.append(float(retrieval.recall(found[1], true)))
        assert (found[0] >= distance - 1e-6).all()  # an approximation is never nearer
    assert shares == sorted(shares)
    assert shares[0] > 0.4
    assert shares[2] > 0.95
    assert shares[3] == 1.0
    np.testing.assert_array_equal(found[1], true)


def test_recall_counts_by_hand():
    found, true = jnp.array([[3, 1], [7, 8]]), jnp.array([[1, 2], [8, 7]])
    assert float(retrieval.recall(found, true)) == 0.75


def test_refusals(crowded, index):
    with pytest.raises(UserError, match=r"queries \[12, 5\] do not fit a table of \[1000, 3\]"):
        retrieval.nearest(queries(), table()[:1])
    with pytest.raises(UserError, match=r"weight has shape \[2\]; expected one per column, \[5\]"):
        retrieval.nearest(queries(), table(), jnp.ones(2))
    with pytest.raises(UserError, match="k=1001 neighbours of 1000 rows"):
        retrieval.nearest(queries(), table(), k=1001)
    with pytest.raises(UserError, match="take more probes"):
        retrieval.nearest_in_cells(queries(), crowded, index, k=1000, probes=1)
