"""Attacks that make a policy do something else: a point that walks to its goal shall stay on the other side of a line.

The state is place, velocity and goal in the plane; the goal is always right of the line, the start anywhere. It is seen
through 48 redundant sensors ``tanh(W [x, v, goal] + b)``, standardised, and perturbed by at most 0.2 in each: many
sensors make a cloned policy fragile. Seeds are sensors, victims and adversaries. The victim is a network cloned from a
controller; it is always at its goal in the end, never on the left. What is wanted is the left side.

Every adversary that learns has 51,200 steps of the environment. RAT hears of the target only by 400 answers about pairs
of segments of 10 steps; PA-AD and SA-RL, which are PPO, are paid the judge's own number, minus the place.

Not claimed: that PA-AD and SA-RL stay behind with more steps, that the weighting of states matters, or that RAT is the
strongest attack that knows the network: gradients towards its intention at every decision are what its adversary comes
to in one forward pass.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from jaxrl_reg import networks
from jaxrl_reg.agents import ppo
from jaxrl_reg.envs import core
from jaxrl_reg.evaluation import attacks
from jaxrl_reg.evaluation.returns import episode_returns
from jaxrl_reg.loops import adversaries
from jaxrl_reg.loops.rat import Config, rat
from jaxrl_reg.types import Spec

CLAIM = Claim(
    statement="An adversary that imitates an intention learnt from preferences makes a policy stay where it never goes "
    "more often than adversaries that learn by reinforcement (PA-AD, SA-RL) at equal perturbations and environment "
    "steps, and than attacks without a target (PGD, random)",
    paper="https://arxiv.org/abs/2412.10713",
    method="RAT",
    baselines=("PA-AD", "SA-RL", "PGD", "random"),
    ablation=None,
    metric="share of the last 20 of 40 steps on the side that is wanted",
    systems=(65,),
    margin=0.05,
    seeds=5,
    chosen="seeds 0 to 7: over PA-AD 0.247, sd 0.060; power 1.000",
)
SENSORS, STEPS, EPSILON, EPISODES = 48, 40, 0.2, 256
ENVS, ITERATIONS = 32, 40
BUDGET = adversaries.Budget(ITERATIONS * ENVS * STEPS, ENVS, STEPS, (32, 32), epochs=3, minibatches=4)
RATES = ppo.Hyper(actor_learning_rate=1e-3, value_learning_rate=1e-3, discount=0.95)
RAT = {
    "steps": ITERATIONS * ENVS * STEPS,
    "num_envs": ENVS,
    "unroll": STEPS,
    "hidden": (32, 32),
    "updates": 32,
    "labels": 400,
    "rounds": 8,
    "segment": 10,
}
CLONE_STEPS, CLONE_ROWS = 1_500, 256


def physical(key, rows=()):
    """Random states ``[..., 6]``: place, velocity, goal."""
    keys = jax.random.split(key, 3)
    place = jax.random.uniform(keys[0], (*rows, 2), minval=-1.0)
    velocity = 0.5 * jax.random.normal(keys[1], (*rows, 2))
    low, high = jnp.array([0.1, -1.0]), jnp.array([0.6, 1.0])
    goal = jax.random.uniform(keys[2], (*rows, 2)) * (high - low) + low
    return jnp.concatenate([place, velocity, goal], axis=-1)


def sensors(key):
    """``state [..., 6] -> observation [..., 48]``, of mean 0 and spread 1 over random states."""
    weight_key, bias_key, state_key = jax.random.split(key, 3)
    weight = jax.random.normal(weight_key, (6, SENSORS))
    bias = 0.3 * jax.random.normal(bias_key, (SENSORS,))
    raw = jnp.tanh(physical(state_key, (4096,)) @ weight + bias)
    return lambda state: (jnp.tanh(state @ weight + bias) - raw.mean(0)) / raw.std(0)


def controller(state):
    return jnp.clip(2.0 * (state[..., 4:] - state[..., :2]) - state[..., 2:4], -1.0, 1.0)


def world(see):
    def reset(key):
        state = physical(key).at[2:4].set(0.0)
        return core.Outcome(state, see(state), metrics={"place": state[0]})

    def step(state, action, key):
        velocity = 0.7 * state[2:4] + 0.3 * action
        place = jnp.clip(state[:2] + 0.15 * velocity, -1.2, 1.2)
        state = jnp.concatenate([place, velocity, state[4:]])
        reward = -jnp.linalg.norm(place - state[4:])
        return core.Outcome(state, see(state), reward=reward, metrics={"place": place[0]})

    return core.time_limit(core.environment(reset, step, Spec(SENSORS, 2), "sensors"), STEPS)


def wanted(before, action, after):
    """What the judge sees."""
    return -after.metrics["place"]


def on_the_left(before, action, after):
    late = before.step >= STEPS // 2
    return (late & (after.metrics["place"] < 0)) / (STEPS / 2)


VICTIM = networks.mlp((SENSORS, 64, 64, 2), activation="tanh", final_activation="tanh")


def cloned(key):
    """The victim's parameters: a network that does what the controller does."""
    see, optimiser = sensors(jax.random.fold_in(key, 0)), optax.adam(2e-3)
    init_key, key = jax.random.split(jax.random.fold_in(key, 1))
    params = VICTIM.init(init_key)

    def step(carry, key):
        params, opt_state = carry
        state = physical(key, (CLONE_ROWS,))

        def loss(params):
            return jnp.square(VICTIM.apply(params, see(state)) - controller(state)).mean()

        updates, opt_state = optimiser.update(jax.grad(loss)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, CLONE_STEPS))
    return params


