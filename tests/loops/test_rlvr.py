"""The loop on verified rewards: what agents are handed, members and segments alike, and that it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, envs, population
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.tokens import evaluator
from jaxrl_reg.loops.rlvr import judged, rlvr
from jaxrl_reg.types import Agent, Spec, TokenSpec, TokenTask, as_float32

TASK = envs.make("tokens/copy", base=2, shortest=2, longest=2)


def answering(answer, learn=lambda state, batch: (state, {})):
    """An agent that completes a prompt with ``answer(prompt, key)`` and learns nothing."""

    def act(state, prompt, hyper, key, explore):
        flat = prompt.reshape(-1, prompt.shape[-1])
        found = jax.vmap(answer)(flat, jax.random.split(key, flat.shape[0]))
        return found.reshape(*prompt.shape[:-1], found.shape[-1])

    def update(state, batch, hyper, key, step):
        return learn(state, batch)

    return Agent(lambda key, hyper: jnp.float32(0), update, act, kind="tokens")


@functools.cache
def small():
    module = agents.grpo
    agent = module.make(module.Config(hidden=(8,), heads=2), TASK.spec)
    run = rlvr(
        agent,
        TASK,
        updates=60,
        segments=3,
        prompts=4,
        group=8,
        warm_up=10,
        warm_up_batch=8,
        evaluate=evaluator(TASK, 16, 2),
    )
    return run, [as_float32(module.Hyper(learning_rate=0.01, clip_high=high)) for high in (0.1, 0.3)]


@functools.cache
def begin():
    return jax.jit(small()[0].init)


@pytest.fixture(scope="module")
def trained():
    """States and metrics of a population, leaves ``[settings, seeds, ...]``."""
    run, hypers = small()
    keys = jax.vmap(jax.random.key)(jnp.array([3, 4]))
    members = jax.vmap(jax.vmap(run, (0, None)), (None, 0))
    return jax.device_get(jax.jit(members)(keys, population.stack(hypers)))


def test_a_population_learns_and_its_metrics_are_there(trained):
    _, metrics = trained
    assert metrics["train/return"].shape == (2, 2, 3)
    assert metrics["train/return"][..., -1].mean() > metrics["train/return"][..., 0].mean() + 0.2
    assert metrics["eval/sampled"][..., -1].mean() > 0.5
    for name in ("length", "truncated", "uninformative"):
        assert ((metrics[f"train/{name}"] >= 0) & (metrics[f"train/{name}"] <= 4)).all()
    wanted = {"return", "sampled", "length", "pass_at_k", "majority_at_k"}
    assert {f"eval/{name}" for name in wanted} <= set(metrics)
    assert (metrics["eval/pass_at_k"] <= metrics["eval/sampled"] + 1e-6).all()  # k = 1 of 2 samples


def test_a_member_alone_is_the_one_of_the_population_and_goes_on_bit_by_bit(trained):
    run, hypers = small()
    key, hyper = jax.random.key(4), hypers[1]
    segment = jax.jit(lambda state, index: run.segment(state, index, key, hyper, None))
    states, history = [begin()(key, hyper)], []
    for index in range(3):
        state, metrics = segment(states[-1], jnp.int32(index))
        states.append(state)
        history.append(metrics)
    again, _ = segment(jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)), states[2]), jnp.int32(2))
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(states[3]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("train/return", "train/length", "eval/return", "eval/sampled"):
        alone = [float(metrics[name]) for metrics in history]
        np.testing.assert_allclose(trained[1][name][1, 1], alone, atol=1e-5, err_msg=name)
    for ours, theirs in zip(
        jax.tree.leaves(jax.tree.map(lambda leaf: leaf[1, 1], trained[0])), jax.tree.leaves(states[3]), strict=True
    ):
        # Adam makes steps of the rounding of small gradients: 1.9e-5 on one kind of processor, below 1e-5 on others.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=5e-5)


def test_the_warm_start_is_the_same_whatever_learning_rate_is_swept():
    first, second = (
        begin()(jax.random.key(0), as_float32(agents.grpo.Hyper(learning_rate=rate))) for rate in (0.1, 0.2)
    )
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(jax.tree.leaves(first.reference), jax.tree.leaves(first.model.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_masks_and_rewards_by_hand():
    prompt = jnp.array([[3, 4, 2]])
    completion = jnp.array([[[3, 4, 1], [3, 1, 0], [0, 3, 1], [3, 4, 4]]])
    batch, parts = judged(TASK, prompt, completion)
    assert batch.reward.tolist() == [[1, 0, 0, 0]]
    assert batch.mask.tolist() == [[[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]]]
    assert batch.truncated.tolist() == [[0, 0, 0, 1]]
    assert parts == {}


def test_groups_without_variance_and_the_parts_of_a_reward_are_seen():
    """A reward of two parts that cancel leaves every group without variance; the parts say why."""

    def parts(prompt, completion):
        long = (completion != 1).sum().astype(jnp.float32)
        return {"length": long, "brevity": 3.0 - long}

    def verify(prompt, completion):
        return sum(parts(prompt, completion).values())

    task = TokenTask(lambda key: jnp.array([3, 2]), verify, None, TokenSpec(5, 2, 3), "cancelling", parts)
    agent = answering(
        lambda prompt, key: jnp.where(jax.random.bernoulli(key), jnp.array([1, 0, 0]), jnp.array([3, 3, 1]))
    )
    run = rlvr(agent, task, updates=4, prompts=2, group=4)
    _, history = jax.jit(lambda: run(jax.random.key(0), None))()
    assert float(history["train/uninformative"][0]) == 1.0
    assert float(history["train/return"][0]) == 3.0
    assert 1.0 < float(history["train/reward/length"][0]) < 3.0
    np.testing.assert_allclose(history["train/reward/brevity"] + history["train/reward/length"], 3.0, rtol=1e-6)


def test_dynamic_sampling_keeps_groups_that_differ_first():
    """Half of the prompts are always answered rightly: twice the prompts give as many groups that differ as fit."""

    def answer(prompt, key):
        right = jnp.append(prompt[:2], 1)
        return jnp.where((prompt[0] == 3) | jax.random.bernoulli(key), right, jnp.array([1, 0, 0]))

    def learn(state, batch):
        assert batch.reward.shape == (8, 6)
        return state, {
            "informative": (batch.reward.max(-1) > batch.reward.min(-1)).mean(),
            "first": batch.prompt[:, 0].mean(),
        }

    def shares(oversample):
        run = rlvr(answering(answer, learn), TASK, updates=8, prompts=8, group=6, oversample=oversample)
        return jax.device_get(jax.jit(lambda: run(jax.random.key(0), None)[1])())

    once, twice = shares(1), shares(3)
    assert 0.3 < once["informative"][0] < 0.7
    assert twice["informative"][0] > 0.95
    assert twice["first"][0] > 3.9  # of the prompts that begin with 4
    assert 0.3 < twice["train/uninformative"][0] < 0.7  # of all that was sampled


def test_what_cannot_be_run_is_one_line():
    agent = answering(lambda prompt, key: jnp.array([1, 0, 0]))
    unsolved = TASK._replace(solve=None, name="riddles")
    for arguments, settings, words in [
        ((agents.make("ppo", Spec(2, 1)), TASK), {}, "this one is on_policy; take grpo"),
        ((agent, unsolved), {"warm_up": 1}, "riddles has no right answers to show; take warm_up=0"),
        ((agent, TASK), {"prompts": 0}, "prompts=0 must be at least 1"),
        ((agent, TASK), {"segments": 3}, "multiple of segments=3"),
        ((agent, TASK), {"lessons": envs.make("tokens/copy")}, "must be the same"),
        ((agent, envs.make("pendulum")), {}, "needs a task of tokens"),
    ]:
        with pytest.raises(UserError, match=words):
            rlvr(*arguments, updates=4, **settings)
