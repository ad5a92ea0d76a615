"""Collected data sets are found by what they were collected with, not by name alone."""

import pytest

from jaxrl_reg import data, jobs
from tests.pointnav_data import make_pointnav


def config(folder, **changes):
    return jobs.SweepConfig(env="pointnav", dataset="medium", data_dir=str(folder), **changes)


@pytest.fixture
def folder(tmp_path):
    """One set that was collected in 640 steps with seed 3 and widths 8, 8."""
    about = {"env": "pointnav", "backend": "", "collect_steps": 640, "seed": 3, "hidden": "8x8"}
    (tmp_path / "pointnav").mkdir()
    data.save(make_pointnav(), tmp_path / "pointnav" / "medium.hdf5", about)
    return tmp_path


def found(settings):
    return jobs.dataset_path(jobs.resolve(settings.settled()))


def test_what_is_left_open_is_as_the_set_that_is_there(folder):
    settings = jobs.resolve(config(folder, seed_offset=3).settled())
    assert (settings.collect_steps, settings.collect_hidden, settings.hidden) == (640, (8, 8), (64, 64))
    assert jobs.dataset_path(settings) == folder / "pointnav" / "medium.hdf5"
    assert found(settings) == folder / "pointnav" / "medium.hdf5"  # settled once more, as a resumed run is
    assert found(config(folder, collect_seed=3)) == folder / "pointnav" / "medium.hdf5"
    assert found(config(folder, seed_offset=3, collect_steps=330)) == folder / "pointnav" / "medium.hdf5"  # rounded up


@pytest.mark.parametrize(
    "changes", [{"seed_offset": 4}, {"seed_offset": 3, "collect_steps": 960}, {"seed_offset": 3, "hidden": (4,)}]
)
def test_what_was_collected_in_another_way_is_not_taken(folder, changes):
    path = found(config(folder, **changes))
    assert not path.exists()
    assert path.parent.parent == folder
    assert path.parent.name.startswith("pointnav-")
    path.parent.mkdir()
    about = jobs.collected.provenance(jobs.resolve(config(folder, **changes)))
    data.save(make_pointnav(), path, about)
    assert found(config(folder, **changes)) == path
    assert found(config(folder, seed_offset=3)) == folder / "pointnav" / "medium.hdf5"


def test_data_of_other_settings_of_the_environment_lie_apart(folder):
    changes = {"seed_offset": 3, "env_settings": {"episode_length": "20"}}
    path = found(config(folder, **changes))
    assert path == folder / "pointnav-episode_length=20" / "medium.hdf5"
    path.parent.mkdir()
    about = jobs.collected.provenance(jobs.resolve(config(folder, **changes)))
    data.save(make_pointnav(), path, about)
    assert found(config(folder, **changes)) == path
    (folder / "pointnav" / "medium.hdf5").unlink()
    assert found(config(folder, seed_offset=3)) == folder / "pointnav" / "medium.hdf5"  # to be collected


def test_a_file_that_does_not_say_how_it_was_collected_is_taken(tmp_path):
    (tmp_path / "pointnav").mkdir()
    data.save(make_pointnav(), tmp_path / "pointnav" / "medium.hdf5")
    assert found(config(tmp_path, hidden=(4,), seed_offset=9)) == tmp_path / "pointnav" / "medium.hdf5"


def test_random_actions_have_no_network(tmp_path):
    (tmp_path / "pointnav").mkdir()
    about = {"env": "pointnav", "backend": "", "collect_steps": 320, "seed": 0, "hidden": "8x8"}
    data.save(make_pointnav(), tmp_path / "pointnav" / "random.hdf5", about)
    settings = jobs.SweepConfig(env="pointnav", dataset="random", data_dir=str(tmp_path), hidden=(4,))
    assert found(settings) == tmp_path / "pointnav" / "random.hdf5"
