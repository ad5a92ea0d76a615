import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from tests.generative.targets import COUNT, bimodal, normal_quantiles


def gaussian(mean, std):
    """Denoiser of a one-dimensional normal, with the condition choosing between it and the standard normal."""
    mean, std = jnp.asarray(mean)[..., None], jnp.asarray(std)[..., None]

    def denoise(x, sigma):
        total = std**2 + sigma[:, None] ** 2
        return (std**2 * x + sigma[:, None] ** 2 * mean) / total

    return denoise


@pytest.mark.usefixtures("x64")
def test_classifier_free_guidance_on_gaussians():
    calls = []

    def field(x, sigma, condition):
        calls.append(x.shape)
        return gaussian(condition, jnp.where(condition > 0, 0.2, 1.0))(x, sigma)

    @jax.jit
    def run(x, weight):
        guided = g.classifier_free(field, jnp.ones(2), jnp.zeros(2), weight)
        return g.heun(None, guided, 80.0 * x, g.karras(200))

    measured = {0.0: (0.0, 1.0), 0.5: (0.7375, 0.4472), 1.0: (1.0, 0.2), 1.5: (1.077, 0.0894), 2.0: (1.0926, 0.0400)}
    for weight, (mean, std) in measured.items():
        low, high = np.asarray(run(np.array([[-1.0], [1.0]]), weight))[:, 0]
        assert (low + high) / 2 == pytest.approx(mean, abs=3e-3), weight
        assert (high - low) / 2 == pytest.approx(std, abs=3e-3), weight
        # The standard deviation is the geometric mean, not that of the tilted density.
        assert (high - low) / 2 == pytest.approx(0.2**weight, abs=3e-3)
    assert set(calls) == {(4, 1)}  # one call on both halves


def test_conditions_are_dropped_whole():
    condition = {"goal": jnp.ones((2000, 5)), "mask": jnp.ones(2000)}
    null = jax.tree.map(jnp.zeros_like, condition)
    mixed, dropped = jax.jit(lambda key: g.drop_condition(key, condition, null, 0.1))(jax.random.key(0))
    assert set(np.asarray(mixed["goal"]).sum(1)) == {0.0, 5.0}
    np.testing.assert_array_equal(mixed["goal"][:, 0], 1 - dropped)
    np.testing.assert_array_equal(mixed["mask"], 1 - dropped)
    assert float(dropped.mean()) == pytest.approx(0.1, abs=0.025)


@pytest.mark.usefixtures("x64")
def test_energy_guidance_is_exact_where_it_should_be():
    x, sigma = np.linspace(-2, 2, 9)[:, None], np.geomspace(0.05, 20, 9)
    plain = bimodal()

    @jax.jit
    def run():
        # Weights of the components tilted: the ratio of the noised densities is the noisy classifier.
        tilted = plain._replace(weights=jnp.array([0.9, 0.1]))

        def log_ratio(x, sigma):
            return tilted.log_prob(x, 1.0, sigma) - plain.log_prob(x, 1.0, sigma)

        def parabola(x, sigma):
            return -0.5 * jnp.square(x[:, 0] - 2.0)

        single = gaussian(0.3, 0.7)
        return (
            g.energy(plain.denoise, log_ratio)(x, sigma),
            tilted.denoise(x, sigma),
            g.energy(single, parabola, 0.4, at="exact")(x, sigma),
            g.energy(single, parabola, 0.4, at="denoised", sigma_data=0.7)(x, sigma),
            g.q_guidance(single, lambda a: parabola(a, None), 0.4, sigma_data=0.7)(x, sigma),
        )

    guided, tilted, exact, denoised, by_critic = run()
    np.testing.assert_allclose(guided, tilted, atol=1e-9)
    clean = (0.49 * x[:, 0] + sigma**2 * 0.3) / (0.49 + sigma**2)
    by_hand = clean + 0.4 * 0.49 * sigma**2 / (0.49 + sigma**2) * (2.0 - clean)
    np.testing.assert_allclose(exact[:, 0], by_hand, atol=1e-10)
    np.testing.assert_allclose(denoised, exact, atol=1e-10)  # Gaussian data: the shortcut is exact
    np.testing.assert_allclose(by_critic, exact, atol=1e-10)
    with pytest.raises(ValueError, match="denoised"):
        g.energy(plain.denoise, lambda x, s: x[:, 0], at="clean")


@pytest.mark.usefixtures("x64")
def test_q_guidance_moves_samples_towards_better_actions_and_stays_finite():
    @jax.jit
    def run(weight):
        guided = g.q_guidance(bimodal().denoise, lambda a: -jnp.square(a[:, 0] + 1.0), weight, at="exact")
        return g.dpmpp_2m(None, g.clip(guided, -2.0, 2.0), 80.0 * normal_quantiles(), g.karras(20))

    shares = [float(np.mean(np.asarray(run(w)) < -0.4)) for w in (0.0, 1.0, 4.0)]
    assert shares[0] == pytest.approx(0.3, abs=0.02)
    assert shares[0] < shares[1] < shares[2]


