import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.io import checkpoint


def test_arrays_without_entries_come_back_too(tmp_path):
    """As MJX has them for contacts in a model without any."""
    tree = {
        "contacts": jnp.zeros((3, 0, 2), jnp.int32),
        "key": jax.random.key(4),
        "qpos": jnp.arange(6.0).reshape(3, 2),
        "targets": jnp.zeros((0, 3)),
        "time": jnp.float32(2.5),
    }
    checkpoint.save(tmp_path, 7, tree, {"a": 1})
    step, found, info = checkpoint.restore(tmp_path, lambda info: jax.eval_shape(lambda: tree))
    assert (step, info) == (7, {"a": 1})
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), tree
    )
    assert jax.random.key_data(found["key"]).tolist() == jax.random.key_data(tree["key"]).tolist()
    np.testing.assert_array_equal(found["qpos"], tree["qpos"])
    assert found["time"] == 2.5
    with pytest.raises(UserError, match="has 3 arrays, the run needs 4"):
        checkpoint.restore(tmp_path, lambda info: {**tree, "targets": jnp.zeros((1, 3))})
