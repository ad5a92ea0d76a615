"""Early stopping inside a sweep: predicted learning curves and successive halving against training every setting.

The sweeps are real: TD3+BC on data that punish extrapolation (see ``control``), settings drawn by Sobol points over the
pull to the data, the weight of the value and both learning rates. With the task's own reward, which is 0 but at the
goal, curves are flat for half of training and then rise at once. Paid by the distance to the goal, a setting shows
early what it is worth; there the step of the target networks is swept as well, and ranges are wider.

Each sweep trains once, whole; a stopping rule is a pure function of the curves, so what it would have done is replayed
on them, which a test holds to be what the race does. Settings come in an order of chance, so every number is the mean
over ``ORDERS`` of them. Half of the episodes of an evaluation are seen by the rules and choose the setting; the other
half judge it.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

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
    "better one than as many updates on fewer settings; mean of two sweeps",
    paper="https://arxiv.org/abs/1705.10823",
    method="prediction",
    baselines=("whole sweep, less 0.1",),
    ablation="fewer settings",
    metric="minus the mean distance to the goal (pointnav), mean of both; NaN beyond a third of updates",
    margin=0.0,
    systems=(69,),
)
RANGES = {
    "bc_coef": "log:0.01:100",
    "alpha": "lin:0.5:5",
    "critic_learning_rate": "log:0.0003:0.003",
    "actor_learning_rate": "log:0.0003:0.003",
}
WIDER = {"critic_learning_rate": "log:0.0001:0.01", "actor_learning_rate": "log:0.0001:0.01", "tau": "log:0.001:0.1"}


class Task(NamedTuple):
    """What is swept, and for how long."""

    ranges: dict[str, str]
    updates: int
    segments: int
    dense: bool  # data paid by minus the distance to the goal


SIZES = {  # settings, hidden widths, episodes of each half, and the sweeps
    "small": (
        64,
        (32, 32),
        64,
        {"paid at the goal": Task(RANGES, 6_000, 30, False), "paid by distance": Task(RANGES | WIDER, 2_400, 24, True)},
    ),
    "full": (
        128,
        (256, 256),
        256,
        {
            "paid at the goal": Task(RANGES, 100_000, 40, False),
            "paid by distance": Task(RANGES | WIDER, 40_000, 40, True),
        },
    ),
}
WORST = -3.0  # of a run that went NaN; no two places are further apart
ORDERS = 20
RULES = {name: stopping.named(name) for name in stopping.RULES}  # as the command line has them
GOAL = np.array(pointnav.GOALS["top_right"])


def by_distance(env):
    """Episodes scored by minus the distance to the goal: the task's own reward is flat until the goal is reached."""

    def step(state, action):
        after = env.step(state, action)
        return dataclasses.replace(after, reward=-jnp.linalg.norm(after.final_observation - GOAL))

    return env._replace(step=step)


def sweep(seed, scale, task, dataset):
    settings, hidden, episodes, _ = SIZES[scale]
    env = by_distance(envs.make("pointnav", task="top_right", episode_length=control.EPISODE))
    agent = td3_bc.make(td3_bc.Config(hidden=hidden), dataset.spec)
    evaluator = returns.evaluator(env, episodes)
    run = offline(agent, batch_size=64, updates=task.updates, segments=task.segments, evaluate=evaluator)
    seen = run.evaluate
    assert seen is not None

    def evaluate(state, index, key, hyper):
        other = seen(state, index, jax.random.fold_in(key, 1), hyper)["eval/return"]
        return {**seen(state, index, key, hyper), "eval/other": other}

    if task.dense:
        distance = jnp.linalg.norm(dataset.next_observation - GOAL, axis=-1)
        dataset = dataclasses.replace(dataset, reward=-distance.reshape(dataset.reward.shape))
    hypers = population.sample(td3_bc.Hyper(discount=0.9), settings, design="sobol", seed=seed, **task.ranges)
    return population.sweep(dataclasses.replace(run, evaluate=evaluate), seeds=[seed], hypers=hypers, data=dataset)


def curves_of(result):
    """What the rules see, and what judges, ``[H, T]``: minus the mean distance to the goal."""
    pair = (result.metrics[name][:, 0] / control.EPISODE for name in ("eval/return", "eval/other"))
    return [np.nan_to_num(np.asarray(values, float), nan=WORST) for values in pair]


def replayed(seen, other, features):
    """What each way of spending updates comes to: ``{arm: (score, share of the updates, false stops)}``."""
    total = seen.shape[1]
    done = {name: stopping.replay(rule, seen, features) for name, rule in RULES.items()}
    first = int(done["prediction"].sum() / total)  # in the order in which they come
    done["fewer settings"] = np.where(np.arange(len(seen)) < first, total, 0)
    done["whole sweep"] = np.full(len(seen), total)
    found = {}
    for name, each in done.items():
        chosen = np.where(each == total, seen[:, -1], -np.inf).argmax()
        found[name] = other[chosen, -1], each.sum() / seen.size, stopping.false_stops(seen, each)
    return found


def run(seeds, scale, say):
    dataset = control.behaviour(jax.random.key(20_240), control.SIZES[scale][3])
    found: dict[str, np.ndarray] = {}  # by arm: [tasks, seeds, 3]
    tasks = SIZES[scale][-1]
    for row, task in enumerate(tasks.values()):
        for column, seed in enumerate(seeds):
            result = sweep(seed, scale, task, dataset)
            seen, other = curves_of(result)
            features = stopping.features(result.hypers)
            orders = [np.random.default_rng([seed, i]).permutation(len(seen)) for i in range(ORDERS)]
            each = [replayed(seen[order], other[order], features[order]) for order in orders]
            for name in each[0]:
                table = found.setdefault(name, np.zeros((len(tasks), len(seeds), 3)))
                table[row, column] = np.mean([one[name] for one in each], axis=0)
    values = {}
    for name, table in found.items():
        for task, (score, share, false) in zip(tasks, table.mean(axis=1), strict=True):
            say(f"{task}, {name}: {score:.3f}, {share:.0%} of the updates, false stops {false:.1%}")
        values[name] = table[..., 0].mean(axis=0).tolist()
    if found["prediction"][..., 1].mean() > 1 / 3:
        values["prediction"] = [float("nan")] * len(seeds)
    values["whole sweep, less 0.1"] = [value - 0.1 for value in values["whole sweep"]]
    for name in RULES:
        for task, table in zip(tasks, found[name], strict=True):
            for i, what in enumerate(("score", "share of updates", "false stops")):
                values[f"{what}, {name}, {task}"] = table[:, i].tolist()
    return values
