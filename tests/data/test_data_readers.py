import dataclasses
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
from jaxrl_reg.io.files import WriteError


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
    assert d4rl.reference_scores("maze2d-umaze-dense-v1") == (68.537689, 193.66285642381482)
    assert d4rl.reference_scores("maze2d-large-sparse-v1") == d4rl.reference_scores("maze2d-large-v1") == (6.7, 273.99)
    assert d4rl.reference_scores("maze2d-open-dense") == (11.17817, 27.166538620695782)
    assert d4rl.reference_scores("Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed") == (0.0, 1.0)
    for task in ("hopper", "bullet-hopper", "maze2d-umaze", "maze2d-umaze-dense", "bullet-maze2d-open", "flow-ring"):
        begin = (f"{task}-v1", f"{task}-[", f"{task}(")
        scores = next(scores for pattern, scores in d4rl.REFERENCE_SCORES.items() if pattern.startswith(begin))
        assert d4rl.scored_task(*scores) == task
    for name in ("hopper", "brax-hopper-medium", "hopper-medium", "maze2d-eval-umaze-v1", "hopper-medium-v2-mine"):
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
    with pytest.raises(WriteError, match=r"could not write .*a\.h5: no space left"):
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
    np.testing.assert_allclose(found.next_action[:, 0], [0.1, 0.2, 0.3, 0.5, 0.6])  # of the last rows as well
    np.testing.assert_array_equal(found.reward, np.zeros(5))
    assert not found.rewarded
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
    found = data.load(saved(tmp_path, regular))
    np.testing.assert_allclose(found.next_action[:, 0], [0.1, 0.2, 0.2, 0.5, 0.5])  # without its last rows' actions
    assert_same(dataclasses.replace(found, next_action=raw.next_action), raw)
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


# --- read for what they are ---------------------------------------------------------------------------------------


def limits(lengths, terminated):
    """Flags of episodes of these lengths: ``terminals`` where ``terminated``, else ``timeouts``; and their rows."""
    ends = np.cumsum(lengths) - 1
    rows = np.arange(ends[-1] + 1)
    return np.isin(rows, ends[np.array(terminated)]), np.isin(rows, ends[~np.array(terminated)]), len(rows)


def test_an_archive_of_d4rls_dictionary_is_read_as_d4rls_file(tmp_path, d4rl_file, columns):
    arrays = {d4rl.KEYS[key]: value for key, value in columns.items() if key != "next_observation"}
    arrays["infos/qpos"], arrays["metadata/iteration"] = np.arange(50.0).reshape(10, 5), np.array(3)
    path = saved(tmp_path, arrays, "hopper_medium-v2.npz")
    assert_same(data.load(path, extras=["qpos"]), data.load(d4rl_file(), extras=["qpos"]))
    assert data.summary(data.load(path))["terminated"] == 1
    del arrays["timeouts"]  # as ``qlearning_dataset`` returns it
    path = saved(tmp_path, arrays, "ambiguous.npz")
    refused(lambda: data.load(path), "rewards", "neither timeouts nor masks", f"d4rl:{path}", f"ogbench:{path}")
    refused(lambda: data.load(f"d4rl:{path}"), "missing key 'timeouts'", "--max-episode-steps N")
    assert data.load(f"d4rl:{path}", time_limit=5).size == 8
    assert data.load(f"ogbench:{path}").rewarded


def test_time_outs_that_a_file_lacks(tmp_path, d4rl_file, columns):
    old = d4rl_file("x.hdf5", drop=["timeouts"])
    known = data.load(old, time_limit=5)
    assert known.notes == (
        "it has no timeouts: episodes that do not terminate end after 5 steps, the environment's time limit",
    )
    np.testing.assert_array_equal(known.observation[:, 0], [0, 1, 2, 3, 4, 5, 6, 7])
    assert "as asked" in data.load(old, time_limit=5, max_episode_steps=2).notes[0]
    # Where next observations are known, they tell: rows 8 and 9 do not lead to the next row.
    told = data.load(d4rl_file("x.hdf5", drop=["timeouts"], next_observations=columns["next_observation"]))
    np.testing.assert_array_equal(told.last, [0, 0, 0, 1, 0, 0, 0, 0, 1, 1])
    assert "where next_observations break off (1 times)" in told.notes[0]
    shuffled = d4rl_file("x.hdf5", drop=["timeouts"], next_observations=columns["observation"] + 0.5)
    refused(lambda: data.load(shuffled), "missing key 'timeouts'", "--max-episode-steps N")
    assert "at 7 of 7 steps" in data.load(shuffled, time_limit=5).notes[1]
    refused(lambda: data.load(old, max_episode_steps=0), "at least 1 step")
    dones = d4rl_file("x.hdf5", drop=["terminals"], dones=columns["terminated"])
    refused(lambda: data.load(dones), "missing key 'terminals'", "'dones' does not tell the ends of the task")


