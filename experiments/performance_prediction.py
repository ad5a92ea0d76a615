"""Early stopping inside a sweep: predicted learning curves and successive halving against training every setting.

The sweep is real: TD3+BC on data that punish extrapolation (see ``control``), settings drawn by Sobol points over the
pull to the data, the weight of the value and both learning rates. It trains once, whole; a stopping rule
is a pure function of the curves, so what it would have done is replayed on them, which a test holds to be what the race
does. Half of the episodes of an evaluation are seen by the rules and choose the setting; the other half judge it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import control
from experiments.harness import Claim
from jaxrl_reg import envs, population
from jaxrl_reg.agents import td3_bc
from jaxrl_reg.envs import pointnav
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops import offline
from jaxrl_reg.population import stopping

CLAIM = Claim(
    statement="Stopping settings by their predicted learning curves finds a setting as good as the best of the whole "
    "sweep, to within 0.1 of the mean distance to the goal, for at most a third of its updates on average, and a "
    "better one than as many updates on fewer settings",
    paper="https://arxiv.org/abs/1705.10823",
    method="prediction",
    baselines=("whole sweep, less 0.1",),
    ablation="fewer settings",
    metric="minus the mean distance to the goal (pointnav); NaN beyond a third of updates",
    margin=0.0,
    systems=(69,),
)
RANGES = {
    "bc_coef": "log:0.01:100",
    "alpha": "lin:0.5:5",
    "critic_learning_rate": "log:0.0003:0.003",
    "actor_learning_rate": "log:0.0003:0.003",
}
SIZES = {  # settings, hidden widths, updates, segments, episodes of each half
    "small": (32, (32, 32), 6_000, 20, 64),
    "full": (128, (256, 256), 100_000, 40, 256),
}
WORST = -3.0  # of a run that went NaN; no two places are further apart
RULE = stopping.prediction(whole=6, probability=0.7, first=1)


def by_distance(env):
    """Episodes scored by minus the distance to the goal: the task's own reward is flat until the goal is reached."""

    goal = jnp.array(pointnav.GOALS["top_right"])

    def step(state, action):
        after = env.step(state, action)
        return dataclasses.replace(after, reward=-jnp.linalg.norm(after.final_observation - goal))

    return env._replace(step=step)


def sweep(seed, scale, dataset):
    settings, hidden, updates, segments, episodes = SIZES[scale]
    env = by_distance(envs.make("pointnav", task="top_right", episode_length=control.EPISODE))
    agent = td3_bc.make(td3_bc.Config(hidden=hidden), dataset.spec)
    run = offline(agent, batch_size=64, updates=updates, segments=segments, evaluate=returns.evaluator(env, episodes))
    seen = run.evaluate
    assert seen is not None

    def evaluate(state, index, key, hyper):
        other = seen(state, index, jax.random.fold_in(key, 1), hyper)["eval/return"]
        return {**seen(state, index, key, hyper), "eval/other": other}

    hypers = population.sample(td3_bc.Hyper(discount=0.9), settings, design="sobol", seed=seed, **RANGES)
    return population.sweep(dataclasses.replace(run, evaluate=evaluate), seeds=[seed], hypers=hypers, data=dataset)


def curves_of(result):
    """What the rules see, and what judges, ``[H, T]``: minus the mean distance to the goal."""
    pair = (result.metrics[name][:, 0] / control.EPISODE for name in ("eval/return", "eval/other"))
    return [np.nan_to_num(np.asarray(values, float), nan=WORST) for values in pair]


def run(seeds, scale, say):
    dataset = control.behaviour(jax.random.key(20_240), control.SIZES[scale][3])
    values, shares = {}, {}
    for seed in seeds:
        result = sweep(seed, scale, dataset)
        seen, other = curves_of(result)
        features, total = stopping.features(result.hypers), seen.shape[1]
        done = {
            "whole sweep": np.full(len(seen), total),
            "prediction": stopping.replay(RULE, seen, features),
            "halving": stopping.replay(stopping.halving(), seen, features),
        }
        fewer = int(done["prediction"].sum() / total)
        done["fewer settings"] = np.where(np.arange(len(seen)) < fewer, total, 0)
        for name, each in done.items():
            share = each.sum() / seen.size
            chosen = np.where(each == total, seen[:, -1], -np.inf).argmax()
            values.setdefault(name, []).append(float(other[chosen, -1]))
            shares.setdefault(name, []).append((share, stopping.false_stops(seen, each)))
    for name, pairs in shares.items():
        share, false = np.mean(pairs, axis=0)
        say(f"{name}: {np.mean(values[name]):.3f}, {share:.0%} of the updates, false stops {false:.1%}")
    if np.mean([share for share, _ in shares["prediction"]]) > 1 / 3:
        values["prediction"] = [float("nan")] * len(seeds)
    values["whole sweep, less 0.1"] = [value - 0.1 for value in values["whole sweep"]]
    for i, what in enumerate(("share of updates", "false stops")):
        values[f"{what}, prediction"] = [pair[i] for pair in shares["prediction"]]
        values[f"{what}, halving"] = [pair[i] for pair in shares["halving"]]
    return values
