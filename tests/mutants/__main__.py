"""Plant every mutant of the catalogue, one after another, and run the tests that should catch it: ``make mutants``.

``python -m tests.mutants`` runs all; words after it choose those whose file or name has one of them, such as ``sac`` or
``losses``. The package and the tests are copied first: what is planted never touches the tree. Before that the chosen
tests must pass on the copy. A mutant is killed where pytest reports a failed test, and survives where all pass;
anything else, an import that fails say, is an error of the catalogue. Verdicts are kept in ``record.json``, and the
score in CONTRIBUTING.md is made of them. Exits 1 unless all that were chosen are killed.

Tools such as mutmut and cosmic-ray make mutants of every line they meet and run whole suites; here each costs a
compilation, so the list is short and chosen: a wrong sign, minimum for maximum, the wrong network.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from tests.mutants.catalogue import MUTANTS, Mutant

TREE = pathlib.Path(__file__).parents[2]
RECORD, SCORE = pathlib.Path(__file__).with_name("record.json"), TREE / "CONTRIBUTING.md"
VERDICTS = {0: "survived", 1: "killed"}  # by pytest's exit code


def key(mutant: Mutant) -> str:
    """Under which the record has it."""
    return f"{mutant.file.removeprefix('jaxrl_reg/')}: {mutant.name}"


def planted(mutant: Mutant, source: str) -> str:
    """``source`` with the mutant in it. Raises ``ValueError`` unless its text is there exactly once."""
    if (count := source.count(mutant.text)) != 1:
        raise ValueError(f"{mutant.file}: {mutant.text!r} is there {count} times; a mutant needs it exactly once")
    return source.replace(mutant.text, mutant.replacement)


def record() -> dict[str, str]:
    """The last verdict on each mutant of the catalogue that was ever run."""
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return {name: known[name] for name in sorted(map(key, MUTANTS)) if name in known}


def score() -> str:
    """The line in CONTRIBUTING.md."""
    verdicts = record()
    killed = sum(verdict == "killed" for verdict in verdicts.values())
    alive = [name for name, verdict in verdicts.items() if verdict != "killed"]
    line = f"Score: {killed} of {len(MUTANTS)} killed"
    if left := len(MUTANTS) - len(verdicts):
        line += f", {left} not run yet"
    return line + (f"; not killed: {'; '.join(alive)}." if alive else ".")


def keep(mutant: Mutant, verdict: str) -> None:
    """Into the record and the score."""
    RECORD.write_text(json.dumps({**record(), key(mutant): verdict}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    text = SCORE.read_text(encoding="utf-8")
    SCORE.write_text(re.sub(r"^Score: .*$", lambda _: score(), text, flags=re.MULTILINE), encoding="utf-8")


def pytest(copy: pathlib.Path, *selection: str) -> int:
    """The exit code of pytest on the copy."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *selection]
    # The first leaves its bytecode to the others; what is planted is of another second and so compiled anew.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False).returncode


def run(mutants: list[Mutant]) -> int:
    """Prints a line for each and the score; the number that were not killed."""
    with tempfile.TemporaryDirectory() as folder:
        copy, killed = pathlib.Path(folder), 0
        for name in ("jaxrl_reg", "tests"):
            shutil.copytree(TREE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(TREE / "pyproject.toml", copy)
        # All at once: a file without a choice is chosen by its own name.
        choice = " or ".join(sorted({m.which or pathlib.Path(m.tests).stem for m in mutants}))
        if code := pytest(copy, *sorted({m.tests for m in mutants}), "-k", choice):
            print(f"the tests do not pass before anything is planted (pytest exits {code}): make test")
            return len(mutants)
        for mutant in mutants:
            path, start = copy / mutant.file, time.monotonic()
            source = path.read_text(encoding="utf-8")
            path.write_text(planted(mutant, source), encoding="utf-8")
            code = pytest(copy, mutant.tests, *(("-k", mutant.which) if mutant.which else ()))
            path.write_text(source, encoding="utf-8")
            verdict = VERDICTS.get(code, f"error, pytest exits {code}")
            keep(mutant, verdict)
            killed += verdict == "killed"
            print(f"{verdict:<8} {time.monotonic() - start:4.0f} s  {key(mutant)}", flush=True)
    print(f"{killed} of {len(mutants)} killed")
    return len(mutants) - killed


def main() -> int:
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if not words or any(word in key(m) for word in words)]
    if not chosen:
        print(f"no mutant has {' or '.join(words)} in its file or name")
        return 1
    return int(run(chosen) > 0)


if __name__ == "__main__":
    sys.exit(main())
