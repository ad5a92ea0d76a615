"""NumPy in float64, written apart from the package: perceptrons with their backward pass, Adam, and a fixed batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_reg import agents
from jaxrl_reg.contract.subject import quick
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


def normal(key, shape):
    """What the package draws from ``key``."""
    return np.asarray(jax.random.normal(key, shape), np.float64)


def squashed(params, observation, noise):
    """Action and log-density of the tanh-normal policy whose network is ``forward``, with the given standard noise."""
    mean, log_std = np.split(forward(params, observation)[0], 2, -1)
    log_std = np.clip(log_std, -5, 2)
    u = mean + np.exp(log_std) * noise
    slope = np.log(np.maximum(1 - np.tanh(u) ** 2, 1e-300))
    return np.tanh(u), (-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - slope).sum(-1)


def crossing(state, data, q=q_values):
    """Both members' ``state``, the second critic moved so that each is the smaller on some rows of ``data``."""
    batch, critic = as64(data), state.critic.params
    values = q(as64(member(critic, 1)), batch.observation, batch.action)
    last = f"Dense_{sum(name.startswith('Dense') for name in critic) - 1}"
    bias = critic[last]["bias"].at[..., 1, :].add((values[0] - values[1]).mean())
    critic = {**critic, last: {**critic[last], "bias": bias}}
    return state._replace(critic=state.critic._replace(params=critic), target_critic=critic)


def mixed(values):
    """``values [2, B]``, having made sure that each is the smaller on some rows: minimum and first then differ."""
    first = (values[0] < values[1]).mean()
    assert 0.0 < first < 1.0
    return values


def check_descent(before, after, loss, count, rate, decay=0.0, tolerance=1e-4):
    """``after`` is one Adam step from ``before`` along the gradient of ``loss(params)``, found by differences.

    The gradient is read off Adam's first moment and compared along random directions, so that no backward pass is
    shared. ``decay`` is AdamW's.
    """
    old, new = (as64(optax.tree_utils.tree_get(model.opt_state, "mu")) for model in (before, after))
    gradient = jax.tree.map(lambda m, n: (n - 0.9 * m) / 0.1, old, new)
    params = as64(before.params)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        direction = jax.tree.map(lambda leaf, rng=rng: rng.normal(size=leaf.shape), params)
        ends = [loss(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction)) for h in (1e-6, -1e-6)]
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=tolerance, atol=tolerance / 5)
    moments = old, as64(optax.tree_utils.tree_get(before.opt_state, "nu"))
    moved, _ = adam(params, gradient, moments, count, rate)
    moved = jax.tree.map(lambda p, start: p - rate * decay * start, moved, params)
    # Where a gradient is nearly 0 Adam divides rounding by rounding; 1e-5 is a thousandth of a step.
    assert_tree_close(after.params, moved, rate / 1000)


def slopes(loss, params):
    """The gradient of ``loss(params)`` by differences, number by number: for tiny networks."""
    leaves, tree = jax.tree.flatten(as64(params))
    found = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, slope in zip(leaves, found, strict=True):
        for index in np.ndindex(leaf.shape):
            here, ends = leaf[index], []
            for h in (1e-6, -1e-6):
                leaf[index] = here + h
                ends.append(loss(tree.unflatten(leaves)))
            leaf[index] = here
            slope[index] = (ends[0] - ends[1]) / 2e-6
    return tree.unflatten(found)


@functools.cache
def _programs(name, config):
    agent = agents.make(name, SPEC, hidden=HIDDEN, **dict(config))
    init = quick(jax.vmap(agent.init, in_axes=(None, 0)))
    # Keys and hyperparameters differ between members; the batch and the step are shared.
    update = quick(jax.vmap(agent.update, in_axes=(0, None, 0, 0, None)))
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

    def edit(self, change):
        """Both members' state through ``change(stacked state)``."""
        self._state = change(self._state)

    @property
    def state(self):
        return member(self._state, 1)

    @property
    def still(self):
        """``(before, after)`` of the member whose learning rates are 0."""
        return member(self.first, 0), member(self._state, 0)
