"""The record of a benchmark as Markdown: a function per section, from its results to lines."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contest import TARGET_SECONDS, Result, ratio, spread

GEMM_GFLOP = 2 * 256**3 / 1e9
MIB = 2**20
Results = dict[str, Result]
ENOUGH_CLEAN = 0.8  # of the slices; below that wall time says little


def flops(agent: str, batch: int = 256, observation: int = 17, action: int = 6, hidden: int = 256) -> float:
    """Useful floating-point operations of one update in billions; gradients of inputs to first layers do not count."""

    def forward(inputs: int, outputs: int) -> float:
        return 2 * batch * (inputs * hidden + hidden * hidden + hidden * outputs)

    def both(inputs: int, outputs: int) -> float:  # forward, weight gradients, input gradients behind layer one
        return 2 * forward(inputs, outputs) + 2 * batch * (hidden * hidden + hidden * outputs)

    q = observation + action
    if agent == "iql":
        total = forward(observation, 1) + both(observation, 1) + 2 * forward(q, 1) + 2 * both(q, 1)
        return (total + both(observation, action)) / 1e9
    critic = forward(observation, action) + 2 * forward(q, 1) + 2 * both(q, 1)
    through_q = forward(q, 1) + 2 * batch * (q * hidden + hidden * hidden + hidden)
    return (critic + (both(observation, action) + through_q) / 2) / 1e9  # the actor learns every second update


def share(agent: str, ours: Result, product: Result, clock: str) -> dict[str, float]:
    """Fraction of the matrix product's rate that an agent's updates reach, by round."""
    pairs = zip(ours.per_unit(clock), product.per_unit(clock), strict=True)
    return spread([flops(agent) / update / (GEMM_GFLOP / one) for update, one in pairs])


def within(values: dict[str, float], form: str, scale: float = 1.0) -> str:
    """``median (min, max)``."""
    median, least, most = (format(scale * values[key], form) for key in ("median", "min", "max"))
    return f"{median} ({least}, {most})"


def table(*rows: list[str]) -> list[str]:
    """The first row is the header."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [head, "|" + "---|" * len(rows[0]), *body]


def of_start(results: Results, about: dict, clock: str) -> list[str]:
    rows = [["agent", "seconds (min, max)", "CPU-seconds (min, max)", "imports", "trace", "compile", "peak memory"]]
    for name, r in results.items():
        parts = [spread([turn[what] for turn in r.turns]) for what in ("imports", "trace_seconds", "compile_seconds")]
        rows.append(
            [
                name,
                *(within(spread(r.per_unit(clock)), ".1f") for clock in ("wall", "cpu")),
                *(f"{part['median']:.1f}" for part in parts),
                f"{r.peak_bytes / MIB:,.0f} MiB",
            ]
        )
    text = (
        "From the start of the interpreter to the end of one member's first update, on all cores, nothing compiled "
        "before; programs compile side by side, while the next is traced. Imports are CPU-seconds."
    )
    return ["## From nothing to the first update", "", text, "", *table(*rows)]


def of_single(results: Results, about: dict, clock: str) -> list[str]:
    mix = results["gemm training mix"]
    rate = {name: GEMM_GFLOP / spread(r.per_unit(clock))["median"] for name, r in results.items() if "gemm" in name}
    ms, second = ("CPU-ms", "core-second") if clock == "cpu" else ("ms", "second")
    rows = [
        [
            *("contestant", f"{ms} per update (min, max)", f"updates per {second}", "GFLOP/s"),
            *("of the matrix-product rate", "compile s", "peak memory"),
        ]
    ]
    for name, r in results.items():
        if "gemm" in name:
            continue
        agent = "iql" if "iql" in name else "td3_bc"
        cost, compiling = spread(r.per_unit(clock)), r.facts.get("compile_seconds")
        rows.append(
            [
                *(name, within(cost, ".2f", 1e3), f"{1 / cost['median']:.0f}", f"{flops(agent) / cost['median']:.0f}"),
                within(share(agent, r, mix, clock), ".2f" if about["platform"] == "cpu" else ".3f"),
                "-" if compiling is None else f"{compiling:.1f}",
                f"{r.peak_bytes / MIB:,.0f} MiB",
            ]
        )
    found = [
        "## One member, one core" if about["platform"] == "cpu" else "## One member",
        "",
        *table(*rows),
        "",
        "The matrix-product rate is that of 256 x 256 float32 products in one compiled scan, measured in the same "
        f"rounds: {rate['gemm forward']:.0f} GFLOP per {second} forward, {rate['gemm training mix']:.0f} for the mix "
        "of forward, input-gradient and weight-gradient forms that training consists of; the share is of the mix.",
        "",
    ]
    for agent in ("iql", "td3_bc"):
        if f"d3rlpy {agent}" in results and f"{agent} x1" in results:
            r = ratio(results[f"d3rlpy {agent}"], results[f"{agent} x1"], clock)
            found.append(f"- {agent}: **{r['median']:.1f}x** d3rlpy per core ({r['min']:.1f} to {r['max']:.1f}).")
    if "torch gemm" in results:
        r = ratio(results["torch gemm"], results["gemm forward"], clock)
        found.append(f"- Of which the plain matrix product: {within(r, '.2f')} times PyTorch's.")
    return found


