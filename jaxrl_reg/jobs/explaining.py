"""What the best member of a run looks at: ``evaluate RUN --explain``."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from jaxrl_reg.io.files import whole
from jaxrl_reg.jobs.deployment import acting, read_member
from jaxrl_reg.jobs.progress import OnTick, Say, silent
from jaxrl_reg.jobs.watching import world_job

if TYPE_CHECKING:
    import numpy as np

    from jaxrl_reg.types import Policy

EXPLAIN_STREAM = 12
EPISODES = 16  # whose states replace hidden entries; the first is explained
STEPS = 200  # of an episode that are looked at
SHARE = 0.2
UNITS = 6  # components of an action whose facets are shown
EXPLAINED = "explained.npz"


def explain(
    directory: str | pathlib.Path,
    *,
    setting: int | None = None,
    seed: int | None = None,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> dict[str, np.ndarray]:
    """Which steps and sensors drove a member's actions over an episode, and what its actions answer to.

    Everything goes to ``explained.npz`` and, as pictures, into the report, which is written again.

    Args:
      directory: a run directory.
      setting, seed: as ``load_policy``; the best member by default.

    Returns:
      ``mask`` and ``occlusion [T, O]``, ``action [T, A]``, ``fidelity [3]``, ``observation [T, O]`` (see
      ``evaluation.explanation``); where actions are continuous and the policy has no memory, ``facet_start`` and
      ``facet [A, F, O]`` in standard deviations from the mean visited state, ``facet_value`` and ``facet_distance
      [A, F]`` (see ``evaluation.facets``).

    Raises:
      UserError: if the directory holds no run or no checkpoint, or its world cannot be compiled.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg.evaluation import report as reporting
    from jaxrl_reg.evaluation.explanation import explain as explaining
    from jaxrl_reg.evaluation.logs import logged

    path = pathlib.Path(directory)
    _, job = world_job(path)
    member, world = read_member(path, setting, seed), job.world
    policy = acting(path, member)
    about = member.about
    steps = min(STEPS, world.spec.max_episode_steps)
    say(f"explaining seed {about['seed']} of setting {about['setting']}: {steps} steps of an episode")
    play_key, mask_key, facet_key = jax.random.split(
        jax.random.fold_in(jax.random.key(about["seed"]), EXPLAIN_STREAM), 3
    )
    log = jax.jit(logged(world, EPISODES, steps), static_argnums=0)(policy, play_key)
    alive = np.asarray(log.alive)
    visited = jnp.asarray(np.asarray(log.observation)[alive > 0])
    chosen = int(alive.sum(axis=0).argmax())  # the longest: of the best member that is seldom a failure
    memoryless = not jax.tree.leaves(jax.eval_shape(lambda: policy.start(())))
    smooth = not world.spec.discrete

    @jax.jit
    def explained(visited: Any) -> Any:
        episode = log.observation[:, chosen], log.paid[:, chosen], log.alive[:, chosen]
        return explaining(policy, *episode, visited, mask_key, share=SHARE, differentiable=smooth)

    found = explained(visited)
    length = int(alive[:, chosen].sum())
    arrays = {name: np.asarray(getattr(found, name))[:length] for name in ("mask", "occlusion", "action")}
    arrays |= {"fidelity": np.asarray(found.fidelity), "observation": np.asarray(log.observation)[:length, chosen]}
    if smooth and memoryless:
        arrays |= _facets(policy, visited, world.spec.action_dim, facet_key)
    arrays["member"] = np.array([about["setting"], about["seed"]])
    with whole(path / EXPLAINED) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    reporting.write(path)
    mask, occlusion, chance = (float(one) for one in arrays["fidelity"])
    say(
        f"showing {SHARE:.0%} of what it saw avoids {mask:.0%} of what hiding everything changes of its actions "
        f"(chosen at random: {chance:.0%}, by hiding one sensor at a time: {occlusion:.0%})"
    )
    return arrays


def _facets(policy: Policy, visited: Any, action_dim: int, key: Any) -> dict[str, np.ndarray]:
    """What drives each component of the action up, from states visited ``[N, O]``."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg.evaluation.facets import value_facets

    def of(unit: Any, visited: Any) -> Any:
        def answer(observation: Any) -> Any:
            return policy.step(policy.start(()), observation, jnp.zeros(()), key)[0][unit]

        return value_facets(answer, visited, jax.random.fold_in(key, unit))

    units = jnp.arange(min(UNITS, action_dim))
    shown = jax.jit(lambda visited: jax.lax.map(lambda unit: of(unit, visited), units))(visited)
    mean, spread = np.asarray(visited.mean(axis=0)), np.maximum(np.asarray(visited.std(axis=0)), 1e-6)
    return {
        "facet_start": (np.asarray(shown.start) - mean) / spread,
        "facet": (np.asarray(shown.found) - mean) / spread,
        "facet_value": np.asarray(shown.value),
        "facet_distance": np.asarray(shown.distance),
    }
