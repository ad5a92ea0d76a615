"""Policies trained here, evaluated in Gymnasium's environments, on the host and outside of any compiled program."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxrl_reg.errors import UserError, missing, unknown
from jaxrl_reg.types import Array, Key, Spec

# Packages that add environments to Gymnasium's once they are imported.
PACKAGES = ("ogbench", "gymnasium_robotics")
SUCCESS = ("success", "is_success")  # what an environment's info calls it
SIDE_BY_SIDE = 16


def evaluate_gymnasium(env: Any, act: Callable[[Array, Key], Array], episodes: int = 10, seed: int = 0) -> np.ndarray:
    """Undiscounted returns ``[episodes]`` of ``act(observation [O], key) -> action [A]`` in a Gymnasium environment.

    ``env`` is an id, such as ``"Hopper-v5"``, or an environment (left open). Actions in [-1, 1] are scaled to the
    bounds of the action space; observations are flattened to float32. Episode ``i`` is reset with ``seed + i`` and its
    keys come from the same number, and it ends where the environment says terminated or truncated. Give ``act``
    compiled: ``jax.jit(lambda observation, key: agent.act(state, observation, hyper, key, False))``.

    Raises ``UserError`` for a missing package, an unknown id, and spaces other than boxes with bounded actions.
    """
    gymnasium = _gymnasium()
    if not isinstance(env, str):
        return _returns(env, act, episodes, seed)
    _find(env)
    made = _made(env, lambda: gymnasium.make(env))
    try:
        return _returns(made, act, episodes, seed)
    finally:
        made.close()


def _returns(env: Any, act: Callable, episodes: int, seed: int) -> np.ndarray:
    observed, scaled = _observed(str(env), env.observation_space, None), _scaled(str(env), env.action_space)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        key = jax.random.key(seed + episode)
        step, ended = 0, False
        while not ended:
            action = act(observed(observation, False), jax.random.fold_in(key, step))
            observation, reward, terminated, truncated, _ = env.step(scaled(np.asarray(action)))
            returns[episode] += float(reward)
            step, ended = step + 1, terminated or truncated
    return returns


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError:
        raise missing("gymnasium") from None
    return gymnasium


class Actor(Protocol):
    """Who acts in ``E`` environments side by side, episode after episode."""

    def __call__(
        self,
        observation: np.ndarray,
        reward: np.ndarray,
        goal: np.ndarray | None,
        episode: np.ndarray,
        step: np.ndarray,
    ) -> np.ndarray:
        """``observation [E, O]``, ``reward [E]`` of the step before (0 at first), ``goal [E, O]`` where the episodes
        have one, ``episode [E]`` which of them each environment is in, ``step [E]`` within it (0: forget what was
        remembered). Gives ``action [E, A]`` in [-1, 1]."""
        ...


class Host(NamedTuple):
    """An environment on the host that episodes can be had from; made by :func:`make`.

    ``tasks`` are what it can be asked for, by name, empty where it has one reward only. ``goals``: whether a reset
    tells a goal, an observation ``[O]``. ``succeeds``: whether it says that an episode succeeded. ``actions``: the
    bounds ``low`` and ``high`` of what it takes, ``A`` numbers each, to which [-1, 1] is scaled.

    ``episodes(actor, seeds [N], task) -> {"return", "length", "success"}``, each ``[N]``: undiscounted returns, steps,
    and whether the episode had succeeded when it ended (NaN where nobody says so). ``task`` counts from 1; None: as
    the environment chooses. Episode ``i`` is reset with ``seeds[i]``. ``close()`` gives the simulators back.
    """

    name: str
    spec: Spec
    tasks: tuple[str, ...]
    goals: bool
    succeeds: bool
    episodes: Callable[..., dict[str, np.ndarray]]
    close: Callable[[], None]
    actions: dict[str, list[float]]


def make(
    name: str,
    episode_length: int | None = None,
    observation_keys: Sequence[str] | None = None,
    side_by_side: int = SIDE_BY_SIDE,
    **settings: Any,
) -> Host:
    """Gymnasium's environment ``name``, for evaluation between segments of training.

    Actions in [-1, 1] are scaled to the bounds of the action space; observations are flattened to float32. Of a
    dictionary of boxes, ``observation_keys`` says which entries to put side by side, and in which order; all of them,
    sorted by name, without it. An episode ends where the environment says terminated or truncated, at the latest after
    ``episode_length`` steps (without it: its own time limit, or 1000). ``module:ID`` imports ``module`` first;
    OGBench's and Gymnasium-Robotics' environments are found by themselves if their package is installed. ``settings``
    go to the environment's class.

    Args:
      side_by_side: episodes at a time, in a vector environment of as many copies.

    Raises:
      UserError: for a missing package, an unknown id, and spaces other than boxes with bounded actions.
    """
    gymnasium = _gymnasium()
    if side_by_side < 1:
        raise UserError(f"gymnasium/{name}: side_by_side={side_by_side} must be at least 1")
    _find(name)
    if episode_length is not None:
        settings["max_episode_steps"] = episode_length
    one = _made(name, lambda: gymnasium.make(name, disable_env_checker=True, **settings))
    try:
        observed = _observed(name, one.observation_space, observation_keys)
        scaled = _scaled(name, one.action_space)
        first, told, infos = _looked_at(one)
        tasks = _tasks(one)
        bounds = {end: np.ravel(getattr(one.action_space, end)).astype(float).tolist() for end in ("low", "high")}
        spec = Spec(observed(first, False).size, int(np.prod(one.action_space.shape)))
        if one.spec is not None and one.spec.max_episode_steps:
            spec = dataclasses.replace(spec, max_episode_steps=one.spec.max_episode_steps)
    finally:
        one.close()
    goal = np.asarray(told.get("goal", ()), np.float32)
    success = next((key for key in SUCCESS if key in infos), None)
    reader = _Reader(observed, scaled, goal.size > 0, success, spec.max_episode_steps)
    made: list[Any] = []  # the vector environment, once it is needed

    def vector() -> Any:
        if not made:
            mode = gymnasium.vector.AutoresetMode.DISABLED
            made.append(
                gymnasium.make_vec(
                    name,
                    num_envs=side_by_side,
                    vectorization_mode="sync",
                    vector_kwargs={"autoreset_mode": mode},
                    disable_env_checker=True,
                    **settings,
                )
            )
        return made[0]

    def episodes(actor: Actor, seeds: Sequence[int], task: int | None = None) -> dict[str, np.ndarray]:
        options = {} if task is None else {"task_id": task}
        with _numpy_seeded(int(seeds[0])):
            return _episodes(vector(), actor, list(map(int, seeds)), options, reader)

    def close() -> None:
        while made:
            made.pop().close()

    return Host(
        f"gymnasium/{name}",
        spec,
        tasks,
        goal.size == spec.observation_dim,
        success is not None,
        episodes,
        close,
        bounds,
    )


class _Reader(NamedTuple):
    """How what an environment takes and tells is read."""

    observed: Callable[[Any, bool], np.ndarray]
    scaled: Callable[[np.ndarray], np.ndarray]
    goals: bool
    success: str | None
    limit: int


def _episodes(
    vector: Any, actor: Actor, seeds: list[int], options: dict[str, Any], reader: _Reader
) -> dict[str, np.ndarray]:
    """As many episodes as seeds; an environment whose episode has ended starts the next one at once."""
    count, width = len(seeds), vector.num_envs
    found = {"return": np.zeros(count), "length": np.zeros(count), "success": np.full(count, np.nan)}
    episode = np.arange(width)  # of each environment; from ``count`` on nobody counts it
    begun = width
    step, reward = np.zeros(width, int), np.zeros(width, np.float32)

    def seeds_of(which: np.ndarray) -> list[int | None]:
        return [seeds[e % count] if chosen else None for e, chosen in zip(episode, which, strict=True)]

    def goals(told: dict[str, Any]) -> np.ndarray:
        return np.asarray(told["goal"], np.float32).reshape(width, -1)

    state, told = vector.reset(seed=seeds_of(np.ones(width, bool)), options=dict(options))
    goal = goals(told) if reader.goals else None
    while (counts := episode < count).any():
        action = actor(reader.observed(state, True), reward, goal, episode % count, step)
        state, reward, terminated, truncated, told = vector.step(reader.scaled(action))
        step += 1
        here = episode[counts]
        found["return"][here] += reward[counts]
        found["length"][here] += 1
        ended = terminated | truncated | (step >= reader.limit)
        over = ended & counts
        if reader.success is not None and reader.success in told:
            found["success"][episode[over]] = np.asarray(told[reader.success], float)[over]
        reward = np.where(ended, 0.0, reward).astype(np.float32)
        if not ended.any():
            continue
        episode[ended] = begun + np.arange(ended.sum())
        begun += int(ended.sum())
        if (episode < count).any():
            state, told = vector.reset(seed=seeds_of(ended), options={**options, "reset_mask": ended})
            step[ended] = 0
            if goal is not None:
                goal = np.where(ended[:, None], goals(told), goal)
    return found


def _find(name: str) -> None:
    """Import what an id needs. Raises ``UserError`` for one that Gymnasium does not know afterwards."""
    known = _gymnasium().registry
    module, _, plain = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"gymnasium/{name}: {module} cannot be imported: {error}") from None
    for package in PACKAGES:
        if plain not in known and importlib.util.find_spec(package) is not None:
            with contextlib.suppress(ImportError):
                importlib.import_module(package)
    if plain not in known:
        family = [one for one in known if one.rpartition("-v")[0] == plain.rpartition("-v")[0]]
        raise UserError(
            f"{unknown('Gymnasium environment', plain, family or known)} (OGBench and Gymnasium-Robotics add theirs "
            f"once they are installed; for one of your own, type MODULE:{plain})"
        )


def _made(name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (_gymnasium().error.Error, ImportError, TypeError) as error:
        raise UserError(f"gymnasium/{name}: {' '.join(str(error).split())}") from None


def _looked_at(env: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The first observation, what a reset tells, and what a step tells."""
    with _numpy_seeded(0):
        first, told = env.reset(seed=0)
        space = env.action_space
        middle = (np.asarray(space.low, float) + np.asarray(space.high, float)) / 2
        return first, told, env.step(middle.astype(space.dtype))[-1]