def of_members(results: Results, about: dict, clock: str) -> list[str]:
    ms = "CPU-ms" if clock == "cpu" else "ms"
    rows = [
        [
            *("population", f"{ms} per update and member (min, max)", "relative to x1 (min, max)"),
            *("compile s", "temporaries", "states"),
        ]
    ]
    for name, r in results.items():
        if base := results.get(f"{name.split(' ')[0]} x1"):
            rows.append(
                [
                    name,
                    within(spread(r.per_unit(clock)), ".2f" if about["platform"] == "cpu" else ".4f", 1e3),
                    within(ratio(r, base, clock), ".3f"),
                    f"{r.facts['compile_seconds']:.1f}",
                    *(f"{r.facts[what] / MIB:,.0f} MiB" for what in ("temporary_bytes", "state_bytes")),
                ]
            )
    text = "Cost of one member's update in a population, relative to a population of one."
    return ["## Members", "", text, "", *table(*rows)]


def of_cores(results: Results, about: dict, clock: str) -> list[str]:
    speeds = {name: spread([1 / unit for unit in r.per_unit("wall")]) for name, r in results.items()}
    rows = [[name, within(speed, ".0f")] for name, speed in speeds.items()]
    return ["## All cores", "", *table(["population", "updates per second, all members (min, max)"], *rows)]


def of_scaling(results: Results, about: dict, clock: str) -> list[str]:
    by = "wall" if clock == "wall" or about["clean"] >= ENOUGH_CLEAN else "cpu"
    cpu = about["platform"] == "cpu"
    rows = [
        [
            *("members", "devices", "updates per second, all members (min, max)"),
            *("relative to one device (min, max)", f"{'CPU-' if cpu else ''}ms per update and member"),
            "of the matrix-product rate (min, max)",
        ]
    ]
    rates = []
    for name, r in results.items():
        if name.startswith("gemm"):
            rate = spread([GEMM_GFLOP / unit for unit in r.per_unit("wall")])
            rates.append(f"{within(rate, ',.0f')} on {name.split(' ')[-1]}")
            continue
        members, _, where = name.removeprefix("iql x").partition(" ")
        devices = where.split(" ")[1]
        base, product = results.get(f"iql x{members} on 1"), results.get(f"gemm on {devices}")
        rows.append(
            [
                *(members, devices if where.startswith("on") else f"1 in each of {devices} processes"),
                within(spread([1 / unit for unit in r.per_unit("wall")]), ",.0f"),
                "" if base is None else within(ratio(base, r, "wall"), ".2f"),
                f"{1e3 * spread(r.per_unit(clock))['median']:.{2 if cpu else 4}f}",
                "" if product is None else within(share("iql", r, product, by), ".2f"),
            ]
        )
    return [
        "## Members and devices",
        "",
        "IQL, eight updates of every member a call. "
        + ("A device is a core: one is pinned to it, more live in one process. " if cpu else "")
        + f"The matrix product runs on as many devices{'' if cpu else ', 256 chains of it side by side on each'}: "
        f"{', '.join(rates)} GFLOP per second. "
        + (
            "Shares are of wall time."
            if by == "wall"
            else "Other work ran beside: shares are of CPU time, and what is per second says little."
        ),
        "",
        *table(*rows),
    ]


