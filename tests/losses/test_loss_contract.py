"""What every exported loss must satisfy. A new loss fails here until it has a case with a NumPy version of itself."""

import ast
import functools
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxrl_reg import losses

SIZES = {"N": 3, "B": 5, "A": 2, "D": 4, "K": 4, "T": 6, "...": (5,)}
STATIC = {"n_step_return": {"n": 3}}
BINARY = {"discount", "discounts", "last"}  # flags: not differentiated
RANGES = {  # the others are drawn from [-3, 3]
    "gamma": (0.1, 1.0),
    "lam": (0.0, 1.0),
    "expectile": (0.1, 0.9),
    "temperature": (0.5, 2.0),
    "inverse_temperature": (0.0, 3.0),
    "alpha": (0.5, 3.0),
    "delta": (0.5, 2.0),
    "clip": (0.25, 2.0),
    "coefficient": (0.0, 2.0),
    "mask": (0.0, 1.0),
    "gate": (0.0, 2.0),
    "weight": (0.0, 3.0),
    "floor": (0.25, 0.5),
    "log_weight": (-1.0, 1.0),
    "log_temperature": (-1.0, 1.0),
}
COUPLED = {"adaptive_q_scale"}  # besides those whose layout says B


# The NumPy versions take the arguments ``a`` and, for what a loss detaches, the same arguments ``s`` that stand still
# when derivatives are taken. They are written from the definitions, with loops where the losses use algebra.


def explicit_n_step(a, t, n):
    """The n-step return from t, and whether it reached the end of the episode or of the trajectory."""
    total, weight = 0.0, 1.0
    for k in range(t, t + n):
        total = total + weight * a.rewards[k]
        weight = weight * a.gamma * a.discounts[k]
        if k == len(a.rewards) - 1 or a.last[k]:
            return total + weight * a.next_values[k], True
    return total + weight * a.next_values[k], False


def per_trajectory(function):
    """Apply ``function(a, t)`` to every time and every column of ``[T, E]`` arrays."""

    def apply(a, s):
        steps, columns = a.rewards.shape
        out = np.zeros((steps, columns))
        for column in range(columns):
            b = SimpleNamespace(**{k: v[:, column] if np.ndim(v) else v for k, v in vars(a).items()})
            out[:, column] = [function(b, t) for t in range(steps)]
        return out

    return apply


def n_step(a, t):
    return explicit_n_step(a, t, a.n)[0]


def lambda_mixture(a, t):
    returns = []
    while not returns or not returns[-1][1]:
        returns.append(explicit_n_step(a, t, len(returns) + 1))
    *early, (final, _) = returns
    return (1 - a.lam) * sum(a.lam**i * g for i, (g, _) in enumerate(early)) + a.lam ** len(early) * final


def gae_sum(a, t):
    total, weight = 0.0, 1.0
    for k in range(t, len(a.rewards)):
        total += weight * (a.rewards[k] + a.gamma * a.discounts[k] * a.next_values[k] - a.values[k])
        weight *= a.gamma * a.lam * a.discounts[k]
        if a.last[k]:
            break
    return total


def gumbel(a, s):
    z = np.minimum(a.difference / a.temperature, a.clip)
    m = max(np.minimum(s.difference / s.temperature, s.clip).max(), -1.0)
    return np.exp(z - m) - z * np.exp(-m) - np.exp(-m)


def exponential(a, s):
    z = np.minimum((a.q - a.value) / a.alpha, a.clip)
    m = max(np.minimum((s.q - s.value) / s.alpha, s.clip).max(), -1.0)
    return np.exp(z - m) + np.exp(-m) * a.value / a.alpha


def diversity(a, s):
    units = a.action_gradients / np.maximum(np.linalg.norm(a.action_gradients, axis=-1, keepdims=True), 1e-10)
    count = len(units)
    return sum((units[i] * units[j]).sum(-1) for i in range(count) for j in range(count) if i != j) / (count - 1)


def q_scale(s, alpha, floor=1e-6):
    return alpha / max(np.abs(s.q).mean(), floor)


def select(a, s):
    better = a.generated_q - a.value >= a.data_q - a.value
    counts = (a.generated_q >= a.value) | (a.data_q > a.value)
    return np.where(better[:, None], a.generated_action, a.data_action), counts * s.mask


def clipped_value(a, s):
    held = np.minimum(np.maximum(a.value, s.old_value - a.clip), s.old_value + a.clip)
    return np.maximum((a.value - s.target) ** 2, (held - s.target) ** 2) / 2