def test_max_episode_steps_ends_what_is_longer(d4rl_file, columns):
    path = d4rl_file(next_observations=columns["next_observation"])
    short = data.load(path, max_episode_steps=2)
    np.testing.assert_array_equal(short.last, [0, 1, 0, 1, 0, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(short.discount, [1, 1, 1, 0, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(short.next_action, data.load(path).next_action)  # the actions taken are known
    assert short.notes == ("2 episodes of more than 2 steps are ended there by a time-out",)
    assert data.load(path, max_episode_steps=5).notes == ()
    data.validate(short)


def test_whole_episodes_count_whatever_reading_dropped(tmp_path):
    terminals, timeouts, rows = limits([5, 30] * 3, [True, False] * 3)
    path = tmp_path / "x.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 1))
        file["rewards"], file["terminals"], file["timeouts"] = np.ones(rows), terminals, timeouts
        action = file["actions"][()].astype(np.float32)
    read = data.load(path)
    assert read.size == rows - 3
    np.testing.assert_array_equal(data.episode_returns(read), [5, 30] * 3)
    score = data.behaviour(read, limit=30)
    assert (score.returns.mean(), score.episodes, score.cut, score.notes) == (17.5, 6, 0, ())
    # The action at a time-out's last observation is in the row that was dropped.
    np.testing.assert_array_equal(read.next_action[np.flatnonzero(read.dropped_reward == 1)], action[timeouts])
    np.testing.assert_array_equal(read.next_action[4], action[4])  # of a termination, its own
    again = tmp_path / "again.hdf5"
    data.save(data.head(read, 60), again)
    assert_same(data.load(again), data.head(read, 60))
    with h5py.File(path, "a") as file:
        file["timeouts"][...] = False  # what is left is one episode per termination, far too long
    too_long = data.behaviour(data.load(path), limit=30)
    np.testing.assert_array_equal(too_long.returns, [5, 30, 30, 30])
    assert "2 of 4 episodes are longer than the 30 steps" in too_long.notes[0]
    assert "--max-episode-steps 30" in too_long.notes[0]


def test_cuts_of_a_recording_and_other_limits_are_not_the_policys(tmp_path, dataset):
    step = np.arange(12) % 4
    flat = {"observation": np.arange(12.0)[:, None], "action": np.zeros((12, 1)), "reward": np.ones(12)}
    flat["next_observation"] = flat["observation"] + 1
    read = data.from_arrays(**flat, terminated=step == 9, truncated=(step == 3) & (np.arange(12) < 8), name="x")
    np.testing.assert_array_equal(np.flatnonzero(read.cut), [11])  # nothing says that the last episode had ended
    assert data.behaviour(read, limit=9).cut == 1
    assert (
        "2 of 3 episodes time out after at most 4 steps, where the environment allows 9"
        in (data.behaviour(read, limit=9).notes[0])
    )
    assert data.behaviour(read, limit=4).cut == 0  # it lasted as long as it could
    assert data.behaviour(data.head(read, 3)).notes == (
        "no episode ends but with its recording: the returns are of parts of episodes",
    )
    data.save(read, tmp_path / "x.hdf5")
    assert_same(data.load(tmp_path / "x.hdf5"), read)
    with h5py.File(tmp_path / "x.hdf5", "a") as file:  # as we wrote it before cuts were kept
        del file.attrs["ends"], file["cut"]
    old = data.load(tmp_path / "x.hdf5")
    assert data.behaviour(old, limit=4).cut == 0
    assert data.behaviour(old, limit=9).cut == 0  # all are, so that all count, and a note says so
    assert data.behaviour(data.concatenate([read, read]), limit=9).cut == 2


def test_rewards_that_a_file_lacks_are_not_known(tmp_path, ogbench_arrays):
    read = data.load(saved(tmp_path, ogbench_arrays))
    assert data.behaviour(read).returns.size == 0
    data.save(read, tmp_path / "x.hdf5")
    assert not data.load(tmp_path / "x.hdf5").rewarded
    assert not data.head(read, 3).rewarded
    paid = data.load(saved(tmp_path, {**ogbench_arrays, "rewards": np.ones((7, 1)), "masks": np.ones(7)}))
    refused(lambda: data.concatenate([read, paid]), "only one has known rewards")


def test_whole_numbers_are_the_actions_of_a_discrete_task(d4rl_file, tmp_path):
    number = np.array([0, 2, 1, 0, 2, 2, 1, 0, 0, 1])
    wanted = 2.0 * np.eye(3)[number] - 1.0
    for actions in (number, number[:, None], np.eye(3, dtype=np.int8)[number], number.astype(np.uint8)):
        read = data.load(d4rl_file(actions=actions))
        np.testing.assert_array_equal(read.action, wanted[:8])
        assert read.discrete
        assert "integer actions 0 to 2, of a discrete task" in read.notes[0]
    assert data.load(d4rl_file(actions=number % 2 > 0)).action.shape == (8, 2)
    assert data.load(d4rl_file(actions=number), actions=5).action.shape == (8, 5)
    data.save(read, tmp_path / "coded.hdf5")
    assert data.load(tmp_path / "coded.hdf5").discrete
    refused(lambda: data.load(d4rl_file(actions=number), actions=2), "actions row 1 is the integer 2", "0 to 1")
    refused(lambda: data.load(d4rl_file(actions=number - 1)), "actions row 0 is the integer -1", "--action-low")
    refused(lambda: data.load(d4rl_file(actions=np.stack([number] * 2, 1))), "holds integers in 2 columns")
    refused(lambda: data.load(d4rl_file(actions=number[:, None] * 1.0)), "whole numbers only, 0 to 2", "discrete")
    ones = data.load(d4rl_file(actions=(number[:, None] > 0) * 1.0))
    assert not ones.discrete
    assert "0 or 1 only, as of a discrete task" in ones.notes[0]
    torque = data.load(d4rl_file(actions=number[:, None]), action_low=0, action_high=2)
    np.testing.assert_array_equal(torque.action[:, 0], number[:8] - 1.0)
    assert not torque.discrete


def test_bounds_and_clipping_say_what_they_did(d4rl_file, columns):
    path = d4rl_file(actions=columns["action"] * 2)
    refused(lambda: data.load(path), "outside [-1, 1]", "all span", "--action-low", "--clip-actions")
    read = data.load(path, action_low=-2, action_high=2)
    np.testing.assert_allclose(read.action, columns["action"][:8], atol=1e-6)
    assert "20 values of actions rescaled from [-2, 2] to [-1, 1], where they span [" in read.notes[0]
    clipped = data.load(path, clip_actions=True)
    outside = int((np.abs(columns["action"] * 2) > 1).sum())
    assert f"{outside} of 20 values of actions clipped to [-1, 1]" in clipped.notes[0]
    np.testing.assert_allclose(clipped.action, np.clip(columns["action"][:8] * 2, -1, 1))


def test_parts_of_observations_are_chosen_in_files_of_groups_too(d4rl_file, columns):
    parts = {f"observations/{key}": columns["observation"][:, i] for i, key in enumerate("abc")}
    path = d4rl_file(drop=["observations"], **parts)
    refused(lambda: data.load(path), "observations is a group", "--observation-keys a,b,c")
    refused(lambda: data.load(path, observation_keys=["z"]), "missing key observations/z; it has a, b, c")
    read = data.load(path, observation_keys=["a", "c"])
    np.testing.assert_array_equal(read.observation, columns["observation"][:8, [0, 2]])
    refused(lambda: data.load(d4rl_file(), episodes=3), "no episodes to choose in this format (d4rl)")


def test_minari_discrete_spaces_early_flags_and_cuts(minari_file):
    def edit(file):
        for index in (0, 1):
            del file[f"episode_{index}/actions"]
            file[f"episode_{index}/actions"] = np.array([1, 3][: 2 - index])
        file["episode_0/terminations"][0] = True

    folder = minari_file(edit)
    facts = json.loads((folder / "data" / "metadata.json").read_text())
    facts["action_space"] = json.dumps({"type": "Discrete", "n": 4, "start": 1})
    (folder / "data" / "metadata.json").write_text(json.dumps(facts))
    read = data.load(folder, observation_keys=["position"])
    np.testing.assert_array_equal(read.action, [[1, -1, -1, -1], [-1, -1, 1, -1], [1, -1, -1, -1]])
    assert "1 flags stand before the end of an episode" in " ".join(read.notes)
    np.testing.assert_array_equal(read.cut, [0, 1, 1])


def test_names_with_a_folder_and_without_a_suffix(dataset, tmp_path, monkeypatch):
    data.save(dataset, tmp_path / "datasets" / "brax-hopper-spring" / "medium-replay.hdf5")
    monkeypatch.chdir(tmp_path)
    for spec in ("brax-hopper-spring/medium-replay", "datasets/brax-hopper-spring/medium-replay"):
        assert_same(data.load(spec), dataset)
    refused(lambda: data.load("brax-hopper-spring/medium"), "did you mean 'brax-hopper-spring/medium-replay'?")
