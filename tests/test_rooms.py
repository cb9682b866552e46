"""The order of the rooms: imports point down, never up and never in a circle."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mer4d

PACKAGE = Path(mer4d.__file__).parent
ROOMS = (
    ("", "clip", "cache", "cluster", "commands", "errors", "parallel", "pictures"),
    ("preprocess",),
    ("models",),
    ("data", "synth"),
    ("task", "callbacks", "trained", "show", "logs"),
    ("loso", "report", "check", "compare", "audit", "ablation", "explain", "page", "predict", "export", "model_card"),
    ("experiment",),
    ("cli", "__main__"),
)
"""From the ground up; "" is the package itself, `mer4d/__init__.py`."""


def dotted(path, package=PACKAGE):
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(package=PACKAGE):
    """Every module of a package and all it imports, inside functions and `if TYPE_CHECKING` too."""
    sources = {dotted(path, package): path for path in sorted(package.rglob("*.py"))}
    return {module: set(named_in(path, module, sources)) for module, path in sources.items()}


def named_in(path, module, known):
    home = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = home.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            source = (above + (node.module or "")).rstrip(".")
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source


def floor(module):
    room = module.split(".")[1] if "." in module else ""
    levels = [level for level, rooms in enumerate(ROOMS) if room in rooms]
    assert levels, f"{module} stands in no room of the design"
    return levels[0]


def upward(imports):
    return sorted(
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if other.split(".")[0] == "mer4d" and floor(other) > floor(module)
    )


def circle(imports):
    try:
        TopologicalSorter({module: others & imports.keys() for module, others in imports.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


IMPORTS = read_imports()


def test_the_walk_sees_the_package():
    assert {"mer4d", "mer4d.errors", "mer4d.preprocess", "mer4d.preprocess.prepare", "mer4d.cli"} <= IMPORTS.keys()
    assert {"mer4d.errors", "mer4d.preprocess.mesh", "numpy"} <= IMPORTS["mer4d.preprocess.views.meshes"]


def test_nothing_points_up():
    assert upward(IMPORTS) == []


def test_no_circles():
    assert circle(IMPORTS) == []


def test_nothing_is_named_utils():
    assert [module for module in IMPORTS if {"utils", "util", "helpers", "common"} & set(module.split("."))] == []


HEAVY = {"torch", "pytorch_lightning", "lightning", "torchmetrics"}
TORCH_BACKEND = "mer4d.preprocess.flow.tvl1_torch"


def test_preprocess_knows_torch_in_one_place_alone():
    rooms = [module for module in IMPORTS if floor(module) <= floor("mer4d.preprocess")]
    assert [module for module in rooms if {other.split(".")[0] for other in IMPORTS[module]} & HEAVY] == [TORCH_BACKEND]


def test_preprocess_loads_no_torch_unless_it_is_asked_to():
    """Worker processes pass here; torch would cost each of them seconds and hundreds of megabytes."""
    program = "import sys, mer4d.preprocess.prepare, mer4d.check.look; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "mer4d.preprocess" in loaded and not HEAVY & set(loaded)


def test_models_are_torch_alone():
    allowed = {"torch", "torchmetrics", "numpy", "mer4d", *sys.stdlib_module_names}
    models = [module for module in IMPORTS if module.startswith("mer4d.models")]
    assert {other.split(".")[0] for module in models for other in IMPORTS[module]} <= allowed


@pytest.mark.parametrize(
    "source",
    [
        "import mer4d.data.folds",
        "from mer4d.data import folds",
        "from mer4d import data",
        "from ..data import folds",
        "def late():\n    from mer4d.data.folds import Fold",
    ],
)
def test_the_walk_finds_what_points_up(tmp_path, source):
    package = tmp_path / "mer4d"
    for room in ("preprocess", "data"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "data" / "folds.py").touch()
    (package / "preprocess" / "crop.py").write_text(source)
    assert [line.split(".data")[0] for line in upward(read_imports(package))] == ["mer4d.preprocess.crop imports mer4d"]


def test_the_walk_finds_circles(tmp_path):
    package = tmp_path / "mer4d"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "clip.py").write_text("from mer4d.cache import store")
    (package / "cache.py").write_text("def late():\n    from . import clip")
    assert {"mer4d.clip", "mer4d.cache"} == set(circle(read_imports(package)))
