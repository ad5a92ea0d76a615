"""Policies that leave their run: one call to act with, one folder to take away.

``act = load_policy("runs/x")`` needs neither the environment nor the data set. ``export("runs/x", "there")`` writes the
same policy as a StableHLO program that runs with JAX alone.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.jobs import hosted, kinds, preprocessing, tasks
from jaxrl_reg.jobs.files import load_config, read_json
from jaxrl_reg.jobs.learners import Learner, learners
from jaxrl_reg.jobs.prompting import Answer
from jaxrl_reg.jobs.settings import JobConfig, seeds_of

if TYPE_CHECKING:
    import numpy as np

    from jaxrl_reg.types import Agent, Policy, PyTree, Spec, TokenSpec


class Member(NamedTuple):
    """One trained member of a run, read from its checkpoint."""

    agent: Agent
    state: PyTree  # of the agent
    hyper: Any
    spec: Spec | TokenSpec
    folder: str  # of the checkpoints of its program
    row: tuple[int, int]  # setting and seed by their position there
    about: Mapping[str, Any]  # plain facts, for people


class Act:
    """A trained policy as a function: ``act(observation) -> action``, greedy, in the environment's own units.

    ``observation`` is ``[O]``, or ``[B, O]`` for ``B`` episodes side by side; the action is a NumPy array ``[A]`` or
    ``[B, A]`` (a whole number where actions are discrete). An agent with a memory takes the ``reward`` of the step
    before as well; call ``reset()`` at the start of an episode. ``seed`` is of the policy's own random numbers, if it
    draws any. ``about`` says which member this is.
    """

    def __init__(self, policy: Policy, spec: Spec, about: Mapping[str, Any], seed: int = 0):
        import jax

        self.spec, self.about = spec, about
        self._start, self._step = policy.start, jax.jit(policy.step)
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Forget the episode so far."""
        self._carry: Any = None
        self._shape: tuple[int, ...] | None = None
        self._steps = 0

    def __call__(self, observation: Any, reward: Any = 0.0) -> np.ndarray:
        import jax
        import numpy as np

        seen = np.asarray(observation, np.float32)
        if seen.ndim not in (1, 2) or seen.shape[-1] != self.spec.observation_dim:
            size = self.spec.observation_dim
            raise UserError(f"this policy takes observations [{size}] or [B, {size}], not {list(seen.shape)}")
        if self._shape is None:
            self._shape, self._carry = seen.shape[:-1], self._start(seen.shape[:-1])
        if seen.shape[:-1] != self._shape:
            raise UserError("another number of episodes than in the step before; call reset() between episodes")
        key = jax.random.fold_in(jax.random.key(self._seed), self._steps)
        paid = np.broadcast_to(np.asarray(reward, np.float32), self._shape)
        action, self._carry = self._step(self._carry, seen, paid, key)
        self._steps += 1
        return np.asarray(action)


def load_policy(
    directory: str | pathlib.Path,
    *,
    setting: int | None = None,
    seed: int | None = None,
    task: str | None = None,
    goal: Any = None,
) -> Act | Answer:
    """The policy of one member of a run, from its newest checkpoint; of a token agent, what answers prompts.

    Args:
      directory: a run directory of any kind; neither its environment nor its data set is needed.
      setting: number of the setting, as in the column of ``metrics.parquet``; the best one by default.
      seed: the member's seed; the best one of the setting by default.
      task: for an agent that was trained without a task: one that it has inferred, in training or by ``zeroshot``; its
        own reward by default.
      goal: for such an agent, instead of a task: the observation ``[O]`` that it shall reach.

    Raises:
      UserError: if there is no run or no checkpoint, or no such setting, seed or task.
    """
    from jaxrl_reg.types import TokenSpec

    member = read_member(directory, setting, seed)
    policy = policy_of(directory, member, task, goal)
    if isinstance(member.spec, TokenSpec):
        return Answer(policy, member.spec, member.about, member.agent.turns)
    return Act(policy, member.spec, member.about)


def policy_of(directory: str | pathlib.Path, member: Member, task: str | None = None, goal: Any = None) -> Policy:
    """How a member acts, from raw observations to actions in the environment's own units, or from prompts to ids."""
    from jaxrl_reg.types import TokenSpec

    policy = acting(directory, member, task, goal)
    if isinstance(member.spec, TokenSpec):
        return policy
    return in_own_units(policy, member.spec, member.about.get("actions"))