def huber(a, s):
    u = np.abs(a.prediction - a.target)
    return np.where(u <= a.delta, u**2 / 2, a.delta * (u - a.delta / 2))


CASES = {
    "adaptive_q_scale": lambda a, s: q_scale(s, s.alpha, s.floor),
    "advantage_select": select,
    "awr_weight": lambda a, s: np.minimum(np.exp(s.inverse_temperature * s.advantage), s.clip),
    "behaviour_cloning_loss": lambda a, s: ((a.action - a.target) ** 2).sum(-1) / a.action.shape[-1],
    "behaviour_cloning_nll": lambda a, s: -a.log_prob,
    "calibrated_value": lambda a, s: np.maximum(a.q, s.bound),
    "clipped_double_q_target": lambda a, s: a.reward + a.gamma * a.discount * a.next_q.min(0),
    "clipped_value_loss": clipped_value,
    "cql_lagrange_loss": lambda a, s: -np.exp(a.log_weight) * a.coefficient * (s.penalty - a.target_gap),
    "cql_lagrange_weight": lambda a, s: np.exp(s.log_weight),
    "cql_penalty": lambda a, s: np.log((np.exp(a.q_samples) / np.exp(s.log_probs)).sum(0)) - a.q_data,
    "ensemble_td_error": lambda a, s: ((a.predictions - a.target) ** 2).sum(0),
    "expectile_loss": lambda a, s: np.abs(a.expectile - (a.difference < 0)) * a.difference**2,
    "exponential_value_loss": exponential,
    "generalised_advantage_estimation": per_trajectory(gae_sum),
    "gradient_diversity_loss": diversity,
    "gumbel_loss": gumbel,
    "huber_loss": huber,
    "lambda_return": per_trajectory(lambda_mixture),
    "n_step_return": per_trajectory(n_step),
    "policy_gradient_loss": lambda a, s: -s.advantage * a.log_prob,
    "rebrac_actor_loss": lambda a, s: a.coefficient * ((a.action - a.target) ** 2).sum(-1) - q_scale(s, 1.0) * a.q,
    "rebrac_target": lambda a, s: (
        a.reward
        + a.gamma * a.discount * (a.next_q.min(0) - a.coefficient * ((a.next_action - a.next_data_action) ** 2).sum(-1))
    ),
    "regularised_actor_loss": lambda a, s: a.gate * ((a.action - a.target) ** 2).mean(-1) - q_scale(s, s.alpha) * a.q,
    "soft_actor_loss": lambda a, s: s.temperature * a.log_prob - a.q,
    "soft_td_target": lambda a, s: (
        a.reward + a.gamma * a.discount * (a.next_q.min(0) - a.temperature * a.next_log_prob)
    ),
    "sparse_value_loss": lambda a, s: np.maximum(1 + (a.q - a.value) / (2 * a.alpha), 0) ** 2 + a.value / a.alpha,
    "sparse_weight": lambda a, s: np.minimum(np.maximum(s.advantage, 0), s.clip),
    "squared_td_error": lambda a, s: (a.prediction - a.target) ** 2,
    "td_target": lambda a, s: a.reward + a.gamma * a.discount * a.next_value,
    "temperature_loss": lambda a, s: -np.exp(a.log_temperature) * (s.log_prob + a.target_entropy),
    "weighted_log_prob_loss": lambda a, s: -s.weight * a.log_prob,
}

# A topic with many losses keeps its cases in a file of its own, ``cases_<topic>.py``: ``CASES``, and what of the tables
# above it needs more of.
for found in pkgutil.iter_modules([str(pathlib.Path(__file__).parent)]):
    if found.name.startswith("cases_"):
        topic = importlib.import_module(f"tests.losses.{found.name}")
        CASES.update(topic.CASES)
        for table in (SIZES, STATIC, RANGES, BINARY, COUPLED):
            name = next(name for name, value in list(globals().items()) if value is table)
            table.update(getattr(topic, name, ()))

every_loss = pytest.mark.parametrize("name", sorted(set(losses.__all__) | set(CASES)))


def shape_of(layout):
    axes = layout.split()
    return tuple(size for axis in axes for size in (SIZES[axis] if axis == "..." else (SIZES[axis],)))


def domain(argument):
    return (0.0, 1.0) if argument in BINARY else RANGES.get(argument, (-3.0, 3.0))


