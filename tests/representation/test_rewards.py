"""Rewards learnt from pairs: they order steps as the judge's do, and stand in the data standardised."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, representation
from jaxrl_reg.data import preferences
from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs import learnt_rewards
from jaxrl_reg.jobs.settings import SweepConfig
from jaxrl_reg.loops import pretrain
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.types import as_float32


def paid_by_action(episodes=40, length=10):
    """Rows whose reward is their action; nothing about it in the observation."""
    generator = np.random.default_rng(0)
    count = episodes * length
    observation, action = generator.normal(size=(count, 2)), generator.uniform(-1, 1, size=(count, 1))
    end = (np.arange(count) % length == length - 1).astype(float)
    return data.from_arrays(observation, action, action[:, 0], 0 * end, end, observation, name="paid")


@pytest.fixture(scope="module")
def learnt():
    rows = paid_by_action()
    pairs = preferences.judged(rows, 5, 400, temperature=0.0)
    model = representation.reward_model(rows.spec, (16,), members=2)
    run = pretrain(model, batch_size=32, updates=300, sample=preferences.batches(5))
    state, history = jax.jit(run)(jax.random.key(0), as_float32(Hyper(learning_rate=1e-2)), (rows, pairs))
    blind = dataclasses.replace(rows, reward=0.0 * rows.reward, rewarded=False)
    return (
        rows,
        jax.jit(lambda rows, params: representation.with_reward(rows, model, params, block=7))(blind, state.params),
        history,
    )


def test_the_learnt_reward_orders_rows_as_the_judge_did(learnt):
    rows, paid, history = learnt
    assert history["agreement"][-1] > 0.8
    assert np.corrcoef(paid.reward, rows.reward)[0, 1] > 0.9
    assert paid.rewarded
    np.testing.assert_allclose([jnp.mean(paid.reward), jnp.std(paid.reward)], [0.0, 1.0], atol=1e-4)


def test_agents_that_need_no_reward_say_so():
    for agent, words in (("preference", "give them as --pairs"), ("bc", "learns without rewards")):
        with pytest.raises(UserError, match=words):
            learnt_rewards.refuse(SweepConfig(agent=agent, reward_from_pairs="pairs.parquet"))
    with pytest.raises(UserError, match="pair_steps=0"):
        learnt_rewards.refuse(SweepConfig(agent="iql", reward_from_pairs="pairs.parquet", pair_steps=0))
    learnt_rewards.refuse(SweepConfig(agent="bc"))
