"""BEER's bound on features that satisfy Bellman's equation exactly, its traps, and ranks that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_reg import losses
from jaxrl_reg.losses import representation

ROWS, WIDTH = 20_000, 32


def exact(gamma, bias=0.0, seed=0):
    """ReLU features of similar consecutive pairs, a last layer ``w``, and the rewards that make its values exact."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(ROWS, WIDTH))
    features, following = (
        np.maximum(x, 0.0)
        for x in (before, before + rng.choice([0.03, 0.3, 3.0], (ROWS, 1)) * rng.normal(size=before.shape))
    )
    w = rng.normal(size=WIDTH)
    reward = (features - gamma * following) @ w + (1.0 - gamma) * bias
    return *(jnp.asarray(x, jnp.float32) for x in (features, following, reward)), float(w @ w)


def violations(features, following, reward, square, gamma):
    bound = losses.beer_bound(features, following, reward, square, gamma)
    everywhere = jnp.ones_like(reward)
    share = losses.violation_fraction(losses.feature_cosine(features, following), bound, everywhere)
    loss = losses.beer_loss(features, following, bound, everywhere)
    assert bool(share > 0) == bool(loss.max() > 1e-5)
    return float(share)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99, 1.0])
def test_values_that_satisfy_bellmans_equation_are_never_penalised(gamma):
    assert violations(*exact(gamma), gamma) == 0.0


def test_the_bound_is_reached_where_the_weights_point_along_the_difference():
    features, following = jnp.array([[2.0, 1.0]]), jnp.array([[1.0, 1.0]])
    w = features - 0.5 * following  # then |r| = |w| |phi - gamma phi'|
    reward = w @ w[0]
    bound = losses.beer_bound(features, following, reward, jnp.square(w).sum(), 0.5)
    np.testing.assert_allclose(bound, losses.feature_cosine(features, following), rtol=1e-6)
    assert violations(features, following, 1.01 * reward, jnp.square(w).sum(), 0.5) == 1.0


def test_the_output_bias_belongs_into_the_reward():
    gamma, bias = 0.99, 100.0
    features, following, reward, square = exact(gamma, bias)
    assert violations(features, following, reward, square, gamma) > 0.02
    assert violations(features, following, reward - (1.0 - gamma) * bias, square, gamma) == 0.0


def test_the_discount_is_the_agents_own():
    assert violations(*exact(0.9), 0.99) > 0.01


def test_terminations_are_left_out():
    """There the reward alone is the value: nothing binds the features to those of a next pair."""
    features, following, reward, square = exact(0.9)
    reward = reward.at[:100].add(1e3)
    bound = losses.beer_bound(features, following, reward, square, 0.9)
    mask = jnp.ones_like(reward).at[:100].set(0.0)
    assert losses.beer_loss(features, following, bound, jnp.ones_like(mask))[:100].min() > 0
    assert losses.beer_loss(features, following, bound, mask).max() < 1e-5
    cosine = losses.feature_cosine(features, following)
    assert losses.violation_fraction(cosine, bound, mask) == 0.0
    assert losses.violation_fraction(cosine, bound, 1.0 - mask) == 1.0
    assert losses.violation_fraction(cosine, bound, 0.0 * mask) == 0.0


def test_the_released_mixture_of_networks():
    """Its numerator takes the online features of the next pair, its denominator the target network's."""
    features, following, far = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]]), jnp.array([[1.0, 1.0]])
    both = losses.beer_bound(features, following, jnp.array([2.0]), 4.0, 0.5)
    np.testing.assert_allclose(both, (9.0 + 0.25 * 16.0 - 4.0 / 4.0) / (2 * 0.5 * 3.0 * 4.0))
    mixed = losses.beer_bound(features, following, jnp.array([2.0]), 4.0, 0.5, far)
    np.testing.assert_allclose(mixed, 12.0 / (3.0 * np.sqrt(2.0)), rtol=1e-6)


def test_descent_stops_at_the_bound():
    """The rank is pushed up no further than Bellman's equation asks for."""
    following = jnp.array([[1.0, 1.0, 0.0]])
    features, bound, mask = following + jnp.array([[0.1, 0.0, 0.05]]), jnp.array([0.7]), jnp.ones(1)
    slope = jax.jit(jax.grad(lambda x: losses.beer_loss(x, following, bound, mask).sum()))
    for _ in range(300):
        features = features - 0.02 * slope(features)
    np.testing.assert_allclose(losses.feature_cosine(features, following), 0.7, atol=0.01)
    assert not slope(jnp.array([[1.0, -1.0, 0.0]])).any()  # below the bound nothing happens


def test_a_row_that_nothing_can_satisfy_counts_as_two_at_most():
    """Features near 0 have bounds of any depth; their gradient does not depend on how deep."""
    features, following, mask = jnp.array([[1e-4, 0.0]]), jnp.array([[1e-4, 1e-4]]), jnp.ones(1)
    bound = losses.beer_bound(features, following, mask, 1.0, 0.9)
    assert bound < -1e6
    value, slope = jax.value_and_grad(lambda x: losses.beer_loss(x, following, bound, mask).sum())(features)
    np.testing.assert_allclose(value, 1.0 + np.sqrt(0.5), rtol=1e-5)
    np.testing.assert_allclose(
        slope, jax.grad(lambda x: losses.beer_loss(x, following, bound / 1e6, mask).sum())(features)
    )


