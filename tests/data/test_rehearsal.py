"""Rehearsal: the laws by hand, the first phase, which rows come up how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.data import rehearsal
from jaxrl_reg.errors import UserError

AGES = jnp.array([4, 3, 2, 1])


@pytest.mark.parametrize(
    ("kind", "exponent", "wanted"),
    [
        ("power", 1.0, [0.12, 0.16, 0.24, 0.48]),
        ("power", 2.0, [0.043902, 0.078049, 0.17561, 0.702439]),
        ("exponential", 0.5, [0.101536, 0.167405, 0.276004, 0.455054]),
        ("uniform", 3.0, [0.25] * 4),
        ("last", 3.0, [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_the_laws_by_hand(kind, exponent, wanted):
    np.testing.assert_allclose(rehearsal.rehearsal_weights(kind, AGES, exponent), wanted, atol=1e-6)
    np.testing.assert_array_equal(rehearsal.rehearsal_weights(kind, 0 * AGES, exponent), 0.0)
    to_come = rehearsal.rehearsal_weights(kind, jnp.array([2, 1, 0, 0]), exponent)
    np.testing.assert_array_equal(to_come[2:], 0.0)
    assert float(to_come.sum()) == pytest.approx(1.0)


def test_need_grows_with_the_number_of_tasks_and_a_budget_does_not():
    need = [float(rehearsal.recurrence("power", rehearsal.ages(phase, 8)).sum()) for phase in (1, 3, 7)]
    np.testing.assert_allclose(need, [1.0, 1 + 1 / 2 + 1 / 3, sum(1 / age for age in range(1, 8))], rtol=1e-6)


def test_a_task_that_was_revisited_is_young_again():
    draws = rehearsal.task_schedule(
        jax.random.key(0), 3, 4000, tasks=4, share=1.0, kind="power", exponent=8.0, age=jnp.array([1, 3, 2, 0])
    )
    assert np.bincount(draws, minlength=4)[0] > 3900


def test_batches_of_a_phase_hold_what_the_law_says():
    """Under jit, vmap over phases and traced strengths: shares of each task, rows within its bounds."""
    count = 60
    rows = data.from_arrays(
        np.arange(count)[:, None] * 1.0,
        np.zeros((count, 1)),
        np.zeros(count),
        np.zeros(count),
        np.arange(count) % 10 == 9,
        np.zeros((count, 1)),
        name="tasks",
    )
    bounds = np.array([0, 10, 30, 60])

    @jax.jit
    def drawn(rows, phase, share, exponent):
        return rehearsal.rehearse(bounds, phase, share, "power", exponent)(rows, jax.random.key(1), 6000)

    batch = jax.vmap(drawn, in_axes=(None, 0, None, None))(rows, jnp.arange(3), 0.3, 1.0)
    shares = [np.bincount(task, minlength=3) / 6000 for task in np.asarray(batch.extras["task"])]
    np.testing.assert_array_equal(shares[0], [1, 0, 0])  # nothing to rehearse yet
    np.testing.assert_allclose(shares[1], [0.3, 0.7, 0], atol=0.02)
    np.testing.assert_allclose(shares[2], [0.1, 0.2, 0.7], atol=0.02)
    of_row = np.searchsorted(bounds, np.asarray(batch.observation)[..., 0], side="right") - 1
    np.testing.assert_array_equal(of_row, batch.extras["task"])
    assert len(np.unique(batch.observation[2])) == count


@pytest.mark.parametrize("bounds", [[0], [0, 5, 5], [3, 1], [[0, 1]]])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(UserError, match="rising bounds"):
        rehearsal.rehearse(bounds, 0)


def test_an_unknown_law_names_the_nearest():
    with pytest.raises(UserError, match="exponential"):
        rehearsal.rehearsal_weights("exponentail", AGES)