def of_online(results: Results, about: dict, clock: str) -> list[str]:
    second = "core-second" if clock == "cpu" else "second"
    rows = [["contestant", f"environment steps per {second} (min, max)", "compile s"]]
    for name, r in results.items():
        speed = spread([1 / unit for unit in r.per_unit(clock)])
        rows.append([name, within(speed, ",.0f"), f"{r.facts['compile_seconds']:.1f}"])
    found = ["## Online, Pendulum" + (", one core" if about["platform"] == "cpu" else ""), "", *table(*rows), ""]
    for agent in ("ppo", "sac"):
        if f"rejax {agent}" in results and agent in results:
            r = ratio(results[f"rejax {agent}"], results[agent], clock)
            found.append(f"- {agent}: {r['median']:.2f}x rejax per core ({r['min']:.2f} to {r['max']:.2f}).")
    learned = [["contestant", "mean return after training (worst seed, best seed)", "seeds", "environment steps"]]
    for name, r in results.items():
        if values := r.facts.get("returns"):
            spread_of = f"{sum(values) / len(values):.0f} ({min(values):.0f}, {max(values):.0f})"
            learned.append([name, spread_of, str(len(values)), f"{r.facts['learned_steps']:,}"])
    if len(learned) > 1:
        found += ["", "Trained to the end with each library's own learning rates, acting as in exploration:", ""]
        found += table(*learned)
    return found


def of_diffusion(results: Results, about: dict, clock: str) -> list[str]:
    second = "core-second" if clock == "cpu" else "second"
    speeds = {name: spread([1 / unit for unit in r.per_unit(clock)]) for name, r in results.items()}
    found = [
        "## Generative policies" + (", one core" if about["platform"] == "cpu" else ""),
        "",
        "A 3 x 256 network, batches of 256 observations; MeanFlow jumps, EDM is BESO's, DDPM Diffusion-QL's.",
        "",
        *table(
            ["sampler, steps, members", f"actions per {second} (min, max)"],
            *([name, within(speed, ",.0f")] for name, speed in speeds.items()),
        ),
        "",
    ]
    for n in (1, 64):
        slow, fast = results.get(f"ddpm 50 x{n}"), results.get(f"meanflow 1 x{n}")
        if slow is None or fast is None:  # one of them died
            continue
        r, members = ratio(slow, fast, clock), "One member" if n == 1 else f"{n} members"
        found.append(
            f"- {members}: one step draws **{r['median']:.0f}x** as many actions as fifty ({r['min']:.0f} to "
            f"{r['max']:.0f})."
        )
    return found


def of_zero_shot(results: Results, about: dict, clock: str) -> list[str]:
    seconds, second = ("CPU-seconds", "core-second") if clock == "cpu" else ("seconds", "second")
    rows = [
        [
            *("population", f"{seconds} per update and member (min, max)", f"updates per {second}, all members"),
            *("initial states s", "trace s", "compile s", "temporaries", "states", "peak memory"),
        ]
    ]
    for name, r in results.items():
        cost = spread(r.per_unit(clock))
        rows.append(
            [
                *(name, within(cost, ".3g"), f"{1 / cost['median']:.3g}"),
                *(f"{r.facts[f'{what}_seconds']:.1f}" for what in ("initial", "trace", "compile")),
                *(f"{r.facts[what] / MIB:,.0f} MiB" for what in ("temporary_bytes", "state_bytes")),
                f"{r.peak_bytes / MIB:,.0f} MiB",
            ]
        )
    text = (
        "The agents' default sizes, which are the papers'; batch 512, 24 observations, 6 actions. Initial states: the "
        "seconds until they are there, their own program compiled."
    )
    text = "Layers of at most 32, to try the machinery." if about["quick"] else text
    title = "## Zero-shot agents" + (", one core" if about["platform"] == "cpu" else "")
    return [title, "", text, "", *table(*rows)]


def of_tokens(results: Results, about: dict, clock: str) -> list[str]:
    second = "core-second" if clock == "cpu" else "second"
    words = {
        "cached": "sampling, keys and values remembered",
        "uncached": "sampling, everything read again for each",
        "training": "GRPO, one pass",
    }
    rows = []
    for name, r in results.items():
        form, members = name.split(" x")
        speed = spread([1 / unit for unit in r.per_unit(clock)])
        rows.append([words[form], members, within(speed, ",.0f"), f"{r.facts['compile_seconds']:.1f}"])
    length = "8" if about["quick"] else "32"
    found = [
        "## Token policies" + (", one core" if about["platform"] == "cpu" else ""),
        "",
        f"Two blocks of width 64, 16 tokens, prompts of 8; for each member 32 completions of {length} tokens, 8 for a "
        "prompt.",
        "",
        *table(["what", "members", f"tokens of completions per {second} (min, max)", "compile s"], *rows),
        "",
    ]
    if "uncached x1" in results and "cached x1" in results:  # neither of them died
        r = ratio(results["uncached x1"], results["cached x1"], clock)
        found.append(
            f"- With keys and values remembered **{r['median']:.1f}x** as many tokens are sampled ({r['min']:.1f} to "
            f"{r['max']:.1f})."
        )
    return found


