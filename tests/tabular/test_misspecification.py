"""Rewards inferred with a wrong model: numbers by hand, what distances must satisfy, the worst case by search."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxrl_reg.errors import UserError
from jaxrl_reg.tabular import discounted, misspecification
from jaxrl_reg.tabular.misspecification import boltzmann, maximum_causal_entropy, optimal

TRANSITION = np.array([[[0.8, 0.2], [0.1, 0.9]], [[0.5, 0.5], [0.3, 0.7]]], np.float32)
REWARD = np.array([[1.0, 0.0], [0.5, -1.0]], np.float32)
OTHER = np.array([[0.0, 1.0], [0.5, 0.5]], np.float32)
DISCOUNT, STATES, ACTIONS = 0.9, 8, 4
FORMS = misspecification.FORMS
seeds = given(st.integers(0, 10_000))


def drawn(seed):
    """A process of random rows, another one, a reward, a potential; float32."""
    rng = np.random.default_rng(seed)
    first, second = rng.dirichlet(np.full(STATES, 0.3), (2, STATES, ACTIONS)).astype(np.float32)
    return first, second, *(rng.normal(size=s).astype(np.float32) for s in ((STATES, ACTIONS), STATES))


def test_distances_have_the_numbers_of_the_equations():
    expected = {
        "least": ([[0.836599, -0.312279], [0.509109, -1.033428]], 0.898342),
        "advantage": ([[0.747382, -0.747382], [0.820681, -0.820681]], 0.914691),
    }
    for form, (canonical, distance) in expected.items():

        @jax.jit
        def both(first, second, form=form):
            return misspecification.canonical(first, TRANSITION, DISCOUNT, form=form), misspecification.starc_distance(
                first, second, TRANSITION, DISCOUNT, form=form
            )

        found, away = both(REWARD, OTHER)
        np.testing.assert_allclose(found, canonical, atol=2e-6)
        np.testing.assert_allclose(away, distance, atol=2e-6)
        shaped = 3 * REWARD + misspecification.shaping(TRANSITION, DISCOUNT) @ np.float32([5, -2])
        np.testing.assert_allclose(both(REWARD, shaped)[1], 0, atol=2e-6)
        np.testing.assert_allclose(both(REWARD, -REWARD)[1], 1, atol=2e-6)
        nothing = misspecification.shaping(TRANSITION, DISCOUNT) @ np.float32([5, -2])
        np.testing.assert_allclose(both(REWARD, nothing)[1], 0.5, atol=1e-6)
        assert both(nothing, 0 * REWARD)[1] == 0


def test_behaviours_have_the_numbers_of_the_equations_and_undo_themselves():
    @jax.jit
    def found(reward, transition):
        people = (boltzmann(2.0), maximum_causal_entropy(0.5), optimal())
        policies = [person.policy(reward, transition, DISCOUNT) for person in people]
        rewards = [person.reward(policy) for person, policy in zip(people, policies, strict=True)]
        return policies, rewards, discounted.optimal_values(transition, reward, DISCOUNT)[1]

    policies, rewards, q = found(REWARD, TRANSITION)
    np.testing.assert_allclose(q, [[8.767123, 7.335616], [8.082192, 6.458904]], rtol=1e-6)
    expected = (
        ([[0.945987, 0.054013], [0.962550, 0.037450]], [[0, -1.431507], [0, -1.623288]]),
        ([[0.946721, 0.053279], [0.962698, 0.037302]], [[-0.027376, -1.466104], [-0.019008, -1.644359]]),
        ([[1, 0], [1, 0]], [[0, -1], [0, -1]]),
    )
    for policy, reward, (numbers, inverse) in zip(policies, rewards, expected, strict=True):
        np.testing.assert_allclose(policy, numbers, atol=2e-6)
        np.testing.assert_allclose(reward, inverse, atol=2e-5)
    # The soft value: Q - V is the logarithm of the policy, times the temperature.
    value = np.asarray(discounted.soft_optimal_values(TRANSITION, REWARD, DISCOUNT, 0.5)[0])
    np.testing.assert_allclose(value, [9.020246, 8.323851], rtol=1e-6)

    tied = np.array([[1.0, 1.0 + 1e-7], [0.5, -1.0]], np.float32)
    still = np.broadcast_to(np.eye(2, dtype=np.float32)[:, None], (2, 2, 2))
    np.testing.assert_allclose(found(tied, still)[0][2], [[0.5, 0.5], [1, 0]])


def test_errors_of_inference_have_the_numbers_of_the_equations():
    human = maximum_causal_entropy(0.5)

    @jax.jit
    def found(reward, transition):
        def wrong(behaviour, discount, form):
            truth = (human, transition, DISCOUNT)
            return misspecification.inference_error(reward, truth, (behaviour, transition, discount), form=form)

        return {form: (wrong(boltzmann(2.0), DISCOUNT, form), wrong(human, 0.95, form)) for form in FORMS}

    expected = {"least": (0.000708, 0.824125, 0.955020), "advantage": (0.000679, 0.850527, 0.961906)}
    with jax.enable_x64(True):
        errors = jax.tree.map(np.asarray, found(REWARD.astype(float), TRANSITION.astype(float)))
    for form, (typical, rho, worst) in expected.items():
        mixed, shifted = errors[form]
        np.testing.assert_allclose(mixed.typical, typical, atol=1e-6)
        assert (mixed.rank, mixed.worst) == (0, mixed.typical)
        np.testing.assert_allclose(shifted.worst, worst, atol=1e-6)
        np.testing.assert_allclose(shifted.worst, np.sqrt((1 + rho) / 2), atol=1e-6)
        assert shifted.rank == 1


@jax.jit
def distances(transition, reward, other, potential):
    """For each form: of shaped and scaled, of the opposite, between two both ways, by angle, of canonical forms."""
    found = {}
    for form in FORMS:

        def away(one, two, form=form):
            return misspecification.starc_distance(one, two, transition, DISCOUNT, form=form)

        def canonical(one, form=form):
            return misspecification.canonical(one, transition, DISCOUNT, form=form)

        shaped = 2 * reward + misspecification.shaping(transition, DISCOUNT) @ (10 * potential)
        one, two = canonical(reward), canonical(other)
        cosine = (one * two).sum() / jnp.linalg.norm(one) / jnp.linalg.norm(two)
        found[form] = {
            "same": away(shaped, reward),
            "opposite": away(-shaped, reward),
            "between": away(reward, other),
            "back": away(other, shaped),
            "angle": jnp.sqrt((1 - cosine) / 2),
            "twice": jnp.abs(canonical(one) - one).max(),
            "nearest": jnp.linalg.norm(one - jnp.maximum(cosine, 0) * jnp.linalg.norm(one) * two / jnp.linalg.norm(two))
            / jnp.linalg.norm(one),
            "differs": jnp.abs(canonical(shaped) - 2 * one).max(),
        }
    return found


@seeds
def test_distances_are_those_of_classes_of_rewards(seed):
    transition, _, reward, potential = drawn(seed)
    other = drawn(seed + 1)[2]
    for found in distances(transition, reward, other, potential).values():
        np.testing.assert_allclose([found["same"], found["opposite"]], [0, 1], atol=1e-4)
        np.testing.assert_allclose(found["back"], found["between"], atol=1e-4)
        np.testing.assert_allclose(found["angle"], found["between"], atol=1e-4)
        np.testing.assert_allclose([found["twice"], found["differs"]], 0, atol=2e-3)
        assert 0 <= found["between"] <= 1
        # Which true rewards a model is robust to: those within this distance of what it infers.
        if found["between"] < np.sqrt(0.5):
            np.testing.assert_allclose(found["nearest"], np.sin(2 * np.arcsin(found["between"])), atol=1e-3)


def test_the_least_form_is_least_in_its_weighted_norm():
    transition, _, reward, _ = drawn(0)
    weights = np.random.default_rng(1).uniform(0.2, 2, reward.shape)
    found = misspecification.canonical(reward, transition, DISCOUNT, weights=weights.astype(np.float32))
    ambiguous = np.asarray(misspecification.shaping(transition, DISCOUNT), np.float64).reshape(-1, STATES)
    root = np.sqrt(weights).ravel()
    best = np.linalg.lstsq(root[:, None] * ambiguous, root * reward.ravel(), rcond=None)[0]
    np.testing.assert_allclose(found.ravel(), reward.ravel() - ambiguous @ best, atol=1e-5)


MISTAKES = ("temperature", "discount 0.89", "discount 0.5", "dynamics")


@jax.jit
def errors(transition, other, reward, potential):
    """By what is assumed wrongly, and how far shaping of the assumed discount 0.5 goes: in the direction that is worst
    with two lengths, at random with two, and none."""
    process = (transition, DISCOUNT)
    human, soft = boltzmann(2.0), maximum_causal_entropy(0.5)
    contrary = misspecification.Behaviour(lambda r, *process: human.policy(-r, *process), human.reward)
    models = (
        jnp.array([0.2, 2.0, 2.0, 2.0]),
        jnp.stack([transition] * 3 + [0.99 * transition + 0.01 * other]),
        jnp.array([DISCOUNT, 0.89, 0.5, DISCOUNT]),
    )

    def error(truth, assumed):
        return misspecification.inference_error(reward, (truth, *process), assumed)

    many = jax.vmap(lambda beta, *model: error(human, (boltzmann(beta), *model)))(*models)
    found = {name: jax.tree.map(lambda leaf, row=row: leaf[row], many) for row, name in enumerate(MISTAKES)}
    found["temperature of entropy"] = error(soft, (maximum_causal_entropy(3.5), *process))
    found["model"] = error(soft, (human, *process))
    found["contrary"] = error(contrary, (human, transition, 0.5))

    canonical = misspecification.canonical
    ambiguous = misspecification.shaping(transition, 0.5)
    seen = jax.vmap(lambda column: canonical(column, *process), -1, -1)(ambiguous).reshape(-1, STATES)
    worst = jnp.linalg.lstsq(seen, -canonical(reward, *process).reshape(-1), rcond=1e-4)[0]
    image = human.reward(human.policy(reward, *process))
    tried = jnp.stack([worst * 1e3, worst * 1e2, potential * 1e3, potential * 10, 0 * potential])
    return found, jax.vmap(lambda x: misspecification.starc_distance(reward, image + ambiguous @ x, *process))(tried)


@seeds
def test_only_a_wrong_discount_or_wrong_dynamics_leave_everything_open(seed):
    transition, other, reward, potential = drawn(seed)
    found, tried = errors(transition, other, reward, potential)
    for name in ("temperature", "temperature of entropy"):
        assert found[name].rank == 0
        assert found[name].worst == found[name].typical < 1e-4
    assert found["model"].rank == 0
    assert 1e-4 < found["model"].typical == found["model"].worst < 0.2
    for name in ("discount 0.89", "discount 0.5", "dynamics"):
        assert found[name].worst >= np.sqrt(0.5)
        assert found[name].typical < 0.2
    assert found["discount 0.89"].rank == found["discount 0.5"].rank == STATES - 1
    assert found["discount 0.89"].typical < found["discount 0.5"].typical
    # How wrong the discount is does not matter, and no shaping is worse than the bound, which is approached.
    np.testing.assert_allclose(found["discount 0.89"].worst, found["discount 0.5"].worst, atol=2e-3)
    assert (tried <= found["discount 0.5"].worst + 1e-3).all()
    assert tried[0] > found["discount 0.5"].worst - 0.02
    # Somebody who does the opposite of the best, taken for one who is nearly optimal.
    assert found["contrary"].typical > 0.7
    np.testing.assert_allclose(found["contrary"].worst, 1, atol=0.02)
    # Of a reward that is all shaping nothing can be known.
    nothing = errors(transition, other, misspecification.shaping(transition, DISCOUNT) @ potential, potential)[0]
    assert nothing["dynamics"].worst == 0.5


def test_opposite_rewards_look_alike_when_they_are_small():
    transition, _, reward, _ = drawn(5)
    scales = jnp.array([1.0, 0.1, 0.01, 0.001])
    people = (boltzmann(2.0), maximum_causal_entropy(0.5), optimal())
    *smooth, rigid = jax.jit(
        lambda reward: [
            misspecification.perturbation_gap(reward, person, transition, DISCOUNT, scales) for person in people
        ]
    )(reward)
    for gaps in map(np.asarray, smooth):
        assert 0.9 < gaps[0] <= 1
        assert (gaps[1:] < 0.5 * gaps[:-1]).all()
        assert gaps[-1] < 0.01
    np.testing.assert_allclose(rigid, 1, atol=1e-6)


def test_decisions_lose_nothing_to_shaping_and_everything_to_the_opposite():
    transition, _, reward, potential = drawn(6)
    shaped = reward + np.asarray(misspecification.shaping(transition, DISCOUNT)) @ potential
    starts = np.stack([np.full(STATES, 1 / STATES)] * 4 + [np.eye(STATES)[0]]).astype(np.float32)

    @jax.jit
    @jax.vmap
    def lost(true, inferred, initial):
        return misspecification.decision_loss(true, inferred, transition, DISCOUNT, initial)

    nothing = np.zeros_like(reward)
    found = lost(
        np.stack([reward] * 3 + [nothing, reward]), np.stack([shaped, -reward, nothing, reward, nothing]), starts
    )
    np.testing.assert_allclose(found[:2], [0, 1], atol=1e-4)
    assert 0.2 < found[2] < 0.8
    assert found[3] == 0
    chain = np.eye(STATES) - DISCOUNT * transition.astype(float).mean(1)
    value = np.linalg.solve(chain, reward.astype(float).mean(1))
    best, worst = value, value
    for _ in range(500):
        best = (reward + DISCOUNT * transition @ best).max(1)
        worst = (reward + DISCOUNT * transition @ worst).min(1)
    np.testing.assert_allclose(found[2], (best - value).sum() / (best - worst).sum(), rtol=1e-4)
    np.testing.assert_allclose(found[4], (best - value)[0] / (best - worst)[0], rtol=1e-4)


def test_impossible_actions_and_unknown_forms_say_so():
    never = jnp.array([[0.5, 0.5], [1.0, 0.0]])
    for behaviour in (boltzmann(2.0), maximum_causal_entropy(0.5)):
        assert np.isnan(behaviour.reward(never)).any()
        assert not np.isinf(behaviour.reward(never)).any()
    with pytest.raises(UserError, match="canonical form"):
        misspecification.canonical(REWARD, TRANSITION, DISCOUNT, form="lest")
