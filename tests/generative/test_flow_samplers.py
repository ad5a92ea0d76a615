import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from tests.generative.targets import carry, distance, exact_average_velocity, normal_quantiles, quantiles

COUNTS = (1, 2, 3, 5, 10)


def distances(counts, method, last_euler=False):
    """Errors of several step counts by one program: steps of no length at the start change nothing."""
    most = max(counts)
    grids = np.stack([np.concatenate([np.ones(most - n), np.linspace(1.0, 0.0, n + 1)]) for n in counts])
    ends = jax.vmap(lambda times: carry(normal_quantiles(), times, method, last_euler))(grids)
    return [distance(x, quantiles()) for x in ends]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("method", "last_euler", "wanted"),
    [("euler", False, (0.682, 0.344, 0.188, 0.117, 0.058)), ("heun", True, (0.682, 0.246, 0.093, 0.053, 0.0147))],
)
def test_distance_after_few_steps(method, last_euler, wanted):
    np.testing.assert_allclose(distances(COUNTS, method, last_euler), wanted, atol=1.5e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("method", "order", "tolerance"),
    [("euler", 1.0, 0.05), ("midpoint", 2.0, 0.15), ("heun", 2.0, 0.15), ("rk4", 4.0, 0.4)],
)
def test_order_of_convergence(method, order, tolerance):
    coarse, fine = distances((40, 80), method)
    assert np.log2(coarse / fine) == pytest.approx(order, abs=tolerance)


@pytest.mark.usefixtures("x64")
def test_one_jump_of_the_exact_average_velocity_is_the_quantile_map():
    z = np.asarray(normal_quantiles(64))

    @jax.jit
    def run(z):
        one = g.jump(exact_average_velocity, z, g.flow_times(1))
        two = g.jump(exact_average_velocity, z, np.array([1.0, 0.3, 0.0]))
        # Two half jumps equal a whole one.
        t, d = jnp.full(64, 0.8), jnp.full(64, 0.25)
        first = exact_average_velocity(z, t - d, t)
        second = exact_average_velocity(z - d[:, None] * first, t - 2 * d, t - d)
        whole = exact_average_velocity(z, t - 2 * d, t)
        return one, two, whole - 0.5 * (first + second)

    one, two, gap = run(z)
    np.testing.assert_allclose(one, quantiles(count=64), atol=1e-11)
    np.testing.assert_allclose(two, one, atol=1e-11)
    np.testing.assert_allclose(gap, 0.0, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_gradients_through_flows_are_finite_and_right():
    times = np.array([1.0, 0.6, 0.3, 0.0])

    def velocity(theta, z, t):
        return theta[0] * z + jnp.tanh(theta[1] * z + theta[2] * t[:, None])

    def total(theta, method):
        z = jnp.linspace(-1.0, 1.0, 3)[:, None]
        if method == "jump":
            return g.jump(lambda z, r, t: velocity(theta, z, t + 2 * r), z, times).sum()
        name, *last = method.split()
        field = functools.partial(velocity, theta)
        return g.integrate(field, z, times, method=name, last_euler=bool(last)).sum()

    methods = (*g.METHODS, "heun last", "jump")
    run = jax.jit(lambda theta: {m: jax.value_and_grad(total)(theta, m) for m in methods})
    theta = np.array([0.7, 0.4, -0.2])
    steps = [(run(theta + h), run(theta - h)) for h in 1e-5 * np.eye(3)]
    for method, (_, slope) in run(theta).items():
        finite = [float(up[method][0] - down[method][0]) / 2e-5 for up, down in steps]
        np.testing.assert_allclose(slope, finite, rtol=1e-4, err_msg=method)


def test_members_equal_single_runs_and_compile_once():
    traces = []

    def run(key, scale):
        traces.append(None)
        z = jax.random.normal(key, (4, 2))
        ends = {m: g.integrate(lambda z, t: scale * jnp.tanh(z), z, g.flow_times(3), method=m) for m in g.METHODS}
        return ends | {"jump": g.jump(lambda z, r, t: scale * jnp.tanh(z), z, g.flow_times(3))}

    keys, scales = jax.random.split(jax.random.key(0), 8), np.linspace(0.1, 1.0, 8, dtype=np.float32)
    together = jax.jit(jax.vmap(run))(keys, scales)
    traces.clear()
    single = jax.jit(run)
    for member in range(8):
        for name, x in single(keys[member], scales[member]).items():
            np.testing.assert_allclose(together[name][member], x, rtol=2e-6, atol=2e-6, err_msg=name)
    assert len(traces) == 1


def test_guides_and_clipping():
    z = jnp.array([[3.0], [-3.0]])

    @jax.jit
    def run(z):
        def still(z, t):
            return jnp.zeros_like(z)

        def outwards(z, r, t):
            return -10.0 * jnp.sign(z)

        def push(z, t, index):
            return jnp.full_like(z, 1.0) * index

        return (
            g.integrate(still, z, g.flow_times(3), guide=push),
            g.integrate(still, z, g.flow_times(1), guide=g.clip_each_step(-1.0, 1.0)),
            g.jump(outwards, z, g.flow_times(2), guide=g.clip_each_step(-1.0, 1.0)),
        )

    pushed, untouched, clipped = run(z)
    np.testing.assert_allclose(pushed, z + 0.0 + 1.0 + 2.0)
    np.testing.assert_allclose(untouched, z)  # the starting noise is not clipped
    np.testing.assert_allclose(clipped, jnp.sign(z) * 6.0)  # clipped between steps, not at the end


def test_unknown_integrators_are_refused():
    with pytest.raises(ValueError, match="known: euler"):
        g.integrate(lambda z, t: z, jnp.ones((2, 1)), g.flow_times(2), method="rk45")
