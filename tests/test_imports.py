"""Imports run one way (scripts → comp.tasks → a competition → comp.core), and files stay short.

Every import in comp/ and scripts/ is read from the source, also those inside functions.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = {"comp": 300, "scripts": 60}  # lines

# (what is imported, who must not import it, who of them may all the same)
RULES = (
    ("comp.fwi", ("comp.core", "comp.image"), ()),
    ("comp.image", ("comp.core", "comp.fwi"), ()),
    ("comp.tasks", ("comp.core", "comp.fwi", "comp.image"), ()),
    ("comp.fwi.task", ("comp",), ("comp.tasks",)),
    ("comp.image.task", ("comp",), ("comp.tasks",)),
    ("scripts", ("comp",), ()),
    ("accelerate", ("comp", "scripts"), ("comp.core.trainer", "comp.core.predict")),
    ("deepwave", ("comp", "scripts"), ("comp.fwi.wave",)),
    # A module named by a string would slip past the other rules.
    ("importlib.import_module", ("comp", "scripts"), ("comp.tasks",)),
)


def within(name, *packages):
    """Whether the dotted `name` is one of `packages` or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imports(source, package):
    """(dotted name, line) of everything that `source`, a module of `package`, imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: -(node.level - 1) or None] if node.level else []
            for alias in node.names:
                yield ".".join([*base, *filter(None, [node.module]), alias.name]), node.lineno
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in ("import_module", "__import__"):
                yield "importlib.import_module", node.lineno


def python_files(root):
    """Shipped python files below `root`, ascending."""
    return sorted(path for folder in LONGEST for path in (root / folder).rglob("*.py"))


def broken_rules(root):
    """One line for every import below `root` that breaks a rule: file, line, what is imported."""
    lines = []
    for path in python_files(root):
        parts = path.relative_to(root).with_suffix("").parts
        package = ".".join(parts[:-1])
        module = package if parts[-1] == "__init__" else ".".join(parts)
        for name, line in imports(path.read_text(encoding="utf-8"), package):
            for target, forbidden, allowed in RULES:
                bound = within(module, *forbidden) and not within(module, *allowed)
                if bound and within(name, target):
                    where = f"{path.relative_to(root)}:{line}"
                    lines.append(f"{where}: {module} must not import {target}")
    return lines


def long_files(root):
    """One line for every file below `root` that cannot be read in one sitting."""
    lines = []
    for path in python_files(root):
        name = path.relative_to(root)
        length, longest = len(path.read_text(encoding="utf-8").splitlines()), LONGEST[name.parts[0]]
        if length > longest:
            lines.append(f"{name}: {length} lines, at most {longest}")
    return lines


def test_imports_run_one_way():
    assert len(python_files(ROOT)) > 20  # the files are where this test looks for them
    assert broken_rules(ROOT) == []


def test_files_can_be_read_in_one_sitting():
    assert long_files(ROOT) == []


@pytest.mark.parametrize(
    "path, line, target",
    [
        ("comp/core/runs.py", "import comp.fwi.shots", "comp.fwi"),
        ("comp/core/runs.py", "from comp import fwi", "comp.fwi"),
        ("comp/core/runs.py", "from ..fwi.shots import ShotStore", "comp.fwi"),
        ("comp/core/__init__.py", "from .. import fwi", "comp.fwi"),
        ("comp/core/runs.py", "from comp.tasks import build_task", "comp.tasks"),
        ("comp/core/runs.py", "def f():\n    import comp.image", "comp.image"),
        ("comp/core/runs.py", "import accelerate.utils as a", "accelerate"),
        ("comp/core/runs.py", "__import__('comp.fwi')", "importlib.import_module"),
        ("comp/core/runs.py", "importlib.import_module('comp.fwi')", "importlib.import_module"),
        ("comp/fwi/models/unet.py", "from ...image import folder", "comp.image"),
        ("comp/fwi/physics.py", "import os, deepwave", "deepwave"),
        ("comp/fwi/shots.py", "from .task import FwiTask", "comp.fwi.task"),
        ("comp/fwi/shots.py", "from comp.tasks import build_task", "comp.tasks"),
        ("comp/image/task.py", "from comp.fwi import metrics", "comp.fwi"),
        ("comp/fwi/task.py", "from scripts import train", "scripts"),
        ("scripts/train.py", "from accelerate import Accelerator", "accelerate"),
        ("scripts/kaggle/pack.py", "import deepwave", "deepwave"),
    ],
)
def test_a_planted_import_is_found(tmp_path, path, line, target):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f'"""A module."""\n\n{line}\n')
    found = broken_rules(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{3 + line.count(chr(10))}: ")
    assert found[0].endswith(f"must not import {target}")


@pytest.mark.parametrize(
    "path, line",
    [
        ("comp/core/trainer.py", "from accelerate import Accelerator"),
        ("comp/core/runs.py", "from . import files"),
        ("comp/core/runs.py", "from importlib.metadata import version"),
        ("comp/fwi/wave/pml.py", "import deepwave"),
        ("comp/fwi/task.py", "from ..core import folds"),
        ("comp/fwi/task.py", "from comp.fwi import tasks_of_the_day, shots"),
        ("comp/tasks.py", "from comp.fwi.task import FwiTask"),
        ("scripts/train.py", "from comp.fwi.task import FwiTask"),
    ],
)
def test_a_lawful_import_passes(tmp_path, path, line):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert broken_rules(tmp_path) == []


def test_a_planted_long_file_is_found(tmp_path):
    for folder, longest in LONGEST.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "fits.py").write_text("\n" * longest)
        (tmp_path / folder / "long.py").write_text("\n" * (longest + 1))
    assert long_files(tmp_path) == [
        "comp/long.py: 301 lines, at most 300",
        "scripts/long.py: 61 lines, at most 60",
    ]
