import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Agent, Policy, Protocol, ZeroShot


def test_normalised_observations_match_numpy_and_invert(dataset, columns):
    scaled, normalizer = data.normalize_observations(dataset)
    mean, std = columns["observation"].mean(0), columns["observation"].std(0)
    np.testing.assert_allclose(scaled.observation, (columns["observation"] - mean) / (std + 1e-3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        scaled.next_observation, (columns["next_observation"] - mean) / (std + 1e-3), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(normalizer.unnormalize(scaled.observation), columns["observation"], atol=1e-5)
    np.testing.assert_array_equal(scaled.reward, dataset.reward)
    data.validate(scaled)
    first = columns["observation"][0]
    np.testing.assert_allclose(data.fit_normalizer(dataset, eps=1.0).normalize(first), (first - mean) / (std + 1))


def test_fit_is_exact_far_from_zero():
    # One-pass float32 sums would lose the spread entirely.
    rows = (1e4 + np.random.default_rng(0).normal(size=(100_000, 2))).astype(np.float32)
    normalizer = data.fit_normalizer(rows)
    np.testing.assert_allclose(normalizer.std, rows.astype(np.float64).std(0), rtol=1e-5)
    np.testing.assert_allclose(normalizer.mean, rows.astype(np.float64).mean(0), rtol=1e-7)
    with pytest.raises(UserError, match=r"\(0, 2\)"):
        data.fit_normalizer(rows[:0])


def test_normalizer_is_a_pytree_and_constant_columns_stay_finite():
    normalizer = data.fit_normalizer(np.full((4, 2), 3.0))
    assert len(jax.tree.leaves(normalizer)) == 3
    np.testing.assert_array_equal(normalizer.normalize(np.full(2, 3.0)), [0, 0])


def test_reward_scaling(dataset, columns):
    returns = [columns["reward"][rows].sum(dtype=np.float64) for rows in (slice(0, 4), slice(4, 9), slice(9, 10))]
    scaled = data.normalize_rewards(dataset)
    np.testing.assert_allclose(scaled.reward, columns["reward"] * 1000 / (max(returns) - min(returns)), rtol=1e-5)
    np.testing.assert_allclose(np.ptp(data.episode_returns(scaled)), 1000, rtol=1e-5)
    shifted = data.scale_rewards(dataset, shift=-10.0)
    np.testing.assert_allclose(shifted.reward, columns["reward"] - 10, rtol=1e-5)
    np.testing.assert_array_equal(np.unique(shifted.episode[shifted.return_rank == 1]), [2])  # now the shortest is best
    data.validate(shifted)
    with pytest.raises(UserError, match="no range"):
        data.normalize_rewards(data.scale_rewards(dataset, scale=0.0))


def test_a_protocol_is_fitted_applied_and_undone_for_raw_observations(dataset, columns):
    protocol = Protocol(normalise=True, eps=0.5, reward_scale="returns", reward_shift=-1.0)
    fitted = data.fit_preprocessing(dataset, protocol)
    mean, std = columns["observation"].mean(0), columns["observation"].std(0) + 0.5
    returns = data.episode_returns(dataset)
    trained = data.preprocess(dataset, fitted)
    np.testing.assert_allclose(trained.observation, (columns["observation"] - mean) / std, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        trained.next_observation, (columns["next_observation"] - mean) / std, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(trained.reward, columns["reward"] * 1000 / np.ptp(returns) - 1, rtol=1e-4)
    data.validate(trained)
    stored = json.loads(json.dumps(data.preprocessing_to_json(fitted)))
    again = data.preprocessing_from_json(stored)
    for one, other in zip(jax.tree.leaves(fitted), jax.tree.leaves(again), strict=True):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
    for damaged in ({**stored, "mean": "zero"}, {key: stored[key] for key in ("mean", "std")}, [1.0], None):
        with pytest.raises(UserError, match="need the numbers mean, std, reward_scale, reward_shift"):
            data.preprocessing_from_json(damaged)
    assert data.describe_preprocessing(fitted).startswith("observations standardised over the data, rewards times ")
    assert data.describe_preprocessing(fitted).endswith(", minus 1")
    assert data.describe_preprocessing(data.fit_preprocessing(dataset)) == ""


def test_what_is_asked_for_goes_before_the_protocol(dataset):
    protocol = Protocol(normalise=True, reward_scale="returns", sparse=(3.0, -3.0))
    plain = data.fit_preprocessing(dataset, protocol, normalise=False, reward_scale="none")
    assert data.describe_preprocessing(plain) == ""
    asked = data.fit_preprocessing(dataset, normalise=True, reward_scale="0.5")
    assert data.describe_preprocessing(asked) == "observations standardised over the data, rewards times 0.5"
    for wrong in ("most", "0", "-1", "nan"):
        with pytest.raises(UserError, match="reward scale"):
            data.fit_preprocessing(dataset, reward_scale=wrong)
    goals = dataclasses.replace(dataset, reward=(dataset.step == 3).astype(np.float32))  # 1 at a goal, else 0
    assert data.describe_preprocessing(data.fit_preprocessing(goals, protocol, normalise=False)) == (
        "rewards times 3, minus 3"
    )
    level = dataclasses.replace(dataset, reward=dataset.reward * 0)
    assert float(data.fit_preprocessing(level, protocol).reward_scale) == 1.0  # no range to scale by
    with pytest.raises(UserError, match="no range"):
        data.fit_preprocessing(level, protocol, reward_scale="returns")
    unknown = dataclasses.replace(goals, rewarded=False)
    assert float(data.fit_preprocessing(unknown, protocol).reward_shift) == 0.0
    np.testing.assert_array_equal(data.preprocess(unknown, asked).reward, goals.reward)


def test_a_constant_observation_is_only_shifted():
    zeros = np.zeros((4, 1))
    observation = np.array([[0.1, 0.0], [0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])
    rows = data.from_arrays(observation, zeros, np.ones(4), [0, 0, 0, 1], np.zeros(4), observation, name="x")
    fitted = data.fit_preprocessing(rows, Protocol(normalise=True, eps=1e-6))
    np.testing.assert_allclose(fitted.observe(np.array([0.2, 1.5])), [0.1, 0.0], atol=1e-6)


def test_agents_take_raw_observations_rewards_and_batches(dataset):
    fitted = data.fit_preprocessing(dataset, Protocol(normalise=True, reward_scale=2.0, reward_shift=-1.0))

    def memory(state, hyper, explore):  # its action is the last reward and the observation's first entry
        return Policy(
            lambda shape: jnp.zeros(shape),
            lambda carry, observation, reward, key: (jnp.stack([reward, observation[..., 0]], -1), carry),
        )

    served = ZeroShot(
        lambda state, observation, reward: observation,
        lambda state, goal: goal,
        lambda state, observation, z, key: observation,
    )
    agent = Agent(lambda key, hyper: 0, lambda *_: None, lambda s, o, h, k, explore: o, policy=memory, zero_shot=served)
    raw = data.on_raw(agent, fitted)
    observation, key = dataset.observation[:3], jax.random.key(0)
    wanted = np.asarray(fitted.observe(observation))
    np.testing.assert_array_equal(raw.act(0, observation, None, key, False), wanted)
    np.testing.assert_array_equal(raw.zero_shot.infer_z(0, observation, None), wanted)
    np.testing.assert_array_equal(raw.zero_shot.goal_z(0, observation), wanted)
    np.testing.assert_array_equal(raw.zero_shot.act(0, observation, None, key), wanted)
    policy = raw.policy(0, None, False)
    action, carry = policy.step(policy.start((3,)), observation, jnp.zeros(3), key)
    np.testing.assert_array_equal(action, np.stack([np.zeros(3), wanted[:, 0]], -1))  # nothing was paid yet
    action, _ = policy.step(carry, observation, jnp.ones(3), key)
    np.testing.assert_array_equal(action[:, 0], np.ones(3))  # 2 * 1 - 1
    action, _ = policy.step(carry, observation, jnp.zeros(3), key)
    np.testing.assert_array_equal(action[:, 0], -np.ones(3))
    rows = jnp.arange(3)
    replayed = data.preprocess_batch(data.take(dataset, rows), fitted)
    trained = data.take(raw.prepare(dataset), rows)
    for name in ("observation", "next_observation", "reward", "action"):
        np.testing.assert_allclose(getattr(replayed, name), getattr(trained, name), rtol=1e-6)
    np.testing.assert_allclose(trained.observation, wanted, rtol=1e-6)
    sized = data.on_raw(agent._replace(prepare=lambda prepared: prepared.reward), fitted)
    np.testing.assert_array_equal(sized.prepare(dataset), fitted.pay(dataset.reward))
