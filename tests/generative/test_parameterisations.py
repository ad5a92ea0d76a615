import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from jaxrl_reg import generative as g
from tests.generative.targets import MEANS, STDS, WEIGHTS, bimodal, log_density, posterior

ROWS = (16, 3)


def drawn():
    rng = np.random.default_rng(0)
    x0, eps = rng.normal(size=ROWS), rng.normal(size=ROWS)
    alpha, sigma = rng.uniform(0.1, 1.0, 16), rng.uniform(0.1, 1.0, 16)
    return x0, eps, alpha, sigma, alpha[:, None] * x0 + sigma[:, None] * eps


def targets(x0, eps, alpha, sigma):
    alpha, sigma = alpha[:, None], sigma[:, None]
    return {
        "x0": x0,
        "eps": eps,
        "score": -eps / sigma,
        "v": alpha * eps - sigma * x0,
        "velocity": eps - x0,
    }


@pytest.mark.usefixtures("x64")
def test_conversions_between_all_kinds_are_exact():
    x0, eps, alpha, sigma, x = drawn()
    values = targets(x0, eps, alpha, sigma)
    pairs = list(itertools.product(g.KINDS, g.KINDS))

    @jax.jit
    def run(values):
        there = {(a, b): g.convert(values[a], a, b, x, alpha, sigma) for a, b in pairs}
        back = {(a, b): g.convert(there[a, b], b, a, x, alpha, sigma) for a, b in pairs}
        return there, back, {kind: g.training_target(kind, x0, eps, alpha, sigma) for kind in g.KINDS}

    there, back, wanted = run(values)
    for a, b in pairs:
        np.testing.assert_allclose(there[a, b], values[b], atol=1e-10, err_msg=f"{a} to {b}")
        np.testing.assert_allclose(back[a, b], values[a], atol=1e-10, err_msg=f"{b} to {a}")
    for kind in g.KINDS:
        np.testing.assert_allclose(wanted[kind], values[kind], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_general_formulas_reduce_to_the_textbook_ones():
    x0, eps, _, _, _ = drawn()
    angle, t = np.linspace(0.1, 1.4, 16), np.linspace(0.1, 0.9, 16)
    alpha, sigma = np.cos(angle), np.sin(angle)
    x, z = alpha[:, None] * x0 + sigma[:, None] * eps, (1 - t[:, None]) * x0 + t[:, None] * eps
    guess, column = np.sin(5 * x), t[:, None]  # any prediction, not only the right one

    @jax.jit
    def run():
        score = g.convert(guess, "velocity", "score", z, 1 - t, t)
        return g.to_x0("v", guess, x, alpha, sigma), g.to_x0("velocity", guess, z, 1 - t, t), score

    from_v, from_velocity, score = run()
    np.testing.assert_allclose(from_v, alpha[:, None] * x - sigma[:, None] * guess, atol=1e-12)
    np.testing.assert_allclose(from_velocity, z - column * guess, atol=1e-12)
    np.testing.assert_allclose(score, -(z + (1 - column) * guess) / column, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_errors_of_all_kinds_are_equal_up_to_the_known_weights():
    x0, eps, alpha, sigma, x = drawn()
    norm = np.sqrt(alpha**2 + sigma**2)
    alpha, sigma, x = alpha / norm, sigma / norm, x / norm[:, None]  # variance preserving
    guess = x0 + np.sin(3 * x)
    t = np.linspace(0.1, 0.9, 16)
    z = (1 - t[:, None]) * x0 + t[:, None] * eps
    level = sigma / alpha
    noisy = x0 + level[:, None] * eps

    @jax.jit
    def run():
        kinds = {kind: g.from_x0(kind, guess, x, alpha, sigma) for kind in ("eps", "v")}
        return (
            kinds,
            g.from_x0("velocity", guess, z, 1 - t, t),
            g.edm_preconditioning(level, 0.7),
            g.edm_weight(level, 0.7),
        )

    kinds, velocity, c, weight = jax.tree.map(np.asarray, run())
    wanted = targets(x0, eps, alpha, sigma)

    def error(a, b):
        return np.square(a - b).sum(1)

    base = error(guess, x0)
    np.testing.assert_allclose(error(kinds["eps"], wanted["eps"]), (alpha / sigma) ** 2 * base, rtol=1e-10)
    np.testing.assert_allclose(error(kinds["v"], wanted["v"]), (alpha**2 / sigma**2 + 1) * base, rtol=1e-10)
    np.testing.assert_allclose(error(velocity, eps - x0), base / t**2, rtol=1e-10)
    raw_guess, raw_target = ((v - c.skip[:, None] * noisy) / c.out[:, None] for v in (guess, x0))
    np.testing.assert_allclose(weight * base, error(raw_guess, raw_target), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_preconditioning():
    sigma, x = np.array([0.002, 0.5, 30.0]), np.array([[1.0], [2.0], [3.0]])

    @jax.jit
    def run():
        def network(x, noise):
            return jnp.sin(x) + noise[:, None]

        consistent = g.consistency_function(network, 0.7, sigma_min=0.002)
        return g.edm_preconditioning(sigma, 0.7), g.edm_denoiser(network, 0.7)(x, sigma), consistent(x, sigma)

    c, denoised, consistent = jax.tree.map(np.asarray, run())
    np.testing.assert_allclose(c.scale**2 * (0.7**2 + sigma**2), 1.0, rtol=1e-12)
    variance = ((1 - c.skip) ** 2 * 0.7**2 + c.skip**2 * sigma**2) / c.out**2
    np.testing.assert_allclose(variance, 1.0, rtol=1e-12)  # of the target of the network
    np.testing.assert_allclose(c.noise, np.log(sigma) / 4, rtol=1e-12)
    raw = np.sin(c.scale * x[:, 0]) + c.noise
    np.testing.assert_allclose(denoised[:, 0], c.skip * x[:, 0] + c.out * raw, rtol=1e-12)
    np.testing.assert_allclose(consistent[0, 0], 1.0, atol=1e-12)  # the identity at the smallest level
    skip, out = 0.7**2 / (0.498**2 + 0.7**2), 0.498 * 0.7 / np.sqrt(0.5**2 + 0.7**2)
    np.testing.assert_allclose(consistent[1, 0], skip * 2.0 + out * raw[1], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_mixture_and_the_adapters_carry_the_exact_field_between_coordinates():
    x, sigma, t = np.linspace(-2, 2, 9)[:, None], np.geomspace(0.05, 20, 9), np.linspace(0.1, 0.9, 9)
    ends = np.array([0.0, 1.0] * 4 + [0.5])

    @jax.jit
    def run():
        target, betas = bimodal(), g.vp_betas(9)
        alpha, std = g.vp_coefficients(betas)

        def network(x, t):
            return target.expectation(x, alpha[t], std[t])[1]

        discrete = g.vp_denoiser(g.vp_predictor(network, betas, "eps"), betas)
        grid = g.vp_sigmas(betas)[:-1]
        density = target.log_prob(x), target.cdf(x), target.quantile(target.cdf(x[3:6]))
        fields = {
            "denoise": target.denoise(x, sigma),
            "flow denoise": g.flow_denoiser(target.velocity)(x, sigma),
            "discrete": (discrete(x, grid), discrete(x, grid * 1.01)),
            "velocity": target.velocity(x, t),
            "denoiser velocity": g.denoiser_flow(target.denoise)(x, t),
            "at the ends": g.denoiser_flow(target.denoise)(x, ends),
        }
        return fields, density, grid

    fields, (log_prob, cdf, back), grid = run()

    def expected(levels, alphas):
        return [posterior(row[None], s, a) for row, s, a in zip(x, levels, alphas, strict=True)]

    clean = [x0[0] for x0, _ in expected(sigma, np.ones(9))]
    np.testing.assert_allclose(fields["denoise"], clean, atol=1e-12)
    np.testing.assert_allclose(fields["flow denoise"], fields["denoise"], atol=1e-10)
    np.testing.assert_allclose(fields["velocity"], [(eps - x0)[0] for x0, eps in expected(t, 1 - t)], atol=1e-10)
    np.testing.assert_allclose(fields["denoiser velocity"], fields["velocity"], atol=1e-10)
    assert np.isfinite(fields["at the ends"]).all()
    discrete = [x0[0] for x0, _ in expected(np.asarray(grid), np.ones(9))]
    np.testing.assert_allclose(fields["discrete"][0], discrete, atol=1e-9)
    np.testing.assert_allclose(fields["discrete"][1], discrete, atol=0.05)  # rounds to the nearest level
    np.testing.assert_allclose(log_prob, log_density(x), atol=1e-10)
    np.testing.assert_allclose(cdf, ndtr((x - MEANS) / STDS) @ WEIGHTS, atol=1e-12)
    np.testing.assert_allclose(back, x[3:6], atol=1e-9)


def test_wrong_shapes_and_names_are_refused():
    x = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match="shape"):
        g.to_x0("eps", jnp.zeros((4, 1)), x, 1.0, 1.0)
    with pytest.raises(ValueError, match="levels of shape"):
        g.to_x0("eps", x, x, 1.0, jnp.ones(2))  # would broadcast along the wrong axis
    for function in (g.to_x0, g.from_x0):
        with pytest.raises(ValueError, match="known: x0"):
            function("noise", x, x, 1.0, 1.0)
    with pytest.raises(ValueError, match="known: x0"):
        g.training_target("noise", x, x, 1.0, 1.0)
