"""What was run, on what data, where and for how long: the lists at the end of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_reg.evaluation.report.words import decimals, number, seconds, text_of


def facts_of(
    stored: Mapping[str, Any], facts: Mapping[str, Any], swept: Sequence[str], axis: str
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of names and values for the end of the page; ``axis`` is what the run counts, in words."""
    environment = stored["environment"]
    data = data_facts(facts["dataset"]) if "dataset" in facts else []
    clock = [(name, seconds(value)) for name, value in facts.get("wall", {}).items()]
    for name, known in facts.get("training", {}).items():
        clock += [
            (f"{name}: plan", known["plan"]),
            (f"{name}: trained parameters per member", f"{known['parameters']:,}"),
            (f"{name}: tracing, compiling", f"{seconds(known['trace_seconds'])}, {seconds(known['compile_seconds'])}"),
        ]
        if "train_seconds" in known:
            speed = known.get("per_second", known["updates_per_second"])
            rate = f"{speed:,.0f} {axis} per second, all members together"
            clock.append((f"{name}: training and evaluating", f"{seconds(known['train_seconds'])} ({rate})"))
    hypers = {name: values[0] for name, values in stored["hypers"].items() if name not in swept}
    settings = [(name, text_of(value)) for name, value in stored["config"].items() if value not in (None, {}, False)]
    machine = [
        (name, text_of(environment[name])) for name in ("devices", "cores", "platform", "xla_flags", "precision")
    ]
    own = [(name, text_of(value)) for name, value in stored["agent_config"].items()]
    return [
        ("Run", settings),
        (f"Settings of {stored['config']['agent']}", own),
        ("Hyperparameters that were not swept", [(name, text_of(value)) for name, value in hypers.items()]),
        ("Data", data),
        ("Wall clock", clock),
        ("Versions", [*environment["versions"].items(), ("commit", environment["commit"] or "not a git checkout")]),
        ("Machine", machine),
    ]


def data_facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A data set in names and values."""
    returns = np.asarray(about["returns"], float)
    data = [
        ("name", about["name"]),
        ("file", about["file"]),
        ("rows", f"{about['rows']:,}"),
        ("episodes", f"{about['episodes']:,}"),
        ("observation, action", f"{about['observation']}, {about['action']}"),
        ("of them cut short, and not counted below", f"{about['cut_episodes']:,}"),
        ("rows that end in a terminal state", f"{100 * about['terminal_fraction']:.2f}%"),
        *(("trained on", f"{name}: {words}") for name, words in about.get("preprocessing", {}).items()),
        *(("note", note) for note in about.get("notes", ())),
    ]
    if not returns.size:
        return [*data, ("rewards", "not known")]
    places = decimals(returns)
    quartiles = np.quantile(returns, [0.25, 0.5, 0.75])
    data += [
        ("return of an episode, mean", number(returns.mean(), places)),
        ("return, least to greatest", f"{number(returns.min(), places)} to {number(returns.max(), places)}"),
        ("return, quartiles", ", ".join(number(value, places) for value in quartiles)),
    ]
    if about["normalised"]:
        low, high = (number(about[name], places) for name in ("score_random", "score_expert"))
        data.append(
            ("score 0 and 100 are returns of", f"{low} (random) and {high} (expert), measured in this environment")
        )
    return data
