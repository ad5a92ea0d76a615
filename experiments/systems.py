"""The family of published systems and where each stands; ``SYSTEMS.md`` is written from this list and the results."""

from __future__ import annotations

import json
import pathlib

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
    (49, "AI Agent Behavioral Science", "survey: nothing to build; its metrics list informs evaluation"),
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


def read(results: pathlib.Path) -> list[dict]:
    """The JSON results in a folder and those below it, by name."""
    return [json.loads(path.read_text()) for path in sorted(results.rglob("*.json"), key=lambda path: path.name)]


def verdict(record: dict) -> str:
    """One cell: the claim's verdict with the closest rival's interval."""
    closest = min(record["differences"], key=lambda d: d["low"])
    word = "holds" if record["holds"] else "**fails**"
    return f"{word}: {closest['mean']:+.3g} [{closest['low']:.3g}, {closest['high']:.3g}] over {closest['rival']}"


def command(record: dict) -> str:
    return f"`python -m experiments run {record['name']} --seeds {len(record['seeds'])}`"


def evidence(record: dict) -> str:
    """A row of the table of experiments."""
    claim = record["claim"]
    method = sum(record["values"][claim["method"]]) / len(record["seeds"])
    return (
        f"| {record['name']} | {claim['statement']} | [paper]({claim['paper']}) | {claim['metric']} | {method:.3g} | "
        f"{verdict(record)} | {len(record['seeds'])} | {record['scale']} | {command(record)} |"
    )


def table(results: pathlib.Path) -> str:
    """The text of ``SYSTEMS.md``."""
    records = read(results)
    by_system = {number: record for record in records for number in record["claim"]["systems"]}
    lines = [
        "# Systems",
        "",
        "Written by `python -m experiments table` from the results beside the experiments; do not edit.",
        "Intervals are 95% Student-t over paired seeds; the rival shown is the closest one, ablations included.",
        "",
        "## Evidence",
        "",
        "| experiment | claim | paper | metric | method | verdict | seeds | scale | command |",
        "|---|---|---|---|---|---|---|---|---|",
        *(evidence(record) for record in records),
        "",
        "## The family",
        "",
        "| # | system | what it becomes here | verdict | command |",
        "|---|---|---|---|---|",
    ]
    for number, system, becomes in SYSTEMS:
        record = by_system.get(number)
        last = f"{verdict(record)} | {command(record)}" if record else "not built yet |"
        lines.append(f"| {number} | {system} | {becomes} | {last} |")
    return "\n".join(lines) + "\n"
