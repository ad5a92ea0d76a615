"""What is done to data before training: as each agent's paper does it or as asked, kept in the run for acting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, unknown

if TYPE_CHECKING:
    from jaxrl_reg.data import Preprocessing
    from jaxrl_reg.jobs.job import Job
    from jaxrl_reg.jobs.learners import Learner
    from jaxrl_reg.types import Agent, Dataset, Protocol

NORMALISE = {"auto": None, "on": True, "off": False}


def protocol(agent: str) -> Protocol:
    """What the paper of an agent does to data; nothing where its module does not say."""
    from jaxrl_reg import agents
    from jaxrl_reg.types import Protocol

    return getattr(agents.load(agent), "PROTOCOL", Protocol())


def published(agent: str) -> dict[str, int]:
    """The budget of an agent's own paper: ``updates`` and ``batch_size``, where it names them."""
    found = protocol(agent)
    return {name: value for name in ("updates", "batch_size") if (value := getattr(found, name)) is not None}


def described(agent: str) -> str:
    """What the paper of an agent does to data, and for how long it trains, in words; "" where its module names
    nothing."""
    found, words = protocol(agent), []
    if found.normalise:
        words.append("observations standardised")
    if found.reward_scale == "returns":
        words.append("rewards times 1000 over the range of returns")
    if found.sparse is not None:
        scale, shift = found.sparse
        words.append(f"rewards of 0 and 1 at a goal become {shift:g} and {scale + shift:g}")
    numbers = ((found.updates, "{:,} updates"), (found.batch_size, "batches of {:,} rows"))
    words += [text.format(number) for number, text in numbers if number is not None]
    return "; ".join(filter(None, [", ".join(words), found.note]))


def check(normalise: str, reward_scale: str | None) -> None:
    """Raises ``UserError`` for what ``--normalise`` and ``--reward-scale`` do not take."""
    from jaxrl_reg.data.normalisation import reward_factor

    if normalise not in NORMALISE:
        raise unknown("value of --normalise", normalise, NORMALISE)
    if reward_scale not in (None, "returns"):
        reward_factor(reward_scale)


def fitted(job: Job, config: Any) -> Job:
    """The job whose learners and rivals train on data preprocessed each in its own way, and act on raw observations."""
    from jaxrl_reg.data import describe_preprocessing, fit_preprocessing

    done: dict[str, Preprocessing] = {}
    for member in (*job.learners, *job.rivals):
        if member.name not in done:
            done[member.name] = fit_preprocessing(
                job.data,
                protocol(member.name),
                normalise=NORMALISE[config.normalise],
                reward_scale=config.reward_scale,
            )
    words = {name: text for name, one in done.items() if (text := describe_preprocessing(one))}
    said = [f"{name} is trained on {text}; its scores are of the environment's own" for name, text in words.items()]
    about = {**job.about, "preprocessing": words}
    return applied(job, done)._replace(about=about, lines=[*job.lines, *said])


def applied(job: Job, done: Mapping[str, Preprocessing]) -> Job:
    """The job whose agents preprocess, by the name of the agent, and say so in the facts of the run."""
    learners = [wrapped(member, done.get(member.name)) for member in job.learners]
    rivals = [wrapped(member, done.get(member.name)) for member in job.rivals]
    return job._replace(learners=learners, rivals=rivals, preprocessing=dict(done))


def wrapped(member: Learner, done: Preprocessing | None) -> Learner:
    """A learner whose agents take raw observations and a raw data set."""
    from jaxrl_reg.data import describe_preprocessing, on_raw

    if done is None or not describe_preprocessing(done):
        return member
    make = member.make

    def made(config: Any, spec: Any) -> Agent:
        return on_raw(make(config, spec), done)

    return member._replace(make=made)


def facts_of(done: Mapping[str, Preprocessing]) -> dict[str, dict[str, Any]]:
    """The statistics by the name of the agent, for ``summary.json``."""
    from jaxrl_reg.data import preprocessing_to_json

    return {name: preprocessing_to_json(one) for name, one in done.items()}


def known(facts: Mapping[str, Any]) -> dict[str, Preprocessing]:
    """What ``facts_of`` put into the ``summary.json`` of a run; empty for a run without."""
    from jaxrl_reg.data import preprocessing_from_json

    stored = facts.get("preprocessing", {})
    if not isinstance(stored, Mapping):
        raise UserError("the summary.json of the run is damaged: its preprocessing is no object")
    try:
        return {name: preprocessing_from_json(one) for name, one in stored.items()}
    except UserError as error:
        raise UserError(f"the summary.json of the run is damaged: {error}") from None


def without_rewards(agent: str, data: Dataset, file: str) -> list[str]:
    """What is said where the rewards of the data are not known.

    Raises:
      UserError: if the agent learns from them.
    """
    from jaxrl_reg import agents

    if data.rewarded:
        return []
    named = getattr(agents.load(agent), "PROTOCOL", None)
    if named is not None and named.rewards:
        blind = [name for name in agents.names() if agents.load(name).KIND == "offline" and not protocol(name).rewards]
        raise UserError(
            f"{file} has no rewards, and {agent} learns from them; add them to the file, or choose an agent that "
            f"learns without rewards: {', '.join(blind)}"
        )
    if named is None:
        return [f"no rewards are known: wherever {agent} looks at one, it is 0"]
    return []
