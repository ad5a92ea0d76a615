"""What is on the pages that are written from the code. Markdown in, nothing of MkDocs: a test reads it without."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import pathlib
import pkgutil
import re

from experiments import systems
from experiments.harness import finding
from experiments.quoted import FAMILIES, public_losses
from jaxrl_reg import agents, losses

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
AT_ROOT = {"systems.md": "SYSTEMS.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
# Pages of tasks, in the order in which people come to need them: steps; the pages beside guide/ have the reasons.
TASKS = (
    "guide/first_sweep.md",
    "guide/borrow_a_loss.md",
    "guide/own_data.md",
    "guide/own_agent.md",
    "guide/own_environment.md",
    "guide/own_reward.md",
    "guide/search_settings.md",
    "guide/zero_shot.md",
    "guide/levels.md",
    "guide/attacks.md",
    "guide/goals.md",
    "guide/fine_tune.md",
    "guide/deploy.md",
    "guide/accelerator.md",
    "guide/cluster.md",
    "guide/reproduce.md",
)
TARGETS = {"h100": "H100", "tpu-v5e": "TPU v5e"}


def pages_in(folder: str = "") -> list[str]:
    """Markdown files of ``docs/folder``, by name."""
    return sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / folder).glob("*.md"))


def navigation() -> list:
    """MkDocs' ``nav``: every page has its place."""
    elsewhere = ("index", "architecture", "contract", "stable", "benchmark", "accelerators", "populations", "results")
    topics = [page for page in pages_in() if page.removesuffix(".md") not in elsewhere]
    by_family = [
        {title: [f"agents/{name}.md" for name in agents.names() if agents.family(name) == family]}
        for family, title in known_families().items()
    ]
    return [
        {"Start": "index.md"},
        {"Tasks": list(TASKS)},
        {"Topics": topics},
        {"Agents": ["agents/index.md", *by_family]},
        {"Losses": ["losses/index.md", *(f"losses/{name}.md" for name in loss_modules())]},
        {
            "Evidence": [
                *("systems.md", "results.md", "comparison/comparison.md"),
                *("benchmark.md", "accelerators.md", "populations.md"),
            ]
        },
        {"Inside": ["architecture.md", "contract.md", "stable.md", "contributing.md", "changelog.md"]},
    ]


def known_families() -> dict[str, str]:
    """Folders of agents with their titles; a new folder is shown under its own name."""
    found = dict.fromkeys(agents.family(name) for name in agents.names())
    return {name: FAMILIES.get(name, name).capitalize() for name in sorted(found, key=_place)}


def _place(family: str) -> tuple[int, str]:
    order = list(FAMILIES)
    return (order.index(family) if family in order else len(order), family)


def loss_modules() -> list[str]:
    """Modules of ``losses`` that export something."""
    homes = {inspect.getmodule(getattr(losses, name)) for name in public_losses()}
    known = {m.name for m in pkgutil.iter_modules(losses.__path__)}
    return sorted({home.__name__.rsplit(".", 1)[-1] for home in homes if home} & known)


def written() -> dict[str, str]:
    """Every page that is written from the code, by its place on the site."""
    found = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in AT_ROOT.items()}
    found |= {f"agents/{name}.md": agent_page(name) for name in agents.names()}
    found |= {f"losses/{name}.md": losses_page(name) for name in loss_modules()}
    return {**found, "agents/index.md": agents_index(), "losses/index.md": losses_index()}


def pictures() -> dict[str, pathlib.Path]:
    """Figures that lie outside ``docs``, by their place on the site."""
    return {f"figures/{path.name}": path for path in sorted((ROOT / "experiments").glob("*/results/*.png"))}


def cell(text: object) -> str:
    """``text`` within a table; between backticks all stays as it is."""
    parts = re.split(r"(`[^`]*`)", re.sub(r"\s+", " ", str(text)))
    return "".join(part if part.startswith("`") else part.replace("|", "&#124;").replace("<", "&lt;") for part in parts)


def table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(str(value) for value in row)} |" for row in rows)]) + "\n"


def literal(text: str) -> str:
    """A docstring as Markdown: names in two backticks become code, ``*`` and ``_`` stay what they are."""
    parts = re.split(r"(``.*?``)", text, flags=re.S)
    return "".join(
        "`" + part.strip("`") + "`" if part.startswith("``") else re.sub(r"([*_<])", r"\\\1", part) for part in parts
    )


def settings(cls: type) -> list[tuple]:
    return [
        (f"`{f.name}`", f"`{f.default}`", cell(literal(f.metadata.get("help", "")))) for f in dataclasses.fields(cls)
    ]


@functools.cache
def measured() -> dict[str, dict]:
    """What the page of accelerators found, by ``"h100 1 iql"``."""
    return json.loads((DOCS / "accelerators.json").read_text(encoding="utf-8"))


@functools.cache
def evidence() -> list[tuple[str, pathlib.Path, dict]]:
    """Experiments with their results: family, file, what is stored."""
    return [(path.parents[1].name, path, stored) for path, stored in systems.read(ROOT / "experiments")]


def experiments_of(name: str) -> list[tuple[pathlib.Path, dict]]:
    """Experiments that bear an agent's name, rest on its paper, or load it."""
    module = agents.load(name)
    word = re.compile(rf"agents import [^\n]*\b{name}\b|agents\.{name}\b|Arm\(\s*\"{name}\"")
    found = []
    for family, path, stored in evidence():
        source = (finding.FOLDER / family / f"{stored['name']}.py").read_text(encoding="utf-8")
        same_paper = systems.claim_of(stored)["paper"] == module.PAPER.url
        if stored["name"].split("_")[0] == name or stored["name"] == name or same_paper or word.search(source):
            found.append((path, stored))
    return found


