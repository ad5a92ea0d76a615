"""What is said of a run before and after its training, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxrl_reg.jobs.job import Job
from jaxrl_reg.jobs.learners import Learner
from jaxrl_reg.jobs.settings import JobConfig

if TYPE_CHECKING:
    from jaxrl_reg.population import Result
    from jaxrl_reg.types import Run


def of_stopped(stage: str, run: Run, result: Result) -> str:
    """How much of a sweep a stopping rule let train."""
    done = result.segments_trained
    return (
        f"{stage}: {int((done < run.segments).sum())} of {done.size} settings stopped early; "
        f"{done.sum() / (done.size * run.segments):.0%} of the updates of the whole sweep"
    )


def of_members(member: Learner, job: Job, run: Run, config: JobConfig, count: int) -> str:
    """What one program trains, ``count`` parameters a member."""
    from jaxrl_reg import population

    settings = population.setting_count(member.hypers)
    what = f"{config.seeds} seeds"
    if member.swept:
        what = f"{settings} settings of {', '.join(member.swept)} x {what}"
    judged = f"{run.segments} evaluations of {config.eval_episodes} {config.trials}"
    if run.evaluate is None and run.judge is None:
        judged = "nothing is rolled out"
    return (
        f"{member.label}: {settings * config.seeds} members = {what}, {count:,} parameters each; "
        f"{job.budget(member)}, {judged}"
    )


def of_groups(job: Job, config: JobConfig) -> list[str]:
    """What every program of a sweep will take, before the first one is compiled."""
    from jaxrl_reg import population

    lines, compilations, most = [], 0, 0
    for member in job.learners:
        _, run = job.run(member, None)
        plan = population.outline(
            run,
            seeds=config.seeds,
            hypers=member.hypers,
            data=job.data,
            placement=config.placement,
            chunk=config.chunk,
        )
        lines.append(f"  {member.label}: {plan}, temporaries apart")
        compilations, most = compilations + plan.compilations, max(most, plan.total_bytes)
    head = (
        f"{len(job.learners)} programs one after the other, {compilations} compilations in all, at most "
        f"{population.megabytes(most)} per device at a time:"
    )
    return [head, *lines]
