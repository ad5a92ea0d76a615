"""The shape of the package, read from its source: who imports whom, how heavy an import is, what is documented."""

import ast
import importlib
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from jaxrl_reg import errors

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "jaxrl_reg"
MODULES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in MODULES]

BASE = {"types", "errors", "foreign"}
# What a folder may import besides itself. Imports run one way: the table has no cycle.
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "foreign": {"errors"},
    "losses": set(),
    "transforms": set(),
    "generative": set(),
    "networks": BASE,
    "policies": BASE | {"losses", "generative", "networks"},
    "agents": BASE | {"losses", "transforms", "generative", "networks", "policies", "data", "representation"},
    "representation": BASE | {"losses", "networks", "data", "transforms"},
    "data": BASE | {"io", "losses"},
    "envs": BASE | {"tabular"},
    "tabular": BASE | {"losses"},
    "search": BASE | {"losses", "networks"},
    "io": BASE,
    "evaluation": BASE | {"io", "losses", "transforms"},
    "loops": BASE
    | {
        "agents",
        "data",
        "envs",
        "evaluation",
        "generative",
        "losses",
        "networks",
        "representation",
        "search",
        "transforms",
    },
    "population": BASE | {"io", "loops"},
}
# These stand above the rest and may import everything: what they offer is called by people.
TOP = {"__init__.py", "__main__.py", "cli", "demo.py", "jobs", "contract", "evaluation/report"}

OPTIONAL = {"gymnasium", "minari", "mujoco_playground", "tensorboardX", "wandb"}
OPTIONAL_HOMES = ("envs/adapters/", "data/readers/", "io/")
# Declared dependencies that cost time or memory to import: only inside functions.
LATE = {
    "brax",
    "distrax",
    "flatbuffers",
    "h5py",
    "jinja2",
    "matplotlib",
    "mujoco",
    "orbax",
    "pandas",
    "pyarrow",
    "rich",
    "scipy",
    "tyro",
}
DISTRIBUTIONS = {"mujoco_playground": "playground", "orbax": "orbax-checkpoint"}


