"""Tasks of tokens: hand-written cases, a judge in NumPy, and that what solves a prompt is judged right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import tokens
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import TokenSpec, TokenTask

PAD, EOS, SEP = 0, 1, 2
MANY = 64


@functools.cache
def drawn(name, **settings):
    """Prompts, right answers and, for each, one token changed: all of a task in one program."""
    task = tokens.make(name, **settings)

    def one(key):
        draw_key, solve_key, at_key, token_key = jax.random.split(key, 4)
        prompt = task.draw(draw_key)
        answer = task.solve(prompt, solve_key)
        at = jax.random.randint(at_key, (), 0, task.spec.completion)
        wrong = answer.at[at].set(jax.random.randint(token_key, (), 0, task.spec.vocabulary))
        return prompt, answer, task.verify(prompt, answer), wrong, task.verify(prompt, wrong)

    return task, *map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), MANY)))


def ended(completion):
    """A completion up to its end token, or None without one."""
    found = np.flatnonzero(completion == EOS)
    return completion[: found[0]].tolist() if found.size else None


def numpy_judge(name, prompt, completion):
    """Whether a completion is right, written from the tasks' descriptions without their code."""
    body, said = [int(t) for t in prompt[:-1] if t != PAD], ended(completion)
    if said is None:
        return False
    numbers, third = [t - 3 for t in body], [t - 3 for t in said]
    if name == "copy":
        return said == body
    if name == "reverse":
        return said == body[::-1]
    if name == "sort":
        return said == sorted(body)
    if name == "modular":
        return third == [(numbers[0] + numbers[1]) % 13]
    if name == "digit_sum":
        return third == [int(digit) for digit in str(sum(numbers))]
    if name == "parity":
        return third == [sum(numbers) % 2]
    if name == "recall":
        return said == [dict(zip(body[:-1:2], body[1::2], strict=True))[body[-1]]]
    if name == "split":
        pairs = list(zip(third[::2], third[1::2], strict=False))
        good = all(a >= 0 and b >= 0 and (a + b) % 7 == numbers[0] for a, b in pairs)
        return len(third) == 4 and good
    if said.count(3) != 1 or said[-2:-1] != [3]:  # the one ANSWER, and one token after it
        return False
    if name == "steps":
        return said[-1] - 4 == sum(t - 4 for t in body) % 10
    assert name == "procedures"
    table = tokens.procedure_effects()
    hints = [t - 5 for t in body[2::2]]
    added = [table[t - 10].sum() for t in body[1::2]] if hints[0] < 0 else hints
    return said[-1] - 5 == (body[0] - 5 + sum(added)) % 5


EXACT = [name for name in tokens.NAMES if name != "styles"]


@pytest.mark.parametrize("name", EXACT)
def test_judges_agree_and_answers_are_right(name):
    task, prompts, answers, right, wrongs, judged = drawn(name)
    assert isinstance(task, TokenTask)
    assert task.name == f"tokens/{name}"
    assert prompts.shape == (MANY, task.spec.prompt)
    assert answers.shape == (MANY, task.spec.completion)
    assert prompts.dtype == answers.dtype == np.int32
    assert (prompts[:, -1] == SEP).all()
    assert (right == 1).all()
    for prompt, answer, wrong, verdict in zip(prompts, answers, wrongs, judged, strict=True):
        real = np.flatnonzero(prompt != PAD)
        assert (np.diff(real) == 1).all()
        assert real[-1] == len(prompt) - 1
        assert numpy_judge(name, prompt, answer)
        assert numpy_judge(name, prompt, wrong) == bool(verdict), (prompt, wrong)
        assert (answer[len(ended(answer)) + 1 :] == PAD).all()
    assert 0 < judged.mean() < 1  # a change after the end, or of what is not judged, is no fault


@pytest.mark.parametrize(
    ("name", "prompt", "completion", "reward"),
    [
        ("reverse", [0, 0, 0, 4, 5, 6, 2], [6, 5, 4, 1, 0, 0, 0], 1),
        ("reverse", [0, 0, 0, 4, 5, 6, 2], [6, 5, 4, 0, 1, 0, 0], 0),  # padding before the end is a wrong token
        ("reverse", [0, 0, 0, 4, 5, 6, 2], [6, 5, 4, 0, 0, 0, 0], 0),  # no end
        ("sort", [0, 0, 0, 9, 4, 4, 2], [4, 4, 9, 1, 0, 0, 0], 1),
        ("digit_sum", [0, 0, 0, 12, 12, 2], [4, 11, 1], 1),
        ("digit_sum", [0, 0, 0, 5, 3, 2], [5, 1, 0], 1),
        ("digit_sum", [0, 0, 0, 5, 3, 2], [3, 5, 1], 0),  # a leading 0
        ("recall", [3, 7, 4, 8, 5, 9, 6, 10, 4, 2], [8, 1], 1),
        ("split", [5, 2], [3, 5, 4, 4, 1], 1),
        ("split", [5, 2], [9, 6, 8, 7, 1], 1),  # 6 + 3 and 5 + 4 are 2 modulo 7
        ("split", [5, 2], [2, 6, 4, 4, 1], 0),
        ("steps", [0, 0, 0, 5, 6, 7, 2], [3, 10, 1, 0, 0, 0, 0, 0, 0], 1),  # the direct answer counts
        ("steps", [0, 0, 0, 5, 6, 7, 2], [5, 7, 10, 3, 10, 1, 0, 0, 0], 1),
        ("steps", [0, 0, 0, 5, 6, 7, 2], [3, 3, 10, 1, 0, 0, 0, 0, 0], 0),  # two marks
        ("steps", [0, 0, 0, 5, 6, 7, 2], [4, 4, 4, 4, 4, 4, 4, 3, 10], 0),  # cut off
        ("steps", [0, 0, 0, 5, 6, 7, 2], [4, 1, 3, 10, 1, 0, 0, 0, 0], 0),  # what follows the end is not read
    ],
)
def test_cases_by_hand(name, prompt, completion, reward):
    task = tokens.make(name)
    judged = task.verify(jnp.array(prompt, jnp.int32), jnp.array(completion, jnp.int32))
    assert judged.dtype == jnp.float32
    assert float(judged) == reward


