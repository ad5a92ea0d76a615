"""Runs that answer twice: what the second prompt shows, who judges it, its lessons, and tasks that ask only once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.envs.tokens import again
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.tokens import evaluator
from jaxrl_reg.loops._turns import one_wrong
from jaxrl_reg.loops.rlvr import rlvr, solved
from jaxrl_reg.types import Agent

TASK = envs.make("tokens/copy", base=3, shortest=2, longest=2)  # answers are [a, b, 1]


def mending(seen=None):
    """An agent whose first answer is right for prompts that begin with 3 alone, and whose second is always right."""

    def act(state, prompt, hyper, key, explore):
        right = jnp.concatenate([prompt[..., :2], jnp.ones_like(prompt[..., :1])], axis=-1)
        if prompt.shape[-1] == TASK.spec.second.prompt:
            return right
        return jnp.where(prompt[..., :1] == 3, right, jnp.array([5, 5, 5]))

    def update(state, batch, hyper, key, step):
        second = batch.extras["second"]
        shown = jnp.concatenate([batch.prompt[:, None].repeat(4, 1), batch.completion], axis=-1)
        same = {"shown": second.prompt[..., :-1] == shown, "cue": second.prompt[..., -1] == 2}
        return state, {name: value.all().astype(jnp.float32) for name, value in same.items()}

    return Agent(lambda key, hyper: jnp.float32(0), update, act, kind="tokens", turns=2)


def test_the_second_prompt_shows_the_first_answer_and_is_judged_by_the_first_prompt():
    judge = evaluator(TASK, 64, 2, turns=2)
    run = rlvr(mending(), TASK, updates=2, prompts=32, group=4, evaluate=judge)
    found = jax.device_get(quick(lambda: run(jax.random.key(0), None)[1])())
    assert found["shown"][0] == found["cue"][0] == 1.0
    for name in ("train", "eval"):
        assert found[f"{name}/second/return"][0] == 1.0
        assert found[f"{name}/mended"][0] == found[f"{name}/gain"][0] > 0.4
        assert found[f"{name}/spoilt"][0] == 0.0
        np.testing.assert_allclose(found[f"{name}/return"][0] + found[f"{name}/gain"][0], 1.0, atol=0.15)
    assert found["eval/second/sampled"][0] == 1.0
    assert found["train/truncated"][0] > 0.4  # cut-off first answers, after which the second prompt is whole


def test_a_cut_off_answer_gives_a_whole_second_prompt():
    prompt = jnp.array([0, 3, 2])
    for completion in ([3, 4, 5], [3, 1, 0], [0, 3, 1]):
        found = again(prompt, jnp.array(completion))
        assert found.tolist() == [0, 3, 2, *completion, 2]
        assert found.dtype == jnp.int32


def test_lessons_of_the_second_turn_mostly_repeat_what_is_shown():
    batch = jax.device_get(quick(lambda key: solved(TASK, key, 2000, 2))(jax.random.key(0)))
    second = batch.extras["second"]
    shown = second.prompt[..., 3:6]
    right = (shown == batch.completion).all(-1)
    assert abs(right.mean() - 0.3) < 0.04
    wrong = shown[~right]
    assert ((wrong != batch.completion[~right]).sum(-1) == 1).all()  # one symbol
    assert (wrong[:, -1] == 1).all()  # which is not the end
    assert wrong[:, :2].min() >= 3
    assert wrong.max() < TASK.spec.vocabulary
    repeats = (second.completion == shown).all(-1)[~right]
    assert abs(repeats.mean() - 0.8) < 0.03
    np.testing.assert_array_equal(second.completion[~right][~repeats], batch.completion[~right][~repeats])
    assert second.mask.shape == batch.mask.shape
    assert jax.eval_shape(lambda key: solved(TASK, key, 4), jax.random.key(0)).extras == {}


def test_nothing_to_spoil_is_left_alone():
    ended = jnp.array([1, 0, 0])
    np.testing.assert_array_equal(one_wrong(ended, jax.random.key(0), 6, 1), ended)


def test_a_task_that_asks_once_is_one_line():
    for task, words in [
        (TASK._replace(follow=None, name="riddles"), "answers twice, and riddles asks once"),
        (TASK._replace(follow=lambda prompt, completion: prompt), r"prompt \[3\]; it must be \[7\]"),
    ]:
        with pytest.raises(UserError, match=words):
            rlvr(mending(), task, updates=1)