def of_repertoires(results: Results, about: dict, clock: str) -> list[str]:
    second = "core-second" if clock == "cpu" else "second"
    rows = [["contestant", f"solutions per {second} (min, max)", "cells filled by a turn's first run", "compile s"]]
    for name, r in results.items():
        speed = spread([1 / unit for unit in r.per_unit(clock)])
        rows.append([name, within(speed, ",.0f"), f"{r.facts['coverage']:.0%}", f"{r.facts['compile_seconds']:.1f}"])
    text = "MAP-Elites on an arm of 8 joints, whose evaluation costs next to nothing: batches of 256, 100 x 100 cells."
    found = ["## Repertoires" + (", one core" if about["platform"] == "cpu" else ""), "", text, "", *table(*rows), ""]
    if {"elites", "qdax"} <= set(results):
        r = ratio(results["qdax"], results["elites"], clock)
        found.append(
            f"- {r['median']:.0f}x QDax per core ({r['min']:.0f} to {r['max']:.0f}), which compares each solution with "
            "the centres of all cells, so that they may have any shape; ours are squares, found by division."
        )
    return found


def of_unifloral(results: Results, about: dict, clock: str) -> list[str]:
    ms = "CPU-ms" if clock == "cpu" else "ms"
    rows = [["population", f"ours, {ms} per update and member", "Unifloral's", "Unifloral's over ours (min, max)"]]
    ours = [name for name in results if not name.startswith("unifloral")]
    for name in ours:
        pair = results[name], results[f"unifloral {name}"]
        costs = [within(spread(r.per_unit(clock)), ".2f", 1e3) for r in pair]
        rows.append([name, *costs, within(ratio(pair[1], pair[0], clock), ".2f")])
    commit = results[f"unifloral {ours[0]}"].facts["commit"]
    text = (
        f"Unifloral's own training step (commit {commit}) in one compiled scan, members side by side by vmap; with its "
        "losses, as ours with its metrics. Its TD3+BC makes both critic steps and the actor's on one batch, ours draws "
        "a batch for each critic step. Measured with `--only unifloral --clone DIR`."
    )
    return ["## Beside Unifloral, one core", "", text, "", *table(*rows)]


PARTS: dict[str, Callable[[Results, dict, str], list[str]]] = {
    "start": of_start,
    "single": of_single,
    "members": of_members,
    "cores": of_cores,
    "scaling": of_scaling,
    "online": of_online,
    "diffusion": of_diffusion,
    "zero_shot": of_zero_shot,
    "tokens": of_tokens,
    "repertoires": of_repertoires,
    "unifloral": of_unifloral,
}


def circumstances(about: dict) -> str:
    """When, where, how often and how undisturbed a section was measured."""
    return (
        f"*{about['date']}, {about['machine']}, Python {about['python']}, {about['rounds']} rounds; "
        f"{100 * about['clean']:.0f}% of the slices had the machine to themselves.*"
    )


def page(record: dict) -> str:
    """All sections of the record ``{"sections": {name: section}, "absent": {peer: why}}``."""
    cpu = all(section["platform"] == "cpu" for section in record["sections"].values())
    lines = [
        "# Benchmark" if cpu else "# Benchmark on an accelerator",
        "",
        "Written by `make bench`; do not edit. All numbers of a section come from one run, contestants taking turns; "
        f"a turn is about {TARGET_SECONDS} {'CPU-' if cpu else ''}seconds or one call, if that is longer.",
        ("CPU-milliseconds count all threads. " if cpu else "")
        + "One update is one gradient step on the critics; where nothing else is said batch 256, two hidden layers of "
        "256, 17 observations, 6 actions, 100,000 rows. Evaluation is left out."
        + (" Offline updates are compiled at LLVM's level 1, see [accelerators](accelerators.md)." if cpu else ""),
    ]
    for name, part in PARTS.items():
        if name in record["sections"]:
            about = record["sections"][name]
            results = {key: Result(**value) for key, value in about["results"].items()}
            head, *rest = part(results, about, "cpu" if about["platform"] == "cpu" else "wall")
            lines += ["", head, "", circumstances(about), *("\n".join(rest).rstrip("\n").split("\n"))]
    missing = [name for name in PARTS if name not in record["sections"]]
    lines += [
        "",
        f"Sections not measured: {', '.join(missing) or 'none'}.",
        *(f"{peer} is no contestant: {why}." for peer, why in record["absent"].items()),
        "brax.training is no contestant: its released version calls a JAX function that the pinned JAX no longer has.",
    ]
    return "\n".join(lines) + "\n"
