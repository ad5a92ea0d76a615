import json
import math
import os

import h5py
import jax
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.data.readers import d4rl, exorl, minari, ogbench
from jaxrl_reg.errors import UserError


def assert_same(left, right):
    assert left.name == right.name
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def refused(call, *parts):
    """The call raises one line that holds every part."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, message


# --- D4RL ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def d4rl_file(tmp_path, columns):
    """Writes a file as D4RL does: bool flags, gzip, float32, a metadata group, infos, no next observations."""

    def write(name="hopper_medium-v2.hdf5", drop=(), **change):
        arrays = {d4rl.KEYS[key]: value for key, value in columns.items() if key != "next_observation"}
        arrays["infos/qpos"] = np.arange(50.0).reshape(10, 5)
        arrays.update(change)
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                if key not in drop:
                    file.create_dataset(key, data=value, compression="gzip")
            file.create_dataset("metadata/algorithm", data=np.bytes_("SAC"))
            file.create_dataset("metadata/iteration", data=3)
        return path

    return write


def test_d4rl_file_in_the_original_layout(d4rl_file, columns):
    found = data.load(d4rl_file())
    wanted = {key: value for key, value in columns.items() if key != "next_observation"}
    shifted = data.from_arrays(**wanted, name="hopper_medium-v2", score_random=-20.272305, score_expert=3234.3)
    assert_same(found, shifted)
    assert found.size == 8
    with_infos = data.load(d4rl_file(), extras=["qpos"])
    np.testing.assert_array_equal(with_infos.extras["qpos"], np.arange(40.0).reshape(8, 5))


def test_d4rl_columns_and_missing_timeouts(d4rl_file, columns):
    column = {key: columns[ours][:, None] for ours, key in d4rl.KEYS.items() if columns[ours].ndim == 1}
    assert_same(data.load(d4rl_file(**column)), data.load(d4rl_file()))
    old = d4rl_file("x.hdf5", drop=["timeouts"])
    refused(lambda: data.load(old), "x.hdf5", "missing key 'timeouts'", "max_episode_steps")
    limited = data.load(old, max_episode_steps=2)  # a limit of two rows: 0-1, 2-3, 4-5, 6-7, 8-9
    np.testing.assert_array_equal(limited.observation[:, 0], [0, 2, 3, 4, 6, 8])
    np.testing.assert_array_equal(limited.discount, [1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(limited.last, [1, 0, 1, 1, 1, 1])


def test_reference_scores_only_for_d4rls_own_names():
    assert d4rl.reference_scores("walker2d-full-replay-v2") == (1.629008, 4592.3)
    assert d4rl.reference_scores("halfcheetah_medium_expert-v2") == (-280.178953, 12135.0)
    assert d4rl.reference_scores("antmaze-large-diverse-v2") == (0.0, 1.0)
    for name in ("hopper", "brax-hopper-medium", "hopper-medium", "maze2d-umaze-dense-v1", "hopper-medium-v2-mine"):
        assert all(math.isnan(score) for score in d4rl.reference_scores(name))


def test_native_round_trip_is_exact(dataset, tmp_path):
    path = tmp_path / "deep" / "hopper-medium-v2.hdf5"  # a D4RL name: its references must not leak in
    data.save(dataset, path, metadata={"env_id": "brax/hopper", "steps": 7})
    assert_same(data.load(path), dataset)
    assert os.listdir(path.parent) == [path.name]
    facts = data.metadata(path)
    assert (facts["env_id"], facts["steps"], facts["name"], facts["score_random"]) == ("brax/hopper", 7, "hand", -1.5)
    with h5py.File(path) as file:
        assert sorted(file) == sorted([*d4rl.KEYS.values(), "infos"])
        np.testing.assert_array_equal(file["timeouts"][()], np.isin(np.arange(10), [8, 9]))
    unscored = data.from_arrays(
        dataset.observation, dataset.action, dataset.reward, dataset.discount == 0, dataset.last, name="new"
    )
    data.save(unscored, path)
    assert_same(data.load(path), unscored)
    scaled = data.normalize_rewards(data.normalize_observations(data.top_fraction(dataset, 0.7))[0])
    data.save(data.add_returns_to_go(scaled), path)
    assert_same(data.load(path), data.add_returns_to_go(scaled))


def test_a_failed_save_leaves_the_old_file_and_nothing_else(dataset, tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    data.save(dataset, path)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        data.save(data.head(dataset, 3), path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a.h5"]
    assert_same(data.load(path), dataset)
    refused(lambda: data.save(dataset, path, metadata={"name": "x"}), "a.h5", "'name' is reserved")
    refused(lambda: data.save(dataset, path, metadata={"env": [1]}), "a.h5", "'env' is a list")
    refused(lambda: data.save(dataset, tmp_path / "a.zarr"), "a.zarr", ".hdf5")


D4RL_ERRORS = {
    "nan": (
        lambda c: {"observations": np.where(np.eye(10, 3, -4) > 0, np.nan, c["observation"])},
        "observations row 4",
    ),
    "length": (lambda c: {"rewards": c["reward"][:7]}, "rewards has 7 rows, but observations has 10"),
    "missing": (lambda c: {"drop": ["rewards"]}, "missing key 'rewards'; it has actions, observations, terminals"),
    "bounds": (lambda c: {"actions": c["action"] + 3 * (np.arange(10) == 2)[:, None]}, "actions row 2 column 0"),
    "no end": (
        lambda c: {"terminals": np.zeros(10), "timeouts": np.zeros(10)},
        "terminals and timeouts mark no episode",
    ),
    "empty": (
        lambda c: {d4rl.KEYS[key]: value[:0] for key, value in c.items() if key != "next_observation"},
        "observations has no rows",
    ),
    "rank": (lambda c: {"observations": np.zeros((10, 4, 4))}, "observations has shape (10, 4, 4)"),
    "flag": (lambda c: {"terminals": np.arange(10)}, "terminals row 2 is 2, expected 0 or 1"),
    "strings": (lambda c: {"actions": np.array([b"x"] * 10)}, "actions holds"),
}


@pytest.mark.parametrize("case", D4RL_ERRORS)
def test_damaged_d4rl_files(d4rl_file, columns, case):
    change, message = D4RL_ERRORS[case]
    options = change(columns)
    if case == "empty":
        options["infos/qpos"] = np.zeros((0, 5))
    refused(lambda: data.load(d4rl_file(**options)), "hopper_medium-v2.hdf5: ", message)


def test_files_that_are_not_hdf5(tmp_path, d4rl_file):
    path = tmp_path / "broken.hdf5"
    path.write_bytes(b"not HDF5")
    refused(lambda: data.load(path), "broken.hdf5", "not a readable HDF5 file")
    whole = d4rl_file()
    path.write_bytes(whole.read_bytes()[:3000])
    refused(lambda: data.load(path), "broken.hdf5")
    refused(lambda: data.load(whole, extras=["qvel"]), "missing key 'infos/qvel'; it has qpos")
    with h5py.File(whole, "a") as file:
        file.attrs["extras"] = "not json"
    refused(lambda: data.load(whole), "attribute 'extras'")


# --- OGBench ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ogbench_arrays():
    """Two trajectories of four and three states, as on disk: the last action of each leads nowhere."""
    state = np.arange(7.0)
    return {
        "observations": np.stack([state, -state], axis=1).astype(np.float32),
        "actions": (state[:, None] / 10).astype(np.float32),
        "terminals": np.array([0, 0, 0, 1, 0, 0, 1], bool),
        "qpos": np.stack([state] * 3, axis=1),
    }


def saved(tmp_path, arrays, name="maze-navigate-v0.npz"):
    np.savez_compressed(tmp_path / name, **arrays)
    return tmp_path / name


def test_ogbench_alignment(tmp_path, ogbench_arrays):
    found = data.load(saved(tmp_path, ogbench_arrays), extras=["qpos"])
    assert found.name == "maze-navigate-v0"
    np.testing.assert_array_equal(found.observation[:, 0], [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(found.next_observation[:, 0], [1, 2, 3, 5, 6])
    np.testing.assert_allclose(found.action[:, 0], [0.0, 0.1, 0.2, 0.4, 0.5])
    np.testing.assert_array_equal(found.last, [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(found.discount, np.ones(5))  # the end of a trajectory is no termination
    np.testing.assert_array_equal(found.reward, np.zeros(5))
    np.testing.assert_array_equal(found.extras["qpos"][:, 0], [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(found.end, [3, 3, 3, 5, 5])


def test_ogbench_loader_dictionaries_and_masks(tmp_path, ogbench_arrays):
    raw = data.load(saved(tmp_path, ogbench_arrays))
    terminals = ogbench_arrays["terminals"]
    compact = {**ogbench_arrays, "terminals": np.array([0, 0, 1, 1, 0, 1, 1]), "valids": 1.0 - terminals}
    assert_same(data.load(saved(tmp_path, compact)), raw)
    keep = ~terminals
    regular = {
        "observations": ogbench_arrays["observations"][keep],
        "actions": ogbench_arrays["actions"][keep],
        "next_observations": ogbench_arrays["observations"][1:][keep[:-1]],
        "terminals": np.array([0, 0, 1, 0, 1]),
    }
    assert_same(data.load(saved(tmp_path, regular)), raw)
    unfinished = {key: value[:6] for key, value in ogbench_arrays.items()}  # its last state has no successor
    np.testing.assert_array_equal(data.load(saved(tmp_path, unfinished)).observation[:, 0], [0, 1, 2, 4])
    masks = {**ogbench_arrays, "rewards": np.arange(7.0), "masks": np.array([1, 0, 1, 1, 1, 0, 1])}
    found = data.load(saved(tmp_path, masks))
    np.testing.assert_array_equal(found.reward, [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(found.discount, [1, 0, 1, 1, 0])
    np.testing.assert_array_equal(found.last, [0, 1, 1, 0, 1])
    data.validate(found)


def test_damaged_ogbench_files(tmp_path, ogbench_arrays):
    def load(**change):
        arrays = {key: value for key, value in {**ogbench_arrays, **change}.items() if value is not None}
        return lambda: data.load(saved(tmp_path, arrays, "x.npz"))

    refused(load(actions=None), "x.npz", "missing key 'actions'", "observations, qpos, terminals")
    refused(load(actions=np.zeros((5, 1))), "x.npz", "actions has 5 rows, but observations has 7")
    refused(load(terminals=np.arange(7)), "x.npz", "terminals row 2 is 2")
    refused(load(terminals=np.zeros(7)), "x.npz", "terminals mark no trajectory end")
    refused(load(masks=np.full(7, 0.5)), "x.npz", "masks row 0 is 0.5")
    refused(load(observations=np.zeros((0, 2))), "x.npz", "observations has no rows")
    observations = ogbench_arrays["observations"].copy()
    observations[5, 1] = np.nan
    refused(load(observations=observations), "x.npz", "observations row 5 is NaN")
    actions = ogbench_arrays["actions"].copy()
    actions[4] = 2
    refused(load(actions=actions), "x.npz", "actions row 4 column 0 is 2, outside [-1, 1]")
    refused(load(actions=np.array([None] * 7)), "x.npz", "cannot read actions", "allow_pickle=False")
    refused(load(observations=np.zeros((7, 4, 4, 3), np.uint8)), "x.npz", "observations has shape (7, 4, 4, 3)")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(saved(tmp_path, ogbench_arrays).read_bytes()[:300])
    refused(lambda: data.load(broken), "broken.npz", "not a readable .npz archive")
    refused(lambda: ogbench.read(tmp_path / "none.npz"), "none.npz", "no such file")


# --- ExORL --------------------------------------------------------------------------------------------------------


def exorl_episode(first, length, final_discount=1.0):
    """``length`` transitions; the action, reward and discount of row 0 are a dummy."""
    state = first + np.arange(length + 1.0)
    discount = np.ones((length + 1, 1), np.float32)
    discount[-1] = final_discount
    return {
        "observation": np.stack([state, -state], axis=1).astype(np.float32),
        "action": np.append(0.0, (state[:-1] - first) / 10)[:, None].astype(np.float32),
        "reward": np.append(-99.0, state[:-1])[:, None].astype(np.float32),
        "discount": discount,
        "physics": np.stack([state] * 4, axis=1),
    }


@pytest.fixture
def exorl_directory(tmp_path):
    directory = tmp_path / "walker-rnd"
    directory.mkdir()
    np.savez_compressed(directory / "episode_000000_3.npz", **exorl_episode(0, 3))
    np.savez_compressed(directory / "episode_000001_2.npz", **exorl_episode(10, 2, final_discount=0.0))
    return directory


def test_exorl_alignment(exorl_directory):
    found = data.load(exorl_directory)
    assert found.name == "walker-rnd"
    np.testing.assert_array_equal(found.observation[:, 0], [0, 1, 2, 10, 11])
    np.testing.assert_array_equal(found.next_observation[:, 0], [1, 2, 3, 11, 12])
    np.testing.assert_allclose(found.action[:, 0], [0.0, 0.1, 0.2, 0.0, 0.1])  # action[t + 1] leads from s_t to s_{t+1}
    np.testing.assert_allclose(found.next_action[:, 0], [0.1, 0.2, 0.2, 0.1, 0.1])
    np.testing.assert_array_equal(found.reward, [0, 1, 2, 10, 11])
    np.testing.assert_array_equal(found.last, [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(found.discount, [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(found.extras["physics"][:, 0], found.observation[:, 0])
    np.testing.assert_array_equal(found.extras["next_physics"][:, 0], found.next_observation[:, 0])
    one = data.load(f"exorl:{exorl_directory}", episodes=1, extras=())
    assert (one.size, one.extras) == (3, {})


def test_damaged_exorl_episodes(exorl_directory):
    def change(**arrays):
        episode = {key: value for key, value in {**exorl_episode(10, 2), **arrays}.items() if value is not None}
        np.savez_compressed(exorl_directory / "episode_000001_2.npz", **episode)
        return lambda: data.load(exorl_directory)

    name = "episode_000001_2.npz"
    refused(change(physics=None), name, "missing key 'physics'")
    refused(change(action=np.zeros((2, 1))), name, "action has 2 rows, but observation has 3")
    refused(change(discount=np.full((3, 1), 0.9)), name, "discount row 1 is 0.9")
    refused(change(reward=np.array([0, np.nan, 0])), name, "reward", "transition 0", "row 1")
    refused(change(action=np.array([[0.0], [0.0], [3.0]])), name, "action", "transition 1", "row 2", "is 3, outside")
    refused(change(observation=np.zeros((3, 5))), name, "observation has rows of shape (5,)")
    refused(change(observation=np.zeros((1, 2))), name, "at least two rows")
    refused(lambda: data.load(exorl_directory, extras=["qpos"]), "unknown extra 'qpos'; known: physics, next_physics")
    refused(lambda: exorl.read(exorl_directory / "none"), "none: no such directory")


# --- Minari -------------------------------------------------------------------------------------------------------


@pytest.fixture
def minari_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def test_minari_round_trip_through_its_own_library(dataset, minari_root):
    library = pytest.importorskip("minari")
    data.save(dataset, "minari:hand/made-v0", metadata={"author": "Somebody", "algorithm_name": "none"})
    theirs = library.load_dataset("hand/made-v0")
    assert (theirs.total_episodes, theirs.total_steps) == (3, 10)
    episodes = list(theirs.iterate_episodes())
    np.testing.assert_array_equal(episodes[1].observations[:-1], dataset.observation[4:9])
    np.testing.assert_array_equal(episodes[1].observations[-1], dataset.next_observation[8])
    np.testing.assert_array_equal(episodes[0].terminations, [False, False, False, True])
    np.testing.assert_array_equal(episodes[1].truncations, [False, False, False, False, True])
    assert theirs.storage.metadata["ref_max_score"] == 3.25
    plain = data.concatenate([dataset], name="hand/made-v0")
    plain = type(plain)(**{**vars(plain), "extras": {}})
    for spec in ("minari:hand/made-v0", minari_root / "hand" / "made-v0", minari_root / "hand" / "made-v0" / "data"):
        assert_same(data.load(spec), plain)
    refused(lambda: data.save(dataset, "minari:hand/made-v0"), "hand/made-v0", "exists already")
    refused(lambda: data.save(dataset, "minari:no version"), "malformed id")
    refused(lambda: data.save(dataset, "minari:b-v0", metadata={"envid": "x"}), "'envid'", "author")
    refused(lambda: data.load("minari:none-v0"), "minari:none-v0", "not on this machine", "hand/made-v0")
    torn = type(dataset)(**{**vars(dataset), "next_observation": dataset.next_observation.at[5].add(1.0)})
    refused(lambda: data.save(torn, "minari:torn-v0"), "next_observation row 5")
    assert not (minari_root / "torn-v0").exists()


@pytest.fixture
def minari_file(tmp_path):
    """Minari's HDF5 layout written by hand: two episodes of two and one steps, actions in [-2, 4]."""

    def write(edit=None, low=-2.0, high=4.0):
        folder = tmp_path / "by-hand-v0" / "data"
        folder.mkdir(parents=True, exist_ok=True)
        space = {"type": "Box", "dtype": "float32", "shape": [1], "low": [low], "high": [high]}
        facts = {"dataset_id": "by-hand-v0", "data_format": "hdf5", "action_space": json.dumps(space)}
        (folder / "metadata.json").write_text(json.dumps(facts))
        with h5py.File(folder / "main_data.hdf5", "w") as file:
            for index, steps in enumerate((2, 1)):
                group = file.create_group(f"episode_{index}")
                group["observations/position"] = 10.0 * index + np.arange(steps + 1.0)[:, None]
                group["observations/goal"] = np.full((steps + 1, 2), index, np.float64)
                group["actions"] = np.array([[-2.0], [1.0]])[:steps]
                group["rewards"] = np.arange(steps) + 1.0
                group["terminations"] = np.zeros(steps, bool)
                group["truncations"] = np.zeros(steps, bool)  # no flag at the end either
            if edit is not None:
                edit(file)
        return folder.parent

    return write


