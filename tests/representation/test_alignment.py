"""Aligned sensors: the losses they are made of, the two encoders, and the block over time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, losses, representation
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.pretrain import Hyper, pretrain
from jaxrl_reg.networks import mlp
from jaxrl_reg.networks.refinement import dilated_refinement
from jaxrl_reg.types import Spec

GROUPS = ((0, 2, 4), (1, 3))
SPEC = Spec(6, 1)  # the last column belongs to neither


def aligned(**weights):
    encoders = mlp((3, 32, 8)), mlp((2, 32, 8))
    return representation.sensor_alignment(SPEC, encoders, GROUPS, projection=4, **weights)


def rows():
    z = np.random.default_rng(0).normal(size=(256, 2))
    seen = np.stack([z[:, 0], z[:, 0] ** 3, z[:, 1], -2.0 * z[:, 1], z.sum(axis=1), 9.0 * z[:, 0]], axis=1)
    zero = np.zeros(256)
    return data.from_arrays(seen, zero[:, None], zero, zero, zero + 1.0, seen, name="two sensors")


def test_golden_numbers_of_its_losses():
    x, y = jnp.array([[1, 0], [0.6, 0.8], [0, 1]]), jnp.array([[0, 1], [0.8, 0.6], [-1, 0]])
    np.testing.assert_allclose(losses.info_nce_loss(x, y, 0.2), [4.018271, 0.371383, 5.132845], rtol=1e-5)
    np.testing.assert_allclose(losses.mmd_loss(x, y, 0.5), -0.367906, atol=1e-5)


def test_either_sensor_finds_the_row_of_the_other():
    objective, dataset = aligned(discrepancy=0.5), rows()
    run = pretrain(objective, batch_size=64, updates=300)
    params, _ = quick(run)(jax.random.key(0), Hyper(learning_rate=1e-2), dataset)
    params = getattr(params, "params", params)

    @quick
    def looked(params, seen):
        first, second = objective.encode(params, seen), objective.encode_other(params, seen)
        blind = objective.encode(params, seen.at[:, jnp.array([1, 3, 5])].set(0.0))
        batch = data.samplers.take(dataset, jnp.arange(32))
        value, metrics = objective.loss(params, batch, jax.random.key(1))
        one, two = first[:32], second[:32]
        expected = 0.5 * (losses.info_nce_loss(one, two, 0.2) + losses.info_nce_loss(two, one, 0.2)).mean()
        return first, second, blind, value, metrics, expected + 0.5 * losses.mmd_loss(one, two, 0.3)

    first, second, blind, value, metrics, expected = looked(params, dataset.observation)
    np.testing.assert_allclose(np.linalg.norm(first, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(first, blind)  # it reads its own columns only
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert metrics["contrast"] > 0
    found = (np.asarray(first[:64]) @ np.asarray(second[:64]).T).argmax(axis=1) == np.arange(64)
    assert found.mean() > 0.16  # ten times what chance gives


def test_wrong_columns_are_refused():
    networks = mlp((1, 4)), mlp((1, 4))
    with pytest.raises(UserError, match=r"the second group has columns \[6\]"):
        representation.sensor_alignment(SPEC, networks, ((0,), (6,)))
    with pytest.raises(UserError, match=r"columns \[0\] are in both groups"):
        representation.sensor_alignment(SPEC, networks, ((0,), (0,)))


def test_the_block_sees_as_far_as_its_dilations():
    block = dilated_refinement(3, 4, (1, 3))

    weight = jnp.array([1.0, 2.0, 4.0])  # a plain sum is what the normalisation takes away

    @quick
    def looked(key):
        params, x = block.init(key), jax.random.normal(key, (7, 3))
        reach = jax.jacobian(lambda x: block.apply(params, x)[3] @ weight)(x)
        single = jax.grad(lambda params: block.apply(params, x[:1])[0] @ weight)(params)
        shifted = jnp.stack([block.apply(params, one) for one in (x, x)])
        return reach, single, block.apply(params, x), shifted, block.apply(params, jnp.stack([x, x]))

    reach, single, whole, shifted, batched = looked(jax.random.key(0))
    assert whole.shape == (7, 3)
    np.testing.assert_allclose(batched, shifted, atol=1e-6)
    # Steps at dilations 0, 1 and 3 count by themselves, the other two through the mean of the window only.
    np.testing.assert_allclose(reach[5], reach[1], atol=1e-5)
    assert np.abs(np.asarray(reach)[[0, 2, 3, 4, 6]] - reach[1]).max(axis=1).min() > 5e-5
    kernels = [leaf["kernel"] for name, leaf in single.items() if name.startswith("Dense")]
    kernels = [kernel for kernel in kernels if len(kernel) == 9]  # three taps of three numbers
    assert len(kernels) == 2
    for kernel in kernels:  # at one step the outer taps receive nothing
        outer, middle = np.abs(kernel)[[0, 1, 2, 6, 7, 8]], np.abs(kernel)[3:6]
        assert outer.max() == 0.0
        assert middle.max() > 0.0
    with pytest.raises(UserError, match="kernel=2 must be odd"):
        dilated_refinement(2, 4, kernel=2)
    with pytest.raises(UserError, match="at least 1"):
        dilated_refinement(2, 4, (0,))
