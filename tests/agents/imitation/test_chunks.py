"""Plans over an episode: which step of which plan is carried out, and what each plan is made from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.agents import beso, dm1
from jaxrl_reg.agents.imitation import _chunks
from jaxrl_reg.contract import Subject, run_check
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import zero_shot
from jaxrl_reg.types import Spec, as_float32, policy_of

SPEC = Spec(observation_dim=1, action_dim=1)
STEPS, CHUNK = 7, 3


def walk(execute, history):
    """Actions ``[T, 2]`` and contexts of an episode whose observation is 10 t for one lane, 100 t for the other."""

    def plan(context, key):
        newest = context.observation[..., -1, :]
        return newest[..., None, :] + jnp.arange(CHUNK)[:, None]

    policy = _chunks.follow(plan, 1, 1, CHUNK, execute, history)

    def body(memory, t):
        observation = t * jnp.array([[10.0], [100.0]])
        action, memory = policy.step(memory, observation, jnp.zeros(2), jax.random.key(0))
        return memory, (action[:, 0], memory.context)

    return jax.device_get(jax.jit(lambda: jax.lax.scan(body, policy.start((2,)), jnp.arange(STEPS))[1])())


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_each_plan_is_carried_out_for_as_long_as_it_should(execute):
    actions, _ = walk(execute, 1)
    t = np.arange(STEPS)
    planned, place = t - t % execute, t % execute
    np.testing.assert_allclose(actions, np.stack([10 * planned + place, 100 * planned + place], axis=1))


def test_the_past_is_the_last_states_and_the_actions_between_them():
    actions, context = walk(2, 3)
    for t in range(STEPS):
        exists = np.arange(t - 2, t + 1) >= 0
        np.testing.assert_array_equal(context.mask[t, 0], exists)
        np.testing.assert_allclose(
            context.observation[t, 1, :, 0], np.where(exists, 100.0 * np.arange(t - 2, t + 1), 0)
        )
        for place, then in enumerate((t - 1, t)):  # after acting, the newest action is in already
            assert context.action[t, 0, place, 0] == (actions[then, 0] if then >= 0 else 0.0)


def test_the_first_context_is_that_of_an_episode_beginning_in_the_data():
    observation = np.arange(8.0, dtype=np.float32)[:, None]
    ends = np.arange(8) % 4 == 3
    made = data.from_arrays(observation, 0 * observation, ends, ends, 0 * ends, observation, name="short")
    batch = data.take_chunks(made, jnp.array([4]), CHUNK, 3)
    seen, fresh = _chunks.context_of(batch, 3), _chunks.nothing_before(jnp.array([[4.0]]), 1, 3)
    np.testing.assert_array_equal(seen.mask, fresh.mask)
    np.testing.assert_array_equal(seen.observation[0, -1], fresh.observation[0, -1])
    assert [leaf.shape for leaf in seen] == [leaf.shape for leaf in fresh]


def test_nonsense_is_refused():
    for agent, settings, words in (
        (dm1, {"chunk": 4, "execute": 5}, "dm1: execute=5 must lie between 1 and chunk=4"),
        (beso, {"execute": 0}, "beso: execute=0"),
        (beso, {"history": 0}, "beso: history=0"),
        (beso, {"network": "gtp"}, "did you mean 'gpt'"),
        (beso, {"sampler": "ddmi"}, "did you mean 'ddim'"),
        (dm1, {"dispersion": "l3"}, "did you mean 'l2'"),
    ):
        with pytest.raises(UserError, match=words):
            agent.make(agent.Config(**settings), SPEC)


GPT = {"network": "gpt", "gpt_layers": 1, "gpt_heads": 2, "history": 3, "chunk": 2, "execute": 1, "steps": 2}


@pytest.mark.parametrize("check", ["keys", "vmap", "learns", "actions"])
def test_the_transformer_with_a_memory_keeps_the_contract(check, subject):
    result = run_check(subject, check)
    assert result.passed, result.message


@pytest.fixture(scope="module")
def subject():
    return Subject("beso", config=GPT)


def test_goals_matter_when_asked_for_and_only_then():
    """Weight 0 and no task are one policy; a goal changes plans; acting from memory begins as ``act`` does."""
    key, observation, goals = jax.random.key(0), jnp.ones((2, 1)), jnp.array([[3.0], [-3.0]])
    small = {"hidden": (8,), "history": 3, "chunk": 2, "execute": 1, "steps": 2}
    unguided, guided = (beso.make(beso.Config(**small, guidance=weight), SPEC) for weight in (0.0, 3.0))

    @jax.jit
    def run():
        state = unguided.init(key, as_float32(beso.Hyper()))
        policy = policy_of(unguided, state, None)
        return (
            [agent.zero_shot.act(state, observation, goal, key) for agent in (unguided, guided) for goal in goals],
            unguided.act(state, observation, None, key, False),
            policy.step(policy.start((2,)), observation, jnp.zeros(2), key)[0],
        )

    (unasked, other, asked, different), free, remembered = run()
    np.testing.assert_allclose(unasked, other, atol=1e-6)
    np.testing.assert_allclose(unasked, free, atol=1e-6)
    np.testing.assert_allclose(remembered, free, atol=1e-6)
    assert np.abs(asked - different).max() > 1e-3


def test_tasks_are_served_from_memory():
    """A task's goal is the state that pays most, and its policy carries a plan on where ``act`` would plan anew."""
    agent = beso.make(beso.Config(hidden=(8,), chunk=2, execute=2, steps=1), SPEC)
    labelled = zero_shot.Labelled(jnp.array([[0.0], [5.0], [9.0]]), jnp.array([[0.0, 1.0, 0.0]]))
    first, second = jax.random.split(jax.random.key(0))

    @jax.jit
    def run():
        state = agent.init(first, as_float32(beso.Hyper()))
        policy = zero_shot.serve(agent, state, labelled)(0)
        carried, memory = policy.step(policy.start(()), jnp.ones(1), jnp.zeros(()), first)
        after, _ = policy.step(memory, jnp.ones(1), jnp.zeros(()), second)
        goal = jnp.array([5.0])
        acted = [agent.zero_shot.act(state, jnp.ones(1), goal, key) for key in (first, second)]
        return carried, after, memory.plan, acted

    carried, after, plan, (acted, anew) = run()
    np.testing.assert_allclose(carried, acted, atol=1e-6)
    np.testing.assert_allclose(after, plan[1], atol=1e-6)
    assert not np.allclose(after, anew)
