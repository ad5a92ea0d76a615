"""BREEZE: its switches, what its networks see, and that degenerate batches do no harm."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, data
from jaxrl_reg.agents import breeze
from jaxrl_reg.agents.zero_shot import _standardise
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.data.samplers import uniform
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Spec, as_float32

SPEC, D = Spec(3, 2), 5
SWITCHES = [
    {},
    {"conservatism": "vc", "value": "none"},
    {"conservatism": "mc", "target_penalty": 2.0, "actor": "gaussian", "behaviour": 1.0},
    {"actor": "deterministic", "f_regularisation": False, "standardise": False},
    {"actor": "diffusion_bc", "representation": "mlp", "detach_reward": True, "train_candidates": 3},
    {"target_dropout": True, "actor": "gaussian", "value": "none"},
]


def rows(size=40, width=3, shift=0.0, scale=1.0):
    rng = np.random.default_rng(1)
    observation, action = rng.normal(size=(size, width)), rng.uniform(-1, 1, (size, 2))
    following = observation + 0.1 * rng.normal(size=observation.shape)
    ends, nothing = np.arange(size) % 8 == 7, np.zeros(size)
    return data.from_arrays(
        shift + scale * observation, action, nothing, nothing, ends, shift + scale * following, name="rows"
    )


def small(module, **config):
    sizes = {"hidden": (8,), "features": D, "preprocessor": (8,), "backward_hidden": (8, 8)}
    return module.Config(**sizes, **{"time_width": 8, "candidates": 2, "steps": 2, **config})


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: " ".join(map(str, switches.values())) or "default")
def test_every_switch_can_be_turned(switches):
    """Traced only: shapes, keys used once, and that no part misses a setting."""
    switches = dict(switches)
    hyper = as_float32(breeze.Hyper(behaviour_ratio=switches.pop("behaviour", 0.0)))
    agent, world = breeze.make(small(breeze, **switches), SPEC), rows()

    def both(key):
        keys = jax.random.split(key, 4)
        state = agent.init(keys[0], hyper)
        batch = (agent.sample or uniform)(world, keys[1], 4)
        state, metrics = agent.update(state, batch, hyper, keys[2], jnp.int32(0))
        return metrics, agent.act(state, world.observation[0], hyper, keys[3], True)

    with jax.debug_key_reuse(True):
        metrics, action = jax.eval_shape(both, jax.random.key(0))
    assert action.shape == (2,)
    assert ("q_loss" in metrics) == switches.get("f_regularisation", True)
    assert ("expectile_loss" in metrics) == (switches.get("value", "expectile") == "expectile")
    assert ("penalty" in metrics) == ("conservatism" in switches)
    assert ("weight" in metrics) == (switches.get("actor", "diffusion") in ("diffusion", "gaussian"))


def test_an_unknown_switch_is_refused():
    for name in ("actor", "representation", "value", "conservatism"):
        with pytest.raises(UserError, match=f"unknown {name} 'atention'"):
            breeze.make(small(breeze, **{name: "atention"}), SPEC)


@functools.cache
def trained():
    """``world -> (state, z, action)`` after three updates on batches of fewer rows than features."""
    agent, hyper = breeze.make(small(breeze, representation="mlp"), SPEC), as_float32(breeze.Hyper(f_weight=1.0))
    run = offline(agent, batch_size=D - 2, updates=3)

    @quick
    def run_and_serve(world):
        state, _ = run(jax.random.key(0), hyper, world)
        z = agent.zero_shot.infer_z(state, world.next_observation, world.action[:, 0])
        return state, z, agent.zero_shot.act(state, world.observation[:5], z, jax.random.key(1))

    return run_and_serve


def test_inputs_are_raw_and_standardised_inside():
    """Other units of the observations change nothing: neither z nor actions."""
    plain, moved = rows(), rows(shift=40.0, scale=8.0)
    state, z, action = trained()(plain)
    _, other_z, other_action = trained()(moved)
    np.testing.assert_allclose(z, other_z, atol=2e-3)
    np.testing.assert_allclose(action, other_action, atol=2e-3)
    assert action.shape == (5, 2)
    for moments, column in zip(state.moments, (plain.observation, plain.action), strict=True):
        np.testing.assert_allclose(moments.mean, np.mean(column, axis=0), atol=1e-6)
        np.testing.assert_allclose(moments.std, np.std(column, axis=0), rtol=1e-5)


def test_a_constant_column_and_a_collapsed_b_stay_finite():
    world = rows()
    still = dataclasses.replace(world, observation=world.observation.at[:, 0].set(3.0))
    same = dataclasses.replace(world, next_observation=jnp.broadcast_to(world.next_observation[:1], (40, 3)))
    for case in (still, same):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained()(case)))


def test_moments_are_measured_once_and_shared_by_members():
    agent = breeze.make(small(breeze, representation="mlp"), SPEC)
    hyper, world = as_float32(breeze.Hyper()), rows(size=57)
    run = offline(agent, batch_size=8, updates=2)
    states = jax.eval_shape(jax.vmap(lambda key: run.init(key, hyper)), jax.random.split(jax.random.key(0), 3))
    train = jax.vmap(run.train, in_axes=(0, None, 0, None, None))
    jaxpr = jax.make_jaxpr(train)(states, jnp.int32(0), jax.random.split(jax.random.key(0), 3), hyper, world)
    shapes = {tuple(v.aval.shape) for eqn in inner(jaxpr.jaxpr) for v in eqn.outvars if hasattr(v.aval, "shape")}
    assert (57, 3) in shapes  # the deviations from the mean: one pass for all members,
    assert not [shape for shape in shapes if 3 in shape[:1] and 57 in shape]  # none with members and rows

    loops = [eqn for eqn in inner(jaxpr.jaxpr) if eqn.primitive.name == "scan"]
    assert "cond" in {eqn.primitive.name for eqn in inner(jaxpr.jaxpr)}  # before the updates,
    inside = [eqn for loop in loops for eqn in inner(loop.params["jaxpr"].jaxpr) if eqn.primitive.name == "cond"]
    assert all(eqn.params["branches_platforms"] for eqn in inside)  # those are decided by the compiler

    first = _standardise.fitted(_standardise.identity(SPEC), world, jnp.int32(0), actions=False)
    np.testing.assert_array_equal(first.action.std, 1.0)
    later = _standardise.fitted(first, rows(shift=9.0), jnp.int32(1), actions=False)
    jax.tree.map(np.testing.assert_array_equal, first, later)


def inner(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                item = getattr(item, "jaxpr", item)
                if hasattr(item, "eqns"):
                    yield from inner(item)


def test_the_family_is_one_core():
    assert {"fb", "vc_fb", "mc_fb", "breeze"} <= set(agents.names())
    for name in ("fb", "vc_fb", "mc_fb"):
        module = agents.load(name)
        known = {field.name for field in dataclasses.fields(breeze.Config)}
        assert {field.name for field in dataclasses.fields(module.Config)} <= known  # a setting of breeze, all of them
