"""From a search to an offline agent: what the best solutions of a search are good for as data.

A point in four rooms starts in the lower left one; only the far goal, in the upper right, pays, while the point is
there. The data of an offline agent, which never sees the world, are the 10 best of 4,500 episodes that STAX played, or
the 10 best of as many policies drawn at random as the first population of every search is. Every seed is a search of
its own and an agent of its own; the agent was chosen on seeds 0 to 4 by what it learns from STAX: of solutions that are
at the goal for 0.69 of an episode IQL makes 0.59, and TD3+BC 0.02, whose actions leave data as narrow as these.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg import agents, envs, population
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.loops import search, solutions
from jaxrl_reg.loops.offline import offline
from jaxrl_reg.search import outcomes

CLAIM = Claim(
    statement="An offline agent learns to reach a far goal behind walls, and to stay there, from the 10 best of 4,500 "
    "episodes that STAX played, better than from the 10 best of as many random policies",
    paper="https://arxiv.org/abs/2111.01919",
    method="data of STAX",
    baselines=("data of random policies",),
    ablation=None,
    metric="share of an episode at the goal, mean of the last three of five evaluations",
    systems=(54,),
    margin=0.0,
    seeds=25,
    chosen="seeds 0 to 4, by the last evaluation alone",
)
SIZES = {"small": (3, 1_500), "full": (20, 100_000)}  # rounds, updates
STEPS, BEST = 60, 10
AGENT = "iql"
ARMS = {"data of STAX": "stax", "data of random policies": "random"}


def world():
    return envs.make("rooms", task="goal_1", speed=0.15, radius=0.2, episode_length=STEPS)


def best_of(method, seeds, rounds):
    """The best solutions of a search for every seed, genomes ``[seeds, BEST, G]``."""
    env = world()
    policy = outcomes.policy(env.spec)
    if method == "random":
        size, count = search.genes_of(policy)[0], search.Sizes().population + rounds * search.Sizes().evaluations(True)
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        genome = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 5), (count, size)))(keys)
        play = jax.jit(search.evaluation(env, policy))
        fitness = jnp.stack([play(key, one).fitness for key, one in zip(keys, genome, strict=True)])
    else:
        run = search.diversify(env, policy, method=method, rounds=rounds, keep=True)
        found = population.sweep(run, seeds=list(seeds), hypers=population.grid(search.Hyper())).state.found
        genome, fitness = found.tried.genome[0], found.tried.fitness[0]
    best = np.argsort(-np.asarray(fitness), axis=1, kind="stable")[:, :BEST]
    return np.take_along_axis(np.asarray(genome), best[..., None], axis=1)


def learnt(genomes, seeds, updates, name):
    """``(score, data)``, each a list over seeds: the agent's share of an episode at the goal, and that of its data."""
    env = world()
    policy, module = outcomes.policy(env.spec), agents.load(name)
    agent = module.make(module.Config(hidden=(64, 64)), env.spec)
    hyper = module.Hyper(actor_learning_rate=1e-3, critic_learning_rate=1e-3)
    train = jax.jit(offline(agent, updates=updates, segments=5, batch_size=128, evaluate=evaluator(env, 1)))
    scores, data = [], []
    for seed, genome in zip(seeds, genomes, strict=True):
        rows = solutions.episodes(env, policy, jax.random.key(seed), genome, name="search")
        _, history = train(jax.random.key(seed), hyper, rows)
        scores.append(float(np.mean(history["eval/return"][-3:])) / STEPS)
        data.append(float(rows.reward.mean()))
    return scores, data


def run(seeds, scale, say):
    rounds, updates = SIZES[scale]
    results = {}
    for arm, method in ARMS.items():
        results[arm], data = learnt(best_of(method, seeds, rounds), seeds, updates, AGENT)
        say(f"{arm}: {np.mean(results[arm]):.3f} at the goal; the data's own policies {np.mean(data):.3f}")
    return results


def tune(seeds=range(5)):
    """The table that ``AGENT`` was chosen from."""
    rounds, updates = SIZES["small"]
    genomes = best_of("stax", seeds, rounds)
    for name in ("td3_bc", "iql"):
        scores, data = learnt(genomes, seeds, updates, name)
        print(f"{name}: {np.mean(scores):.3f} {np.round(scores, 2).tolist()}, data {np.round(data, 2).tolist()}")


if __name__ == "__main__":
    tune()
