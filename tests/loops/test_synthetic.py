"""Synthetic experience: guidance against a law known exactly, the fitting run, and the run that trains on the draws."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, generative, loops, population
from jaxrl_reg.agents import td3_bc
from jaxrl_reg.data.trajectories import TrajectoryScaler, trajectories
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import synthetic as s
from jaxrl_reg.networks.temporal import temporal_mlp
from jaxrl_reg.types import Agent, Network, Run, Spec, as_float32

L = 16


def linear_system():
    """``std [2]`` of (s, a), and eigenvectors and eigenvalues of the covariance of standardised windows ``[2 L]``.

    s' = 0.95 s + 0.5 a + 0.02 n, a = -0.2 s + 0.3 n, s_0 ~ N(0, 1): every entry is a linear map of normals.
    """
    maps = np.zeros((L, 2, 2 * L + 1))
    maps[0, 0, 0] = 1.0
    for t in range(L):
        maps[t, 1] = -0.2 * maps[t, 0]
        maps[t, 1, 1 + 2 * t] += 0.3
        if t + 1 < L:
            maps[t + 1, 0] = 0.95 * maps[t, 0] + 0.5 * maps[t, 1]
            maps[t + 1, 0, 2 + 2 * t] += 0.02
    std = np.sqrt((maps**2).sum(-1).mean(0))
    rows = (maps / std[:, None]).reshape(2 * L, -1)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    return std, jnp.asarray(vectors, jnp.float32), jnp.asarray(np.maximum(values, 0.0), jnp.float32)


def exact_network():
    """The network whose EDM denoiser is the exact one of the Gaussian law; reward and termination are always 0."""
    _, vectors, values = linear_system()

    def apply(params, scaled, noise):
        sigma = jnp.exp(4 * noise)
        c = generative.edm_preconditioning(sigma, 1.0)
        x = scaled / c.scale[:, None, None]
        z = x[..., :2].reshape(-1, 2 * L) @ vectors * (values / (values + sigma[:, None] ** 2))
        clean = jnp.concatenate([(z @ vectors.T).reshape(-1, L, 2), jnp.zeros_like(x[..., 2:])], axis=-1)
        return (clean - c.skip[:, None, None] * x) / c.out[:, None, None]

    return Network(lambda key: {}, apply)


def test_guidance_on_a_law_known_exactly():
    """The trade-off that must come out: nearer to the target policy, further from the data and the dynamics."""
    std = linear_system()[0]
    scaler = TrajectoryScaler(jnp.zeros(4), jnp.asarray([*(std / [1, 10]), 1.0, 1.0], jnp.float32), 1, False)
    model = s.TrajectoryModel({}, scaler)  # an action of 1 is a push of 10, so that nothing is clipped

    def log_prob(observation, action):
        return -0.5 * jnp.square((10 * action + 0.8 * observation) / 0.15).sum(-1)

    @jax.jit
    def draw(key, c):
        rows = s.generator(exact_network(), windows=768, length=L, steps=64, coefficient=c)(key, model, log_prob)
        return rows.observation[:, 0], 10 * rows.action[:, 0], rows.next_observation[:, 0]

    target, behaviour, dynamics = [], [], []
    for c in (0.0, 0.1, 0.3, 1.0, 3.0):
        state, push, following = (np.asarray(x, np.float64) for x in draw(jax.random.key(0), c))
        normal = -0.5 * np.log(2 * np.pi)
        target.append((normal - np.log(0.15) - 0.5 * ((push + 0.8 * state) / 0.15) ** 2).mean())
        behaviour.append((normal - np.log(0.3) - 0.5 * ((push + 0.2 * state) / 0.3) ** 2).mean())
        dynamics.append(np.sqrt(((following - 0.95 * state - 0.5 * push) ** 2).mean()))
    assert target[0] == pytest.approx(-3.54, abs=0.4)
    assert behaviour[0] == pytest.approx(-0.24, abs=0.04)
    assert dynamics[0] == pytest.approx(0.021, abs=0.002)  # the system's noise is 0.020
    assert np.all(np.diff(target) > 0)
    assert target[2] - target[0] > 1.5
    assert np.all(np.diff(behaviour[:3]) > 0)
    assert behaviour[4] < behaviour[0] - 1.5
    assert np.all(np.diff(dynamics[:4]) > 0.001)
    assert dynamics[2] < 0.045


def test_guidance_moves_actions_alone_and_survives_a_zero_gradient():
    scaler = TrajectoryScaler(jnp.array([1.0, 0.2, 0.0, 0.0]), jnp.array([2.0, 0.5, 1.0, 1.0]), 1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4)), jnp.float32)
    level, index = jnp.ones(3), jnp.int32(1)

    def log_prob(observation, action):
        return -0.5 * jnp.square(action - jnp.tanh(observation)).sum(-1)

    push = s.policy_guide(scaler, log_prob, jnp.array([9.0, 2.0]))(x, level, index)
    assert not np.any(push[..., [0, 2, 3]])
    np.testing.assert_allclose(jnp.linalg.norm(push.reshape(3, -1), axis=1), 2.0, rtol=1e-5)
    # By the chain rule: (mu - a) d tanh, standard deviation of the channel; normalised over the window.
    state, raw = 2.0 * np.asarray(x[..., 0]) + 1.0, 0.5 * np.asarray(x[..., 1]) + 0.2
    slope = (np.tanh(state) - np.tanh(raw)) * (1 - np.tanh(raw) ** 2) * 0.5
    expected = 2.0 * slope / np.linalg.norm(slope, axis=1, keepdims=True)
    np.testing.assert_allclose(push[..., 1], expected, rtol=1e-4, atol=1e-6)
    raw_push = s.policy_guide(scaler, log_prob, jnp.array([9.0, 2.0]), normalise=False)(x, level, index)
    np.testing.assert_allclose(raw_push[..., 1], 2.0 * slope, rtol=1e-4, atol=1e-6)
    # At a denoised estimate the network is not differentiated: the slope there, taken as it is.
    at_zero = s.policy_guide(scaler, log_prob, jnp.ones(2), denoise=lambda x, sigma: 0 * x, normalise=False)
    expected = (np.tanh(1.0) - np.tanh(0.2)) * (1 - np.tanh(0.2) ** 2) * 0.5
    np.testing.assert_allclose(at_zero(x, level, index)[..., 1], expected, rtol=1e-4)
    flat = s.policy_guide(scaler, lambda o, a: 0 * a.sum(-1), jnp.ones(2))(x, level, index)
    np.testing.assert_array_equal(flat, 0.0)


@functools.cache
def views():
    rng = np.random.default_rng(1)
    ends = np.arange(64) % 8 == 7
    observation, action = rng.normal(size=(64, 2)), np.tanh(rng.normal(size=(64, 1)))
    dataset = data.from_arrays(observation, action, rng.normal(size=64), 0 * ends, ends, observation + 0.1, name="toy")
    return trajectories(dataset, length=4, stride=1)


NETWORK = temporal_mlp(4, 5, (16,))


def furthest(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max()


def test_fitting_learns_warms_up_and_repeats_when_cut_into_segments():
    whole = s.fit(NETWORK, updates=200, batch_size=16, segments=2)
    _, history = jax.jit(whole)(jax.random.key(0), as_float32(s.FitHyper(learning_rate=1e-2)), views())
    assert history["model_loss"][1] < 0.95 * history["model_loss"][0]

    # The first step of Adam is the learning rate itself, here a tenth of its peak; its average moves by the rate.
    once = s.fit(NETWORK, updates=100, segments=100, batch_size=16)
    hyper = as_float32(s.FitHyper(learning_rate=1e-2, average_rate=0.25))
    first = jax.jit(once.init)(jax.random.key(0), hyper)
    train = jax.jit(once.train)
    second, _ = train(first, jnp.int32(0), jax.random.key(0), hyper, views())
    moved = jax.tree.map(furthest, second.params, first.params)
    np.testing.assert_allclose(max(jax.tree.leaves(moved)), 1e-3, rtol=1e-2)
    jax.tree.map(np.testing.assert_array_equal, second.average, second.params)
    third, _ = train(second, jnp.int32(1), jax.random.key(0), hyper, views())  # the average moves every tenth update
    jax.tree.map(np.testing.assert_array_equal, third.average, second.average)
    for step, rate in ((10, 0.5), (50, 0.25)):  # the plain mean of what it has seen, until its own rate is larger
        moved, _ = train(third, jnp.int32(step), jax.random.key(0), hyper, views())
        found, params, before = jax.device_get((moved.average, moved.params, third.average))
        mixed = jax.tree.map(lambda a, b, rate=rate: rate * a + (1 - rate) * b, params, before)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, mixed)
    last, _ = train(second, jnp.int32(99), jax.random.key(0), hyper, views())
    moved = jax.tree.map(furthest, last.params, second.params)
    assert max(jax.tree.leaves(moved)) < 1e-4  # the learning rate has fallen to next to nothing


class Log(NamedTuple):
    refreshes: jax.Array  # [4], sum of the synthetic rewards seen in update number i
    step: jax.Array


def recorder(real_rows):
    """Acts with its number of updates, and writes down the rewards of its synthetic rows: see ``counting``."""

    def update(state, batch, hyper, key, step):
        assert batch.return_rank is None
        assert batch.extras == {}
        assert batch.reward.shape == batch.next_action.shape[:1] == (6,)
        seen = batch.reward[real_rows:].mean()
        return Log(state.refreshes.at[step].set(seen), step + 1), {"real": batch.reward[:real_rows].mean()}

    def act(state, observation, hyper, key, explore):
        assert explore is False
        return jnp.full((*observation.shape[:-1], 1), state.step.astype(jnp.float32))

    return Agent(lambda key, hyper: Log(jnp.full(4, -1.0), jnp.int32(0)), update, act)


def counting(key, model, log_prob):
    """Rows whose reward is where the policy's density peaks: the number of updates that it has had."""
    rows = jax.tree.map(lambda leaf: leaf[:8], model.params)
    if log_prob is None:
        return dataclasses.replace(rows, reward=jnp.full(8, 77.0))
    grid = jnp.arange(10.0)[:, None]
    scores = log_prob(jnp.zeros((10, 2)), grid)
    return dataclasses.replace(rows, reward=jnp.full(8, jnp.argmax(scores).astype(jnp.float32)))


