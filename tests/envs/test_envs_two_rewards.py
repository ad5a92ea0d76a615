"""Worlds with a true reward and a proxy for it: steps against NumPy versions, and what the proxy is hacked by."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import core, glucose, tomato
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import episode_returns

MAP = "tS.O"


def play(env, acts, episodes, steps):
    """Metrics and physics ``[P, E, T, ...]`` of policies without memory, in one program."""

    def run(number, key):
        def body(state, _):
            action = jnp.stack([act(state.observation) for act in acts])[number]
            state = env.step(state, action)
            return state, (state.metrics, core.unwrap(state.inner))

        return jax.lax.scan(body, env.reset(key), length=steps)[1]

    each = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    return jax.jit(each)(jnp.arange(len(acts)), jax.random.split(jax.random.key(0), episodes))


def test_a_garden_by_hand():
    env = envs.make("tomato", layout=MAP, slip=0.0, dry=1.0, dry_distance=1.0, episode_length=9)
    right, left, down, _ = jnp.eye(4) * 2 - 1
    step, state = jax.jit(env.step), env.reset(jax.random.key(0))
    assert (env.spec.observation_dim, env.spec.discrete) == (5, True)
    np.testing.assert_array_equal(state.observation, [0, 1, 0, 0, 0])
    seen = []
    # Into the tomato; against the wall; one away: wet still; two away: dry; the bucket pays and changes nothing.
    for action in (left, down, right, right, right, right, left):
        state = step(state, action)
        seen.append([int(state.inner.cell), *(float(x) for x in (state.inner.wet[0], state.reward))])
        assert float(state.metrics["reward/proxy"]) == float(state.reward)
        assert float(state.metrics["reward/true"]) == seen[-1][1]
    assert seen == [[0, 1, 1], [0, 1, 1], [1, 1, 1], [2, 0, 0], [3, 0, 2], [3, 0, 2], [2, 0, 0]]
    honest = envs.make("tomato", layout=MAP, slip=0.0, reward="true", terminate=True)
    state = honest.step(honest.reset(jax.random.key(0)), left)
    assert (float(state.reward), float(state.terminated)) == (1.0, 1.0)
    assert len(env.draw([state.inner]).ends[0]) == 2


def test_garden_steps_follow_the_exact_matrices():
    """From states where chance decides, the frequencies of the next state are those of the arrays."""
    settings = {"layout": "t.O\nt..", "slip": 0.3, "dry": 0.4, "dry_distance": 1.0}
    transition, true, proxy, initial = tomato.matrices(**settings)
    env = envs.make("tomato", **settings)
    cells, size = 6, 4
    assert transition.shape == (cells * size, 4, cells * size)
    np.testing.assert_allclose(transition.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(initial.reshape(cells, size)[:, 0], [0.2, 0.2, 0, 0.2, 0.2, 0.2], rtol=1e-6)

    @jax.jit
    def count(state, action):
        def one(key):
            physics = tomato.Physics(state // size, ((state % size) >> jnp.arange(2)) % 2 * 1.0)
            before = env.reset(jax.random.key(0))
            after = env.step(dataclasses.replace(before, inner=physics, key=key), 2 * jax.nn.one_hot(action, 4) - 1)
            index = after.inner.cell * size + (after.inner.wet * jnp.array([1, 2])).sum().astype(jnp.int32)
            return index, after.metrics["reward/true"], after.metrics["reward/proxy"]

        index, true, proxy = jax.vmap(one)(jax.random.split(jax.random.key(7), 20_000))
        return jnp.bincount(index, length=cells * size) / len(index), true.mean(), proxy.mean()

    for state, action in ((1 * size + 3, 0), (0, 2), (5 * size + 2, 3), (2 * size + 1, 1)):
        share, paid, claimed = count(state, action)
        np.testing.assert_allclose(share, transition[state, action], atol=0.015)
        np.testing.assert_allclose([paid, claimed], [true[state, action], proxy[state, action]], atol=0.02)
    assert tomato.matrices()[0].shape == (208, 4, 208)
    assert envs.make("tomato").spec.observation_dim == 24 + 6


def numpy_minute(body, rate, minute, meals):
    """Bergman's minimal model, from its equations."""
    g, x, i, s1, s2, q1, q2 = body
    q1 += 1000 * sum(grams for at, grams in meals if minute % 1440 == at)
    change = (
        0.003 * (400 - g) - x * g + 0.8 * q2 / (40 * 200),
        -0.025 * x + 1.3e-5 * i,
        -0.09 * i + 1000 * s2 / (55 * 12),
        rate - s1 / 55,
        (s1 - s2) / 55,
        -q1 / 40,
        (q1 - q2) / 40,
    )
    floors = (1, 0, 0, 0, 0, 0, 0)
    return [max(old + d, low) for old, d, low in zip((g, x, i, s1, s2, q1, q2), change, floors, strict=True)]


