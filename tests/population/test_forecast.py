"""Plans for accelerators that are not there: the reader of compiled programs, the arithmetic, what is said of a missing
compiler. No compiler is needed here; the programs are short ones written by hand."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from jaxrl_reg import cli, jobs
from jaxrl_reg.cli import planning
from jaxrl_reg.errors import UserError
from jaxrl_reg.population import forecast, kernels, targets
from jaxrl_reg.types import Run

PROGRAM = """HloModule jit_train, is_scheduled=true

%fused_dot (a: f32[8,4], b: f32[4,16]) -> f32[8,16] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[4,16]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,16]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%inner_body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]{1,0}) parameter(0)
  %x = f32[8,16]{1,0} get-tuple-element(%p), index=1
  %y = f32[8,16]{1,0} fusion(%x), kind=kLoop, calls=%fused_add
  ROOT %t = (s32[], f32[8,16]{1,0}) tuple(%i, %y)
}

%with_actor (p: f32[8,16]) -> f32[8,16] {
  %p = f32[8,16]{1,0} parameter(0)
  %k = f32[8,16]{1,0} fusion(%p), kind=kLoop, calls=%fused_add
  %l = f32[8,16]{1,0} fusion(%k), kind=kLoop, calls=%fused_add
  ROOT %c = f32[8,16]{1,0} copy(%l)
}

%without (p: f32[8,16]) -> f32[8,16] {
  ROOT %p = f32[8,16]{1,0} parameter(0)
}

%update_body (p: (s32[], f32[8,4], f32[4,16])) -> (s32[], f32[8,4], f32[4,16]) {
  %p = (s32[], f32[8,4]{1,0}, f32[4,16]{1,0}) parameter(0)
  %a = f32[8,4]{1,0} get-tuple-element(%p), index=1
  %b = f32[4,16]{1,0} get-tuple-element(%p), index=2
  %gemm = f32[8,16]{1,0} fusion(%a, %b), kind=kCustom, calls=%fused_dot, metadata={op_name="jit(train)/while/body/dot"}
  %sorted = (f32[8]{0}, s32[8]{0}) sort(%c, %d), dimensions={0}, to_apply=%compare
  %moved = f32[8,16]{1,0} copy(%gemm)
  %loop = (s32[], f32[8,16]{1,0}) while(%init), condition=%inner_condition, body=%inner_body, backend_config={"known_trip_count":{"n":"5"}}
  %side = f32[8,16]{1,0} conditional(%flag, %moved, %moved), branch_computations={%without, %with_actor}
  ROOT %t = (s32[], f32[8,4]{1,0}, f32[4,16]{1,0}) tuple(%i, %a, %b)
}

