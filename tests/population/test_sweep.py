import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.errors import UserError
from jaxrl_reg.population import placement
from jaxrl_reg.types import Run, as_float32

from .toy import Hyper, long_sweep, make_data, make_run

HYPERS = population.grid(Hyper(), learning_rate=[0.05, 0.1, 0.2])


def same(a, b):
    raw = lambda leaf: jax.random.key_data(leaf) if placement.tree_bytes(leaf) and "key" in str(leaf.dtype) else leaf  # noqa: E731
    return all(np.array_equal(raw(x), raw(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("how", [{"placement": "map"}, {"placement": "vmap"}, {"placement": "vmap", "chunk": 2}])
@pytest.mark.parametrize("devices", [1, 2])
def test_every_member_equals_its_single_run(how, devices):
    run, data, seeds = make_run(), make_data(), [3, 1, 8]
    result = population.sweep(run, seeds=seeds, hypers=HYPERS, data=data, devices=jax.devices()[:devices], **how)
    single = jax.jit(run)
    for h in range(3):
        for s, seed in enumerate(seeds):
            hyper = as_float32(Hyper(learning_rate=float(HYPERS.learning_rate[h])))
            state, history = single(jax.random.key(seed), hyper, data)
            np.testing.assert_allclose(result.member(h, s)["w"], state["w"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(result.metrics["loss"][h, s], history["loss"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                result.metrics["eval/return"][h, s], history["eval/return"], rtol=1e-4, atol=1e-6
            )
    assert result.metrics["loss"].shape == (3, 3, 4)


def going_on() -> Run:
    """The toy run, which can begin from weights that are handed in."""
    run = make_run()

    def init(key, hyper, start=None):
        state = run.init(key, hyper)
        return state if start is None else {**state, "w": start}

    return dataclasses.replace(run, init=init)


STARTS = np.arange(18, dtype=np.float32).reshape(3, 2, 3) / 10


@pytest.mark.parametrize("devices", [1, 2])
def test_every_member_begins_from_its_own_start(devices):
    run, data = going_on(), make_data()
    hypers = as_float32(Hyper(learning_rate=np.array([0.0, 0.1, 0.2]), noise=np.zeros(3)))
    result = population.sweep(run, seeds=2, hypers=hypers, data=data, start=STARTS, devices=jax.devices()[:devices])
    np.testing.assert_array_equal(result.state["w"][0], STARTS[0])  # learning rate 0
    single, _ = jax.jit(run)(jax.random.key(1), result.hyper(2), data, STARTS[2, 1])
    np.testing.assert_allclose(result.member(2, 1)["w"], single["w"], rtol=1e-5, atol=1e-6)
    raced = population.race(
        run,
        population.stopping.everyone,
        seeds=2,
        hypers=hypers,
        data=data,
        start=STARTS,
        devices=jax.devices()[:devices],
    )
    np.testing.assert_allclose(raced.state["w"], result.state["w"], rtol=1e-5, atol=1e-6)


def test_starts_of_other_members_are_refused():
    with pytest.raises(UserError, match=r"start holds members \[3, 2\], but there are 3 settings and 4 seeds"):
        population.sweep(going_on(), seeds=4, hypers=HYPERS, data=make_data(), start=STARTS)


def test_two_devices_give_what_one_gives():
    run, data = make_run(), make_data()
    one, two = (population.sweep(run, seeds=3, hypers=HYPERS, data=data, devices=jax.devices()[:n]) for n in (1, 2))
    assert (one.plan.devices, two.plan.devices) == (1, 2)
    assert same(one.state, two.state)


def test_frame_has_one_row_per_member_and_segment():
    result = population.sweep(make_run(), seeds=2, hypers=HYPERS, data=make_data())
    frame = result.frame()
    assert len(frame) == 3 * 2 * 4
    assert result.swept == ("learning_rate",)
    row = frame[(frame.setting == 2) & (frame.seed == 1) & (frame.segment == 3)].iloc[0]
    assert row["loss"] == result.metrics["loss"][2, 1, 3]
    assert row["update"] == 32
    assert row["learning_rate"] == np.float32(0.2)


def test_progress_is_told_after_every_segment_and_the_plan_once():
    seen, plans = [], []
    population.sweep(make_run(), seeds=2, hypers=HYPERS, data=make_data(), on_segment=seen.append, on_plan=plans.append)
    assert [p.updates for p in seen] == [8, 16, 24, 32]
    assert seen[0].metrics["loss"].shape == (3, 2)
    assert seen[-1].eta_seconds == 0
    assert len(plans) == 1
    assert "6 members" in str(plans[0])
    assert plans[0].state_bytes == 3 * 4 + 8


def test_the_data_is_an_argument_of_the_program_and_not_copied_per_member():
    run, data = make_run(evaluate=False), make_data(100_000)
    count = 6
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    hypers = jax.tree.map(lambda leaf: jnp.resize(leaf, count), HYPERS)

    def train(members, shared):
        return placement.over_members(lambda m, d: run.train(m[0], jnp.int32(0), m[1], m[2], d), 1)(members, shared)

    states = jax.vmap(run.init)(keys, hypers)
    lowered = jax.jit(train).lower((states, keys, hypers), data)
    assert len(lowered.as_text()) < 100_000
    assert lowered.compile().memory_analysis().argument_size_in_bytes < 1.1 * placement.tree_bytes(data)


def test_resume_is_bit_identical(tmp_path):
    run, data = make_run(), make_data()
    whole = population.sweep(run, seeds=3, hypers=HYPERS, data=data)

    class Stop(Exception):
        pass

    def stop_at_two(progress):
        if progress.segment == 2:
            raise Stop

    with pytest.raises(Stop):
        population.sweep(
            run, seeds=3, hypers=HYPERS, data=data, directory=tmp_path, save_seconds=0, on_segment=stop_at_two
        )
    seen = []
    again = population.sweep(
        run, seeds=3, hypers=HYPERS, data=data, directory=tmp_path, resume=True, on_segment=seen.append,
        devices=jax.devices()[:1],  # fewer devices than before: the result must not change
    )  # fmt: skip
    assert [p.segment for p in seen] == [3, 4]
    assert same(whole.state, again.state)
    assert all(np.array_equal(whole.metrics[name], again.metrics[name]) for name in whole.metrics)


def test_a_finished_sweep_resumes_to_itself(tmp_path):
    run, data = make_run(), make_data()
    first = population.sweep(run, seeds=2, hypers=HYPERS, data=data, directory=tmp_path)
    again = population.sweep(run, seeds=2, hypers=HYPERS, data=data, directory=tmp_path, resume=True)
    assert same(first.state, again.state)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    run, data = make_run(), make_data()
    whole = population.sweep(run, seeds=2, hypers=HYPERS, data=data, directory=tmp_path, save_seconds=0)
    newest = tmp_path / "4"
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 0:
            path.write_bytes(b"not a checkpoint")
    with pytest.warns(UserWarning, match=r"checkpoint 4 .* damaged"):
        again = population.sweep(run, seeds=2, hypers=HYPERS, data=data, directory=tmp_path, resume=True)
    assert same(whole.state, again.state)
    shutil.rmtree(newest)


def test_another_sweeps_checkpoint_is_refused(tmp_path):
    run, data = make_run(), make_data()
    population.sweep(run, seeds=2, hypers=HYPERS, data=data, directory=tmp_path)
    with pytest.raises(UserError, match="seeds differ"):
        population.sweep(run, seeds=[5, 6], hypers=HYPERS, data=data, directory=tmp_path, resume=True)


def test_bad_requests_are_refused():
    run, data = make_run(), make_data()
    with pytest.raises(UserError, match="distinct"):
        population.sweep(run, seeds=[1, 1], hypers=HYPERS, data=data)
    with pytest.raises(UserError, match="placement 'both'"):
        population.sweep(run, seeds=1, hypers=HYPERS, data=data, placement="both")
    with pytest.raises(UserError, match="chunk=0"):
        population.sweep(run, seeds=1, hypers=HYPERS, data=data, chunk=0)


def test_chunk_is_halved_until_the_program_fits(monkeypatch):
    def train(state, index, key, hyper, data):  # sorting needs its 80 kB at once, for every member side by side
        return state + jnp.sort(jax.random.normal(jax.random.fold_in(key, index), (20_000,)))[0], {"x": state}

    run = Run(lambda key, hyper: jnp.zeros(()), train, None, 1, 1)
    request = {"seeds": 8, "hypers": population.grid(Hyper()), "placement": "vmap", "devices": jax.devices()[:1]}
    sizes = {chunk: population.sweep(run, chunk=chunk, **request).plan.total_bytes for chunk in (2, 4, 8)}
    assert sizes[2] < sizes[4] < sizes[8]
    monkeypatch.setattr(placement, "memory_limit", lambda device: int(sizes[2] / 0.8) + 8)
    assert population.sweep(run, **request).plan.chunk == 2
    monkeypatch.setattr(placement, "memory_limit", lambda device: 100)
    with pytest.raises(UserError, match=r"8 members need .* take fewer seeds"):
        population.sweep(run, **request)


def failing_run(at=2):
    """The toy run, whose members with ``noise`` above 1 go NaN in segment ``at``."""
    run = make_run()

    def train(state, index, key, hyper, data):
        after, metrics = run.train(state, index, key, hyper, data)
        bad = (hyper.noise > 1) & (index == at)
        return {**after, "w": jnp.where(bad, jnp.nan, after["w"])}, metrics

    return dataclasses.replace(run, train=train)


@pytest.mark.parametrize("how", [{"placement": "map"}, {"placement": "vmap"}])
def test_a_member_that_goes_nan_is_frozen_marked_noted_and_harms_no_other(how):
    data, notes = make_data(), []
    hypers = population.grid(Hyper(), noise=[0.01, 2.0])
    result = population.sweep(failing_run(), seeds=[4, 7], hypers=hypers, data=data, on_note=notes.append, **how)
    np.testing.assert_array_equal(result.failed_at, [[-1, -1], [2, 2]])
    np.testing.assert_array_equal(result.metrics["alive"], [[[1, 1, 1, 1]] * 2, [[1, 1, 0, 0]] * 2])
    assert np.isfinite(result.metrics["loss"][1, :, :2]).all()
    assert np.isnan(result.metrics["loss"][1, :, 2:]).all()
    assert np.isnan(result.metrics["eval/return"][1, :, 2:]).all()
    good = population.sweep(make_run(), seeds=[4, 7], hypers=hypers, data=data, **how)
    np.testing.assert_array_equal(result.metrics["loss"][0], good.metrics["loss"][0])
    before = population.sweep(make_run(segments=2), seeds=[4, 7], hypers=hypers, data=data, **how)
    np.testing.assert_allclose(result.state["w"][1], before.state["w"][1], rtol=1e-6)  # the last finite state
    assert notes == [f"member {2 + i} (seed {s}, noise=2) went NaN in segment 3 and is frozen before it"
                     for i, s in enumerate([4, 7])]  # fmt: skip


def test_a_frozen_member_stays_frozen_after_a_resume(tmp_path):
    data, hypers = make_data(), population.grid(Hyper(), noise=[0.01, 2.0])
    whole = population.sweep(failing_run(), seeds=2, hypers=hypers, data=data, on_note=lambda note: None)

    def stop(progress):
        if progress.segment == 3:
            raise KeyboardInterrupt

    request = {"seeds": 2, "hypers": hypers, "data": data, "directory": tmp_path, "save_seconds": 0}
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="went NaN in segment 3"):
        population.sweep(failing_run(), on_segment=stop, **request)
    again = population.sweep(failing_run(), resume=True, **request)
    assert same(whole.state, again.state)
    np.testing.assert_array_equal(again.failed_at, whole.failed_at)


def test_initialisation_is_compiled_ahead_where_members_begin(monkeypatch, tmp_path):
    """With training and evaluation, and not at all where a checkpoint is there to go on from."""
    module, made = sys.modules["jaxrl_reg.population.sweep"], []
    compile_ = module.compile_programs
    monkeypatch.setattr(module, "compile_programs", lambda *args: made.append(compile_(*args)) or made[-1])
    request = {"seeds": 2, "hypers": population.grid(Hyper()), "data": make_data(), "directory": tmp_path}
    for _ in range(2):
        population.sweep(make_run(), resume=True, **request)
    begun, restored = made
    assert isinstance(begun.init, jax.stages.Compiled)
    assert not isinstance(restored.init, jax.stages.Compiled)
    assert begun.plan.compilations == restored.plan.compilations == 2 + (begun.evaluate is not None)
    assert begun.plan.trace_seconds > 0.0
    assert begun.plan.compile_seconds > 0.0


def test_infinities_from_the_start_are_no_failure():
    from jaxrl_reg.population.programs import unless_failed

    before = {"bound": jnp.array([jnp.inf, 1.0]), "n": jnp.array(1)}
    state, alive = unless_failed(before, {"bound": jnp.array([jnp.inf, 2.0]), "n": jnp.array(2)}, jnp.float32(1))
    assert (float(alive), float(state["bound"][1]), int(state["n"])) == (1, 2, 2)
    state, alive = unless_failed(before, {"bound": jnp.array([jnp.inf, jnp.inf]), "n": jnp.array(2)}, jnp.float32(1))
    assert (float(alive), float(state["bound"][1]), int(state["n"])) == (0, 1, 1)


@pytest.mark.parametrize("donated", [True, False])
def test_out_of_memory_at_run_time_goes_on_with_smaller_chunks(monkeypatch, tmp_path, donated):
    module, notes, chunks = sys.modules["jaxrl_reg.population.sweep"], [], []
    compile_, run, data = module.compile_programs, make_run(), make_data()

    def compile_small(*args):
        programs = compile_(*args)
        chunks.append(programs.plan.chunk)

        def train(states, alive, keys, hypers, index, data):
            if programs.plan.chunk > 2 and int(index) == 2:
                if donated:
                    jax.tree.map(lambda leaf: leaf.delete(), states)
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
            return programs.train(states, alive, keys, hypers, index, data)

        return dataclasses.replace(programs, train=train)

    request = {"seeds": 8, "hypers": population.grid(Hyper()), "data": data, "placement": "vmap"}
    request |= {"devices": jax.devices()[:1], "directory": tmp_path, "save_seconds": 0}
    monkeypatch.setattr(module, "compile_programs", compile_small)
    result = population.sweep(run, on_note=notes.append, **request)
    assert chunks == [8, 4, 2]
    assert [note.split(";")[0] for note in notes] == ["out of memory"] * 2
    assert "2 members side by side" in notes[1]
    monkeypatch.undo()
    whole = population.sweep(run, **{**request, "directory": None})
    np.testing.assert_allclose(result.metrics["loss"], whole.metrics["loss"], rtol=1e-5)


def refuse(monkeypatch, name, most):
    """The compiler of a device that plans its memory itself: a program ``name`` of more than ``most`` side by side does
    not fit."""
    from jaxrl_reg.population import programs

    made = getattr(programs, name)

    def of(run, chunk, *rest):
        function = made(run, chunk, *rest)

        def compile_():
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM\nmore of it")

        def lower(*args):
            lowered = function.lower(*args)
            return lowered if chunk <= most else types.SimpleNamespace(out_info=lowered.out_info, compile=compile_)

        return types.SimpleNamespace(lower=lower)

    monkeypatch.setattr(programs, name, of)


@pytest.mark.parametrize(("name", "chunks"), [("_training", (2, 8)), ("_evaluation", (8, 2))])
def test_chunks_are_halved_until_the_compiler_finds_that_they_fit(monkeypatch, name, chunks):
    module, made = sys.modules["jaxrl_reg.population.sweep"], []
    compile_ = module.compile_programs
    request = {"seeds": 8, "hypers": population.grid(Hyper()), "data": make_data(), "placement": "vmap"}
    request |= {"devices": jax.devices()[:1]}
    whole = population.sweep(make_run(), **request)
    refuse(monkeypatch, name, 2)
    monkeypatch.setattr(module, "compile_programs", lambda *args: made.append(compile_(*args)) or made[-1])
    found = population.sweep(make_run(), **request)
    assert (made[0].plan.chunk, made[0].evaluation_chunk) == chunks
    np.testing.assert_allclose(found.metrics["loss"], whole.metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(found.metrics["eval/return"], whole.metrics["eval/return"], rtol=1e-4)


def test_one_member_that_the_compiler_refuses_is_one_line(monkeypatch):
    refuse(monkeypatch, "_training", 0)
    with pytest.raises(UserError, match=r"one member does not fit: .*Ran out of memory on HBM; take a smaller network"):
        population.sweep(make_run(), seeds=2, hypers=population.grid(Hyper()), data=make_data())


def test_other_errors_of_the_runtime_are_not_taken_for_memory(monkeypatch):
    module = sys.modules["jaxrl_reg.population.sweep"]
    compile_ = module.compile_programs

    def train(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(module, "compile_programs", lambda *args: dataclasses.replace(compile_(*args), train=train))
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        population.sweep(make_run(), seeds=2, hypers=population.grid(Hyper()), data=make_data())


def test_a_full_disk_loses_no_checkpoint(tmp_path):
    """The files that a process may write are cut off in the middle of the third checkpoint, for real."""
    resource = pytest.importorskip("resource")
    rows = 20_000  # 80 kB of random numbers in the state of every member

    def init(key, hyper):
        return jax.random.normal(key, (rows,))

    def train(state, index, key, hyper, data):
        return state + jax.random.normal(jax.random.fold_in(key, index), (rows,)), {"x": state[0]}

    run, request = Run(init, train, None, 4, 1), {"seeds": 4, "hypers": population.grid(Hyper())}
    whole = population.sweep(run, **request)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress):
        if progress.segment == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    request |= {"directory": tmp_path, "save_seconds": 0}
    try:
        with pytest.raises(UserError, match=r"could not write checkpoint 3 .* the previous one is intact"):
            population.sweep(run, on_segment=fill, **request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    seen = []
    again = population.sweep(run, resume=True, on_segment=seen.append, **request)
    assert [progress.segment for progress in seen] == [3, 4]
    assert same(whole.state, again.state)


CHILD = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {root!r})
    from jaxrl_reg import population
    from tests.population.toy import long_sweep
    def tell(progress):
        print(progress.segment, flush=True)
        time.sleep(0.02)
    try:
        long_sweep(directory=sys.argv[1], save_seconds=0, resume=True, on_segment=tell)
    except population.Interrupted as stop:
        print(stop, flush=True)
        sys.exit(130)
    """
)


def child(directory):
    root = str(__import__("pathlib").Path(__file__).parents[2])
    command = [sys.executable, "-W", "ignore", "-c", CHILD.format(root=root), str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_bit_identical(tmp_path):
    # SIGKILL right after a random segment was announced: the save of the next one may be under way.
    generator = random.Random(0)
    for kill in range(3):
        process = child(tmp_path / "killed")
        for _ in range(generator.randint(2, 8)):
            process.stdout.readline()
        time.sleep(generator.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"kill {kill} came too late to test anything"
    told, whole = [], long_sweep()
    killed = long_sweep(directory=tmp_path / "killed", resume=True, on_segment=lambda now: told.append(now.segment))
    assert 3 < told[0] < 40, "did not resume"
    assert same(killed.state, whole.state)
    assert killed.metrics.keys() == whole.metrics.keys()
    for name in whole.metrics:
        np.testing.assert_array_equal(killed.metrics[name], whole.metrics[name])


@pytest.mark.slow
def test_interrupt_saves_the_finished_segments(tmp_path):
    process = child(tmp_path / "c")
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped after segment" in out
    from jaxrl_reg.io import checkpoint

    assert max(checkpoint.steps(tmp_path / "c")) >= 3


def test_plan_counts_padding():
    plan = placement.Plan(members=5, devices=2, chunk=1, platform="cpu", state_bytes=10, data_bytes=7)
    assert plan.per_device == 3
    assert plan.total_bytes == 7 + 3 * 3 * 10  # before, after, and on the host, which is the same memory
    assert dataclasses.replace(plan, platform="gpu").total_bytes == 7 + 2 * 3 * 10
    assert dataclasses.replace(plan, chunk=4).per_device == 4