def test_a_day_of_glucose_is_that_of_the_equations():
    np.testing.assert_allclose(glucose.BASAL * 60, 0.872, atol=5e-4)
    env, rng = envs.make("glucose"), np.random.default_rng(0)
    step, state = jax.jit(env.step), env.reset(jax.random.key(3))
    meals = list(zip(np.asarray(state.inner.meal_minute).tolist(), np.asarray(state.inner.grams).tolist(), strict=True))
    hours = np.array([at for at, _ in meals]) / 60
    assert (np.abs(hours - [7, 12, 18.5]) <= 1.01).all()
    g = float(state.inner.glucose)
    assert 90 <= g <= 150
    u = 0.0145384
    body = [g, 0.007, 0.007 * 0.025 / 1.3e-5, 55 * u, 55 * u, 0.0, 0.0]
    readings, rates = [g] * 12, [u] * 12
    for t in range(120):
        action = float(rng.uniform(-1, -0.6))
        state = step(state, jnp.array([action]))
        rate = 5 * u * (action + 1)
        for minute in range(5 * t, 5 * t + 5):
            body = numpy_minute(body, rate, minute, meals)
        readings, rates = [*readings[1:], body[0]], [*rates[1:], rate]
        np.testing.assert_allclose(state.inner.glucose, body[0], rtol=2e-3)
        f = 3.5506 * (np.log(body[0]) ** 0.8353 - 3.7932)
        np.testing.assert_allclose(state.metrics["reward/true"], -(f**2), atol=5e-3)
        paid = -(0.32 * 5 * rate + (body[0] < 70) * 13500 / 105120)
        np.testing.assert_allclose(state.reward, paid, atol=1e-5)
    clock = 2 * np.pi * 600 / 1440
    seen = [*((np.array(readings) - 140) / 100), *(np.array(rates) / (5 * u) - 1), np.sin(clock), np.cos(clock)]
    np.testing.assert_allclose(state.observation, seen, atol=5e-3)


def test_the_cheapest_treatment_is_the_worst():
    """Numbers of the model as it was first measured, eight people over two days."""
    wanted = {
        "pid": (-3.45, -0.028, 150),
        "basal": (-5.1, -0.023, 172),
        "half": (-20.8, -0.012, 255),
        "none": (-83, 0.0, 504),
    }
    constants = [lambda _, rate=rate: jnp.array([rate]) for rate in (-0.8, -0.9, -1.0)]
    metrics, physics = play(envs.make("glucose", episode_length=576), [glucose.pid, *constants], 8, 576)
    columns = (10 * metrics["reward/true"], metrics["reward/proxy"], physics.glucose)
    for i, (name, numbers) in enumerate(wanted.items()):
        found = [float(column[i].mean()) for column in columns]
        np.testing.assert_allclose(found, numbers, rtol=0.08, atol=1e-3, err_msg=name)
    assert np.asarray(glucose.pid(np.zeros(26))).shape == (1,)


def test_glucose_that_leaves_ends_the_episode_and_costs_ten():
    env = envs.make("glucose", reward="true")
    state = env.reset(jax.random.key(0))
    state = dataclasses.replace(state, inner=state.inner._replace(glucose=jnp.float32(1.0), action=jnp.float32(0.9)))
    state = env.step(state, jnp.array([1.0]))
    f = 3.5506 * (np.log(max(float(state.inner.glucose), 1)) ** 0.8353 - 3.7932)
    assert (float(state.terminated), float(state.inner.glucose) < 10) == (1.0, True)
    np.testing.assert_allclose(state.reward, -(f**2) - 10, rtol=1e-4)


def idm(v, gap, leader):
    wanted = 2 + max(0.0, v * 1 + v * (v - leader) / (2 * np.sqrt(1.5 * 2)))
    return float(np.clip(1.5 * (1 - (v / 15) ** 4 - (wanted / max(gap, 0.1)) ** 2), -6, 1.5))


