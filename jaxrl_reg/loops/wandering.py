"""A body that looks for a place it cannot see the way to: plan on a graph, go, change the graph by what happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.offline import INIT, per_segment
from jaxrl_reg.search import cognitive_graph, harmonics
from jaxrl_reg.search.cognitive_graph import GOAL, Graph
from jaxrl_reg.types import Array, Env, EnvState, Key, Metrics, PyTree, Run

NEAR = 0.06  # of a vertex: it is reached
STUCK = 0.2  # of a step: less is no movement
SLACK, MORE = 1.3, 3  # steps of a leg: so many times the straight way's, and so many more
DIAGONAL = 2.0 * 2.0**0.5  # of the square of places, no leg is longer

Controller = Callable[[Array, Array], Array]  # displacement [2], observation [O] -> action [A]


class WanderState(NamedTuple):
    """What a leg starts from; ``steps`` of the body so far, ``solved`` 1 once it has been at the goal."""

    env: EnvState
    graph: Graph
    current: Array  # int32, the vertex that is stood on
    steps: Array  # int32
    legs: Array  # int32
    failures: Array  # float32
    solved: Array  # float32


def wander(
    env: Env,
    goal: Array,
    *,
    speed: float,
    legs: int,
    segments: int = 1,
    capacity: int = 128,
    radius: float = 0.1,
    controller: Controller | None = None,
) -> Run:
    """A search for the place ``goal [2]`` of a world, by systematic neural search; it stands still once it was there.

    One leg goes straight for the next vertex of the graph's best path until that is reached, the body is stuck, or the
    leg takes too long; then the graph changes, see ``search.cognitive_graph``. The world's time limit has no say: there
    is one body in one world.

    Args:
      env: a single environment with tasks, whose places lie in [-1, 1]^2.
      goal: where to go, may be traced.
      speed: way of the body in a step at most.
      legs: at most so many.
      segments: number of equal parts.
      capacity: vertices of the graph.
      radius: how near to the goal is there.
      controller: ``displacement [2], observation [O] -> action [A]``; by default the displacement over ``speed``,
        clipped, for a body whose action is a displacement.

    Returns:
      A ``Run`` without data whose hyperparameters are ``cognitive_graph.Hyper`` and whose state is a ``WanderState``.
      ``run.init(key, hyper, graph)`` begins with the graph of an earlier search of the same world, whose goal may have
      been another. Metrics: ``steps`` and ``legs`` until now or the goal, ``solved``, ``vertices``, ``seen`` ones,
      ``failures``.

    Raises:
      UserError: for a world without tasks or with places beyond the square, legs that do not divide, or fewer than 8
        slots.
    """
    if env.tasks is None:
        raise UserError(f"wander looks for a place, and {env.name} has no tasks that say what a place is")
    for low, high in env.tasks.extent:
        if low < -1 or high > 1:
            raise UserError(f"wander needs places in [-1, 1], and those of {env.name} reach from {low} to {high}")
    if capacity < 8 or not speed > 0:
        raise UserError(f"wander needs a capacity of at least 8 and a speed above 0, got {capacity} and {speed}")
    tasks, length = env.tasks, per_segment(legs, segments)
    goal = jnp.asarray(goal, jnp.float32)
    control = controller or (lambda way, observation: jnp.clip(way / speed, -1.0, 1.0))

    def place(state: EnvState) -> Array:
        return tasks.place(tasks.physics(state))

    def there(state: EnvState) -> Array:
        return (jnp.linalg.norm(place(state) - goal) < radius).astype(jnp.float32)

    def init(key: Key, hyper: PyTree, start: Graph | None = None) -> WanderState:
        state = env.reset(jax.random.fold_in(key, INIT))
        if start is None:
            graph, current = cognitive_graph.fresh(place(state), goal, capacity, hyper), jnp.int32(0)
        else:
            graph, current = cognitive_graph.continued(start, place(state), goal, hyper)
        zero = jnp.zeros((), jnp.int32)
        return WanderState(state, graph, current, zero, zero, jnp.float32(0), there(state))

    def leg(state: WanderState, hyper: PyTree) -> WanderState:
        target = cognitive_graph.choose(state.graph, state.current, hyper)
        aim = cognitive_graph.places(state.graph)[target]
        straight = jnp.minimum(jnp.linalg.norm(aim - place(state.env)), DIAGONAL)
        limit = jnp.ceil(SLACK * straight / speed) + MORE

        def going(carry):
            world, count, moved = carry
            far = jnp.linalg.norm(aim - place(world)) > NEAR
            return far & (count < limit) & (moved >= STUCK * speed) & (there(world) == 0)

        def step(carry):
            world, count, _ = carry
            before = place(world)
            world = env.step(world, control(aim - before, world.observation))
            return world, count + 1, jnp.linalg.norm(place(world) - before)

        world, count, _ = jax.lax.while_loop(going, step, (state.env, jnp.int32(0), jnp.float32(jnp.inf)))
        solved = there(world)
        target = jnp.where(solved > 0, GOAL, target)  # also where it lay on the way
        reached = (jnp.linalg.norm(aim - place(world)) <= NEAR) | (solved > 0)
        code = harmonics.encode(place(world))
        graph, current = cognitive_graph.mutate(state.graph, state.current, target, code, reached, hyper)
        failures = state.failures + 1.0 - reached
        return WanderState(world, graph, current, state.steps + count, state.legs + 1, failures, solved)

    def train(
        state: WanderState, index: Array, key: Key, hyper: PyTree, data: PyTree = None
    ) -> tuple[WanderState, Metrics]:
        def unfinished(carry):
            state, count = carry
            return (count < length) & (state.solved == 0)

        state, _ = jax.lax.while_loop(
            unfinished, lambda carry: (leg(carry[0], hyper), carry[1] + 1), (state, jnp.int32(0))
        )
        numbers = {
            "steps": state.steps,
            "legs": state.legs,
            "solved": state.solved,
            "vertices": state.graph.alive.sum(),
            "seen": (state.graph.alive & state.graph.seen).sum(),
            "failures": state.failures,
        }
        return state, {name: value.astype(jnp.float32) for name, value in numbers.items()}

    return Run(init, train, None, segments, length)
