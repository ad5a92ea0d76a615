import _imp
import errno
import json
import os
import signal
import subprocess
import sys
import time
from importlib.machinery import ExtensionFileLoader

import pytest

from jaxrl_reg import cli, jobs
from jaxrl_reg.cli.parser import intro
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.files import WriteError
from tests.pointnav_data import save_pointnav


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Runs and data sets land in an empty directory, and the suite's own backend settings stay."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "prepare", lambda: None)


def command(line, capsys):
    status = cli.main(line.split())
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def config(line):
    return cli.config_of(cli.parse(line.split()))


def test_options_become_the_fields_of_the_config():
    parsed = config(
        "sweep --env pointnav --agent iql --grid expectile=0.7,0.9 --grid temperature=log:1:100:3 --set discount=0.995 "
        "--set hidden=32,32 --sample tau=log:0.001:0.1 --draws 8 --design sobol "
        "--seeds 3 --seed-offset 7 --updates 2e4 --hidden 16,16 --chunk 4 --tensorboard --scale full"
    )
    assert parsed.grid == {"expectile": (0.7, 0.9), "temperature": pytest.approx((1.0, 10.0, 100.0))}
    assert (parsed.sample, parsed.draws, parsed.design) == ({"tau": "log:0.001:0.1"}, 8, "sobol")
    assert parsed.settings == {"discount": "0.995", "hidden": "32,32"}
    assert (parsed.seeds, parsed.seed_offset, parsed.updates, parsed.chunk) == (3, 7, 20_000, 4)
    assert (parsed.hidden, parsed.tensorboard, parsed.scale) == ((16, 16), True, "full")
    assert parsed.batch_size is None
    assert config("sweep") == jobs.SweepConfig()


def test_scale_fills_in_only_what_is_left_open():
    resolved = jobs.resolve(config("sweep --seeds 2"))
    assert (resolved.seeds, resolved.updates) == (2, jobs.SCALES["small"]["updates"])
    full = jobs.resolve(config("sweep --scale full"))
    assert (full.seeds, full.hidden) == (16, None)  # the agent's own network


