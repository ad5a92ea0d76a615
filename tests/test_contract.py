"""Every agent against the contract, and the contract suite against agents that break it."""

import functools
import itertools
import pathlib
import sys
import types

import jax
import numpy as np
import pytest
from jax.interpreters import partial_eval

from jaxrl_reg import agents
from jaxrl_reg.contract import CHECKS, Subject, __main__, check_agent, run_check
from jaxrl_reg.contract.subject import equations, extremes
from jaxrl_reg.errors import UserError

SOURCE = (pathlib.Path(__file__).parent / "toy_agent.py").read_text()
numbers = itertools.count()


@functools.lru_cache(maxsize=1)  # checks of one agent follow each other and share its programs
def subject_of(name):
    return Subject(name)


# Token agents are one program with other switches: all checks of grpo, of the others those that compile nothing. Those
# with a curriculum are PPO, whose program the checks of ppo compile. Of those, ``reached`` stands for ``hypers``.
TRACED = ("documented", "jit", "state", "keys", "reached")
ASKED = [
    (name, check)
    for name in agents.names()
    for check in (TRACED if agents.family(name) in ("tokens", "curricula") and name != "grpo" else CHECKS)
]


@pytest.mark.parametrize(("name", "check"), ASKED)
def test_agent(name, check):
    if check == "reached":
        assert unreached(subject_of(name)) == set()
        return
    result = run_check(subject_of(name), check)
    assert result.passed, result.message


def unreached(subject):
    """Hyperparameters that no output of a traced function depends on; a curriculum's own are seen by none of them."""
    left = set(subject.hyper_names) - subject.of_curriculum
    for label, (name, _) in subject.functions().items():
        arguments = subject.arguments(name, None if name == "init" else subject.traces["init"].out)
        hyper = f"[{1 if name == 'init' else 2}]."
        jaxpr = subject.traces[label].jaxpr.jaxpr
        used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1]
        for (path, _), reaches in zip(jax.tree_util.tree_leaves_with_path(arguments), used, strict=True):
            if reaches and jax.tree_util.keystr(path).startswith(hyper):
                left.discard(jax.tree_util.keystr(path).removeprefix(hyper))
    return left


def test_a_hyperparameter_that_nothing_reads_is_found(monkeypatch):
    deaf = toy(monkeypatch, [("hyper.learning_rate", "0.001")])
    assert unreached(Subject(deaf)) == {"learning_rate"}


# The suite itself: one toy agent, broken in one place at a time.


