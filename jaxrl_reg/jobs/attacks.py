"""Attacks on what the members of a trained run see: how their returns fall, and whether they can be made to do what
someone else wants."""

from __future__ import annotations

import hashlib
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import read_json, write_parquet
from jaxrl_reg.jobs import deployment, hosted, kinds, opponents
from jaxrl_reg.jobs.adversaries import HEURISTICS, LEARNED, Box, Judge, Victim, parse
from jaxrl_reg.jobs.files import load_config
from jaxrl_reg.jobs.learners import Learner, learners, make_env
from jaxrl_reg.jobs.preprocessing import known, wrapped
from jaxrl_reg.jobs.progress import OnTick, Say, Tick, silent
from jaxrl_reg.jobs.settings import NO_ENV, JobConfig, seeds_of

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.types import Env

NONE = "none"
ATTACK = 103  # stream of the episodes under attack, beside those of the loops
ADVERSARY = 104  # stream of what an adversary is trained with
SCALE_STEPS, SCALE_EPISODES = 10_000, 8  # observations that the size of a perturbation is measured by; episodes each
CHUNK, LEARNING_CHUNK = 64, 8  # members side by side, of which each has a replay where an adversary learns


def attack(
    directory: str | pathlib.Path,
    attacks: str | Sequence[tuple[str, float]] = (),
    target: str | None = None,
    *,
    adversary: str | None = None,
    steps: int = 50_000,
    episodes: int | None = None,
    lean: bool = False,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> pd.DataFrame:
    """Episodes of every member under attacks on its observations; rewrites the report.

    A member's score under an attack is the interquartile mean over its episodes, which are the same ones (first states,
    chances of the world) under every attack and under none. Each attack's rows go to ``attacks.parquet`` when it is
    done, so that a command which is given again goes on; ``none`` comes by itself. What has learnt is kept in
    ``adversaries/`` and not learnt again for the same checkpoints, target and steps.

    Args:
      directory: a run directory of agents that act in a world in JAX.
      attacks: such as ``random:0.1,pgd:0.1``, or pairs of name and size. Sizes are in standard deviations of each
        coordinate of the observation, over episodes of all members without an attack.
      target: ``FILE.py:FUNCTION``, ``function(observation [O], action [A], next_observation [O]) -> scalar`` in JAX:
        what a targeted attack shall bring about, and what its return is told of for every attack.
      adversary: ``RUN`` or ``RUN:rat:0.1``, several by commas: adversaries that were learnt against the members of
        another run, in the box that they were learnt in; member by member, from the first again where they are fewer.
      steps: environment steps that an adversary which has to learn is trained for, one per member.
      episodes: per member and attack; ten times the run's own by default.
      lean: leave the report as it is.

    Returns:
      One row per setting and attack: interquartile means over runs with their 95% intervals.

    Raises:
      UserError: if the directory holds no such run or no checkpoint, or for an attack or target that does not work.
    """
    from jaxrl_reg.evaluation import report as reporting

    path = pathlib.Path(directory)
    config = load_config(path)
    asked = parse(attacks) if isinstance(attacks, str) else list(attacks)
    episodes = 10 * config.eval_episodes if episodes is None else episodes
    for name, value in (("episodes", episodes), ("attack_steps", steps)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    judge = _judge(path, config, target, steps)
    others = (
        [] if adversary is None else [x for text in adversary.split(",") for x in opponents.read(text, judge.env.spec)]
    )
    if not asked and not others:
        raise UserError("name an attack, such as pgd:0.1, or a run with adversaries")
    stored = path / "attacks.parquet"
    mark = {"episodes": episodes, "against": _digest(target)}
    for group in _groups(path, config, judge.env):
        possible = [(name, size, None) for name, size in asked if _possible(group, judge.env, name, say)]
        possible += [(x.name, x.epsilon, x) for x in others if _possible(group, judge.env, x.kind, say, fresh=False)]
        measured = None
        for name, epsilon, stored_one in [(NONE, 0.0, None), *possible]:
            about = {**mark, "attack_steps": steps if name in LEARNED else 0, "update": group.updates}
            about["learnt"] = "" if stored_one is None else stored_one.mark
            if _there(stored, name, epsilon, group.settings, about):
                say(f"{_label(name, epsilon)} is in {stored.name} already")
                continue
            if measured is None:
                measured = _measured(group, judge.env)
            box, known_ones = Box(epsilon * measured[1], *measured), stored_one
            if name in LEARNED:
                known_ones = _learnt(path, group, judge, (name, epsilon), box, about, on_tick, say)
            results = _run(group, judge, name, box, known_ones, episodes, on_tick)
            say(f"{_label(name, epsilon)}: {len(group.keys)} members, {episodes} episodes each")
            _write(stored, _rows(path, config, group, name, epsilon, results, about))
    if not lean:
        reporting.write(path)
    return reporting.robustness_of(path)


class Group(NamedTuple):
    """The members of one program: agent states ``[M, ...]``, keys ``[M]``, hypers ``[M]``, with what they are."""

    member: Learner
    agent: Any
    states: Any
    keys: Any
    hypers: Any
    updates: int
    settings: tuple[int, ...]


def _judge(path: pathlib.Path, config: JobConfig, target: str | None, steps: int) -> Judge:
    from jaxrl_reg.evaluation.attacks import judged
    from jaxrl_reg.loops.zero_shot import load_task

    if config.env == NO_ENV:
        raise UserError(f"{path} is a run without an environment; there is nothing to attack")
    if hosted.asked(config):
        raise UserError(f"{config.env} runs on the host; an attack needs a world in JAX, such as brax/hopper")
    if config.kind == "tokens":
        raise UserError(f"{path} is a run of a token agent; attacks are on observations that are numbers")
    env = make_env(config)
    if target is None:
        return Judge(env, env, None, steps)
    task = load_task(target, env)
    return Judge(env, judged(env, task.reward), task, steps)


def _groups(path: pathlib.Path, config: JobConfig, env: Env) -> list[Group]:
    import numpy as np

    from jaxrl_reg import population
    from jaxrl_reg.population.checkpointing import layout

    statistics = known(read_json(path / "summary.json", default={})).get(config.agent)
    made = getattr(kinds.of(config), "programs", lambda config: learners(config.agent, config))(config)
    seeds, groups = np.asarray(seeds_of(config)), []
    for member in (wrapped(one, statistics) for one in made):
        if not (path / "checkpoints" / member.folder).is_dir():
            raise UserError(f"{path} has no checkpoint of {member.label}; continue it with: jaxrl-reg resume {path}")
        agent = member.make(member.config, env.spec)
        if agent.zero_shot is not None:
            raise UserError(
                f"{config.agent} serves tasks and has no behaviour of its own to attack; put tasks to it: jaxrl-reg "
                f"zeroshot {path}"
            )
        count = population.setting_count(member.hypers)
        updates, states = deployment.agent_states(path, member, agent, config)
        keys, hypers = layout(seeds, member.hypers, np.arange(count * seeds.size))
        settings = tuple(range(member.first, member.first + count))
        groups.append(Group(member, agent, states, keys, hypers, updates, settings))
    return groups


def _victim(group: Group, env: Env, state: Any, hyper: Any) -> Victim:
    from jaxrl_reg.evaluation.attacks import mean_of
    from jaxrl_reg.types import policy_of

    own = group.agent.q
    q = None if own is None else lambda observation, action: own(state, observation, action)
    return Victim(policy_of(group.agent, state, hyper), mean_of(group.agent, env.spec, state, hyper), q)


def _possible(group: Group, env: Env, name: str, say: Say, fresh: bool = True) -> bool:
    """Whether the agent has what an attack asks for; says so where not. ``fresh``: what learns has yet to."""
    import jax

    if name in ("random", "sa_rl", "rat") and not (fresh and name in LEARNED):
        return True  # noise, or a network that has learnt already, and asks for no gradients
    one = jax.tree.map(lambda leaf: leaf[0], (group.states, group.hypers))
    victim = _victim(group, env, *one)
    if victim.mean is None:
        why = "has a memory" if group.agent.policy is not None else "tells no probabilities of its choices"
        say(f"{name} is left out: {group.member.label} {why}, and the attack needs the gradient of what it does")
    elif name == "critic" and victim.q is None:
        say(f"critic is left out: {group.member.label} has no critic of actions; pgd needs none")
    else:
        return True
    return False


def _mapped(function: Callable[..., Any], members: Any, shared: Any, tick: Callable[[int], None], most: int) -> Any:
    """``function(member, shared)`` of all members, as many side by side as divide them, telling how many are done."""
    import jax
    import numpy as np

    count = len(jax.tree.leaves(members)[0])
    chunk = max(n for n in range(1, min(count, most) + 1) if count % n == 0)
    mapped, found = jax.jit(jax.vmap(function, in_axes=(0, None))), []
    for begin in range(0, count, chunk):
        part = jax.tree.map(lambda leaf, begin=begin: leaf[begin : begin + chunk], members)
        found.append(jax.device_get(mapped(part, shared)))
        tick(begin + chunk)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def _measured(group: Group, env: Env) -> tuple[Any, Any]:
    """Mean and standard deviation of each coordinate of the observation ``[O]``, over episodes of all members."""
    import jax
    import numpy as np

    from jaxrl_reg.evaluation.attacks import moments

    count = len(group.keys)
    steps = min(env.spec.max_episode_steps, max(1, -(-SCALE_STEPS // (SCALE_EPISODES * count))))
    watch = moments(env, SCALE_EPISODES, steps)

    def one(member: Any, shared: Any) -> Any:
        state, key, hyper = member
        return watch(_victim(group, env, state, hyper).act, jax.random.fold_in(key, ATTACK - 1))

    found = _mapped(one, (group.states, group.keys, group.hypers), None, lambda done: None, CHUNK)
    rows, means, variances = (np.asarray(x, np.float64) for x in found)
    weight = (rows / rows.sum())[:, None]
    mean = (weight * means).sum(0)
    spread = np.sqrt((weight * (variances + (means - mean) ** 2)).sum(0))
    return mean.astype(np.float32), spread.astype(np.float32)


def _learnt(
    path: pathlib.Path,
    group: Group,
    judge: Judge,
    asked: tuple[str, float],
    box: Box,
    about: Mapping[str, Any],
    on_tick: OnTick,
    say: Say,
) -> opponents.Opponents:
    """The adversaries of a group, one per member: those that are kept if they are of these checkpoints, else new."""
    import jax
    import numpy as np

    name, epsilon = asked
    info = {key: about[key] for key in ("attack_steps", "against", "update")}
    info |= {"kind": name, "epsilon": epsilon, "members": len(group.keys)}
    before = opponents.kept(path, name, epsilon, group.member.folder)
    if before is not None and all(before.info.get(key) == value for key, value in info.items()):
        say(f"{_label(name, epsilon)} has learnt already")
        return before

    def one(member: Any, box: Box) -> Any:
        state, key, hyper = member
        victim = _victim(group, judge.env, state, hyper)
        return LEARNED[name](victim, judge, box, jax.random.fold_in(key, ADVERSARY))

    members, tick = (group.states, group.keys, group.hypers), _ticks(group, name, judge.steps, "steps", on_tick)
    learnt = _mapped(one, members, box, tick, LEARNING_CHUNK)
    boxes = np.broadcast_to(box.epsilon, (len(group.keys), len(box.epsilon)))
    opponents.keep(path, group.member.folder, learnt, boxes, judge.env.spec, info)
    return opponents.Opponents(path, learnt, boxes, {**info, "hidden": list(opponents.HIDDEN)})


def _run(
    group: Group,
    judge: Judge,
    name: str,
    box: Box,
    against: opponents.Opponents | None,
    episodes: int,
    on_tick: OnTick,
) -> dict[str, Any]:
    """Sums over episodes under one attack, ``[M, N]`` each; ``against`` are adversaries that have learnt."""
    import jax
    import numpy as np

    from jaxrl_reg.evaluation import attacks
    from jaxrl_reg.evaluation.returns import episode_returns

    play, make, own = episode_returns(judge.judged, episodes), HEURISTICS.get(name), None
    if against is not None:
        row = np.arange(len(group.keys)) % len(against.box)
        own = jax.tree.map(lambda leaf: leaf[row], (against.learnt, against.box))

    def one(member: Any, box: Box) -> Any:
        (state, key, hyper), own = member
        victim, made = _victim(group, judge.env, state, hyper), attacks.none
        if against is not None:
            made = opponents.put_to(against, *own, victim.mean, judge.env.spec)
        elif make is not None:
            made = make(victim, judge, box, jax.random.fold_in(key, ADVERSARY))
        return play(attacks.perturbed(victim.act, made), jax.random.fold_in(key, ATTACK))

    members = (group.states, group.keys, group.hypers), own
    return _mapped(one, members, box, _ticks(group, name, episodes, "episodes", on_tick), CHUNK)


def _ticks(group: Group, name: str, per_member: int, unit: str, on_tick: OnTick) -> Callable[[int], None]:
    """Tells of so many members that are done."""
    total, begun = len(group.keys) * per_member, time.perf_counter()

    def tick(members: int) -> None:
        done = members * per_member
        rate = done / max(time.perf_counter() - begun, 1e-9)
        on_tick(Tick(name, done, total, rate, (total - done) / max(rate, 1e-9), unit=unit))

    return tick


def _rows(
    path: pathlib.Path,
    config: JobConfig,
    group: Group,
    name: str,
    epsilon: float,
    results: Mapping[str, Any],
    about: Mapping[str, Any],
) -> list[dict[str, Any]]:
    import jax
    import numpy as np

    from jaxrl_reg.evaluation import statistics

    sums = {key: values for key, values in results.items() if key == "return" or key.startswith("reward/")}
    score = jax.jit(jax.vmap(lambda values: statistics.iqm(values[:, None])))
    scores = {key.removeprefix("reward/"): np.asarray(score(values)) for key, values in sums.items()}
    seeds, rows = seeds_of(config), []
    for m in range(len(group.keys)):
        setting, seed = divmod(m, config.seeds)
        rows.append(
            {
                "agent": group.member.name,
                "seed": seeds[seed],
                "setting": group.settings[setting],
                **{key: values[setting] for key, values in group.member.swept.items()},
                "attack": name,
                "epsilon": epsilon,
                **{key: float(values[m]) for key, values in scores.items()},
                **about,
            }
        )
    return rows


def _label(name: str, epsilon: float) -> str:
    return "without an attack" if name == NONE else f"{name}:{epsilon:g}"


def _digest(target: str | None) -> str:
    """The target as it is now: a file that has changed since is another one."""
    if target is None:
        return ""
    text = pathlib.Path(target.rpartition(":")[0]).read_bytes()
    return f"{target} {hashlib.sha256(text).hexdigest()[:12]}"


def _there(stored: pathlib.Path, name: str, epsilon: float, settings: Sequence[int], about: Mapping[str, Any]) -> bool:
    """Whether these rows were made before, by the same command of the same checkpoints."""
    from jaxrl_reg.io.sinks import read_parquet

    if not stored.exists():
        return False
    rows = read_parquet(stored)
    rows = rows[(rows["attack"] == name) & (rows["epsilon"] == epsilon) & rows["setting"].isin(settings)]
    known = (key in rows and (rows[key] == value).all() for key, value in about.items())
    return bool(len(rows)) and all(known)


def _write(stored: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows in the place of earlier ones of the same attack; those of other episodes, targets or checkpoints go."""
    need("pandas")
    import pandas as pd

    from jaxrl_reg.io.sinks import read_parquet

    frame = pd.DataFrame(rows)
    if stored.exists():
        before = read_parquet(stored)
        new = frame.iloc[0]
        same = (before["attack"] == new["attack"]) & (before["epsilon"] == new["epsilon"])
        same &= before["setting"].isin(frame["setting"])
        for key in ("episodes", "against", "update"):
            same |= before[key] != new[key]
        frame = pd.concat([before[~same], frame], ignore_index=True)
    write_parquet(stored, frame)
