import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from tests.generative.targets import COUNT, bimodal, distance, normal_quantiles, posterior, quantiles, solve

METHODS = ("ddim", "heun", "dpm_2", "dpmpp_2s", "dpmpp_2m", "euler_ancestral")


def error(method, sigmas, to_zero):
    """Distance to where the exact flow carries the quantiles of the exact start."""
    start, end = float(sigmas[0]), 0.0 if to_zero else float(sigmas[-1])
    return distance(solve(quantiles(start), sigmas, method, to_zero), quantiles(end))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("method", "slope", "tolerance", "at_40"),
    [
        ("ddim", 1.00, 0.03, 2.53e-2),
        ("heun", 2.00, 0.05, 2.45e-3),
        ("dpm_2", 2.00, 0.05, 1.17e-3),
        ("dpmpp_2m", 2.01, 0.05, 2.02e-3),
        ("dpmpp_2s", 1.98, 0.05, 1.52e-3),
    ],
)
def test_order_of_convergence(method, slope, tolerance, at_40):
    grids = [np.geomspace(80.0, 0.02, n + 1) for n in (40, 160, 320)]
    ends = jax.jit(lambda x, grids: [solve(x, sigmas, method, to_zero=False) for sigmas in grids])
    errors = [distance(x, quantiles(0.02)) for x in ends(quantiles(80.0), grids)]
    assert np.log2(errors[1] / errors[2]) == pytest.approx(slope, abs=tolerance)
    assert errors[0] == pytest.approx(at_40, rel=0.1)


@pytest.mark.usefixtures("x64")
def test_three_steps_to_zero():
    grids = {
        "linear": np.append(np.linspace(1.0, 0.05, 3), 0.0),
        "exponential": np.append(np.geomspace(1.0, 0.05, 3), 0.0),
        "karras": np.append(np.linspace(1.0, 0.05**0.2, 3) ** 5, 0.0),
    }
    measured = [("ddim", "linear", 0.107), ("ddim", "exponential", 0.134), ("dpmpp_2m", "karras", 0.065)]
    measured += [("dpmpp_2s", "exponential", 0.032), ("heun", "linear", 0.066)]
    for method, grid, wanted in measured:
        assert error(method, grids[grid], to_zero=True) == pytest.approx(wanted, abs=1.5e-3), (method, grid)


@pytest.mark.usefixtures("x64")
def test_a_start_that_is_too_low_biases_the_samples():
    for top, bias, tolerance in [(1.0, 0.0797, 1e-3), (5.0, 0.0156, 3e-4), (10.0, 0.0082, 3e-4), (80.0, 0.0011, 2e-4)]:
        sigmas = np.append(np.linspace(top ** (1 / 7), 0.002 ** (1 / 7), 200) ** 7, 0.0)
        x = solve(top * normal_quantiles(), sigmas, "heun")
        assert distance(x, quantiles()) == pytest.approx(bias, abs=tolerance)

    mean, std, top = 2.0, 0.5, 1.0
    sigmas = np.append(np.geomspace(top, 0.002, 200), 0.0)

    @jax.jit
    def run(x):
        single = g.Mixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([std]))
        return g.heun(None, single.denoise, x, sigmas)

    low, high = np.asarray(run(top * np.array([[-1.0], [1.0]])))[:, 0]
    pull = std / np.sqrt(std**2 + top**2)
    assert (low + high) / 2 == pytest.approx(mean * (1 - pull), abs=1e-3)
    assert (high - low) / 2 == pytest.approx(std * top / np.sqrt(std**2 + top**2), abs=1e-3)


def clean(x, sigma):
    return posterior(x, sigma)[0]


