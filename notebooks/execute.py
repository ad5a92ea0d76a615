"""Write each notebook from its text pair, and execute it.

``python -m notebooks.execute`` runs all at full size and keeps the outputs; ``--small`` runs the small mode and keeps
nothing; ``--check`` only compares the cells with the text pairs. The tests run the small mode without a kernel
(``run_cells``), which saves them an interpreter and its imports for each notebook.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    """The notebooks: every text pair that starts with a number."""
    return sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def cells(notebook) -> list[tuple[str, str]]:
    """Kinds and sources, which is what a notebook and its text pair share."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def from_text(name: str):
    """The notebook that the text pair describes, without outputs."""
    import jupytext

    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"  # the same at every conversion
    return notebook


def check(name: str) -> str | None:
    """What differs between a notebook and its text pair, or None."""
    import nbformat

    path = FOLDER / f"{name}.ipynb"
    if not path.exists():
        return f"{path.name} is missing; run: python -m notebooks.execute {name}"
    if cells(nbformat.read(path, as_version=4)) != cells(from_text(name)):
        return f"{path.name} and {name}.py differ; edit the .py and run: python -m notebooks.execute {name}"
    return None


def execute(name: str, small: bool, timeout: int = 1200):
    """The notebook, executed in an empty folder.

    Raises ``nbclient.exceptions.CellExecutionError`` with the failing cell.
    """
    import nbclient

    environment = {**os.environ, "JAXRL_REG_SMALL": "1" if small else "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    root = str(FOLDER.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    notebook = from_text(name)
    with tempfile.TemporaryDirectory() as folder:  # what the cells write is theirs
        where = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=where)
        client.execute(env=environment)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output):
        output["text"] = output["text"].replace(os.path.join(os.path.realpath(folder), ""), "")
    return notebook


def run_cells(name: str) -> list[str]:
    """Run the code cells in this process, one after the other in a namespace of their own; returns their sources.

    The caller sets ``JAXRL_REG_SMALL``, the working directory and a Matplotlib backend without windows. Raises whatever
    a cell raises, with the cell's number in the file name of the traceback.
    """
    sources = [source for kind, source in cells(from_text(name)) if kind == "code" and source]
    namespace: dict = {"__name__": "__main__"}
    for number, source in enumerate(sources, 1):
        exec(compile(source, f"{name}[{number}]", "exec"), namespace)
    return sources


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m notebooks.execute", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"all by default: {', '.join(names())}")
    parser.add_argument("--small", action="store_true", help="tiny sizes; nothing is written")
    parser.add_argument("--check", action="store_true", help="compare with the text pairs, execute nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        print(f"unknown notebook {unknown[0]!r}; known: {', '.join(names())}", file=sys.stderr)
        return 2
    failures = 0
    for name in options.names or names():
        if options.check:
            problem = check(name)
            failures += problem is not None
            print(problem or f"{name}: matches its text pair")
            continue
        import nbformat

        notebook = execute(name, options.small)
        if not options.small:
            for cell in notebook.cells:  # timings and machine details change at every run
                cell.metadata.pop("execution", None)
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        print(f"{name}: ok")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
