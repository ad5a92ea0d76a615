"""Sequence models: the scan against a loop, acting by step against the parallel form, and who may see whose action."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import sequence, state_space
from jaxrl_reg.types import Spec

SPEC = Spec(3, 2, 30)
B, K = 2, 4
MODELS = {"transformer": sequence.decision_transformer, "mamba": sequence.decision_mamba}
OPTIONS = {"transformer": {"heads": 2}, "mamba": {"state_size": 3}}


def windows(steps=K):
    rng = np.random.default_rng(0)
    shapes = ((B, steps), (B, steps, 3), (B, steps, 2))
    togo, observation, action = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return togo, observation, jnp.tanh(action), 7 + jnp.arange(steps) + jnp.zeros((B, 1), jnp.int32)


@functools.cache
def model_of(name):
    """A model of two small blocks, without dropout, and its parameters."""
    model = MODELS[name](SPEC, (8, 8), K, dropout=0.0, **OPTIONS[name])
    return model, quick(model.init)(jax.random.key(0))


def rolled(model, params, inputs):
    """Actions predicted one step at a time, those of ``inputs`` being taken."""

    def body(memory, step):
        togo, observation, action, time = step
        predicted = []
        taken, memory = model.step(params, memory, togo, observation, time, lambda a: predicted.append(a) or action)
        return memory, (predicted[0], taken)

    by_time = [jnp.moveaxis(x, 1, 0) for x in inputs]
    return [jnp.moveaxis(x, 0, 1) for x in jax.lax.scan(body, model.start((B,)), by_time)[1]]


def scan_in_a_loop(u, dt, decay, write, read, skip):
    out = np.zeros_like(u)
    for b in range(u.shape[0]):
        x = np.zeros(decay.shape)
        for t in range(u.shape[1]):
            for e in range(u.shape[2]):
                x[e] = np.exp(dt[b, t, e] * decay[e]) * x[e] + dt[b, t, e] * write[b, t] * u[b, t, e]
                out[b, t, e] = read[b, t] @ x[e] + skip[e] * u[b, t, e]
    return out


@pytest.fixture(scope="module")
def scan_arguments():
    rng = np.random.default_rng(1)
    u, dt = rng.normal(size=(2, B, 7, 5))
    write, read = rng.normal(size=(2, B, 7, 3))
    arrays = (u, np.log1p(np.exp(dt)), -np.exp(rng.normal(size=(5, 3))), write, read, rng.normal(size=5))
    return tuple(array.astype(np.float32) for array in arrays)


@pytest.fixture(scope="module")
def scans(scan_arguments):
    """Values and gradients of every method, in one program."""

    def both(method):
        def weighed(*arguments):
            y = state_space.selective_scan(*arguments, method=method)
            return (jnp.cos(jnp.arange(y.size)).reshape(y.shape) * y).sum(), y

        gradient, y = jax.grad(weighed, argnums=tuple(range(6)), has_aux=True)(*scan_arguments)
        return y, gradient

    return quick(lambda: {method: both(method) for method in state_space.METHODS})()


@pytest.mark.parametrize("method", state_space.METHODS)
def test_scan_against_a_loop(scans, scan_arguments, method):
    y, gradients = scans[method]
    np.testing.assert_allclose(y, scan_in_a_loop(*scan_arguments), rtol=1e-5, atol=1e-5)
    for found, known in zip(gradients, scans["sequential"][1], strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)


def test_gradient_of_the_scan_against_finite_differences(scans, scan_arguments):
    weights = np.cos(np.arange(B * 7 * 5)).reshape(B, 7, 5)
    for index, argument in enumerate(scan_arguments):
        arguments = [array.astype(np.float64) for array in scan_arguments]
        place = (0,) * argument.ndim
        values = []
        for shift in (1e-4, -1e-4):
            arguments[index] = argument.astype(np.float64)
            arguments[index][place] += shift
            values.append((weights * scan_in_a_loop(*arguments)).sum())
        known = (values[0] - values[1]) / 2e-4
        np.testing.assert_allclose(scans["associative"][1][index][place], known, rtol=1e-3, atol=1e-4)


def test_scan_refuses_an_unknown_method(scan_arguments):
    with pytest.raises(UserError, match="did you mean 'associative'"):
        state_space.selective_scan(*scan_arguments, method="asociative")


def test_initial_memory_lasts_between_one_and_a_thousand_steps():
    params = model_of("mamba")[1]["layers_0"]["coarse"]
    dt = jax.nn.softplus(params["rate_bias"])
    assert dt.min() >= 1e-3 * 0.999
    assert dt.max() <= 0.1 * 1.001
    np.testing.assert_allclose(jnp.exp(params["log_decay"]), np.broadcast_to([1.0, 2.0, 3.0], (16, 3)), rtol=1e-6)
    np.testing.assert_array_equal(params["skip"], 1.0)
    kernel = params["inward"]["kernel"]
    assert abs(kernel.std() * np.sqrt(8) - 1.0) < 0.15
    with pytest.raises(ValueError, match="no initial value for a parameter called 'gain'"):
        state_space.filled({"gain": jax.ShapeDtypeStruct((2,), jnp.float32)}, jax.random.key(0))


@functools.cache
def examined(name):
    """Everything about a model in one program: predictions, acting, and who depends on which action."""
    model, params = model_of(name)

    @quick
    def look(params, inputs):
        togo, observation, action, time = inputs
        reached = jax.jacfwd(lambda a: model.apply(params, togo[0], observation[0], a, time[0]))(action[0])
        seen = jax.jacfwd(lambda o: model.apply(params, togo[0], o, action[0], time[0]).action)(observation[0])
        return model.apply(params, *inputs), reached, seen, rolled(model, params, inputs)

    return jax.device_get(look(params, windows()))


def sizes(jacobian):
    """Largest entry for each pair of steps ``[K out, K in]``."""
    return np.abs(jacobian).max(axis=(1, 3) if jacobian.ndim == 4 else 2)


@pytest.mark.parametrize("name", MODELS)
def test_no_prediction_depends_on_its_own_action_or_a_later_one(name):
    _, reached, seen, _ = examined(name)
    by_action = sizes(reached.action)
    assert np.all(by_action[np.triu_indices(K)] == 0.0)
    assert np.all(by_action[np.tril_indices(K, -1)] > 0.0)
    by_observation = sizes(seen)
    assert np.all(by_observation[np.triu_indices(K, 1)] == 0.0)
    assert np.all(by_observation[np.tril_indices(K)] > 0.0)


def test_what_follows_depends_on_the_action_taken_but_on_no_later_one():
    _, reached, _, _ = examined("mamba")
    for jacobian in (reached.next_observation, reached.next_return):
        found = sizes(jacobian)
        assert np.all(found[np.triu_indices(K, 1)] == 0.0)
        assert np.all(found[np.tril_indices(K)] > 0.0)


@pytest.mark.parametrize(
    "leak",
    [
        lambda fine: jnp.stack([fine] * 3, axis=-2),  # a step's tokens see the whole step
        lambda fine: jnp.concatenate([fine] * 3, axis=-2).reshape(*fine.shape[:-1], 3, -1),  # as released: tiled
    ],
    ids=["own step", "tiled"],
)
def test_the_test_of_causality_finds_a_leak(monkeypatch, leak):
    monkeypatch.setattr(sequence, "_from_whole_steps", leak)
    model, params = model_of("mamba")
    togo, observation, action, time = (x[0] for x in windows())
    ahead = jnp.ones_like(action).at[0].set(0.0)

    @quick
    def moved(action):
        return jax.jvp(lambda a: model.apply(params, togo, observation, a, time).action[1], (action,), (ahead,))[1]

    assert np.abs(moved(action)).max() > 0.0


@pytest.mark.parametrize("name", MODELS)
def test_acting_by_step_equals_the_parallel_form(name):
    predicted, _, _, (stepped, taken) = examined(name)
    np.testing.assert_allclose(stepped, predicted.action, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(taken, windows()[2])
    assert np.abs(predicted.action).max() <= 1.0


@pytest.mark.parametrize("name", MODELS)
def test_beyond_the_context(name):
    """The transformer looks at the last steps; Mamba's memory is emptied, as a window in training begins."""
    model, params = model_of(name)
    inputs = windows(K + 2)

    @quick
    def run(params, inputs):
        recent = [tuple(x[:, start:] for x in inputs) for start in (2, K)]
        return rolled(model, params, inputs)[0], [model.apply(params, *window).action[:, -1] for window in recent]

    stepped, (of_the_last, of_the_fresh) = run(params, inputs)
    np.testing.assert_allclose(stepped[:, -1], of_the_last if name == "transformer" else of_the_fresh, atol=1e-5)
    assert np.abs(of_the_last - of_the_fresh).max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_dropout_only_with_a_key(name):
    params = model_of(name)[1]
    model = MODELS[name](SPEC, (8, 8), K, dropout=0.5, **OPTIONS[name])
    keys = jax.random.split(jax.random.key(0), 2)[jnp.array([0, 0, 1])]
    first, again, other = quick(jax.vmap(lambda key: model.apply(params, *windows(), key=key).action))(keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - examined(name)[0].action).max() > 1e-3


def test_bad_sizes_are_refused():
    with pytest.raises(UserError, match="hidden=64,32: a sequence model has one block per entry"):
        sequence.decision_mamba(SPEC, (64, 32))
    with pytest.raises(UserError, match="one block per entry"):
        sequence.decision_transformer(SPEC, ())
    with pytest.raises(UserError, match="heads=3 must divide the width 64"):
        sequence.decision_transformer(SPEC, (64,), heads=3)


def test_both_halves_of_the_gradient_are_joined_before_the_product_with_it():
    """Else an H100's compiler takes the joining into the product and, for members side by side, finds no tiles."""
    mixer = state_space.MambaMixer(4, 2)
    x = jnp.ones((1, 2, 4))
    params = jax.eval_shape(mixer.init, jax.random.key(0), x)
    gradient = jax.make_jaxpr(jax.grad(lambda params: mixer.apply(params, x).sum()))(params)
    assert str(gradient).count("optimization_barrier") == 2, "of the output and of its gradient"
