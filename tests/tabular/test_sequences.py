"""Short sequences: all of them counted once, and the process over tokens says what the enumeration says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.losses import categorical_kl, kl_regularised_value
from jaxrl_reg.tabular import finite_horizon, sequences

V, T = 3, 4


def test_sequences_stand_once_in_order_and_stop_at_their_end():
    tokens, mask = sequences.everything(2, 3)
    assert np.asarray(tokens).tolist() == [[a, b, c] for a in range(2) for b in range(2) for c in range(2)]
    assert np.asarray(mask).min() == 1
    tokens, mask = (np.asarray(part) for part in sequences.everything(3, 2, end=1))
    seen = [row[: int(m.sum())].tolist() for row, m in zip(tokens, mask, strict=True)]
    assert seen == [[0, 0], [0, 1], [0, 2], [1], [2, 0], [2, 1], [2, 2]]


def test_too_many_sequences_and_a_foreign_end_are_refused():
    with pytest.raises(UserError, match="262,144"):
        sequences.everything(9, 6)
    with pytest.raises(UserError, match="end=3"):
        sequences.everything(3, 2, end=3)


def test_the_process_of_tokens_agrees_with_the_enumeration():
    tokens, _ = sequences.everything(V, T)

    @jax.jit
    def found(key):
        keys = jax.random.split(key, 3)
        policy, ref = (jax.nn.log_softmax(jax.random.normal(k, (T, V + 1, V))) for k in keys[:2])
        reward = jax.random.normal(keys[2], (T, V + 1, V))
        log_p, log_ref = (sequences.chain_logprobs(table, tokens).sum(-1) for table in (policy, ref))
        total = sequences.chain_logprobs(reward, tokens).sum(-1)
        process = sequences.token_process(reward)
        value, best = kl_regularised_value(total, log_ref, 0.5)
        values, _, best_table = finite_horizon.soft_value_iteration(process, ref, 0.5)
        draws = jax.vmap(lambda key: finite_horizon.episode(key, process, policy)[:2])(jax.random.split(key, 5))
        return (
            (jax.nn.logsumexp(log_p), 0.0),
            (jnp.exp(log_p) @ total, finite_horizon.start_value(process, jnp.exp(policy))),
            (categorical_kl(log_p, log_ref), finite_horizon.trajectory_kl(process, jnp.exp(policy), ref)),
            (value, values[0, V]),
            (best, sequences.chain_logprobs(best_table, tokens).sum(-1)),
            (draws[0], sequences.previous(draws[1], V)),
        )

    for one, other in found(jax.random.key(0)):
        np.testing.assert_allclose(one, other, atol=2e-5)
