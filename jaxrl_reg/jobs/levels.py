"""Runs in a world with levels: judged on held-out ones, and the levels that were learnt from are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs.job import Keep, Score, Show

if TYPE_CHECKING:
    from jaxrl_reg.types import Agent, Env

RIVAL, NOBODY = "dr", "none"
FILE = "levels.json"


def score(env: Env, rival: str | None) -> Score:
    """What ranks members: the return, or the share of held-out levels that are solved."""
    options = {"baseline": rival, "baseline_words": rival or ""}
    return Score(**options) if env.levels is None else Score("eval/solved", "solved share", **options)


def sets_of(env: Env) -> list[tuple[str, str]]:
    """Every set of held-out levels, with the metric that tells how many of it are solved."""
    return [] if env.levels is None else [(name, f"eval/solved/{name}") for name in env.levels.evaluation]


def attempts(env: Env, episodes: int) -> int:
    """How often every held-out level is played, for at least so many episodes."""
    import jax

    assert env.levels is not None
    count = sum(jax.tree.leaves(level)[0].shape[0] for level in env.levels.evaluation.values())
    return max(1, -(-episodes // count))


def check(agent: Agent, name: str, env: Env, unroll: int) -> None:
    """Whether levels can be scored at all.

    Raises:
      UserError: for a curriculum whose rollouts are shorter than an episode.
    """
    if agent.curriculum is not None and env.levels is not None and unroll < env.spec.max_episode_steps:
        raise UserError(
            f"unroll={unroll} is shorter than an episode of {env.name} ({env.spec.max_episode_steps} steps), so {name} "
            f"would leave a level before it is scored; take --unroll {env.spec.max_episode_steps} or shorter episodes, "
            f"--env-set episode_length={unroll}"
        )


def with_album(show: Show | None, env: Env, segments: int) -> Show:
    """``Job.show`` with ``levels.json`` beside it: what the best member's curriculum had it learn from, by segment."""

    def shown(keep: Keep, state: Any, hyper: Any, key: Any) -> Mapping[str, str]:
        import jax
        import numpy as np

        from jaxrl_reg.loops.levels import PAGES

        pages = {} if show is None else dict(show(keep, state, hyper, key))
        assert env.levels is not None
        album = jax.device_get(state.album)
        count = jax.tree.leaves(album)[0].shape[1]

        def picture(row: int, column: int) -> list[Any]:
            level = jax.tree.map(lambda leaf: leaf[row, column], album)
            return np.asarray(env.levels.picture(level)).tolist()  # pyright: ignore[reportOptionalMemberAccess]

        last = range(max(segments - PAGES, 0), segments)
        rows = [[picture(segment % PAGES, column) for column in range(count)] for segment in last]
        return {**pages, FILE: json.dumps({"segments": rows})}

    return shown
