"""The family of published systems and where each stands; ``SYSTEMS.md`` is written from this list and the results."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

from experiments.harness import finding

# Number, system, what it becomes here. "(core)" means only the part that transfers to this framework.
SYSTEMS: tuple[tuple[int, str, str], ...] = (
    (1, "BREEZE (robust zero-shot RL)", "agent family: FB, VC/MC-FB, HILP, SF-Lap, GC-IQL, BREEZE"),
    (2, "AlignGuard-LoRA", "optax transform: Fisher split + collision terms"),
    (3, "ODICE", "agent + orthogonal-gradient transform"),
    (4, "Demonstration-Regularized RL", "tabular/linear agent, KL to cloned policy"),
    (5, "Policy Gradient-Driven Noise Mask", "learned input-noise regulariser"),
    (6, "BehaveGPT", "DRO objective for imbalanced behaviour sequences (core)"),
    (7, "Large Content and Behavior Models", "behaviour-token sequence model (core: joint content/behaviour loss)"),
    (8, "Early-Learning Regularization", "loss for noisy demonstrations"),
    (9, "A2PR", "agent"),
    (10, "Metacognitive Reuse", "behaviour-conditioned training on token tasks"),
    (11, "Decision Mamba", "agent + self-evolution loss (+ DT)"),
    (12, "Neuroformer", "multimodal autoregressive model of spikes+behaviour (core)"),
    (13, "Prior Prompt Engineering for RFT", "prompt-conditioned RFT on token tasks"),
    (14, "PRDC", "agent, device nearest-neighbour"),
    (15, "CREAM", "preference loss"),
    (16, "TimeX", "policy explanation over a trajectory"),
    (17, "Policy-Guided Diffusion", "data generator for any offline agent"),
    (18, "To grok or not to grok", "experiment + pruning metric"),
    (19, "Rep4Ex", "linear-invariance representation loss"),
    (20, "SCoRe", "two-turn RL loss"),
    (21, "DeconfoundLM", "confounder-removed reward"),
    (22, "Correlated Proxies (ORPO)", "online agent, chi-square occupancy"),
    (23, "BESO", "goal-conditioned score policy"),
    (24, "Lp-Reg", "policy-gradient regulariser"),
    (25, "Tell me about yourself", "analysis paper: probe of self-report on a small policy (core)"),
    (26, "High-dimensional dynamics of generalization", "exact linear dynamics, early-stopping tool (core)"),
    (27, "Model Surgery", "probe + parameter edit"),
    (28, "BEER", "critic regulariser"),
    (29, "DRED", "level design"),
    (30, "Systematic Neural Search", "search agent"),
    (31, "Inexact bilevel hyperparameter learning (MAID)", "hypergradient optimiser"),
    (32, "Power-law rehearsal", "sampling schedule"),
    (33, "VPT", "IDM, cloning, KL-anchored RL"),
    (34, "Behavior Retrieval", "data curation"),
    (35, "SDIM", "hash-sampled attention over long histories (core)"),
    (36, "RPO (SFT loss as adversarial regulariser)", "preference loss"),
    (37, "RRPO", "preference loss"),
    (38, "SIREN", "selective entropy regulariser"),
    (39, "Rehearsal-free continual learning", "L2/EWC/KD regularisers"),
    (40, "Outcome-invariant augmentation (IVL)", "IV-like regression regulariser"),
    (41, "R^3 relevance reward", "reward mixing"),
    (42, "R0 (rewards are enough)", "reward-regularised one-step generator"),
    (43, "OVOR", "virtual-outlier loss"),
    (44, "3D-Properties of DPO", "preference regularisers"),
    (45, "MLLM-CTBench", "continual-tuning protocol: RFT+KL vs SFT (core)"),
    (46, "Principled representation from videos", "representation losses + exogenous-noise env"),
    (47, "Random Teachers", "distillation experiment"),
    (48, "BM-MAE", "masked modelling with missing modalities (core: missing sensors)"),
    (49, "AI Agent Behavioral Science", "survey: measures of conduct of our own, evaluate --conduct"),
    (50, "AEPO", "entropy-controlled policy gradient"),
    (51, "SACSoN", "counterfactual-perturbation regulariser"),
    (52, "Causal motion forecasting", "invariance + style losses"),
    (53, "Mental simulation", "latent future prediction"),
    (54, "STAX", "quality-diversity with learned space"),
    (55, "Latent quantization (QLAE, InfoMEC)", "representation + metrics"),
    (56, "APO (DADS, STCR)", "policy-gradient regularisers"),
    (57, "INPO", "Nash preference loss"),
    (58, "MambaRec", "MMD + contrastive alignment (core)"),
    (59, "T-JEPA", "state-encoder pretraining, regularisation token"),
    (60, "Multifaceted feature visualization", "activation maximisation over states"),
    (61, "Inverse dynamics pretraining", "representation pretraining"),
    (62, "PS-KD", "self-distillation loss"),
    (63, "DM1", "one-step MeanFlow policy, dispersive"),
    (64, "T-REG", "token-level reward regulariser"),
    (65, "RAT", "targeted adversarial attacks"),
    (66, "Rescorla-Wagner steering", "context-weight model + fine-tuning (core)"),
    (67, "Suboptimal, on-policy preference data", "experiment over preference losses"),
    (68, "Refined regret, adversarial MDPs", "FTRL log-barrier agent, exact regret"),
    (69, "Performance prediction for NAS", "early stopping inside sweeps"),
    (70, "Potential-flow latent traversals", "analysis of a latent space"),
    (71, "IRL misspecification", "exact tabular analysis"),
    (72, "OREAL", "outcome-reward loss"),
    (73, "Weight Compander", "parameter reparametrisation"),
    (74, "Self-J", "self-distilled judge (core)"),
)


HEADS = "experiment | claim | paper | metric | method | margin | verdict | power | seeds | earlier | scale | command"


def read(results: pathlib.Path) -> list[tuple[pathlib.Path, dict]]:
    """The JSON files of experiments in a folder and those below it, by name.

    The folder of all experiments gives those that have never been run as well, with an empty file.
    """
    found = {path.stem: path for path in results.rglob("*.json")}
    if results == finding.FOLDER:
        found |= {name: finding.results(name) / f"{name}.json" for name in finding.names()}
    nothing = {"record": None, "power": None, "history": []}
    return [
        (path, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"name": name, **nothing})
        for name, path in sorted(found.items())
    ]


def claim_of(stored: dict) -> dict:
    """The claim of the record; without one, of the last run, or as it stands."""
    runs = [*stored["history"], *([stored["record"]] if stored["record"] else [])]
    return runs[-1]["claim"] if runs else dataclasses.asdict(finding.load(stored["name"]).CLAIM)


def verdict(stored: dict) -> str:
    """One cell: the verdict with the closest rival's interval; why it fails or is missing if anybody has said so."""
    record = stored["record"]
    if record is None:
        return f"no record yet{_reason(stored)}"
    if _outdated(stored):
        past = "held" if record["holds"] else "**failed**"
        return f"{past} with other settings; to be recorded anew{_reason(stored)}"
    closest = min(record["differences"], key=lambda d: d["low"])
    word = "holds" if record["holds"] else "**fails**"
    text = f"{word}: {closest['mean']:+.3g} [{closest['low']:.3g}, {closest['high']:.3g}] over {closest['rival']}"
    return text if record["holds"] else f"{text}{_reason(stored)}"


