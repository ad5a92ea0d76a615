"""Building and checking a :class:`~jaxrl_reg.types.Dataset`.

Everything here runs on the host in NumPy, once, before training; the result moves to the device in one transfer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_reg.data import columns as check
from jaxrl_reg.data.columns import Source
from jaxrl_reg.data.episodes import return_rank, returns_of
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Dataset, Transition


def from_arrays(
    observation: Any,
    action: Any,
    reward: Any,
    terminated: Any,
    truncated: Any,
    next_observation: Any = None,
    *,
    name: str,
    score_random: float = math.nan,
    score_expert: float = math.nan,
    extras: Mapping[str, Any] | None = None,
    action_low: Any = None,
    action_high: Any = None,
    clip_actions: bool = False,
    actions: int | None = None,
    next_action: Any = None,
    cut: Any = None,
    dropped_reward: Any = None,
    notes: Sequence[str] = (),
    source: Source | str = Source(),  # noqa: B008 (immutable)
) -> Dataset:
    """Rows in time order, episode after episode, to a data set on the device.

    Shapes: ``observation`` and ``next_observation`` ``[N, O]``, ``action`` ``[N, A]``, the others ``[N]``; ``extras``
    ``[N, ...]``. ``terminated`` and ``truncated`` hold 0 or 1; a row with both counts as terminated. Rows after the
    last flag are an unfinished episode: it counts as truncated, and as cut. ``cut`` marks further ends as such.
    ``reward`` None: not known.

    Without ``next_observation`` the observations are shifted by one row, as D4RL's ``qlearning_dataset`` does: the
    last row of a truncated or unfinished episode has no successor and is dropped, and the row before it then ends
    the episode; it keeps the dropped row's action as its ``next_action`` and its reward as ``dropped_reward``. A
    terminated row stays; its successor is unknown and never bootstrapped from, so it repeats its own observation.
    ``next_action`` ``[N, A]``, in [-1, 1], is looked at only where an episode is truncated: the action taken at
    ``next_observation``, where that is known.

    ``action_low`` and ``action_high`` (``[A]`` or scalars) rescale actions to [-1, 1]; ``clip_actions`` clips those
    outside. Without bounds, integers ``[N]``, ``[N, 1]`` or one-hot are the actions of a discrete task with ``actions``
    of them (see ``columns.actions``). ``return_rank`` is the fraction of episodes whose return is at most the row's
    own: ties share the higher rank, and the best episode has 1. What was done to the data joins ``notes``.

    Raises UserError, naming source, key and row, for: NaN or infinity, unequal lengths, wrong rank, no rows, flags
    other than 0 and 1, actions out of bounds by more than 1e-6 (within that they are clipped), no episode end at all.
    """
    source = Source(source) if isinstance(source, str) else source
    observation = check.floats(source, "observation", observation, 2)
    acted = check.actions(source, action, action_low, action_high, clip_actions, actions)
    rewarded = reward is not None
    reward = check.floats(source, "reward", reward, 1) if rewarded else np.zeros(len(acted.values), np.float32)
    terminated = check.flags(source, "terminated", terminated)
    truncated = check.flags(source, "truncated", truncated)
    columns = {"action": acted.values, "reward": reward, "terminated": terminated, "truncated": truncated}
    if next_observation is not None:
        next_observation = check.floats(source, "next_observation", next_observation, 2)
        if next_observation.shape[1] != observation.shape[1]:
            found, wanted = next_observation.shape[1], observation.shape[1]
            raise source.error("next_observation", f"has {found} columns, but observations have {wanted}")
        columns["next_observation"] = next_observation
    if next_action is not None:
        columns["next_action"] = check.floats(source, "next_action", next_action, 2)
    columns["cut"] = np.zeros(len(observation), bool) if cut is None else check.flags(source, "cut", cut)
    if dropped_reward is not None:
        columns["dropped_reward"] = np.array(check.column(source, "dropped_reward", dropped_reward), np.float32)
    extras = {key: check.extra(source, key, value) for key, value in (extras or {}).items()}
    rows = len(observation)
    for key, column in {**columns, **extras}.items():
        if len(column) != rows:
            found = source.keys.get("observation", "observation")
            raise source.error(key, f"has {len(column)} rows, but {found} has {rows}")
    if rows == 0:
        raise source.error("observation", "has no rows")
    if not (terminated.any() or truncated.any()):
        both = [source.keys.get(key, key) for key in ("terminated", "truncated")]
        raise UserError(
            f"{source.path}: {' and '.join(dict.fromkeys(both))} mark no episode end; set the flag on each last row"
        )
    truncated = truncated & ~terminated
    columns["cut"] = columns["cut"] & truncated
    if not (terminated[-1] or truncated[-1]):
        truncated[-1] = columns["cut"][-1] = True
    columns |= {"observation": observation, "truncated": truncated}
    said = (*notes, *acted.notes)
    if next_observation is None:
        columns, extras = _shifted(source, columns, extras)
    else:
        said += _broken(columns)
    return assemble(
        columns,
        extras,
        name=name,
        score_random=score_random,
        score_expert=score_expert,
        rewarded=rewarded,
        discrete=acted.discrete,
        action_bounds=acted.bounds,
        notes=tuple(dict.fromkeys(said)),
    )


def _shifted(
    source: Source, columns: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns with ``next_observation``, of the rows that have one; see ``from_arrays``."""
    observation, truncated = columns["observation"], columns["truncated"]
    keep = ~truncated
    if not keep.any():
        raise source.error("observation", "has no row with a successor: every episode is one truncated row")
    ends = np.append(truncated[1:], False) & ~columns["terminated"]  # the rows before those that are dropped
    shifted = {
        **columns,
        "next_observation": np.where(columns["terminated"][:, None], observation, np.roll(observation, -1, axis=0)),
        "next_action": np.roll(columns["action"], -1, axis=0),
        "truncated": ends,
        "cut": np.append(columns["cut"][1:], False) & ends,
        "dropped_reward": np.where(ends, np.append(columns["reward"][1:], 0.0), np.nan).astype(np.float32),
    }
    return {key: value[keep] for key, value in shifted.items()}, {key: value[keep] for key, value in extras.items()}


