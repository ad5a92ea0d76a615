"""NumPy in float64, written apart from the package: perceptrons with their backward pass, Adam, and a fixed batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import agents
from jaxrl_reg.types import Spec, Transition, as_float32

SPEC = Spec(observation_dim=3, action_dim=2)
HIDDEN = (8, 8)
B = 16


def batch(seed=0):
    """Rows with recorded actions inside and at the edge of the range, a few terminations, next actions and ranks."""
    rng = np.random.default_rng(seed)
    action = np.tanh(rng.normal(size=(B, 2)))
    action[0], action[1, 0] = [1.0, -1.0], 1.0
    arrays = {
        "observation": rng.normal(size=(B, 3)),
        "action": action,
        "reward": rng.normal(size=B),
        "discount": (np.arange(B) % 5 > 0).astype(float),
        "next_observation": rng.normal(size=(B, 3)),
        "last": (np.arange(B) % 4 == 0).astype(float),
        "next_action": np.tanh(rng.normal(size=(B, 2))),
        "return_rank": rng.permutation(np.linspace(0.0, 1.0, B)),
    }
    return Transition(**{name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()})


def as64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def flat(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(as64(tree))}


def member(params, i):
    """One network of a stacked ensemble."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], params)


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def normalised(params, x):
    """LayerNorm."""
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * params["scale"] + params["bias"]


def forward(params, x, norm="every"):
    """A ReLU perceptron with a linear output; returns (y, inputs).

    LayerNorm, if there is any, after each activation, ``before`` each, or with ``first_tanh`` in the first layer, whose
    activation then is tanh.
    """
    layers = sum(name.startswith("Dense") for name in params)
    inputs = []
    for i in range(layers):
        inputs.append(x)
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        if i < layers - 1:
            scaled = params.get(f"LayerNorm_{i}")
            if scaled is not None and norm != "every":
                x = normalised(scaled, x)
            x = np.tanh(x) if norm == "first_tanh" and i == 0 else np.maximum(x, 0.0)
            if scaled is not None and norm == "every":
                x = normalised(scaled, x)
    return x, inputs


def backward(params, inputs, dy):
    """Gradients of the parameters and of the input, given that of the output. Without LayerNorm."""
    gradients = {}
    for i in reversed(range(len(inputs))):
        gradients[f"Dense_{i}"] = {"kernel": inputs[i].T @ dy, "bias": dy.sum(0)}
        dy = dy @ params[f"Dense_{i}"]["kernel"].T
        if i > 0:
            dy = dy * (inputs[i] > 0)
    return gradients, dy


def q_values(params, observation, action):
    """``[N, ...]`` from stacked parameters."""
    x = np.concatenate([observation, action], -1)
    members = next(iter(jax.tree.leaves(params))).shape[0]
    return np.stack([forward(member(params, i), x)[0][..., 0] for i in range(members)])


def adam(params, gradients, moments, count, learning_rate):
    """``(params, moments)`` after update number ``count`` (from 1)."""
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments[1], gradients)

    def move(p, m, v):
        return p - learning_rate * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)

    return jax.tree.map(move, params, first, second), (first, second)


def zeros(params):
    return tuple(jax.tree.map(np.zeros_like, params) for _ in range(2))


def mix(online, target, rate):
    return jax.tree.map(lambda new, old: rate * new + (1 - rate) * old, online, target)


def assert_tree_close(actual, expected, atol):
    actual, expected = flat(actual), flat(expected)
    assert actual.keys() == expected.keys()
    for name in actual:
        np.testing.assert_allclose(actual[name], expected[name], atol=atol, rtol=0, err_msg=name)


@functools.cache
def _programs(name, config):
    agent = agents.make(name, SPEC, hidden=HIDDEN, **dict(config))
    init = jax.jit(jax.vmap(agent.init, in_axes=(None, 0)))
    # Keys and hyperparameters differ between members; the batch and the step are shared.
    update = jax.jit(jax.vmap(agent.update, in_axes=(0, None, 0, 0, None)))
    return agent, init, update


class Pair:
    """Two members of a population, compiled once per agent and ``config``: all learning rates 0, and ``rate``."""

    def __init__(self, name, rate, config=None, **changes):
        self.agent, init, self._update = _programs(name, tuple(sorted((config or {}).items())))
        hyper = as_float32(agents.load(name).Hyper())
        rates = [field.name for field in dataclasses.fields(hyper) if field.name.endswith("learning_rate")]
        for field, value in {**changes, **dict.fromkeys(rates, rate)}.items():
            hyper = dataclasses.replace(hyper, **{field: jnp.float32(value)})
        still = dataclasses.replace(hyper, **dict.fromkeys(rates, jnp.float32(0.0)))
        self.hyper, self._hypers = hyper, jax.tree.map(lambda *leaves: jnp.stack(leaves), still, hyper)
        self._state = self.first = init(jax.random.key(0), self._hypers)

    def update(self, data, key, step):
        """Update both; returns the metrics of the one that learns."""
        self._state, metrics = self._update(self._state, data, self._hypers, jnp.stack([key, key]), jnp.int32(step))
        return {name: np.asarray(values)[1] for name, values in metrics.items()}

    @property
    def state(self):
        return member(self._state, 1)

    @property
    def still(self):
        """``(before, after)`` of the member whose learning rates are 0."""
        return member(self.first, 0), member(self._state, 0)
