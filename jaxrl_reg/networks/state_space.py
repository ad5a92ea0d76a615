"""Mamba: a linear recurrence over time whose step depends on the input; all at once for learning, by step for acting.

``E`` inner channels, ``N`` numbers of memory per channel, ``T`` time, ``D`` width of a token.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.errors import unknown
from jaxrl_reg.types import Array, Key, PyTree

METHODS = ("auto", "associative", "sequential")


def selective_scan(
    u: Array, dt: Array, decay: Array, write: Array, read: Array, skip: Array, method: str = "auto"
) -> Array:
    """``x_t = exp(dt_t decay) x_(t-1) + dt_t write_t u_t`` from ``x_0 = 0``, and of it ``y_t = read_t x_t + skip u_t``.

    Args:
      u: ``[..., T, E]`` input.
      dt: ``[..., T, E]`` > 0, how much of it enters; a large one also forgets more.
      decay: ``[E, N]`` < 0, the matrix A.
      write: ``[..., T, N]``, the input-dependent B.
      read: ``[..., T, N]``, the input-dependent C.
      skip: ``[E]``, the vector D.
      method: ``associative``: log2 T rounds over all steps at once, for accelerators; ``sequential``: step after step
        and only ``x`` kept for the gradient, four times cheaper on a CPU; ``auto``: the one for the platform.

    Returns:
      ``[..., T, E]``; step ``t`` depends on steps up to ``t`` alone.

    Raises:
      UserError: for an unknown method.

    Source: Gu and Dao, 2023, Mamba (algorithm 2, with the simplified input step of their code).
    """
    if method not in METHODS:
        raise unknown("scan method", method, METHODS)
    arguments = (u, dt, decay, write, read)
    if method == "auto":
        y = jax.lax.platform_dependent(*arguments, cpu=_sequential, default=_associative)
    else:
        y = (_sequential if method == "sequential" else _associative)(*arguments)
    return y + skip * u


def _moved(x: Array, u: Array, dt: Array, decay: Array, write: Array) -> Array:
    """One step of the memory ``[..., E, N]``."""
    return jnp.exp(dt[..., None] * decay) * x + (dt * u)[..., None] * write[..., None, :]


def _seen(x: Array, read: Array) -> Array:
    return (x * read[..., None, :]).sum(axis=-1)


def _sequential(u: Array, dt: Array, decay: Array, write: Array, read: Array) -> Array:
    @jax.checkpoint
    def step(x, inputs):
        u, dt, write, read = inputs
        x = _moved(x, u, dt, decay, write)
        return x, _seen(x, read)

    by_time = [jnp.moveaxis(array, -2, 0) for array in (u, dt, write, read)]
    start = jnp.zeros((*u.shape[:-2], *decay.shape))
    return jnp.moveaxis(jax.lax.scan(step, start, by_time)[1], 0, -2)


def _associative(u: Array, dt: Array, decay: Array, write: Array, read: Array) -> Array:
    def then(first, second):
        (a, b), (c, d) = first, second
        return a * c, c * b + d

    steps = jnp.exp(dt[..., None] * decay), (dt * u)[..., None] * write[..., None, :]  # [..., T, E, N]
    return _seen(jax.lax.associative_scan(then, steps, axis=u.ndim - 2)[1], read)


class MambaMixer(nn.Module):
    """``[..., T, D] -> [..., T, D]``, each step from those up to it; ``step`` is the same one by one.

    A causal convolution of ``kernel`` steps per channel, the selective scan, a gate. ``E = expand D``.
    """

    width: int
    state_size: int = 16
    expand: int = 2
    kernel: int = 4

    @property
    def inner(self) -> int:
        """``E``."""
        return self.expand * self.width

    def start(self, shape: tuple[int, ...]) -> PyTree:
        """The memory before the first step, of sequences ``shape`` side by side; needs no parameters."""
        return jnp.zeros((*shape, self.kernel - 1, self.inner)), jnp.zeros((*shape, self.inner, self.state_size))

    def setup(self):
        zeros = nn.initializers.zeros  # ``filled`` replaces them all
        self.rank = math.ceil(self.width / 16)
        self.inward = nn.Dense(2 * self.inner, use_bias=False)
        self.taps = self.param("taps", zeros, (self.kernel, self.inner))
        self.tap_bias = self.param("tap_bias", zeros, (self.inner,))
        self.select = nn.Dense(self.rank + 2 * self.state_size, use_bias=False)
        self.rate = nn.Dense(self.inner, use_bias=False)
        self.rate_bias = self.param("rate_bias", zeros, (self.inner,))
        self.log_decay = self.param("log_decay", zeros, (self.inner, self.state_size))
        self.skip = self.param("skip", zeros, (self.inner,))
        self.outward = nn.Dense(self.width, use_bias=False)

    def _selected(self, u: Array) -> tuple[Array, Array, Array]:
        rank, write, read = jnp.split(self.select(u), [self.rank, self.rank + self.state_size], axis=-1)
        return jax.nn.softplus(self.rate(rank) + self.rate_bias), write, read

    def __call__(self, x: Array) -> Array:
        # A barrier, else an H100's compiler takes the joining of both gradients into the product, and finds no tiles.
        u, gate = jnp.split(jax.lax.optimization_barrier(self.inward(x)), 2, axis=-1)
        time = u.shape[-2]
        padded = jnp.pad(u, [(0, 0)] * (u.ndim - 2) + [(self.kernel - 1, 0), (0, 0)])
        shifted = (padded[..., k : k + time, :] * self.taps[k] for k in range(self.kernel))
        u = jax.nn.silu(sum(shifted, self.tap_bias))
        dt, write, read = self._selected(u)
        y = selective_scan(u, dt, -jnp.exp(self.log_decay), write, read, self.skip)
        return self.outward(y * jax.nn.silu(gate))

    def step(self, memory: PyTree, x: Array) -> tuple[PyTree, Array]:
        """One step ``x [..., D]``; returns the memory and ``[..., D]``."""
        recent, state = memory
        u, gate = jnp.split(self.inward(x), 2, axis=-1)
        recent = jnp.concatenate([recent, u[..., None, :]], axis=-2)
        u = jax.nn.silu((recent * self.taps).sum(axis=-2) + self.tap_bias)
        dt, write, read = self._selected(u)
        state = _moved(state, u, dt, -jnp.exp(self.log_decay), write)
        y = _seen(state, read) + self.skip * u
        return (recent[..., 1:, :], state), self.outward(y * jax.nn.silu(gate))


def filled(shapes: PyTree, key: Key) -> PyTree:
    """Initial parameters of a sequence model, given their shapes, by their name.

    Matrices are uniform with variance 1 / fan in, embeddings with standard deviation 0.02, the taps of a convolution
    within 1 / sqrt(kernel); gains are 1, biases 0. ``decay`` starts at -1 ... -N in each channel, and the bias of
    ``dt`` so that steps are log-uniform in [0.001, 0.1]. All random numbers are cut from one vector: a generator for
    each leaf makes the program of ``init`` many times larger.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    numbers = jax.random.uniform(key, (sum(math.prod(leaf.shape) for _, leaf in leaves),), minval=-1.0)
    values, start = [], 0
    for path, leaf in leaves:
        size = math.prod(leaf.shape)
        u = numbers[start : start + size].reshape(leaf.shape)
        start += size
        values.append(_initial(path[-1].key, u))
    return jax.tree.unflatten(structure, values)


def _initial(name: str, u: Array) -> Array:
    if name == "kernel":
        return math.sqrt(3.0 / u.shape[-2]) * u
    if name == "taps":
        return u / math.sqrt(u.shape[-2])
    if name == "embedding":
        return 0.02 * math.sqrt(3.0) * u
    if name in ("scale", "skip"):
        return jnp.ones_like(u)
    if name in ("bias", "tap_bias"):
        return jnp.zeros_like(u)
    if name == "log_decay":
        return jnp.broadcast_to(jnp.log(jnp.arange(1.0, u.shape[-1] + 1.0)), u.shape)
    if name == "rate_bias":
        dt = jnp.exp(math.log(1e-2) + 0.5 * math.log(1e2) * u)
        return dt + jnp.log(-jnp.expm1(-dt))  # what softplus maps to dt
    raise ValueError(f"no initial value for a parameter called {name!r}")
