"""Measures of plasticity against NumPy, on networks of every body, and where they must tell a difference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import networks
from jaxrl_reg.evaluation import plasticity
from jaxrl_reg.types import Spec
from tests.agents import reference as ref

KEY = jax.random.key(1)
SPEC = Spec(observation_dim=3, action_dim=2)
RNG = np.random.default_rng(0)
STATE, ACTION = RNG.normal(size=(16, 3)).astype(np.float32), RNG.normal(size=(16, 2)).astype(np.float32)


def test_the_report_of_an_ensemble_equals_numpy():
    network = networks.q_network(SPEC, (8, 6), n_critics=2)
    params = jax.jit(network.init)(jax.random.key(0))
    first = {**params["Dense_0"], "bias": params["Dense_0"]["bias"].at[1, 2].set(-100.0)}  # one unit never fires
    params = {**params, "Dense_0": first}
    found = jax.jit(functools.partial(plasticity.report, network))(params, STATE, ACTION)
    assert found["dormant"].shape == (2, 2)
    for n in range(2):
        one = ref.as64(ref.member(params, n))
        _, (_, *hidden) = ref.forward(one, np.concatenate([STATE, ACTION], -1).astype(np.float64))
        sizes = np.linalg.svd(hidden[-1], compute_uv=False)
        sizes = np.where(sizes > 1e-6 * sizes[0], sizes, 0.0)
        share = sizes[sizes > 0] / sizes.sum()
        np.testing.assert_allclose(found["effective_rank"][n], np.exp(-(share * np.log(share)).sum()), rtol=1e-3)
        np.testing.assert_allclose(found["feature_norm"][n], np.linalg.norm(hidden[-1], axis=1).mean(), rtol=1e-4)
        kernels = [one[f"Dense_{i}"]["kernel"].ravel() for i in range(3)]
        np.testing.assert_allclose(found["kernel_norm"][n], np.linalg.norm(np.concatenate(kernels)), rtol=1e-5)
        for layer, h in enumerate(hidden):
            activity = np.abs(h).mean(0)
            np.testing.assert_allclose(found["dormant"][n, layer], (activity <= 0.1 * activity.mean()).mean())
    assert found["dormant"][1, 0] >= 1 / 8


@pytest.mark.parametrize("body", ["simba", "bro"])
def test_residual_bodies_are_read_too(body):
    network = networks.value_network(SPEC, (8, 8), body=body)
    params = jax.eval_shape(network.init, jax.random.key(0))
    found = jax.eval_shape(functools.partial(plasticity.report, network), params, STATE)
    assert found.pop("dormant").shape == (3,)  # two blocks and what the head reads
    assert all(value.shape == () for value in found.values())


PLAIN = networks.mlp((3, 32, 1))


@pytest.fixture(scope="module")
def trained():
    """First weights of a network, and the same with units that never fire."""
    params = jax.jit(PLAIN.init)(jax.random.key(0))
    return params, {**params, "Dense_0": {**params["Dense_0"], "bias": jnp.full(32, -100.0)}}


def test_dead_features_have_rank_0_and_no_nan(trained):
    found = jax.jit(functools.partial(plasticity.report, PLAIN))(trained[1], STATE)
    assert (found["effective_rank"], found["srank"], found["dormant"][0]) == (0, 0, 1)
    assert all(np.isfinite(value).all() for value in found.values())
    linear = networks.mlp((3, 1))
    with pytest.raises(ValueError, match="no hidden layer"):
        jax.eval_shape(functools.partial(plasticity.report, linear), jax.eval_shape(linear.init, KEY), STATE)


def test_a_network_with_dead_units_is_less_trainable(trained):
    learn = jax.jit(
        lambda params, steps: plasticity.trainability(PLAIN, params, STATE, key=KEY, steps=steps, learning_rate=1e-2)
    )
    errors = [float(learn(one, steps)) for one, steps in ((trained[0], 0), (trained[0], 200), (trained[1], 200))]
    targets = np.asarray(jax.random.normal(KEY, (16, 1)))
    np.testing.assert_allclose(errors[0], np.square(targets).mean(), rtol=1e-5)
    assert errors[1] < 0.3 * errors[0]
    np.testing.assert_allclose(errors[2], targets.var(), rtol=0.05)  # nothing but the output's bias can move


def test_churn():
    assert plasticity.churn(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])) == 2.0
    assert plasticity.greedy_churn(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([[2.0, 1.0], [3.0, 0.0]])) == 0.5
