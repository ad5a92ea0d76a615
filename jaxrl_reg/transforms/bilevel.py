"""Learn regularisation coefficients by gradient: bilevel optimisation that decides itself how exactly to solve.

In words. The lower problem, strongly convex, is training with coefficients theta: x(theta) = argmin_x h(x, theta). The
upper problem scores what comes out: f(theta) = g(x(theta)). Neither f nor its gradient can be had exactly, but both
errors can be bounded from what is at hand: |x - x(theta)| <= |grad_x h(x, theta)| / mu. So: (1) solve the lower problem
and the linear system of the implicit function theorem only as well as asked; (2) go on only if the error of the
hypergradient is provably too small to turn it uphill; (3) take the largest step at which f has provably decreased, by
comparing the upper end of what f can be there with the lower end of what it can be here; (4) where that fails, ask for
more accuracy, where it succeeds, for less. No accuracy and no step size has to be chosen in advance.

Source: Salehi, Mukherjee, Roberts and Ehrhardt, 2023, An adaptively inexact first-order method for bilevel optimization
with application to hyperparameter learning (MAID). The bounds below are derived here, from the constants that the
caller gives; theirs may differ by constants. On a failed attempt we shrink the first step once besides the accuracies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

Array = jax.Array
PyTree = Any


class Constants(NamedTuple):
    """What the bounds rest on, as scalars; upper bounds may be generous, ``strong_convexity`` is a lower bound.

    ``strong_convexity`` mu and ``smoothness`` L of the lower problem in x: mu I <= A <= L I with A its Hessian;
    ``upper_smoothness``: Lipschitz constant of grad g; ``hessian_lipschitz``: of A in x, and ``mixed_lipschitz``: of
    B = d/dtheta grad_x h in x (both in the operator norm).
    """

    strong_convexity: Any
    smoothness: Any
    upper_smoothness: Any
    hessian_lipschitz: Any = 0.0
    mixed_lipschitz: Any = 0.0


class Hypergradient(NamedTuple):
    """An inexact gradient of the upper objective and a bound on its error."""

    gradient: PyTree  # like theta
    error: Array  # at least |gradient - exact gradient|, scalar
    adjoint: PyTree  # approximate solution q of A q = grad g, like x; a warm start for the next time
    cost: Array  # Hessian-vector products, int32


class History(NamedTuple):
    """One entry per attempt, ``[steps]``."""

    theta: PyTree  # leaves [steps, ...], after the attempt
    value: Array  # g at the approximate solution for the theta before the attempt
    gradient_norm: Array
    error: Array  # bound on the error of the hypergradient
    accuracy: Array  # bound on |x - x(theta)| that was asked for
    step_size: Array  # of the step that was taken, or tried last
    accepted: Array  # bool
    cost: Array  # int32, gradients of h and Hessian-vector products so far


def solve_lower(
    lower: Callable[[PyTree, PyTree], Array], theta: PyTree, x: PyTree, constants: Constants, accuracy: Array, most: int
) -> tuple[PyTree, Array, Array]:
    """Nesterov's accelerated gradient descent until ``|x - x(theta)| <= accuracy`` is certain, or rounding forbids it.

    Args:
      lower: ``lower(x, theta) -> scalar``, strongly convex and smooth in x.
      theta: coefficients.
      x: where to start.
      constants: of the lower problem.
      accuracy: scalar > 0, units of x.
      most: largest number of gradients.
    Returns:
      ``(x, error, cost)``: ``error = |grad h| / mu`` bounds the distance to the solution even where ``most`` or
      rounding cut the loop short; ``cost`` counts gradients.
    """
    start, shape_like = ravel_pytree(x)
    gradient = jax.grad(lambda flat: lower(shape_like(flat), theta))
    root = jnp.sqrt(constants.smoothness / constants.strong_convexity)
    momentum = (root - 1.0) / (root + 1.0)
    rounding = jnp.finfo(start.dtype).eps * constants.smoothness  # of a gradient, per unit of x

    def going_on(carry):
        point, _, slope, count = carry
        least = jnp.maximum(accuracy * constants.strong_convexity, rounding * jnp.linalg.norm(point))
        return (jnp.linalg.norm(slope) > least) & (count < most)

    def descend(carry):
        point, before, slope, count = carry
        after = point - slope / constants.smoothness
        ahead = after + momentum * (after - before)
        return ahead, after, gradient(ahead), count + 1

    point, _, slope, count = jax.lax.while_loop(going_on, descend, (start, start, gradient(start), jnp.int32(1)))
    return shape_like(point), jnp.linalg.norm(slope) / constants.strong_convexity, count


def hypergradient(
    upper: Callable[[PyTree], Array],
    lower: Callable[[PyTree, PyTree], Array],
    theta: PyTree,
    x: PyTree,
    constants: Constants,
    x_error: Array,
    accuracy: Array,
    adjoint: PyTree | None = None,
    most: int = 1000,
) -> Hypergradient:
    """Gradient of ``g(x(theta))`` by implicit differentiation at an approximate solution, with a bound on its error.

    ``- B(x)^T q`` with ``A(x) q = grad g(x)`` solved by conjugate gradients. With residual r and e = ``x_error``, the
    error is at most ``|B| (|r| + (L_g + L_A |q*|) e) / mu + L_B e |q*|``, where ``|q*| <= (|grad g| + L_g e) / mu``.

    Args:
      upper: ``upper(x) -> scalar``.
      lower: ``lower(x, theta) -> scalar``.
      theta: coefficients; few, for B costs a Hessian-vector product each.
      x: an approximate solution of the lower problem.
      constants: of both problems.
      x_error: bound on the distance of x to the solution.
      accuracy: residual at which conjugate gradients stop, units of grad g.
      adjoint: where they start; zero if None.
      most: largest number of their iterations.
    Returns:
      ``Hypergradient``.
    """
    flat_x, like_x = ravel_pytree(x)
    flat_theta, like_theta = ravel_pytree(theta)

    def slope(flat, coefficients):
        return jax.grad(lambda point: lower(like_x(point), like_theta(coefficients)))(flat)

    def curve(direction):
        return jax.jvp(lambda point: slope(point, flat_theta), (flat_x,), (direction,))[1]

    target = jax.grad(lambda point: upper(like_x(point)))(flat_x)
    q = jnp.zeros_like(flat_x) if adjoint is None else ravel_pytree(adjoint)[0]

    def going_on(carry):
        _, residual, _, count = carry
        return (jnp.linalg.norm(residual) > accuracy) & (count < most)

    def conjugate(carry):
        q, residual, direction, count = carry
        curved, square = curve(direction), residual @ residual
        length = square / (direction @ curved)
        following = residual - length * curved
        return q + length * direction, following, following + (following @ following) / square * direction, count + 1

    residual = target - curve(q)
    q, _, _, count = jax.lax.while_loop(going_on, conjugate, (q, residual, residual, jnp.int32(0)))
    residual = jnp.linalg.norm(target - curve(q))  # measured, for the recurrence drifts
    mixed = jax.jacfwd(lambda coefficients: slope(flat_x, coefficients))(flat_theta)  # [x, theta]
    mu, smooth = constants.strong_convexity, constants.upper_smoothness
    longest = (jnp.linalg.norm(target) + smooth * x_error) / mu
    error = jnp.linalg.norm(mixed) * (residual + (smooth + constants.hessian_lipschitz * longest) * x_error) / mu
    error = error + constants.mixed_lipschitz * x_error * longest
    return Hypergradient(like_theta(-q @ mixed), error, like_x(q), count + 2 + flat_theta.size)


def maid(
    upper: Callable[[PyTree], Array],
    lower: Callable[[PyTree, PyTree], Array],
    theta: PyTree,
    x: PyTree,
    constants: Callable[[PyTree], Constants],
    *,
    steps: int,
    step_size: float = 1.0,
    accuracy: float = 0.1,
    smallest: float = 1e-6,
    shrink: float = 0.5,
    grow: float = 1.25,
    backtrack: float = 0.5,
    tries: int = 8,
    slack: float = 0.5,
    decrease: float = 1e-2,
    most: int = 5000,
) -> tuple[PyTree, PyTree, History]:
    """Minimise ``upper(argmin_x lower(x, theta))`` over theta; see the module for how. Pure: jit and vmap it.

    Args:
      upper: ``upper(x) -> scalar``, smooth in x; theta enters through x alone.
      lower: ``lower(x, theta) -> scalar``, strongly convex and smooth in x.
      theta: first coefficients; take logarithms of what must stay positive.
      x: where the first lower solve starts.
      constants: ``constants(theta) -> Constants``, valid wherever theta may come.
      steps: attempts; each takes one step or asks for more accuracy. After one that failed although it had the least
        accuracy there is, nothing more is done.
      step_size: first step tried; units of theta squared over those of g.
      accuracy: first bound on ``|x - x(theta)|`` asked for, and residual of the linear system.
      smallest: least accuracy that is asked for; below it rounding rules.
      shrink, grow: factors of both accuracies after a failure and after a success (1 and 1: fixed accuracy), and
        ``grow`` of the step size after a success.
      backtrack, tries: factor of the step size within an attempt, and how often.
      slack: in (0, 1); an attempt is made if the error of the hypergradient is at most ``1 - slack`` of its norm.
      decrease: demanded of f, as a share of step size times squared norm of the hypergradient.
      most: largest number of iterations of one lower solve or one linear solve.
    Returns:
      ``(theta, x, history)``.
    """

    def spread(x: PyTree, error: Array, constants: Constants) -> tuple[Array, Array]:
        """How low and how high g can be at the exact solution."""
        value, slope = jax.value_and_grad(lambda flat: upper(like_x(flat)))(ravel_pytree(x)[0])
        off = jnp.linalg.norm(slope) * error + 0.5 * constants.upper_smoothness * error**2
        return value - off, value + off

    flat_x, like_x = ravel_pytree(x)

    def attempt(carry):
        theta, x, adjoint, step, accuracy, residual, cost, _ = carry
        known = constants(theta)
        x, x_error, spent = solve_lower(lower, theta, x, known, accuracy, most)
        found = hypergradient(upper, lower, theta, x, known, x_error, residual, adjoint, most)
        flat_theta, like_theta = ravel_pytree(theta)
        slope = ravel_pytree(found.gradient)[0]
        square = slope @ slope
        descends = found.error <= (1.0 - slack) * jnp.sqrt(square)
        least, _ = spread(x, x_error, known)

        def going_on(inner):
            _, _, _, done, count, _ = inner
            return ~done & (count < tries) & descends

        def try_step(inner):
            _, near, length, _, count, spent = inner
            length = jnp.where(count > 0, length * backtrack, length)
            there = like_theta(flat_theta - length * slope)
            bounds = constants(there)
            near, error, more = solve_lower(lower, there, near, bounds, accuracy, most)
            _, highest = spread(near, error, bounds)
            done = highest <= least - decrease * length * square
            return there, near, length, done, count + 1, spent + more

        begin = (theta, x, step, jnp.bool_(False), jnp.int32(0), jnp.int32(0))
        there, near, length, done, _, more = jax.lax.while_loop(going_on, try_step, begin)

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(done, a, b), new, old)

        factor = jnp.where(done, grow, shrink)
        cost = cost + spent + found.cost + more
        following = (
            keep(there, theta),
            keep(near, x),
            found.adjoint,
            jnp.where(done, length * grow, jnp.where(descends, step * backtrack, step)),
            jnp.maximum(accuracy * factor, smallest),
            jnp.maximum(residual * factor, smallest),
            cost,
            ~done & (accuracy <= smallest),
        )
        record = History(following[0], upper(x), jnp.sqrt(square), found.error, accuracy, length, done, cost)
        return following, record

    one = jnp.asarray(step_size, flat_x.dtype)
    first = jnp.asarray(accuracy, flat_x.dtype)
    start = (theta, x, jax.tree.map(jnp.zeros_like, x), one, first, first, jnp.int32(0), jnp.bool_(False))

    nothing = jnp.asarray(jnp.nan, flat_x.dtype)
    blank = History(theta, nothing, nothing, nothing, first, one, jnp.bool_(False), jnp.int32(0))

    def step(carry, _):
        state, record = carry
        carry = jax.lax.cond(
            state[-1], lambda: (state, record._replace(accepted=jnp.bool_(False))), lambda: attempt(state)
        )
        return carry, carry[1]

    ((theta, x, *_), _), history = jax.lax.scan(step, (start, blank), length=steps)
    return theta, x, history
