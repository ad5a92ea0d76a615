"""What recurs in traces: counted by hand and by NumPy, and read from the task's own solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.data import behaviours
from jaxrl_reg.envs.tokens import Procedures

EFFECTS = np.array([[1, 2, 0], [4, 4, 4], [0, 3, 3], [2, 2, 2]])  # 3, 2, 1, 1 modulo 5
WORLD = Procedures(EFFECTS)
NET = np.array([3, 2, 1, 1])
HAND = np.array([6, 10, 4, 11, 4, 12, 4, 2]), np.array([7, 9, 9, 8, 7, 6, 6, 9, 7, 3, 7, 1])  # 1, then 0, 1 and 2
BROKEN = [(0, 3), (4, 4), (8, 11), (9, 5), (10, 5), (11, 5)]  # a column of HAND, and another token there


def test_votes_are_numpys_and_strangers_are_not_counted():
    generator = np.random.default_rng(0)
    operation = generator.integers(-2, 6, (20, 3))
    before, after = generator.integers(0, 5, (2, 20, 3))
    weight = generator.random((20, 3)).astype(np.float32)
    votes = jax.jit(behaviours.recurring_effects, static_argnums=(4, 5))(operation, before, after, weight, 4, 5)
    expected = np.zeros((4, 5))
    for row in zip(operation.flat, before.flat, after.flat, weight.flat, strict=True):
        if 0 <= row[0] < 4:
            expected[row[0], (row[2] - row[1]) % 5] += row[3]
    np.testing.assert_allclose(votes, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"weight \(20,\)"):
        behaviours.recurring_effects(operation, before, after, weight[:, 0], 4, 5)


def test_an_entry_needs_enough_votes_and_more_than_half():
    votes = jnp.array([[0, 3, 0], [0, 0, 2.9], [2, 4, 2], [1, 4, 2], [0, 0, 0]], jnp.float32)
    effect, known = behaviours.handbook(votes, 3)
    assert effect.tolist() == [1, 2, 1, 1, 0]
    assert effect.dtype == jnp.int32
    assert known.tolist() == [True, False, False, True, False]


@pytest.fixture(scope="module")
def solutions():
    """Of 40 problems and the one by hand, all in one program: prompt, solution, both again with the true hints, with
    those of operations other than 2, and what is read from the solutions, and from those of the last one broken."""
    task = WORLD.task("blank")

    def read(prompt, key):
        answer, hinted = task.solve(prompt, key), WORLD.hinted(prompt, NET)
        some = WORLD.hinted(prompt, NET, np.arange(4) != 2)
        return prompt, answer, hinted, task.solve(hinted, key), some, WORLD.trace(prompt, answer)

    @jax.jit
    def everything(keys):
        prompts = jnp.concatenate([jax.vmap(task.draw)(keys[:-1]), HAND[0][None]])
        broken = jnp.stack([jnp.asarray(HAND[1]).at[at].set(token) for at, token in BROKEN])
        return jax.vmap(read)(prompts, keys), jax.vmap(lambda row: WORLD.trace(HAND[0], row)[3])(broken)

    return jax.tree.map(np.asarray, everything(jax.random.split(jax.random.key(0), 41)))


def test_traces_are_read_and_broken_ones_say_so(solutions):
    (_, answer, *_, (operation, before, after, whole)), broken = solutions
    assert answer[-1].tolist() == HAND[1].tolist()
    assert operation[-1].tolist() == [0, 1, 2]
    assert before[-1].tolist() == [1, 4, 1]
    assert after[-1].tolist() == [4, 1, 2]
    assert (whole == 1).all()
    assert broken.tolist() == [0] * len(BROKEN)


def test_a_handbook_of_solutions_is_the_effects(solutions):
    operation, before, after, whole = solutions[0][-1]
    weight = np.broadcast_to(whole[:, None], operation.shape)
    votes = behaviours.recurring_effects(operation, before, after, weight, 4, 5)
    assert votes.sum() == 3 * 41
    effect, known = behaviours.handbook(votes)
    assert effect.tolist() == NET.tolist()
    assert known.all()


def test_hints_shorten_solutions_and_are_blank_where_one_is_not_known(solutions):
    prompt, answer, hinted, short, some, _ = solutions[0]
    assert (hinted[:, 2:-1:2] == 5 + NET[prompt[:, 1:-1:2] - 10]).all()
    assert ((answer != 0).sum(1) == 12).all()
    assert ((short != 0).sum(1) == 6).all()
    assert (short[:, 4] == answer[:, 10]).all()
    unknown = (prompt[:, 1:-1:2] == 12).any(1)
    assert 0 < unknown.sum() < 41
    assert (some[unknown] == prompt[unknown]).all()  # all of them blank, or a hint of some would count for the whole
    assert (some[~unknown] == hinted[~unknown]).all()