def made(arm, victim, env, key):
    """The attack of an arm, and what its training told."""
    epsilon = jnp.full(SENSORS, EPSILON)
    if arm == "random":
        return attacks.random_attack(epsilon), {}
    if arm == "PGD":
        return attacks.mad(victim, epsilon), {}
    if arm == "SA-RL":
        return adversaries.sa_rl(victim, env, epsilon, key, wanted, BUDGET, RATES)
    if arm == "PA-AD":
        return adversaries.pa_ad(victim, env, epsilon, key, wanted, BUDGET, RATES)
    if arm == "RAT":
        return rat(victim, env, wanted, epsilon, key, config=Config(**RAT))
    return attacks.none, {}


def rate(arms, params, key):
    """Of each arm the share of late steps on the left against one victim, and the end of what training told."""
    env, found = world(sensors(jax.random.fold_in(key, 0))), {}

    def victim(observation):
        return VICTIM.apply(params, observation)

    for arm in arms:
        attack, told = made(arm, victim, env, jax.random.fold_in(key, 2))
        shown = attacks.perturbed(lambda observation, key: victim(observation), attack)
        sums = episode_returns(attacks.judged(env, on_the_left), EPISODES)(shown, jax.random.fold_in(key, 3))
        last = {name: told[name][-1] for name in ("agreement", "target", "weight_std") if name in told}
        found[arm] = sums["reward/target"].mean(), last
    return found


PROGRAMS = (("RAT",), ("PA-AD",), ("SA-RL",), ("PGD", "random", "none"))  # arms that are compiled together


def run(seeds, scale, say):
    del scale  # one small world: there is nothing to enlarge
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    params = jax.jit(jax.vmap(cloned))(keys)
    results = {}
    for arms in PROGRAMS:
        found = jax.device_get(jax.jit(jax.vmap(functools.partial(rate, arms)))(params, keys))
        for arm, (values, told) in found.items():
            more = "".join(f"; {name} {value.mean():.3f}" for name, value in told.items())
            say(f"{arm}: {values.mean():.3f} {np.round(values, 2)}{more}")
            results[arm] = values.tolist()
    return results
