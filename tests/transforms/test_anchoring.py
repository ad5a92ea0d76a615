"""Pull towards weights, and Langevin noise: exact steps, and the distribution that a quadratic loss must give."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg.transforms import anchored, consolidate, pulled, sgld, synaptic_intelligence

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
ANCHOR = {"w": jnp.array([0.5, 0.0]), "b": jnp.array(1.0)}


def test_the_pull_is_the_gradient_of_the_quadratic():
    def penalty(params):
        return 0.7 / 2 * sum(jax.tree.leaves(jax.tree.map(lambda p, a: jnp.square(p - a).sum(), params, ANCHOR)))

    ones = jax.tree.map(jnp.ones_like, PARAMS)
    pulled, _ = anchored(ANCHOR, 0.7).update(ones, optax.EmptyState(), PARAMS)
    for a, b in zip(*map(jax.tree.leaves, (pulled, jax.grad(penalty)(PARAMS))), strict=True):
        np.testing.assert_allclose(a, 1.0 + b, rtol=1e-6)
    with pytest.raises(ValueError, match="params"):
        anchored(ANCHOR, 0.7).update(ones, optax.EmptyState())


def test_without_temperature_it_is_gradient_descent():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    optimiser = sgld(0.1, 0.0, jax.random.key(0), ANCHOR, 2.0)
    moved, state = optimiser.update(ones, optimiser.init(PARAMS), PARAMS)
    np.testing.assert_allclose(moved["w"], -0.1 * (1.0 + 2.0 * np.array([0.5, -2.0])), rtol=1e-6)
    np.testing.assert_allclose(moved["b"], -0.1 * (1.0 + 2.0 * 2.0), rtol=1e-6)
    assert state.count == 1
    bare = sgld(0.1, 0.0, jax.random.key(0))
    np.testing.assert_allclose(bare.update(ones, bare.init(PARAMS))[0]["b"], -0.1)


def test_a_quadratic_loss_gives_the_normal_distribution_it_should():
    stiffness, pull, temperature, rate = 2.0, 1.0, 0.3, 0.05
    optimiser = sgld(rate, temperature, jax.random.key(1), jnp.ones(20_000), pull)

    @jax.jit
    def run():
        def body(carry, _):
            x, state = carry
            moved, state = optimiser.update(stiffness * x, state, x)
            return (x + moved, state), None

        x = jnp.zeros(20_000)
        (x, state), _ = jax.lax.scan(body, (x, optimiser.init(x)), None, length=150)
        return x, state.count

    x, count = run()
    total = stiffness + pull  # the loss and the pull together; the last factor is the size of the steps
    variance = temperature / total / (1 - rate * total / 2)
    assert count == 150
    assert float(x.mean()) == pytest.approx(pull / total, abs=0.01)
    assert float(x.var()) == pytest.approx(variance, rel=0.05)
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.03  # every weight has noise of its own


def test_noise_differs_between_steps_leaves_and_members_and_settings_may_be_traced():
    @jax.jit
    def two_steps(key, temperature):
        optimiser = sgld(0.1, temperature, key)
        zeros = {"a": jnp.zeros(3), "b": jnp.zeros(3)}
        first, state = optimiser.update(zeros, optimiser.init(zeros))
        return first, optimiser.update(zeros, state)[0]

    one, other = two_steps(jax.random.key(0), 0.5), two_steps(jax.random.key(1), 0.5)
    drawn = [np.asarray(leaf) for leaf in jax.tree.leaves((one, other))]
    assert all(not np.allclose(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    hot = jax.tree.leaves(two_steps(jax.random.key(0), 2.0))
    np.testing.assert_allclose(hot[0], 2.0 * drawn[0], rtol=1e-5)  # the square root of four times the temperature


FISHER = jnp.array([2.0, 3.0, 0.5])
GRADIENT, WEIGHTS, TARGET = jnp.array([0.1, -0.2, 0.3]), jnp.array([1.0, 2.0, -1.0]), jnp.array([0.5, 2.0, 0.0])


def test_importance_weighs_the_pull_in_both_its_forms():
    gradient, _ = anchored(TARGET, 0.1, FISHER).update(GRADIENT, optax.EmptyState(), WEIGHTS)
    np.testing.assert_allclose(gradient, [0.2, -0.2, 0.25], rtol=1e-6)
    step, _ = pulled(TARGET, 0.1, 0.1, FISHER).update(-0.1 * GRADIENT, optax.EmptyState(), WEIGHTS)
    np.testing.assert_allclose(WEIGHTS + step, [0.980392, 2.019417, -1.024876], rtol=1e-6)
    nothing, _ = pulled(TARGET, 0.1, 0.0, FISHER).update(GRADIENT, optax.EmptyState(), WEIGHTS)
    np.testing.assert_array_equal(nothing, GRADIENT)
    with pytest.raises(ValueError, match="params"):
        pulled(TARGET, 0.1, 0.1).update(GRADIENT, optax.EmptyState())


def test_the_proximal_pull_stands_where_the_explicit_one_diverges():
    """Rate times coefficient is 3: the explicit step doubles the distance each time, the proximal one ends."""
    proximal = optax.chain(optax.sgd(0.1), pulled(TARGET, 0.1, 30.0))
    explicit = optax.chain(anchored(TARGET, 30.0), optax.sgd(0.1))
    ends = []
    for optimiser in (proximal, explicit):
        weights, state = WEIGHTS, optimiser.init(WEIGHTS)
        for _ in range(5):
            step, state = optimiser.update(jnp.zeros(3), state, weights)
            weights = weights + step
        ends.append(float(jnp.abs(weights - TARGET).max()))
    assert ends[0] < 1e-2
    assert ends[1] > 20.0


def test_the_path_integral_by_hand():
    stiffness, goal = jnp.array([1.0, 0.2]), jnp.array([1.0, 2.0])
    optimiser = synaptic_intelligence(optax.sgd(0.5))
    weights = jnp.zeros(2)
    state = optimiser.init(weights)
    for _ in range(2):
        step, state = optimiser.update(stiffness * (weights - goal), state, weights)
        weights = weights + step
    np.testing.assert_allclose(state.path, [0.625, 0.1448], rtol=1e-5)
    importance, after = consolidate(state, weights)
    np.testing.assert_allclose(importance, [0.943396, 0.592471], rtol=1e-5)
    np.testing.assert_array_equal(after.path, jnp.zeros(2))
    np.testing.assert_array_equal(after.start, weights)
    worse = state._replace(path=-state.path)
    np.testing.assert_array_equal(consolidate(worse, weights)[0], jnp.zeros(2))
    with pytest.raises(ValueError, match="params"):
        optimiser.update(weights, state)


def test_an_anchor_within_leaves_the_integral_to_the_loss():
    """The anchor's pull moves the weights but is no merit of theirs: w counts the incoming gradient."""
    inner = optax.chain(anchored(jnp.ones(1), 4.0), optax.sgd(0.1))
    optimiser = synaptic_intelligence(inner)
    state = optimiser.init(jnp.zeros(1))
    step, state = optimiser.update(jnp.array([0.5]), state, jnp.zeros(1))
    np.testing.assert_allclose(step, [0.35], rtol=1e-6)  # -0.1 (0.5 - 4)
    np.testing.assert_allclose(state.path, [-0.5 * 0.35], rtol=1e-6)
