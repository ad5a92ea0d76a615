"""bc with ``robust``: the weights of groups, what is followed over batches, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, data
from jaxrl_reg.agents.imitation import _robust
from jaxrl_reg.contract import Subject, run_check
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.contract.transitions import example
from jaxrl_reg.errors import UserError
from tests.agents import reference as ref

GROUP = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2])  # no row of group 1
LOSS = np.where(GROUP == 0, 1.0, 3.0)


def batch(loss_group=GROUP):
    rows = ref.batch()
    return dataclasses.replace(rows, extras={"group": jnp.asarray(loss_group, jnp.float32)})


@quick
def followed(loss, group):
    """Two batches by every method; the second, of twice the loss, has rows of group 0 only."""
    rows = dataclasses.replace(ref.batch(), extras={"group": group})
    only = dataclasses.replace(rows, extras={"group": 0 * group})
    found = {}
    for method in _robust.METHODS[1:]:
        first, _, _ = _robust.follow(_robust.start(3), loss, rows, method, 0.5)
        found[method] = _robust.follow(first, 2.0 * loss, only, method, 0.5)
    return found


def test_weights_of_rows_follow_the_groups_losses_over_batches():
    found = followed(jnp.asarray(LOSS, jnp.float32), jnp.asarray(GROUP))
    rate = np.array([27.0, 1.0, 7.0]) / 35.0
    for known, _, metrics in found.values():
        np.testing.assert_allclose(known.loss_average, [1.125, 0.0, 3.0], rtol=1e-5)
        np.testing.assert_allclose(known.seen, [26, 0, 6])
        np.testing.assert_allclose(metrics["worst_group_loss"], 3.0, rtol=1e-5)
    radius = 0.5 * np.sqrt(rate) / np.sqrt(rate).sum()
    low, high = np.maximum(rate - radius, 0), rate + radius
    box = np.array([1.0 - low[1] - high[2], low[1], high[2]])
    # Group 0 gets what is left: its lower end holds, as the three radii are not all used.
    np.testing.assert_allclose(found["box"][0].group_weight, box, rtol=1e-5)
    tilted = rate * np.exp(np.array([1.125, 0.0, 3.0]) * 0.5)
    np.testing.assert_allclose(found["divergence"][0].group_weight, tilted / tilted.sum(), rtol=1e-5)
    grown = np.exp(0.01 * np.array([1.0 + 1.125, 0.0, 3.0 + 3.0]))
    np.testing.assert_allclose(found["group_dro"][0].group_weight, grown / grown.sum(), rtol=1e-5)
    for known, weight, metrics in found.values():
        np.testing.assert_allclose(weight, np.full(16, (np.asarray(known.group_weight) / rate)[0]), rtol=1e-5)
        np.testing.assert_allclose(metrics["largest_weight"], (np.asarray(known.group_weight) / rate).max(), rtol=1e-5)


def test_the_loss_of_an_update_is_that_of_the_weighted_rows():
    pair = ref.Pair("bc", 3e-2, {"robust": "box", "groups": 3})
    before, metrics = pair.state, pair.update(batch(), jax.random.key(0), 0)
    rows = ref.as64(ref.batch())
    error = (np.tanh(ref.forward(ref.as64(before.actor.params), rows.observation)[0]) - rows.action) ** 2
    share = np.asarray(pair.state.groups.group_weight, np.float64) / (np.array([11.0, 1.0, 7.0]) / 19.0)
    np.testing.assert_allclose(metrics["actor_loss"], (share[GROUP] * error.mean(-1)).mean(), rtol=1e-5)
    assert abs(share[0] - share[2]) > 0.1


def test_what_is_missing_or_wrong_is_said():
    spec = ref.SPEC
    with pytest.raises(UserError, match="robust=box needs the number of groups"):
        agents.make("bc", spec, robust="box")
    with pytest.raises(UserError, match="box"):
        agents.make("bc", spec, robust="boxes", groups=2)
    with pytest.raises(UserError, match="of box at most 2"):
        agents.make("bc", spec, robust="box", groups=2, robust_strength=3.0)
    rows = np.zeros((3, 1))
    agent = agents.make("bc", spec, robust="box", groups=2)

    def given(**extras):
        return data.from_arrays(rows, rows, rows[:, 0], rows[:, 0], [0, 0, 1], rows, name="logs", extras=extras)

    agent.prepare(given(group=[0, 1, 1]))
    with pytest.raises(UserError, match=r'logs has no extras\["group"\]; data.from_arrays'):
        agent.prepare(given())
    with pytest.raises(UserError, match=r"is 2 in row 1; groups=2 are numbered 0 to 1"):
        agent.prepare(given(group=[0, 2, 1]))
    with pytest.raises(UserError, match=r"is 0\.5 in row 0"):
        agent.prepare(given(group=[0.5, 1, 1]))
    with pytest.raises(UserError, match="needs extras"):
        _robust.follow(_robust.start(2), jnp.zeros(16), ref.batch(), "box", 0.5)


@pytest.mark.parametrize("check", ["documented", "jit", "state"])
def test_the_option_keeps_the_contract(check):
    rows = example()
    rows = dataclasses.replace(rows, extras={**rows.extras, "group": jnp.arange(rows.size) % 3})
    result = run_check(Subject("bc", {"robust": "group_dro", "groups": 3}, rows), check)
    assert result.passed, result.message