def random_arguments(name, seed=0):
    """Float64 arguments in general position: no ties, no kinks."""
    generator = np.random.default_rng([seed, *name.encode()])
    out = {}
    for argument, layout in getattr(losses, name).layouts.items():
        value = generator.uniform(*domain(argument), shape_of(layout))
        out[argument] = np.round(value) if argument in BINARY else value
    return out


def call(name):
    """The loss as a function of the dictionary of its arguments."""
    return lambda arguments: getattr(losses, name)(**arguments, **STATIC.get(name, {}))


@functools.cache
def jitted(name):
    return jax.jit(call(name))


def reference(name, moving, still=None):
    still = moving if still is None else still
    both = [SimpleNamespace(**arguments, **STATIC.get(name, {})) for arguments in (moving, still)]
    return jax.tree.leaves(CASES[name](*both))


def cast(arguments, dtype):
    return {argument: jnp.asarray(value, dtype) for argument, value in arguments.items()}


def assert_all_close(found, expected, **tolerance):
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert np.shape(left) == np.shape(right)
        np.testing.assert_allclose(np.asarray(left, np.float64), np.asarray(right, np.float64), **tolerance)


def total(name):
    """Sum of the outputs, weighted so that nothing cancels."""

    def function(arguments):
        outputs = jax.tree.leaves(call(name)(arguments))
        return sum((output * weights(output)).sum() for output in outputs)

    return function


def weights(output):
    return np.linspace(0.5, 1.5, np.size(output)).reshape(np.shape(output))


def test_every_loss_is_exported_and_has_a_case():
    defined = set()
    for module in pkgutil.iter_modules(losses.__path__):
        members = inspect.getmembers(importlib.import_module(f"{losses.__name__}.{module.name}"))
        defined |= {name for name, member in members if hasattr(member, "layouts") and not name.startswith("_")}
    assert defined == set(losses.__all__) == set(CASES)
    assert list(losses.__all__) == sorted(losses.__all__)


def test_losses_import_nothing_but_jax():
    allowed = set(sys.stdlib_module_names) | {"jax"}
    for path in pathlib.Path(losses.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("jaxrl_reg.losses"), f"{path.name}: {name}"


@every_loss
def test_docstring_names_every_argument_with_its_shape(name):
    loss = getattr(losses, name)
    text = inspect.getdoc(loss)
    for heading in ("Args:", "Returns:", "Raises:", "Edges:", "Source:"):
        assert heading in text, heading
    assert set(inspect.signature(loss).parameters) == set(loss.layouts) | set(STATIC.get(name, {}))
    for argument, layout in loss.layouts.items():
        shape = "``[" + ", ".join(layout.split()) + "]``" if layout else "scalar"
        assert re.search(rf"^  {argument}: {re.escape(shape)}", text, re.MULTILINE), (argument, shape)


@every_loss
def test_output_has_the_documented_shape(name):
    text = inspect.getdoc(getattr(losses, name)).split("Returns:")[1].split("Raises:")[0]
    documented = [shape.replace(",", "") for shape in re.findall(r"``\[([^\]]*)\]``", text)]
    if text.split()[0].startswith("scalar"):
        documented = [""]
    found = jax.tree.leaves(jax.eval_shape(call(name), cast(random_arguments(name), jnp.float32)))
    assert [leaf.shape for leaf in found] == [shape_of(shape) for shape in documented[: len(found)]]


@every_loss
def test_value_equals_the_numpy_version(name):
    arguments = {}
    for argument, layout in getattr(losses, name).layouts.items():
        low, high = (int(64 * bound) for bound in domain(argument))
        grid = st.sampled_from([0.0, 1.0]) if argument in BINARY else st.integers(low, high).map(lambda i: i / 64)
        arguments[argument] = hnp.arrays(np.float64, shape_of(layout), elements=grid)  # exact in float32, often tied

    @given(st.fixed_dictionaries(arguments))
    def check(drawn):
        assert_all_close(jitted(name)(cast(drawn, jnp.float32)), reference(name, drawn), rtol=3e-5, atol=3e-5)

    check()


@every_loss
def test_gradient_equals_finite_differences_in_float64(name):
    with jax.enable_x64(True):
        arguments = random_arguments(name)
        gradients = jax.jit(jax.grad(total(name)))(cast(arguments, jnp.float64))
        generator = np.random.default_rng(1)
        for argument, gradient in gradients.items():
            assert gradient.dtype == jnp.float64
            if argument in BINARY:
                continue
            direction = generator.normal(size=np.shape(arguments[argument]))
            ends = []
            for step in (1e-6, -1e-6):
                moved = arguments | {argument: arguments[argument] + step * direction}
                ends.append(sum((leaf * weights(leaf)).sum() for leaf in reference(name, moved, arguments)))
            expected = (ends[0] - ends[1]) / 2e-6
            np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-6, atol=1e-7, err_msg=argument)


