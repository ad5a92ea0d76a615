"""What a compiled program asks of a device, counted in the compiler's text of it.

In the text of an optimised program every instruction of a computation that runs is a launch (a fused kernel, a library
call, a copy), but for those that only name memory. A loop's body is a computation of its own, so is each side of a
condition.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

# No work of a device by itself. Loops and conditions are followed instead.
FREE = {
    "after-all", "bitcast", "conditional", "constant", "copy", "copy-done", "copy-start", "get-tuple-element",
    "opt-barrier", "parameter", "partition-id", "replica-id", "tuple", "while",
}  # fmt: skip
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?[\]\})]) ([a-z][a-z\-]*)\((.*?)\)(.*)$", re.M)
_SHAPE = re.compile(r"[a-z]+\d*\[([\d,]*)\]")


class Counts(NamedTuple):
    """Per turn of a loop, what lies inside it included: loops within as often as they turn, the longer side of a
    condition. ``unknown`` loops within have a length that the compiler does not know; they count once."""

    launches: int
    copies: int
    branches: int
    unknown: int = 0
    turns: int | None = None  # of this loop, where the compiler knows
    flops: float = 0.0  # of matrix products


def blocks(text: str) -> dict[str, str]:
    """The computations of a program's text by name."""
    parts = re.split(r"\n(?=%|ENTRY)", text)
    heads = ((re.match(r"(?:ENTRY )?%?([\w.\-]+)", part), part) for part in parts)
    return {head[1]: part for head, part in heads if head}


def _turns(rest: str) -> int | None:
    found = re.search(r'known_trip_count[^0-9]*"n"\s*:\s*"?(\d+)', rest)
    return int(found[1]) if found else None


def _loops(block: str) -> list[tuple[str, int | None]]:
    """Bodies of the loops that begin in a computation, and how often they turn."""
    lines = [line for line in block.splitlines() if re.search(r" while\(", line)]
    found = [(re.search(r"body=%?([\w.\-]+)", line), _turns(line)) for line in lines]
    return [(body[1], turns) for body, turns in found if body]


def _sides(block: str) -> list[list[str]]:
    """For each condition of a computation, the names of its sides."""
    groups = re.findall(r"branch_computations=\{(.*?)\}", block)
    found = [[name.strip().lstrip("%") for name in group.split(",")] for group in groups]
    pairs = re.findall(r"true_computation=%?([\w.\-]+), false_computation=%?([\w.\-]+)", block)
    return found + [list(pair) for pair in pairs]


def _dots(block: str) -> float:
    """Floating-point operations of the matrix products written in one computation."""
    shapes = {m[1]: m[2] for m in _INSTRUCTION.finditer(block)}
    total = 0.0
    for m in _INSTRUCTION.finditer(block):
        if m[3] != "dot":
            continue
        operand = m[4].split(",")[0].strip().split()[-1].lstrip("%") if m[4] else ""
        out, left = _dims(m[2]), _dims(m[4].split("%")[0]) or _dims(shapes.get(operand, ""))
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", m[5])
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        total += 2.0 * math.prod(out) * math.prod(left[axis] for axis in axes if axis < len(left))
    return total


def _dims(text: str) -> list[int]:
    found = _SHAPE.search(text)
    return [int(size) for size in found[1].split(",") if size] if found else []


def count(named: dict[str, str], name: str) -> Counts:
    """Counts of one turn of the computation ``name``."""
    block = named[name]
    kinds = [m[3] for m in _INSTRUCTION.finditer(block)]
    launches = sum(kind not in FREE for kind in kinds)
    copies = kinds.count("copy") + kinds.count("copy-start")
    branches, unknown, flops = kinds.count("conditional"), 0, _dots(block)
    flops += sum(_dots(named[called]) for called in re.findall(r"calls=%?([\w.\-]+)", block) if called in named)
    for body, turns in _loops(block):
        if body in named:
            inner, times = count(named, body), 1 if turns is None else turns
            launches, copies = launches + times * inner.launches, copies + times * inner.copies
            branches, flops = branches + times * inner.branches, flops + times * inner.flops
            unknown += inner.unknown + (turns is None)
    for sides in _sides(block):
        inside = [count(named, side) for side in sides if side in named]
        if inside:
            most = max(inside, key=lambda one: one.launches + one.copies)
            launches, copies = launches + most.launches, copies + most.copies
            branches, unknown, flops = branches + most.branches, unknown + most.unknown, flops + most.flops
    return Counts(launches, copies, branches, unknown, None, flops)


def main_loop(text: str) -> Counts:
    """Counts of one turn of the loop over updates, or over iterations of acting and learning.

    That is the loop whose turn is the most launches, those inside included. Without a loop: of the whole program.
    """
    named = blocks(text)
    found = [(body, turns) for block in named.values() for body, turns in _loops(block) if body in named]
    if not found:
        entry = next((name for name, block in named.items() if block.lstrip().startswith("ENTRY")), None)
        return count(named, entry) if entry else Counts(0, 0, 0)
    each = [count(named, body)._replace(turns=turns) for body, turns in found]
    return max(each, key=lambda one: one.launches)
