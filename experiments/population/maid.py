"""MAID on two problems whose best coefficients are known: shrinkage by groups, and a behaviour-regularised actor.

Shrinkage: x_j = y_j / (1 + exp theta_j) for each group j of coordinates, whatever the curvature of the lower problem;
the theta_j that bring x closest to what was wanted have a closed form.

Actor: a linear policy maximises a critic that is wrong (true value -|a - g(s)|^2 plus a slope that depends on the
state), and is pulled to the data's actions, which are off as well, by exp(theta_d) for each action dimension d. A few
states with the right action score the result. Dimension by dimension the best theta_d is found by exact solves.

Cost counts gradients of the lower problem and Hessian-vector products, for all arms alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg.transforms import Constants, maid, solve_lower

CLAIM = Claim(
    statement="Deciding the accuracy on the way, MAID gets nearer to the known optimum of two bilevel problems, one of "
    "them behaviour regularisation, than the same line search at one accuracy throughout, coarse or fine, and than "
    "random search, at equal cost",
    paper="https://arxiv.org/abs/2308.10098",
    method="MAID",
    baselines=("random search", "accuracy 0.03 throughout", "accuracy 1e-3 throughout"),
    ablation="accuracy 1e-5 throughout",
    metric="log10 of the excess relative to the start, mean of both",
    higher_is_better=False,
    margin=0.0,
    systems=(31,),
    seeds=5,
    chosen="seeds 100 to 104: over random search 2.12, sd 0.44; power 1.000",
)
SIZES = {"small": (8, 8, 3_000), "full": (64, 64, 30_000)}  # coefficients, coordinates of each, budget
LOWEST, HIGHEST = -4.0, 4.0  # random search draws theta from here; all starts are 0
STEPS = 400


class Problem(NamedTuple):
    upper: Callable[[Any], jax.Array]
    lower: Callable[[Any, jax.Array], jax.Array]
    constants: Callable[[jax.Array], Constants]
    objective: Callable[[jax.Array], jax.Array]  # exact
    zero: jax.Array  # where lower solves start
    best: jax.Array  # theta


def shrinkage(key, coefficients, size) -> Problem:
    wanted_key, seen_key, scale_key = jax.random.split(key, 3)
    curves = jnp.linspace(1.0, 30.0, size)
    wanted = jax.random.normal(wanted_key, (coefficients, size))
    scale = 1.0 + 10.0 ** jax.random.uniform(scale_key, (coefficients, 1), minval=-1.0, maxval=1.0)
    seen = scale * wanted + 0.1 * jax.random.normal(seen_key, wanted.shape)

    def lower(x, theta):
        return 0.5 * (curves * (jnp.square(x - seen) + jnp.exp(theta)[:, None] * jnp.square(x))).sum() / coefficients

    def upper(x):
        return 0.5 * jnp.square(x - wanted).mean()

    def constants(theta):
        weight = (1.0 + jnp.exp(theta)) / coefficients
        mixed = 30.0 * jnp.exp(theta).max() / coefficients
        return Constants(weight.min(), 30.0 * weight.max(), 1.0 / wanted.size, 0.0, mixed)

    def objective(theta):
        return upper(seen / (1.0 + jnp.exp(theta))[:, None])

    best = jnp.log(jnp.square(seen).sum(-1) / (seen * wanted).sum(-1) - 1.0)
    return Problem(upper, lower, constants, objective, jnp.zeros_like(wanted), best)


def actor(key, dimensions, features) -> Problem:
    keys = jax.random.split(key, 7)
    states, judged = 32 * features, 8 * features
    spread = jnp.linspace(0.2, 1.0, features)  # lengths of the features' principal axes

    def whitened(key, count):
        return jnp.linalg.qr(jax.random.normal(key, (count, features)))[0] * jnp.sqrt(count) * spread

    phi, phi_judged = whitened(keys[0], states), whitened(keys[1], judged)
    right = jax.random.normal(keys[2], (features, dimensions))
    sizes = 10.0 ** jax.random.uniform(keys[3], (2, 1, dimensions), minval=-1.0, maxval=0.5)
    critic_slope = phi @ (sizes[0] * jax.random.normal(keys[4], (features, dimensions)))
    off = phi @ (sizes[1] * jax.random.normal(keys[5], (features, dimensions)))
    good = phi @ right
    data = good + off + 0.3 * jax.random.normal(keys[6], good.shape)
    longest = 2.0 * jnp.square(spread).max()

    def lower(x, theta):
        action = phi @ x
        minus_q = jnp.square(action - good) - critic_slope * action
        return (minus_q + jnp.exp(theta) * jnp.square(action - data)).sum(-1).mean()

    def upper(x):
        return jnp.square(phi_judged @ (x - right)).sum(-1).mean()

    def constants(theta):
        weight = 1.0 + jnp.exp(theta)
        least = 2.0 * jnp.square(spread).min()
        return Constants(least * weight.min(), longest * weight.max(), longest, 0.0, longest * jnp.exp(theta).max())

    gram = phi.T @ phi

    def solution(theta):  # column by column: (1 + e) gram x = phi^T (good + slope / 2 + e data)
        pull = jnp.exp(theta)
        return jnp.linalg.solve(gram, phi.T @ (good + 0.5 * critic_slope + pull * data)) / (1.0 + pull)

    def each(theta):
        return jnp.square(phi_judged @ (solution(theta) - right)).mean(0)  # by dimension

    # The objective of a dimension is quadratic in p = 1 / (1 + exp theta), so its optimum has a closed form as well.
    ends = solution(jnp.full(dimensions, 40.0)), solution(jnp.full(dimensions, -40.0))
    from_data, towards = phi_judged @ (ends[0] - right), phi_judged @ (ends[1] - ends[0])
    share = jnp.clip(-(from_data * towards).sum(0) / jnp.square(towards).sum(0), 1e-3, 1.0 - 1e-3)
    best = jnp.log(1.0 / share - 1.0)
    return Problem(upper, lower, constants, lambda theta: each(theta).sum(), jnp.zeros_like(right), best)


def line_search(problem: Problem, budget: int | jax.Array, **options) -> jax.Array:
    """Where the line search has come to at this cost."""
    theta, _, history = maid(
        problem.upper,
        problem.lower,
        jnp.zeros_like(problem.best),
        problem.zero,
        problem.constants,
        steps=STEPS,
        **options,
    )
    inside = history.cost <= budget
    return jnp.where(inside.any(), history.theta[jnp.maximum(inside.sum() - 1, 0)], jnp.zeros_like(theta))


def random_search(key, problem: Problem, budget: int | jax.Array) -> jax.Array:
    """Draws solved to 1e-3 from the solution of the draw before; the best by the score that was seen."""

    def going_on(carry):
        return carry[-1] < budget

    def one(carry):
        x, value, best, count, cost = carry
        theta = jax.random.uniform(
            jax.random.fold_in(key, count), best.shape, minval=LOWEST, maxval=HIGHEST
        ) * jnp.where(count > 0, 1.0, 0.0)
        x, _, spent = solve_lower(problem.lower, theta, x, problem.constants(theta), 1e-3, 5000)
        seen, fits = problem.upper(x), cost + spent <= budget
        better = (seen < value) & fits
        return x, jnp.where(better, seen, value), jnp.where(better, theta, best), count + 1, cost + spent

    start = (problem.zero, jnp.float32(jnp.inf), jnp.zeros_like(problem.best), jnp.int32(0), jnp.int32(0))
    return jax.lax.while_loop(going_on, one, start)[2]


def run(seeds, scale, say):
    coefficients, size, budget = SIZES[scale]

    def arms(key):
        excess = {}
        for make in (shrinkage, actor):
            problem = make(jax.random.fold_in(key, 0), coefficients, size)
            lowest, first = problem.objective(problem.best), problem.objective(jnp.zeros_like(problem.best))
            fixed = {"shrink": 1.0, "grow": 1.0}
            values = {
                "MAID": line_search(problem, budget, accuracy=0.1),
                "accuracy 0.03 throughout": line_search(problem, budget, accuracy=0.03, **fixed),
                "accuracy 1e-3 throughout": line_search(problem, budget, accuracy=1e-3, **fixed),
                "accuracy 1e-5 throughout": line_search(problem, budget, accuracy=1e-5, **fixed),
                "random search": random_search(jax.random.fold_in(key, 1), problem, budget),
            }
            for name, theta in values.items():
                value = problem.objective(theta)
                relative = jnp.maximum(value - lowest, 1e-6 * (first - lowest)) / (first - lowest)
                excess.setdefault(name, []).append(jnp.log10(relative))
        return {name: jnp.stack(values) for name, values in excess.items()}

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    found = jax.device_get(jax.jit(lambda keys: jax.lax.map(arms, keys))(keys))
    for name, values in found.items():
        say(f"{name}: {values[:, 0].mean():.2f} shrinkage, {values[:, 1].mean():.2f} actor")
    return {name: np.asarray(values).mean(1).tolist() for name, values in found.items()}
