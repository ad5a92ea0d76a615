"""PRDC's actor step against NumPy with its own search, and what the distance must and must not depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, contract, data
from jaxrl_reg.agents import prdc
from jaxrl_reg.data import retrieval
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import as_float32
from tests.agents import reference as ref
from tests.agents.offline import test_golden_td3_bc as td3_bc

LR, TAU, BETA, N = 1e-2, 0.1, 0.7, 300
RNG = np.random.default_rng(7)
OBSERVATIONS = (RNG.normal(size=(N, 3)) * np.array([1.0, 5.0, 0.2])).astype(np.float32)
ACTIONS = np.tanh(RNG.normal(size=(N, 2))).astype(np.float32)
TABLE = {"table_observation": jnp.asarray(OBSERVATIONS), "table_action": jnp.asarray(ACTIONS)}


def batch(seed):
    """Rows of the table, and the table."""
    rows = np.random.default_rng(seed).integers(0, N, ref.B)
    changes = {"observation": TABLE["table_observation"][rows], "action": TABLE["table_action"][rows], "extras": TABLE}
    return dataclasses.replace(ref.batch(seed), **changes)


def nearest_actions(observation, action, beta=BETA, scale=None):
    rows, actions = OBSERVATIONS.astype(np.float64), ACTIONS.astype(np.float64)
    scale = 1 / (rows.std(0) + 1e-3) if scale is None else scale
    states = ((observation[:, None] - rows) * scale) ** 2
    distance = beta**2 * states.sum(-1) + ((action[:, None] - actions) ** 2).sum(-1)
    return actions[distance.argmin(-1)]


def test_updates_equal_numpy():
    pair = ref.Pair("prdc", LR, tau=TAU, beta=BETA, config={"chunk": 128})
    actor, critic = ref.as64(pair.state.actor.params), ref.as64(pair.state.critic.params)
    target_actor, target_critic = actor, critic
    actor_moments, critic_moments, moved = ref.zeros(actor), ref.zeros(critic), 0
    for step in range(3):
        rows, key = batch(step), jax.random.key(step + 1)
        metrics = pair.update(rows, key, step)
        now = ref.as64(dataclasses.replace(rows, extras={}))
        noise = np.clip(0.2 * np.asarray(jax.random.normal(key, (ref.B, 2)), np.float64), -0.5, 0.5)
        next_action = np.clip(np.tanh(ref.forward(target_actor, now.next_observation)[0]) + noise, -1, 1)
        target = now.reward + 0.99 * now.discount * ref.q_values(target_critic, now.next_observation, next_action).min(
            0
        )
        critic, critic_moments, loss, _ = td3_bc.critic_step(critic, critic_moments, step + 1, now, target)
        np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-5)
        if step % 2 == 0:
            moved += 1
            action = np.tanh(ref.forward(actor, now.observation)[0])
            held = dataclasses.replace(now, action=nearest_actions(now.observation, action))  # a constant
            assert (np.abs(held.action - now.action).max(-1) > 1e-3).any()  # not the row's own
            actor, actor_moments, actor_loss, _ = td3_bc.actor_step(actor, actor_moments, moved, held, critic)
            target_actor, target_critic = ref.mix(actor, target_actor, TAU), ref.mix(critic, target_critic, TAU)
            np.testing.assert_allclose(metrics["bc_loss"], ((action - held.action) ** 2).mean(), rtol=1e-5)
        np.testing.assert_allclose(metrics["actor_loss"], actor_loss, rtol=1e-4)
        ref.assert_tree_close(pair.state.critic.params, critic, 1e-5)
        ref.assert_tree_close(pair.state.actor.params, actor, 1e-5)
        ref.assert_tree_close(pair.state.target_actor, target_actor, 1e-5)


@functools.cache
def programs(**config):
    agent = agents.make("prdc", ref.SPEC, hidden=ref.HIDDEN, **config)
    return agent, jax.jit(agent.update)


STATE = programs()[0].init(jax.random.key(0), as_float32(prdc.Hyper()))


def pulled_to(beta, source=None, **config):
    """``bc_loss`` of the first update and the policy's actions before it."""
    agent, update = programs(**config)
    hyper, rows = as_float32(prdc.Hyper(beta=beta)), batch(0) if source is None else source
    _, metrics = update(STATE, rows, hyper, jax.random.key(1), jnp.int32(0))
    return float(metrics["bc_loss"]), agent.act(STATE, rows.observation, hyper, jax.random.key(0), False)


