"""A sweep over several processes that find each other with ``jax.distributed``, on CPUs."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.errors import UserError
from jaxrl_reg.io import checkpoint

from . import host
from .toy import make_run

ROOT = pathlib.Path(__file__).parents[2]


def launch(processes, directory, *kinds):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.population.host", str(port), str(processes)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment, "cwd": ROOT}
    return [
        subprocess.Popen([*command, str(process), str(directory), *kinds], **options) for process in range(processes)
    ]


def announced(process):
    """Segment and number of devices of the next line that tells them."""
    for line in process.stdout:
        if len(words := line.split()) == 2 and all(word.isdigit() for word in words):
            return tuple(map(int, words))
    raise AssertionError("ended without a word")


@pytest.mark.slow
def test_killed_on_two_processes_and_resumed_on_four_is_what_one_process_does(tmp_path):
    two = launch(2, tmp_path, "sweep")
    assert announced(two[1]) == (1, 2)
    assert announced(two[1]) == (2, 2)
    two[1].send_signal(signal.SIGKILL)
    texts = [process.communicate(timeout=120)[0] for process in two]
    assert two[0].returncode != 0, "a process went on without the other's members"
    assert "start all of them again with resume" in texts[0] or "heartbeat" in texts[0].lower(), texts[0]
    assert not (tmp_path / "sweep.npz").exists()
    before = checkpoint.steps(tmp_path / "sweep")[-1]
    assert before < 12, "the kill came too late to test anything"

    four = launch(4, tmp_path, "sweep")
    assert announced(four[0]) == (before + 1, 4), "did not resume where the two had stopped"
    texts = [process.communicate(timeout=240)[0] for process in four]
    assert [process.returncode for process in four] == [0, 0, 0, 0], texts

    alone = population.sweep(make_run(segments=12), **host.settings())
    require_equal(tmp_path / "sweep.npz", alone)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A race and an evolution, each whole and stopped after two rounds; then two processes take both to their end."""
    folder = tmp_path_factory.mktemp("shared")

    def stop(progress):
        if getattr(progress, "segment", None) == 2 or np.max(getattr(progress, "done", 0)) == 2:
            raise KeyboardInterrupt

    whole = {"race": host.race(), "evolve": host.evolve()}
    with pytest.raises(KeyboardInterrupt):
        host.race(on_round=stop, directory=folder / "race", save_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        host.evolve(on_segment=stop, directory=folder / "evolve", save_seconds=0)
    two = launch(2, folder, "race", "evolve")
    texts = [process.communicate(timeout=240)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], texts
    return folder, whole


def require_equal(path, whole):
    found = np.load(path)
    np.testing.assert_array_equal(found["w"], whole.state["w"])
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(found[name.replace("/", "_")], values, err_msg=name)


@pytest.mark.slow
def test_a_race_goes_on_over_two_processes_and_back_with_the_same_numbers(shared):
    folder, whole = shared
    assert sorted(whole["race"].segments_trained.tolist()) == [1, 1, 2, 4, 5]
    require_equal(folder / "race.npz", whole["race"])
    # Nothing is left to do: these are the states that the two have saved.
    after = host.race(resume=True, directory=folder / "race", save_seconds=0)
    np.testing.assert_array_equal(after.state["w"], whole["race"].state["w"])


@pytest.mark.slow
def test_slots_copy_each_other_across_processes_as_they_do_in_one(shared):
    folder, whole = shared
    scores, moved = (whole["evolve"].metrics[name] for name in ("eval/return", "hyper/learning_rate"))
    worst, best = scores[:, :, :-1].argmin(axis=0), scores[:, :, :-1].argmax(axis=0)
    assert ((worst == 0) & (best == 2)).any(), "nobody copied a member that the other process holds"
    assert (moved[:, :, 1:] != moved[:, :, :-1]).any()
    require_equal(folder / "evolve.npz", whole["evolve"])


def test_one_process_has_nobody_to_ask():
    tree = {"a": np.arange(3.0), "b": np.ones((2, 2))}
    assert population.hosts.alone()
    assert population.hosts.first()
    np.testing.assert_array_equal(population.hosts.fetch(tree)["a"], tree["a"])
    assert population.hosts.gather([1.0, 2.0]).shape == (1, 2)


def test_joining_late_is_one_line():
    with pytest.raises(UserError, match=r"did not find each other: .*before any JAX calls"):
        population.hosts.join("127.0.0.1:1", 2, 0)
