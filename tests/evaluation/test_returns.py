"""Episode returns against a plain Python loop, and what happens past an episode's end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import Outcome, environment, time_limit
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import episode_returns, evaluator
from jaxrl_reg.loops.rollout import record
from jaxrl_reg.types import Policy, Spec


def countdown(limit: int = 12):
    """Starts at 1 to 4 and counts down; reward is the count. At 0 it terminates, and beyond, rewards are infinite."""

    def reset(key):
        n = jax.random.randint(key, (), 1, 5).astype(jnp.float32)
        return Outcome(n, n[None])

    def step(n, action, key):
        reward = jnp.where(n > 0, n, jnp.inf)
        return Outcome(n - 1.0, (n - 1.0)[None], reward, terminated=(n - 1.0) == 0)

    return time_limit(environment(reset, step, Spec(1, 1), "countdown"), limit)


def still(observation, key):
    return jnp.zeros((*observation.shape[:-1], 1))


def python_episode(env, act, key, index, episodes, discount):
    """The same random numbers, one episode, an ordinary loop."""
    reset_key, act_key = jax.random.split(key)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state = reset(jax.random.split(reset_key, episodes)[index])
    total = discounted = 0.0
    length = 0
    while True:
        # Actions are drawn for the whole batch at once; take this episode's.
        batch = jnp.tile(state.observation, (episodes, 1))
        state = step(state, act(batch, jax.random.fold_in(act_key, length))[index])
        total += float(state.reward)
        discounted += discount**length * float(state.reward)
        length += 1
        if state.terminated or state.truncated:
            return total, discounted, length, float(state.terminated)


def noisy(observation, key):
    return jnp.clip(observation[..., :1] + jax.random.normal(key, (*observation.shape[:-1], 1)), -1.0, 1.0)


@pytest.mark.parametrize(
    ("env", "act"), [(envs.make("pendulum", episode_length=7), noisy), (countdown(), still), (countdown(3), still)]
)
def test_equals_a_python_loop(env, act):
    episodes, discount, key = 5, 0.9, jax.random.key(3)
    got = jax.jit(lambda k: episode_returns(env, episodes, discount)(act, k))(key)
    want = np.array([python_episode(env, act, key, i, episodes, discount) for i in range(episodes)]).T
    for name, values in zip(("return", "discounted", "length", "terminated"), want, strict=True):
        np.testing.assert_allclose(got[name], values, rtol=1e-5, err_msg=name)


def test_members_end_at_different_times_under_vmap():
    env = countdown()

    def policy(key):
        return episode_returns(env, 4)(still, key)

    keys = jax.random.split(jax.random.key(0), 6)
    together = jax.jit(jax.vmap(policy))(keys)
    one = jax.jit(policy)
    for i, key in enumerate(keys):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, one(key))
    lengths = np.asarray(together["length"])
    np.testing.assert_allclose(together["return"], lengths * (lengths + 1) / 2)
    assert len(np.unique(lengths.max(axis=1))) > 1, "the members must differ for this test to say anything"


def test_the_loop_stops_when_every_episode_has_ended():
    calls = []

    def act(observation, key):
        jax.debug.callback(lambda: calls.append(1))
        return still(observation, key)

    got = jax.jit(lambda k: episode_returns(countdown(1000), 8)(act, k))(jax.random.key(1))
    jax.effects_barrier()
    assert len(calls) == int(got["length"].max()) < 10


def test_evaluator_gives_means_and_the_spread():
    env, key = countdown(), jax.random.key(5)
    each, mean = episode_returns(env, 6)(still, key), evaluator(env, 6)(still, key)
    assert sorted(mean) == ["length", "return", "return_std"]
    np.testing.assert_allclose(mean["return_std"], np.std(each["return"]), rtol=1e-6)
    for name in ("length", "return"):
        np.testing.assert_allclose(mean[name], np.mean(each[name]), rtol=1e-6)
    assert mean["return"].dtype == jnp.float32


def test_needs_an_episode():
    with pytest.raises(UserError, match="episodes=0"):
        evaluator(countdown(), 0)


def test_a_policy_with_a_memory_sees_its_past_and_the_rewards():
    """An environment that pays what the policy asks for; the policy asks for one more than it was last paid."""

    def reset(key):
        return Outcome(jnp.zeros(1), jnp.zeros(1))

    def step(state, action, key):
        return Outcome(state, state, 32 * action[0])

    env = time_limit(environment(reset, step, Spec(1, 1), "payer"), 4)

    def policy_step(calls, observation, reward, key):
        return (reward + calls)[..., None] / 32, calls + 1

    policy = Policy(lambda shape: jnp.ones(shape), policy_step)
    results = episode_returns(env, 3)(policy, jax.random.key(0))
    np.testing.assert_array_equal(results["return"], [1 + 3 + 6 + 10] * 3)
    np.testing.assert_array_equal(record(env, policy, jax.random.key(0), 6).reward, [1, 3, 6, 10, 0, 0])
