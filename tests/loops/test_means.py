"""Updates in cycles, and means of metrics kept as one vector."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.agents import _common
from jaxrl_reg.data import from_arrays
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Agent


class Log(NamedTuple):
    fast: jax.Array
    slow: jax.Array


def recorder(period: int) -> Agent:
    """``slow`` moves at every ``period``-th step by what has come together since; the batch enters both."""

    def update(state, batch, hyper, key, step):
        fast = state.fast * 1.25 + batch.reward.sum() + jax.random.uniform(key)
        slow = _common.every(period, step, lambda: state.slow * 0.5 + fast, state.slow)
        return Log(fast % 7.0, slow), {"slow": slow, "fast": fast, "pair": jnp.stack([fast, -fast])}

    start = Log(jnp.zeros(()), jnp.zeros(()))
    return Agent(lambda key, hyper: start, update, lambda *_: 0.0, cycle=_common.cycle(update, period))


@pytest.fixture(scope="module")
def data():
    rows = np.arange(8.0)
    return from_arrays(rows[:, None], rows[:, None] / 8, rows, rows == 7, rows < 0, rows[:, None], name="rows")


def ends(agent, data, **sizes):
    run = offline(agent, batch_size=2, **sizes)
    return jax.jit(run)(jax.random.key(0), None, data), jax.make_jaxpr(run.train)(
        agent.init(None, None), jnp.int32(0), jax.random.key(0), None, data
    )


@pytest.mark.parametrize(("period", "updates", "in_cycles"), [(2, 12, True), (3, 12, True), (2, 10, False)])
def test_cycles_do_what_one_update_after_the_other_does(data, period, updates, in_cycles):
    agent = recorder(period)
    (state, history), program = ends(agent, data, updates=updates, segments=2)
    (expected, means), branching = ends(agent._replace(cycle=()), data, updates=updates, segments=2)
    np.testing.assert_allclose(state, expected, rtol=1e-6)
    for name, values in means.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    assert "cond[" in str(branching)
    assert ("cond[" not in str(program)) == in_cycles, "a segment of half cycles goes step by step"


def test_means_are_those_of_every_update_and_of_entries(data):
    def update(state, batch, hyper, key, step):
        return state, {"step": step, "pair": jnp.array([1.0, 4.0]) * step}

    agent = Agent(lambda key, hyper: Log(jnp.zeros(()), jnp.zeros(())), update, lambda *_: 0.0)
    (_, means), _ = ends(agent, data, updates=6, segments=2)
    np.testing.assert_array_equal(means["step"], [1.0, 4.0])
    np.testing.assert_array_equal(means["pair"], [2.5, 10.0])


def test_a_long_period_is_no_cycle():
    assert len(_common.cycle(lambda *_: None, _common.LONGEST_CYCLE)) == _common.LONGEST_CYCLE
    assert _common.cycle(lambda *_: None, _common.LONGEST_CYCLE + 1) == ()
    assert _common.cycle(lambda *_: None, 1) == ()