def test_linear_grid():
    assert config("sweep --grid tau=lin:0:1:3").grid == {"tau": (0.0, 0.5, 1.0)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("swep", "unknown command 'swep'; did you mean 'sweep'?"),
        ("sweep --sead 3", "unknown flag '--sead'; did you mean '--seeds'?"),
        ("sweep --see 3", "unknown flag '--see'; did you mean '--seeds'?"),  # no abbreviations
        (
            "sweep --actor-bc-coef 1",
            "unknown flag '--actor-bc-coef'; a hyperparameter is given as --set actor_bc_coef=",
        ),
        ("sweep --distributed 10.0.0.1,2", "--distributed takes HOST:PORT,N,I such as 10.0.0.1:1234,2,0"),
        ("train --grid alpha=1", "unknown flag '--grid' for jaxrl-reg train; it belongs to: jaxrl-reg sweep"),
        ("sweep --agent rebrc", "unknown agent 'rebrc'; did you mean 'rebrac'?"),
        ("sweep --env pendulm", "unknown environment 'pendulm'; did you mean 'pendulum'?"),
        ("sweep --env pendulum --dataset medum", "unknown data set 'medum'; did you mean 'medium'?"),
        ("sweep --env pendulum --dataset my/data.hdf5", "data set my/data.hdf5 does not exist"),
        (
            "sweep --grid actor_bc=1,2",
            "unknown hyperparameter or setting of rebrac 'actor_bc'; did you mean 'actor_bc_coef'?",
        ),
        ("sweep --set discont=0.9", "'discont'; did you mean 'discount'?"),
        ("sweep --set discount=high", "discount='high' is not a number"),
        ("sweep --set hidden=big", "hidden='big' is not numbers such as 64,64 or 64x64"),
        ("sweep --set policy_freq=1.5", "policy_freq='1.5' is not a whole number"),
        ("sweep --grid hidden=64x64,64y", "hidden='64y' is not numbers such as 64,64 or 64x64"),
        ("sweep --grid tau=low,high", "tau='low' is not a number"),
        ("sweep --sample tau=log:0:1", "tau='log:0:1' needs 0 < LOW < HIGH"),
        ("sweep --sample tau=lin:1", "tau='lin:1' needs two numbers: lin:LOW:HIGH"),
        ("sweep --sample tau=unif:0:1", "tau='unif:0:1' is not log:LOW:HIGH, lin:LOW:HIGH or value,value,..."),
        ("sweep --sample tua=lin:0:1", "unknown hyperparameter or setting of rebrac 'tua'; did you mean 'tau'?"),
        ("sweep --sample policy_freq=lin:1:4", "'policy_freq' changes the program and cannot be drawn from a range"),
        ("sweep --sample tau=lin:0:1 --grid tau=1", "'tau' is in the grid and drawn as well"),
        ("sweep --sample tau=lin:0:1 --set tau=1", "'tau' is both swept and fixed"),
        ("sweep --sample tau=lin:0:1 --design sobl", "unknown design 'sobl'; did you mean 'sobol'?"),
        ("sweep --early-stop halfing", "unknown stopping rule 'halfing'; did you mean 'halving'?"),
        ("sweep --sample tau=lin:0:1 --draws 0", "draws=0 must be at least 1"),
        ("train --sample tau=lin:0:1", "unknown flag '--sample' for jaxrl-reg train; it belongs to: jaxrl-reg sweep"),
        ("sweep --grid tau=1,1", "grid of 'tau' repeats a value: 1, 1"),
        ("sweep --grid tau=1 --grid tau=2", "--grid tau is given twice"),
        ("sweep --grid tau=0.1 --set tau=0.2", "'tau' is both swept and fixed"),
        ("sweep --grid tau", "'tau' is not name=value"),
        ("sweep --grid tau=log:0:1:3", "is not name=number,number"),
        ("sweep --seeds three", "argument --seeds: 'three' is not a whole number"),
        ("sweep --seeds 0", "seeds=0 must be at least 1"),
        ("sweep --seeds", "argument --seeds: expected one argument"),
        ("sweep --updates 1001", "updates=1001 is not a multiple of segments=10; 1000 would be"),
        ("sweep --placement side", "unknown placement 'side'"),
        ("sweep --chunk 0", "chunk=0 must be at least 1"),
        ("sweep --scale huge", "unknown scale 'huge'"),
        ("sweep --agent ppo --dataset medium", "agent 'ppo' learns from its own fresh experience"),
        ("sweep 3", "unexpected argument '3'"),
        ("evaluate", "the following arguments are required: RUN"),
        ("evaluate nowhere", "nowhere is not a run directory"),
        ("report nowhere", "nowhere is not a run directory"),
        ("resume nowhere", "nowhere is not a run directory"),
        ("list agent", "unknown topic 'agent'; did you mean 'agents'?"),
        ("list agents iql", "'list hyperparameters' take a name"),
        ("list envs tokens/revers", "unknown environment 'tokens/revers'; did you mean 'tokens/reverse'?"),
        ("list hyperparameters iqll", "unknown agent 'iqll'; did you mean 'iql'?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(line, message, capsys, tmp_path):
    status, out, err = command(line, capsys)
    assert status == 2
    assert message in err
    assert err.startswith("jaxrl-reg: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []  # nothing is written before the config is known to be good


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("{}", "not the config of a run"),
        ('{"format": 1, "config": {"sead": 1}}', "not the config"),
    ],
)
def test_a_damaged_run_directory_is_one_line(content, message, capsys, tmp_path):
    (tmp_path / "config.json").write_text(content)
    status, _, err = command("resume .", capsys)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_an_existing_run_is_not_overwritten(capsys, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    status, _, err = command("sweep --env pendulum --out old", capsys)
    assert status == 2
    assert "old already holds a run; continue it with: jaxrl-reg resume old" in err
    assert (tmp_path / "old" / "config.json").read_text() == "{}"


@pytest.mark.parametrize("line", ["--help", "sweep --help", "list --help", "", "--version"])
def test_help_and_version(line, capsys):
    status, out, err = command(line, capsys)
    assert (status, err) == (0, "")
    assert "jaxrl-reg" in out
    if line == "sweep --help":
        assert "--grid actor_bc_coef=0.0,0.01,0.1,1.0" in out
        assert all(f"--{name.replace('_', '-')}" in out for name in ("seed_offset", "eval_episodes", "collect_steps"))


def test_help_is_fast_because_it_does_not_import_jax():
    code = (
        "import sys, jaxrl_reg.cli as cli; status = cli.main(['sweep', '--help']);"
        "loaded = {'jax', 'numpy', 'pandas', 'flax', 'rich'} & set(sys.modules);"
        "sys.exit(str(loaded) if loaded else status)"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=_root())
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 10  # 0.2 s on a quiet machine


def test_the_examples_in_the_help_mean_what_they_say():
    from jaxrl_reg import envs

    texts = (intro(), *(verb.examples for verb in cli.VERBS.values()))
    lines = [line.split()[1:] for text in texts for line in text.splitlines() if line.startswith("  jaxrl-reg ")]
    assert len(lines) > 8
    for line in lines:
        arguments = cli.parse(line)
        if line[0] in ("sweep", "train"):
            config = jobs.resolve(cli.config_of(arguments))
            students = jobs.learners(config.agent, config)
            assert set(students[0].swept) == ({"slot"} if config.evolve else {*config.grid, *config.sample})
            assert config.env in envs.names()
            assert config.kind != "offline" or jobs.dataset_path(config) is not None


def test_list_shows_agents_environments_and_data_sets(capsys, tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mine.hdf5").write_bytes(b"")
    status, out, _ = command("list", capsys)
    assert status == 0
    for text in ("rebrac", "offline", "Tarasov", "pendulum", "brax/hopper", "medium-replay", "mine.hdf5"):
        assert text in out


def test_a_closed_pipe_is_no_error(close_pipe):
    errors = close_pipe()
    assert cli.main(["list"]) == 0
    assert errors.closed  # so that the interpreter's own complaint at exit is not seen either


def test_list_envs_gives_the_settings_of_one(capsys):
    status, out, _ = command("list envs tokens/reverse", capsys)
    assert status == 0
    assert out.split("\n", 1)[1].split() == ["base", "10", "shortest", "3", "longest", "6", "prefix"]
    assert "episode_length" in command("list envs pointnav", capsys)[1]


def test_list_hyperparameters_gives_default_meaning_and_paper(capsys):
    status, out, _ = command("list hyperparameters iql", capsys)
    assert status == 0
    assert out.startswith("iql: Offline Reinforcement Learning with Implicit Q-Learning")
    line = next(line for line in out.splitlines() if line.strip().startswith("expectile"))
    assert line.split()[1] == "0.7"
    assert len(line.split()) > 3
    assert "td3_bc" not in out


def test_env_is_what_a_bug_report_needs(capsys):
    status, out, _ = command("env", capsys)
    assert status == 0
    for name in ("python", "jax ", "jaxlib", "devices", "XLA_FLAGS", "compilation cache"):
        assert any(line.startswith(name) for line in out.splitlines())


def test_prepare_gives_one_device_per_core_flags_and_a_cache(tmp_path):
    code = (
        "import jaxrl_reg.cli as cli; cli.prepare(); import jax, os;"
        "print(len(jax.devices()), len(os.sched_getaffinity(0)), jax.config.jax_compilation_cache_dir);"
        "print(os.environ['XLA_FLAGS']); import gc; print(gc.get_threshold()[0])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    environment = clean | {
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(tmp_path),
        "XLA_FLAGS": "--xla_backend_optimization_level=1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=_root(), env=environment
    )
    assert done.returncode == 0, done.stderr
    first, flags, objects = done.stdout.splitlines()
    devices, cores, cache = first.split()
    assert devices == cores
    assert cache == str(tmp_path / "jaxrl-reg")
    assert flags.startswith("--xla_backend_optimization_level=1 ")
    assert flags.endswith("--xla_cpu_enable_concurrency_optimized_scheduler=false")
    assert int(objects) >= 100_000  # new objects between two searches for garbage; a trace makes millions that stay


def test_progress_says_how_far_how_fast_and_how_long():
    tick = jobs.Tick("iql", 2_000, 20_000, 1_234.4, 3_723.0, 12.34)
    assert cli.progress_text(tick) == "2,000 of 20,000  1,234 updates/s  1:02:03 left  score 12.3"
    assert cli.progress_text(tick._replace(eta_seconds=42.4, score=None)).endswith("0:42 left")


def test_the_live_table_shows_the_best_members_and_counts_the_rest():
    import io

    from rich.console import Console

    members = [jobs.Standing(f"bc_coef={i}", i, 2_000, 50.0 - i) for i in range(20)]
    members += [
        jobs.Standing("bc_coef=9", 1, 1_000, 3.0, "stopped"),
        jobs.Standing("x", 2, 2_000, float("nan"), "diverged"),
    ]
    rows = cli.member_rows(members, 3)
    assert rows[1] == ["bc_coef=0", "0", "2,000", "50.0", ""]
    assert [row[0] for row in rows[1:]] == ["bc_coef=0", "bc_coef=1", "bc_coef=2", "and 19 more, 1 diverged, 1 stopped"]
    assert cli.member_rows(members[-1:], 3)[1] == ["x", "2", "2,000", "", "diverged"]
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=14, highlight=False)
    with cli.Display(console) as display:
        display.tick(jobs.Tick("td3_bc", 2_000, 4_000, 100.0, 20.0, 50.0, members=members))
        display.say("a line above")
    text = out.getvalue()
    assert "bc_coef=5" in text
    assert "bc_coef=6" not in text  # no room on so small a terminal
    assert "2,000 of 4,000" in text
    assert "a line above" in text


def _root():
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _interrupt_when(process, text):
    """Read the output until a line holds ``text``, then press Ctrl-C; returns everything that was said."""
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            process.send_signal(signal.SIGINT)
            break
    said.append(process.communicate(timeout=120)[0])
    return "".join(said)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    """A real process, interrupted while it trains; what it has done by then is in its checkpoint and its metrics."""
    import pandas as pd

    from jaxrl_reg.io import checkpoint

    path = save_pointnav(tmp_path / "data.hdf5")
    line = (
        f"sweep --env pointnav --agent percent_bc --dataset {path} --seeds 2 --updates 4000 --segments 400 "
        "--batch-size 16 --hidden 8,8 --eval-episodes 4 --out run"
    )
    environment = os.environ | {"PYTHONPATH": _root()}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "jaxrl_reg.cli", *line.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    try:
        said = _interrupt_when(process, "bc: 20 of 4,000")
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "stopped; go on with: jaxrl-reg resume run" in said
    assert "Traceback" not in said
    assert said.index("2 members") < said.index("traced in") < said.index("bc: 10 of 4,000")
    (done,) = checkpoint.steps(tmp_path / "run" / "checkpoints" / "bc")
    assert 2 <= done < 400
    frame = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert frame["segment"].max() == done - 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["agent"] == "percent_bc"


def test_a_user_error_is_shown_in_one_line_whatever_its_text(capsys, monkeypatch):
    def fail(_):
        raise UserError("first\nsecond")

    monkeypatch.setitem(cli.VERBS, "env", cli.VERBS["env"]._replace(call=fail))
    status, _, err = command("env", capsys)
    assert (status, err) == (2, "jaxrl-reg: first second\n")


@pytest.fixture(autouse=True)
def interruptible():
    """As at a terminal: a shell that starts the tests in its background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def swallowed():
    """Ctrl-C in a library that makes another error of it."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("initialisation of an extension failed") from None


def in_an_extension():
    """Ctrl-C while an extension module is loaded, which an exception may crash; it waits until that is done."""

    def load(spec):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print("crash")
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_imp, "create_dynamic", load)
        ExtensionFileLoader("numbers_in_c", "nowhere.so").create_module("spec")
        time.sleep(5)
    raise AssertionError("the interrupt is lost")


def in_a_destructor():
    class Thing:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    Thing()
    time.sleep(5)
    raise AssertionError("the interrupt is lost")


@pytest.mark.parametrize("press", [swallowed, in_a_destructor, in_an_extension])
def test_ctrl_c_is_one_line_wherever_it_comes(press, capsys, monkeypatch):
    monkeypatch.setitem(cli.VERBS, "env", cli.VERBS["env"]._replace(call=lambda _: press()))
    status, out, err = command("env", capsys)
    assert (status, out, err) == (130, "", "jaxrl-reg: stopped; run the same command again to go on\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert command("list envs", capsys)[0] == 0  # nothing of it is left for the next command


@pytest.mark.parametrize("press", [swallowed, in_a_destructor])
def test_ctrl_c_in_a_job_says_how_to_go_on(press, capsys, monkeypatch, tmp_path):
    def job(config, *, directory, **_):
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        press()

    monkeypatch.setattr(jobs, "sweep", job)
    assert command("sweep --out run", capsys) == (130, "stopped; go on with: jaxrl-reg resume run\n", "")


@pytest.mark.parametrize("started", [True, False])
def test_a_full_disk_says_how_to_go_on(started, capsys, monkeypatch):
    def job(config, *, directory, **_):
        directory.mkdir()
        if started:
            (directory / "config.json").write_text("{}")
        raise WriteError("could not write run/metrics.parquet: No space left on device")

    monkeypatch.setattr(jobs, "sweep", job)
    status, _, err = command("sweep --out run", capsys)
    go_on = "go on with: jaxrl-reg resume run" if started else "run the same command again to go on"
    assert status == 2
    assert err == f"jaxrl-reg: could not write run/metrics.parquet: No space left on device; make room, then {go_on}\n"


def test_standard_output_on_a_full_disk_is_one_line(capsys, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(cli.VERBS, "env", cli.VERBS["env"]._replace(call=full))
    assert command("env", capsys) == (2, "", "jaxrl-reg: No space left on device: standard output\n")


def test_collect_explores_without_a_task(tmp_path, capsys):
    line = f"collect --env pointnav --behavior random --steps 320 --data-dir {tmp_path}"
    status, out, _ = command(line, capsys)
    assert status == 0
    assert "cells of (x, y) visited" in out
    assert (tmp_path / "pointnav" / "random.hdf5").is_file()
    status, _, err = command("collect --env pointnav --behavior curious", capsys)
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown behavior 'curious'; known: diayn, random, rnd" in err