def _outdated(stored: dict) -> bool:
    """Whether arms, settings or metric have changed since the record."""
    if stored["name"] not in finding.names():
        return False
    return finding.load(stored["name"]).CLAIM.revision != stored["record"]["claim"]["revision"]


def _reason(stored: dict) -> str:
    """The note of the experiment as it is now; one that is no longer there keeps its recorded one."""
    known = stored["name"] in finding.names()
    note = finding.load(stored["name"]).CLAIM.note if known else claim_of(stored).get("note", "")
    return f" ({note})" if note else ""


def chance(stored: dict) -> str:
    """One cell: the power, the product over rivals."""
    return f"{stored['power']['product']:.3f} with {stored['power']['n']}" if stored["power"] else ""


def earlier(stored: dict) -> str:
    """One cell: how many of the other runs held; those of the present question first, then of earlier revisions."""
    record, other = stored["record"], stored["history"]
    if record is not None:
        same = [run for run in other if run["claim"].get("revision") == record["claim"].get("revision")]
    else:
        same = other
    parts = [(same, ""), ([run for run in other if run not in same], " with other settings")]
    return ", ".join(f"{sum(r['holds'] for r in runs)} of {len(runs)} held{what}" for runs, what in parts if runs)


def command(stored: dict) -> str:
    record = stored["record"]
    if record is None:
        return f"`python -m experiments record {stored['name']}`"
    scale = "" if record["scale"] == "small" else f" --scale {record['scale']}"
    run = f"run {stored['name']} --seeds {len(record['seeds'])} --seed-offset {record['seeds'][0]}{scale}"
    return f"`python -m experiments {run}`"


