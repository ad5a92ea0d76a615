"""Continual backprop against NumPy written from the paper's algorithm, one unit at a time, and on its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg import networks, transforms
from tests.agents import reference as ref

SIZES, N, B = (3, 5, 4, 2), 2, 6
RATE, MATURITY, DECAY = 0.17, 2, 0.9  # no multiple of the rate is whole: rounding decides nothing
NETWORK = networks.ensemble(networks.mlp(SIZES), N)
OPTIMISER = optax.adam(1e-2)


def outputs(params, x):
    return NETWORK.apply(params, x, features="all")


@jax.jit
def step(params, opt_state, usage, x, key, rate):
    """An optimiser step on the mean square of the outputs, then continual backprop."""
    gradients = jax.grad(lambda p: jnp.square(NETWORK.apply(p, x)).mean())(params)
    changes, opt_state = OPTIMISER.update(gradients, opt_state, params)
    params = before = optax.apply_updates(params, changes)
    usage = transforms.utility_step(params, usage, outputs(params, x)[1], DECAY)
    fresh = NETWORK.init(key)
    found = transforms.replace_units(params, opt_state, usage, fresh, rate, MATURITY, DECAY)
    return before, opt_state, fresh, found


class Loops:
    """One network of the ensemble, unit by unit."""

    def __init__(self):
        widths = SIZES[1:-1]
        self.utility, self.mean = ([np.zeros(d) for d in widths] for _ in range(2))
        self.age, self.owed = [np.zeros(d, int) for d in widths], [0.0 for _ in widths]

    def replace(self, params, fresh, moments, x):
        """Moves ``params`` and ``moments`` (trees of NumPy arrays) in place; the units that were replaced."""
        hidden = ref.forward(params, x)[1][1:]
        replaced = []
        for layer, h in enumerate(hidden):
            into, out = params[f"Dense_{layer}"]["kernel"], params[f"Dense_{layer + 1}"]["kernel"]
            for i in range(h.shape[1]):
                self.age[layer][i] += 1
                rest = 1 - DECAY ** self.age[layer][i]
                self.mean[layer][i] = DECAY * self.mean[layer][i] + (1 - DECAY) * h[:, i].mean()
                contribution = np.mean([abs(value - self.mean[layer][i] / rest) for value in h[:, i]])
                worth = contribution * np.mean(np.abs(out[i])) / np.mean(np.abs(into[:, i]))
                self.utility[layer][i] = DECAY * self.utility[layer][i] + (1 - DECAY) * worth
            grown = [i for i in range(h.shape[1]) if self.age[layer][i] > MATURITY]
            self.owed[layer] += RATE * len(grown)
            if self.owed[layer] >= 1 and grown:
                self.owed[layer] -= 1
                least = min(grown, key=lambda i: self.utility[layer][i] / (1 - DECAY ** self.age[layer][i]))
                replaced.append((layer, least))
        old = {name: part["kernel"].copy() for name, part in params.items()}
        for layer, i in replaced:  # all biases first: the kernels are those of before
            constant = self.mean[layer][i] / (1 - DECAY ** self.age[layer][i])
            params[f"Dense_{layer + 1}"]["bias"] += constant * old[f"Dense_{layer + 1}"][i]
        for layer, i in replaced:
            for tree, source in ((params, fresh), *((one, None) for one in moments)):
                tree[f"Dense_{layer}"]["kernel"][:, i] = (
                    0 if source is None else source[f"Dense_{layer}"]["kernel"][:, i]
                )
                tree[f"Dense_{layer}"]["bias"][i] = 0
            self.utility[layer][i] = self.mean[layer][i] = self.age[layer][i] = 0
        for layer, i in replaced:
            for tree in (params, *moments):
                tree[f"Dense_{layer + 1}"]["kernel"][i] = 0
        return replaced


def test_continual_backprop_equals_numpy():
    params = NETWORK.init(jax.random.key(0))
    opt_state, usage, loops, seen = OPTIMISER.init(params), transforms.usage_start(params), [Loops(), Loops()], []
    for number in range(9):
        x = np.random.default_rng(number).normal(size=(B, 3)).astype(np.float32)
        before, between, fresh, found = step(params, opt_state, usage, x, jax.random.key(number), RATE)
        params, opt_state, usage = found
        for n, one in enumerate(loops):
            expected, new, *moments = (
                ref.as64(ref.member(tree, n)) for tree in (before, fresh, between[0].mu, between[0].nu)
            )
            expected, *moments = (jax.tree.map(np.copy, tree) for tree in (expected, *moments))
            seen += [(number, n, *unit) for unit in one.replace(expected, new, moments, x)]
            for got, wanted in ((params, expected), (opt_state[0].mu, moments[0]), (opt_state[0].nu, moments[1])):
                for name, leaf in ref.flat(ref.member(got, n)).items():
                    np.testing.assert_allclose(leaf, ref.flat(wanted)[name], rtol=1e-4, atol=1e-6, err_msg=name)
            for layer, was in enumerate(usage):
                np.testing.assert_array_equal(was.age[n], one.age[layer])
                np.testing.assert_allclose(was.utility[n], one.utility[layer], rtol=1e-4, atol=1e-7)
                np.testing.assert_allclose(was.owed[n], one.owed[layer], atol=1e-5)
        assert opt_state[0].count == number + 1
    assert len(seen) >= 8  # both networks, both layers
    assert len({unit[1:3] for unit in seen}) == 4
    assert min(unit[0] for unit in seen) > MATURITY  # nobody is replaced in its youth


def test_the_output_moves_by_what_varies_alone():
    """A unit that always says the same can go without any change of the output."""
    network = networks.mlp((3, 3, 1))
    params = network.init(jax.random.key(1))
    kernel = params["Dense_0"]["kernel"].at[:, 1].set(jnp.array([0.0, 0.0, 2.0]))  # unit 1 reads what never varies
    params = {**params, "Dense_0": {"kernel": kernel, "bias": jnp.array([3.0, 0.0, 3.0])}}
    x = jax.random.normal(jax.random.key(2), (7, 3)).at[:, 2].set(1.0)
    usage = transforms.usage_start(params)
    for _ in range(3):
        usage = transforms.utility_step(params, usage, network.apply(params, x, features="all")[1])
    after, _, usage = transforms.replace_units(params, (), usage, network.init(jax.random.key(3)), 0.4, maturity=2)
    np.testing.assert_array_equal(usage[0].age, [3, 0, 3])  # a rate of 0.4 and three units: one is due
    np.testing.assert_allclose(usage[0].owed, 0.2, atol=1e-6)
    np.testing.assert_allclose(network.apply(after, x), network.apply(params, x), atol=1e-5)
    assert after["Dense_1"]["kernel"][1] == 0.0
    absorbed = params["Dense_1"]["bias"] + 2.0 * params["Dense_1"]["kernel"][1]
    np.testing.assert_allclose(after["Dense_1"]["bias"], absorbed, rtol=1e-4)


def test_nothing_is_due_without_a_rate_or_before_maturity():
    network = networks.mlp((2, 3, 1))
    params = network.init(jax.random.key(1))
    old = tuple(one._replace(age=jnp.full(3, 50.0)) for one in transforms.usage_start(params))
    for rate, maturity in ((0.0, 10), (1.0, 50)):
        after, _, usage = transforms.replace_units(params, (), old, params, rate, maturity)
        for a, b in zip(jax.tree.leaves((after, usage[0].age)), jax.tree.leaves((params, old[0].age)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_dead_inputs_and_new_units_make_no_nan():
    network = networks.mlp((2, 3, 1))
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(1)))
    usage = transforms.usage_start(params)
    _, _, untouched = transforms.replace_units(params, (), usage, params, 1.0, 0)  # ages of 0
    stepped = transforms.utility_step(params, usage, [jnp.ones((4, 3))], 0.99)
    np.testing.assert_array_equal(stepped[0].utility, 0.0)
    for tree in (untouched, stepped, transforms.replace_units(params, (), stepped, params, 1.0, 0)):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_other_numbers_of_layers_are_named():
    params = networks.mlp((2, 3, 1)).init(jax.random.key(0))
    usage = transforms.usage_start(params)
    with pytest.raises(ValueError, match="utility_step: 2 layers of outputs for 1 hidden"):
        transforms.utility_step(params, usage, [jnp.zeros((4, 3))] * 2)
    with pytest.raises(ValueError, match="replace_units: usage of 2 layers for 1 hidden"):
        transforms.replace_units(params, (), usage * 2, params, 0.1)
    with pytest.raises(ValueError, match="recycle: 0 scores for 1 hidden"):
        transforms.recycle(params, (), [], params, 0.1)
