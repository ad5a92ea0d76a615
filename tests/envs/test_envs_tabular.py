"""Finite processes as environments; their solvers are tested in ``tests/tabular/test_discounted.py``."""

import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import gridworld, tabular
from jaxrl_reg.errors import UserError
from jaxrl_reg.tabular import discounted


@pytest.fixture(scope="module")
def process():
    rng = np.random.default_rng(0)
    transition, reward = rng.dirichlet(np.ones(5), (5, 3)), rng.normal(size=(5, 3))
    return transition, reward, rng.dirichlet(np.ones(5))


def test_the_solvers_can_be_had_here_too():
    for name in ("random", "policy_evaluation", "optimal_values", "soft_optimal_values", "successor_measure"):
        assert getattr(tabular, name) is getattr(discounted, name)
    assert tabular.occupancy is discounted.occupancy
    assert tabular.state_transition is discounted.state_transition


def test_wrong_arrays_are_refused(process):
    transition, reward, initial = process
    for settings, message in (
        ({"transition": transition}, "both transition"),
        ({"transition": transition[0], "reward": reward}, "transition has shape"),
        ({"transition": transition, "reward": reward[:4]}, "reward has shape"),
        ({"transition": 2 * transition, "reward": reward}, "transition must hold probabilities"),
        ({"transition": transition, "reward": reward, "initial": initial - 0.5}, "initial must hold probabilities"),
        ({"transition": transition, "reward": reward, "terminal": np.ones(4)}, "terminal has shape"),
        ({"transition": transition, "reward": reward, "observations": np.ones((4, 2))}, "observations has shape"),
    ):
        with pytest.raises(UserError, match=message):
            envs.make("tabular", **settings)


def test_choices_are_announced_through_every_wrapper():
    env = gridworld.make(slip=0.1)
    wrapped = envs.transform_observation(envs.time_limit(env, 7), lambda observation: 2.0 * observation)
    assert env.spec.discrete
    assert wrapped.spec.discrete
    assert wrapped.spec.max_episode_steps == 7
    assert not envs.make("pointnav").spec.discrete
