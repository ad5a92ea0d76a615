"""The finding in a few sentences."""

from __future__ import annotations

from jaxrl_reg.evaluation.report.analysis import Analysis
from jaxrl_reg.evaluation.report.words import decimals, interval, number


def verdict(analysis: Analysis) -> list[str]:
    """The finding in a few sentences."""
    best = analysis.groups[analysis.order[0]]
    places = places_of(analysis)
    name = f"{analysis.agent} with {best.label}" if best.hypers else analysis.agent
    runs = f"{len(best.scores)} runs" if len(best.scores) > 1 else "a single run"
    sentences = [
        f"{name} reaches a {analysis.score} of {number(best.last.value, places)} {interval(best.last, places)} "
        f"after {int(best.updates[-1]):,} {analysis.judged.axis} (interquartile mean of {runs})."
    ]
    i = analysis.order[0]
    difference = analysis.minus_baseline[i]
    if analysis.baseline is not None and difference is not None:
        other = analysis.baseline
        apart = best.last.apart(other.last)
        sentences.append(
            f"{analysis.judged.words} reaches {number(other.last.value, places)} {interval(other.last, places)}: "
            f"a difference of {number(difference.value, places, sign=True)} {interval(difference, places)}, "
            f"intervals {'apart' if apart else 'overlapping'}."
        )
    against = analysis.minus_behaviour[i]
    if analysis.behaviour is not None and against is not None:
        apart = best.last.apart(analysis.behaviour)
        sentences.append(
            f"The policy that made the data scores {number(analysis.behaviour.value, places)}: "
            f"{number(against.value, places, sign=True)} {interval(against, places)}, "
            f"intervals {'apart' if apart else 'overlapping'}."
        )
    whole = [analysis.groups[i] for i in analysis.order if not analysis.stopped(i)]
    if len(whole) > 1:
        worst = whole[-1]
        sentences.append(
            f"The setting that does worst, {worst.label}, reaches {number(worst.last.value, places)} "
            f"{interval(worst.last, places)}, intervals {'apart' if best.last.apart(worst.last) else 'overlapping'}."
        )
    diverged = sum(group.diverged for group in analysis.groups)
    if diverged:
        count = sum(len(group.scores) for group in analysis.groups)
        sentences.append(f"{diverged} of {count} runs diverged; each counts as the lowest finite score of this page.")
    if len(analysis.groups) > 1:
        sentences.append(
            f"This setting is the best of {len(analysis.groups)}, chosen on these very runs, so its number flatters: "
            "train it again on seeds not used here (--seed-offset) before quoting it."
        )
    return sentences


def places_of(analysis: Analysis) -> int:
    """How many decimals the scores of a run are told with."""
    groups = [*analysis.groups, *([analysis.baseline] if analysis.baseline else [])]
    behaviour = [analysis.behaviour.value] if analysis.behaviour else []
    return decimals([*behaviour, *(group.last.value for group in groups)])
