"""What the documents show is run: every Python block at small sizes, every command as far as its options go."""

import pathlib
import shlex

import numpy as np
import pytest

from jaxrl_reg import cli, data, jobs
from jaxrl_reg.cli.options import config_of

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/guide").glob("*.md"))]
# What a block says and what is run instead, so that hours become seconds.
SMALLER = {
    "hidden=(256, 256)": "hidden=(8,)",
    "updates=200_000, segments=20": "updates=4, segments=2",
    "episodes=10": "episodes=1",
    "jnp.logspace(-3, 0, 8)": "jnp.logspace(-3, 0, 2)",
    "seeds=64": "seeds=2",
    "steps=1_024_000, num_envs=64": "steps=80, num_envs=2",
    "jax.jit(collection)(": "jax.eval_shape(collection, ",  # traced: running it is the business of other tests
    "sac.Config()": "sac.Config(hidden=(8,))",
    "rounds=10": "rounds=1, sizes=search.within(158)[0]",
    'backend="spring"': 'backend="spring", episode_length=5',
}


def fenced():
    """``(document, line, language, text)`` of every fenced block."""
    found = []
    for path in DOCUMENTS:
        opened = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.startswith("```"):
                if opened is not None:
                    opened[-1].append(line)
            elif opened is None:
                opened = (path.name, number, line[3:].strip(), [])
            else:
                found.append((*opened[:3], "\n".join(opened[3])))
                opened = None
        assert opened is None, f"{path.name}: a block that does not end"
    return found


PYTHON = [(name, line, text) for name, line, language, text in fenced() if language == "python"]
COMMANDS = [
    (f"{name}:{line}", command.strip())
    for name, line, language, text in fenced()
    if language in ("", "shell", "bash")
    for command in text.replace("\\\n", " ").splitlines()
    if command.strip().startswith("jaxrl-reg ")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the data set that README collects and the run that it trains, both small."""
    folder = tmp_path_factory.mktemp("reader")
    rng, rows = np.random.default_rng(0), 60
    hopper = data.from_arrays(
        rng.normal(size=(rows, 11)),
        rng.uniform(-1, 1, (rows, 3)),
        rng.uniform(size=rows),
        np.zeros(rows, bool),
        np.arange(rows) % 30 == 29,
        rng.normal(size=(rows, 11)),
        name="hopper",
    )
    kept = folder / "datasets" / "brax-hopper-spring" / "medium-replay.hdf5"
    kept.parent.mkdir(parents=True)
    data.save(hopper, kept)
    config = jobs.SweepConfig(
        env="none", agent="bc", dataset=str(kept), seeds=1, updates=2, segments=1, batch_size=8, hidden=(8,)
    )
    jobs.sweep(config, directory=folder / "runs" / "hopper", lean=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "line", "text"), PYTHON, ids=[f"{name}:{line}" for name, line, _ in PYTHON])
def test_a_python_block_runs_as_printed(name, line, text, place, monkeypatch):
    monkeypatch.chdir(place)
    for words, smaller in SMALLER.items():
        text = text.replace(words, smaller)
    exec(compile(text, f"{name}:{line}", "exec"), {"__name__": "reader"})


def test_what_is_made_smaller_is_in_the_documents():
    assert [words for words in SMALLER if not any(words in text for _, _, text in PYTHON)] == []


@pytest.mark.parametrize(("where", "command"), COMMANDS, ids=[where for where, _ in COMMANDS])
def test_a_command_of_the_documents_is_understood(where, command):
    arguments = cli.parse(shlex.split(command, comments=True)[1:])
    assert arguments.verb in cli.VERBS
    if arguments.verb in ("sweep", "train", "compare", "collect"):
        jobs.resolve(config_of(arguments))


def test_commands_were_found():
    assert len(COMMANDS) >= 8
    assert len(PYTHON) >= 5