def agent_page(name: str) -> str:
    """One agent: what it does, where from, settings, evidence, what it costs on an accelerator, its reference."""
    module = agents.load(name)
    paper, protocol = module.PAPER, getattr(module, "PROTOCOL", None)
    summary, _, rest = inspect.cleandoc(module.__doc__).partition("\n\n")
    lines = [f"# {name}", "", literal(summary), "", literal(rest), ""]
    lines += [f"**Paper.** [{paper.title}]({paper.url}), {paper.authors}, {paper.year}.", ""]
    if paper.deviations:
        lines += [f"**What differs from the paper.** {literal(paper.deviations)}", ""]
    if protocol is not None and protocol.note:
        lines += [f"**Protocol.** {literal(protocol.note)}", ""]
    lines += ["```", f"jaxrl-reg list hyperparameters {name}", "```", ""]
    head = ("setting", "default", "meaning")
    if static := settings(module.Config):
        lines += [
            "## Settings of the program",
            "",
            "Fixed while it compiles; `--grid` makes a group of each value.",
            "",
        ]
        lines += [table(head, static)]
    if traced := settings(module.Hyper):
        lines += ["## Hyperparameters", "", "Traced: a population sweeps them in one program.", "", table(head, traced)]
    lines += ["## Evidence", ""]
    found = experiments_of(name)
    for path, stored in found:
        claim = systems.claim_of(stored)
        lines += [f"### {stored['name']}", "", cell(literal(claim["statement"])) + ".", ""]
        metric = claim["metric"][:1].upper() + claim["metric"][1:]
        lines += [f"{metric}; {systems.verdict(stored)}. {systems.command(stored)}", ""]
        if (picture := path.with_suffix(".png")).exists():
            lines += [f"![{stored['name']}](../figures/{picture.name})", ""]
    if not found:
        lines += ["No experiment of its own; the contract suite and the tests of its losses hold it.", ""]
    return "\n".join([*lines, *compiled(name), *reference(name)])


def compiled(name: str) -> list[str]:
    """The rows of ``accelerators.md`` for one agent."""
    rows = []
    for key, title in TARGETS.items():
        for members in (1, 64):
            if (one := measured().get(f"{key} {members} {name}")) is None:
                rows.append((title, members, "not tried yet", "", "", ""))
            elif one["error"]:
                rows.append((title, members, f"no: {cell(one['error'])}", "", "", ""))
            else:
                launches = "" if one["launches"] is None else f"{one['launches']:.0f}"
                speed = f"{one['updates_per_second']:,.0f}" if one.get("updates_per_second") else ""
                of = members if one["chunk"] == members else f"{one['chunk']} of {members}"
                rows.append((title, of, "yes", launches, f"{one['fit']:,}" if one.get("fit") else "", speed))
    head = (
        "for",
        "members side by side",
        "compiles",
        "launches per update",
        "members that fit",
        "updates per second of all side by side, estimated",
    )
    return ["## On an accelerator", "", table(head, rows), "How: [accelerators](../accelerators.md).", ""]


def reference(name: str) -> list[str]:
    path = f"jaxrl_reg.agents.{agents.family(name)}.{name}"
    return ["## Reference", "", f"::: {path}.make", "    options:", "      heading_level: 3", ""]


def agents_index() -> str:
    lines = ["# Agents", "", "Each is a file of two screens; what they share is written once.", ""]
    for family, title in known_families().items():
        rows = []
        for name in agents.names():
            if agents.family(name) == family:
                module = agents.load(name)
                first = inspect.cleandoc(module.__doc__).partition("\n\n")[0]
                rows.append((f"[{name}]({name}.md)", cell(literal(first)), module.PAPER.year))
        lines += [f"## {title}", "", table(("agent", "what it is", "year"), rows)]
    return "\n".join(lines)


def first_line(function: object) -> str:
    return inspect.cleandoc(getattr(function, "__doc__", "") or "").partition("\n\n")[0]


def losses_of(module: str) -> list[str]:
    home = f"{losses.__name__}.{module}"
    return [name for name in public_losses() if getattr(losses, name).__module__ == home]


def losses_page(module: str) -> str:
    """One family of losses: all its functions side by side, then each."""
    doc = inspect.cleandoc(inspect.getmodule(getattr(losses, losses_of(module)[0])).__doc__ or "")
    summary, _, rest = doc.partition("\n\n")
    rows = [
        (f"[`{name}`](#jaxrl_reg.losses.{name})", cell(literal(first_line(getattr(losses, name)))))
        for name in losses_of(module)
    ]
    lines = [f"# {module.replace('_', ' ').capitalize()}", "", literal(summary), "", literal(rest), ""]
    lines += [table(("function", "what it is"), rows)]
    for name in losses_of(module):
        lines += [f"::: jaxrl_reg.losses.{name}", ""]
    return "\n".join(lines)


def losses_index() -> str:
    lines = ["# Losses", "", literal(inspect.cleandoc(losses.__doc__ or "")), "", "All are in `jaxrl_reg.losses`.", ""]
    rows = [
        (f"[{module.replace('_', ' ')}]({module}.md)", ", ".join(f"`{name}`" for name in losses_of(module)))
        for module in loss_modules()
    ]
    return "\n".join([*lines, table(("family", "functions"), rows)])
