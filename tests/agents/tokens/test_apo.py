"""APO: its two weights of a batch, and the loss that they enter, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.agents.tokens import _group, _switches, apo
from jaxrl_reg.types import Completions, as_float32

LENGTHS = np.array([[4, 6, 8, 10, 5, 20], [3, 3, 9, 1, 2, 20]])
RIGHT = np.array([[1.0, 1, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 0]])
LONGEST = 20
FACTOR = np.array([[1, 1, 1.2486852, 1.3790787, 1, 1.7606080], [1, 1, 1, 1, 1, 1]])  # at sharpness log 1.1
WEIGHT = np.where(RIGHT > 0, 1 - np.exp(-np.e / 3), 1.0)


def batch_of(reward=RIGHT):
    mask = (np.arange(LONGEST) < LENGTHS[..., None]).astype(np.float32)
    return Completions(None, None, jnp.array(mask), jnp.array(reward, jnp.float32), jnp.zeros(RIGHT.shape))


def test_weights_of_a_batch():
    factor, weight = apo.weights(batch_of(), float(np.log(1.1)))
    np.testing.assert_allclose(factor, FACTOR, rtol=1e-6)
    np.testing.assert_allclose(weight, WEIGHT, rtol=1e-6)
    half = apo.weights(batch_of(0.5 * RIGHT), float(np.log(1.1)))  # a format's half of the reward is not right
    np.testing.assert_array_equal(half, np.ones((2, 2, 6)))
    released, _ = apo.weights(batch_of(), float(np.log(1.00001)))
    np.testing.assert_allclose(released[0], [1, 1, 1.00003, 1.00005, 1, 1.00015], atol=2e-7)


def test_the_weights_enter_the_loss_and_carry_no_gradient():
    rng = np.random.default_rng(0)
    shape = (*LENGTHS.shape, LONGEST)
    log_prob, old, reference = (-rng.uniform(0.5, 1.5, shape) for _ in range(3))
    advantage, logits = rng.normal(size=LENGTHS.shape), rng.normal(size=(*shape, 5))
    config = _switches.Config(advantage="group", surrogate="ppo", aggregation="token", kl="k3")
    hyper = as_float32(apo.Hyper(kl_coef=0.3, sharpness=float(np.log(1.1))))
    batch = batch_of()
    known = _group.Known(batch, batch.mask, jnp.array(old), jnp.array(reference), jnp.array(advantage))
    objective = apo.objective(config, LONGEST)

    @jax.jit
    def found(log_prob):
        return jax.value_and_grad(lambda x: objective.loss(known, x, jnp.array(logits), hyper, ()), has_aux=True)(
            log_prob
        )

    (value, metrics), gradient = found(jnp.array(log_prob))
    mask, each = np.array(batch.mask), (advantage * FACTOR)[..., None]
    ratio = np.exp(log_prob - old)
    actor = -np.minimum(ratio * each, np.clip(ratio, 0.8, 1.2) * each)
    x = log_prob - reference
    per_completion = (mask * (np.exp(-x) - 1 + x)).sum(-1) / mask.sum(-1)
    divergence = (WEIGHT * per_completion).mean()
    np.testing.assert_allclose(metrics["actor_loss"], (mask * actor).sum() / mask.sum(), rtol=1e-5)
    np.testing.assert_allclose(value, (mask * actor).sum() / mask.sum() + 0.3 * divergence, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl_weight"], divergence / per_completion.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], (mask * (np.exp(-x) - 1 + x)).sum() / mask.sum(), rtol=1e-5)
    clipped = np.where(each > 0, ratio > 1.2, ratio < 0.8)
    wanted = np.where(clipped, 0, -ratio * each) * mask / mask.sum()
    wanted += 0.3 * WEIGHT[..., None] * (1 - np.exp(-x)) * mask / mask.sum(-1, keepdims=True) / RIGHT.size
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-6)