def _broken(columns: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A sentence where an episode goes on, but not from where its action led."""
    inner = ~(columns["terminated"] | columns["truncated"])[:-1]
    torn = inner & (columns["next_observation"][:-1] != columns["observation"][1:]).any(axis=1)
    if not torn.any():
        return ()
    return (
        f"at {torn.sum():,} of {inner.sum():,} steps inside an episode the next row is not where the action led (the "
        f"first: row {np.flatnonzero(torn)[0]}); are ends of episodes missing, or rows out of order?",
    )


def from_transitions(
    trajectory: Transition, *, name: str, score_random: float = math.nan, score_expert: float = math.nan
) -> Dataset:
    """A time-major trajectory ``[T, E, ...]``, such as a rollout of ``E`` environments, to a data set on the device.

    Environments are laid out one after the other. An episode that is still running at the last step is truncated
    there, and counts as cut. Raises UserError if ``trajectory.last`` is missing or the rank is not ``[T, E]``.
    """
    if trajectory.last is None:
        raise UserError(f"{name}: a trajectory needs `last` to tell where its episodes end")
    if trajectory.reward.ndim != 2:
        raise UserError(f"{name}: reward has shape {trajectory.reward.shape}, expected time and environments [T, E]")
    host = jax.device_get(trajectory)
    last, going = host.last > 0, host.discount > 0
    cut = np.zeros_like(last)
    cut[-1] = ~last[-1] & going[-1]
    last = last | cut

    def rows(x):
        return np.swapaxes(np.asarray(x), 0, 1).reshape(-1, *x.shape[2:])

    return from_arrays(
        rows(host.observation),
        rows(host.action),
        rows(host.reward),
        rows(~going),
        rows(last & going),
        rows(host.next_observation),
        name=name,
        score_random=score_random,
        score_expert=score_expert,
        extras={key: rows(value) for key, value in host.extras.items()},
        cut=rows(cut),
        source=name,
    )


def validate(dataset: Dataset) -> None:
    """Check every invariant of a data set that was edited by hand; raises UserError naming field and row."""
    host = jax.device_get(dataset)
    source = Source(f"data set {dataset.name!r}")
    for key in ("discount", "last"):
        check.flags(source, key, getattr(host, key))
    terminated, last = host.discount == 0, host.last == 1
    if (terminated & ~last).any():
        row = np.flatnonzero(terminated & ~last)[0]
        raise source.error("discount", "is 0 although the episode goes on; an episode ends where it terminates", row)
    rebuilt = from_arrays(
        host.observation,
        host.action,
        host.reward,
        terminated,
        last & ~terminated,
        host.next_observation,
        name=dataset.name,
        extras=host.extras,
        next_action=host.next_action,
        cut=host.cut,
        dropped_reward=host.dropped_reward,
        source=source,
    )
    for key in ("discount", "next_action", "last", "return_rank", "episode", "step", "start", "end", "cut"):
        wanted, found = getattr(rebuilt, key), getattr(host, key)
        if found is None:
            continue
        wanted, found = np.zeros(dataset.size) if wanted is None else np.asarray(wanted), np.asarray(found)
        if wanted.shape != found.shape:
            raise source.error(key, f"has shape {found.shape}, expected {wanted.shape}")
        wrong = (wanted != found).reshape(len(wanted), -1).any(axis=1)
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            raise source.error(key, f"is {found[row].tolist()}, but the episodes give {wanted[row].tolist()}", row)


def assemble(
    columns: Mapping[str, np.ndarray],
    extras: Mapping[str, np.ndarray],
    *,
    name: str,
    score_random: Any,
    score_expert: Any,
    rewarded: bool = True,
    discrete: bool = False,
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Derive the episode structure from checked columns; the last row must end an episode."""
    terminated, action, reward = columns["terminated"], columns["action"], columns["reward"]
    last = terminated | columns["truncated"]
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    episode = np.repeat(np.arange(len(ends)), lengths)
    # What was done at the last observation of a truncated episode is known from elsewhere or not at all.
    final = np.where(terminated[:, None], action, columns.get("next_action", action))
    cut, dropped = columns["cut"] & columns["truncated"], columns.get("dropped_reward")
    if dropped is not None:
        dropped = np.where(last & ~terminated, dropped, np.nan).astype(np.float32)
        dropped = dropped if np.isfinite(dropped).any() else None
    returns = returns_of(reward, starts, dropped)
    fields: dict[str, Any] = {
        "observation": columns["observation"],
        "action": action,
        "reward": reward,
        "discount": 1.0 - terminated.astype(np.float32),
        "next_observation": columns["next_observation"],
        "next_action": np.where(last[:, None], final, np.roll(action, -1, axis=0)),
        "last": last.astype(np.float32),
        "return_rank": return_rank(returns)[episode],
        "episode": episode.astype(np.int32),
        "step": (np.arange(len(reward)) - starts[episode]).astype(np.int32),
        "start": starts[episode].astype(np.int32),
        "end": ends[episode].astype(np.int32),
        "score_random": np.float32(score_random),
        "score_expert": np.float32(score_expert),
        "extras": dict(extras),
        "cut": cut.astype(np.float32) if cut.any() else None,
        "dropped_reward": dropped,
    }
    told = {"name": name, "rewarded": rewarded, "discrete": discrete, "action_bounds": action_bounds, "notes": notes}
    return jax.device_put(Dataset(**fields, **told))
