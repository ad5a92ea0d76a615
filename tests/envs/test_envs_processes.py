"""Environments with physics on several processes: the numbers of one, also after one of them was killed."""

import importlib.util
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import local
from jaxrl_reg.io import checkpoint

from . import physics_host

ROOT = pathlib.Path(__file__).parents[2]
BODIES = ["brax/inverted_pendulum"]  # one simulator; what others close over is looked at below, without training
if importlib.util.find_spec("mujoco_playground"):
    BODIES.insert(0, "playground/CartpoleBalance")  # killed in the first


def launch(directory, out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment, "cwd": ROOT}
    command = [sys.executable, "-W", "ignore", "-m", "tests.envs.physics_host", str(port), "2"]
    return [
        subprocess.Popen([*command, str(process), str(directory), str(out), *BODIES], **options) for process in (0, 1)
    ]


@pytest.mark.slow
def test_two_processes_one_of_them_killed_and_resumed_have_the_numbers_of_one(tmp_path):
    alone = {name: physics_host.train(name) for name in BODIES}  # first, for its programs are those of the two
    two = launch(tmp_path / "run", tmp_path)
    for line in two[1].stdout:
        if line.strip() == f"segment of {BODIES[0]}":
            break
    two[1].send_signal(signal.SIGKILL)
    texts = [process.communicate(timeout=240)[0] for process in two]
    assert two[0].returncode != 0, texts[0]
    assert checkpoint.steps(tmp_path / "run" / BODIES[0])[-1] < physics_host.SEGMENTS, "the kill came too late"

    again = launch(tmp_path / "run", tmp_path)
    texts = [process.communicate(timeout=240)[0] for process in again]
    assert [process.returncode for process in again] == [0, 0], texts
    for name, result in alone.items():
        found = np.load(tmp_path / f"{name.replace('/', '_')}.npz")
        np.testing.assert_allclose(found["state"], result.state, rtol=1e-5, atol=1e-6, err_msg=name)
        for metric, values in result.metrics.items():
            one = found[metric.replace("/", "_")]
            np.testing.assert_allclose(one, values, rtol=1e-5, atol=1e-6, err_msg=f"{name} {metric}")


@pytest.mark.parametrize("name", ["brax/inverted_pendulum", "mjx/hopper-v4", "planar/walker", "pointmaze"])
def test_what_a_world_closes_over_lies_on_a_device_of_its_own_process(monkeypatch, name):
    mine = jax.devices()[-1]
    assert mine != jax.devices()[0]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_devices", lambda **_: [mine])
    with jax.default_device(mine):
        env = envs.make(name)
        state = jax.eval_shape(env.reset, jax.random.key(0))
        steps = jax.make_jaxpr(env.step)(state, jax.ShapeDtypeStruct((env.spec.action_dim,), np.float32))
    held = [one for one in steps.consts if isinstance(one, jax.Array)]
    assert held
    assert {device for one in held for device in one.devices()} == {mine}
    assert jax.devices()[0] != mine, "the devices of all were not put back"


def test_one_process_sees_its_devices_as_ever():
    before = jax.devices
    with local.devices():
        assert jax.devices is before
