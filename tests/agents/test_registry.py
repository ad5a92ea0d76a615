"""Finding agents by name, and the one-line errors for names that are wrong."""

import ast
import pathlib
import sys
import types

import pytest

from jaxrl_reg import agents
from jaxrl_reg.agents import bc, td3_bc
from jaxrl_reg.errors import UserError
from tests.agents import reference as ref


def test_every_file_is_an_agent():
    assert {"awac", "bc", "cql", "edac", "iql", "percent_bc", "rebrac", "sac_n", "td3_bc"} <= set(agents.names())
    assert not any(name.startswith("_") for name in agents.names())
    for name in agents.names():
        module = agents.load(name)
        assert module.KIND in ("offline", "off_policy", "on_policy", "tokens")
        assert all(module.PAPER[:4])
        for cls in (module.Config, module.Hyper):
            for field, _, help in agents.settings(cls):
                assert help, f"{name}.{cls.__name__}.{field} has no help"
        assert all(isinstance(default, float) for _, default, _ in agents.settings(module.Hyper))


def test_editors_are_told_of_every_agent():
    declared = {}
    for node in ast.walk(ast.parse(pathlib.Path(agents.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxrl_reg.agents."):
            declared |= {
                alias.name: node.module.rpartition(".")[2] for alias in node.names if alias.asname == alias.name
            }
    assert declared == {name: agents.family(name) for name in agents.names()}
    assert agents.iql is agents.load("iql")
    with pytest.raises(AttributeError, match="no attribute 'iqll'"):
        agents.iqll  # noqa: B018


def test_unknown_names():
    with pytest.raises(UserError, match=r"unknown agent 'td3bc'; did you mean 'td3_bc'\?"):
        agents.load("td3bc")
    with pytest.raises(UserError, match=r"unknown agent 'orpo'.*occupancy_reg.*loss=odds_ratio"):
        agents.load("orpo")
    with pytest.raises(UserError, match="unknown agent '_common'"):
        agents.load("_common")
    with pytest.raises(UserError, match=r"no module named 'my_package\.my_agent'"):
        agents.load("my_package.my_agent")
    with pytest.raises(UserError, match=r"'os\.path' is not an agent: it lacks PAPER, KIND"):
        agents.load("os.path")
    with pytest.raises(UserError, match=r"unknown setting of bc 'hiden'; did you mean 'hidden'\?"):
        agents.make("bc", ref.SPEC, hiden=(8,))
    with pytest.raises(UserError, match="unknown policy 'gausian'; did you mean 'gaussian'"):
        agents.make("bc", ref.SPEC, policy="gausian")


def test_agent_of_ones_own(monkeypatch):
    package, module = types.ModuleType("borrowed"), types.ModuleType("borrowed.agent")
    package.__path__ = []
    for name in ("PAPER", "KIND", "Config", "Hyper", "make"):
        setattr(module, name, getattr(bc, name))
    module.__spec__ = types.SimpleNamespace(name="borrowed.agent", parent="borrowed")
    monkeypatch.setitem(sys.modules, "borrowed", package)
    monkeypatch.setitem(sys.modules, "borrowed.agent", module)
    assert agents.load("borrowed.agent") is module
    assert agents.make("borrowed.agent", ref.SPEC, hidden=(8,)).update is not None


def test_an_error_inside_an_own_agent_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("")
    (tmp_path / "broken_package" / "agent.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
        agents.load("broken_package.agent")


def test_settings_are_in_order_with_defaults_and_help():
    settings = agents.settings(td3_bc.Hyper)
    assert [name for name, _, _ in settings][:3] == ["actor_learning_rate", "critic_learning_rate", "discount"]
    assert {name: default for name, default, _ in settings}["alpha"] == 2.5
