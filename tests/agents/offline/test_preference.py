"""Preferences of segments: the better action is learnt where cloning learns the mean, and every loss can be had."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, data
from jaxrl_reg.agents.offline import preference
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Spec, as_float32

CONFIG = {"hidden": (8,), "segment": 4, "pairs": 200, "clone": 100}


def two_habits(discrete=False):
    """Episodes of 8 steps; one half always does the first thing, which pays, the other half the second."""
    generator = np.random.default_rng(0)
    good = np.repeat(np.arange(40) % 2, 8)
    observation = generator.normal(size=(320, 2))
    action = np.eye(3)[good] * 2 - 1 if discrete else (good - 0.5 + 0.1 * generator.normal(size=320))[:, None]
    end = (np.arange(320) % 8 == 7).astype(float)
    rows = data.from_arrays(observation, action, good.astype(float), 0 * end, end, observation, name="habits")
    return dataclasses.replace(rows, discrete=discrete)


def trained(rows, **config):
    agent = preference.make(preference.Config(**{**CONFIG, **config}), rows.spec)
    run = offline(agent, batch_size=64, updates=300)
    hyper = as_float32(preference.Hyper(learning_rate=1e-2))
    state, history = quick(run)(jax.random.key(0), hyper, agent.prepare(rows))
    action = agent.act(state, jnp.asarray(rows.observation[:64]), hyper, jax.random.key(1), False)
    return np.asarray(action), history


@pytest.mark.parametrize("discrete", [False, True])
def test_the_better_habit_is_learnt(discrete):
    action, history = trained(two_habits(discrete))
    assert (action.argmax(-1) == 1).all() if discrete else action.mean() > 0.2  # cloning: the mean of both, 0
    assert history["accuracy"][-1] > 0.7  # in half of the pairs both did the same, and the judge tossed a coin
    assert history["chosen_log_ratio"][-1] > history["rejected_log_ratio"][-1] + 0.5


def test_every_loss_goes_down_the_right_way():
    """At the reference the first step of each prefers the better of two segments: its slope is negative in it."""
    mean = jnp.full(3, -1.0)
    hyper = preference.Hyper()

    def slopes(name):
        def loss(first, second):
            config = preference.Config(loss=name)
            return preference.pair_loss(config, first, second, mean, mean, hyper).sum()

        return jax.grad(loss, argnums=(0, 1))(mean, mean)

    found = jax.jit(lambda: {loss: slopes(loss) for loss in preference.LOSSES})()
    for name, (chosen, rejected) in found.items():
        assert (chosen < 0).all(), name
        assert (rejected > 0).all(), name


def test_wrong_settings_are_one_line():
    rows = two_habits()
    with pytest.raises(UserError, match="unknown loss 'dpoo'; did you mean 'dpo'"):
        agents.make("preference", Spec(2, 1), loss="dpoo")
    with pytest.raises(UserError, match="odds_ratio needs probabilities"):
        agents.make("preference", Spec(2, 1), loss="odds_ratio")
    with pytest.raises(UserError, match="does not exist"):
        agents.make("preference", Spec(2, 1), pairs_file="nothing.parquet").prepare(rows)
    with pytest.raises(UserError, match=r"agent\.prepare"):
        agents.make("preference", Spec(2, 1)).sample(rows, jax.random.key(0), 8)