@pytest.mark.usefixtures("x64")
def test_three_names_of_one_first_order_update():
    sigmas = np.append(np.geomspace(5.0, 0.05, 3), 0.0)
    x = 5.0 * normal_quantiles()
    results = [solve(x, sigmas, name) for name in ("euler", "ddim", "dpmpp_1")]
    euler = ddim = dpm = x
    for a, b in itertools.pairwise(sigmas):
        euler = euler + (b - a) * (euler - clean(euler, a)) / a
        denoised = clean(ddim, a)
        ddim = denoised + b * (ddim - denoised) / a
        with np.errstate(divide="ignore"):
            dpm = (b / a) * dpm - np.expm1(-np.log(a / b)) * clean(dpm, a)
    for result, expected in zip(results, (euler, ddim, dpm), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-12)
        np.testing.assert_allclose(result, results[0], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_second_order_solvers_against_their_published_forms():
    a, b, c, _ = sigmas = np.array([3.0, 1.1, 0.4, 0.0])
    x = 3.0 * normal_quantiles()

    def heun(x, a, b):
        d = (x - clean(x, a)) / a
        y = x + (b - a) * d
        return x + (b - a) * (d + (y - clean(y, b)) / b) / 2

    y = heun(heun(x, a, b), b, c)
    np.testing.assert_allclose(solve(x, sigmas, "heun"), clean(y, c), atol=1e-12)

    def dpmpp_2s(x, a, b):
        m, h = np.sqrt(a * b), np.log(a / b)
        y = (m / a) * x - np.expm1(-h / 2) * clean(x, a)
        return (b / a) * x - np.expm1(-h) * clean(y, m)

    y = dpmpp_2s(dpmpp_2s(x, a, b), b, c)
    np.testing.assert_allclose(solve(x, sigmas, "dpmpp_2s"), clean(y, c), atol=1e-12)

    before, h = np.log(a / b), np.log(b / c)
    y = (b / a) * x - np.expm1(-before) * clean(x, a)
    r = before / h
    mixed = (1 + 1 / (2 * r)) * clean(y, b) - clean(x, a) / (2 * r)
    y = (c / b) * y - np.expm1(-h) * mixed
    np.testing.assert_allclose(solve(x, sigmas, "dpmpp_2m"), clean(y, c), atol=1e-12)  # the last step uses D alone


@pytest.mark.usefixtures("x64")
def test_ancestral_steps_are_ddpm_in_other_coordinates():
    betas, t = np.asarray(g.vp_betas(5)), 3
    alpha_bar = np.cumprod(1 - betas)
    level = np.sqrt((1 - alpha_bar) / alpha_bar)
    x0, x = 0.3, 1.1
    before, now, beta = alpha_bar[t - 1], alpha_bar[t], betas[t]
    mean = (np.sqrt(before) * beta * x0 + np.sqrt(1 - beta) * (1 - before) * x) / (1 - now) / np.sqrt(before)
    std = np.sqrt(beta * (1 - before) / (1 - now) / before)

    @jax.jit
    def ancestral(start, levels, temperature):
        def denoise(x, s):
            return jnp.full_like(x, x0)

        start = jnp.full((20_000, 1), start)
        return g.euler_ancestral(jax.random.key(0), denoise, start, levels, temperature=temperature, to_zero=False)

    levels = level[[t, t - 1]]
    quiet, drawn = (np.asarray(ancestral(x / np.sqrt(now), levels, temperature)) for temperature in (0.0, 1.0))
    np.testing.assert_allclose(quiet, mean, atol=1e-12)
    noise = drawn - quiet
    assert noise.std() == pytest.approx(std, rel=2e-2)
    # The same noise at other levels: the ratio of its scales is exact.
    quiet, drawn = (np.asarray(ancestral(0.0, np.array([2.0, 1.0]), temperature)) for temperature in (0.0, 1.0))
    np.testing.assert_allclose(noise / (drawn - quiet), std / np.sqrt(1.0 * (4.0 - 1.0) / 4.0), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_ancestral_without_noise_is_ddim_and_with_noise_keeps_the_distribution():
    @jax.jit
    def run(x, sigmas, eta):
        return g.euler_ancestral(jax.random.key(1), bimodal().denoise, x, sigmas, eta=eta)

    sigmas = np.append(np.linspace(20.0 ** (1 / 7), 0.01 ** (1 / 7), 40) ** 7, 0.0)
    x = 20.0 * normal_quantiles()
    np.testing.assert_allclose(run(x, sigmas, 0.0), solve(x, sigmas, "ddim"), atol=1e-10)
    drawn = np.concatenate([run(x, sigmas, 1.0), run(-x, sigmas, 1.0)])
    assert distance(np.sort(drawn, axis=0), quantiles(count=2 * COUNT)) < 0.08


@pytest.mark.usefixtures("x64")
def test_ddpm_posterior_by_bayes_rule():
    posterior_of = jax.jit(g.ddpm_posterior, static_argnames="variance")
    betas = np.asarray(g.vp_betas(5))
    alpha_bar = np.cumprod(1 - betas)
    x0, x = jnp.array([[0.3]]), jnp.array([[1.1]])
    for t in range(1, 5):
        # x_{t-1} | x0 ~ N(sqrt(abar_{t-1}) x0, 1 - abar_{t-1}) and x_t | x_{t-1} ~ N(sqrt(1 - beta) x_{t-1}, beta).
        precision = 1 / (1 - alpha_bar[t - 1]) + (1 - betas[t]) / betas[t]
        mean = np.sqrt(alpha_bar[t - 1]) * 0.3 / (1 - alpha_bar[t - 1]) + np.sqrt(1 - betas[t]) * 1.1 / betas[t]
        got, variance = posterior_of(x0, x, jnp.array([t]), betas)
        np.testing.assert_allclose(got[0, 0], mean / precision, rtol=1e-10)
        np.testing.assert_allclose(variance, 1 / precision, rtol=1e-10)
        np.testing.assert_allclose(posterior_of(x0, x, jnp.array([t]), betas, "large")[1], betas[t])
    first, variance = posterior_of(x0, x, jnp.array([0]), betas)
    np.testing.assert_allclose(first, x0, atol=1e-10)
    np.testing.assert_allclose(variance, 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="small, large"):
        g.ddpm_posterior(x0, x, jnp.array([0]), jnp.asarray(betas), "learned")


def test_ddpm_options():
    betas = g.vp_betas(4)
    x = normal_quantiles()
    levels = []

    @jax.jit
    def run(x):
        def draw(predict, **options):
            return g.ddpm(jax.random.key(0), predict, x, betas, **options)

        def wild(x, t):
            return jnp.full_like(x, 3.0)

        def passing(x, t):
            levels.append(t)
            return 0.5 * x

        return (
            [draw(wild), draw(wild, clip_denoised=1.0), draw(wild, clip_sample=1.0)],
            [draw(passing, temperature=0.0).std(), draw(passing).std(), draw(passing, variance="large").std()],
        )

    (free, denoised, clipped), spreads = run(x)
    np.testing.assert_allclose(free, 3.0)  # no noise at the last step
    np.testing.assert_allclose(denoised, 1.0)
    np.testing.assert_allclose(clipped, 1.0)
    assert spreads[0] < spreads[1] < spreads[2]
    assert levels[0].dtype == jnp.int32
    assert levels[0].shape == (COUNT,)


@pytest.mark.usefixtures("x64")
def test_ddpm_and_every_solver_on_its_levels_reach_the_target():
    @jax.jit
    def run(x):
        target, betas = bimodal(), g.cosine_betas(60)
        alpha, sigma = g.vp_coefficients(betas)

        def predict(x, t):
            return target.expectation(x, alpha[t], sigma[t])[0]

        sigmas = g.vp_sigmas(betas)
        keys = jax.random.split(jax.random.key(0), 4)
        drawn = jax.vmap(lambda key: g.ddpm(key, predict, x, betas))(keys)
        return drawn, g.dpmpp_2m(None, g.vp_denoiser(predict, betas), sigmas[0] * x, sigmas)

    drawn, solved = run(normal_quantiles())
    assert distance(np.sort(np.reshape(drawn, (-1, 1)), axis=0), quantiles(count=4 * COUNT)) < 0.06
    assert distance(solved, quantiles()) < 0.02


def toy(theta, x, sigma):
    """A cheap denoiser with parameters in every place where gradients could be lost."""
    sigma = sigma[:, None]
    return theta[0] * x / (1 + sigma**2) + jnp.tanh(theta[1] * x + theta[2] * jnp.log(sigma))


GRIDS = {
    "karras": g.karras(4, 0.02, 5.0),
    "exponential": g.exponential(4, 0.02, 5.0),
    "linear": g.linear(4, 0.02, 5.0),
    "vp": g.variance_preserving(4),
    "iddpm": g.improved_ddpm(4),
}


@pytest.mark.usefixtures("x64")
def test_gradients_through_sampling_are_finite_and_right():
    theta = np.array([0.7, 0.4, -0.2])

    def total(theta, sigmas, method):
        name, *churned = method.split()
        options = {"churn": 2.0} if churned else {}
        x = sigmas[0] * jnp.linspace(-1.0, 1.0, 3)[:, None]
        return g.sample(jax.random.key(0), lambda x, s: toy(theta, x, s), x, sigmas, method=name, **options).sum()

    @jax.jit
    def run(theta, sigmas):
        slope = jax.value_and_grad(total, argnums=(0, 1))
        return {method: slope(theta, sigmas, method) for method in (*METHODS, "heun churned")}

    for grid, sigmas in GRIDS.items():
        sigmas = np.asarray(sigmas, np.float64)
        exact = run(theta, sigmas)
        steps = [(run(theta + h, sigmas), run(theta - h, sigmas)) for h in 1e-5 * np.eye(3)]
        for method, (_, (by_theta, by_sigma)) in exact.items():
            finite = [float(up[method][0] - down[method][0]) / 2e-5 for up, down in steps]
            np.testing.assert_allclose(by_theta, finite, rtol=1e-4, atol=1e-7, err_msg=f"{method} {grid}")
            assert np.isfinite(by_sigma).all(), (method, grid)


@pytest.mark.usefixtures("x64")
def test_gradient_of_the_multistep_solver_on_a_gaussian():
    # With the step to zero inside the scan, behind a where, this gradient is NaN although the value is right.
    def total(mean):
        target = g.Mixture(jnp.ones(1), jnp.reshape(mean, (1, 1)), jnp.array([0.5]))
        return g.dpmpp_2m(None, target.denoise, jnp.array([[1.0]]), g.karras(5, 0.05, 1.0)).sum()

    value, slope = jax.jit(jax.value_and_grad(total))(0.3)
    further, _ = jax.jit(jax.value_and_grad(total))(1.3)
    assert float(slope) == pytest.approx(float(further - value), rel=1e-6)  # linear in the mean


def test_ddpm_gradients_are_finite_for_both_variances():
    def total(theta, temperature, betas, variance):
        def predict(x, t):
            return theta * jnp.tanh(x)

        options = {"variance": variance, "temperature": temperature}
        return g.ddpm(jax.random.key(0), predict, jnp.ones((3, 1)), betas, **options).sum()

    slope = jax.grad(total, argnums=(0, 1, 2))
    both = jax.jit(lambda *inputs: {variance: slope(*inputs, variance) for variance in ("small", "large")})
    for variance, slopes in both(0.5, 1.0, g.vp_betas(6)).items():
        assert all(np.isfinite(s).all() and np.any(s) for s in slopes), variance


def test_members_equal_single_runs_and_compile_once():
    sigmas, traces = g.karras(4, 0.02, 5.0), []

    def run(key, theta):
        traces.append(None)
        key_start, key_run = jax.random.split(key)
        x = sigmas[0] * jax.random.normal(key_start, (4, 2))
        return {
            method: g.sample(key_run, lambda x, s: toy(theta, x, s), x, sigmas, method=method) for method in METHODS
        }

    keys = jax.random.split(jax.random.key(0), 8)
    thetas = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    together = jax.jit(jax.vmap(run))(keys, thetas)
    traces.clear()
    single = jax.jit(run)
    for member in range(8):
        for method, x in single(keys[member], thetas[member]).items():
            np.testing.assert_allclose(together[method][member], x, rtol=2e-6, atol=2e-6, err_msg=method)
    assert len(traces) == 1
    assert not np.allclose(together["ddim"][0], together["ddim"][1])


def test_half_precision_samples_keep_full_precision_levels():
    seen = []

    def denoise(x, sigma):
        seen.append((x.dtype, sigma.dtype, sigma.shape))
        return 0.5 * x

    x = jnp.ones((4, 2), jnp.bfloat16)
    assert jax.eval_shape(lambda: g.ddim(None, denoise, x, g.karras(4))).dtype == jnp.float32
    assert all(entry == (jnp.float32, jnp.float32, (4,)) for entry in seen)


def test_wrong_arguments_are_refused():
    x, sigmas = jnp.ones((2, 1)), g.karras(3)

    def half(x, s):
        return x / 2

    with pytest.raises(ValueError, match="known: ddim"):
        g.sample(None, half, x, sigmas, method="plms")
    with pytest.raises(ValueError, match="needs a key"):
        g.euler_ancestral(None, half, x, sigmas)
    with pytest.raises(ValueError, match="needs a key"):
        g.heun(None, half, x, sigmas, churn=1.0)
    with pytest.raises(ValueError, match="at least one step"):
        g.ddim(None, half, x, sigmas[:1])


def linear_gaussian(steps=16):
    """Trajectories of s' = 0.95 s + 0.5 a + 0.02 n under a = -0.2 s + 0.3 n, as one Gaussian (s0, a0, s1, ..)."""
    noise = np.eye(2 * steps)  # column 0: the first state, then action and transition noises in turn
    s = noise[0]
    states, actions = [], []
    for i in range(steps):
        states.append(s)
        a = -0.2 * s + 0.3 * noise[2 * i + 1]
        actions.append(a)
        if i + 1 < steps:
            s = 0.95 * s + 0.5 * a + 0.02 * noise[2 * i + 2]
    rows = np.stack([np.stack(states), np.stack(actions)], axis=1).reshape(2 * steps, -1)
    spread = np.sqrt((rows**2).sum(1))
    return rows / spread[:, None], spread


def dynamics_error(x, spread):
    s, a = (x * spread)[:, 0::2], (x * spread)[:, 1::2]
    return float(jnp.sqrt(jnp.mean(jnp.square(s[:, 1:] - 0.95 * s[:, :-1] - 0.5 * a[:, :-1]))))


def test_churned_heun_starts_both_slopes_from_the_churned_sample():
    # Starting Euler's step from the sample before churning, as released code does, gives 0.030 instead of 0.021.
    factor, spread = linear_gaussian()
    values, vectors = np.linalg.eigh(factor @ factor.T)
    values, vectors = jnp.asarray(np.maximum(values, 0.0), jnp.float32), jnp.asarray(vectors, jnp.float32)

    def denoise(x, sigma):
        return (x @ vectors) * (values / (values + sigma[:, None] ** 2)) @ vectors.T

    sigmas = g.karras(64)
    x = sigmas[0] * jax.random.normal(jax.random.key(0), (512, 32))
    options = {"churn": 80.0, "churn_min": 0.05, "churn_max": 50.0, "noise_scale": 1.003}
    drawn = jax.jit(lambda key, x: g.heun(key, denoise, x, sigmas, **options))(jax.random.key(1), x)
    assert dynamics_error(drawn, jnp.asarray(spread)) == pytest.approx(0.021, abs=0.002)
