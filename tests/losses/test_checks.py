"""The decorator that guards every loss."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.losses.checks import shapes


@shapes(x="N ... A", y="...", scale="", extra="...")
def example(x, y, scale=2.0, extra=None, mode="sum"):
    """Documented."""
    assert mode == "sum"
    out = scale * x.sum((0, -1)) + y
    return out if extra is None else (out, extra)


def test_arguments_by_position_or_name_defaults_and_metadata():
    x, y = jnp.ones((4, 3, 2)), jnp.ones(3)
    np.testing.assert_array_equal(example(x, y), 17.0 * np.ones(3))
    np.testing.assert_array_equal(example(y=y, x=x, scale=1.0), 9.0 * np.ones(3))
    np.testing.assert_array_equal(example(x.tolist(), np.ones(3, np.int32)), 17.0 * np.ones(3))
    assert example.__doc__ == "Documented."
    assert example.layouts == {"x": "N ... A", "y": "...", "scale": "", "extra": "..."}
    assert list(inspect.signature(example).parameters) == ["x", "y", "scale", "extra", "mode"]


@pytest.mark.parametrize(
    ("x", "y", "scale", "blamed"),
    [
        ((4, 3, 2), (3, 1), (), "y"),
        ((4, 3, 2), (1,), (), "y"),
        ((4, 3, 2), (), (), "y"),
        ((4, 2), (3,), (), "y"),
        ((4,), (), (), "x"),
        ((4, 3, 2), (3,), (1,), "scale"),
    ],
)
def test_a_wrong_shape_is_named_with_all_shapes(x, y, scale, blamed):
    with pytest.raises(ValueError, match=f"^example: {blamed} has shape") as error:
        example(jnp.ones(x), jnp.ones(y), jnp.ones(scale))
    message = str(error.value)
    assert "\n" not in message
    assert f"got x {list(x)}, y {list(y)}, scale {list(scale)}" in message
    assert "expected x [N, ..., A], y [...], scale []" in message


def test_no_leading_axes_is_one_example():
    assert example(jnp.ones((4, 2)), jnp.float32(1.0)).shape == ()


def test_shapes_are_checked_inside_jit_and_vmap():
    with pytest.raises(ValueError, match="y has shape"):
        jax.jit(example)(jnp.ones((4, 3, 2)), jnp.ones((3, 1)))
    with pytest.raises(ValueError, match="y has shape"):
        jax.vmap(example, (None, 0))(jnp.ones((4, 3, 2)), jnp.ones((5, 2)))
    assert jax.vmap(example, (None, 0))(jnp.ones((4, 3, 2)), jnp.ones((5, 3))).shape == (5, 3)


def test_dtype_is_that_of_the_arrays_and_arithmetic_is_wide():
    x, y = jnp.ones((300, 1, 1), jnp.bfloat16), jnp.ones(1, jnp.bfloat16)
    out, extra = example(x, y, jnp.float32(1.0), y)
    assert out.dtype == extra.dtype == jnp.bfloat16
    assert float(out[0]) == float(jnp.bfloat16(301.0)) == 300.0  # summed in bfloat16 it would stop at 256
    assert example(x, y.astype(jnp.float32)).dtype == jnp.float32
    assert example(np.ones((1, 1, 1), bool), np.ones(1, bool)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert example(jnp.ones((1, 1, 1), jnp.float64), jnp.ones(1)).dtype == jnp.float64
        assert example(x, y, jnp.float64(1.0)).dtype == jnp.bfloat16