def _tasks(env: Any) -> tuple[str, ...]:
    """Names of OGBench's tasks; none in an environment that has one reward, or was made for one of them."""
    base = env.unwrapped
    if getattr(base, "_reward_task_id", None) is not None:
        return ()
    return tuple(str(task.get("task_name", f"task{i}")) for i, task in enumerate(getattr(base, "task_infos", ()), 1))


def _observed(name: str, space: Any, keys: Sequence[str] | None) -> Callable[[Any, bool], np.ndarray]:
    """``(observation, batched) -> [O]`` or ``[E, O]`` float32."""
    spaces = _gymnasium().spaces

    def flat(values: Any, batched: bool) -> np.ndarray:
        array = np.asarray(values, np.float32)
        return array.reshape(array.shape[0] if batched else -1, *((-1,) if batched else ()))

    if isinstance(space, spaces.Dict):
        entries = sorted(space.spaces) if keys is None else list(keys)
        for key in entries:
            if key not in space.spaces:
                raise unknown(f"entry of the observations of gymnasium/{name}", key, list(space.spaces))
        boxes = {key: space.spaces[key] for key in entries}
    else:
        entries, boxes = [], {"observations": space}
    for key, box in boxes.items():
        if not isinstance(box, spaces.Box):
            raise UserError(f"gymnasium/{name}: {key} and actions must be boxes, got {box}")
    if not entries:
        return flat
    return lambda values, batched: np.concatenate([flat(values[key], batched) for key in entries], axis=-1)


def _scaled(name: str, space: Any) -> Callable[[np.ndarray], np.ndarray]:
    """``[..., A]`` in [-1, 1] to what the environment takes."""
    spaces = _gymnasium().spaces

    if not isinstance(space, spaces.Box):
        raise UserError(f"gymnasium/{name}: observations and actions must be boxes, got {space}")
    if not space.is_bounded():
        raise UserError(f"gymnasium/{name}: the action space {space} has no bounds to scale [-1, 1] to")
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)

    def scaled(action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, np.float64)
        action = np.clip(action.reshape(*action.shape[:-1], *space.shape), -1.0, 1.0)
        return np.clip(low + (action + 1) / 2 * (high - low), low, high).astype(space.dtype)

    return scaled


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """OGBench draws goals and starts from NumPy's global generator; it is put back afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
