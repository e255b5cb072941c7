"""The notebook of a bundle, and what the `kaggle` command wants to know of both, as plain JSON."""

import re
from typing import Any

from comp.core.errors import InputError

NOTEBOOK = "submission.ipynb"
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LENGTHS = 6, 50  # of a data set's title, which is its slug with spaces
_SUFFIX = "-submission"

_ABOUT = """# Submission of `{name}`

Finds the bundle and the competition's files, installs the wheels, predicts, ensembles, writes
`submission.csv` and checks it. Needs no network. Made by `scripts/kaggle/bundle.py`."""

_SETTINGS = """CHECK = True  # go the whole way with 32 records first, before hours are spent
FULL = True  # then with all of them"""

_INSTALL = '''import json
import os
import subprocess
import sys
from pathlib import Path

kaggle = Path(os.environ.get("KAGGLE_ROOT", "/kaggle"))


def find_bundle(root):
    """The folder of the bundle: known by its manifest, wherever it is mounted."""
    level = [root]
    while level:
        for folder in level:
            path = folder / "manifest.json"
            if path.is_file() and json.loads(path.read_text()).get("bundle") == "{name}":
                return folder
        inner = (entry for folder in level for entry in os.scandir(folder))
        level = sorted(Path(entry) for entry in inner if entry.is_dir())
    raise SystemExit(f"error: {{root}}: the data set {name} is not among the notebook's inputs")


bundle = find_bundle(kaggle / "input")
wheels = sorted(str(path) for path in bundle.glob("*.whl"))
print(f"{{bundle}}, Python {{sys.version.split()[0]}}, {{len(wheels)}} wheels")
pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
if subprocess.run([*pip, *wheels]).returncode:
    raise SystemExit("error: the wheels could not be installed, see above")'''

_UNPACK = """from comp.kernel import Kernel, in_one_line

with in_one_line():
    kernel = Kernel(bundle, kaggle / "input", kaggle / "temp", kaggle / "working")"""

_CHECK = """with in_one_line():
    if CHECK:
        kernel.rehearse()"""

_FULL = """with in_one_line():
    if FULL:
        kernel.submit()"""


def notebook(name: str) -> dict[str, Any]:
    """The notebook of the bundle `name`, in format 4.5."""
    code = (_SETTINGS, _INSTALL.format(name=name), _UNPACK, _CHECK, _FULL)
    cells = [{"cell_type": "markdown", "source": _lines(_ABOUT.format(name=name))}]
    empty = {"execution_count": None, "outputs": []}
    cells += [{"cell_type": "code", "source": _lines(text), **empty} for text in code]
    cells = [{"id": f"cell-{i}", "metadata": {}, **cell} for i, cell in enumerate(cells)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def check_name(key: str, name: str) -> None:
    """Raise InputError unless `name` can be part of an address at Kaggle."""
    low, high = _LENGTHS
    if not _SLUG.fullmatch(name) or not low <= len(name) + len(_SUFFIX) <= high or len(name) < low:
        longest = high - len(_SUFFIX)
        raise InputError(
            f"{key} {name!r}: takes {low} to {longest} small letters, digits and single hyphens"
        )


def dataset_metadata(owner: str, name: str, licence: str) -> dict[str, Any]:
    """`dataset-metadata.json`, for `kaggle datasets create`."""
    title = name.replace("-", " ")
    return {"title": title, "id": f"{owner}/{name}", "licenses": [{"name": licence}]}


def kernel_metadata(owner: str, name: str, competition: str | None) -> dict[str, Any]:
    """`kernel-metadata.json`, for `kaggle kernels push`: two T4, no network."""
    slug = f"{name}{_SUFFIX}"
    return {
        "id": f"{owner}/{slug}",
        "title": slug.replace("-", " "),  # from which Kaggle makes the slug again
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": [f"{owner}/{name}"],
        "competition_sources": [competition] if competition else [],
        "kernel_sources": [],
        "model_sources": [],
    }


def _lines(text: str) -> list[str]:
    """A cell's text as the format has it, line by line."""
    return text.splitlines(keepends=True)