def acting(directory: str | pathlib.Path, member: Member, task: str | None = None, goal: Any = None) -> Policy:
    """How a member acts in a world of this package: actions in [-1, 1]."""
    from jaxrl_reg.types import policy_of as greedy_of

    if member.agent.zero_shot is not None:
        return _served(pathlib.Path(directory), member, task, goal)
    if task is not None or goal is not None:
        raise UserError(f"{member.about['agent']} learns one task; it takes neither a task nor a goal")
    return greedy_of(member.agent, member.state, member.hyper)


def read_member(directory: str | pathlib.Path, setting: int | None = None, seed: int | None = None) -> Member:
    """One member of a run with its agent; see ``load_policy`` for the arguments."""
    import jax

    from jaxrl_reg import population

    path = pathlib.Path(directory)
    config, facts = load_config(path), read_json(path / "summary.json", default={})
    statistics = preprocessing.known(facts).get(config.agent)
    made = getattr(kinds.of(config), "programs", lambda config: learners(config.agent, config))(config)
    programs = [preprocessing.wrapped(program, statistics) for program in made]
    counts = [population.setting_count(program.hypers) for program in programs]
    setting, seed, score = _chosen(path, config, facts, sum(counts), setting, seed)
    program = next(one for one, count in zip(programs, counts, strict=True) if setting < one.first + count)
    spec = _spec(path, config, facts)
    agent = program.make(program.config, spec)
    updates, states = agent_states(path, program, agent, config)
    row = setting - program.first, seed - config.seed_offset
    at = jax.tree.map(lambda leaf: leaf[row[0] * config.seeds + row[1]], states)
    hyper = jax.tree.map(lambda leaf: leaf[row[0]], program.hypers)
    about = {
        "run": path.name,
        "kind": config.kind,
        "env": config.env,
        "agent": config.agent,
        "setting": setting,
        "seed": seed,
        **{name: values[row[0]] for name, values in program.swept.items()},
        "updates": updates + facts.get("axis", {}).get("behind", 0),
        **({} if score is None else {facts.get("score", {}).get("name", "return"): score}),
        **({"actions": facts["actions"]} if facts.get("actions") else {}),
    }
    return Member(agent, at, hyper, spec, program.folder, row, about)


def in_own_units(policy: Policy, spec: Spec, actions: Mapping[str, Any] | None) -> Policy:
    """``policy`` whose actions are what the environment takes: a whole number where they are discrete, and scaled from
    [-1, 1] to ``actions["low"]`` .. ``actions["high"]`` (``[A]`` or numbers) where those are known and others."""
    import jax.numpy as jnp
    import numpy as np

    same = not actions or (np.all(np.equal(actions["low"], -1.0)) and np.all(np.equal(actions["high"], 1.0)))
    if not spec.discrete and same:
        return policy
    low, high = (jnp.asarray(actions[end], jnp.float32) for end in ("low", "high")) if actions else (-1.0, 1.0)

    def step(carry: Any, observation: Any, reward: Any, key: Any) -> tuple[Any, Any]:
        action, carry = policy.step(carry, observation, reward, key)
        if spec.discrete:
            return jnp.argmax(action, axis=-1).astype(jnp.int32), carry
        return low + (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low), carry

    return policy._replace(step=step)


def _spec(path: pathlib.Path, config: JobConfig, facts: Mapping[str, Any]) -> Spec | TokenSpec:
    """The sizes that the run's agent was made for; a run of an earlier version does not have them by itself."""
    from jaxrl_reg.jobs.learners import make_env
    from jaxrl_reg.types import Spec, TokenSpec

    if "vocabulary" in facts.get("spec", {}):
        return TokenSpec(**facts["spec"])
    if "spec" not in facts and config.env == "none":
        raise UserError(f"{path}/summary.json does not say the sizes of observations and actions; train the run again")
    return Spec(**facts["spec"]) if "spec" in facts else make_env(config).spec


