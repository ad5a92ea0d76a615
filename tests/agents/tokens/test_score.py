"""SCoRe: who earns what in which stage, the loss of a turn against NumPy, and what two stages do to two answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents
from jaxrl_reg.agents.tokens import _model, score
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import tokens
from jaxrl_reg.types import Completions, TokenSpec, as_float32

SPEC = TokenSpec(6, 3, 4)
FIRST, SECOND = np.array([[0.0, 1, 0, 1]]), np.array([[1.0, 1, 0, 0]])


def left_out(reward):
    count = reward.shape[-1]
    return reward - (reward.sum(-1, keepdims=True) - reward) / (count - 1)


def test_the_bonus_is_the_second_answers_and_no_credit_goes_back_to_the_first():
    first, second = jnp.array(FIRST, jnp.float32), jnp.array(SECOND, jnp.float32)
    credit, again = score.rewarded(first, second, jnp.array(False), 10.0)
    np.testing.assert_allclose(credit, left_out(FIRST), rtol=1e-6)
    np.testing.assert_allclose(again, left_out(np.array([[11.0, 1, 0, -10]])), rtol=1e-5)
    other, _ = score.rewarded(first, 1.0 - second, jnp.array(False), 10.0)
    np.testing.assert_array_equal(other, credit)  # or the first would be paid for failing


def test_in_stage_one_only_the_second_answer_is_rewarded():
    credit, again = score.rewarded(*(jnp.array(x, jnp.float32) for x in (FIRST, SECOND)), jnp.array(True), 10.0)
    np.testing.assert_array_equal(credit, 0.0)
    np.testing.assert_allclose(again, left_out(SECOND), rtol=1e-6)


def test_the_loss_of_a_turn():
    rng = np.random.default_rng(0)
    logits, reference = rng.normal(size=(2, 2, 3, 4, 6))
    mask = (np.arange(4) < np.array([[4, 2, 3], [1, 4, 2]])[..., None]).astype(float)
    log_prob, advantage = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3))
    batch = Completions(None, None, jnp.array(mask), None, None)
    turn = score.Turn(batch, jnp.array(reference), jnp.array(advantage), 0.3)
    gradient, held, kl, entropy = score.turn_loss(turn, jnp.array(log_prob), jnp.array(logits))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (logits, reference))
    divergence = (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(gradient, -(mask * advantage[..., None] * log_prob).sum() / 6, rtol=1e-5)
    np.testing.assert_allclose(held, 0.3 * (mask * divergence).sum() / 6, rtol=1e-5)
    np.testing.assert_allclose(kl, (mask * divergence).sum() / mask.sum(), rtol=1e-5)
    np.testing.assert_allclose(entropy, (mask * -(p * np.log(p)).sum(-1)).sum() / mask.sum(), rtol=1e-5)


def two_turns():
    """Two prompts, three pairs of answers each. In both turns answers begin with 3, 4 or 5; the first pays in turn 1,
    the last in turn 2."""
    prompt = jnp.array([[0, 3, 2], [4, 5, 2]], jnp.int32)
    answer = jnp.broadcast_to(jnp.array([[3, 1, 0, 0], [4, 1, 0, 0], [5, 1, 0, 0]], jnp.int32), (2, 3, 4))
    mask = jnp.broadcast_to(jnp.array([1.0, 1, 0, 0]), (2, 3, 4))
    none = jnp.zeros((2, 3))
    shown = jnp.concatenate([_model.each(prompt, answer), answer, jnp.full((2, 3, 1), 2, jnp.int32)], axis=-1)
    second = Completions(shown, answer, mask, none.at[:, 2].set(1.0), none)
    return Completions(prompt, answer, mask, none.at[:, 0].set(1.0), none, {"second": second})


def test_stage_one_moves_the_second_answer_and_leaves_the_first():
    agent, batch = agents.make("score", SPEC, hidden=(8,), heads=2), two_turns()
    columns = SPEC.second.prompt + SPEC.second.completion
    policies = [tokens.make(one, (8,), 2, columns) for one in (SPEC, SPEC.second)]
    lesson = jax.tree.map(lambda leaf: leaf[:, :1], batch)
    lesson = dataclasses.replace(lesson, prompt=batch.prompt)

    @quick
    def learnt(key, hyper):
        start = agent.init(key, hyper)
        start, _ = agent.imitate(start, lesson, hyper, key, jnp.int32(0))

        def body(state, i):
            return agent.update(state, batch, hyper, jax.random.fold_in(key, i), i)

        state, metrics = jax.lax.scan(body, start, jnp.arange(30))
        found = []
        for policy, turn in zip(policies, (batch, batch.extras["second"]), strict=True):
            rows = _model.each(turn.prompt, turn.completion), turn.completion
            found.append([policy.log_prob(x, *rows)[..., 0].mean(0) for x in (start.model.params, state.model.params)])
        return found, metrics, start

    key = jax.random.key(0)
    settings = [{"stage_one": 30.0}, {"stage_one": 0.0}, {"stage_one": 30.0, "kl_first": 0.0}]
    hypers = [as_float32(score.Hyper(learning_rate=0.01, bonus=1.0, **one)) for one in settings]
    (early, metrics, start), (late, after, _), (free, _, _) = (jax.device_get(learnt(key, hyper)) for hyper in hypers)
    (before, first), (_, second) = early
    assert second[2] > second[0] + 1.0  # what pays in the second turn
    carried = abs(free[0][1] - free[0][0]).max()  # what the shared weights would do to the first answer
    assert abs(first - before).max() < 0.5 * carried
    assert set(metrics["stage"]) == {1.0}
    (_, first), (_, second) = late
    assert first[0] > first[2] + 1.0  # in stage two each answer learns what pays in its turn
    assert second[2] > second[0] + 1.0
    assert set(after["stage"]) == {2.0}
    assert 4 * metrics["kl"].max() < after["kl"].max()
    for ours, theirs in zip(jax.tree.leaves(start.reference), jax.tree.leaves(start.model.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_missing_is_one_line():
    agent, hyper = agents.make("score", SPEC, hidden=(8,), heads=2), as_float32(score.Hyper())
    state = jax.eval_shape(agent.init, jax.random.key(0), hyper)
    batch = dataclasses.replace(two_turns(), extras={})
    with pytest.raises(UserError, match=r"extras\['second'\]"):
        jax.eval_shape(agent.update, state, batch, hyper, jax.random.key(0), jnp.int32(0))
    with pytest.raises(UserError, match="prompts of 3 ids, and again those of 8; got 5"):
        jax.eval_shape(
            lambda state: agent.act(state, jnp.zeros((1, 5), jnp.int32), hyper, jax.random.key(0), False), state
        )
    for width in (3, 8):
        prompt = jax.ShapeDtypeStruct((2, width), jnp.int32)
        found = jax.eval_shape(
            lambda state, prompt: agent.act(state, prompt, hyper, jax.random.key(0), True), state, prompt
        )
        assert found.shape == (2, 4)
