"""The regulariser of SA-PPO on a linear policy, whose worst perturbation is a corner that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents
from jaxrl_reg.agents.online import _smoothness
from jaxrl_reg.agents.online.ppo import Config
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import Policy
from jaxrl_reg.types import Spec

WEIGHT, STD, EPSILON = np.array([1.0, -2.0, 0.5], np.float32), 0.5, 0.1
CONFIG = Config(smoothness=3.0, smoothness_epsilon=EPSILON)
OBSERVATION = jax.random.normal(jax.random.key(0), (5, 3))


def linear(apply):
    return Policy(*[None] * 7)._replace(apply=apply)


@jax.jit
def of_a_body(weight):
    policy = linear(lambda w, x: ((x @ w)[..., None], jnp.full((*x.shape[:-1], 1), jnp.log(STD))))
    loss, found = _smoothness.held(CONFIG, Spec(3, 1), policy, weight, OBSERVATION, jax.random.key(1), jnp.float32(7.0))
    return loss, found


@jax.jit
def of_a_choice(weight):
    policy = linear(lambda w, x: jnp.stack([x @ w, jnp.zeros(x.shape[:-1])], axis=-1))
    return _smoothness.held(
        CONFIG, Spec(3, 2, discrete=True), policy, weight, OBSERVATION, jax.random.key(1), jnp.float32(0.0)
    )[1]


def test_the_worst_perturbation_is_found_and_held_against_the_policy():
    loss, found = of_a_body(WEIGHT)
    reach = EPSILON * np.abs(WEIGHT).sum()
    np.testing.assert_allclose(found, reach**2 / STD**2, rtol=1e-4)
    np.testing.assert_allclose(loss, 7 + 3 * found, rtol=1e-6)
    # The clean side does not move: of (w x - w' (x + d))^2 only what w' does with x + d counts.
    seen = np.asarray(OBSERVATION)
    corner = np.sign(WEIGHT) * EPSILON
    either = [2 * reach / STD**2 * (side * seen + corner) for side in (1, -1)]  # the corner or its mirror image
    rows = np.asarray(jax.jacobian(of_a_body_rows)(WEIGHT))
    for row, one, other in zip(rows, *either, strict=True):
        assert np.allclose(row, one, rtol=1e-3) or np.allclose(row, other, rtol=1e-3)


@jax.jit
def of_a_body_rows(weight):
    policy = linear(lambda w, x: ((x @ w)[..., None], jnp.full((*x.shape[:-1], 1), jnp.log(STD))))

    def one(i):
        rows = OBSERVATION[i]
        key = jax.random.key(1)
        return _smoothness.held(CONFIG, Spec(3, 1), policy, weight, rows[None], key, jnp.float32(0.0))[1]

    return jax.vmap(one)(jnp.arange(5))


def test_a_choice_is_held_by_the_divergence_of_its_probabilities():
    logit = np.asarray(OBSERVATION @ WEIGHT, np.float64)
    reach = EPSILON * np.abs(WEIGHT).sum()

    def divergence(far):
        p, q = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-far))
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    worst = np.maximum(divergence(logit + reach), divergence(logit - reach)).mean()
    found = float(of_a_choice(WEIGHT))
    assert 0.8 * worst < found <= worst * (1 + 1e-4)  # a row may climb the lower of its two corners


@pytest.mark.parametrize("wrong", [{"smoothness": -1.0}, {"smoothness": 1.0, "smoothness_epsilon": 0.0}])
def test_refusals(wrong):
    with pytest.raises(UserError, match="must be"):
        agents.make("ppo", Spec(3, 1), **wrong)
