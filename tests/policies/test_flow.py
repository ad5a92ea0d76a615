"""Flow policies with real networks: the pieces fit, and a short training reduces the error of one-step actions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg.networks.denoisers import denoiser_mlp
from jaxrl_reg.policies import flow
from jaxrl_reg.types import Network, Spec

SPEC = Spec(observation_dim=3, action_dim=2)
RNG = np.random.default_rng(0)
OBSERVATION = RNG.uniform(-1.0, 1.0, (256, 3)).astype(np.float32)
ACTION = np.stack([OBSERVATION[:, 0] * 0.8, np.where(OBSERVATION[:, 1] > 0, 0.7, -0.7)], axis=1).astype(np.float32)


def test_noise_given_from_outside_makes_the_sampled_action():
    network = Network(lambda key: {}, lambda params, z, t, observation: z - observation[:, :2] + t[:, None])
    noise = RNG.normal(size=(4, 2)).astype(np.float32)
    made = flow.integrate_noise(network, {}, OBSERVATION[:4], noise, 2)
    half = noise - 0.5 * (noise - OBSERVATION[:4, :2] + 1.0)
    np.testing.assert_allclose(made, half - 0.5 * (half - OBSERVATION[:4, :2] + 0.5), rtol=1e-5)


@pytest.mark.parametrize("kind", ["matching", "meanflow", "shortcut"])
def test_a_short_training_learns_a_function(kind):
    times = 1 if kind == "matching" else 2
    network = denoiser_mlp(SPEC, (64, 64), times=times, time_scale=10.0)
    policy = {
        "matching": lambda: flow.matching(network, SPEC, 5),
        "meanflow": lambda: flow.meanflow(network, SPEC),
        "shortcut": lambda: flow.shortcut(network, SPEC, 2, max_level=3, bootstrap_fraction=0.25),
    }[kind]()
    optimiser = optax.adam(3e-3)

    @jax.jit
    def run(key):
        params = policy.init(key)

        def error(params):
            return jnp.abs(policy.sample(params, OBSERVATION, key) - ACTION).mean()

        def body(carry, index):
            params, state = carry

            def loss(params):
                return policy.loss(params, OBSERVATION, ACTION, jax.random.fold_in(key, index))[0].mean()

            updates, state = optimiser.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (trained, _), _ = jax.lax.scan(body, (params, optimiser.init(params)), jnp.arange(400))
        return error(params), error(trained)

    before, after = run(jax.random.key(0))
    assert after < 0.35 * before