@every_loss
def test_jit_equals_eager_and_vmap_equals_a_loop(name):
    draws = [cast(random_arguments(name, seed), jnp.float32) for seed in range(3)]
    singles = [jitted(name)(draw) for draw in draws]
    assert_all_close(singles[0], call(name)(draws[0]), rtol=2e-6, atol=2e-6)
    stacked = {argument: np.stack([draw[argument] for draw in draws]) for argument in draws[0]}  # scalars too
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *singles)
    assert_all_close(jax.jit(jax.vmap(call(name)))(stacked), expected, rtol=2e-6, atol=2e-6)


@every_loss
def test_examples_do_not_depend_on_one_another(name):
    layouts = getattr(losses, name).layouts
    arguments = cast(random_arguments(name), jnp.float32)
    whole = jitted(name)(arguments)
    if any("B" in layout.split() for layout in layouts.values()):
        # Coupled through numbers of the whole batch: then at least the order does not matter.
        order, mixed = jnp.array([3, 0, 4, 2, 1]), dict(arguments)
        for argument, layout in layouts.items():
            for axis, letter in enumerate(layout.split()):
                if letter == "B":
                    mixed[argument] = jnp.take(mixed[argument], order, axis)
        expected = whole[order] if whole.shape[:1] == (SIZES["B"],) else whole
        assert_all_close(jitted(name)(mixed), expected, rtol=2e-6, atol=2e-6)
    elif name in COUPLED:
        assert whole.shape == ()
    elif any(layouts.values()):
        axes = {k: layout.split().index("...") if "..." in layout else None for k, layout in layouts.items()}
        out = 1 if "T ..." in layouts.values() else 0
        assert_all_close(jax.jit(jax.vmap(call(name), (axes,), out))(arguments), whole, rtol=2e-6, atol=2e-6)


@every_loss
def test_value_and_gradient_are_finite(name):
    layouts = getattr(losses, name).layouts
    function = jax.jit(jax.value_and_grad(total(name)))
    for scale in (0.0, 1.0, 1e4):
        arguments = random_arguments(name)
        for argument, layout in layouts.items():
            if layout and argument not in BINARY:
                arguments[argument] = arguments[argument] * scale
        value, gradients = function(cast(arguments, jnp.float32))
        assert np.isfinite(value), scale
        assert all(np.isfinite(gradient).all() for gradient in gradients.values()), scale


@every_loss
def test_bfloat16_in_bfloat16_out_with_float32_hyperparameters(name):
    layouts = getattr(losses, name).layouts
    arrays = {k: jnp.bfloat16 if layouts[k] or not any(layouts.values()) else jnp.float32 for k in layouts}
    arguments = {k: jnp.asarray(v, arrays[k]) for k, v in random_arguments(name).items()}
    found = jax.tree.leaves(jitted(name)(arguments))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in found)
    rounded = {k: np.asarray(v, np.float64) for k, v in arguments.items()}
    assert_all_close(found, reference(name, rounded), rtol=2**-8, atol=1e-5)  # rounded once, at the end


@every_loss
def test_wrong_shapes_are_refused(name):
    layouts = getattr(losses, name).layouts
    arguments = cast(random_arguments(name), jnp.float32)
    for argument, layout in layouts.items():
        others = " ".join(other for key, other in layouts.items() if key != argument).split()
        wrong = []
        if not layout or "..." not in layout.split() or "..." in others:
            wrong.append(arguments[argument][..., None])  # [B, 1] in place of [B], the classic
        wrong += [
            jnp.concatenate([arguments[argument]] * 2, axis)
            for axis, letter in enumerate(layout.split())
            if letter in others
        ]
        assert wrong or len(others) == others.count("")
        for array in wrong:
            with pytest.raises(ValueError, match=rf"^{name}: .*{argument} \[") as error:
                call(name)(arguments | {argument: array})
            assert str(list(array.shape)) in str(error.value)
