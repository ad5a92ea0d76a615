"""Policies against changing losses: numbers by hand, lemmas in cases, estimators exactly, regret by enumeration."""

import itertools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxrl_reg.errors import UserError
from jaxrl_reg.losses import kl_regularised_value, log_barrier_policy
from jaxrl_reg.tabular import adversarial, finite_horizon

ESTIMATORS = adversarial.ESTIMATORS


def policy_of(total, step_size, regulariser):
    if regulariser == "log_barrier":
        return jnp.exp(log_barrier_policy(total, step_size))
    uniform = jnp.full_like(total, -jnp.log(float(total.shape[-1])))
    return jnp.exp(kl_regularised_value(-total, uniform, 1 / step_size)[1])


def test_policies_have_the_numbers_of_the_equations():
    total = jnp.array([0.0, 1.0, 3.0, -2.0])
    found = np.exp(log_barrier_policy(total, 0.5))
    np.testing.assert_allclose(found, [0.253079, 0.224651, 0.183441, 0.338829], atol=2e-6)
    np.testing.assert_allclose(policy_of(total, 0.5, "entropy"), [0.219880, 0.133364, 0.049062, 0.597695], atol=2e-6)
    many = np.zeros((3, 1000), np.float32)
    many[1, 0], many[2] = -1e9, np.arange(1000)
    wide = np.exp(log_barrier_policy(many, 1.0), dtype=np.float64)
    np.testing.assert_allclose(wide.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(wide[0], 1e-3, rtol=1e-5)


@jax.jit
def bounded_share(losses, step_size):
    """Regret of the barrier over the bound of its lemma, for ``losses [K, A]``."""
    before = jnp.cumsum(losses, axis=0) - losses
    policy = policy_of(before, step_size, "log_barrier")
    episodes, actions = losses.shape
    regret = (policy * losses).sum() - losses.sum(0).min()
    return regret / (actions * jnp.log(episodes) / step_size + step_size * (policy * losses**2).sum())


def signed(power):
    return st.tuples(st.sampled_from([-1.0, 1.0]), st.floats(-3.0, power)).map(lambda pair: pair[0] * 10.0 ** pair[1])


@given(hnp.arrays(np.float64, (5, 3), elements=signed(4.0)), st.floats(0.01, 3.0))
def test_the_barriers_lemma_holds_for_losses_of_any_sign_and_size(losses, step_size):
    with jax.enable_x64(True):
        assert bounded_share(losses, step_size) <= 1 + 1e-9


def test_one_loss_moves_the_barrier_by_what_its_lemma_allows_and_entropy_by_more():
    def worst(gap, regulariser):
        def ratio(size):
            loss = jnp.array([0.0, -1.0]) * size
            before, after = (policy_of(total, 0.5, regulariser) for total in (gap, gap + loss))
            return (before - after) @ loss / (0.5 * (before * loss**2).sum())

        return jax.vmap(ratio)(jnp.geomspace(1e-2, 1e4, 200)).max()

    with jax.enable_x64(True):
        gaps = jnp.stack([jnp.zeros(4), jnp.array([5.0, 10.0, 20.0, 1e6])], axis=1)
        barrier = jax.jit(jax.vmap(lambda gap: worst(gap, "log_barrier")))(gaps)
        np.testing.assert_array_less(barrier, 1 + 1e-4)
        np.testing.assert_allclose(barrier[:3], [0.39, 0.48, 0.58], atol=0.02)
        assert jax.jit(lambda gap: worst(gap, "entropy"))(gaps[2]) > 10


def test_estimates_have_the_numbers_of_the_equations():
    features = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])[None, None]
    occupancy, first = jnp.array([[[0.9, 0.08, 0.02]]]), jnp.zeros(1, jnp.int32)

    @jax.jit
    def found(action, loss):
        return {
            name: adversarial.estimate_values(
                features, occupancy, first, action[None], loss[None], 0.01, estimator=name
            )[0, 0]
            for name in ESTIMATORS
        }

    played = found(np.int32(1), np.float32(1.0))
    np.testing.assert_allclose(played["plain"], [0.308784, 8.737779, -8.367238], rtol=1e-5)
    np.testing.assert_allclose(played["magnitude_reduced"], [0.308784, 8.570434, -0.669379], rtol=1e-5)
    np.testing.assert_allclose(played["importance"], [0.0, 1 / 0.09, 0.0], rtol=1e-5)
    means = dict.fromkeys(ESTIMATORS, 0.0)
    for action, loss in enumerate(np.float32([0.5, 0.54, 0.06])):  # features times (.5, .3)
        for name, estimate in found(np.int32(action), loss).items():
            means[name] += occupancy[0, 0, action] * estimate
    for name in ("plain", "magnitude_reduced"):
        np.testing.assert_allclose(means[name], [0.495900, 0.506384, 0.088696], atol=1e-5)


