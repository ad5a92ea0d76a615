"""Regularised planning and exploration against closed forms, brute force and the theorem they rest on."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.tabular import demonstrations, finite_horizon
from jaxrl_reg.tabular.finite_horizon import Process

H, S, A = 3, 4, 2
TEMPERATURE = 0.3


@pytest.fixture(scope="module")
def process():
    rng = np.random.default_rng(0)
    arrays = rng.dirichlet(np.ones(S), (H, S, A)), rng.uniform(size=(H, S, A)), rng.dirichlet(np.ones(S))
    return Process(*(jnp.asarray(array, jnp.float32) for array in arrays))


@pytest.fixture(scope="module")
def policies():
    rng = np.random.default_rng(1)
    return [jnp.asarray(rng.dirichlet(np.ones(A), (H, S)), jnp.float32) for _ in range(2)]


def paths(process, policy):
    """Every trajectory with its probability, return and chances of the actions; the definition, by brute force."""
    transition, reward, initial = (np.asarray(array, np.float64) for array in process)
    for states in itertools.product(range(S), repeat=H):
        for actions in itertools.product(range(A), repeat=H):
            chance, gain = initial[states[0]], 0.0
            for h in range(H):
                chance *= float(policy[h, states[h], actions[h]])
                gain += reward[h, states[h], actions[h]]
                if h + 1 < H:
                    chance *= transition[h, states[h], actions[h], states[h + 1]]
            yield states, actions, chance, gain


def test_values_visits_and_divergence_by_enumeration(process, policies):
    policy, reference = np.asarray(policies)
    value, visits, divergence = 0.0, np.zeros((H, S)), 0.0
    for states, actions, chance, gain in paths(process, policy):
        value += chance * gain
        visits[range(H), states] += chance
        ratios = (
            float(policy[h, s, a] / reference[h, s, a]) for h, s, a in zip(range(H), states, actions, strict=True)
        )
        divergence += chance * np.log(np.prod(list(ratios)))
    np.testing.assert_allclose(finite_horizon.start_value(process, policy), value, rtol=1e-5)
    np.testing.assert_allclose(finite_horizon.visitation(process, policy), visits, rtol=1e-5)
    np.testing.assert_allclose(finite_horizon.trajectory_kl(process, policy, jnp.log(reference)), divergence, rtol=1e-4)


def test_the_soft_policy_is_the_best_of_the_regularised_return(process, policies):
    log_reference = jnp.log(policies[1])

    def objective(policy):
        penalty = finite_horizon.trajectory_kl(process, policy, log_reference)
        return finite_horizon.start_value(process, policy) - TEMPERATURE * penalty

    value, _, log_policy = finite_horizon.soft_value_iteration(process, log_reference, TEMPERATURE)
    best = objective(jnp.exp(log_policy))
    np.testing.assert_allclose(best, process.initial @ value[0], rtol=1e-5)
    slopes = jax.grad(lambda logits: objective(jax.nn.softmax(logits)))(log_policy)
    np.testing.assert_allclose(slopes, 0, atol=1e-6)
    assert all(objective(policy) < best for policy in policies)


def test_the_temperature_interpolates_between_the_best_policy_and_the_reference(process, policies):
    log_reference = jnp.log(policies[1])
    value, q = finite_horizon.value_iteration(process)
    cold, _, log_policy = finite_horizon.soft_value_iteration(process, log_reference, 1e-6)
    np.testing.assert_allclose(cold, value, atol=1e-4)
    assert (log_policy.argmax(-1) == q.argmax(-1)).all()
    assert jnp.isfinite(cold).all()
    hot, _, log_policy = finite_horizon.soft_value_iteration(process, log_reference, 1e4)
    np.testing.assert_allclose(log_policy, log_reference, atol=1e-3)
    np.testing.assert_allclose(hot, finite_horizon.evaluate(process, policies[1]), atol=5e-3)


def test_small_temperatures_do_not_overflow_and_forbidden_actions_stay_forbidden():
    q, log_reference = jnp.array([1.0, 2.0, 3.0]), jnp.array([jnp.log(0.5), jnp.log(0.5), -jnp.inf])
    for temperature in (1e-2, 1e-10, 1e-30):
        value, log_policy = losses.kl_regularised_value(q, log_reference, temperature)
        assert value == pytest.approx(2.0 + temperature * np.log(0.5), rel=1e-6)
        np.testing.assert_array_equal(jnp.exp(log_policy), [0, 1, 0])
    # The naive form, weights times exponentials, does overflow.
    assert not jnp.isfinite(1e-2 * jnp.log((jnp.exp(log_reference) * jnp.exp(q / 1e-2)).sum()))
    slope = jax.grad(lambda q: losses.kl_regularised_value(q, log_reference, 1e-2)[0])(q)
    np.testing.assert_array_equal(slope, [0, 1, 0])


def test_the_clone_is_the_least_of_its_loss_and_keeps_every_action():
    counts = jnp.array([[0.0, 0.0], [3.0, 0.0], [2.0, 5.0]])
    log_policy = demonstrations.clone(counts)
    np.testing.assert_allclose(jnp.exp(log_policy), [[1 / 2, 1 / 2], [4 / 5, 1 / 5], [3 / 9, 6 / 9]], rtol=1e-6)

    def loss(logits):
        return losses.log_barrier_cloning_loss(jax.nn.log_softmax(logits), counts, 1.0).sum()

    np.testing.assert_allclose(jax.grad(loss)(log_policy), 0, atol=1e-6)
    assert jnp.isinf(demonstrations.clone(counts, 0.0)[1, 1])  # the plain estimate: an infinite divergence


def test_linear_is_tabular_for_one_hot_features():
    rng = np.random.default_rng(2)
    counts = jnp.asarray(rng.integers(1, 5, (H, S, A, S)), jnp.float32)
    features = jnp.eye(S * A).reshape(S, A, S * A)
    tabular, linear = demonstrations.estimate(counts), demonstrations.estimate(counts, features, 1e-6)
    np.testing.assert_allclose(linear.transition, tabular.transition, atol=1e-4)
    np.testing.assert_allclose(linear.width, tabular.width, rtol=1e-4)
    fitted = demonstrations.clone_linear(counts.sum(-1), features, ridge=1e-3)
    np.testing.assert_allclose(fitted, demonstrations.clone(counts.sum(-1)), atol=1e-3)


def test_a_cell_never_seen_is_as_wide_as_one_says():
    counts = jnp.zeros((1, 2, 2, 2)).at[0, 0, 0, 1].set(4.0)
    for unseen in (1.0, 1e6):
        model = demonstrations.estimate(counts, unseen=unseen)
        np.testing.assert_array_equal(model.width, [[[0.5, unseen], [unseen, unseen]]])
        np.testing.assert_array_equal(model.transition.sum(-1), [[[1, 0], [0, 0]]])
    reward, uniform = jnp.zeros((1, 2, 2)), jnp.full((1, 2, 2), jnp.log(0.5))
    found = demonstrations.plan(model, reward, uniform, 0.1, 0.1)
    np.testing.assert_allclose(found.upper, [[[0.05, 1], [1, 1]]], rtol=1e-5)  # cut to what one step can bring


def test_linear_features_share_what_they_learn():
    counts = jnp.zeros((1, 2, 2, 2)).at[0, 0, 0, 1].set(50.0)
    features = jnp.ones((2, 2, 1))  # all cells are the same to them
    model = demonstrations.estimate(counts, features, 1e-3)
    np.testing.assert_allclose(model.transition, jnp.broadcast_to(jnp.array([0.0, 1.0]), (1, 2, 2, 2)), atol=1e-3)
    np.testing.assert_allclose(model.width, 50**-0.5, rtol=1e-3)


def test_bounds_and_certificate_hold(process, policies):
    """With valid bonuses around the true model, upper and lower enclose Q and the certificate bounds the loss."""
    log_reference = jnp.log(policies[1])
    value, q, _ = finite_horizon.soft_value_iteration(process, log_reference, TEMPERATURE)
    model = demonstrations.Model(process.transition, jnp.full((H, S, A), 0.05))
    found = demonstrations.plan(model, process.reward, log_reference, TEMPERATURE, 0.3)
    assert (found.lower <= q + 1e-6).all()
    assert (q <= found.upper + 1e-6).all()
    policy = jnp.exp(found.log_policy)
    regularised = finite_horizon.start_value(process, policy) - TEMPERATURE * finite_horizon.trajectory_kl(
        process, policy, log_reference
    )
    loss = process.initial @ value[0] - regularised
    assert 0 <= loss + 1e-6 <= process.initial @ found.certificate[0] < 1
    nothing = demonstrations.plan(
        model._replace(width=0 * model.width), process.reward, log_reference, TEMPERATURE, 1.0
    )
    np.testing.assert_allclose(nothing.certificate, 0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_theorem(seed):
    """No regularised optimum loses more than lam KL(expert || clone) to the expert it was cloned from."""
    rng = np.random.default_rng(seed)
    arrays = rng.dirichlet(0.3 * np.ones(S), (H, S, A)), rng.uniform(size=(H, S, A)), rng.dirichlet(np.ones(S))
    process = Process(*(jnp.asarray(array, jnp.float32) for array in arrays))
    _, q = finite_horizon.value_iteration(process)
    expert = 0.9 * jax.nn.one_hot(q.argmax(-1), A) + 0.1 / A
    draw = jax.vmap(lambda key: finite_horizon.episode(key, process, jnp.log(expert)))
    states, actions, _ = draw(jax.random.split(jax.random.key(seed), 20))
    log_clone = demonstrations.clone(demonstrations.count(states, actions, (S, A)))
    for temperature in (0.01, 0.1, 1.0):
        log_policy = finite_horizon.soft_value_iteration(process, log_clone, temperature)[2]
        lost = finite_horizon.start_value(process, expert) - finite_horizon.start_value(process, jnp.exp(log_policy))
        assert lost <= temperature * finite_horizon.trajectory_kl(process, expert, log_clone) + 1e-6


def test_episodes_are_drawn_from_the_process(process, policies):
    draw = jax.jit(jax.vmap(lambda key: finite_horizon.episode(key, process, jnp.log(policies[0]))))
    states, actions, following = draw(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_array_equal(states[:, 1:], following[:, :-1])
    counts = demonstrations.count(states, actions, (S, A))
    visits = finite_horizon.visitation(process, policies[0])
    np.testing.assert_allclose(counts / 20_000, visits[..., None] * policies[0], atol=0.015)


def test_the_lock_and_its_exact_values():
    process = finite_horizon.lock(12)
    np.testing.assert_allclose(process.transition.sum(-1), 1, rtol=1e-6)
    value, q = finite_horizon.value_iteration(process)
    assert float(value[0, 0]) == pytest.approx(0.98**11 + 0.05 * fallen(), abs=1e-4)
    uniform = jnp.full((12, 12, 4), 0.25)
    assert finite_horizon.start_value(process, uniform) < 0.05
    assert (jnp.diagonal(q, axis1=0, axis2=1).argmax(0) < 4).all()


def fallen():
    """The chance to be back in the first column at the end, if every action is the best one, by forward counting."""
    process = finite_horizon.lock(12)
    _, q = finite_horizon.value_iteration(process)
    visits = finite_horizon.visitation(process, jax.nn.one_hot(q.argmax(-1), 4))
    return float(visits[-1, 0])


def test_a_reward_is_learnt_from_comparisons():
    """Its differences of returns are those of the judge's own, and nothing is known of what was never compared."""
    rng = np.random.default_rng(3)
    reward = jnp.zeros((H, S, A)).at[2, 1, 0].set(1.0).at[0, 0, 1].set(0.8)
    pairs = [
        (jnp.asarray(rng.integers(S - 1, size=(20_000, H))), jnp.asarray(rng.integers(A, size=(20_000, H))))
        for _ in "ab"
    ]
    gains = [reward[jnp.arange(H), states, actions].sum(-1) for states, actions in pairs]
    said = demonstrations.prefer(jax.random.key(0), *gains)
    assert abs(float(said[gains[0] == gains[1]].mean()) - 0.5) < 0.02
    assert abs(float(said[gains[0] - gains[1] == 1.0].mean()) - 1 / (1 + np.exp(-1))) < 0.03
    learn = jax.jit(lambda said, ridge: demonstrations.reward_from_preferences(*pairs, said, (S, A), ridge, 100))
    found = learn(said, 1e-4)
    assert (found[:, S - 1] == 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    other = jnp.asarray(rng.integers(S - 1, size=(500, H))), jnp.asarray(rng.integers(A, size=(500, H)))
    true, learnt = (np.asarray(r[jnp.arange(H), other[0], other[1]].sum(-1)) for r in (reward, found))
    np.testing.assert_allclose(learnt - learnt.mean(), true - true.mean(), atol=0.15)
    assert np.abs(learn(said, 10.0)).max() < 0.05
    # Where the judge says the opposite, so does the reward.
    assert learn(1.0 - said, 1e-4)[2, 1, 0] < found[2, 1, 0] - 0.5


def test_the_solution_is_the_constrained_minimum():
    rng = np.random.default_rng(4)
    pairs = [(jnp.asarray(rng.integers(2, size=(60, 2))), jnp.asarray(rng.integers(2, size=(60, 2)))) for _ in "ab"]
    said, ridge = jnp.asarray(rng.integers(2, size=60), jnp.float32), 0.05
    found = demonstrations.reward_from_preferences(*pairs, said, (2, 2), ridge)

    def objective(reward):
        gains = [reward[jnp.arange(2), states, actions].sum(-1) for states, actions in pairs]
        return losses.bradley_terry_loss(*gains, said).mean() + 0.5 * ridge * jnp.square(reward).sum()

    slope = jax.grad(objective)(found)
    # Interior: no slope; at a bound: the slope points outwards.
    inside = (found > 0) & (found < 1)
    assert inside.any()
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(jnp.where(inside, slope, 0.0), 0.0, atol=1e-4)
    assert (jnp.where(found == 0, slope, 0.0) >= -1e-6).all()


def test_exploration_near_a_clone_finds_what_undirected_exploration_does_not():
    process = finite_horizon.lock(6)
    _, q = finite_horizon.value_iteration(process)
    expert = 0.85 * jax.nn.one_hot(q.argmax(-1), 4) + 0.15 / 4
    draw = jax.vmap(lambda key: finite_horizon.episode(key, process, jnp.log(expert)))
    states, actions, _ = draw(jax.random.split(jax.random.key(0), 40))
    clone = demonstrations.clone(demonstrations.count(states, actions, (6, 4)))

    @jax.jit
    def run(reference):
        return demonstrations.ucbvi_ent(jax.random.key(1), process, reference, 0.02, 0.1, 40)

    near, far = run(clone), run(jnp.full((6, 6, 4), jnp.log(0.25)))
    best = 0.98**5
    assert near.value[-1] > 0.9 * best
    assert far.value[-1] < 0.5 * best
    assert near.certificate.shape == (40,)