def toy(monkeypatch, changes=()):
    """The toy agent's module with ``(old, new)`` replaced in its source."""
    source = SOURCE
    for old, new in changes:
        assert old in source, f"the toy agent has no {old!r} any more"
        source = source.replace(old, new)
    module = types.ModuleType(f"toy_agent_{next(numbers)}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module


def test_a_phase_is_as_short_as_its_setting_says(monkeypatch):
    module = toy(monkeypatch, [("default=0.2,", "default=0.2, small=0.7,")])
    assert module.Hyper().noise == 0.2
    assert float(Subject(module).hyper.noise) == np.float32(0.7)


def test_toy_agent_passes_every_check(monkeypatch):
    assert [(r.check, r.message) for r in check_agent(toy(monkeypatch)) if not r.passed] == []


CLIPPED = "jnp.clip(action + hyper.noise * jax.random.normal(key, action.shape), -1.0, 1.0)"
SQUASHED = "jnp.tanh(observation @ weights)"
ADAM = "optax.adam(hyper.learning_rate)"
MOVED = "target_critic = state.target_critic +"
UPDATED = "return State(params, opt_state, target_critic), metrics"
INITIAL = "init(params), critic)"
FIELD = "target_critic: jax.Array\n"


def field(initial, update="state.extra"):
    """Changes that give the state one more field."""
    return [
        (FIELD, f"{FIELD}    extra: jax.Array\n"),
        (INITIAL, f"init(params), critic, {initial})"),
        (UPDATED, f"return State(params, opt_state, target_critic, {update}), metrics"),
    ]


def before(line, *lines):
    """A change that puts lines, indented alike, in front of one."""
    return (line, "\n        ".join([*lines, line]))


BELLMAN = """def bellman(weights):
            return jnp.square(q(weights, batch.next_observation, next_action) - batch.reward).mean()
"""
MIXING = """@jax.custom_batching.custom_vmap
def mixed(x):
    return x


mixed.def_vmap(lambda axis_size, batched, x: (x + 1e-3 * x.mean(axis=0), True))


def make("""
WEAK = "jnp.where(critic[0] > 0, 1.0, 2.0)"

POLICY = """def policy(state, hyper, explore):
        def step(paid, observation, reward, key):
            action = act(state, observation + 0.1 * paid[..., None], hyper, key, explore)
            return action, paid + reward

        return Policy(jnp.zeros, step)

    return Agent(init, update, act, policy=policy)"""
MEMORY = [
    ("return Agent(init, update, act)", POLICY),
    ("import Agent, Paper, pytree", "import Agent, Paper, Policy, pytree"),
]

# name: (the check that must fail, words of its message, changes)
BROKEN = {
    "cycle that begins elsewhere": (
        "cycle",
        "one after the other",
        [
            (
                "return Agent(init, update, act)",
                "return Agent(init, update, act, cycle=tuple(lambda *a, i=i: update(*a[:4], i) for i in (1, 0)))",
            )
        ],
    ),
    "no link to the paper": ("documented", "PAPER.url", [("https://example.org/td", "")]),
    "kind of another sort": ("documented", "pass kind=KIND", [('KIND = "offline"', 'KIND = "off_policy"')]),
    "no help": ("documented", "Hyper.noise has no help", [('"scale of exploration"', '""')]),
    "whole-number hyperparameter": ("documented", "Hyper.noise = 1 is not a float", [("default=0.2,", "default=1,")]),
    "no docstring": ("documented", "no docstring", [('"""A complete agent', 'None; """A complete agent')]),
    "Python if on a hyperparameter": ("jit", "Python `if`", [("if explore:", "if explore and hyper.noise > 0:")]),
    "wrong attribute": ("jit", "update raises AttributeError", [("(batch.reward +", "(batch.rewards +")]),
    "Python scalar in the state": ("state", "State.extra is a Python float", field("0.0")),
    "weakly typed state": ("state", "State.extra is weakly typed", field(WEAK)),
    "half precision": ("state", "State.extra is bfloat16", field("jnp.zeros((), jnp.bfloat16)")),
    "dtype that changes": ("state", "State.extra goes in as int32[]", field("jnp.int32(0)", "state.extra + 0.5")),
    "structure that changes": ("state", "another tree structure", field("(jnp.int32(0),)", "state.extra[0]")),
    "metric per row": (
        "state",
        "'critic_loss' is not a scalar",
        [('"critic_loss": critic_loss', '"critic_loss": td_error')],
    ),
    "tracer kept": (
        "purity",
        "kept after the call",
        [("def make(", "kept = []\n\n\ndef make("), before(UPDATED, "kept.append(params)")],
    ),
    "hidden counter": (
        "purity",
        "two traces give two programs",
        [("def make(", "calls = []\n\n\ndef make("), before(UPDATED, "calls.append(0)", "target_critic += len(calls)")],
    ),
    "hidden random numbers": (
        "purity",
        "two traces give two programs",
        [
            ("import jax\n", "import jax\nimport numpy as np\n"),
            before("params = {", "critic += jnp.asarray(np.random.normal(size=critic.shape), jnp.float32)"),
        ],
    ),
    "key used twice": (
        "keys",
        "update: a random key is used twice",
        [before("next_value = q(", "next_action += jax.random.uniform(key, next_action.shape)")],
    ),
    "callback without batching": (
        "vmap",
        "NotImplementedError",
        [before(UPDATED, "target_critic = jax.pure_callback(lambda x: x, target_critic, target_critic)")],
    ),
    "delay counted in the state": (
        "branches",
        "compute both sides",
        [*field("jnp.zeros((), jnp.int32)", "state.extra + 1"), ("step % config", "state.extra % config")],
    ),
    "members mixed": (
        "members",
        "differs by",
        [("def make(", MIXING), before(UPDATED, "target_critic = mixed(target_critic)")],
    ),
    "traced again": ("retrace", "traced 2 times", field(WEAK, "state.extra + jnp.float32(1)")),
    "dead hyperparameter": ("hypers", "Hyper.bc_coef does nothing", [("hyper.bc_coef *", "1.0 *")]),
    "multiplied by zero": ("hypers", "Hyper.bc_coef does nothing", [("hyper.bc_coef *", "0.0 * hyper.bc_coef *")]),
    "exploration that ignores its scale": ("hypers", "Hyper.noise does nothing", [("hyper.noise *", "0.2 *")]),
    "overflow": ("finite", "setting: bc_coef=100", [("hyper.bc_coef *", "jnp.exp(hyper.bc_coef) *")]),
    "division by the spread of rewards": (
        "finite",
        "every reward 0",
        [("(batch.reward +", "(batch.reward / batch.reward.std() +")],
    ),
    "gradient into the target": (
        "targets",
        "State.target_critic moves although tau=0",
        [
            before("def loss(params):", BELLMAN),
            (MOVED, f"{MOVED} -hyper.learning_rate * jax.grad(bellman)(state.target_critic) +"),
        ],
    ),
    "target in the optimiser": (
        "targets",
        "is not an online one",
        [
            (f"{ADAM}.init(params)", f"{ADAM}.init((params, critic))"),
            ("updates, opt_state =", "(updates, _), opt_state ="),
            (".update(gradients, ", ".update((gradients, jnp.zeros_like(state.target_critic)), "),
        ],
    ),
    "target optimised by name": (
        "targets",
        "target parameters are in an optimiser",
        [
            (f"{ADAM}.init(params)", f'{ADAM}.init({{**params, "target": critic}})'),
            (".update(gradients, ", '.update({**gradients, "target": jnp.zeros_like(state.target_critic)}, '),
            ("(state.params, updates)", "(state.params, {name: updates[name] for name in state.params})"),
        ],
    ),
    "target without a rate that decays": (
        "targets",
        "is not an average of its old value and State.params['critic']",
        [
            ('    tau: float = setting(default=0.005, help="step of the target towards the critic")\n', ""),
            (MOVED, "target_critic = 0.9 * state.target_critic +"),
            ("hyper.tau", "0.005"),
        ],
    ),
    "ascent": ("learns", "critic_loss does not fall", [("return critic_loss + hyper", "return -critic_loss + hyper")]),
    "no loss reported": (
        "learns",
        'no metric has "loss"',
        [('{"critic_loss": critic_loss, "bc_loss": cloning}', '{"value": value}')],
    ),
    "unbounded exploration": (
        "actions",
        "explore=True: ordinary",
        [(CLIPPED, "action + 5.0 * hyper.noise * jax.random.normal(key, action.shape)")],
    ),
    "unbounded for huge observations": (
        "actions",
        "explore=False: huge",
        [(SQUASHED, "0.1 * jnp.arcsinh(observation @ weights)")],
    ),
    "NaN for huge observations": (
        "actions",
        "explore=False: huge",
        [(SQUASHED, f"{SQUASHED} / jnp.isfinite(jnp.cosh(observation[..., :1] / 1e3))")],
    ),
    "action of another shape": ("actions", "expected float32[2]", [(CLIPPED, f"jnp.atleast_2d({CLIPPED})")]),
    "memory without the axes of its episodes": (
        "memory",
        "start((2, 5)) gives carry of shape []",
        [*MEMORY, ("Policy(jnp.zeros,", "Policy(lambda shape: jnp.zeros(()),")],
    ),
    "memory that changes its kind": (
        "memory",
        "goes into a step as int32",
        [*MEMORY, ("Policy(jnp.zeros,", "Policy(lambda shape: jnp.zeros(shape, jnp.int32),")],
    ),
    "memory that grows": (
        "memory",
        "changes the structure of the carry",
        [*MEMORY, ("return action, paid + reward", "return action, (paid, reward)")],
    ),
    "memory outside of the carry": (
        "memory",
        "two traces of a step give two programs",
        [
            *MEMORY,
            ("def make(", "calls = []\n\n\ndef make("),
            ("paid + reward\n", "paid + len(calls) * reward + (calls.append(0) or 0)\n"),
        ],
    ),
    "memory with a key used twice": (
        "memory",
        "explore=True: a random key is used twice",
        [*MEMORY, ("paid + reward\n", "paid + jax.random.normal(key, paid.shape)\n")],
    ),
    "act that is not the first step": (
        "memory",
        "its first action is not that of `act`",
        [*MEMORY, ("Policy(jnp.zeros,", "Policy(jnp.ones,")],
    ),
    "episodes mixed": (
        "memory",
        "an episode differs by",
        [*MEMORY, ("paid + reward\n", "paid + reward.mean()\n")],
    ),
    "unbounded later in an episode": (
        "memory",
        "an action of size",
        [*MEMORY, ("return action, paid", "return action * (1.0 + 5.0 * jnp.abs(paid[..., None])), paid")],
    ),
    "key of another kind in the state": ("checkpoint", "Error", field('jax.random.key(0, impl="rbg")')),
    "large constant": (
        "program",
        "MB of text",
        [
            ("def make(config, spec):", "def make(config, spec):\n    table = jnp.sin(jnp.arange(200_000.0))\n"),
            (MOVED, f"{MOVED} 1e-9 * table[step] +"),
        ],
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_suite_catches(fault, monkeypatch):
    check, words, changes = BROKEN[fault]
    module = toy(monkeypatch, changes)
    (result,) = check_agent(module, checks=[check])
    assert not result.passed
    assert words in result.message, result.message
    assert "not run" not in result.message
    assert "\n" not in result.message


def test_an_agent_with_a_memory_may_pass(monkeypatch):
    (result,) = check_agent(toy(monkeypatch, MEMORY), checks=["memory"])
    assert result.passed, result.message


def test_targets_without_a_rate_may_be_averages(monkeypatch):
    fixed = BROKEN["target without a rate that decays"][2]
    module = toy(monkeypatch, [change for change in fixed if change[0] != MOVED])
    (result,) = check_agent(module, checks=["targets"])
    assert result.passed, result.message


def test_a_fault_is_reported_once_and_the_rest_not_run(monkeypatch):
    results = check_agent(toy(monkeypatch, BROKEN["wrong attribute"][2]))
    assert [r.check for r in results if not r.passed and "not run" not in r.message] == ["jit"]
    assert {r.check for r in results if r.passed} == {"documented"}


def package(tmp_path, monkeypatch, **sources):
    """An importable package ``outside`` with these modules."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name, source in {"__init__": "", **sources}.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("outside", *(f"outside.{name}" for name in sources)):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_message_names_the_line(monkeypatch, tmp_path):
    source = SOURCE.replace("if explore:", "if explore and hyper.noise > 0:")
    package(tmp_path, monkeypatch, branching=source)
    (result,) = check_agent("outside.branching", checks=["jit"])
    line = next(i for i, text in enumerate(source.splitlines(), start=1) if "if explore" in text)
    assert f"branching.py:{line};" in result.message


def test_command_line(monkeypatch, tmp_path, capsys):
    package(tmp_path, monkeypatch, good=SOURCE, bad=SOURCE.replace("https://example.org/td", ""))
    assert __main__.main(["outside.good", "--checks", "documented,jit"]) == 0
    assert __main__.main(["outside.bad", "--checks", "documented"]) == 1
    assert "FAIL documented" in capsys.readouterr().out
    assert __main__.main(["outside.missing"]) == 2
    assert __main__.main(["outside.good", "--checks", "jitt"]) == 2
    assert "did you mean 'jit'" in capsys.readouterr().err


def test_bad_requests_are_refused(monkeypatch):
    with pytest.raises(UserError, match="no setting 'width'"):
        check_agent(toy(monkeypatch), config={"width": 3})
    with pytest.raises(UserError, match="KIND is 'batch'"):
        check_agent(toy(monkeypatch, [('KIND = "offline"', 'KIND = "batch"')]))
    with pytest.raises(UserError, match=r"Config\.policy_freq has no default"):
        check_agent(
            toy(monkeypatch, [('setting(default=2, help="critic updates per actor update")', "dataclasses.field()")])
        )


def test_extremes_are_sensible():
    assert extremes("x", 2.5, None) == (0.025, 250.0)
    assert extremes("x", 0.99, None) == pytest.approx((0.0099, 1.0))
    assert extremes("x", 3e-4, None) == pytest.approx((3e-6, 3e-2))
    assert extremes("x", 0.0, None) == (0.01, 1.0)
    assert extremes("x", 0.5, (0.1, 0.9)) == (0.1, 0.9)


def test_equations_are_counted_inside_loops():
    def body(carry, _):
        return jax.lax.cond(carry > 0, lambda: carry, lambda: -carry), None

    jaxpr = jax.make_jaxpr(lambda x: jax.lax.scan(body, x, None, length=3))(1.0).jaxpr
    assert equations(jaxpr, "cond") == 1
    assert equations(jaxpr, "scan") == 1