def test_minari_directory_with_dictionaries_and_bounds(minari_file):
    found = data.load(minari_file(), observation_keys=["position", "goal"])
    assert found.name == "by-hand-v0"
    np.testing.assert_array_equal(found.observation, [[0, 0, 0], [1, 0, 0], [10, 1, 1]])
    np.testing.assert_array_equal(found.next_observation, [[1, 0, 0], [2, 0, 0], [11, 1, 1]])
    np.testing.assert_array_equal(found.action[:, 0], [-1, 0, -1])
    np.testing.assert_array_equal(found.last, [0, 1, 1])
    np.testing.assert_array_equal(found.discount, [1, 1, 1])
    assert math.isnan(float(found.score_expert))
    unbounded = data.load(minari_file(low=-math.inf), observation_keys=["goal"], action_low=-4, action_high=4)
    np.testing.assert_array_equal(unbounded.action[:, 0], [-0.5, 0.25, -0.5])


def test_damaged_minari_directories(minari_file):
    def load(edit=None):
        return lambda: data.load(minari_file(edit), observation_keys=["position"])

    def replace(key, value):
        def edit(file):
            del file[key]
            if value is not None:
                file[key] = value

        return edit

    name = "main_data.hdf5"
    refused(lambda: data.load(minari_file()), name, "dictionary", "goal, position")
    refused(lambda: data.load(minari_file(), observation_keys=["speed"]), name, "missing key 'speed'")
    refused(load(replace("episode_1/rewards", None)), name, "missing key 'rewards' in episode 1")
    refused(load(replace("episode_0/actions", np.zeros((5, 1)))), name, "actions of episode 0 has 5 rows")
    refused(load(replace("episode_0/observations/position", np.zeros((2, 1)))), name, "one more than its 2 rewards")
    refused(load(replace("episode_0/rewards", np.array([0, np.inf]))), name, "rewards of episode 0 row 1 is infinite")
    refused(load(replace("episode_1/actions", np.array([[9.0]]))), name, "actions of episode 1 row 0 column 0")
    refused(load(replace("episode_1/observations/position", np.zeros((2, 3)))), name, "observations of episode 1")
    folder = minari_file()
    (folder / "data" / name).write_bytes(b"junk")
    refused(lambda: data.load(folder), name, "not a readable HDF5 file")
    (folder / "data" / "metadata.json").write_text("{")
    refused(lambda: data.load(folder), "metadata.json", "JSON")


