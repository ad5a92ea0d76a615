"""Returns of a policy, and where its episodes end: side by side, each frozen once it has ended."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, EnvState, Key, Metrics, Policy, PyTree, memoryless

Act = Callable[[Array, Key], Array] | Policy  # observation [..., O], key -> action [..., A]


def episode_returns(env: Env, episodes: int, discount: float | Array = 1.0) -> Callable[[Act, Key], dict[str, Array]]:
    """Whole episodes of a policy, one number per episode.

    All episodes run in parallel and the loop ends when the last of them has ended, at the latest after
    ``env.spec.max_episode_steps`` steps. An episode that has ended keeps its last state: there is no reset, and
    whatever the physics would do past the end reaches no result. Under ``vmap`` the loop runs until every mapped
    member is done.

    Args:
      env: a single environment, not a vectorised one.
      episodes: how many, ``N``.
      discount: factor per step for ``"discounted"``; may be traced.

    Returns:
      ``fn(act, key)`` with ``act(observation [N, O], key) -> action [N, A]``, or a ``Policy`` with a memory, giving
      ``"return"`` (undiscounted), ``"discounted"``, ``"length"`` in steps and ``"terminated"`` (1 if the episode ended
      by itself), each ``[N]``; and the undiscounted sum of each metric of the environment's whose name begins with
      ``reward/``, under that name: what it pays beside the reward that is trained on.

    Raises:
      UserError: if ``episodes`` is below 1.
    """
    run = final_states(env, episodes, discount)
    return lambda act, key: run(act, key)[1]


def final_states(
    env: Env, episodes: int, discount: float | Array = 1.0, *, same_start: bool = False, levels: PyTree = None
) -> Callable[[Act, Key], tuple[EnvState, dict[str, Array]]]:
    """As ``episode_returns``, whose ``N`` episodes these are: ``fn(act, key) -> (states, totals)``, where ``states``,
    leaves ``[N, ...]``, are what the episodes ended in. ``same_start``: all begin with the same key. ``levels``, leaves
    ``[N, ...]``: one for each episode, of a world that has them."""
    if episodes < 1:
        raise UserError(f"episodes={episodes} must be at least 1")
    limit = env.spec.max_episode_steps

    def step(state: EnvState, action: Array, alive: Array) -> tuple[EnvState, EnvState]:
        following = env.step(state, action)
        return jax.tree.map(lambda new, old: jnp.where(alive, new, old), following, state), following

    def run(act: Act, key: Key) -> tuple[EnvState, dict[str, Array]]:
        reset_key, act_key = jax.random.split(key)
        keys = jax.random.split(reset_key, 1 if same_start else episodes)
        keys = jnp.broadcast_to(keys, (episodes,))
        zeros, policy = jnp.zeros(episodes), memoryless(act)
        first = jax.vmap(env.reset)(keys) if levels is None else jax.vmap(env.levels.reset)(keys, levels)
        beside = [name for name in first.metrics if name.startswith("reward/")]
        totals = dict.fromkeys(("return", "discounted", "length", "terminated", *beside), zeros)

        def unfinished(carry):
            t, _, alive, *_ = carry
            return (t < limit) & alive.any()

        def body(carry):
            t, state, alive, totals, memory, reward = carry
            action, memory = policy.step(memory, state.observation, reward, jax.random.fold_in(act_key, t))
            state, after = jax.vmap(step)(state, action, alive)
            reward = after.reward
            gains = {
                "return": reward,
                "discounted": reward * jnp.asarray(discount, jnp.float32) ** t,
                "length": jnp.ones(episodes),
                "terminated": after.terminated,
                **{name: after.metrics[name] for name in beside},
            }
            # Select, not multiply: a reward past the end may be infinite.
            totals = {name: total + jnp.where(alive, gains[name], 0.0) for name, total in totals.items()}
            return t + 1, state, alive & (after.terminated + after.truncated == 0), totals, memory, reward

        start = (
            jnp.int32(0),
            first,
            jnp.ones(episodes, bool),
            totals,
            policy.start((episodes,)),
            zeros,
        )
        _, state, _, totals, *_ = jax.lax.while_loop(unfinished, body, start)
        return state, totals

    return run


def evaluator(env: Env, episodes: int) -> Callable[[Act, Key], Metrics]:
    """``fn(act, key) -> {"return", "return_std", "length"}`` over ``episodes`` whole episodes, see ``episode_returns``.

    The mean of the undiscounted returns, their standard deviation over the episodes, the mean length in steps, and the
    mean of whatever else an environment pays: ``reward/true`` beside a return that is a proxy.
    """
    run = episode_returns(env, episodes)

    def evaluate(act: Act, key: Key) -> Metrics:
        results = run(act, key)
        names = ("return", "length", *(name for name in results if name.startswith("reward/")))
        means = {name: results[name].mean() for name in names}
        return {**means, "return_std": results["return"].std()}

    return evaluate


def level_evaluator(env: Env, attempts: int = 1) -> Callable[[Act, Key], Metrics]:
    """``fn(act, key) -> metrics`` over the held-out levels of ``env``, each played ``attempts`` times side by side.

    ``solved/NAME`` is the share of episodes on the set ``NAME`` that were solved (``Levels.solved``), ``solved`` and
    ``return`` the means over the first set, by which runs are judged, and ``length`` of its episodes, in steps.

    Raises:
      UserError: for a world without held-out levels.
    """
    if env.levels is None or not env.levels.evaluation:
        raise UserError(f"{env.name or 'this environment'} has no held-out levels to evaluate on")
    levels, sets = env.levels, env.levels.evaluation
    sizes = [jax.tree.leaves(level)[0].shape[0] * attempts for level in sets.values()]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    stacked = [jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), attempts, axis=0), one) for one in sets.values()]
    every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *stacked)
    run = final_states(env, ends[-1], levels=every)

    def evaluate(act: Act, key: Key) -> Metrics:
        states, results = run(act, key)
        solved = levels.solved(results["return"], states.reward, results["terminated"]).astype(jnp.float32)
        shares = {
            f"solved/{name}": solved[end - size : end].mean() for name, size, end in zip(sets, sizes, ends, strict=True)
        }
        first = slice(0, sizes[0])
        means = {name: results[name][first].mean() for name in ("return", "length")}
        return {"solved": solved[first].mean(), **means, **shares}

    return evaluate