ENTRY %main (s: f32[8,4]) -> f32[8,4] {
  %s = f32[8,4]{1,0} parameter(0)
  %w = (s32[], f32[8,4]{1,0}, f32[4,16]{1,0}) while(%init), condition=%condition, body=%update_body, backend_config={"known_trip_count":{"n":"500"}}
  ROOT %r = f32[8,4]{1,0} get-tuple-element(%w), index=1
}
"""  # noqa: E501


def test_a_turn_of_the_loop_over_updates_is_counted_with_what_lies_inside():
    counted = kernels.main_loop(PROGRAM)
    assert counted.launches == 2 + 5 * 1 + 2, "a product and a sort, five turns of the loop inside, the longer side"
    assert counted.copies == 1 + 1
    assert counted.branches == 1
    assert counted.turns == 500
    assert counted.unknown == 0
    assert counted.flops == 2 * 8 * 4 * 16


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    unknown = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"5"}}', "")
    counted = kernels.main_loop(unknown)
    assert (counted.launches, counted.unknown) == (2 + 1 + 2, 1)


def test_a_program_without_a_loop_is_counted_whole():
    entry = "HloModule jit_f\n\nENTRY %main (a: f32[2]) -> f32[2] {\n  %a = f32[2]{0} parameter(0)\n"
    counted = kernels.main_loop(entry + "  ROOT %b = f32[2]{0} fusion(%a), kind=kLoop, calls=%f\n}\n")
    assert (counted.launches, counted.copies, counted.turns) == (1, 0, None)


def test_needed_products_are_counted_through_loops_and_conditions():
    def program(x, flag):
        def body(y, _):
            y = jax.lax.cond(flag, lambda: y @ x @ x, lambda: y @ x)
            return jnp.tanh(y), None

        return jax.lax.scan(jax.jit(body), x, None, length=3)[0]

    flops, known = forecast.needed_flops(jax.make_jaxpr(program)(jnp.ones((4, 4)), True).jaxpr)
    assert flops == 3 * 2 * (2 * 4**3)
    assert known
    until = jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 3, lambda y: y @ y, x))(jnp.ones((4, 4)))
    assert forecast.needed_flops(until.jaxpr) == (2 * 4**3, False)


def example(**changes):
    one = forecast.Forecast(
        target="h100", members=100, chunk=10, fit=70, state_bytes=1_000, temporary_bytes=3_000, data_bytes=500,
        launches=50.0, branches=1.0, copies=2.0, unknown_loops=0, flops=1e6, used_flops=2e6, compile_seconds=1.0,
    )  # fmt: skip
    return dataclasses.replace(one, **changes)


def test_the_estimate_is_the_slower_of_launching_and_computing():
    card = targets.TARGETS["h100"]
    few = example()
    assert few.launch_seconds == pytest.approx(52 * targets.GPU_LAUNCH + targets.GPU_BRANCH)
    assert (few.bound, few.updates_per_second) == ("launches", pytest.approx(10 / few.launch_seconds))
    products = example(used_flops=1e12)
    assert products.bound == "compute"
    assert products.seconds_per_update == pytest.approx(1e12 / (targets.REACHED * card.flops))
    traffic = example(state_bytes=10**9)
    assert traffic.seconds_per_update == pytest.approx(2 * 10 * (10**9 + 3_000) / card.bandwidth)
    assert "estimate" in " ".join(few.lines())
    assert "2.00 of them done" in " ".join(few.lines())
    broken = example(error="RuntimeError: no")
    assert broken.updates_per_second == 0.0
    assert "does not compile" in broken.lines()[0]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_target_says_where_its_figures_come_from(name):
    one = targets.target(name)
    assert one.source in forecast.constants(name)
    assert "assumed" in forecast.constants(name)


def test_the_help_names_every_target():
    assert tuple(targets.TARGETS) == planning.DEVICES


def test_what_is_missing_or_unknown_is_one_line(monkeypatch, capsys):
    with pytest.raises(UserError, match="did you mean 'h100'"):
        targets.device("h10")
    monkeypatch.setattr(targets, "_found", lambda module: False)
    for name, extra in (("h100", "plan-cuda"), ("tpu-v6e", "plan-tpu")):
        with pytest.raises(UserError) as error:
            jobs.plan(jobs.SweepConfig(env="pointnav", agent="iql"), name)
        assert f'pip install "jaxrl-reg[{extra}]"' in str(error.value)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(cli, "prepare", lambda: None)
    assert cli.main(["plan", "--for", "l40s", "--env", "pointnav"]) == 2
    assert "plan-cuda" in capsys.readouterr().err


def compiled_here(monkeypatch):
    """The CPU of this machine stands for an accelerator: the path is the same, the counts are those of its program."""
    monkeypatch.setattr(targets, "device", lambda name: jax.devices("cpu")[0])
    monkeypatch.setitem(targets.TARGETS, "h100", targets.TARGETS["h100"]._replace(platform="cpu"))


def test_a_run_that_goes_on_is_planned_from_the_shapes_of_its_states(monkeypatch, tmp_path, capsys):
    compiled_here(monkeypatch)

    def train(state, index, key, hyper, data):
        return state * hyper["rate"], {"loss": state.sum()}

    run = Run(lambda key, hyper, begun: begun, train, None, 1, 1)
    start = jax.ShapeDtypeStruct((2, 3, 7), jnp.float32)
    one = forecast.plan_for(run, "h100", seeds=3, hypers={"rate": jnp.ones(2)}, start=start)
    assert (one.error, one.members, one.state_bytes) == ("", 6, 4 * 7)

    stays = Run(run.init, lambda state, index, key, hyper, data: (state, {"loss": state.sum()}), None, 1, 1)
    none = forecast.plan_for(stays, "h100", seeds=3, hypers={"rate": jnp.ones(2)}, start=start)
    assert (one.trains, none.trains, none.updates_per_second) == (True, False, 0.0)
    assert "no program of training" in none.lines()[0]
    assert not any("estimate" in line for line in none.lines())

    monkeypatch.setattr(cli, "prepare", lambda: None)
    assert cli.main(["plan", "--for", "h100", "--finetune", str(tmp_path), "--seeds", "3"]) == 2
    assert "--seeds is as the offline run has it" in capsys.readouterr().err


@pytest.mark.parametrize(("most", "error"), [(2, ""), (0, "RESOURCE_EXHAUSTED")])
def test_a_compiler_that_plans_the_memory_itself_has_its_say(most, error, monkeypatch):
    """A TPU's refuses what does not fit, where that of a GPU compiles it and leaves the rest to the run."""
    compiled_here(monkeypatch)
    compile_for, sizes = targets.compile_for, []

    def refusing(device, platform, function, states, *rest, **options):
        sizes.append(states.shape[0] if states.ndim > 2 else 1)
        if sizes[-1] > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM")
        return compile_for(device, platform, function, states, *rest, **options)

    monkeypatch.setattr(targets, "compile_for", refusing)

    def train(state, index, key, hyper, data):
        return state @ state * hyper["rate"], {"loss": state.sum()}

    run = Run(lambda key, hyper: jnp.eye(3), train, None, 1, 1)
    one = forecast.plan_for(run, "h100", seeds=4, hypers={"rate": jnp.ones(2)})
    assert sizes == ([8, 4, 2] if most else [8, 4, 2, 1])
    assert one.chunk == sizes[-1]
    assert error in one.error
    assert bool(error) == ("does not compile" in one.lines()[0])


