"""Denoisers of plans: every input matters where it should, and nothing that is masked does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.networks import plans
from jaxrl_reg.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
CHUNK, HISTORY, ROWS = 2, 3, 4
LENGTH = HISTORY - 1 + CHUNK
RNG = np.random.default_rng(0)
SHAPES = ((LENGTH, 2), (LENGTH,), (HISTORY, 3), (HISTORY,), (3,), ())
INPUTS = [RNG.normal(size=(ROWS, *shape)).astype(np.float32) for shape in SHAPES]
INPUTS[3], INPUTS[5] = np.ones((ROWS, HISTORY), np.float32), np.ones(ROWS, np.float32)
NETWORKS = {
    "mlp": plans.plan_mlp(SPEC, CHUNK, HISTORY, (16,)),
    "transformer": plans.plan_transformer(SPEC, CHUNK, HISTORY, width=8, layers=1, heads=2, dropout=0.5),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def applied(name):
    """The network compiled, and parameters large enough that no influence hides below rounding."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + rng.normal(0.0, 0.4, leaf.shape).astype(np.float32),
        jax.device_get(jax.jit(NETWORKS[name].init)(jax.random.key(0))),
    )
    return jax.jit(NETWORKS[name].apply), params


def changed(name, place, index, inputs=INPUTS):
    """The greatest change of each action, [L], when one entry of one input changes."""
    other = [x.copy() for x in inputs]
    other[place][index] += 1.0
    apply, params = applied(name)
    out = apply(params, *inputs)
    assert out.shape == inputs[0].shape
    return np.abs(np.asarray(apply(params, *other)) - out).max(axis=(0, 2))


@every_network
def test_every_input_matters_for_the_actions_to_come(name):
    for place, index in (
        (0, (0, 0)),
        (0, (0, 2)),
        (0, (0, 3)),
        (1, (0, slice(2, None))),
        (2, (0, 0)),
        (2, (0, 2)),
        (4, 0),
    ):
        assert changed(name, place, index)[HISTORY - 1 :].max() > 1e-4, (place, index)


@every_network
def test_steps_that_did_not_take_place_and_goals_that_are_not_given_do_not(name):
    inputs = [x.copy() for x in INPUTS]
    inputs[3][:, 0] = 0.0
    inputs[5][:] = 0.0
    for place, index in ((0, (0, 0)), (1, (0, 0)), (2, (0, 0)), (4, 0)):
        assert changed(name, place, index, inputs)[HISTORY - 1 :].max() == 0.0, (place, index)
    assert changed(name, 3, (0, 0), inputs).max() > 1e-5  # whether a step took place is itself seen
    assert changed(name, 5, 0, inputs).max() > 1e-5


def test_the_transformer_is_causal_and_denoises_the_actions_to_come_together():
    state, action, plan = 2, 0, LENGTH - 1
    assert (changed("transformer", state, (0, 1))[:1] == 0).all()  # the first action precedes the second state
    assert changed("transformer", state, (0, 1))[1] > 1e-4
    assert (changed("transformer", action, (0, 1))[:1] == 0).all()
    assert changed("transformer", action, (0, plan))[plan - 1] > 1e-4  # the earlier of the two sees the later
    assert (changed("transformer", action, (0, plan))[: HISTORY - 1] == 0).all()


def test_dropout_needs_a_key_and_wrong_shapes_are_named():
    network, (_, params) = NETWORKS["transformer"], applied("transformer")
    both = jax.jit(lambda: (network.apply(params, *INPUTS), network.apply(params, *INPUTS, key=jax.random.key(0))))
    plain, dropped = both()
    assert not np.allclose(plain, dropped)
    for wrong in NETWORKS.values():
        with pytest.raises(ValueError, match=r"expected actions \[B, 4, 2\]"):
            jax.eval_shape(lambda n=wrong: n.apply(n.init(jax.random.key(0)), jnp.zeros((4, 3, 2)), *INPUTS[1:]))
