"""A car on a ramp that joins a ring road: a proxy of mean speed likes the ramp closed, where everyone behind it stands.

All cars follow the intelligent driver model (Treiber et al. 2000); ours can hold back, and never crash.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import _rewards, core
from jaxrl_reg.types import Array, Env, Scene, Spec

RING, RAMP = 8, 3  # cars
CARS, OURS = RING + RAMP, RING  # ours is the first of the ramp
LENGTH, CAR = 120.0, 5.0  # metres: the ring, a car
TOP_SPEED, HEADWAY, STANDSTILL = 15.0, 1.0, 2.0  # m/s, s, m: what a driver wants
ACCELERATION, COMFORT, HARDEST = 1.5, 2.0, 6.0  # m/s^2: upwards, comfortable braking, the hardest braking
TIME_STEP, SUBSTEPS = 0.2, 5  # s; per action
ZIPPER = 30.0  # metres before the ramp's end where the ring lets its first car in
FAR = 1e3  # metres; no leader


class Physics(NamedTuple):
    """Cars of the ring first, then those that began on the ramp."""

    x: Array  # [11] metres; on the ring in [0, 120), on the ramp negative, which joins at 0
    v: Array  # [11] m/s
    on_ring: Array  # [11] bool
    time: Array  # int32, steps


def make(reward: str = "proxy", episode_length: int = 60) -> Env:
    """A minute of driving, an action each second, and two rewards.

    Eight cars on a ring of 120 m, three on a ramp that joins it; the first of these is ours, and its acceleration is
    the lesser of what the driver model asks for and ``1.5 a`` m/s^2. So it cannot crash, and can keep the ramp closed.
    Cars of ring and ramp let each other in as a zipper does, from 30 m before the merge.

    With ``v`` the speeds of all eleven, per step: TRUE ``mean(-1 / (v + 0.1)) - 0.05 |a|``, to which a car that stands
    is 10 worse than one that crawls (the original has 0.001 for 0.1, where it is 1000); PROXY ``mean(v) / 5 - 0.05
    |a|``.

    Observation ``[13]``: own speed, own place / 30 m within [-2, 4], whether on the ring; gap and approach of the car
    ahead, of the ring's car that passed the merge last and of the next one to come to it; mean speeds of ring and ramp;
    sine and cosine of the share of the time gone by, as half a turn. Speeds are in units of 15 m/s, gaps of 30 m (2
    where there is none). ``reward`` is what ``EnvState.reward`` is: ``"proxy"`` or ``"true"``; both are in the metrics,
    beside ``gap``, the smallest between two cars of the ring, metres.

    After the merge task of Laidlaw et al. 2025 (Correlated Proxies) and Pan et al. 2022, which is simulated by SUMO.

    Raises ``UserError`` for another reward.
    """
    _rewards.check("traffic", reward)

    def reset(key):
        turn_key, ring_key, ramp_key, speed_key = jax.random.split(key, 4)
        spacing = LENGTH / RING
        ring = jnp.arange(RING) * spacing + jax.random.uniform(ring_key, (RING,), minval=-1.0, maxval=1.0)
        ring = jnp.mod(ring + jax.random.uniform(turn_key, maxval=spacing), LENGTH)
        # Far and slow enough that the first can stop before the ring begins to let it in.
        ramp = -42.0 - spacing * jnp.arange(RAMP) + jax.random.uniform(ramp_key, (RAMP,), minval=-2.0, maxval=2.0)
        fast = jnp.where(jnp.arange(CARS) < RING, 6.0, 4.0)
        speed = fast + jax.random.uniform(speed_key, (CARS,), minval=-0.5, maxval=0.5)
        physics = Physics(jnp.concatenate([ring, ramp]), speed, jnp.arange(CARS) < RING, jnp.int32(0))
        return _with_gap(_rewards.outcome(reward, physics, observe(physics, episode_length)), jnp.float32(0.0))

    def step(physics, action, key):
        physics, gap = jax.lax.fori_loop(
            0, SUBSTEPS, lambda _, carry: _both(carry, action[0]), (physics, jnp.float32(FAR))
        )
        physics = physics._replace(time=physics.time + 1)
        effort = 0.05 * jnp.abs(action[0])
        true = -jnp.mean(1.0 / (physics.v + 0.1)) - effort
        proxy = jnp.mean(physics.v) / 5.0 - effort
        return _with_gap(_rewards.outcome(reward, physics, observe(physics, episode_length), true, proxy), gap)

    env = core.environment(reset, step, Spec(13, 1), "traffic", draw=draw)
    return core.time_limit(env, episode_length)


def _with_gap(outcome: core.Outcome, gap: Array) -> core.Outcome:
    return outcome._replace(metrics={**(outcome.metrics or {}), "gap": gap})


def _both(carry: tuple[Physics, Array], action: Array) -> tuple[Physics, Array]:
    physics, smallest = carry
    physics = advance(physics, action)
    return physics, jnp.minimum(smallest, _ring_gaps(physics).min())


def follow(v: Array, gap: Array, leader_v: Array) -> Array:
    """Acceleration of the driver model, m/s^2, at speed ``v`` behind a car whose rear is ``gap`` metres off."""
    wanted = STANDSTILL + jnp.maximum(0.0, v * HEADWAY + v * (v - leader_v) / (2 * (ACCELERATION * COMFORT) ** 0.5))
    crowding = jnp.square(wanted / jnp.maximum(gap, 0.1))
    return jnp.clip(ACCELERATION * (1.0 - (v / TOP_SPEED) ** 4 - crowding), -HARDEST, ACCELERATION)


class Neighbours(NamedTuple):
    """Gaps and speeds of the car ahead ``[11]`` each, and around the merge, as seen by the first of the ramp."""

    gap: Array  # of the car ahead on the same road
    speed: Array
    first: Array  # int32, the ramp's first car
    waiting: Array  # bool, whether the ramp has one
    passed: Array  # int32, the ring's car that passed 0 last
    coming: Array  # int32, the ring's car nearest before 0 that lets the first in
    ahead: Array  # int32, the ring's car nearest ahead of the first that has not passed 0 yet
    has_coming: Array  # bool
    has_ahead: Array  # bool


def neighbours(physics: Physics) -> Neighbours:
    """Who drives where."""
    x, v, on_ring, _ = physics
    same = on_ring[:, None] == on_ring[None]
    distance = x[None] - x[:, None]
    distance = jnp.where(on_ring[:, None] & on_ring[None], jnp.mod(distance, LENGTH), distance)
    ahead = same & (distance > 0) & ~jnp.eye(CARS, dtype=bool)
    distance = jnp.where(ahead, distance, FAR)
    leader = distance.argmin(axis=1)
    first = jnp.where(on_ring, -jnp.inf, x).argmax()
    own = x[first]
    before = x - LENGTH  # where a car of the ring is if it is seen from the ramp, before 0
    passed = jnp.where(on_ring, x, jnp.inf).argmin()
    nearer, farther = on_ring & (before > own), on_ring & (before <= own)
    return Neighbours(
        distance.min(axis=1) - CAR,
        v[leader],
        first,
        ~on_ring.all(),
        passed,
        jnp.where(farther, before, -jnp.inf).argmax(),
        jnp.where(nearer, before, jnp.inf).argmin(),
        farther.any(),
        nearer.any(),
    )


def advance(physics: Physics, action: Array) -> Physics:
    """A fifth of a second in which our car's acceleration is at most ``1.5 action``."""
    x, v, on_ring, _ = physics
    near = neighbours(physics)
    acceleration = follow(v, near.gap, near.speed)
    own, first = x[near.first], jnp.arange(CARS) == near.first
    # The first of the ramp follows the car that passed last, and one that will pass before it.
    behind_passed = follow(v[near.first], x[near.passed] - own - CAR, v[near.passed])
    behind_ahead = follow(v[near.first], x[near.ahead] - LENGTH - own - CAR, v[near.ahead])
    merging = jnp.minimum(behind_passed, jnp.where(near.has_ahead, behind_ahead, ACCELERATION))
    acceleration = jnp.where(first & near.waiting, jnp.minimum(acceleration, merging), acceleration)
    # The ring's next car lets it in.
    lets = near.waiting & near.has_coming & (own > -ZIPPER)
    yielding = follow(v[near.coming], own - (x[near.coming] - LENGTH) - CAR, v[near.first])
    next_car = jnp.arange(CARS) == near.coming
    acceleration = jnp.where(lets & next_car, jnp.minimum(acceleration, yielding), acceleration)
    acceleration = acceleration.at[OURS].min(ACCELERATION * action)
    v = jnp.maximum(v + TIME_STEP * acceleration, 0.0)
    x = x + TIME_STEP * v
    on_ring = on_ring | (x >= 0)
    return physics._replace(x=jnp.where(on_ring, jnp.mod(x, LENGTH), x), v=v, on_ring=on_ring)