@pytest.mark.parametrize("told", [True, False])
def test_counts_are_per_update_where_a_turn_has_several(told, monkeypatch):
    """A TPU's compiler does not write down how often a loop turns; then the traced program tells."""
    compiled_here(monkeypatch)
    read = kernels.main_loop
    monkeypatch.setattr(kernels, "main_loop", lambda text: read(text)._replace(turns=5 if told else None, launches=12))

    def train(state, index, key, hyper, data):
        def once(state, _):
            inner, _ = jax.lax.scan(lambda x, _: (x @ x, None), state, length=7)
            return inner, None

        first = jax.lax.fori_loop(0, index + 100, lambda _, x: x + 1, state)
        return jax.jit(lambda x: jax.lax.scan(once, x, length=5)[0])(first), {"loss": state.sum()}

    run = Run(lambda key, hyper: jnp.eye(3), train, None, 1, 10)
    one = forecast.plan_for(run, "h100", seeds=1, hypers={"rate": jnp.ones(1)})
    assert (one.unit, one.launches) == ("update", 6)  # 10 updates in 5 turns of 12 launches
    assert one.flops == 5 * 7 * 2 * 3**3 / 10


@pytest.mark.parametrize(("agent", "kind"), [("td3_bc", "offline"), ("ppo", "online")])
def test_programs_of_every_kind_of_run_are_planned(agent, kind, monkeypatch, tmp_path):
    compiled_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    sizes = {"hidden": (8,), "seeds": 2, "segments": 1, "env": "pointnav", "agent": agent}
    sizes |= {"updates": 4, "collect_steps": 500} if kind == "offline" else {"steps": 64, "num_envs": 4, "unroll": 8}
    said = []
    (first, *others) = jobs.plan(jobs.kinds.load(kind).Config(**sizes), "h100", evaluation=False, say=said.append)
    assert [one.label for one in others] == (["bc"] if kind == "offline" else [])
    one = first.forecast
    assert (one.error, one.members, one.chunk) == ("", 2, 2)
    assert one.launches > 0
    assert one.flops > 0
    assert one.fit > 1_000
    assert one.unit == "update", "an iteration of ppo is one update"
    assert any("noise" in line for line in said) == (kind == "offline")
    assert not list(tmp_path.iterdir()), "a plan writes nothing"


