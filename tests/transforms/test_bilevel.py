import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.transforms import Constants, hypergradient, maid, solve_lower

# Shrinkage by groups: x_j = y_j / (1 + exp theta_j), whatever the curvature; the best theta has a closed form.
GROUPS, SIZE = 3, 4
CURVES = jnp.linspace(1.0, 20.0, SIZE)
KEYS = jax.random.split(jax.random.key(3))
WANTED = jax.random.normal(KEYS[0], (GROUPS, SIZE))
SEEN = WANTED * jnp.array([1.2, 2.0, 4.0])[:, None] + 0.1 * jax.random.normal(KEYS[1], (GROUPS, SIZE))


def lower(x, theta):
    pull = CURVES * (jnp.square(x["w"] - SEEN) + jnp.exp(theta)[:, None] * jnp.square(x["w"]))
    return 0.5 * pull.sum()


def upper(x):
    return 0.5 * jnp.square(x["w"] - WANTED).sum()


def constants(theta):
    weight = 1.0 + jnp.exp(theta)
    return Constants(weight.min(), 20.0 * weight.max(), 1.0, 0.0, 20.0 * jnp.exp(theta).max())


def exact(theta):
    return {"w": SEEN / (1.0 + jnp.exp(theta))[:, None]}


BEST = jnp.log(jnp.square(SEEN).sum(-1) / (SEEN * WANTED).sum(-1) - 1.0)
START = jnp.array([1.0, -1.5, -1.0])
ZERO = {"w": jnp.zeros((GROUPS, SIZE))}


def objective(theta):
    return upper(exact(theta))


@pytest.mark.parametrize("accuracy", [1e-1, 1e-3])
def test_the_lower_solution_is_as_close_as_asked(accuracy):
    x, error, cost = jax.jit(lambda: solve_lower(lower, START, ZERO, constants(START), accuracy, 5000))()
    distance = jnp.linalg.norm(x["w"] - exact(START)["w"])
    assert distance <= error <= accuracy
    assert cost > 5
    _, error, cost = solve_lower(lower, START, ZERO, constants(START), 1e-6, 7)
    assert (int(cost), bool(error > 1e-6)) == (7, True)  # cut short, and the bound says so


def test_the_hypergradient_is_the_derivative_and_its_error_is_bounded():
    true = jax.grad(objective)(START)
    sharp = hypergradient(upper, lower, START, exact(START), constants(START), jnp.float32(0.0), jnp.float32(1e-6))
    np.testing.assert_allclose(sharp.gradient, true, rtol=1e-4, atol=1e-5)
    for i in range(20):
        off = jax.random.normal(jax.random.key(i), (GROUPS, SIZE)) * 10.0 ** -(i % 4)
        residual = jnp.float32(10.0 ** -(i % 3))
        rough = hypergradient(
            upper, lower, START, {"w": exact(START)["w"] + off}, constants(START), jnp.linalg.norm(off), residual
        )
        assert jnp.linalg.norm(rough.gradient - true) <= rough.error


@pytest.fixture(scope="module")
def solved():
    return jax.jit(lambda theta: maid(upper, lower, theta, ZERO, constants, steps=150, step_size=0.1))(START)


def test_the_known_optimum_is_found_from_far_away(solved):
    theta, x, history = solved
    assert objective(START) > 4.0 * objective(BEST)
    np.testing.assert_allclose(theta, BEST, atol=0.02)
    np.testing.assert_allclose(x["w"], exact(theta)["w"], atol=1e-2)
    assert history.cost[-1] < 10_000
    assert history.cost[-1] == history.cost[-2]  # there is nothing left that float32 could tell


def test_the_objective_never_rises_and_steps_are_certified(solved):
    history = solved[2]
    values = np.asarray(jax.vmap(objective)(history.theta))
    assert (np.diff(values) <= 1e-5).all()
    accepted = np.asarray(history.accepted)
    assert 10 < accepted.sum() < accepted.size
    assert (history.error[accepted] <= 0.5 * history.gradient_norm[accepted] + 1e-6).all()
    unmoved = np.flatnonzero(~accepted[1:]) + 1
    np.testing.assert_array_equal(np.asarray(history.theta)[unmoved], np.asarray(history.theta)[unmoved - 1])


def test_accuracy_follows_need(solved):
    history = solved[2]
    accuracy, accepted = np.asarray(history.accuracy), np.asarray(history.accepted)
    ratio = accuracy[1:] / accuracy[:-1]
    inner = (accuracy[1:] > 2e-6) & (np.diff(history.cost) > 0)
    np.testing.assert_allclose(ratio[accepted[:-1] & inner], 1.25, rtol=1e-4)
    np.testing.assert_allclose(ratio[~accepted[:-1] & inner], 0.5, rtol=1e-4)


def test_a_fixed_coarse_accuracy_gets_stuck(solved):
    fixed = {"step_size": 0.1, "accuracy": 0.01, "shrink": 1.0, "grow": 1.0}
    theta, _, history = jax.jit(lambda: maid(upper, lower, START, ZERO, constants, steps=150, **fixed))()
    assert history.accepted.any()
    assert objective(theta) > objective(BEST) + 1e-3
    assert objective(solved[0]) < objective(BEST) + 1e-4


def test_starts_side_by_side_equal_single_ones(solved):
    starts = jnp.stack([START, jnp.zeros(GROUPS)])
    theta, _, _ = jax.jit(jax.vmap(lambda theta: maid(upper, lower, theta, ZERO, constants, steps=150, step_size=0.1)))(
        starts
    )
    np.testing.assert_allclose(theta[0], solved[0], atol=1e-2)
    np.testing.assert_allclose(theta[1], BEST, atol=0.02)