def test_beta_from_any_action_to_the_states_own():
    anything, action = pulled_to(0.0)
    own, _ = pulled_to(1e4)
    free = ((np.asarray(action)[:, None] - ACTIONS) ** 2).sum(-1).min(-1)
    np.testing.assert_allclose(anything, free.mean() / 2, rtol=1e-4)
    np.testing.assert_allclose(own, np.square(action - batch(0).action).mean(), rtol=1e-4)  # what TD3+BC has
    assert anything < own


def test_states_count_in_standard_deviations():
    """The second state is 25 times the third: unscaled, it alone would decide."""
    observation = np.asarray(batch(0).observation, np.float64)
    for standardise, scale in ((True, None), (False, 1.0)):
        found, action = pulled_to(0.5, standardise=standardise)
        held = nearest_actions(observation, np.asarray(action, np.float64), 0.5, scale)
        np.testing.assert_allclose(found, np.square(action - held).mean(), rtol=1e-4)
    assert pulled_to(0.5)[0] < 0.9 * pulled_to(0.5, standardise=False)[0]


def dataset():
    ends = np.arange(N) % 10 == 9
    reward = np.random.default_rng(0).normal(size=N)
    return data.from_arrays(OBSERVATIONS, ACTIONS, reward, 0 * ends, ends, OBSERVATIONS, name="toy")


def test_approximate_search_comes_to_the_exact_one_with_all_cells():
    beta, key, rows = 0.3, jax.random.key(3), dataset()  # not the beta that cells are made for: one cell is too few
    approximate = {"neighbours": "approximate", "clusters": 6}
    agent, _ = programs(**approximate, probes=1)
    data, cells = agent.prepare(rows)
    sampled = prdc.sample((data, cells), key, ref.B)
    exact, action = pulled_to(beta, prdc.sample(rows, key, ref.B))
    one, _ = pulled_to(beta, sampled, **approximate, probes=1)
    every, _ = pulled_to(beta, sampled, **approximate, probes=N)
    np.testing.assert_allclose(every, exact, rtol=1e-5)
    assert one > 1.001 * exact

    weight = jnp.concatenate([jnp.square(beta / (OBSERVATIONS.std(0) + 1e-3)), jnp.ones(2)])
    query, table = jnp.concatenate([sampled.observation, action], -1), (rows.observation, rows.action)
    curve = jax.jit(functools.partial(retrieval.recall_curve, probes=(1, 2, N)))(query, table, cells, weight)
    assert 0.2 < curve[0] < curve[1] <= curve[2] == 1.0
    measured = jax.jit(agent.measure)(STATE, sampled, as_float32(prdc.Hyper(beta=beta)), key)
    np.testing.assert_allclose(measured["recall"], curve[0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"neighbours": "aproximate"}, "unknown neighbours 'aproximate'; did you mean 'approximate'?"),
        ({"probes": 0}, "probes=0 must be at least 1 cell"),
        ({"clusters": -1}, "clusters=-1 must not be negative; 0: the root of the number of rows"),
        ({"clusters": 9}, "clusters=9 belong to the approximate search; set neighbours=approximate too"),
    ],
)
def test_settings_of_the_search_that_cannot_be_are_refused(config, message):
    with pytest.raises(UserError) as raised:
        agents.make("prdc", ref.SPEC, **config)
    assert str(raised.value) == message


def test_an_approximate_search_without_its_cells_is_refused():
    agent, _ = programs(neighbours="approximate", clusters=N + 1)
    with pytest.raises(UserError, match=r"clusters=301 are more than the 300 rows of toy"):
        agent.prepare(dataset())
    with pytest.raises(UserError, match=r"give the run agent\.prepare\(data\), not data"):
        jax.eval_shape(agent.update, STATE, batch(0), as_float32(prdc.Hyper()), jax.random.key(0), jnp.int32(0))


def test_approximate_search_passes_the_contract():
    config = {"neighbours": "approximate", "clusters": 4}
    for result in contract.check_agent("prdc", config=config, checks=["members", "retrace", "finite"]):
        assert result.passed, result.message


def test_sampling_copies_no_row_of_the_table():
    rows = dataset()
    batch = prdc.sample(rows, jax.random.key(0), 16)
    assert batch.extras["table_observation"] is rows.observation
    assert batch.extras["table_action"] is rows.action
    np.testing.assert_array_equal(batch.observation, data.uniform(rows, jax.random.key(0), 16).observation)


def test_a_batch_without_the_table_is_refused():
    with pytest.raises(UserError, match=r"draw its batches with prdc\.sample"):
        pulled_to(1.0, ref.batch())