def test_units_that_are_all_off_cost_no_nan():
    zero, one, mask = jnp.zeros((2, 4)), jnp.ones((2, 4)), jnp.ones(2)

    def loss(features, following):
        bound = losses.beer_bound(features, following, mask, 1e-20, 0.9)
        return losses.beer_loss(features, following, bound, mask).sum()

    for pair in ((zero, one), (one, zero), (zero, zero)):
        value, slope = jax.value_and_grad(loss)(*pair)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_ranks_of_equal_directions(rank):
    rng = np.random.default_rng(rank)
    left, right = (np.linalg.qr(rng.normal(size=(n, rank)))[0] for n in (40, 16))
    features = jnp.asarray(left @ right.T, jnp.float32)
    assert losses.effective_rank(features) == pytest.approx(rank, rel=1e-4)
    assert losses.srank(features) == rank


def test_srank_leaves_out_the_tail():
    features = jnp.diag(jnp.array([90.0, 8.0, 1.5, 0.5]))
    assert [float(losses.srank(features, tolerance)) for tolerance in (0.004, 0.01, 0.05, 0.5)] == [4.0, 3.0, 2.0, 1.0]
    assert losses.effective_rank(features) < 2.0


def features_of_every_kind():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(64, 48))
    yield "all ranks", normal
    yield "wide", normal[:20]
    yield "one row", normal[:1]
    yield "one unit", normal[:, :1]
    yield "alike after ReLU", np.maximum(rng.normal(size=(64, 1)) + 0.1 * normal, 0.0)
    yield "dead units", np.where(np.arange(48) % 3 == 0, normal, 0.0)
    yield "one direction", np.ones((64, 48))
    yield "seven directions", normal[:, :7] @ normal[:7]
    yield "twice the same", np.concatenate([normal[:, :24]] * 2, axis=1)
    yield "five magnitudes", normal * np.logspace(0, -5, 48)
    yield "large", 1e30 * normal
    yield "small", 1e-30 * normal


@pytest.mark.parametrize(
    ("name", "features"), [pytest.param(*kind, id=kind[0].replace(" ", "_")) for kind in features_of_every_kind()]
)
def test_singular_values_are_numpys(name, features):
    features = np.asarray(features, np.float32)
    expected = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    found = jax.jit(representation._singular_values)(features)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.where(expected > 1e-6 * expected[0], expected, 0.0), atol=1e-6 * expected[0])
    rank = np.linalg.matrix_rank(features)
    assert (found[:rank] > 0).all()
    if name != "five magnitudes":  # its smallest ones are at the edge
        assert (found[rank:] == 0).all(), "rounding counts as a direction"


def test_ranks_call_no_lapack_on_devices_that_run_at_once():
    """LAPACK's threads, called from two devices of a CPU at once, wait for one another for ever."""
    features = np.random.default_rng(1).normal(size=(2, 3, 16, 12)).astype(np.float32)
    mesh = jax.make_mesh((2,), ("members",))
    members = PartitionSpec("members")

    def ranks(features):
        each = jax.vmap(jax.vmap(lambda x: jnp.stack([losses.srank(x), losses.effective_rank(x)])))
        return each(features)

    both = jax.jit(jax.shard_map(ranks, mesh=mesh, in_specs=members, out_specs=members))
    placed = jax.device_put(features, NamedSharding(mesh, members))
    assert "lapack" not in both.lower(placed).as_text()
    found = np.asarray(both(placed))
    for member in range(2):
        for critic in range(3):
            sizes = np.linalg.svd(features[member, critic], compute_uv=False)
            share = sizes / sizes.sum()
            expected = [(np.cumsum(share) < 0.99).sum() + 1, np.exp(-(share * np.log(share)).sum())]
            np.testing.assert_allclose(found[member, critic], expected, rtol=1e-5)


def test_ranks_send_no_gradient():
    features = jnp.asarray(np.random.default_rng(2).normal(size=(6, 4)), jnp.float32)
    for measure in (losses.srank, losses.effective_rank):
        np.testing.assert_array_equal(jax.jit(jax.grad(measure))(features), 0.0)
        np.testing.assert_array_equal(jax.grad(measure)(jnp.zeros((6, 4))), 0.0)


def test_dormant_units():
    features = jnp.array([[1.0, 0.0, 0.02, -2.0], [1.0, 0.0, 0.01, 2.0]])
    assert losses.dormant_fraction(features, 0.0) == 0.25
    assert losses.dormant_fraction(features, 0.1) == 0.5


def test_measures_of_features_that_are_zero():
    nothing = jnp.zeros((6, 4))
    assert losses.effective_rank(nothing) == 0.0
    assert losses.srank(nothing) == 0.0
    assert losses.dormant_fraction(nothing) == 1.0
    assert not losses.feature_cosine(nothing, nothing).any()