def test_clip_and_inpaint():
    known, mask = jnp.array([[0.25, 0.0]]), jnp.array([[1.0, 0.0]])
    seen = []

    def denoise(x, sigma):
        seen.append(x)
        return 3.0 * jnp.ones_like(x)

    sigma = jnp.array([1.0])
    np.testing.assert_allclose(g.clip(denoise, -1.0, 1.0)(jnp.zeros((1, 2)), sigma), 1.0)
    painted = g.inpaint(denoise, known, mask)
    np.testing.assert_allclose(painted(jnp.full((1, 2), 9.0), sigma), [[0.25, 3.0]])
    np.testing.assert_allclose(seen[-1], [[0.25, 9.0]])  # the network sees the known value clean
    x = jax.jit(lambda x: g.dpmpp_2m(None, painted, x, g.karras(4)))(jnp.full((1, 2), 9.0))
    np.testing.assert_allclose(x, [[0.25, 3.0]], rtol=1e-6)


def test_gradient_guide():
    def score(x):
        return -0.5 * jnp.square(x).sum(1) * jnp.array([1.0, 1.0, 0.0])

    weights = jnp.array([2.0, 5.0])
    x, sigma = jnp.array([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]]), jnp.ones(3)

    @jax.jit
    def run():
        unit = g.gradient_guide(score, weights)(x, sigma, 1)
        raw = g.gradient_guide(score, weights, normalise=False)(x, sigma, 0)
        at_clean = g.gradient_guide(score, weights, denoise=lambda x, s: x / 2, normalise=False)(x, sigma, 0)
        slope = jax.grad(lambda x: g.gradient_guide(score, weights)(x, sigma, 1).sum())(x[:1].repeat(3, 0))
        return unit, raw, at_clean, slope

    unit, raw, at_clean, slope = run()
    np.testing.assert_allclose(unit, [[-3.0, -4.0], [0.0, 0.0], [0.0, 0.0]], atol=1e-6)  # a zero gradient stays zero
    np.testing.assert_allclose(raw[0], [-6.0, -8.0])
    np.testing.assert_allclose(at_clean[0], [-3.0, -4.0])  # an input, not a path back through the denoiser
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(
        g.cosine_weights(4, 0.5), 0.5 * (1 - np.arange(4) / 4 + 0.3 * np.sin(np.pi * np.arange(1, 5) / 4)), rtol=1e-5
    )


def test_guides_act_before_every_step_but_the_last():
    seen = []

    def guide(x, sigma, index):
        seen.append((sigma.shape, index))
        return jnp.ones_like(x)

    def keep(x, sigma):
        return x

    @jax.jit
    def run(x):
        return [g.sample(jax.random.key(0), keep, x, g.karras(4), method=m, guide=guide) for m in ("ddim", "dpm_2")]

    for x in run(jnp.zeros((2, 1))):
        np.testing.assert_allclose(x, 3.0, rtol=1e-5)
    assert all(shape == (2,) for shape, _ in seen)


def test_choosing_among_candidates():
    scores = jnp.tile(jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]]), (1, 2000))  # [3, 4000], two kinds of column
    np.testing.assert_array_equal(g.choose(None, scores)[:2], [1, 2])

    @jax.jit
    def run(key):
        return (
            g.choose(key, scores, method="softmax", temperature=0.5),
            g.choose(key, scores, method="expectile", expectile=0.8, baseline=jnp.ones(4000)),
            g.choose(key, scores, method="expectile", expectile=0.8),
        )

    def shares(index):
        return np.bincount(np.asarray(index)[::2], minlength=3) / 2000

    softmax, expectile, mean = (shares(index) for index in run(jax.random.key(0)))
    weights = np.exp(np.array([0.0, 2.0, 1.0]) / 0.5)
    np.testing.assert_allclose(softmax, weights / weights.sum(), atol=0.04)
    np.testing.assert_allclose(expectile, np.array([0.2, 0.8, 0.8]) / 1.8, atol=0.04)
    np.testing.assert_allclose(mean, expectile, atol=0.04)  # the candidates' mean is 1 here
    for method in ("softmax", "expectile"):
        with pytest.raises(ValueError, match="needs a key"):
            g.choose(None, scores, method=method)
    with pytest.raises(ValueError, match="known: argmax"):
        g.choose(jax.random.key(0), scores, method="greedy")


def test_best_of_k_keeps_the_best_of_every_row():
    @jax.jit
    def run(key):
        def draw(key):
            return jax.random.normal(key, (COUNT, 2))

        return [g.best_of_k(key, draw, lambda x: x[:, 0], k) for k in (1, 8)]

    one, best = run(jax.random.key(0))
    assert one.shape == best.shape == (COUNT, 2)
    assert float(best[:, 0].mean()) == pytest.approx(1.42, abs=0.15)  # the expected maximum of 8 normals
    assert float(best[:, 1].mean()) == pytest.approx(0.0, abs=0.2)  # columns of one candidate stay together
    candidates = jnp.arange(24.0).reshape(3, 2, 4)
    np.testing.assert_allclose(g.pick(candidates, jnp.array([2, 0])), [candidates[2, 0], candidates[0, 1]])
