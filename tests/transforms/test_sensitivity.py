"""Fisher information and its kin: numbers by hand, the exact information by enumeration, many rows in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import transforms as t

PARAMS = {"layer": {"kernel": jnp.array([[0.5, -0.2, 0.1], [0.3, 0.4, -0.6]]), "bias": jnp.zeros(3)}}
ROWS = jnp.array([[1.0, 2.0], [-1.0, 0.5]])
PATH = "['layer']['kernel']"
DELTA = {"layer": {"kernel": jnp.array([[0.1, -0.2, 0.3], [0.0, 0.05, -0.1]]), "bias": jnp.ones(3)}}


def outputs(params, row):
    return row @ params["layer"]["kernel"] + params["layer"]["bias"]


@pytest.fixture(scope="module")
def diagonal():
    return t.fisher_diagonal(outputs, t.categorical_metric, PARAMS, ROWS)


@pytest.fixture(scope="module")
def factors():
    return t.fisher_factors(outputs, t.categorical_metric, PARAMS, ROWS)


def exact():
    """The whole information matrix of the kernel, by enumeration of the answers."""
    kernel, bias = np.asarray(PARAMS["layer"]["kernel"], np.float64), np.zeros(3)
    total = np.zeros((6, 6))
    for row in np.asarray(ROWS, np.float64):
        p = np.exp(row @ kernel + bias)
        p /= p.sum()
        for answer in range(3):
            gradient = np.outer(row, (np.arange(3) == answer) - p).ravel()
            total += p[answer] * np.outer(gradient, gradient) / len(ROWS)
    return total


def test_diagonal_by_hand_and_by_enumeration(diagonal):
    by_hand = [[0.214307, 0.239015, 0.119753], [0.509627, 0.488087, 0.143109]]
    np.testing.assert_allclose(diagonal["layer"]["kernel"], by_hand, atol=1e-6)
    np.testing.assert_allclose(diagonal["layer"]["kernel"].ravel(), np.diag(exact()), atol=1e-6)


def test_factors_by_hand(factors):
    left, right = factors[PATH]
    np.testing.assert_allclose(left, [[0.573074, 0.378499], [0.378499, 1.140823]], atol=1e-6)
    by_hand = [[0.723934, -0.594087, -0.129847], [-0.594087, 0.727101, -0.133014], [-0.129847, -0.133014, 0.262861]]
    np.testing.assert_allclose(right, by_hand, atol=1e-6)
    assert (
        float(jnp.trace(left)) == pytest.approx(1.713897, abs=1e-6) == pytest.approx(float(jnp.trace(right)), abs=1e-6)
    )
    assert list(factors) == [PATH]  # the bias has none


def test_the_norm_of_a_change_by_factors_diagonal_and_whole(diagonal, factors):
    kernel = np.asarray(DELTA["layer"]["kernel"], np.float64)
    assert float(t.kronecker_quadratic(DELTA, factors)) == pytest.approx(0.025089, abs=1e-6)
    assert float((diagonal["layer"]["kernel"] * kernel**2).sum()) == pytest.approx(0.025133, abs=1e-6)
    assert kernel.ravel() @ exact() @ kernel.ravel() == pytest.approx(0.033234, abs=1e-6)
    zero = {PATH: (jnp.zeros((2, 2)), jnp.zeros((3, 3)))}
    value, gradient = jax.value_and_grad(t.kronecker_quadratic)(DELTA, zero)
    assert value == 0.0
    assert (gradient["layer"]["kernel"] == 0).all()
    with pytest.raises(ValueError, match=r"no leaf \['layer'\]\['kernel'\]"):
        t.kronecker_quadratic({"other": kernel}, factors)


def test_chunks_do_not_change_the_mean_and_settings_may_be_vmapped():
    rows = jax.random.normal(jax.random.key(0), (7, 2))

    def all_of(scale, chunk):
        params = jax.tree.map(lambda leaf: scale * leaf, PARAMS)
        return t.fisher_diagonal(outputs, t.categorical_metric, params, rows, chunk=chunk)["layer"]["kernel"]

    whole = jax.jit(jax.vmap(lambda scale: all_of(scale, 64)))(jnp.array([1.0, 2.0]))
    for chunk in (1, 3):
        np.testing.assert_allclose(jax.jit(lambda chunk=chunk: all_of(2.0, chunk))(), whole[1], rtol=1e-5)
    with pytest.raises(ValueError, match="there are none"):
        t.output_sensitivity(outputs, PARAMS, rows[:0])


def test_metrics_are_the_information_of_their_distributions():
    """By automatic differentiation: minus the expected second derivative of the log-probability."""
    logits = jnp.array([0.3, -1.0, 0.5])
    p = jax.nn.softmax(logits)
    hessians = jnp.stack([jax.hessian(lambda z, k=k: jax.nn.log_softmax(z)[k])(logits) for k in range(3)])
    np.testing.assert_allclose(t.categorical_metric(logits), -jnp.einsum("k,kij->ij", p, hessians), atol=1e-6)
    out = jnp.array([0.2, -0.4, 0.3, -0.5])  # means and log standard deviations of two actions
    sigma = np.exp(out[2:])
    np.testing.assert_allclose(t.gaussian_metric(out), np.diag([*sigma**-2.0, 2.0, 2.0]), rtol=1e-6)
    s = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(t.bernoulli_metric(logits), np.diag(s * (1 - s)), rtol=1e-6)


def test_sensitivity_needs_no_labels_and_takes_absolute_values_row_by_row():
    found = t.output_sensitivity(outputs, PARAMS, ROWS)["layer"]["kernel"]
    np.testing.assert_allclose(found, [[1.45, 1.0, 1.5], [2.375, 1.4, 2.4]], atol=1e-6)


def test_squared_gradients_are_those_of_the_rows_own_labels():
    def log_prob(params, row):
        return jax.nn.log_softmax(outputs(params, row[0]))[row[1]]

    rows = ROWS, jnp.array([0, 2])
    found = t.squared_gradients(log_prob, PARAMS, rows)["layer"]["kernel"]
    each = [jax.grad(log_prob)(PARAMS, (ROWS[i], rows[1][i]))["layer"]["kernel"] for i in range(2)]
    np.testing.assert_allclose(found, (each[0] ** 2 + each[1] ** 2) / 2, rtol=1e-5)


def test_importance_over_tasks_and_per_leaf():
    old, new = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.5, 2.0])}
    np.testing.assert_allclose(t.accumulate(old, new, 0.9)["w"], [1.4, 2.0], rtol=1e-6)
    tree = {"w": jnp.array([[1.0, 3.0], [0.0, 4.0]]), "none": jnp.zeros(2)}
    np.testing.assert_allclose(t.normalised_importance(tree)["w"], [[0.5, 1.5], [0.0, 2.0]])
    np.testing.assert_allclose(t.normalised_importance(tree, 0.5)["w"], [[0.0, 1.5], [0.0, 2.0]])
    np.testing.assert_allclose(t.normalised_importance(tree, 0.01)["w"], [[0.0, 0.0], [0.0, 2.0]])
    np.testing.assert_array_equal(t.normalised_importance(tree, 0.5)["none"], np.zeros(2))
    with pytest.raises(ValueError, match="must be in"):
        t.normalised_importance(tree, 0.0)
