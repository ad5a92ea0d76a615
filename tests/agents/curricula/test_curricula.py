"""Each curriculum in a world whose level is a number: who is replayed, what is made anew, and what is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents
from jaxrl_reg.types import Played, Transition
from tests.loops import levels_toy

ENVS, STEPS = 4, 4
WORLD = levels_toy.make()


class Chooser:
    """A curriculum, step by step: its ``propose`` and ``record`` are compiled once each."""

    def __init__(self, agent, hyper=(), **config):
        module = agents.load(agent)
        made = module.make(module.Config(**config), WORLD.spec).curriculum(WORLD.levels, ENVS)
        self.hyper, self.extra, self.warmup = module.Hyper(**dict(hyper)), made.extra, made.warmup
        self.state = jax.jit(made.init)(jax.random.key(0), self.hyper)
        self._propose, self._record = jax.jit(made.propose), jax.jit(made.record)
        self.iteration = 0

    def propose(self):
        self.iteration += 1
        key = jax.random.key(self.iteration)
        self.level, self.slot = self._propose(self.state, key, self.hyper, jnp.int32(self.iteration))
        return np.asarray(self.level), np.asarray(self.slot)

    def record(self, won, expected=0.0):
        """Two episodes of two steps each, ``won`` ``[2, E']`` of them paid 1, where ``expected`` was to come; an
        episode whose entry is NaN was not finished."""
        won = np.broadcast_to(np.asarray(won, np.float32), (2, len(self.level)))
        reward, last = np.zeros((STEPS, won.shape[1]), np.float32), np.zeros((STEPS, won.shape[1]), np.float32)
        reward[[1, 3]], last[[1, 3]] = np.nan_to_num(won), np.isfinite(won)
        value = np.broadcast_to(np.asarray(expected, np.float32), reward.shape)
        zero = np.zeros((*reward.shape, 1), np.float32)
        rows = Transition(zero, zero, reward, 1 - last, zero, last)
        self.state, metrics = self._record(
            self.state, Played(self.level, self.slot, rows, value, value), self.hyper, jnp.int32(self.iteration)
        )
        return {name: float(value) for name, value in metrics.items()}


@functools.cache
def kept(agent):
    """``robust_plr`` or ``accel`` after its first round, in which every second new level was solved."""
    chooser = Chooser(agent, capacity=6, **({"edits": 2} if agent == "accel" else {}))
    first = chooser.propose()
    won = np.arange(2 * ENVS) % 2
    metrics = chooser.record(won, 0.25)
    return chooser, first, won, metrics, chooser.propose()


def test_domain_randomisation_remembers_nothing():
    chooser = Chooser("dr")
    level, slot = chooser.propose()
    assert chooser.extra == 0
    assert (slot == -1).all()
    assert (abs(level) < 1).all()
    metrics = chooser.record([[1, 0, 1, np.nan], [1, 0, 0, np.nan]])
    assert metrics["curriculum/unscored"] == 0.25
    assert metrics["curriculum/solved"] == pytest.approx(2 / 3)  # of those that were scored
    assert np.isfinite(metrics["curriculum/score"])
    assert chooser.state.buffer is None


def test_level_replay_tries_all_given_levels_and_then_the_worst_predicted():
    chooser = Chooser("plr", {"temperature": 0.02, "staleness": 0.0}, data_levels=6)
    data = np.asarray(chooser.state.buffer.level)
    assert ((data > 2) & (data < 3)).all()  # of the distribution that is aimed at
    seen = set()
    for _ in range(12):
        level, slot = chooser.propose()
        np.testing.assert_array_equal(level, data[slot])
        assert len(seen) == 6 or not seen & set(slot)
        seen |= set(slot)
        chooser.record(np.zeros((2, ENVS)), expected=slot)  # nothing is paid: the more expected, the more wrong
        if len(seen) == 6:
            break
    assert seen == set(range(6))
    assert (chooser.propose()[1] == 5).all()
    before = chooser.state.buffer
    metrics = chooser.record(np.full((2, ENVS), np.nan))  # no episode ended
    assert metrics["curriculum/unscored"] == 1.0
    assert metrics["curriculum/score"] == 0.0  # over scored levels, of which there are none
    np.testing.assert_array_equal(chooser.state.buffer.score, before.score)
    np.testing.assert_array_equal(chooser.state.buffer.age, before.age + 1)  # one more iteration unscored
    assert (chooser.propose()[1] == 5).all()


def test_level_replay_on_the_designers_levels_replays_a_share():
    chooser = Chooser("plr", source="generator", replay=0.25, capacity=3)
    _, slot = chooser.propose()
    assert (chooser.extra, list(slot)) == (0, [-1] * ENVS)  # the buffer is empty
    chooser.record(np.zeros((2, ENVS)), expected=[0.1, 0.4, 0.2, 0.3])
    np.testing.assert_allclose(sorted(chooser.state.buffer.level), sorted(np.asarray(chooser.level)[[1, 2, 3]]))
    level, slot = chooser.propose()
    assert (slot[:1] >= 0).all()
    assert (slot[1:] == -1).all()
    assert level[0] in np.asarray(chooser.state.buffer.level)


def test_robust_replay_learns_only_from_levels_that_were_solved():
    chooser, (first, none), won, metrics, (level, slot) = kept("robust_plr")
    assert chooser.extra == ENVS
    assert chooser.warmup == 1  # half of six slots are tried first
    assert (none == -1).all()
    np.testing.assert_allclose(sorted(np.asarray(chooser.state.buffer.level)[:4]), sorted(first[won == 1]))
    assert metrics["curriculum/filled"] == pytest.approx(4 / 6)
    assert set(level[:ENVS]) <= set(first[won == 1])
    assert (slot[:ENVS] >= 0).all()
    assert (slot[ENVS:] == -1).all()
    assert (abs(level[ENVS:]) < 1).all()
    # Best return 1 minus a value of 0.25; the best return is remembered when the level is lost the next time.
    np.testing.assert_allclose(np.asarray(chooser.state.buffer.score)[:4], 0.75)


def test_edits_are_made_of_what_is_replayed():
    chooser, (first, _), won, _, (level, slot) = kept("accel")
    np.testing.assert_allclose(first[ENVS:], first[:ENVS] + 20.0)  # two edits; before, of the designer's
    assert set(np.round(level[:ENVS], 4)) <= set(np.round(first[won == 1], 4))
    np.testing.assert_allclose(level[ENVS:], level[:ENVS] + 20.0)
    assert (slot[ENVS:] == -1).all()
    assert chooser.extra == ENVS


def test_learnable_levels_are_those_solved_now_and_then_and_not_for_long():
    chooser = Chooser("sfl", capacity=4, lifetime=2)
    level, slot = chooser.propose()
    assert (len(level), chooser.extra) == (2 * ENVS, ENVS)
    won = np.array([[0, 1, 1, 0, 1, 0, 1, 0], [0, 1, 0, 0, 1, 0, 1, 1]])
    chooser.record(won)
    learnable = level[[2, 7]]
    replayed, slot = chooser.propose()
    assert set(replayed[:2]) <= set(learnable)
    assert (slot[2:] == -1).all()
    chooser.record(np.zeros((2, 8)))  # lost twice: no longer learnable
    for _ in range(3):
        _, slot = chooser.propose()
        chooser.record(np.zeros((2, 8)))
    assert (slot == -1).all()
    assert not np.asarray(chooser.state.buffer.filled)[np.isin(np.asarray(chooser.state.buffer.level), learnable)].any()


@pytest.mark.parametrize("generator", ["vae", "edit"])
def test_dred_keeps_the_given_levels_and_makes_more_of_their_kind(generator):
    hyper = {"temperature_data": 1.0, "staleness": 0.5, "eta": 1.0}
    chooser = Chooser(
        "dred",
        hyper,
        capacity=8,
        data_levels=4,
        generator=generator,
        edits=1,
        vae_steps=60,
        vae_hidden=(8,),
        vae_latent=2,
        ramp_steps=4,
    )
    data = np.asarray(chooser.state.buffer.level)[:4]
    reached = 0
    for _ in range(8):
        level, slot = chooser.propose()
        assert chooser.extra == ENVS
        assert (slot[:ENVS] >= 0).all()
        assert (slot[ENVS:] == -1).all()
        np.testing.assert_array_equal(level[:ENVS], np.asarray(chooser.state.buffer.level)[slot[:ENVS]])
        if generator == "edit":
            np.testing.assert_allclose(level[ENVS:], level[:ENVS] + 10.0)
        else:
            assert (abs(level[ENVS:]) <= 1).all()  # numbers of a level end at 1
        chooser.record(np.ones((2, 2 * ENVS)), 0.5)
        reached = max(reached, slot[:ENVS].max())
    np.testing.assert_array_equal(np.asarray(chooser.state.buffer.level)[:4], data)
    assert np.asarray(chooser.state.buffer.filled).all()
    if generator == "edit":
        assert reached >= 4  # the whole buffer is drawn from once eta has risen


def test_dred_without_a_buffer_learns_from_new_levels_alone():
    chooser = Chooser("dred", buffered=False, data_levels=4, vae_steps=10, vae_hidden=(8,), vae_latent=2)
    level, slot = chooser.propose()
    assert (len(level), chooser.extra) == (ENVS, 0)
    assert (slot == -1).all()
