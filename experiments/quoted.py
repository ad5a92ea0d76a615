"""What README and ``docs/results.md`` quote: finished runs, kept in ``docs/results``, and what there is, counted."""

from __future__ import annotations

import collections
import inspect
import json
import pathlib
import shutil
from collections.abc import Sequence

from jaxrl_reg.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results"
FILES = ("config.json", "summary.json", "table.csv", "curves.png")
UNPREPROCESSED = (
    "An older run, on observations and rewards as they are; jobs now preprocess them as the agent's paper does."
)
RESULTS, README = ROOT / "docs" / "results.md", ROOT / "README.md"
START, END = "<!-- counts -->", "<!-- /counts -->"
FAMILIES = {  # folders of agents, in the order of the site
    "offline": "agents on fixed data",
    "imitation": "imitation",
    "zero_shot": "without rewards, for any task",
    "online": "in the environment",
    "tokens": "tokens with verifiable rewards",
}


def keep(run: pathlib.Path) -> pathlib.Path:
    """Copy what is quoted of a finished run into ``docs/results``.

    Raises:
      UserError: if the run is not finished.
    """
    for name in FILES:
        if not (run / name).is_file():
            raise UserError(f"{run / name} is missing: finish the run with: jaxrl-reg resume {run}")
    folder = KEPT / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(run / name, folder / name)
    stored = json.loads((folder / "config.json").read_text())
    for place in ("cache", "platform"):  # says where it ran, not what ran
        stored["environment"].pop(place, None)
    for place in ("home", "data_dir"):
        stored["config"].pop(place, None)
    (folder / "config.json").write_text(json.dumps(stored, indent=1) + "\n")
    facts = json.loads((folder / "summary.json").read_text())
    facts["dataset"].pop("file", None)
    (folder / "summary.json").write_text(json.dumps(facts, indent=1) + "\n")
    return folder


def command(config: dict) -> str:
    """The command line that makes such a run."""
    words = [f"jaxrl-reg sweep --env {config['env']} --agent {config['agent']} --dataset {config['dataset']}"]
    for name in (
        "collect_steps",
        "collect_seed",
        "seeds",
        "seed_offset",
        "updates",
        "batch_size",
        "segments",
        "eval_episodes",
    ):
        if config.get(name) is not None:
            words.append(f"--{name.replace('_', '-')} {config[name]}")
    words.append(f"--hidden {','.join(map(str, config['hidden']))}")
    words += [f"--set {name}={value}" for name, value in config["settings"].items()]
    words += [f"--grid {name}={','.join(f'{value:g}' for value in values)}" for name, values in config["grid"].items()]
    return " ".join(words)


def section(folder: pathlib.Path) -> list[str]:
    """One run as Markdown, every number from its ``table.csv`` and ``summary.json``."""
    import pandas as pd

    config = json.loads((folder / "config.json").read_text())["config"]
    facts = json.loads((folder / "summary.json").read_text())
    table = pd.read_csv(folder / "table.csv")
    swept = list(config["grid"])

    def cell(row, name: str) -> str:
        if pd.isna(row[name]):
            return "–"
        text = f"{row[name]:.1f}"
        if f"{name}_low" in row and not pd.isna(row[f"{name}_low"]):
            text += f" [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]"
        return text

    def share(row, name: str) -> str:
        return "–" if pd.isna(row[name]) else f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"

    def apart(row, name: str) -> str:
        return "–" if pd.isna(row[name]) else ("yes" if str(row[name]) == "True" else "no")

    heads = ["agent", *swept, "score", "minus BC", "P(better than BC)", "apart from BC", "apart from behaviour"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for _, row in table.iterrows():
        settings = ["–" if pd.isna(row[name]) else f"{row[name]:g}" for name in swept]
        cells = [
            str(row["agent"]),
            *settings,
            cell(row, "last_iqm"),
            cell(row, "minus_baseline"),
            share(row, "p_better_than_baseline"),
            apart(row, "apart_from_baseline"),
            apart(row, "apart_from_behaviour"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    data = facts["dataset"]
    training = facts["training"].values()
    minutes = sum(t["trace_seconds"] + t["compile_seconds"] + t.get("train_seconds", 0.0) for t in training) / 60
    return [
        f"### {config['agent']} on {config['env']} {config['dataset']}",
        "",
        f"`{command(config)}`",
        "",
        f"{config['seeds']} seeds, {config['updates']:,} updates of batch {config['batch_size']}, hidden layers "
        f"{'x'.join(map(str, config['hidden']))}; {data['rows']:,} rows in {data['episodes']:,} episodes; training, "
        f"evaluation and compilation of {sum(t['members'] for t in training)} members took {minutes:.1f} minutes.",
        "",
        *lines,
        "",
        # Older configs say nothing of preprocessing because there was none.
        *([] if "normalise" in config else [UNPREPROCESSED, ""]),
        f"![learning curves](results/{folder.name}/curves.png)",
        "",
    ]


def results() -> str:
    """The text of ``docs/results.md``."""
    lines = [
        "# Results to hold us to",
        "",
        "Written by `python -m experiments quote`, from reports that `jaxrl-reg sweep` wrote; the folders in",
        "`docs/results` hold the settings. Score: interquartile mean over seeds of the last checkpoint with its 95%",
        "stratified-bootstrap interval; 0 = random actions, 100 = the best policy of the collecting agent, both",
        "measured in this environment. *Apart*: the two intervals do not overlap. *Behaviour*: the mean over the",
        "data's own episodes.",
        "",
    ]
    for folder in sorted(path for path in KEPT.iterdir() if path.is_dir()):
        lines += section(folder)
    return "\n".join(lines)


def public_losses() -> list[str]:
    """The names of all losses."""
    from jaxrl_reg import losses

    return sorted(name for name, value in vars(losses).items() if name[0] != "_" and inspect.isfunction(value))


def counts() -> str:
    """The README's table of what there is."""
    from experiments import systems
    from jaxrl_reg import agents, envs

    by_family = collections.Counter(agents.family(name) for name in agents.names())
    rows = [(FAMILIES.get(family, family), count, f"jaxrl_reg/agents/{family}") for family, count in by_family.items()]
    held = [stored["record"]["holds"] for _, stored in systems.read(ROOT / "experiments") if stored["record"]]
    rows += [
        ("pure losses", len(public_losses()), "jaxrl_reg/losses"),
        ("environments", len(envs.names()), "jaxrl_reg/envs"),
        ("recorded claims", f"{len(held)}, {held.count(True)} of which hold", "SYSTEMS.md"),
    ]
    lines = ["| what | how many | where |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {count} | [{where}]({where}) |" for what, count, where in rows)]) + "\n"


def rewrite(text: str) -> str:
    """The README ``text`` with what is between the markers replaced by ``counts``."""
    head, rest = text.split(START)
    return f"{head}{START}\n{counts()}{END}{rest.split(END)[1]}"


def quote(runs: Sequence[pathlib.Path]) -> None:
    """Keep the runs, rewrite the page of results and the README's counts."""
    for run in runs:
        print(f"kept {keep(run).relative_to(ROOT)}")
    RESULTS.write_text(results(), encoding="utf-8")
    recount()


def recount() -> None:
    """Rewrite the README's counts."""
    README.write_text(rewrite(README.read_text(encoding="utf-8")), encoding="utf-8")
