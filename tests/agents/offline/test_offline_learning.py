"""Every offline agent learns a fixed batch, and a member of its population whose learning rates are 0 stands still."""

import jax
import numpy as np
import pytest

from tests.agents import reference as ref

# With gamma = 0 the critics' target is the reward, so their loss must fall. The configs are those of the golden tests,
# whose programs are then compiled already.
CASES = {
    "bc": ("actor_loss", {}, {}),
    "percent_bc": ("actor_loss", {}, {"fraction": 0.5}),
    "td3_bc": ("critic_loss", {}, {"discount": 0.0}),
    "iql": ("critic_loss", {"max_weight": 2.0, "decay_steps": 10}, {"discount": 0.0}),
    "rebrac": ("critic_loss", {}, {"discount": 0.0}),
    "awac": ("critic_loss", {"max_weight": 1.2}, {"discount": 0.0}),
    "cql": ("td_loss", {"n_samples": 2, "target_gap": 1.5}, {"discount": 0.0, "cql_coef": 1e-3}),
    "sac_n": ("critic_loss", {"n_critics": 3}, {"discount": 0.0}),
    "edac": ("critic_loss", {"n_critics": 3}, {"discount": 0.0, "eta": 1e-3}),
    "sql": ("critic_loss", {"max_weight": 0.2}, {"discount": 0.0}),
    "eql": ("critic_loss", {"max_weight": 2.0, "max_exponent": 0.5}, {"discount": 0.0}),
    "xql": ("critic_loss", {"max_weight": 2.0, "max_exponent": 0.5}, {"discount": 0.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_learns_a_fixed_batch(name):
    metric, config, changes = CASES[name]
    pair, data = ref.Pair(name, 1e-2, config, **changes), ref.batch()
    losses = [pair.update(data, jax.random.key(step), step)[metric] for step in range(60)]
    assert np.all(np.isfinite(losses))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])

    before, after = pair.still
    ref.assert_tree_close(after.actor.params, before.actor.params, 0.0)
    if hasattr(before, "critic"):
        ref.assert_tree_close(after.critic.params, before.critic.params, 0.0)
    for explore in (False, True):
        action = pair.agent.act(pair.state, data.observation, pair.hyper, jax.random.key(1), explore)
        assert action.shape == (ref.B, 2)
        assert np.all(np.abs(action) <= 1.0)
        again = pair.agent.act(pair.state, data.observation, pair.hyper, jax.random.key(2), explore)
        assert np.array_equal(action, again) == (not explore)