def picture(path: pathlib.Path, root: pathlib.Path) -> str:
    """The figure of a result, small, linked to itself; paths from ``root``."""
    figure = path.with_suffix(".png")
    if not figure.is_file():
        return ""
    place = os.path.relpath(figure, root).replace(os.sep, "/")
    return f'<a href="{place}"><img src="{place}" alt="{path.stem}" width="160"></a>'


def evidence(path: pathlib.Path, stored: dict) -> str:
    """A row of the table of experiments."""
    record, claim = stored["record"] or {}, claim_of(stored)
    values = record["values"][claim["method"]] if record else []
    cells = [
        stored["name"],
        claim["statement"],
        f"[paper]({claim['paper']})",
        claim["metric"],
        f"{sum(values) / len(values):.3g}" if values else "",
        f"{claim['margin']:g}",
        verdict(stored),
        chance(stored),
        f"{len(values)} from {record['seeds'][0]}" if values else "",
        earlier(stored),
        record.get("scale", ""),
        command(stored),
    ]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def row(number: int, system: str, becomes: str, parts: list[tuple[pathlib.Path, dict]], root: pathlib.Path) -> str:
    """A row of the table of systems; it holds only if all of its experiments do."""
    if not parts:
        return f"| {number} | {system} | {becomes} | no experiment yet | | | |"
    held = [bool(stored["record"]) and stored["record"]["holds"] and not _outdated(stored) for _, stored in parts]
    whole = "holds" if all(held) else f"**fails**: {held.count(True)} of {len(held)} experiments hold"
    lines = {
        "verdict": [whole, *(f"{stored['name']} {verdict(stored)}" for _, stored in parts)],
        "power": ["", *(chance(stored) for _, stored in parts)] if len(parts) > 1 else [chance(parts[0][1])],
        "figure": [picture(path, root) for path, _ in parts],
        "command": [command(stored) for _, stored in parts],
    }
    cells = ["<br>".join(line.replace("|", "&#124;") for line in column) for column in lines.values()]
    return f"| {number} | {system} | {becomes} | {' | '.join(cells)} |"


def table(results: pathlib.Path, root: pathlib.Path) -> str:
    """The text of ``SYSTEMS.md`` in the folder ``root``."""
    found = read(results)
    by_system: dict[int, list[tuple[pathlib.Path, dict]]] = {}
    for path, stored in found:
        for number in claim_of(stored)["systems"]:
            by_system.setdefault(number, []).append((path, stored))
    lines = [
        "# Systems",
        "",
        "Written by `python -m experiments table` from the results beside the experiments; do not edit.",
        "",
        "Intervals are 95% Student-t over paired seeds; the rival shown is the closest one, ablations included. A",
        "claim holds if the interval to every rival lies above the margin. *Power*: the chance that so many fresh",
        "seeds hold, from all seeds run so far: noncentral t for each rival, and their product, which is a lower bound",
        "where the differences rise and fall together. *Earlier*: how other runs ended. Nothing is left out.",
        "",
        "## Evidence",
        "",
        f"| {HEADS} |",
        "|" + "---|" * (HEADS.count("|") + 1),
        *(evidence(path, stored) for path, stored in found),
        "",
        "## The family",
        "",
        "A system holds only if all of its experiments do.",
        "",
        "| # | system | what it becomes here | verdict | power | figure | command |",
        "|" + "---|" * 7,
    ]
    for number, system, becomes in SYSTEMS:
        lines.append(row(number, system, becomes, by_system.get(number, []), root))
    return "\n".join(lines) + "\n"
