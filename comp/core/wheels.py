"""Wheels for a machine without a network: the project's own, and others by their exact versions."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from comp.core.errors import InputError
from comp.core.manifest import PYTHON

_ROOT = Path(__file__).parents[2]
_SETUPTOOLS = 77  # as pyproject.toml asks for
_SOURCES = ("comp", "pyproject.toml", "README.md", "LICENSE")
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
_VERSION = ".".join(map(str, PYTHON))


def build_wheel(out: Path) -> Path:
    """The project's own wheel, of the sources as they are now.

    Raises:
        InputError: comp is not run from its repository, or the build failed.
    """
    if not (_ROOT / "pyproject.toml").is_file():
        raise InputError(f"{_ROOT}: no pyproject.toml; bundles are made in the repository")
    before = set(out.glob("*.whl"))
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        # Of a copy: a build folder left in the repository would bring modules that are gone.
        for name in _SOURCES:
            source, target = _ROOT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        # Setuptools that are there spare a download; a new environment has none.
        alone = ["--no-build-isolation"] if _has_setuptools() else []
        _pip("wheel", "--no-deps", *alone, "--wheel-dir", str(out), folder)
    made = set(out.glob("*.whl")) - before
    if len(made) != 1:
        raise InputError(f"{out}: {len(made)} new wheels, expected the project's alone")
    return made.pop()


def bring_wheels(pins: Sequence[str], out: Path, source: Path | None = None) -> list[Path]:
    """Put the wheel of each pin such as `timm==1.0.31` into `out`.

    Args:
        pins: name and exact version.
        out: where to.
        source: a folder that has them; None to download.

    Raises:
        InputError: not an exact version, no such wheel, one that the notebook cannot install.
    """
    for pin in pins:
        if pin.count("==") != 1:
            raise InputError(f"wheel {pin!r}: expected an exact version, as in timm==1.0.31")
    if source is None:
        where = ["--python-version", _VERSION, *(f"--platform={name}" for name in _PLATFORMS)]
        how = ["--no-deps", "--only-binary=:all:", *where, "--dest", str(out)]
        if pins:
            _pip("download", *how, *pins)
        return [_find(out, pin) for pin in pins]
    return [Path(shutil.copy(_find(source, pin), out)) for pin in pins]


def check_wheel(path: Path) -> None:
    """Raise InputError unless the notebooks' Python on Linux x86-64 can install a wheel."""
    if not _fits(path):
        found = ", ".join(sorted(map(str, _tags_of(path))))
        raise InputError(f"{path}: wheel for {found}, expected one for Python {_VERSION} on Linux")


def _has_setuptools() -> bool:
    try:
        return int(version("setuptools").partition(".")[0]) >= _SETUPTOOLS
    except PackageNotFoundError:
        return False


def _find(folder: Path, pin: str) -> Path:
    """The wheel of a pin in a folder, one that fits before others."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected wheels in it")
    name, _, number = pin.partition("==")
    stem = canonicalize_name(name).replace("-", "_")
    found = [
        path
        for path in sorted(folder.glob("*.whl"))
        if path.name.lower().replace("-", "_").startswith(f"{stem}_{number}_")
    ]
    if not found:
        raise InputError(f"{folder}: no wheel of {pin}")
    path = next((path for path in found if _fits(path)), found[0])
    check_wheel(path)
    return path


def _fits(path: Path) -> bool:
    fits = {*cpython_tags(PYTHON, platforms=_PLATFORMS)}
    fits |= {*compatible_tags(PYTHON, "cp{}{}".format(*PYTHON), _PLATFORMS)}
    return bool(_tags_of(path) & fits)


def _tags_of(path: Path) -> frozenset[Tag]:
    try:
        return parse_wheel_filename(path.name)[3]
    except InvalidWheelFilename as error:
        raise InputError(f"{path}: not a wheel: {error}") from None


def _pip(*arguments: str) -> None:
    """Run pip; raises InputError with the line in which it says what went wrong."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("ERROR: ")] or lines or ["no message"]
        raise InputError(f"pip {arguments[0]}: {said[-1].removeprefix('ERROR: ')}")
