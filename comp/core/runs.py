"""The run folder: resolved config, commit and versions, metrics log."""

import json
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from comp.core.config import RunConfig, config_differences, dump_config, read_yaml, write_config
from comp.core.errors import InputError
from comp.core.files import write_json, write_text

_PACKAGES = ("comp", "torch", "timm", "segmentation-models-pytorch", "albumentations", "accelerate")
_PACKAGES += ("numpy", "numba")


def open_run(config: RunConfig) -> Path:
    """Create or reopen the run folder of `config` and return it.

    Raises:
        InputError: the folder belongs to another config; the differing keys are named.
    """
    folder = config.folder
    saved = folder / "config.yaml"
    if saved.exists():
        refuse_other_config(saved, read_yaml(saved), config)
    else:
        write_json(folder / "versions.json", versions())
        write_config(saved, config)
    return folder


def refuse_other_config(source: Path, old: dict[str, Any], config: RunConfig) -> None:
    """Raise InputError naming the differing keys when `old` would not give the same result.

    Keys that have come since `old` was written count there with their defaults, which leave
    everything as it was.
    """
    with suppress(ValidationError):  # keys that have gone since are compared as they are
        old = dump_config(type(config).model_validate(old))
    differences = config_differences(old, dump_config(config))
    if differences:
        raise InputError(
            f"{source}: made with another config ({'; '.join(differences)}); "
            "give this run another name, or delete that folder"
        )


def versions() -> dict[str, str]:
    """Commit, Python and package versions; a commit with local changes ends in `+changes`."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {"commit": _commit(), **found}


def _commit() -> str:
    here = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # an installed wheel carries no repository


class MetricsLog:
    """JSON lines, one an event, appended as training goes.

    On resume the lines after the checkpoint's step are dropped, so that the log of an interrupted
    run holds every step once.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(path) if line["step"] <= resume_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed by close())

    def write(self, **event: Any) -> None:
        """Append one event; it must have a `step`."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def finished_folds(run: Path) -> list[int | str]:
    """Folds of a run folder that were trained to their end, in order."""
    names = [path.parent.name.removeprefix("fold_") for path in run.glob("fold_*/done.json")]
    return sorted(int(n) for n in names if n != "all") + [n for n in names if n == "all"]


def chosen_folds(run: Path, wanted: Sequence[str]) -> list[int | str]:
    """The finished folds of a run folder that are wanted, all of them if none is named.

    Raises:
        InputError: a fold that is not there or not finished, or none at all.
    """
    finished = finished_folds(run)
    folds = [fold for fold in finished if not wanted or str(fold) in wanted]
    if not folds or len(folds) < len(wanted):
        raise InputError(f"{run}: finished folds {finished}, expected {list(wanted) or 'any'}")
    return folds