def _ring_gaps(physics: Physics) -> Array:
    """``[11]``, from each car of the ring to the next; ``FAR`` for the others."""
    return jnp.where(physics.on_ring, neighbours(physics).gap, FAR)


def observe(physics: Physics, episode_length: int) -> Array:
    """``[13]``, see :func:`make`."""
    x, v, on_ring, time = physics
    near = neighbours(physics)
    own, speed = x[OURS], v[OURS]
    inside = on_ring[OURS]
    place = jnp.where(inside & (own > LENGTH / 2), own - LENGTH, own)  # nearest way to the merge
    gap_passed = x[near.passed] - place - CAR
    gap_coming = place - (x[near.coming] - LENGTH) - CAR
    first = near.waiting & (near.first == OURS)
    ahead = jnp.where(near.has_ahead, x[near.ahead] - LENGTH - own - CAR, gap_passed)
    ahead_speed = jnp.where(near.has_ahead, v[near.ahead], v[near.passed])
    gap = jnp.where(first, ahead, near.gap[OURS])
    leader = jnp.where(first, ahead_speed, near.speed[OURS])

    def seen(gap, other):
        return [jnp.clip(gap / 30.0, -2.0, 2.0), (speed - other) / TOP_SPEED]

    def mean(mask):
        return jnp.where(mask, v, 0.0).sum() / jnp.maximum(mask.sum(), 1) / TOP_SPEED

    turn = jnp.pi * time / episode_length
    return jnp.stack(
        [
            speed / TOP_SPEED,
            jnp.clip(own / 30.0, -2.0, 4.0),
            inside.astype(jnp.float32),
            *seen(gap, leader),
            *seen(gap_passed, v[near.passed]),
            *seen(gap_coming, v[near.coming]),
            mean(on_ring),
            mean(~on_ring),
            jnp.sin(turn),
            jnp.cos(turn),
        ]
    )


def draw(states: list) -> Scene:
    """The ring from above with the ramp as a tangent; ours is the thicker car."""
    physics = [core.unwrap(state) for state in states]
    x = np.array([state.x for state in physics])
    on_ring = np.array([state.on_ring for state in physics])
    radius = LENGTH / (2 * np.pi)

    def place(at, ring):
        angle = 2 * np.pi * at / LENGTH - np.pi / 2
        round_ = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        return np.where(ring[..., None], round_, np.stack([at, np.full_like(at, -radius)], axis=-1))

    ends = np.stack([place(x, on_ring), place(x - CAR, on_ring)], axis=2)
    road = place(np.linspace(0, LENGTH, 41), np.ones(41, bool))
    ramp = place(np.array([-100.0, 0.0]), np.zeros(2, bool))
    still = np.stack([np.concatenate([road[:-1], ramp[:1]]), np.concatenate([road[1:], ramp[1:]])], axis=1)
    thick = np.where(np.arange(CARS) == OURS, 1.4, 0.9)
    return Scene(ends, thick, TIME_STEP * SUBSTEPS, False, still, np.full(len(still), 0.2))
