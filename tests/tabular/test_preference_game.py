"""Games of preferences: golden numbers, and a gap that only the Nash policy closes."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.tabular import preference_game as game

P = jnp.array([[0.5, 0.8, 0.3], [0.2, 0.5, 0.9], [0.7, 0.1, 0.5]])
REF, POLICY = jnp.log(jnp.array([0.5, 0.3, 0.2])), jnp.log(jnp.array([0.2, 0.5, 0.3]))


def test_golden_numbers_of_a_small_game():
    @jax.jit
    def found():
        best = game.nash(REF, P, 0.1)
        step = game.inpo_step(POLICY, REF, P, 0.3, 0.1)
        return game.duality_gap(POLICY, REF, P, 0.1), game.duality_gap(best, REF, P, 0.1), jnp.exp(best), jnp.exp(step)

    gap, none, best, step = found()
    np.testing.assert_allclose(gap, 0.0790880, atol=1e-6)
    np.testing.assert_allclose(none, 0.0, atol=1e-6)
    np.testing.assert_allclose(best, [0.530186, 0.192368, 0.277445], atol=1e-5)
    np.testing.assert_allclose(step, [0.353936, 0.497553, 0.148512], atol=1e-5)


def test_camps_beat_each_other_and_only_nash_has_no_gap():
    @jax.jit
    def found(key):
        preference, log_ref = game.rock_paper_scissors(key, 12)
        others = jax.nn.log_softmax(jax.random.normal(key, (20, 12)))
        gaps = jax.vmap(lambda policy: game.duality_gap(policy, log_ref, preference, 0.1))(others)
        return preference, gaps, game.duality_gap(game.nash(log_ref, preference, 0.1), log_ref, preference, 0.1)

    preference, gaps, none = found(jax.random.key(0))
    np.testing.assert_allclose(preference + preference.T, 1.0, atol=1e-6)
    camps = np.array([[preference[i::3, j::3].mean() for j in range(3)] for i in range(3)])
    assert min(camps[0, 1], camps[1, 2], camps[2, 0]) > 0.6
    assert gaps.min() > 1e-3
    assert abs(none) < 1e-5


def test_a_policy_beats_itself_half_of_the_time_and_another_by_the_table():
    one, other = jnp.log(jnp.array([0.0, 1.0, 0.0])), REF
    np.testing.assert_allclose(game.win_rate(POLICY, POLICY, P), 0.5, atol=1e-6)
    np.testing.assert_allclose(game.win_rate(one, other, P), 0.2 * 0.5 + 0.5 * 0.3 + 0.9 * 0.2, atol=1e-6)
