import errno
import struct
import sys
import types

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.io import env_info, sinks
from jaxrl_reg.io.files import WriteError


def rows(update, agent="iql", values=(1.0, 3.0)):
    for member, value in enumerate(values):
        yield {
            "agent": agent,
            "member": member,
            "seed": member,
            "setting": 0,
            "expectile": 0.7,
            "update": update,
            "evaluation": 0,
            "eval/return": value,
        }


def write(sink, *updates, **options):
    for update in updates:
        for row in rows(update, **options):
            sink.write(update, row)


def test_parquet_holds_every_row_and_is_there_before_the_end(tmp_path):
    path = tmp_path / "metrics.parquet"
    sink = sinks.ParquetSink(path)
    write(sink, 100, 200)
    assert pd.read_parquet(path)["update"].tolist() == [100, 100]  # an interrupted run leaves its rows
    sink.close()
    sink.close()
    frame = sinks.read_parquet(path)
    assert frame["update"].tolist() == [100, 100, 200, 200]
    assert frame["eval/return"].tolist() == [1.0, 3.0, 1.0, 3.0]
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.parquet"]


def test_parquet_continues_a_file_and_replaces_rows_written_again(tmp_path):
    path = tmp_path / "metrics.parquet"
    first = sinks.ParquetSink(path)
    write(first, 100, 200)
    first.close()
    second = sinks.ParquetSink(path)
    write(second, 200, values=(7.0, 8.0))
    write(second, 200, agent="bc")
    second.close()
    frame = sinks.read_parquet(path)
    assert len(frame) == 6
    again = frame[(frame.agent == "iql") & (frame["update"] == 200)]
    assert again["eval/return"].tolist() == [7.0, 8.0]


def test_parquet_refuses_a_damaged_file(tmp_path):
    (tmp_path / "metrics.parquet").write_text("nonsense")
    with pytest.raises(UserError, match="not a readable parquet file"):
        sinks.ParquetSink(tmp_path / "metrics.parquet")
    with pytest.raises(UserError, match="no metrics yet"):
        sinks.read_parquet(tmp_path / "other.parquet")


def read_events(directory):
    """``(step, tag, value)`` of every scalar; a record is a length (8 bytes), a sum (4), the event, a sum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = directory.iterdir()
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return found


def test_tensorboard_gets_means_over_seeds_one_run_per_setting(tmp_path):
    sink = sinks.TensorBoardSink(tmp_path, ["expectile"])
    write(sink, 100, 200)
    sink.close()
    events = read_events(tmp_path / "iql expectile=0.7")
    assert events == [(100, "eval/return", 2.0), (200, "eval/return", 2.0)]


def test_wandb_gets_its_own_step_axis_and_means_over_seeds(tmp_path, monkeypatch):
    logged, defined = [], []
    run = types.SimpleNamespace(
        define_metric=lambda *names, **options: defined.append((names, options)),
        log=logged.append,
        finish=lambda: logged.append("finished"),
    )
    begun = {}
    fake = types.ModuleType("wandb")
    fake.init = lambda **options: begun.update(options) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    sink = sinks.WandbSink("project", "name", tmp_path, {"seeds": 2}, ["expectile"])
    write(sink, 100)
    sink.close()
    sink.close()
    assert begun["project"] == "project"
    assert begun["config"] == {"seeds": 2}
    assert (("*",), {"step_metric": "update"}) in defined
    assert logged == [{"iql expectile=0.7/eval/return": 2.0, "update": 100}, "finished"]


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("tensorboardX", lambda path: sinks.TensorBoardSink(path)),
        ("wandb", lambda path: sinks.WandbSink("project", "name", path)),
    ],
)
def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, module, make):
    monkeypatch.setitem(sys.modules, module, None)  # import raises ImportError
    with pytest.raises(UserError, match=r"jaxrl-reg\[logging\]"):
        make(tmp_path)


def test_settings_that_differ_in_words_are_told_apart(tmp_path):
    sink = sinks.TensorBoardSink(tmp_path, ["hidden", "expectile"])
    for setting, hidden in enumerate(("8x8", "a/b:c")):
        for row in rows(100):
            sink.write(100, row | {"setting": setting, "hidden": hidden})
    sink.close()
    # No setting leaves the folder, and no name is one that another system refuses.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iql hidden=8x8 expectile=0.7",
        "iql hidden=a_b_c expectile=0.7",
    ]
    means = sinks._SeedMeans(["hidden"])
    assert means.label({"agent": "bc", "hidden": "8x8"}) == "bc hidden=8x8"


def test_a_full_disk_ends_tensorboard_with_one_error_and_nothing_hangs(tmp_path, monkeypatch):
    from tensorboardX.record_writer import RecordWriter

    sink = sinks.TensorBoardSink(tmp_path, ["expectile"])
    write(sink, 100, 200)

    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    monkeypatch.setattr(RecordWriter, "flush", full)
    with pytest.raises(WriteError, match=r"could not write .*iql expectile=0\.7: No space left on device"):
        write(sink, 300)
    sink._means.pop()
    sink.close()


def fake_wandb(monkeypatch, login=lambda **_: True, init=None):
    fake = types.ModuleType("wandb")
    fake.login, fake.init = login, init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)


def test_without_login_a_job_is_refused_in_one_line_that_says_what_to_do(monkeypatch):
    def login(**_):
        raise RuntimeError("api_key not configured (no-tty)\nmore")

    fake_wandb(monkeypatch, login)
    with pytest.raises(
        UserError, match=r"^nobody is logged in .*wandb login.*WANDB_MODE=offline \(api_key not .*tty\)\)$"
    ):
        sinks.check_wandb()
    monkeypatch.setenv("WANDB_MODE", "offline")
    sinks.check_wandb()


def test_a_run_that_wandb_refuses_is_one_line(monkeypatch, tmp_path):
    def init(**_):
        raise RuntimeError("no network\nat all")

    fake_wandb(monkeypatch, init=init)
    with pytest.raises(UserError, match=r"refuses the run \(no network\); WANDB_MODE=offline"):
        sinks.WandbSink("project", "name", tmp_path)


def test_means_leave_out_identity_hyperparameters_and_text():
    means = sinks._SeedMeans(["expectile"])
    for row in rows(100, values=(np.float32(1.0), np.float32(3.0))):
        assert means.add(100, row | {"note": "text"}) is None
    assert means.pop() == (100, {"iql expectile=0.7": {"eval/return": 2.0}})
    assert means.pop() is None


def test_env_info_is_plain_and_names_versions_devices_and_cache(tmp_path):
    info = env_info.describe()
    assert info["versions"]["jax"]
    assert info["devices"][0].startswith("cpu:0")
    (tmp_path / "a-cache").write_bytes(b"12345")
    assert env_info.cache_state(str(tmp_path)) == {"directory": str(tmp_path), "programs": 1, "bytes": 5}
    assert env_info.cache_state(None)["programs"] == 0
    text = env_info.lines(info)
    assert any(line.startswith("jaxlib") for line in text)
    assert all("\n" not in line for line in text)


def test_git_commit_is_that_of_this_checkout_or_nothing():
    commit = env_info.git_commit()
    assert commit is None or len(commit.split("+")[0]) == 40
