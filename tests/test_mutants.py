"""The catalogue of mutants fits the code: ``make mutants`` plants them, this only looks."""

import pathlib
import pkgutil

import pytest

from jaxrl_reg import agents, losses
from tests.mutants import __main__ as tool
from tests.mutants.catalogue import MUTANTS, Mutant


def test_every_text_is_found_exactly_once():
    for mutant in MUTANTS:
        source = (tool.TREE / mutant.file).read_text(encoding="utf-8")
        assert tool.planted(mutant, source) != source
        compile(tool.planted(mutant, source), mutant.file, "exec")
        assert (tool.TREE / mutant.tests).is_file(), mutant.tests
    assert len(set(map(tool.key, MUTANTS))) == len(MUTANTS)
    with pytest.raises(ValueError, match="2 times"):
        tool.planted(Mutant("", "file", "a", "b", ""), "aXa")


def test_every_agent_and_every_module_of_losses_has_one():
    files = {mutant.file for mutant in MUTANTS}
    wanted = [pathlib.Path(agents.load(name).__file__) for name in agents.names()]
    wanted += [
        pathlib.Path(losses.__path__[0]) / f"{module.name}.py" for module in pkgutil.iter_modules(losses.__path__)
    ]
    missing = [name for path in wanted if (name := path.relative_to(tool.TREE).as_posix()) not in files]
    assert not missing, f"plant one in tests/mutants/catalogue.py for {', '.join(missing)}"


def test_the_score_is_that_of_the_record():
    """``make mutants ONLY=...`` runs new ones and writes both."""
    assert tool.score() in tool.SCORE.read_text(encoding="utf-8").splitlines()
