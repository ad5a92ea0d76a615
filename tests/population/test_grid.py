import jax
import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.errors import UserError

from .toy import Hyper


def test_grid_is_the_product_with_the_last_axis_fastest():
    hypers = population.grid(Hyper(), learning_rate=[0.1, 0.2], noise=[0.0, 1.0, 2.0])
    np.testing.assert_allclose(hypers.learning_rate, [0.1, 0.1, 0.1, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(hypers.noise, [0, 1, 2, 0, 1, 2])
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(hypers))


def test_grid_without_axes_is_one_setting():
    assert population.setting_count(population.grid(Hyper())) == 1


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown hyperparameter 'learning_rat'; did you mean 'learning_rate'"):
        population.grid(Hyper(), learning_rat=[0.1])


def test_empty_axis_is_refused():
    with pytest.raises(UserError, match="'noise' has no values"):
        population.grid(Hyper(), noise=[])


def test_unstacked_settings_are_refused():
    with pytest.raises(UserError, match=r"one shape \[H\]"):
        population.setting_count(Hyper())