def imports(tree):
    """``(module, late)`` of every import: ``late`` inside a function; imports for type checkers are left out."""
    found = []

    def visit(node, late):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.extend((f"{node.module}.{alias.name}", late) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(tree, False)
    return found


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def tracked_files():
    """Files under version control; in a copy without it, every file outside of hidden and generated folders."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]
    generated = {"build", "dist", "runs", "datasets", "results", "__pycache__"}
    parts = ((path, path.relative_to(ROOT).parts) for path in sorted(ROOT.rglob("*")) if path.is_file())
    return [path for path, names in parts if not any(n in generated or n.startswith(".") for n in names)]


def violations(name, tree):
    """What is wrong with the imports of one module, given as a path below the package."""
    folder = name.split("/")[0].removesuffix(".py")
    above = any(name == top or name.startswith(f"{top}/") for top in TOP)
    wrong = []
    for module, late in imports(tree):
        top, _, rest = module.partition(".")
        if top == "jaxrl_reg":
            target = rest.split(".")[0]
            own = target in (folder, "", "__version__")
            if not own and not above and target not in MAY_IMPORT[folder]:
                wrong.append(f"{name} imports {target}")
            continue
        if top in sys.stdlib_module_names:
            continue
        if folder in ("losses", "generative", "types", "errors") and top != "jax":
            wrong.append(f"{name} imports {top}; only jax is allowed here")
        if folder == "transforms" and top not in ("jax", "optax"):
            wrong.append(f"{name} imports {top}; only jax and optax are allowed here")
        if top == "flax" and folder != "networks":
            wrong.append(f"{name} imports flax, which belongs to networks")
        if top == "distrax" and folder != "policies":
            wrong.append(f"{name} imports distrax, which belongs to policies")
        if top in OPTIONAL and not name.startswith(OPTIONAL_HOMES):
            wrong.append(f"{name} imports the optional package {top}; {', '.join(OPTIONAL_HOMES)} may")
        if top in OPTIONAL | LATE and not late:
            wrong.append(f"{name} imports {top} at its top; do it inside the function that needs it")
        if "_src" in module.split("."):
            wrong.append(f"{name} imports {module}, which is private")
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_run_one_way(path):
    assert violations(path.relative_to(PACKAGE).as_posix(), parsed(path)) == []


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("losses/value.py", "from jaxrl_reg.types import Array", "losses/value.py imports types"),
        ("losses/value.py", "import numpy as np", "only jax"),
        ("networks/mlp.py", "from jaxrl_reg import agents", "imports agents"),
        ("data/dataset.py", "def f():\n    from jaxrl_reg.loops import offline", "imports loops"),
        ("agents/iql.py", "import flax.linen as nn", "belongs to networks"),
        ("agents/iql.py", "def f():\n    import distrax", "belongs to policies"),
        ("policies/categorical.py", "import distrax", "at its top"),
        ("loops/online.py", "def f():\n    import gymnasium", "optional package gymnasium"),
        ("envs/adapters/brax.py", "import brax.envs", "at its top"),
        ("agents/iql.py", "from jax._src import core", "private"),
    ],
)
def test_a_wrong_import_is_seen(name, source, words):
    assert any(words in line for line in violations(name, ast.parse(source)))


def test_the_table_of_imports_has_no_cycle():
    done = set()
    while len(done) < len(MAY_IMPORT):
        free = {name for name, needs in MAY_IMPORT.items() if name not in done and needs <= done}
        assert free, f"cycle among {sorted(set(MAY_IMPORT) - done)}"
        done |= free
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders <= set(MAY_IMPORT) | TOP


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {re.match(r"[\w.-]+", line)[0].lower() for line in requirements}
    used = {module.split(".")[0] for path in MODULES for module, _ in imports(parsed(path))}
    used -= set(sys.stdlib_module_names) | {"jaxrl_reg"}
    assert (
        sorted(
            DISTRIBUTIONS.get(name, name).lower()
            for name in used
            if DISTRIBUTIONS.get(name, name).lower() not in declared
        )
        == []
    )


@pytest.mark.parametrize("tested", ["floor", "py311", "py312"])
def test_the_tested_sets_fit_what_the_package_asks_for(tested):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints" / f"{tested}.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    asked = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    needs = {line: Requirement(line) for line in asked}
    fits = {line: need.specifier.contains(pins[need.name]) for line, need in needs.items() if need.name in pins}
    assert set(project["dependencies"]) <= set(fits)
    assert [line for line, fit in fits.items() if not fit] == []


def test_every_optional_package_belongs_to_the_extra_that_its_error_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]}
    for package, extra in errors.EXTRAS.items():
        brought = {re.match(r"[\w-]+", line)[0].lower() for line in project["optional-dependencies"][extra]}
        assert DISTRIBUTIONS.get(package, package).lower() in brought, package
    late = {DISTRIBUTIONS.get(name, name) for name in (LATE | OPTIONAL) - {"tyro"}}
    assert late - core == {DISTRIBUTIONS.get(name, name) for name in errors.EXTRAS}


def unguarded(tree):
    """Imports of optional packages inside functions that neither ``need`` them before nor catch an ImportError."""
    found = []

    def visit(node, function):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Try) and "ImportError" in ast.unparse(node):
            return
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for package in {module.split(".")[0] for module in modules} & set(errors.EXTRAS):
            calls = [call for call in ast.walk(function) if isinstance(call, ast.Call)] if function else []
            needed = [a.value for c in calls if ast.unparse(c.func) == "need" for a in c.args if c.lineno < node.lineno]
            if package not in needed:
                found.append(f"line {node.lineno}: {package}")
        for child in ast.iter_child_nodes(node):
            visit(child, node if isinstance(node, ast.FunctionDef) else function)

    visit(tree, None)
    return found


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_a_missing_optional_package_is_one_line(path):
    assert unguarded(parsed(path)) == []


def test_an_optional_package_without_its_line_is_seen():
    assert unguarded(ast.parse("def f():\n    import brax.envs")) == ["line 2: brax"]
    assert unguarded(ast.parse("def f():\n    need('brax')\n    import brax.envs")) == []


@pytest.mark.parametrize(("package", "extra"), [("brax", "envs"), ("wandb", "logging")])
def test_what_a_missing_package_is_called(package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.UserError, match=rf"needs the package {package}; pip install 'jaxrl-reg\[{extra}\]'"):
        errors.need("json", package)


STAGES = """
import json, sys
seen = {}
def stage(name):
    seen[name] = sorted({module.split(".")[0] for module in sys.modules})
import jaxrl_reg
stage("package")
from jaxrl_reg.losses import expectile_loss
stage("loss")
from jaxrl_reg import data, envs, evaluation, loops, population
from jaxrl_reg.agents import iql
from jaxrl_reg.evaluation import returns
jaxrl_reg.loops.offline, jaxrl_reg.loops.online, jaxrl_reg.population.sweep, data.from_arrays
stage("training")
print(json.dumps(seen))
"""


def test_borrowing_a_loss_pays_for_jax_alone():
    out = subprocess.run([sys.executable, "-c", STAGES], capture_output=True, text=True, cwd=ROOT, check=False)
    assert out.returncode == 0, out.stderr
    seen = {name: set(modules) for name, modules in json.loads(out.stdout.splitlines()[-1]).items()}
    heavy = {"brax", "distrax", "matplotlib", "mujoco", "pandas", "pyarrow", "h5py", "jinja2", *OPTIONAL}
    assert not seen["package"] & (heavy | {"jax", "numpy", "flax", "optax", "orbax"})
    assert not seen["loss"] & (heavy | {"flax", "optax", "chex", "orbax"})
    assert not seen["training"] & heavy


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_everything_public_has_a_docstring(path):
    tree = parsed(path)
    missing = [] if ast.get_docstring(tree) or not tree.body else ["the module"]
    # The docstring of an agent's module describes these; the contract suite looks at their fields.
    known = {"Config", "Hyper", "State", "make"} if path.parent.parent.name == "agents" else set()
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public and node.name not in known and not ast.get_docstring(node):
            missing.append(node.name)
    assert missing == []


def test_exported_names_exist():
    for folder in ["", *sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())]:
        module = importlib.import_module(f"jaxrl_reg.{folder}".rstrip("."))
        for name in getattr(module, "__all__", ()):
            assert getattr(module, name, None) is not None, f"{module.__name__}.{name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "agents").rglob("*.py")), ids=lambda path: path.name)
def test_an_agent_fits_on_two_screens(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200


def test_nothing_is_left_unwritten():
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    for path in MODULES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            assert not marks.search(line), f"{path.relative_to(ROOT)}:{number}"


def test_no_path_of_one_machine_and_no_package_index():
    home = re.compile(r"(?<![\w.~-])/(work|root|tmp/dev|home/\w+|Users/\w+)\b|[A-Z]:\\Users|\s--(extra-)?index-url\b")
    assert home.search("see /ho" + "me/someone/x")
    assert not home.search("https://example.org/work/x and ~/work")
    for path in tracked_files():
        if path.suffix in (".npz", ".png", ".gz", ".hdf5") or path == pathlib.Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1):
            assert not home.search(line), f"{path.relative_to(ROOT)}:{number}: {home.search(line)[0]}"


def documents():
    return [path for path in tracked_files() if path.suffix == ".md"]


def test_make_targets_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name for line in re.findall(r"^([\w ]+):(?!=)", makefile, re.MULTILINE) for name in line.split()}
    named = {}
    for path in documents():
        for text in re.findall(r"(?:^|`)make ((?:[a-z]+(?: |`|$))+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            named.update(dict.fromkeys(text.rstrip("`").split(), path.name))
    assert {"demo", "test"} <= set(named)
    assert {target: where for target, where in named.items() if target not in targets} == {}


def test_links_in_the_documents_lead_somewhere():
    for path in documents():
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if not re.match(r"https?://|mailto:", link):
                assert (path.parent / link).exists(), f"{path.relative_to(ROOT)}: {link}"


def test_editors_see_that_a_setting_has_a_default():
    """Type checkers know a default of a field specifier by its keyword alone."""
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "setting":
                assert any(word.arg == "default" for word in node.keywords), f"{path.name}:{node.lineno}"
