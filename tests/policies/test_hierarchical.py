"""Keys and a camera: densities and divergences by enumeration of every action, bins, and the published size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import hierarchical
from jaxrl_reg.types import Spec

SPACE = hierarchical.Space(groups=(3, 2), axes=2, bins=3)
SPEC = Spec(observation_dim=2, action_dim=4)
KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2)), jnp.float32)


@pytest.fixture(scope="module")
def policy():
    return hierarchical.make(SPEC, SPACE, (8,), temperature=0.5)


@pytest.fixture(scope="module")
def params(policy):
    large = jax.jit(lambda i: jax.tree.map(lambda x: 3.0 * x, policy.init(jax.random.fold_in(KEY, i))))
    return [large(i) for i in range(2)]


@pytest.fixture(scope="module")
def everything():
    """Every action once ``[54, 4]``: keys of both groups, and the nine aims."""
    grid = np.meshgrid(np.arange(3), np.arange(2), [-10.0, 0.0, 10.0], [-10.0, 0.0, 10.0], indexing="ij")
    return jnp.asarray(np.stack(grid, -1).reshape(-1, 4), jnp.float32)


def table(policy, params, everything):
    """Log-probability of every action for each observation, ``[2, 54]``."""
    return jax.jit(jax.vmap(lambda x: policy.log_prob(params, jnp.broadcast_to(x, (54, 2)), everything)))(X)


def test_every_action_counted_once_makes_one(policy, params, everything):
    chances = np.exp(table(policy, params[0], everything))
    np.testing.assert_allclose(chances.sum(-1), 1.0, rtol=1e-5)
    assert chances.std() > 0.01  # not by being uniform


def test_entropy_and_divergence_equal_those_over_all_actions(policy, params, everything):
    p, q = (np.float64(table(policy, each, everything)) for each in params)
    np.testing.assert_allclose(policy.entropy(params[0], X), -(np.exp(p) * p).sum(-1), rtol=1e-4)

    @jax.jit
    def divergence(first, second):
        one, two = policy.apply(first, X), policy.apply(second, X)
        switch = jnp.broadcast_to(hierarchical.switch(SPACE), one.logits.shape)
        return losses.switched_kl(*one, *two, switch)

    np.testing.assert_allclose(divergence(*params), (np.exp(p) * (p - q)).sum(-1), rtol=1e-4)
    slopes = jax.jit(jax.grad(lambda first, second: divergence(first, second).sum(), argnums=(0, 1)))(*params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_densities_of_actions_at_rest_have_finite_gradients(policy, params):
    action = jnp.zeros((2, 4))
    value, slope = jax.jit(jax.value_and_grad(lambda p: policy.log_prob(p, X, action).sum()))(params[0])
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_samples_follow_the_density_and_come_back(policy, params, everything):
    action, log_prob = jax.jit(lambda p, x: policy.sample(p, x, KEY, (20_000,)))(params[0], X[:1])
    assert action.shape == (20_000, 1, 4)
    there_and_back = jax.jit(lambda action: hierarchical.decode(*hierarchical.encode(action, SPACE), SPACE))
    np.testing.assert_allclose(there_and_back(action), action, atol=1e-5)
    found = (np.round(action)[:, 0, None] == np.asarray(everything)).all(-1).mean(0)
    np.testing.assert_allclose(found, np.exp(table(policy, params[0], everything)[0]), atol=0.015)
    np.testing.assert_allclose(log_prob[:5, 0], policy.log_prob(params[0], X[:1], action[:5])[:, 0], rtol=1e-5)


def test_the_temperature_divides_in_one_place(policy, params):
    cold = hierarchical.make(SPEC, SPACE, (8,), temperature=0.25)
    np.testing.assert_allclose(cold.apply(params[0], X).logits, 2.0 * policy.apply(params[0], X).logits, rtol=1e-6)


def test_the_mode_rests_where_the_switch_is_off(policy, params):
    distribution = policy.apply(params[0], X)
    action = policy.mode(params[0], X)
    on = np.asarray(distribution.logits.argmax(-1) % 2 == 1)
    np.testing.assert_array_equal((np.asarray(action)[:, 2:] != 0).any(-1), on)


def test_bins_are_fine_near_rest_and_their_middles_come_back():
    space = hierarchical.Space(groups=(2,), axes=1, bins=11)
    middles = hierarchical.movement(jnp.arange(11), space)
    np.testing.assert_array_equal(hierarchical.quantise(middles, space), jnp.arange(11))
    np.testing.assert_allclose(middles, -middles[::-1], atol=1e-5)
    assert middles[-1] == pytest.approx(10.0, rel=1e-5)
    assert (np.diff(middles[5:], 2) > 0).all()  # ever wider
    # y = 10 log(1 + 10 x / 10) / log 11, bin round((y + 10) / 2): 1.3 gives y = 3.47, and 6.74 rounds to 7.
    np.testing.assert_array_equal(hierarchical.quantise(jnp.array([1.3, -1.3, 50.0, 0.0]), space), [7, 3, 10, 5])


def test_the_published_space_has_8640_choices_of_keys_and_switch():
    space = hierarchical.Space(groups=(10, 3, 3, 3, 2, 2, 2, 2))
    assert (space.choices, space.aims, space.rest) == (8640, 121, 60)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="action_dim=3"):
        hierarchical.make(Spec(2, 3), SPACE)
    with pytest.raises(UserError, match="bins=4"):
        hierarchical.make(SPEC, SPACE._replace(bins=4))


def test_cloning_learns_to_walk_or_to_look_around_but_not_both():
    space = hierarchical.Space(groups=(2,), axes=1, bins=3)
    policy = hierarchical.make(Spec(1, 2), space, ())
    wanted, observation = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, -10.0], [0.0, 10.0]]), jnp.ones((4, 1))

    @jax.jit
    def fit(params):
        def body(params, _):
            slope = jax.grad(lambda p: -policy.log_prob(p, observation, wanted).mean())(params)
            return jax.tree.map(lambda x, g: x - 2.0 * g, params, slope), None

        return jax.lax.scan(body, params, length=300)[0]

    chances = jnp.exp(policy.log_prob(fit(jax.jit(policy.init)(KEY)), observation, wanted))
    np.testing.assert_allclose(chances, [1 / 2, 1 / 2, 1 / 4, 1 / 4], atol=0.02)  # independent heads: 1/4 and 1/8
