"""Inside a notebook: find what is mounted, unpack a bundle, see to the space, run the scripts."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from comp.core.errors import InputError
from comp.core.layout import Layout, check_header
from comp.core.manifest import Manifest, check_files

# No bar more often than that: a notebook keeps every line. No look-ups: there is no network.
_ENVIRONMENT = {"TQDM_MININTERVAL": "30", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
_SHOWN = 2000  # characters of one line


def folders(root: Path) -> Iterator[Path]:
    """`root` and every folder below it, the shallow ones first, for mounts nest differently.

    A folder is listed only after all of its level have been yielded, so that a search which ends
    early has not listed the largest.
    """
    level = [root]
    while level:
        yield from level
        inner = (entry for folder in level for entry in os.scandir(folder))
        level = sorted(Path(entry) for entry in inner if entry.is_dir())


def find_sample(root: Path, layout: Layout) -> Path:
    """The sample submission below `root`: known by its name and its header.

    Raises:
        InputError: there is none.
    """
    seen = []
    for folder in folders(root):
        for path in sorted(folder.glob("*sample*.csv")):
            try:
                check_header(path, layout, allow_spaces=True)
                return path
            except InputError as error:
                seen.append(str(error))
    what = f"; {seen[0]}" if seen else ""
    header = ",".join(layout.header[:2])
    raise InputError(f"{root}: no sample submission with the header {header}…{what}")


def find_test(roots: Iterable[Path], files: Sequence[str], name: str) -> Path:
    """The folder in which one of `files` lies, those of the test sample `name`.

    Raises:
        InputError: there is none.
    """
    roots = list(roots)
    for root in roots:
        for folder in folders(root):
            if any(True for file in files for _ in matches(folder, file)):
                return folder
    raise InputError(f"{roots[-1]}: no folder has test sample {name!r}, expected {files[0]}")


def matches(folder: Path, file: str) -> Iterator[Path]:
    """What there is of a path in which `*` stands for anything."""
    if "*" in file:
        yield from sorted(folder.glob(file))
    elif (folder / file).is_file():  # not by a pattern, which would list a large folder
        yield folder / file


def unpack(bundle: Path, manifest: Manifest, out: Path) -> None:
    """Check every file of a bundle, and link those that have a place to it, below `out`."""
    check_files(bundle, manifest)
    for name, entry in manifest.files.items():
        if entry.place is None:
            continue
        place = out / entry.place
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to((bundle / name).resolve())


def same_ids(test: Path, found: Sequence[str], sample: Path, expected: Sequence[str]) -> None:
    """Raise InputError unless a test folder has the ids of the sample submission and no others."""
    for ids, others, have, lack in (
        (expected, found, sample, test),
        (found, expected, test, sample),
    ):
        missing = np.setdiff1d(np.asarray(ids, str), np.asarray(others, str)).tolist()
        if missing:
            raise InputError(
                f"{lack}: {len(missing)} of {len(ids)} ids of {have} missing, first {missing[0]!r}"
            )


def check_space(needs: dict[Path, int], what: str) -> None:
    """Raise InputError unless each folder has so many bytes left; those of one disk add up."""
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs.items():
        disk = folder.stat().st_dev
        first, before = disks.get(disk, (folder, 0))
        disks[disk] = first, before + size
    for folder, size in disks.values():
        free = shutil.disk_usage(folder).free
        if free < size:
            raise InputError(
                f"{folder}: {free / 1e9:.2f} GB free, expected {size / 1e9:.2f} GB for {what}"
            )


def launcher(devices: int) -> list[str]:
    """The command that starts a script on so many GPUs, or on the CPU."""
    if devices < 2:
        return [sys.executable]
    several = ["--multi_gpu", "--num_processes", str(devices), "--num_machines", "1"]
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *several, *plain]


def run(command: Sequence[str | Path], folder: Path) -> None:
    """Run a command in `folder` and show what it says; raises InputError with its own error."""
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    with subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, **_ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        said, last = "", ""
        for line in process.stdout:
            print(line[:_SHOWN], end="", flush=True)
            said = line if line.startswith("error: ") and not said else said
            last = line if line.strip() else last
    if process.returncode:
        what = (said or last).strip().removeprefix("error: ")
        raise InputError(what or f"exit code {process.returncode}")
