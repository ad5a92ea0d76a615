import json
import os

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.io import files


@pytest.fixture
def limited():
    """``limited(bytes)``: no file may grow beyond that, as if the disk were full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


CONTENT = {
    "x.txt": lambda path: files.write_text(path, "x" * 9000),
    "x.png": lambda path: files.write_bytes(path, b"x" * 9000),
    "x.json": lambda path: files.write_json(path, list(range(9000))),
    "x.csv": lambda path: files.write_csv(path, pd.DataFrame({"a": range(9000)})),
    "x.parquet": lambda path: files.write_parquet(path, pd.DataFrame({"a": np.random.default_rng(0).random(9000)})),
}


@pytest.mark.parametrize("name", CONTENT)
def test_a_full_disk_leaves_the_file_that_was_there_and_no_other(name, tmp_path, limited):
    path = tmp_path / name
    path.write_bytes(b"before")
    CONTENT[name](tmp_path / "warm")  # what is imported late must not meet the limit
    (tmp_path / "warm").unlink()
    limited(4096)
    with pytest.raises(files.WriteError) as caught:
        CONTENT[name](path)
    assert str(caught.value) == f"could not write {path}: File too large"
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == [name]


def test_a_data_set_is_written_whole_or_not_at_all(tmp_path, limited):
    from jaxrl_reg import data
    from tests.pointnav_data import make_pointnav

    rows = make_pointnav()
    data.save(rows, tmp_path / "warm.hdf5")
    size = (tmp_path / "warm.hdf5").stat().st_size
    (tmp_path / "warm.hdf5").unlink()
    limited(size - 1)
    with pytest.raises(files.WriteError, match="File too large"):
        data.save(rows, tmp_path / "x.hdf5")
    assert os.listdir(tmp_path) == []
    limited(size)
    data.save(rows, tmp_path / "x.hdf5")
    assert size < 1.5 * sum(np.asarray(leaf).nbytes for leaf in (rows.observation, rows.action)) + 200_000


def test_an_interrupt_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "x"
    path.write_text("before", encoding="utf-8")

    def half():
        with files.whole(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert path.read_text(encoding="utf-8") == "before"
    assert os.listdir(tmp_path) == ["x"]


def test_json_is_json_whatever_the_numbers(tmp_path):
    value = {
        "nan": float("nan"),
        "far": [float("inf"), -np.inf],
        "array": np.array([1.0, np.nan], np.float32),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "nested": {"tuple": (1, np.float64("nan"))},
        2: None,
        "kind": complex,
    }
    files.write_json(tmp_path / "x.json", value)

    def refuse(word):
        raise AssertionError(word)

    read = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {
        "nan": None,
        "far": ["inf", "-inf"],
        "array": [1.0, None],
        "count": 3,
        "flag": True,
        "nested": {"tuple": [1, None]},
        "2": None,
        "kind": "<class 'complex'>",
    }
    assert files.read_json(tmp_path / "x.json") == read


def test_what_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    (tmp_path / "y").write_bytes(b"{")
    for name, message in (
        ("x", "is damaged and cannot be read"),
        ("y", "is damaged"),
        ("z", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            files.read_json(tmp_path / name)
    assert files.read_json(tmp_path / "z", default=1) == 1


def test_lines_end_the_same_on_every_system(tmp_path):
    files.write_csv(tmp_path / "x.csv", pd.DataFrame({"é": [1, 2]}))
    assert (tmp_path / "x.csv").read_bytes() == "é\n1\n2\n".encode()