def test_steps_shows_running_sums():
    answer = tokens.make("steps").solve(jnp.array([0, 0, 0, 13, 6, 7, 2]), jax.random.key(0))
    assert answer.tolist() == [13, 5, 8, 3, 8, 1, 0, 0, 0]  # 9, 11 and 14 modulo 10


def test_procedures_follow_hints_where_they_are_given():
    _task, prompts, answers, *_ = drawn("procedures")
    blank = prompts[:, 2] == 4
    lengths = np.array([len(ended(answer)) for answer in answers])
    assert set(lengths[blank]) == {11}
    assert set(lengths[~blank]) == {5}
    assert 0.3 < blank.mean() < 0.7
    table = tokens.procedure_effects().sum(1) % 5
    _, prompts, *_ = drawn("procedures", hints="true")
    assert (prompts[:, 2:-1:2] - 5 == table[prompts[:, 1:-1:2] - 10]).all()


def test_styles_pay_for_the_asked_style_and_for_being_right():
    task = tokens.make("styles")
    direct, think = [3, 6, 1, 0, 0, 0, 0], [4, 5, 7, 6, 3, 6, 1]
    cases = [(9, think), (9, direct), (10, direct), (0, direct), (9, [3, 5, 1, 0, 0, 0, 0]), (9, [4] * 7)]
    prompts = jnp.array([[tag, 4, 5, 6, 8, 2] for tag, _ in cases])
    completions = jnp.array([row for _, row in cases])
    parts = jax.vmap(task.parts)(prompts, completions)
    assert parts["right"].tolist() == [0.5, 0.5, 0.5, 0.5, 0.0, 0.0]  # 0 + 1 + 2 + 4 is 2 modulo 5
    assert parts["format"].tolist() == [0.5, 0.0, 0.5, 0.5, 0.0, 0.0]
    assert jax.vmap(task.verify)(prompts, completions).tolist() == [1.0, 0.5, 1.0, 1.0, 0.0, 0.0]
    assert jax.vmap(tokens.style_of)(prompts, completions).tolist() == [1, 2, 2, 2, 2, 0]
    _, prompts, _answers, rewards, *_ = drawn("styles", tag="mixed")
    assert set(prompts[:, 0]) == {0, 9, 10}
    assert set(rewards) == {0.5, 1.0}
    tagged = prompts[:, 0] != 0
    assert 0.6 < (rewards[tagged] == 1).mean() < 0.95


def test_a_prefix_stands_before_the_question_and_the_judge_does_not_see_it():
    task = envs.make("tokens/reverse", longest=4, prefix="think 7 think")
    assert task.spec == TokenSpec(14, 8, 5)

    @jax.jit
    @jax.vmap
    def asked(key):
        prompt = task.draw(key)
        answer = task.solve(prompt, key)
        return prompt, answer, task.verify(prompt, answer), task.verify(prompt, answer.at[0].add(1))

    prompts, answers, right, wrong = map(np.asarray, asked(jax.random.split(jax.random.key(0), 16)))
    for prompt, answer in zip(prompts, answers, strict=True):
        words = [int(token) for token in prompt if token != PAD]
        assert (prompt[: len(prompt) - len(words)] == PAD).all()
        assert words[:3] == [13, 10, 13]
        assert words[3:-1] == ended(answer)[::-1]
    assert {len([t for t in prompt if t]) for prompt in prompts} == {7, 8}
    assert right.tolist() == [1.0] * 16
    assert wrong.tolist() == [0.0] * 16
    assert task.decode([0, 13, 10, 13, 3, 2]) == "think 7 think 0 >"
    styles = tokens.make("styles", prefix="now")
    paid = styles.parts(jnp.array([0, 11, 4, 5, 6, 8, 2]), jnp.array([3, 6, 1] + [0] * 4))
    assert paid == {"format": 0.5, "right": 0.5}  # no tag: any style has the right format


def test_names_settings_and_words():
    assert "tokens/reverse" in envs.names()
    task = envs.make("tokens/reverse", longest=4)
    assert task.spec.completion == 5
    assert task.decode([0, 3, 12, 2]) == "0 9 >"
    assert task.decode([12, 1, 0]) == "9 <eos>"
    for settings, words in [
        ({"longst": 4}, "longest"),
        ({"longest": 2}, "longest=2 must be a whole number of at least 3"),
        ({"base": 1}, "base=1"),
    ]:
        with pytest.raises(UserError, match=words):
            envs.make("tokens/reverse", **settings)
    with pytest.raises(UserError, match="tokens/reverse"):
        envs.make("tokens/revers")
    with pytest.raises(UserError, match="add or multiply"):
        tokens.make("modular", operation="minus")
    with pytest.raises(UserError, match="think"):
        tokens.make("styles", tag="thinking")
