"""What only one system or locale has is not relied on: encodings and calls, read from the package's source; and the
report and its tables, written where text would be ASCII."""

import ast
import io
import os
import pathlib
import subprocess
import sys

import pytest

from jaxrl_reg import cli
from tests.evaluation import synthetic

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "jaxrl_reg").rglob("*.py"))
TEXT = {"read_text", "write_text"}
BYTES = {"write_bytes", "read_bytes"}
# Calls that some systems lack, and what must stand in the same function: a guard by name, or a ``try``.
SOME_LACK = {
    "os.sched_getaffinity": ("hasattr", "getattr"),
    "os.sysconf": ("try", "suppress"),
    "os.getuid": ("hasattr", "getattr"),
    "os.uname": ("hasattr", "getattr"),
    "os.fork": ("hasattr", "getattr"),
    "signal.SIGKILL": ("hasattr", "getattr"),
    "signal.SIGHUP": ("hasattr", "getattr"),
    "signal.SIGALRM": ("hasattr", "getattr"),
    "signal.setitimer": ("hasattr", "getattr"),
}
ELSEWHERE = {"fcntl", "resource", "pwd", "grp", "termios", "msvcrt", "winreg"}


def bare_text(tree):
    """Lines that read or write text in whatever encoding the locale has."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        method = isinstance(node.func, ast.Attribute)
        mode = next((k.value for k in node.keywords if k.arg == "mode"), None)
        if mode is None:
            position = 0 if method else 1
            mode = node.args[position] if len(node.args) > position else None
        binary = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and "b" in mode.value
        given = any(k.arg == "encoding" for k in node.keywords)
        # ``open`` of a module such as gzip takes bytes unless it is told otherwise; a path's is known by its mode.
        opens = name == "open" and (not method or mode is None or isinstance(mode, ast.Constant)) and not binary
        ours = opens and (method or not any(isinstance(f, ast.FunctionDef) and f.name == name for f in ast.walk(tree)))
        text = name in TEXT and method and ast.unparse(node.func.value) not in ("files",)
        if (text or ours) and not given:
            found.append(f"line {node.lineno}: {ast.unparse(node)[:60]}")
    return found


def unguarded(tree):
    """Calls and imports that a system lacks, without anything that asks for them first."""
    found = []

    tails = {name.rsplit(".", 1)[1] for name in SOME_LACK}  # text is made where it may matter: it takes the time

    def visit(node, function):
        if isinstance(node, ast.FunctionDef):
            function = node
        name = ast.unparse(node) if isinstance(node, ast.Attribute) and node.attr in tails else ""
        if name in SOME_LACK:
            text = ast.unparse(function) if function is not None else ""
            if not any(guard in text for guard in SOME_LACK[name]):
                found.append(f"line {node.lineno}: {name}")
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found.extend(f"line {node.lineno}: {module}" for module in modules if module.split(".")[0] in ELSEWHERE)
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, None)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_is_utf_8_and_no_call_is_of_one_system_only(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert bare_text(tree) == []
    assert unguarded(tree) == []


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("path.read_text()", 1),
        ("path.write_text(page)", 1),
        ("open(path)", 1),
        ("open(path, 'w')", 1),
        ("path.open('x')", 1),
        ("path.open('xb')", 0),
        ("open(path, mode='rb')", 0),
        ("open(path, encoding='utf-8')", 0),
        ("files.write_text(path, page)", 0),
        ("def f():\n    return os.sched_getaffinity(0)", 1),
        ("def f():\n    return os.sysconf('x')", 1),
        ("import fcntl", 1),
        ("def f():\n    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1", 0),
    ],
)
def test_a_fault_is_seen(source, faults):
    tree = ast.parse(source)
    assert len(bare_text(tree) + unguarded(tree)) == faults


def test_what_a_terminal_cannot_show_is_no_error(monkeypatch):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setitem(cli.VERBS, "env", cli.VERBS["env"]._replace(call=lambda _: print("\N{MINUS SIGN}1 é")))
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii", errors="strict"))
    assert cli.main(["env"]) == 0
    assert out.getvalue().split() == [b"?1", b"?"]


SCRIPT = """
import locale, sys
assert locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"), locale.getpreferredencoding(False)
from jaxrl_reg import cli
sys.exit(cli.main(["report", sys.argv[1]]))
"""


def test_the_report_and_its_tables_are_written_where_text_is_ascii(tmp_path):
    about = synthetic.make_about() | {"name": "données – 数据"}
    directory = synthetic.make_run(tmp_path / "run", about=about)
    (directory / "episode.html").write_text("<p>é</p>", encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONIOENCODING", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory)], capture_output=True, env=environment, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr.decode("ascii", "replace")) == (0, "")
    assert b"last IQM" in done.stdout
    assert "données – 数据" in (directory / "report.html").read_text(encoding="utf-8")
    assert (directory / "table.csv").read_text(encoding="utf-8").startswith("agent,")
