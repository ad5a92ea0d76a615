"""Token policies on verified rewards: a population that is warmed up on right answers, then learns from its own."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs.job import Axis, Job, Keep, Score, Show, greedy
from jaxrl_reg.jobs.kinds.online import nearest_divisor
from jaxrl_reg.jobs.learners import Learner, env_settings, learner, learners
from jaxrl_reg.jobs.settings import SCALES, JobConfig, option

if TYPE_CHECKING:
    from jaxrl_reg.types import Agent, PyTree, Run, TokenTask

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "updates": 300,
        "prompts": 16,
        "group": 8,
        "warm_up": 80,
        "warm_up_batch": 64,
        "samples": 4,
        "eval_episodes": 128,
        "hidden": (32, 32),
    },
    "full": {
        "updates": 2_000,
        "prompts": 32,
        "group": 16,
        "warm_up": 250,
        "warm_up_batch": 128,
        "samples": 8,
        "eval_episodes": 512,
    },
}
WARM_START = "warm start"  # the rival: each member as the supervised steps left it
SHOWN = 12  # prompts in the report
HEADS = {"before": "before training", "after": "after training", "second": "asked again"}


@dataclasses.dataclass(frozen=True)
class TokensConfig(JobConfig):
    """A whole sweep of a token agent on a task that verifies its completions. A number that is None is as ``scale``
    says (see ``SIZES``). Episodes are prompts here: ``eval_episodes`` of them are answered at every evaluation."""

    kind: ClassVar[str] = "tokens"
    counts: ClassVar[tuple[str, ...]] = (
        *JobConfig.counts,
        *("updates", "prompts", "group", "warm_up_batch", "samples", "oversample"),
    )
    trials: ClassVar[str] = "prompts"

    env: str = option("tokens/reverse", "task of tokens, see 'jaxrl-reg list envs', or one of yours: mine.py")
    agent: str = option("grpo", "agent of kind tokens, see 'jaxrl-reg list agents', or one of yours")
    updates: int = option(None, "calls of the agent's update per member, each on fresh completions")
    prompts: int = option(None, "prompts in a batch")
    group: int = option(None, "completions of each prompt, which are each other's baseline")
    warm_up: int = option(None, "supervised steps on right answers first; 0: none")
    warm_up_batch: int = option(None, "prompts in each of them")
    samples: int = option(None, "sampled completions per prompt at an evaluation, for pass@k and majority@k")
    oversample: int = option(
        None, "so many times the prompts are sampled, and groups whose rewards differ kept first [dapo: 2, else 1]"
    )

    def presets(self) -> Mapping[str, Any]:
        from jaxrl_reg import agents

        own = getattr(agents.load(self.agent), "OVERSAMPLE", 1)
        return {**SCALES[self.scale], "hidden": None, **SIZES[self.scale], "oversample": own}

    def length(self) -> int:
        return self.updates

    def check(self) -> None:
        if self.warm_up < 0:
            raise UserError(f"warm_up={self.warm_up} must not be negative")
        if self.group < 2:
            raise UserError(f"group={self.group} leaves a completion without others to compare with; take at least 2")
        if self.updates % self.segments:
            near = max(1, round(self.updates / self.segments)) * self.segments
            raise UserError(
                f"updates={self.updates} is not a multiple of segments={self.segments}; nearest: --updates {near}, or "
                f"keep it with --segments {nearest_divisor(self.updates, self.segments)}"
            )


Config = TokensConfig
WORDS = "training on verified completions"
PRESETS = {scale: {**SCALES[scale], **SIZES[scale]} for scale in SCALES}


def make_task(config: TokensConfig) -> TokenTask:
    """The task of a config.

    Raises:
      UserError: for an unknown task, an environment that is none, or one whose physics are asked for.
    """
    from jaxrl_reg import envs
    from jaxrl_reg.types import TokenTask

    if config.backend is not None:
        raise UserError("--backend is the physics of a Brax environment; a task of tokens has none")
    task = envs.make(config.env, **env_settings(config))
    if not isinstance(task, TokenTask):
        raise UserError(
            f"{config.agent} answers prompts, which {config.env} does not ask; name a task of tokens, such as "
            "--env tokens/reverse"
        )
    return task


def make(config: TokensConfig) -> Job:
    """The job of a config; its rival is each member as the warm start left it.

    Raises:
      UserError: for a config that cannot be run, or an agent that is not of tokens.
    """
    from jaxrl_reg import agents

    kind = agents.load(config.agent).KIND
    if kind != "tokens":
        raise UserError(f"agent {config.agent!r} is of kind {kind} and answers no prompts; take one such as grpo")
    task = make_task(config)
    students = learners(config.agent, config, spec=task.spec)
    for student in students:
        run_of(student, config, task)  # wrong settings show here
    turns = students[0].make(students[0].config, task.spec).turns
    rivals = [_warm_start(config, task)] if config.warm_up else []
    return Job(
        learners=students,
        rivals=rivals,
        world=task,
        run=lambda member, episodes: run_of(member, config, task, episodes),
        axis=Axis("updates", "update", config.updates // config.segments),
        budget=lambda member: _budget(member, config),
        # Of completions that are drawn: the greedy ones may all be right after the warm start already.
        score=Score(
            "eval/sampled" if turns == 1 else "eval/second/sampled",
            "verified reward" if turns == 1 else "second verified reward",
            WARM_START if rivals else None,
            "The warm start",
        ),
        keep=greedy(task.spec),
        show=samples_of(task, f"{config.agent} on {config.where}", turns),
        exhibit="The best run: prompts and what it answers",
    )


def reopen(config: TokensConfig, facts: Mapping[str, Any]) -> Job:
    """The job of a run that was trained."""
    return make(config)


def run_of(member: Learner, config: TokensConfig, task: TokenTask, episodes: int | None = None) -> tuple[Agent, Run]:
    """The agent for this task and its run, evaluated on ``episodes`` prompts; of the warm start, without training."""
    from jaxrl_reg.evaluation import tokens
    from jaxrl_reg.loops.rlvr import rlvr

    agent = member.make(member.config, task.spec)
    episodes = config.eval_episodes if episodes is None else episodes
    run = rlvr(
        agent,
        task,
        updates=config.updates,
        prompts=config.prompts,
        group=config.group,
        segments=config.segments,
        warm_up=config.warm_up,
        warm_up_batch=config.warm_up_batch,
        oversample=config.oversample,
        evaluate=tokens.evaluator(task, episodes, config.samples, agent.turns),
    )
    if member.name == WARM_START:
        run = dataclasses.replace(run, train=_stays)
    return agent, run


def _budget(member: Learner, config: TokensConfig) -> str:
    lessons = f"{config.warm_up:,} supervised steps"
    if member.name == WARM_START:
        return lessons
    updates = f"{config.updates:,} updates of {config.prompts} prompts x {config.group} completions"
    return f"{updates}, after {lessons}" if config.warm_up else updates


def _stays(state: PyTree, index: Any, key: Any, hyper: Any, data: Any = None) -> tuple[PyTree, dict[str, Any]]:
    return state, {}


def _warm_start(config: TokensConfig, task: TokenTask) -> Learner:
    """The agent as it is before its first update; where settings of it are swept, with what is not."""
    alone = dataclasses.replace(config, grid={}, sample={}, evolve=False, early_stop=None)
    name = WARM_START.replace(" ", "-")
    return learner(config.agent, alone, spec=task.spec)._replace(name=WARM_START, label=WARM_START, folder=name)


def samples_of(task: TokenTask, title: str, turns: int = 1) -> Show:
    """``Job.show``: a page of prompts, what the best member answers greedily, and what it answered after the warm
    start, where its state has that as ``reference``; with two turns also its second answer, to its first one; and the
    same as ``samples.json``."""

    def show(keep: Keep, state: PyTree, hyper: PyTree, key: Any) -> Mapping[str, str]:
        import jax

        prompt = jax.jit(jax.vmap(task.draw))(jax.random.split(key, SHOWN))

        @jax.jit
        def answer(state: PyTree, hyper: PyTree, asked: Any) -> tuple[Any, Any]:
            policy = keep(state, hyper)
            completion, _ = policy.step(policy.start((SHOWN,)), asked, 0.0, key)
            return completion, jax.vmap(task.verify)(prompt, completion)

        answers = {"after": answer(state, hyper, prompt)}
        if turns == 2:
            assert task.follow is not None
            again = jax.jit(jax.vmap(task.follow))(prompt, answers["after"][0])
            answers["second"] = answer(state, hyper, again)
        if hasattr(state, "reference") and hasattr(state, "model"):
            before = state._replace(model=state.model._replace(params=state.reference))
            answers = {"before": answer(before, hyper, prompt), **answers}
        answers = {when: jax.device_get(answers[when]) for when in answers}
        rows = [
            {
                "prompt": task.decode(one),
                **{
                    when: {"completion": task.decode(completion[i]), "reward": float(reward[i])}
                    for when, (completion, reward) in answers.items()
                },
            }
            for i, one in enumerate(jax.device_get(prompt))
        ]
        return {"episode.html": page_of(rows, title), "samples.json": json.dumps(rows, indent=1)}

    return show


def page_of(rows: list[dict[str, Any]], title: str) -> str:
    """A table of samples as a self-contained page."""
    whens = [name for name in HEADS if name in rows[0]]
    head = "".join(f"<th>{HEADS[when]}</th><th>reward</th>" for when in whens)

    def cells(row: Mapping[str, Any]) -> str:
        found = f"<td>{html.escape(row['prompt'])}</td>"
        for when in whens:
            reward = row[when]["reward"]
            mark = "right" if reward >= 1.0 else "wrong"
            found += f'<td>{html.escape(row[when]["completion"])}</td><td class="{mark}">{reward:g}</td>'
        return found

    body = "\n".join(f"<tr>{cells(row)}</tr>" for row in rows)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 1rem; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .2rem .8rem; border-bottom: 1px solid #8884; }}
td {{ font-family: ui-monospace, monospace; }}
.right {{ color: #188038; }} .wrong {{ color: #c5221f; }}
</style></head><body><p>{html.escape(title)}: greedy completions</p>
<table><thead><tr><th>prompt</th>{head}</tr></thead><tbody>
{body}
</tbody></table></body></html>
"""