def test_reduced_estimates_have_the_plain_mean_and_stay_above_their_bound():
    """Two steps, all pairs of every step played in turn, 50 random sets of features and policies at once."""
    rng, ridge = np.random.default_rng(0), 1e-3
    features = rng.normal(size=(50, 2, 2, 4, 3))
    features /= np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1)
    occupancy = rng.dirichlet(np.full(8, 0.3), (50, 2)).reshape(50, 2, 2, 4)
    later = rng.uniform(size=(50, 2))
    pairs = np.array(list(itertools.product(range(2), range(4))))

    @jax.jit
    def every(features, occupancy, losses):
        def played(pair, estimator):
            states, actions = (jnp.full(2, index) for index in pair)
            return adversarial.estimate_values(features, occupancy, states, actions, losses, ridge, estimator=estimator)

        return [
            jax.vmap(lambda pair, name=name: played((pair[0], pair[1]), name))(pairs)
            for name in ("plain", "magnitude_reduced")
        ]

    with jax.enable_x64(True):
        plain, reduced = (np.asarray(x) for x in jax.vmap(every)(features, occupancy, later))  # [50, pairs, H, S, A]
    chance = occupancy.reshape(50, 2, 8)
    means = [np.einsum("nhp,nphsa->nhsa", chance, x) for x in (plain, reduced)]
    np.testing.assert_allclose(*means, atol=1e-6)
    left = np.array([2.0, 1.0])[:, None, None]
    norms = np.linalg.norm(features, axis=-1)
    assert (reduced >= -left * norms[:, None] / np.sqrt(ridge) - 1e-6).all()
    assert plain.min() < 3 * reduced.min() < 0
    gram = np.einsum("nhsa,nhsad,nhsae->nhde", occupancy, features, features) + ridge * np.eye(3)
    to_go = later[:, ::-1].cumsum(1)[:, ::-1]
    mean_feature = np.einsum("nhsa,nhsad->nhd", occupancy, features)
    expected = np.einsum("nhsad,nhd->nhsa", features, np.linalg.solve(gram, mean_feature[..., None])[..., 0])
    np.testing.assert_allclose(means[0], expected * to_go[..., None, None], atol=1e-6)


@pytest.fixture(scope="module")
def world():
    process, features = adversarial.linear_process(jax.random.key(0), 3, 2, 2, 2)
    coefficients = adversarial.adversary(jax.random.key(1), 60, 2, 2, "switch")
    return process, features, adversarial.linear_losses(features, coefficients)


