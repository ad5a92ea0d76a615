"""The grid that experiments on continual learning share: its numbers by hand, and its shifts against a walk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.continual import _goals

UNIFORM = jnp.full((_goals.STATES, _goals.ACTIONS), 0.25)


@pytest.mark.parametrize(
    ("goal", "value", "best", "score", "entries"),
    [(24, 0.111633, 0.776641, 0.143738, 1.046336), (48, 0.051292, 0.606885, 0.084518, 1.425962)],
)
def test_a_policy_that_knows_nothing_by_hand(goal, value, best, score, entries):
    assert float(_goals.over_starts(_goals.values(UNIFORM, goal), goal)) == pytest.approx(value, abs=1e-6)
    assert float(_goals.over_starts(_goals.best(goal), goal)) == pytest.approx(best, abs=1e-6)
    assert float(_goals.score(UNIFORM, goal)) == pytest.approx(score, abs=1e-6)
    assert float(_goals.over_starts(_goals.entries(UNIFORM, goal), goal)) == pytest.approx(entries, abs=1e-5)


def test_places_by_hand():
    half = 0.5**0.5
    np.testing.assert_allclose(_goals.place(jnp.array(0)), [-1, -1, *[-half] * 4], atol=1e-6)
    np.testing.assert_allclose(_goals.place(jnp.array(9)), [-2 / 3, -1 / 3, -1, -half, 0, half], atol=1e-6)


def test_moves_are_clipped_at_the_border():
    moves = np.asarray(_goals.following(jnp.arange(_goals.STATES)))
    for state in range(_goals.STATES):
        x, y = divmod(state, 7)
        near = [(min(x + 1, 6), y), (max(x - 1, 0), y), (x, min(y + 1, 6)), (x, max(y - 1, 0))]
        np.testing.assert_array_equal(moves[state], [7 * a + b for a, b in near])


def test_the_gradient_of_a_score_is_that_of_small_changes():
    logits = jax.random.normal(jax.random.key(0), (_goals.STATES, _goals.ACTIONS))

    def score(logits):
        return _goals.score(jax.nn.softmax(logits), 17)

    towards = jax.random.normal(jax.random.key(1), logits.shape)
    slope = float((jax.jit(jax.grad(score))(logits) * towards).sum())
    up, down = (float(jax.jit(score)(logits + step * towards)) for step in (1e-2, -1e-2))
    assert slope == pytest.approx((up - down) / 2e-2, rel=2e-2)
