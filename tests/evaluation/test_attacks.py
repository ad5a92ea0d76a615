"""Attacks on observations: golden numbers, boxes that hold, what each raises, and what a victim is."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import losses
from jaxrl_reg.evaluation import attacks
from jaxrl_reg.evaluation.plots import LIGHT
from jaxrl_reg.evaluation.report import robustness_figures
from jaxrl_reg.transforms import directed, project, projected_ascent, signed_step, weight_hypergradient
from jaxrl_reg.types import Agent, Policy, Spec

KEY = jax.random.key(0)


def test_golden_numbers():
    loss = losses.targeted_attack_loss([0.3, -0.2], [0.1, 0.4], np.log([0.5, 0.8]), 1.5)
    np.testing.assert_allclose(loss, 1.839314, atol=1e-6)
    smooth = losses.policy_smoothness_loss([0.3, -0.2], [0.1, 0.4], np.log([0.5, 0.8]))
    np.testing.assert_allclose(smooth, 0.7225, atol=1e-6)
    x = jnp.array([0.3, -0.4, 0.1])
    np.testing.assert_allclose(project(x, 0.2, "l2"), [0.117670, -0.156893, 0.039223], atol=1e-6)
    np.testing.assert_allclose(project(x, 0.2, "l1"), [0.075, -0.1, 0.025], atol=1e-6)
    np.testing.assert_allclose(project(x, 0.2), [0.2, -0.2, 0.1], atol=1e-6)
    for norm in ("l2", "l1"):
        np.testing.assert_array_equal(project(x, 5.0, norm), x)  # shrinks, never grows
        np.testing.assert_array_equal(project(x, 0.0, norm), np.zeros(3))
    inputs, wanted = jnp.array([[1, 2], [-1, 0.5], [0.3, -0.7]]), jnp.array([0.5, -0.2, 0.1])
    found = weight_hypergradient(
        lambda p: jnp.square(inputs @ p - wanted) / 2, jnp.array([0.4, -0.3]), jnp.array([0.2, -0.1]), 0.1
    )
    np.testing.assert_allclose(3 * found, [-0.01, -0.00275, -0.00099], atol=1e-6)


def test_what_is_fixed_has_no_gradient():
    one = jnp.array([0.3, -0.2])
    slopes = jax.grad(losses.targeted_attack_loss, (0, 1, 2))(one, one + 0.5, jnp.zeros(2), 1.0)
    assert np.abs(slopes[0]).min() > 0
    np.testing.assert_array_equal(np.stack(slopes[1:]), np.zeros((2, 2)))
    slopes = jax.grad(losses.policy_smoothness_loss, (0, 1, 2))(one, one + 0.5, jnp.zeros(2))
    np.testing.assert_array_equal(np.stack([slopes[0], slopes[2]]), np.zeros((2, 2)))
    np.testing.assert_allclose(slopes[1], 2 * 0.5, rtol=1e-6)


def test_weights_are_learnt_by_the_slope_of_the_outer_loss():
    """Against differences: a step on the weighted mean, then the outer loss, with each weight moved a little."""
    rng = np.random.default_rng(0)
    inputs, wanted, other = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)
    p, weight, rate = rng.normal(size=3), rng.uniform(0.5, 1.5, 4), 0.1

    def moved(weight):
        return p - rate * (weight * (inputs @ p - wanted)) @ inputs / 4

    def outer(p):
        return np.square(p - other).sum()

    slopes = [(outer(moved(weight + d)) - outer(moved(weight - d))) / 2e-5 for d in 1e-5 * np.eye(4)]
    gradient = jnp.asarray(2 * (moved(weight) - other), jnp.float32)
    rows = lambda p: jnp.square(jnp.float32(inputs) @ p - jnp.float32(wanted)) / 2  # noqa: E731
    found = weight_hypergradient(rows, gradient, jnp.asarray(p, jnp.float32), rate)
    np.testing.assert_allclose(found, slopes, rtol=1e-3, atol=1e-5)


@jax.jit
def ascended(x, epsilon):
    peak = jnp.array([1.0, -0.3])
    up = lambda x: -jnp.square(x - peak).sum(-1)  # noqa: E731
    starts = [projected_ascent(up, x, KEY, epsilon, 20, start=start) for start in ("uniform", "sign", "zero")]
    nowhere = signed_step(lambda x: jnp.sqrt(x).sum(-1), -jnp.ones(2), 0.1)  # NaN: not moved
    return jnp.stack(starts), nowhere


def test_ascent_reaches_the_best_point_of_the_box_row_by_row():
    x, epsilon = jnp.array([[0.0, 0.0], [3.0, 0.0]]), jnp.array([0.5, 0.2])
    found, nowhere = ascended(x, epsilon)
    for one in found:
        np.testing.assert_allclose(one, [[0.5, -0.2], [-0.5, -0.2]], atol=1e-6)  # a corner for each row
    np.testing.assert_array_equal(nowhere, [0.0, 0.0])
    for wrong in ({"start": "corner"}, {"steps": 0}):
        with pytest.raises(ValueError, match="must be"):
            projected_ascent(lambda x: x.sum(-1), x, KEY, 0.1, **wrong)
    with pytest.raises(ValueError, match="must be one of"):
        project(x, 0.1, "l3")


MATRIX = jnp.array([[1.0, -2.0, 0.0], [0.5, 0.5, 0.0]])


def mean(observation):
    return jnp.tanh(observation @ MATRIX.T)


@jax.jit
def found_attacks(observation):
    q = lambda observation, action: action[..., 0] + 100 * observation[..., 2]  # noqa: E731
    made = {
        "random": attacks.random_attack(0.1),
        "pgd": attacks.mad(mean, 0.1),
        "critic": attacks.critic(mean, q, 0.1),
        "towards": attacks.towards(mean, lambda o: jnp.broadcast_to(jnp.array([1.0, 0.0]), (*o.shape[:-1], 2)), 0.1),
        "learned": attacks.learned(lambda o: 5.0 * jnp.ones_like(o), 0.1),
        "director": attacks.director(lambda o: jnp.broadcast_to(jnp.array([0.0, -1.0]), (*o.shape[:-1], 2)), mean, 0.1),
    }
    return {name: attack(observation, KEY) for name, attack in made.items()}


def test_each_attack_stays_in_its_box_and_raises_what_it_is_for():
    observation = 0.2 * jax.random.normal(jax.random.key(1), (16, 3))
    found = {name: np.asarray(x) for name, x in found_attacks(observation).items()}
    before = np.asarray(mean(observation))
    after = {name: np.asarray(mean(observation + x)) for name, x in found.items()}
    for name, x in found.items():
        assert np.abs(x).max() <= 0.1 + 1e-6, name
    assert np.abs(found["random"]).max() > 0.05
    moved = {name: np.square(x - before).sum(-1) for name, x in after.items()}
    assert (moved["pgd"] > moved["random"]).mean() > 0.9  # tanh: the far side of a row may be flat
    assert moved["pgd"].mean() > 2 * moved["random"].mean()
    # The critic's value of the true state: a false third coordinate changes nothing of it.
    np.testing.assert_allclose(found["critic"][:, :2], np.tile([-0.1, 0.1], (16, 1)), atol=1e-6)
    assert (after["towards"][:, 0] > before[:, 0]).all()
    np.testing.assert_allclose(found["learned"], 0.1, atol=1e-6)
    np.testing.assert_allclose(found["director"][:, 2], 0.0)
    assert (after["director"][:, 1] - before[:, 1]).mean() < -0.02


def test_a_perturbed_policy_acts_on_what_it_is_shown_with_its_own_random_numbers():
    act = lambda observation, key: observation + jax.random.normal(key, observation.shape)  # noqa: E731
    shown = attacks.perturbed(act, lambda observation, key: jnp.full_like(observation, 0.25))
    assert isinstance(shown, Policy)
    action, _ = shown.step(shown.start(()), jnp.ones(3), jnp.zeros(()), KEY)
    np.testing.assert_allclose(action, act(jnp.ones(3), KEY) + 0.25, rtol=1e-6)


def test_a_victim_of_choices_is_its_probabilities():
    """An agent with a linear actor, as one that tells logits, as one that tells a normal, and on a body."""
    logits = np.array([[0.0, np.log(3.0)], [1.0, 1.0]], np.float32)
    state = SimpleNamespace(actor=SimpleNamespace(params=logits))
    agent = Agent(None, None, lambda state, observation, hyper, key, explore: -observation)
    choices, body = Spec(2, 2, discrete=True), Spec(2, 2)
    spoken = agent._replace(distribution=lambda state, params, observation: observation @ params)
    found = attacks.mean_of(spoken, choices, state, None)(jnp.eye(2))
    np.testing.assert_allclose(found, [[-0.5, 0.5], [0.0, 0.0]], atol=1e-6)
    normal = agent._replace(distribution=lambda state, params, observation: (observation @ params, None))
    np.testing.assert_allclose(attacks.mean_of(normal, choices, state, None)(jnp.eye(2)), np.tanh(logits), rtol=1e-5)
    np.testing.assert_array_equal(attacks.mean_of(agent, body, state, None)(jnp.eye(2)), -np.eye(2))
    assert attacks.mean_of(agent, choices, state, None) is None
    assert attacks.mean_of(spoken._replace(policy=lambda *_: None), choices, state, None) is None


def test_directions_move_the_action_along():
    x = 0.2 * jax.random.normal(jax.random.key(1), (16, 3))
    for direction in ([1.0, 0.0], [-1.0, 0.0]):
        shift = directed(mean, x, jnp.broadcast_to(jnp.array(direction), (16, 2)), KEY, 0.1)
        gain = (np.asarray(mean(x + shift) - mean(x)) * direction).sum(-1)
        assert gain.mean() > 0.05


def test_robustness_curves_begin_without_an_attack_and_the_worst_comes_first():
    sizes = [("none", 0.0, 9.0), ("random", 0.1, 8.0), ("pgd", 0.2, 5.0), ("pgd", 0.1, 7.0), ("rat of other", 0.1, 2.0)]
    rows = [
        {"setting": 0, "attack": name, "epsilon": size, "return": y, "return_low": y - 1, "return_high": y + 1}
        for name, size, y in sizes
    ]
    (figure,) = robustness_figures(pd.DataFrame(rows), LIGHT).values()
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(lines) == ["rat of other", "pgd", "random"]
    np.testing.assert_allclose(lines["pgd"].get_xydata(), [[0.0, 9.0], [0.1, 7.0], [0.2, 5.0]])
    assert {name: line.get_linestyle() for name, line in lines.items()} == dict(
        zip(lines, ["-", "-", "--"], strict=True)
    )
    assert {line.get_marker() for line in lines.values()} == {"o"}
    assert len(figure.axes[0].collections) == 3  # a band for each


def test_of_many_attacks_noise_and_the_furthest_have_bands():
    ends = {"pgd": (5.0, 3.0), "rat": (7.0, 6.0), "sarsa": (6.0, 2.0), "random": (8.0, 1.5)}
    rows = [("none", 0.0, 9.0, 1.0), *((name, 0.1, *sums) for name, sums in ends.items())]
    table = pd.DataFrame(rows, columns=["attack", "epsilon", "return", "target"]).assign(setting=0)
    for name in ("return", "target"):
        table = table.assign(**{f"{name}_low": table[name] - 1, f"{name}_high": table[name] + 1})
    for name, furthest in (("return", "pgd"), ("target", "rat")):
        axes = robustness_figures(table, LIGHT)[f"robustness_{name}"].axes[0]
        bands = sorted(band.get_paths()[0].vertices[:, 1].max() for band in axes.collections)
        column = table.set_index("attack")[f"{name}_high"]
        wanted = sorted(max(column["none"], column[attack]) for attack in (furthest, "random"))
        np.testing.assert_allclose(bands, wanted)
