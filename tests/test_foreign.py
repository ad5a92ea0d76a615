import pathlib
import sys
import threading
import time

import pytest

from jaxrl_reg import agents, cli, envs, foreign
from jaxrl_reg.errors import UserError
from tests.pointnav_data import save_pointnav

AGENT = "from jaxrl_reg.agents.bc import PAPER, KIND, Config, Hyper, make\n"
ENV = "from jaxrl_reg import envs\n\n\ndef make():\n    return envs.make('pointnav')\n"


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """An empty working directory; what is found in it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(foreign, "_places", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(cli, "prepare", lambda: None)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def put(path, text):
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file.resolve()


@pytest.mark.parametrize("text", ["mine", "mine.py", "lab.mine", "lab/mine.py", "pack.mine", "pack/mine.py", "whole"])
def test_an_agent_is_found_from_the_working_directory(text, capsys):
    for path in ("mine.py", "lab/mine.py", "pack/mine.py", "whole/__init__.py"):
        put(path, AGENT)
    put("pack/__init__.py", "")
    module = agents.load(text)
    assert module.Config is agents.load("bc").Config
    assert module is agents.load(text)
    assert cli.main(["list", "hyperparameters", text]) == 0
    assert capsys.readouterr().out.startswith(f"{text}: ALVINN")


def test_files_of_one_stem_live_side_by_side():
    found = [foreign.load_file(put(f"{folder}/mine.py", f"name = {folder!r}")) for folder in ("a", "b")]
    put("c/__init__.py", "")
    found.append(foreign.load_file(put("c/mine.py", "name = 'c'")))
    assert [module.name for module in found] == ["a", "b", "c"]
    assert "mine" not in sys.modules


def test_a_file_imports_what_lies_beside_it_and_in_its_package():
    put("beside_mine.py", "value = 1")
    put("space/part.py", "value = 2")
    put("pack/__init__.py", "value = 3")
    put("pack/other.py", "value = 4")
    put("mine.py", "from beside_mine import value as one\nfrom space.part import value as two\n")
    put("space/mine.py", "from space.part import value as two\n")
    put("pack/mine.py", "from pack import value as three\nfrom . import other\nfrom .other import value as four\n")
    assert (foreign.load("mine", "x").one, foreign.load("mine.py", "x").two) == (1, 2)
    assert foreign.load("space.mine", "x").two == 2
    module = foreign.load("pack/mine.py", "x")
    assert (module.three, module.four, module.other.value) == (3, 4, 4)


def test_names_of_the_package_come_before_files_of_the_same_name():
    put("bc.py", "raise RuntimeError('not this one')")
    put("pendulum.py", "raise RuntimeError('not this one')")
    assert agents.load("bc").__name__ == "jaxrl_reg.agents.imitation.bc"
    assert envs.make("pendulum").spec.action_dim == 1
    with pytest.raises(UserError, match="not this one"):
        agents.load("bc.py")


def test_an_agent_of_the_package_is_imported_without_its_family():
    import jaxrl_reg.agents.iql as by_name

    from jaxrl_reg.agents.offline import iql

    assert by_name is iql
    assert iql.__spec__.name == iql.__name__ == "jaxrl_reg.agents.offline.iql"
    with pytest.raises(ModuleNotFoundError):
        import jaxrl_reg.agents.iqll  # noqa: F401


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        ("mine.py", None, r"^agent 'mine\.py': there is no file .*mine\.py$"),
        ("lab.mine", None, r"^no module named 'lab\.mine', here or installed; give the file"),
        ("rebrc", None, r"^unknown agent 'rebrc'; did you mean 'rebrac'\?$"),
        ("mine.py", "x = 1\nimport nowhere\n", r"mine\.py, line 2, cannot be imported: ModuleNotFoundError: No module"),
        ("mine", "x = 1\n\ny = (\n", r"mine\.py, line 3, cannot be imported: SyntaxError"),
        ("mine", "x = 1\n", r"^module 'mine' is not an agent: it lacks PAPER, KIND, Config, Hyper, make$"),
    ],
)
def test_what_is_wrong_is_one_line(text, content, message):
    if content is not None:
        put("mine.py", content)
    before = set(sys.modules)
    with pytest.raises(UserError, match=message):
        agents.load(text)
    left = {name for name in set(sys.modules) - before if name.startswith("mine_")}
    assert not left or content == "x = 1\n"


def test_an_environment_is_found_from_the_working_directory():
    put("world.py", ENV)
    put("lab/world.py", ENV)
    put("empty.py", "")
    for text in ("world", "world.py", "lab.world", "lab/world.py"):
        assert envs.make(text).spec.observation_dim == envs.make("pointnav").spec.observation_dim
    wrong = {"empty": "no function make", "none.py": "no file", "pointnv": "did you mean 'pointnav'"}
    for text, message in wrong.items():
        with pytest.raises(UserError, match=message):
            envs.make(text)


def test_a_run_with_files_of_ones_own_goes_on_from_another_directory(tmp_path, monkeypatch, capsys):
    put("lab/mine.py", AGENT)
    put("world.py", ENV)
    save_pointnav(tmp_path / "data.hdf5")
    line = (
        "train --env world.py --agent lab/mine.py --dataset data.hdf5 --seeds 2 --updates 4 --segments 2 "
        "--batch-size 8 --hidden 8 --eval-episodes 2 --out run"
    )
    assert cli.main(line.split()) == 0
    out = capsys.readouterr().out
    assert "lab/mine.py" in out
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["bc", "lab-mine.py"]
    assert [path.name for path in (tmp_path / "lab").iterdir() if path.is_dir()] in ([], ["__pycache__"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(foreign, "_places", [])
    assert cli.main(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
    assert "lab/mine.py" in capsys.readouterr().out


def test_a_file_is_whole_for_a_thread_that_comes_while_it_is_loaded(tmp_path):
    slow = tmp_path / "slower.py"
    slow.write_text("import time\ntime.sleep(0.5)\nREADY = True\n")
    first = threading.Thread(target=foreign.load_file, args=(slow,))
    first.start()
    time.sleep(0.1)
    ready = hasattr(foreign.load_file(slow), "READY")
    first.join()
    assert ready
