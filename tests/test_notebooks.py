"""Every notebook equals its text pair, keeps the preinstalled jax on Colab, and runs in its small mode."""

import json
import sys

import pytest

from notebooks import execute


@pytest.mark.parametrize("name", execute.names())
def test_notebook_matches_its_text_pair(name):
    assert execute.check(name) is None


@pytest.mark.parametrize("name", execute.names())
def test_colab_badge_and_install_cell(name):
    notebook = json.loads((execute.FOLDER / f"{name}.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert f"/notebooks/{name}.ipynb)" in cells[0]
    assert "colab-badge" in cells[0]
    install = next(cell for cell in cells if "pip" in cell)
    assert '"--constraint", "pins.txt"' in install, "the preinstalled jax must be pinned"
    assert '"jax", "jaxlib", "numpy"' in install


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The small mode in a folder of its own; what cells change in this process is put back."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXRL_REG_SMALL", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    yield
    sys.modules.pop("my_agent", None)


@pytest.mark.slow
@pytest.mark.parametrize("name", execute.names())
@pytest.mark.usefixtures("small")
def test_notebook_runs_in_small_mode(name):
    assert len(execute.run_cells(name)) > 3


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = execute.execute("08_plan_for_an_accelerator", small=True, timeout=240)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert all(cell.execution_count for cell in ran)