def _chosen(
    path: pathlib.Path, config: JobConfig, facts: Mapping[str, Any], count: int, setting: int | None, seed: int | None
) -> tuple[int, int, float | None]:
    """Setting, seed and, where the run has one, the score: what was asked for, and the best for what was not."""
    import numpy as np

    from jaxrl_reg.io.sinks import read_parquet

    if setting is not None and not 0 <= setting < count:
        raise UserError(f"{path} has settings 0 to {count - 1}, not {setting}; metrics.parquet says what each is")
    seeds = seeds_of(config)
    if seed is not None and seed not in seeds:
        raise UserError(f"{path} has seeds {seeds[0]} to {seeds[-1]}, not {seed}")
    metric = facts.get("score", {}).get("metric", "eval/return")
    rows = read_parquet(path / "metrics.parquet") if (path / "metrics.parquet").exists() else None
    if metric is None or rows is None or metric not in rows:
        if setting is None and count > 1:
            raise UserError(f"{path} has no scores to choose by; name a setting from 0 to {count - 1}")
        return setting or 0, seeds[0] if seed is None else seed, None
    rows = rows[rows["agent"] == config.agent]
    axis = facts.get("axis", {}).get("column", "update")
    last = rows[rows[axis] == rows.groupby("setting")[axis].transform("max")]
    scores = last.groupby(["setting", "seed"])[metric].mean()
    reached = last.groupby("setting")[axis].max()
    if setting is None:
        furthest = reached[reached == reached.max()].index
        means = {int(one): float(np.nan_to_num(scores[one].mean(), nan=-np.inf)) for one in furthest}
        setting = max(means, key=lambda one: means[one])
    own = scores[setting].fillna(-np.inf)
    seed = int(own.idxmax()) if seed is None else seed
    value = float(own.get(seed, -np.inf))
    return setting, seed, value if np.isfinite(value) else None


def agent_states(path: pathlib.Path, program: Learner, agent: Agent, config: JobConfig) -> tuple[int, PyTree]:
    """How far the members of a program have come, and their agents' states, leaves ``[M, ...]``. In every kind of run
    these are the first leaves of the checkpoint: what the environment and the replay held is not read."""
    import jax
    import numpy as np

    from jaxrl_reg import population
    from jaxrl_reg.io import checkpoint
    from jaxrl_reg.population.checkpointing import layout

    settings = population.setting_count(program.hypers)
    numbers = np.asarray(seeds_of(config))
    keys, hypers = layout(numbers, program.hypers, np.arange(settings * numbers.size))
    shapes = jax.eval_shape(jax.vmap(agent.init), keys, hypers)
    folder = path / "checkpoints" / program.folder
    found = checkpoint.restore(folder, lambda info: shapes, leading=True)
    if found is None:
        raise UserError(f"{folder} holds no checkpoint; continue the run with: jaxrl-reg resume {path}")
    segment, states, info = found
    if info["seeds"] != numbers.tolist():
        raise UserError(f"the checkpoint in {folder} has other seeds than {path}/config.json")
    done = int(np.max(info.get("done", segment)))
    return done * info["updates_per_segment"], states


def _served(path: pathlib.Path, member: Member, task: str | None, goal: Any) -> Policy:
    """How an agent that was trained without a task goes about one."""
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg.types import memoryless

    zero_shot = member.agent.zero_shot
    assert zero_shot is not None
    if goal is not None:
        wanted = np.asarray(goal, np.float32)
        if task is not None or wanted.shape != (member.spec.observation_dim,):
            raise UserError(f"give either a task or a goal, which is an observation [{member.spec.observation_dim}]")
        z = zero_shot.goal_z(member.state, jnp.asarray(wanted))
    else:
        z = _inferred(path, member, task)
    if zero_shot.policy is not None:
        return zero_shot.policy(member.state, z)
    return memoryless(lambda observation, key: zero_shot.act(member.state, observation, z, key))


def _inferred(path: pathlib.Path, member: Member, task: str | None) -> Any:
    """The vector of a task that this member has inferred from labelled states while they were at hand."""
    import jax.numpy as jnp

    known = tasks.remembered(path, member.folder)
    if not known:
        own = member.about["env"].startswith(hosted.PREFIX)  # whose rewards label no states
        others = "" if own else f", or infer tasks from its data with: jaxrl-reg zeroshot {path}"
        raise UserError(f"{path} has no inferred tasks; give a goal, which is an observation{others}")
    task = next(iter(known)) if task is None else task
    if task not in known:
        raise unknown("inferred task", task, known)
    return jnp.asarray(known[task][member.row])