def test_a_linear_process_is_one_and_its_losses_are_in_range(world):
    process, features, losses = world
    np.testing.assert_allclose(process.transition.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(features.sum(-1), 1, rtol=1e-5)
    flat = np.asarray(process.transition).transpose(1, 2, 0, 3).reshape(6, -1)
    assert np.linalg.matrix_rank(flat, tol=1e-4) == 2
    assert losses.shape == (60, 2, 3, 2)
    assert 0 <= losses.min() <= losses.max() <= 1
    for kind in adversarial.KINDS:
        drawn = np.asarray(adversarial.adversary(jax.random.key(2), 30_000, 1, 3, kind, 0.2)[:, 0])
        before, after = np.sort(drawn[:3750].mean(0)), np.sort(drawn[22_500:26_250].mean(0))
        np.testing.assert_allclose(before, [0.3, 0.5, 0.5], atol=0.03)
        np.testing.assert_allclose(after, [0.1 if kind == "switch" else 0.3, 0.5, 0.5], atol=0.03)
        assert (drawn[:3750].mean(0).argmin() == drawn[26_250:].mean(0).argmin()) == (kind == "fixed")


def test_the_best_policy_in_hindsight_is_the_best_of_all(world):
    process, _, losses = world
    total, policy = adversarial.best_in_hindsight(process, losses)
    chances = np.asarray(process.transition, np.float64)
    summed = np.asarray(losses, np.float64).sum(0)

    def loss_of(actions):  # [H, S] of one policy
        states, found = np.asarray(process.initial, np.float64), 0.0
        for step, choice in enumerate(actions):
            found += states @ summed[step, range(3), choice]
            states = states @ chances[step, range(3), choice]
        return found

    every = [loss_of(np.reshape(actions, (2, 3))) for actions in itertools.product(range(2), repeat=6)]
    np.testing.assert_allclose(total, min(every), rtol=1e-5)
    np.testing.assert_allclose(loss_of(np.asarray(policy).argmax(-1)), min(every), rtol=1e-5)


@pytest.mark.parametrize(("regulariser", "estimator"), [("log_barrier", "plain"), ("entropy", "magnitude_reduced")])
def test_a_run_is_what_the_equations_say(world, regulariser, estimator):
    """Every episode anew in double precision, from the same keys."""
    process, features, losses = world
    key, step_size, ridge, bonus = jax.random.key(3), 0.5, 0.05, 0.02
    run = jax.jit(
        lambda key: adversarial.optimise_policy(
            key, process, losses[:12], features, step_size, ridge, bonus, regulariser=regulariser, estimator=estimator
        )
    )
    trace = run(key)
    phi, transition, loss = (np.asarray(x, np.float64) for x in (features, process.transition, losses))
    total, values, least = np.zeros((2, 3, 2)), [], []
    episode = jax.jit(lambda key, policy: finite_horizon.episode(key, process, jnp.log(policy)))
    for k, episode_key in enumerate(jax.random.split(key, 12)):
        policy = np.asarray(policy_of(jnp.asarray(total, jnp.float32), step_size, regulariser), np.float64)
        states, actions, _ = (np.asarray(x) for x in episode(episode_key, policy))
        visits, value, found, inverses = np.asarray(process.initial, np.float64), 0.0, np.zeros_like(total), []
        for h in range(2):
            q = visits[:, None] * policy[h]
            value += (q * loss[k, h]).sum()
            inverses.append(np.linalg.inv(np.einsum("sa,sad,sae->de", q, phi, phi) + ridge * np.eye(2)))
            kernel = phi @ inverses[h] @ phi[states[h], actions[h]]
            to_go = sum(loss[k, g, states[g], actions[g]] for g in range(h, 2))
            found[h] = kernel * to_go
            if estimator == "magnitude_reduced":
                every = np.minimum(phi @ inverses[h] @ phi.reshape(6, 2).T, 0) @ q.ravel()
                found[h] += (2 - h) * (every - np.minimum(kernel, 0))
            visits = np.einsum("sa,sat->t", q, transition[h])
        following = np.zeros(3)
        least.append(found.min())
        for h in (1, 0):
            width = np.einsum("sad,de,sae->sa", phi, inverses[h], phi)
            tried = bonus * (width + (policy[h] * width).sum(1, keepdims=True)) + 1.5 * transition[h] @ following
            found[h] -= tried
            following = (policy[h] * tried).sum(1)
        total, values = total + found, [*values, value]
    np.testing.assert_allclose(trace.value, values, rtol=1e-4)
    np.testing.assert_allclose(trace.estimate_min, least, rtol=1e-3, atol=1e-4)
    best = [adversarial.best_in_hindsight(process, losses[: k + 1])[0] for k in (0, 11)]
    np.testing.assert_allclose(trace.regret[0], values[0] - best[0], atol=1e-4)
    np.testing.assert_allclose(trace.regret[-1], sum(values) - best[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(trace.optimum, best[1], rtol=1e-6)


def test_a_learner_finds_a_good_action_and_members_are_runs_of_their_own():
    """One state, one step, one-hot features: a bandit. Settings are mapped; nothing to choose costs nothing."""
    process = finite_horizon.Process(jnp.ones((1, 1, 3, 1)), jnp.zeros((1, 1, 3)), jnp.ones(1))
    losses = jnp.broadcast_to(jnp.array([0.9, 0.1, 0.9]), (300, 1, 1, 3))

    def run(key, step_size):
        return adversarial.optimise_policy(
            key, process, losses, jnp.eye(3)[None], step_size, regulariser="entropy", estimator="importance"
        )

    keys, sizes = jax.random.split(jax.random.key(0), 2), jnp.array([0.3, 1e-6])
    many = jax.jit(jax.vmap(run))(keys, sizes)
    assert many.value[0, -50:].mean() < 0.2
    np.testing.assert_allclose(many.value[1], 1.9 / 3, rtol=1e-3)
    np.testing.assert_allclose(many.regret[1, -1], 300 * (1.9 / 3 - 0.1), rtol=1e-3)
    np.testing.assert_allclose(many.value[0], jax.jit(run)(keys[0], sizes[0]).value, rtol=1e-4)
    alone = process._replace(transition=jnp.ones((1, 1, 1, 1)))
    trace = jax.jit(adversarial.optimise_policy)(keys[0], alone, losses[..., :1], jnp.ones((1, 1, 1)))
    np.testing.assert_allclose(trace.regret, 0, atol=1e-3)


def test_geometric_resampling_has_the_inverse_as_its_mean():
    rng = np.random.default_rng(0)
    kinds = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    drawn = kinds[rng.integers(2, size=(4000, 40))]
    found = jax.jit(jax.vmap(lambda vectors: adversarial.geometric_resampling(vectors, 0.2)))(drawn).mean(0)
    covariance = kinds.T @ kinds / 2 + 0.2 * np.eye(2)
    np.testing.assert_allclose(found, np.linalg.inv(covariance), rtol=0.03, atol=0.03)


def test_the_schedules_keep_what_their_analysis_permits():
    for episodes, steps in ((64, 2), (4096, 5)):
        step_size, ridge = adversarial.schedule(episodes, steps, "entropy", "plain")
        assert step_size * steps <= ridge * (1 + 1e-12)
        step_size, ridge = adversarial.schedule(episodes, steps, "entropy", "magnitude_reduced")
        assert step_size * steps <= ridge**0.5 * (1 + 1e-12)


def test_wrong_arguments_are_refused_in_one_line(world):
    process, features, losses = world
    key = jax.random.key(0)
    for message, call in (
        ("regulariser", lambda: adversarial.optimise_policy(key, process, losses, features, regulariser="log_barier")),
        ("estimator", lambda: adversarial.optimise_policy(key, process, losses, features, estimator="plane")),
        ("losses have shape", lambda: adversarial.optimise_policy(key, process, losses[0], features)),
        ("losses of no episode", lambda: adversarial.optimise_policy(key, process, losses[:0], features)),
        ("features have shape", lambda: adversarial.optimise_policy(key, process, losses, features[0])),
        ("adversary", lambda: adversarial.adversary(key, 5, 2, 2, "swich")),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
