import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from tests.generative.targets import bimodal, exact_average_velocity

KEY = 0
POINT = np.array([0.5, -1.5, 2.0], np.float32)  # when every clean sample is this point, perfect networks are known
ROWS = np.broadcast_to(POINT, (16, 3))
TARGETS = ("eps", "x0", "v", "velocity", "score")


def perfect_ddpm(kind, betas, offset=0.0):
    alpha, sigma = g.vp_coefficients(betas)

    def network(x, t):
        a, s = alpha[t][:, None], sigma[t][:, None]
        x0 = jnp.broadcast_to(POINT, x.shape)
        return g.training_target(kind, x0, (x - a * POINT) / s, alpha[t], sigma[t]) + offset

    return network


def perfect_edm(offset=0.0):
    def network(scaled, noise):
        c = g.edm_preconditioning(jnp.exp(4 * noise), 0.7)
        scale, skip, out = (v.reshape(v.shape + (1,) * (scaled.ndim - v.ndim)) for v in (c.scale, c.skip, c.out))
        return (POINT - skip * scaled / scale) / out + offset

    return network


def perfect_flow(offset=0.0):
    return lambda z, t: (z - POINT) / t[:, None] + offset


def test_perfect_networks_have_no_loss_and_shifted_ones_the_square_of_the_shift():
    @jax.jit
    def run(key, offset):
        betas = g.vp_betas(5)
        made = {k: g.ddpm_loss(key, perfect_ddpm(k, betas, offset), ROWS, betas, target=k) for k in TARGETS}
        made["edm"] = g.edm_loss(key, perfect_edm(offset), ROWS, sigma_data=0.7)
        tokens = jnp.broadcast_to(POINT, (4, 5, 3))
        made["edm tokens"] = g.edm_loss(key, perfect_edm(offset), tokens, sigma_data=0.7, level_axes=2)
        made["flow"] = g.flow_matching_loss(key, perfect_flow(offset), ROWS)
        return made

    for name, (loss, aux) in run(jax.random.key(KEY), 0.0).items():
        np.testing.assert_allclose(loss, 0.0, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(aux["x0"], np.broadcast_to(POINT, aux["x0"].shape), atol=1e-2, err_msg=name)
        assert loss.shape == aux["x0"].shape[:1]
    shifted = run(jax.random.key(KEY), 0.3)
    for name, (loss, _) in shifted.items():
        np.testing.assert_allclose(loss, 0.09, atol=1e-2, err_msg=name)
    assert shifted["edm tokens"][1]["level"].shape == (4, 5)
    levels = np.asarray(shifted["eps"][1]["level"])
    assert set(levels) == set(range(5))  # every step is drawn, both ends included


@pytest.mark.usefixtures("x64")
def test_smallest_losses_on_normal_data_are_the_known_ones():
    rows = 20_000

    @jax.jit
    def run(key):
        key_data, key = jax.random.split(key)
        x0, betas = jax.random.normal(key_data, (rows, 1)), g.vp_betas(5)
        alpha, sigma = g.vp_coefficients(betas)
        ddpm, _ = g.ddpm_loss(key, lambda x, t: sigma[t][:, None] * x, x0, betas)
        edm, _ = g.edm_loss(key, lambda x, noise: jnp.zeros_like(x), x0, sigma_data=1.0)

        def velocity(z, t):
            return ((2 * t - 1) / (t**2 + (1 - t) ** 2))[:, None] * z

        flow, _ = g.flow_matching_loss(key, velocity, x0)
        return ddpm.mean(), jnp.mean(alpha**2), edm.mean(), flow.mean()

    ddpm, known, edm, flow = map(float, run(jax.random.key(KEY)))
    assert ddpm == pytest.approx(known, rel=0.05)
    assert edm == pytest.approx(1.0, rel=0.05)
    assert flow == pytest.approx(math.pi / 2, rel=0.05)


@pytest.mark.usefixtures("x64")
def test_losses_of_different_targets_differ_by_the_known_weights():
    betas = g.vp_betas(5)
    alpha, sigma = g.vp_coefficients(betas)
    data = np.random.default_rng(0).normal(size=(16, 3))

    @jax.jit
    def run(key):
        def clean(x, t):
            return jnp.sin(3 * x)

        def network(kind):
            return lambda x, t: g.from_x0(kind, clean(x, t), x, alpha[t], sigma[t])

        def raw(scaled, noise):
            return jnp.cos(scaled) + noise[:, None]

        ddpm = {kind: g.ddpm_loss(key, network(kind), data, betas, target=kind) for kind in ("x0", "eps", "v")}
        return ddpm, g.edm_loss(key, raw, data, sigma_data=0.7)

    ddpm, (edm, aux) = run(jax.random.key(KEY))
    t = np.asarray(ddpm["x0"][1]["level"])
    ratio = np.asarray(alpha / sigma)[t] ** 2
    np.testing.assert_allclose(ddpm["eps"][0], ratio * ddpm["x0"][0], rtol=1e-10)
    np.testing.assert_allclose(ddpm["v"][0], (ratio + 1) * ddpm["x0"][0], rtol=1e-10)
    level = np.asarray(aux["level"])
    weight = (level**2 + 0.7**2) / (0.7 * level) ** 2
    np.testing.assert_allclose(edm, weight * np.square(aux["x0"] - data).mean(1), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_reflow_uses_the_noise_it_is_given():
    rng = np.random.default_rng(0)
    x0, eps = rng.normal(size=(16, 3)), rng.normal(size=(16, 3))

    def straight(z, t):
        return jnp.asarray(eps - x0)

    loss, _ = jax.jit(lambda key: g.flow_matching_loss(key, straight, x0, eps=eps))(jax.random.key(KEY))
    np.testing.assert_allclose(loss, 0.0, atol=1e-20)


@pytest.mark.usefixtures("x64")
def test_meanflow_identity_on_the_exact_average_velocity():
    z, r, t = np.array([[0.37]]), np.array([0.25]), np.array([0.8])

    @jax.jit
    def run():
        v = bimodal().velocity(z, t)
        u, target = g.meanflow_residual(exact_average_velocity, z, r, t, v)
        one, zero = jnp.ones(1), jnp.zeros(1)
        moving_r = jax.jvp(exact_average_velocity, (z, r, t), (v, one, one))[1]
        backwards = jax.jvp(exact_average_velocity, (z, r, t), (-v, zero, one))[1]
        return (u - target)[0, 0], (u - v + 0.55 * moving_r)[0, 0], (u - v + 0.55 * backwards)[0, 0]

    right, moving_r, backwards = run()
    assert abs(right) < 1e-12
    assert moving_r == pytest.approx(0.396, abs=1e-3)  # what the two usual mistakes would give
    assert backwards == pytest.approx(-0.205, abs=1e-3)


@pytest.mark.usefixtures("x64")
def test_meanflow_loss_and_gradient_by_hand():
    # Clean samples at 0 and u = theta z: then v = z / t, du/dt = theta v, and aux["x0"] = z (1 - t theta) tells z.
    rng = np.random.default_rng(0)
    first, second, theta = rng.uniform(0.1, 0.9, 16), rng.uniform(0.1, 0.9, 16), 0.7
    t, r = np.maximum(first, second), np.minimum(first, second)

    def loss(theta, key, power, equal):
        times = iter([first, second])
        value, aux = g.meanflow_loss(
            key,
            lambda z, r, t: theta * z,
            jnp.zeros((16, 3)),
            density=lambda key, shape: jnp.asarray(next(times)),
            power=power,
            equal_fraction=equal,
        )
        return value.sum(), (value, aux)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for power, equal in [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]:
        (_, (value, aux)), slope = run(theta, jax.random.key(KEY), power, equal)
        end = t if equal else r
        z = np.asarray(aux["x0"]) / (1 - t * theta)[:, None]
        v = z / t[:, None]
        target = v * (1 - (t - end) * theta)[:, None]
        error = np.square(theta * z - target).sum(1)
        weight = (error + 0.01) ** -power
        np.testing.assert_allclose(aux["level"], t)
        np.testing.assert_allclose(aux["squared_error"], error, rtol=1e-9)
        np.testing.assert_allclose(value, error * weight, rtol=1e-9)
        # Target and weight are constants: no gradient through either.
        by_hand = (2 * weight[:, None] * (theta * z - target) * z).sum()
        assert float(slope) == pytest.approx(by_hand, rel=1e-9)


def test_meanflow_draws_the_asked_fraction_of_equal_times():
    rows = jnp.zeros((4000, 1))

    @jax.jit
    def run(key):
        _, plain = g.meanflow_loss(key, lambda z, r, t: 0 * z, rows, equal_fraction=0.6)
        _, marked = g.meanflow_loss(key, lambda z, r, t: 0 * z + (r == t)[:, None], rows, equal_fraction=0.6)
        return (plain["x0"] - marked["x0"])[:, 0] / plain["level"]

    assert float(run(jax.random.key(KEY)).mean()) == pytest.approx(0.6, abs=0.03)


def test_guided_meanflow_target():
    z, t = jnp.zeros((4, 1)), jnp.array([0.1, 0.5, 0.5, 0.9])
    guided = g.guided_velocity(
        lambda z, t: jnp.full_like(z, 5.0),
        lambda z, t: jnp.full_like(z, 3.0),
        omega=0.5,
        kappa=0.2,
        dropped=jnp.array([0.0, 1.0, 0.0, 0.0]),
        interval=(0.2, 0.8),
    )
    inside = 0.5 * 2.0 + 0.3 * 3.0 + 0.2 * 5.0
    np.testing.assert_allclose(guided(z, t, jnp.full((4, 1), 2.0))[:, 0], [2.0, 2.0, inside, 2.0], rtol=1e-6)

    def loss(scale):
        _, aux = g.meanflow_loss(
            jax.random.key(KEY), lambda z, r, t: scale * z, jnp.ones((4, 1)), guided=lambda z, t, v: scale * z
        )
        return aux["squared_error"].sum()

    assert jax.jit(jax.grad(loss))(0.5) != 0  # a target that depends on the parameters is still held fixed


@pytest.mark.usefixtures("x64")
def test_shortcut_models():
    data = np.random.default_rng(0).normal(size=(64, 1))
    seen = []

    def watched(z, r, t):
        seen.append((r, t))
        return 0 * z

    @jax.jit
    def run(key):
        # Two half jumps of the exact flow are one whole jump, so the bootstrap rows of the exact model have no loss.
        exact, _ = g.shortcut_loss(key, exact_average_velocity, data, max_level=4, bootstrap_fraction=1.0)
        flow, _ = g.shortcut_loss(key, lambda z, r, t: z / t[:, None], data * 0, bootstrap_fraction=0.0)
        mixed, _ = g.shortcut_loss(
            key, watched, data, max_level=4, bootstrap_fraction=0.25, target=lambda z, r, t: 0 * z + 2.0
        )
        g.shortcut_loss(key, watched, data, max_level=4, bootstrap_fraction=0.25, flow_step=1 / 16)
        clipped, _ = g.shortcut_loss(
            key, lambda z, r, t: z, 100.0 + data, max_level=4, bootstrap_fraction=1.0, clip=4.0
        )
        return exact, flow, mixed, clipped, seen

    exact, flow, mixed, clipped, times = run(jax.random.key(KEY))
    assert exact.shape == (64,)
    assert np.max(exact) < 1e-20
    np.testing.assert_allclose(flow, 0.0, atol=1e-20)
    np.testing.assert_allclose(mixed[:16], 4.0)  # the mean of the target's half steps; no flow matching there
    assert np.all(mixed[16:] != 4.0)
    assert np.isfinite(clipped).all()

    (r, t), *_, (r_grid, t_grid) = jax.tree.map(np.asarray, times)  # first and last call of the watched model
    r, t = r[:16], t[:16]
    step = t - r
    level = -np.log2(step)
    np.testing.assert_allclose(level, np.round(level), atol=1e-9)
    assert set(np.round(level)) == {0, 1, 2, 3}  # every level, none below the finest
    np.testing.assert_allclose(t / step, np.round(t / step), atol=1e-9)
    assert t.max() == 1.0
    assert r.min() == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(t_grid[16:] * 16, np.round(t_grid[16:] * 16), atol=1e-9)
    np.testing.assert_allclose((t_grid - r_grid)[16:], 1 / 16, atol=1e-12)
    with pytest.raises(ValueError, match="max_level"):
        g.shortcut_loss(jax.random.key(KEY), watched, jnp.asarray(data), max_level=0)


@pytest.mark.usefixtures("x64")
def test_consistency_models():
    data = np.random.default_rng(0).normal(size=(16, 1))
    levels = np.geomspace(10.0, 0.02, 400)

    def exact(x, sigma):
        # In one dimension: the point at the smallest level with the same rank.
        target = bimodal()
        return target.quantile(target.cdf(x, 1.0, sigma), 1.0, 0.02)

    def shift(x, sigma):
        return x + sigma[:, None]

    @jax.jit
    def run(key):
        target = bimodal()
        distilled, _ = g.consistency_loss(key, exact, 0.5 * data, levels, teacher=target.denoise)
        trained, aux = g.consistency_loss(key, shift, data, levels)
        huber, _ = g.consistency_loss(key, shift, data, levels, distance="pseudo_huber")
        weighted, _ = g.consistency_loss(key, shift, data, levels, weight=lambda high, low: 1 / (high - low))
        slope = jax.grad(lambda a: g.consistency_loss(key, lambda x, s: a * x, data, levels)[0].sum())(1.0)
        frozen = jax.grad(
            lambda a: g.consistency_loss(key, lambda x, s: a * x, data, levels, target=lambda x, s: x)[0].sum()
        )(1.0)
        return distilled, trained, huber, weighted, aux, slope, frozen

    distilled, trained, huber, weighted, aux, slope, frozen = run(jax.random.key(KEY))
    assert np.sqrt(np.max(distilled)) < 1e-5  # constant along the trajectory, up to one Heun step in 400
    # f = x + sigma: the same noise at both levels, so the difference is (high - low) (eps + 1) with eps from aux.
    high = np.asarray(aux["level"])
    low = levels[np.searchsorted(-levels, -high) + 1]
    eps = (np.asarray(aux["x0"])[:, 0] - data[:, 0] - high) / high
    gap = (high - low) * (eps + 1)
    np.testing.assert_allclose(trained, gap**2, rtol=1e-7)
    c = 0.00054
    np.testing.assert_allclose(huber, np.sqrt(gap**2 + c**2) - c, rtol=1e-6)
    np.testing.assert_allclose(weighted, gap**2 / (high - low), rtol=1e-7)
    assert slope == frozen  # no gradient through the target
    assert g.consistency_curriculum(0, 100)[0] == 2
    assert g.consistency_curriculum(100, 100)[0] == 151
    assert g.consistency_curriculum(0, 100)[1] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="pseudo_huber"):
        g.consistency_loss(jax.random.key(0), shift, jnp.asarray(data), jnp.asarray(levels), distance="lpips")


def test_wrong_shapes_are_refused():
    key, data = jax.random.key(KEY), jnp.zeros((4, 3))

    def flat(*inputs):
        return inputs[0][:, 0]

    calls = [
        lambda: g.ddpm_loss(key, flat, data, g.vp_betas(3)),
        lambda: g.edm_loss(key, flat, data),
        lambda: g.flow_matching_loss(key, flat, data),
        lambda: g.flow_matching_loss(key, lambda z, t: z, data, eps=data[:, :1]),
        lambda: g.meanflow_loss(key, flat, data),
        lambda: g.shortcut_loss(key, flat, data, bootstrap_fraction=0.0),
        lambda: g.consistency_loss(key, flat, data, g.karras(4)[:-1]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="shape"):
            jax.eval_shape(call)


def test_a_mask_leaves_tokens_out_of_the_mean():
    tokens = jnp.broadcast_to(POINT, (3, 5, 3))
    mask = np.ones((3, 5), np.float32)
    mask[0, 1:] = 0.0
    mask[1] = 0.0

    def network(scaled, noise):
        shift = jnp.arange(5.0)[:, None]  # each token is wrong by its own number
        return perfect_edm(0.0)(scaled, noise) + shift

    loss, _ = g.edm_loss(jax.random.key(KEY), network, tokens, sigma_data=0.7, level_axes=2, mask=mask)
    np.testing.assert_allclose(loss, [0.0, 0.0, 6.0], atol=1e-4)  # mean of 0, 1, 4, 9, 16
    whole, _ = g.edm_loss(jax.random.key(KEY), network, tokens, sigma_data=0.7, level_axes=2)
    np.testing.assert_allclose(whole, 6.0, rtol=1e-4)


def test_features_of_meanflow_are_those_of_the_pass_and_carry_gradients():
    data = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)

    def field(w):
        def seen(z, r, t):
            h = jnp.tanh(z @ w + t[:, None] - r[:, None])
            return h @ w.T, h

        return seen

    @jax.jit
    def run(w):
        plain, _ = g.meanflow_loss(jax.random.key(KEY), lambda *x: field(w)(*x)[0], data)
        loss, aux = g.meanflow_loss(jax.random.key(KEY), field(w), data, features=True)

        def spread(w):
            return g.meanflow_loss(jax.random.key(KEY), field(w), data, features=True)[1]["features"].sum()

        return plain, loss, aux["features"], jax.grad(spread)(w)

    plain, loss, features, slope = run(jnp.array([[0.3, -0.2, 0.5], [0.1, 0.4, -0.3]]))
    np.testing.assert_allclose(loss, plain, rtol=1e-6)
    assert features.shape == (8, 3)
    assert np.abs(slope).min() > 1e-3