@pytest.mark.parametrize("guided", [True, False])
def test_draws_follow_the_policy_of_the_moment(guided):
    dataset = dataclasses.replace(views().dataset, reward=jnp.full(64, 5.0))
    rows = dataclasses.replace(data.samplers.take(dataset, jnp.arange(8)), return_rank=None)
    run = s.synthetic(
        recorder(2), counting, updates=4, refresh_every=2, segments=1, batch_size=6, real_rows=2, guided=guided
    )
    model = s.TrajectoryModel(rows, views().scaler)
    state, history = jax.jit(run)(jax.random.key(0), None, s.SyntheticData(dataset, model))
    np.testing.assert_array_equal(state.refreshes, [0, 0, 2, 2] if guided else [77] * 4)
    np.testing.assert_array_equal(history["real"], 5.0)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="refresh_every=3"):
        s.synthetic(recorder(2), counting, updates=8, refresh_every=3)
    with pytest.raises(UserError, match="real_rows=9"):
        s.synthetic(recorder(2), counting, updates=8, refresh_every=4, real_rows=9, batch_size=8)
    windowed = recorder(2)._replace(sample=data.samplers.windows(3))
    with pytest.raises(UserError, match="its own batches"):
        s.synthetic(windowed, counting, updates=8, refresh_every=4)


def test_an_offline_agent_trains_on_draws_as_a_population_and_resumes(tmp_path):
    agent = td3_bc.make(td3_bc.Config(hidden=(8,)), Spec(2, 1))
    make = s.generator(NETWORK, windows=8, length=4, steps=4, coefficient=0.3)
    run = s.synthetic(agent, make, updates=8, refresh_every=2, segments=2, batch_size=16, real_rows=4)
    params = jax.jit(NETWORK.init)(jax.random.key(0))
    together = s.SyntheticData(views().dataset, s.TrajectoryModel(params, views().scaler))
    hypers = population.grid(td3_bc.Hyper(), alpha=[1.0, 2.5])
    sweep = functools.partial(population.sweep, run, seeds=2, hypers=hypers, data=together)
    result = sweep()
    assert result.metrics["critic_loss"].shape == (2, 2, 2)
    single = jax.jit(run)(jax.random.key(1), result.hyper(1), together)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), result.member(1, 1), single)

    def stop(progress):
        if progress.segment == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(directory=tmp_path, save_seconds=0.0, on_segment=stop)
    again = sweep(directory=tmp_path, resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.state, result.state)


def test_they_are_runs():
    assert isinstance(loops.synthetic.fit(NETWORK, updates=1), Run)