def test_a_population_that_moves_and_an_agent_that_serves_tasks_are_planned_from_the_command_line(
    monkeypatch, tmp_path, capsys
):
    compiled_here(monkeypatch)
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.chdir(tmp_path)
    small = [
        "--env",
        "pointnav",
        "--segments",
        "2",
        "--updates",
        "4",
        "--eval-episodes",
        "2",
        "--collect-steps",
        "500",
        "--hidden",
        "8",
    ]
    plan = ["plan", "--for", "h100", *small]
    moving = ["--agent", "bc", "--sample", "learning_rate=log:0.0001:0.01", "--draws", "3", "--seeds", "2", "--evolve"]
    assert cli.main([*plan, *moving, "--training-only"]) == 0
    told = capsys.readouterr().out
    assert "6 members, 6 side by side" in told
    assert "a population of 3 for each of 2 seeds" in told

    assert cli.main([*plan, "--agent", "sf_laplacian", "--seeds", "1", "--dataset", "rnd"]) == 0
    told = capsys.readouterr().out
    assert "noise stand for it" in told
    assert told.count("evaluation compiles too") == 2, "of the agent on all tasks, and of its rival"
    assert not list(tmp_path.iterdir()), "a plan writes nothing"


@pytest.mark.parametrize(
    "complaint", ["INTERNAL: Couldn't find output tile sizes that satisfy hlo: %dot.1", "no memory"]
)
def test_where_no_tiles_are_found_products_are_left_to_the_library(monkeypatch, complaint):
    asked = []

    class Stages:  # tracing and lowering give this again
        def trace(self, *shapes):
            return self

        def lower(self, lowering_platforms):
            return self

        def compile(self, compiler_options=None):
            asked.append(compiler_options)
            if compiler_options is None:
                raise jax.errors.JaxRuntimeError(complaint)
            return "program"

    monkeypatch.setattr(targets.jax, "jit", lambda function, donate_argnums: Stages())
    compile_it = lambda: targets.compile_for(jax.devices()[0], "cuda", lambda x: x, jnp.zeros(2))  # noqa: E731
    if "tile" in complaint:
        assert compile_it() == "program"
        assert asked == [None, {"xla_gpu_enable_triton_gemm": False}]
    else:  # another failure is told as it is
        with pytest.raises(jax.errors.JaxRuntimeError, match="no memory"):
            compile_it()
        assert asked == [None]


def test_a_compiler_that_was_passed_over_for_want_of_a_card_is_asked_again(monkeypatch):
    asked = []

    def described(**options):
        asked.append(options["topology_name"])
        if len(asked) == 1:
            raise NotImplementedError("topology not implemented for cuda")
        return types.SimpleNamespace(devices=["a card"])

    plugin = types.SimpleNamespace(initialize=lambda: asked.append("plugin"))
    monkeypatch.setitem(sys.modules, "jax_plugins.xla_cuda13", plugin)
    monkeypatch.setattr(targets, "_found", lambda module: True)
    monkeypatch.setattr(targets, "_find_cuda", lambda: None)
    monkeypatch.setattr(topologies, "get_topology_desc", described)
    assert targets.device("h100") == "a card"
    assert asked == ["h100", "plugin", "h100"]