def test_minari_ids_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    refused(lambda: minari.read("D4RL/pen/human-v2"), "jaxrl-reg[minari]")


# --- names --------------------------------------------------------------------------------------------------------


def test_load_by_name(dataset, tmp_path, exorl_directory, monkeypatch):
    data.save(dataset, tmp_path / "hopper-medium.hdf5")
    data.save(dataset, tmp_path / "walker.v1.h5")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert data.names(tmp_path) == ["hopper-medium", "walker-rnd", "walker.v1"]
    assert data.names(tmp_path / "none") == []
    for spec in ("hopper-medium", "walker.v1", "hopper-medium.hdf5", tmp_path / "hopper-medium.hdf5"):
        assert_same(data.load(spec, directory=tmp_path), dataset)
    assert data.load("walker-rnd", directory=tmp_path).size == 5
    refused(
        lambda: data.load("hopper-mediun", directory=tmp_path),
        "unknown data set 'hopper-mediun'; did you mean 'hopper-medium'?",
        "walker-rnd, walker.v1",
    )
    refused(lambda: data.load("zzz", directory=tmp_path), "unknown data set 'zzz'; known: hopper-medium, walker-rnd")
    refused(lambda: data.load("zzz", directory=tmp_path / "none"), "none/ holds no data sets")
    refused(lambda: data.load("none.hdf5", directory=tmp_path), "none.hdf5: no such file")
    refused(lambda: data.load(tmp_path / "a" / "b"), "a/b: no such file or directory")
    refused(lambda: data.load(tmp_path / "empty"), "empty: neither a Minari data set")
    refused(lambda: data.load(tmp_path / "notes.txt"), "unknown format '.txt'; known: .hdf5, .h5, .npz")
    monkeypatch.chdir(tmp_path)
    assert_same(data.load("hopper-medium.hdf5"), dataset)