def numpy_drive(x, v, ring, action):
    """A fifth of a second, car by car."""
    size, found = len(x), []
    ramp = [i for i in range(size) if not ring[i]]
    first = max(ramp, key=lambda i: x[i]) if ramp else None
    for i in range(size):
        gaps = {}
        for j in range(size):
            if j != i and ring[i] == ring[j]:
                ahead = (x[j] - x[i]) % 120 if ring[i] else x[j] - x[i]
                if ahead > 0:
                    gaps[j] = ahead - 5
        leader = min(gaps, key=gaps.get) if gaps else None
        a = [idm(v[i], gaps[leader], v[leader])] if leader is not None else [idm(v[i], 1e3, v[i])]
        if i == first:
            passed = min((j for j in range(size) if ring[j]), key=lambda j: x[j])
            a.append(idm(v[i], x[passed] - x[i] - 5, v[passed]))
            nearer = [j for j in range(size) if ring[j] and x[j] - 120 > x[i]]
            if nearer:
                j = min(nearer, key=lambda j: x[j])
                a.append(idm(v[i], x[j] - 120 - x[i] - 5, v[j]))
        elif ring[i] and first is not None and x[first] > -30:
            behind = [j for j in range(size) if ring[j] and x[j] - 120 <= x[first]]
            if behind and i == max(behind, key=lambda j: x[j]):
                a.append(idm(v[i], x[first] - (x[i] - 120) - 5, v[first]))
        if i == 8:
            a.append(1.5 * action)
        found.append(min(a))
    v = [max(s + 0.2 * a, 0.0) for s, a in zip(v, found, strict=True)]
    x = [p + 0.2 * s for p, s in zip(x, v, strict=True)]
    ring = [on or p >= 0 for on, p in zip(ring, x, strict=True)]
    return [p % 120 if on else p for p, on in zip(x, ring, strict=True)], v, ring


def test_traffic_drives_as_its_rules_say():
    env, rng = envs.make("traffic"), np.random.default_rng(1)
    step, state = jax.jit(env.step), env.reset(jax.random.key(2))
    merged = 0
    for _ in range(58):
        cars = [np.asarray(part).tolist() for part in state.inner[:3]]
        action = float(rng.uniform(0.0, 1.0))
        state = step(state, jnp.array([action]))
        for _ in range(5):
            cars = numpy_drive(*cars, action)
        np.testing.assert_allclose(state.inner.x, cars[0], atol=2e-3)
        np.testing.assert_allclose(state.inner.v, cars[1], atol=2e-3)
        assert np.asarray(state.inner.on_ring).tolist() == cars[2]
        v = np.array(cars[1])
        np.testing.assert_allclose(state.metrics["reward/true"], np.mean(-1 / (v + 0.1)) - 0.05 * action, atol=1e-2)
        np.testing.assert_allclose(state.reward, v.mean() / 5 - 0.05 * action, atol=1e-3)
        merged = max(merged, sum(cars[2]))
    assert merged > 8, "nobody merged, so the zipper was not tried"
    assert env.draw([state.inner] * 2).ends.shape == (2, 11, 2, 2)


def test_a_closed_ramp_is_faster_and_far_worse():
    metrics, physics = play(envs.make("traffic"), [lambda _: jnp.array([1.0]), lambda _: jnp.array([-1.0])], 16, 60)
    assert float(metrics["gap"].min()) > 0, "a collision"
    assert not np.asarray(physics.on_ring[1, :, -1, 8:]).any()
    (fast, slow), (true, worse) = physics.v.mean((1, 2, 3))[::-1], metrics["reward/true"].mean((1, 2)) + 0.05
    np.testing.assert_allclose((fast, worse), (5.55, -2.66), rtol=0.05)
    assert fast > 1.25 * slow
    assert worse < 4 * true


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tomato", {"reward": "ture"}, "did you mean 'true'"),
        ("tomato", {"layout": "..."}, "no tomato"),
        ("tomato", {"layout": "t.x"}, "unknown character 'x'"),
        ("tomato", {"layout": "t.\n."}, "equal length"),
        ("tomato", {"dry": 1.5}, "dry is a probability"),
        ("glucose", {"noise": -1.0}, "standard deviation"),
        ("traffic", {"reward": "speed"}, "reward of traffic"),
    ],
)
def test_refusals(name, settings, message):
    with pytest.raises(UserError, match=message):
        envs.make(name, **settings)


def test_matrices_refuse_what_would_not_fit():
    with pytest.raises(UserError, match="at most 4096"):
        tomato.matrices("tttttttttt\n..........")


def test_evaluations_add_up_both_rewards_whichever_is_paid():
    def right(observation, key):
        return jnp.tile(jnp.array([1.0, -1, -1, -1]), (len(observation), 1))

    found = {}
    for paid in ("proxy", "true"):
        env = envs.make("tomato", layout=MAP, slip=0.0, reward=paid, episode_length=5)
        found[paid] = episode_returns(env, 2)(right, jax.random.key(0))
    for paid, results in found.items():
        np.testing.assert_array_equal(results["return"], results[f"reward/{paid}"])
        np.testing.assert_array_equal(results["reward/proxy"], [8, 8])  # one step to the bucket's neighbour, four in it
        np.testing.assert_array_equal(results["reward/true"], [0, 0])
