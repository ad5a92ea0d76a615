"""What every test costs, and which are too long for every run.

``make test`` is to end within 15 minutes on two cores with cold caches, however many systems there are. So the dearest
tests are left to ``make test-all``: those in ``long.txt``, chosen by one rule from measured costs and never by hand.
``make test-costs`` measures (an hour of CPU) and writes the list anew. What begins as one of ``KEPT`` stays whatever it
costs: the contract of every agent, golden numbers, and of every kind of run one that is stopped and resumed.
"""

from __future__ import annotations

import os
import pathlib
import resource
import sys

LIST = pathlib.Path(__file__).with_name("long.txt")
# CPU-seconds of all others. Two cores have 1,800 in 15 minutes; what a test that goes had paid for others to share (a
# program, a fixture) is paid by the next, and collecting takes some.
BUDGET = 1450.0
KEPT = (  # files, and single tests
    "tests/test_contract.py",
    "tests/agents/offline/test_golden",
    "tests/agents/online/test_golden",
    "tests/agents/zero_shot/test_golden",
    "tests/jobs/test_finetune_runs.py::test_a_fine_tuning_run_stopped_and_resumed_is_bit_identical",
    "tests/jobs/test_level_runs.py::test_a_run_stopped_and_resumed_is_bit_identical",
    "tests/jobs/test_online_runs.py::test_a_ppo_sweep_stopped_and_resumed_is_bit_identical",
    "tests/jobs/test_token_runs.py::test_a_run_stopped_and_resumed_is_bit_identical",
    "tests/jobs/test_transfer_runs.py::test_stopped_and_resumed_it_is_bit_identical",
    "tests/test_jobs.py::test_interrupted_twice_and_resumed_equals_uninterrupted",
)


def spent() -> float:
    """CPU-seconds of this process and of those that it waited for."""
    return sum(sum(resource.getrusage(of)[:2]) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def note(folder: str, test: str, seconds: float) -> None:
    """A line into the file of this process."""
    with open(pathlib.Path(folder) / f"{os.getpid()}.txt", "a", encoding="utf-8") as file:
        file.write(f"{seconds:.2f} {test}\n")


def measured(folder: str) -> dict[str, float]:
    """``{test: CPU-seconds}``, of all processes."""
    lines = [line for path in pathlib.Path(folder).glob("*.txt") for line in path.read_text("utf-8").splitlines()]
    return {test: float(seconds) for seconds, test in (line.split(" ", 1) for line in lines)}


def too_long(costs: dict[str, float], budget: float = BUDGET) -> list[str]:
    """The dearest tests, as many as must go for the others to stay within the budget."""
    left, chosen = sum(costs.values()), []
    for test in sorted(costs, key=lambda test: (-costs[test], test)):
        if left <= budget:
            break
        if test.startswith(KEPT):
            continue
        left -= costs[test]
        chosen.append(test)
    return sorted(chosen)


def listed() -> frozenset[str]:
    """The tests of ``long.txt``."""
    return frozenset(LIST.read_text(encoding="utf-8").splitlines()) if LIST.exists() else frozenset()


if __name__ == "__main__":
    known = measured(sys.argv[1])
    chosen = too_long(known)
    LIST.write_text("".join(f"{test}\n" for test in chosen), encoding="utf-8")
    left = sum(known.values()) - sum(known[test] for test in chosen)
    print(
        f"{len(chosen)} of {len(known)} tests are long; the others take {left:.0f} of {sum(known.values()):.0f} CPU-s"
    )
