"""Diffusion policies with networks that are known to be right: no training, so wiring errors cannot hide behind it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from jaxrl_reg.policies import diffusion, flow
from jaxrl_reg.types import Network, Spec

SPEC = Spec(observation_dim=3, action_dim=2)
STD = 0.05
RNG = np.random.default_rng(0)
OBSERVATION = RNG.uniform(-0.8, 0.8, (64, 3)).astype(np.float32)
BETAS = g.vp_betas(6)
ALPHA, SIGMA = g.vp_coefficients(BETAS)


def centre(observation):
    """The right policy: normal around the first two entries of the observation, standard deviation ``STD``."""
    return observation[..., :2]


def constant(key):
    return {"shift": jnp.zeros(())}


def eps_apply(params, x, time, observation):
    t = jnp.round(time * 6).astype(jnp.int32) - 1  # the network is told (t + 1) / T
    a, s = ALPHA[t][:, None], SIGMA[t][:, None]
    return s * (x - a * centre(observation)) / (a**2 * STD**2 + s**2) + params["shift"]


def edm_apply(params, scaled, noise, observation):
    sigma = jnp.exp(4 * noise)
    c = g.edm_preconditioning(sigma, 0.5)
    s = sigma[:, None]
    x = scaled / c.scale[:, None]
    clean = (STD**2 * x + s**2 * centre(observation)) / (STD**2 + s**2)
    return (clean - c.skip[:, None] * x) / c.out[:, None] + params["shift"]


def velocity_apply(params, z, t, observation):
    t = t[:, None]
    mean, spread = (1 - t) * centre(observation), (1 - t) ** 2 * STD**2 + t**2
    return ((t - (1 - t) * STD**2) / spread) * (z - mean) - centre(observation) + params["shift"]


def average_apply(params, z, r, t, observation):
    # The flow of a normal is affine: standardise at t, spread again at r.
    r, t = r[:, None], t[:, None]

    def std(t):
        return jnp.sqrt((1 - t) ** 2 * STD**2 + t**2)

    there = (1 - r) * centre(observation) + std(r) / std(t) * (z - (1 - t) * centre(observation))
    jump = jnp.where(t > r, (z - there) / jnp.where(t > r, t - r, 1.0), 0.0)
    return jump + params["shift"]


POLICIES = {
    "ddpm": diffusion.ddpm(Network(constant, eps_apply), SPEC, BETAS),
    "edm": diffusion.edm(Network(constant, edm_apply), SPEC, g.karras(12, 0.005, 20.0)),
    "matching": flow.matching(Network(constant, velocity_apply), SPEC, 40, method="heun"),
    "meanflow": flow.meanflow(Network(constant, average_apply), SPEC),
    "shortcut": flow.shortcut(Network(constant, average_apply), SPEC, 2),
}


@pytest.mark.parametrize("name", POLICIES)
def test_samples_follow_their_observations(name):
    policy = POLICIES[name]

    @jax.jit
    def run(params, key):
        slope = jax.grad(lambda p: policy.sample(p, OBSERVATION, key).sum())(params)
        return policy.sample(params, OBSERVATION, key, (50,)), policy.sample(params, OBSERVATION[0], key), slope

    drawn, single, slope = run({"shift": 0.0}, jax.random.key(0))
    assert drawn.shape == (50, 64, 2)
    assert single.shape == (2,)
    np.testing.assert_allclose(drawn.mean(0), centre(OBSERVATION), atol=0.05)
    spread = float((drawn - centre(OBSERVATION)).std())
    # The last of six coarse DDPM steps takes the clean estimate, whose spread is that of a posterior mean.
    last = float(SIGMA[0] / ALPHA[0])
    wanted = STD**2 / (STD**2 + last**2) ** 0.5 if name == "ddpm" else STD
    assert spread == pytest.approx(wanted, rel=0.15 if name == "ddpm" else 0.1)
    assert np.isfinite(slope["shift"])
    assert slope["shift"] != 0
    with pytest.raises(ValueError, match="width 3"):
        policy.sample({"shift": 0.0}, jnp.zeros((4, 2)), jax.random.key(0))


@pytest.mark.parametrize("name", POLICIES)
def test_losses_are_smallest_at_the_right_parameters(name):
    policy = POLICIES[name]
    observation = np.tile(OBSERVATION, (16, 1))
    action = centre(observation) + STD * RNG.normal(size=(1024, 2)).astype(np.float32)

    @jax.jit
    def run(shift, key):
        loss, aux = policy.loss({"shift": shift}, observation, action, key)
        return loss, aux["x0"]

    key = jax.random.key(0)
    (right, clean), (wrong, _) = run(0.0, key), run(0.5, key)
    assert right.shape == (1024,)
    assert clean.shape == (1024, 2)
    assert right.mean() + 0.03 < wrong.mean()


@pytest.mark.parametrize("name", ["ddpm", "edm", "meanflow"])
def test_members_equal_single_runs(name):
    policy = POLICIES[name]

    def run(shift, key):
        return policy.sample({"shift": shift}, OBSERVATION[:4], key)

    shifts, keys = np.linspace(0.0, 0.2, 3, dtype=np.float32), jax.random.split(jax.random.key(0), 3)
    together, single = jax.jit(jax.vmap(run))(shifts, keys), jax.jit(run)
    for member in range(3):
        np.testing.assert_allclose(together[member], single(shifts[member], keys[member]), rtol=2e-5, atol=2e-6)
    assert not np.allclose(together[0], together[1])


def test_best_of_k_asks_the_critic_about_every_candidate():
    policy = POLICIES["meanflow"]
    seen = []

    @functools.partial(jax.jit, static_argnames="k")
    def run(observation, key, k):
        def critic(observation, action):
            seen.append((observation.shape, action.shape))
            return (action - centre(observation))[..., 0]

        return diffusion.best_of_k(policy, {"shift": 0.0}, observation, key, critic, k)

    one, best = run(OBSERVATION, jax.random.key(0), 1), run(OBSERVATION, jax.random.key(0), 16)
    assert one.shape == best.shape == (64, 2)
    assert seen[-1] == ((16, 64, 3), (16, 64, 2))
    gain = (best - centre(OBSERVATION)) / STD
    assert float(gain[:, 0].mean()) == pytest.approx(1.77, abs=0.2)  # the expected maximum of 16 normals
    assert float(gain[:, 1].mean()) == pytest.approx(0.0, abs=0.4)
    assert run(OBSERVATION[0], jax.random.key(0), 16).shape == (2,)
    with pytest.raises(ValueError, match="scores have shape"):
        diffusion.best_of_k(
            policy, {"shift": 0.0}, OBSERVATION, jax.random.key(0), lambda o, a: jnp.zeros((2, 16, 64)), 16
        )


def test_guidance_hooks_reach_the_solvers():
    params, key = {"shift": 0.0}, jax.random.key(0)
    network = Network(constant, edm_apply)

    @jax.jit
    def run():
        guided = diffusion.edm(
            network,
            SPEC,
            g.karras(8, 0.02, 20.0),
            method="ddim",
            guidance=lambda denoise, observation: g.inpaint(denoise, observation[:, 1:], jnp.array([0.0, 1.0])),
        )
        pushed = diffusion.ddpm(
            Network(constant, lambda p, x, t, o: 0 * x),
            SPEC,
            BETAS,
            temperature=0.0,
            clip_denoised=None,
            clip=None,
            guidance=lambda observation: lambda x, t, index: observation[:, :2] - x,
        )
        return guided.sample(params, OBSERVATION, key), pushed.sample(params, OBSERVATION, key)

    guided, pushed = run()
    np.testing.assert_allclose(guided[:, 1], OBSERVATION[:, 2], rtol=1e-5)  # held by in-painting
    # With eps = 0 and no noise a step divides by sqrt(1 - beta); before each but the last x became the observation.
    scale = float(1 / (jnp.sqrt(1 - BETAS[1]) * jnp.sqrt(1 - BETAS[0])))
    np.testing.assert_allclose(pushed, scale * OBSERVATION[:, :2], rtol=1e-4)


def test_a_sampler_without_observations_draws_all_the_same():
    spec = Spec(observation_dim=0, action_dim=2)
    network = Network(constant, lambda params, z, t, observation: z - 0.25)  # towards one point, whatever is observed
    drawn = flow.matching(network, spec, 50).sample({"shift": 0.0}, jnp.zeros((5, 0)), jax.random.key(0), (3,))
    assert drawn.shape == (3, 5, 2)
    assert float(jnp.abs(drawn).max()) > 0.25
