"""Reward hacking with samples: PPO on a proxy, from scratch, held to a base policy's data over occupancies or actions.

One garden of 3 x 3 cells with a tomato in each corner, a corridor of two cells and a bucket that pays the proxy twice
what all wet tomatoes pay; slips 0.1, tomatoes farther than 1.9 dry with 0.3 a step. The base is PPO after 20 iterations
on the true reward, played with 15% of random actions: 12,800 rows. Every arm then makes 60 iterations of 16 x 40 steps
on the proxy, with the same PPO. Coefficients are in units of the proxy's standard deviation in the base's rows, and
were tuned on seeds 0 to 4: of 0.3, 0.6 and 1.2 for the chi-square (0.298, 0.433, 0.429; at 0.3 one seed hacks) and of
6, 12, 16, 20, 24 and 32 for KL over actions (0.153, 0.354, 0.408, 0.404, 0.404, 0.407; at 12 two seeds hack). Both take
the largest of those that are alike, the farthest from where the proxy is hacked. The base itself has 0.404.

Not claimed: an advantage over KL over OCCUPANCIES. A discriminator that has seen a state in one row of a thousand does
not know it well enough for the chi-square to be what it is in the exact version (``occupancy_reg_exact``).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg import agents, data, envs
from jaxrl_reg.loops.online import online
from jaxrl_reg.loops.rollout import rollout
from jaxrl_reg.population import stack
from jaxrl_reg.types import as_float32

CLAIM = Claim(
    statement="PPO on a hackable proxy keeps more of the true reward when it is held to a base policy's data by the "
    "root of the chi-square between occupancies than by KL over actions, coefficient tuned, or by nothing, where it "
    "moves into the bucket",
    paper="https://arxiv.org/abs/2403.03185",
    method="chi-square over occupancies",
    baselines=("KL over actions", "no regulariser"),
    ablation=None,
    metric="share of wet tomatoes in the last fifth of training",
    systems=(22,),
    margin=0.01,
    seeds=10,
    chosen="seeds 0 to 4 at the tuned coefficients: over KL over actions 0.022, sd 0.005; power 1.000",
)
GARDEN = """
t.t###
.....O
t.t###
"""
WORLD = {"layout": GARDEN, "slip": 0.1, "dry": 0.3, "dry_distance": 1.9, "bucket": 2.0, "episode_length": 40}
ENVS, UNROLL, ITERATIONS, BASE_ITERATIONS, PARTS = 16, 40, 60, 20, 5
RANDOM, ROWS = 0.15, 12_800
PPO = {"hidden": (32, 32), "epochs": 4, "minibatches": 4}
RATES = {"actor_learning_rate": 2e-3, "value_learning_rate": 2e-3, "discount": 0.97, "entropy_coef": 0.01}
HELD = {**PPO, "discriminator_hidden": (64, 64), "discriminator_batch": 400}
ARMS = (  # settings of the agent, and coefficients by arm
    ({"divergence": "sqrt_chi2"}, {"chi-square over occupancies": 1.2, "no regulariser": 0.0}),
    ({"divergence": "kl", "measure": "action"}, {"KL over actions": 32.0}),
)


def base_rows(seeds):
    """The base policies' data, stacked over seeds."""
    env = envs.make("tomato", reward="true", **WORLD)
    agent = agents.make("ppo", env.spec, **PPO)
    hyper = as_float32(agents.ppo.Hyper(**RATES))
    run = online(agent, env, steps=BASE_ITERATIONS * ENVS * UNROLL, num_envs=ENVS, unroll=UNROLL)
    vector = envs.vectorize(envs.make("tomato", **WORLD), ENVS)

    @jax.jit
    @jax.vmap
    def play(key):
        state, _ = run(key, hyper)
        start_key, play_key = jax.random.split(jax.random.fold_in(key, 1_000_003))

        def act(observation, key):
            own, other, coin = jax.random.split(key, 3)
            action = agent.act(state.agent, observation, hyper, own, True)
            anything = jax.random.uniform(other, action.shape, minval=-1.0)
            return jnp.where(jax.random.uniform(coin, (ENVS, 1)) < RANDOM, anything, action)

        return rollout(vector, act, vector.reset(start_key), play_key, ROWS // ENVS)[1]

    rows = jax.device_get(play(jnp.stack([jax.random.key(seed) for seed in seeds])))
    made = []
    for i in range(len(seeds)):
        # Lane after lane, each of whole episodes.
        one = jax.tree.map(lambda x, i=i: np.swapaxes(x[i], 0, 1).reshape(ROWS, *x.shape[3:]), rows)
        never, columns = np.zeros(ROWS, bool), (one.observation, one.action, one.reward)
        made.append(
            data.from_arrays(*columns, never, one.last > 0, one.next_observation, extras=one.extras, name="base")
        )
    return made


def watched(agent):
    """The agent, telling what the true reward of each trajectory was; it does not see it."""

    def update(state, batch, hyper, key, step):
        state, metrics = agent.update(state, batch, hyper, key, step)
        return state, {**metrics, "true": batch.extras["reward/true"].mean()}

    return agent._replace(update=update)


def train(seeds, rows, settings, coefficients):
    """The share of wet tomatoes in the last fifth, ``[coefficients, seeds]``."""
    env = envs.make("tomato", **WORLD)
    agent = watched(agents.make("occupancy_reg", env.spec, **HELD, **settings))
    sizes = {"num_envs": ENVS, "unroll": UNROLL, "segments": PARTS}
    run = online(agent, env, steps=ITERATIONS * ENVS * UNROLL, **sizes)
    hypers = stack([agents.occupancy_reg.Hyper(**RATES, coefficient=value) for value in coefficients])
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    many = jax.vmap(
        jax.vmap(lambda key, hyper, rows: run(key, hyper, rows)[1]["true"][-1], (0, None, 0)), (None, 0, None)
    )
    return np.asarray(jax.jit(many)(keys, hypers, rows))


def run(seeds, scale, say):
    del scale  # one small world: there is nothing to enlarge
    made = base_rows(seeds)
    for name in ("reward/true", "reward/proxy"):
        say(f"base, {name}: {np.mean([one.extras[name].mean() for one in made]):.3f}")
    correlations = [np.corrcoef(*(np.asarray(x) for x in one.extras.values()))[0, 1] for one in made]
    say(f"correlation {np.mean(correlations):.3f} ({min(correlations):.3f} to {max(correlations):.3f})")
    rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[dataclasses.replace(one, notes=()) for one in made])
    results = {}
    for settings, coefficients in ARMS:
        for name, values in zip(coefficients, train(seeds, rows, settings, coefficients.values()), strict=True):
            say(f"{name}: {values.mean():.3f} {np.round(values, 2)}")
            results[name] = values.tolist()
    results["base"] = [float(one.extras["reward/true"].mean()) for one in made]
    return results
