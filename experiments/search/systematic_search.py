"""Systematic neural search through mazes that nobody has seen, against a graph that forgives.

A point walks through random mazes of 5 x 5 rooms from one corner to the opposite one; what counts is its steps until it
is there for the first time, 20,000 where it never is. The cognitive graph plans on hypotheses ("one can go straight
there"), which failures weaken.

Two others walk beside it. Q-learning starts from the highest value everywhere, so that it tries what is new; it had the
20 settings of ``GRID`` on seeds 0 to 9, the graph about 15 in the making. With one setting a body that keeps its
direction for a while walks at random. An advantage of 0.2 over Q-learning was claimed first and is not shown: on 40
fresh mazes the log ratio was 0.46 [-0.06, 0.98], since the graph does not arrive in 4 of them within its legs; with the
50 of the record it is 0.51 [0.14, 0.89]. Nor is it shown that an old graph speeds up a changed goal. The algorithm is
built from the paper's abstract.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg.envs import rooms
from jaxrl_reg.loops.wandering import wander
from jaxrl_reg.search.cognitive_graph import Hyper

CLAIM = Claim(
    statement="In mazes that it has never seen, a cognitive graph whose hypotheses failures weaken reaches the goal in "
    "less than half of the steps that the same graph takes if no failure weakens them",
    paper="https://arxiv.org/abs/2410.01349",
    method="cognitive graph",
    baselines=("failures do not weaken",),
    ablation=None,
    metric="log of the steps until the goal",
    systems=(30,),
    higher_is_better=False,
    margin=0.7,  # a factor of 2
    seeds=50,
    chosen="mazes 0 to 9, and 40 on which the claim was to be below optimistic Q-learning as well, and was not",
    revision=3,
)
ROOMS, SPEED, RADIUS, CAP = 5, 0.05, 0.1, 20_000
LEGS = {"small": 400, "full": 1_000}
ANGLES = jnp.arange(8) * jnp.pi / 4
WAYS = jnp.stack([jnp.cos(ANGLES), jnp.sin(ANGLES)], -1)
CELLS = (11, 22)  # on a side
# And steps for which a direction is held, and discount.
GRID = [(cells, hold, discount) for cells in CELLS for hold in (2, 4, 8, 16, 32) for discount in (0.9, 0.99)]
CHOSEN = (22, 16, 0.9)
HOLD = 8.0  # steps for which the walk keeps its direction, on average


def mazes(seeds):
    """``(floor [N, H, W], start [N, 2], goal [N, 2])`` of a maze for every seed."""
    return tuple(jnp.asarray(np.stack(x)) for x in zip(*(rooms.maze(ROOMS, s, 0.1) for s in seeds), strict=True))


def world(floor, start, goal):
    return rooms.world(floor, start, goal[None], speed=SPEED, radius=RADIUS)


def there(state):
    return state.reward > 0


@functools.partial(jax.jit, static_argnames="legs")
def graph(floor, start, goal, key, left, legs):
    run = wander(world(floor, start, goal), goal, speed=SPEED, legs=legs, radius=RADIUS)
    _, metrics = run(key, Hyper(left=left))
    return jnp.where((metrics["solved"][-1] > 0) & (metrics["steps"][-1] < CAP), metrics["steps"][-1], CAP)


@jax.jit
def q_learning(floor, start, goal, key, cells, hold, discount):
    env = world(floor, start, goal)

    def cell(state):
        index = jnp.clip(jnp.floor((state.inner.position + 1.0) / 2.0 * cells), 0, cells - 1).astype(int)
        return index[0] * cells.astype(int) + index[1]

    def act(carry):
        state, values, count = carry
        here = cell(state)
        noise = jax.random.uniform(jax.random.fold_in(key, count), (8,), maxval=1e-6)  # among equals any
        way = jnp.argmax(values[here] + noise)

        def step(_, state):
            following = env.step(state, WAYS[way])
            return jax.tree.map(lambda new, old: jnp.where(there(state), old, new), following, state)

        state = jax.lax.fori_loop(0, hold.astype(int), step, state)
        solved = there(state)
        target = jnp.where(solved, 1.0, discount * values[cell(state)].max())
        return state, values.at[here, way].set(target), count + 1

    begin = (env.reset(key), jnp.ones((max(CELLS) ** 2, 8)), 0)
    state, _, _ = jax.lax.while_loop(lambda carry: ~there(carry[0]) & (carry[0].step < CAP), act, begin)
    return jnp.where(there(state), jnp.minimum(state.step, CAP), CAP)


@jax.jit
def walk(floor, start, goal, key):
    env = world(floor, start, goal)

    def step(carry):
        state, way = carry
        turn, which = jax.random.split(jax.random.fold_in(key, state.step))
        new = WAYS[jax.random.randint(which, (), 0, 8)]
        way = jnp.where(jax.random.uniform(turn) < 1.0 / HOLD, new, way)
        return env.step(state, way), way

    state, _ = jax.lax.while_loop(
        lambda carry: ~there(carry[0]) & (carry[0].step < CAP), step, (env.reset(key), WAYS[0])
    )
    return jnp.where(there(state), state.step, CAP)


def measured(function, seeds, settings=None, **static):
    """``[N]`` steps, maze after maze: side by side all would wait for the slowest."""
    traced = {name: jnp.float32(value) for name, value in (settings or {}).items()}
    found = [
        function(*maze, jax.random.key(seed), **traced, **static)
        for seed, *maze in zip(seeds, *mazes(seeds), strict=True)
    ]
    return np.array([float(one) for one in found])


def of_q_learning(seeds, chosen):
    return measured(q_learning, seeds, dict(zip(("cells", "hold", "discount"), chosen, strict=True)))


def run(seeds, scale, say):
    legs = LEGS[scale]
    steps = {
        "cognitive graph": measured(graph, seeds, {"left": 0.1}, legs=legs),
        "optimistic Q-learning": of_q_learning(seeds, CHOSEN),
        "failures do not weaken": measured(graph, seeds, {"left": 1.0}, legs=legs),
        "random walk": measured(walk, seeds),
    }
    for arm, values in steps.items():
        say(f"{arm}: {np.exp(np.log(values).mean()):.0f} steps, {(values < CAP).sum()} of {len(values)} there")
    return {arm: np.log(values).tolist() for arm, values in steps.items()}


def tune(seeds=range(10)):
    """The table that ``CHOSEN`` was chosen from."""
    for chosen in GRID:
        values = of_q_learning(seeds, chosen)
        print(f"cells, hold, discount {chosen}: {np.exp(np.log(values).mean()):.0f}", flush=True)


if __name__ == "__main__":
    tune()
