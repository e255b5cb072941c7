"""Memory that training needs as its data grow beyond the machine's memory, against loading them.

python benchmarks/training_memory.py --sizes 1 8 32

Makes prepared folders of sparse files: they read as zeros and take no room on the disk, but every
page read has to be held in memory like any other. For each size a fresh process trains a small
network for one epoch in random order, and the peaks of its memory are printed, loader workers
included:

    Anon    what the processes hold for themselves, and can run out of
    Shmem   batches on their way from the workers
    File    mapped pages of files, libraries too; the kernel takes them back when it needs to

Memory that processes share is counted once (the proportional set size of /proc/*/smaps_rollup).
The alternative is the same training on arrays read with np.load; it is left out where they would
not fit into half of the memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from comp.core.errors import run_script
from comp.fwi.shards import AMPLITUDE_SCALE, FORMAT_VERSION, ArrayEntry, ShardEntry, shard_file
from comp.fwi.shots import ShotDataset, ShotStore
from comp.fwi.survey import OFFICIAL

ROWS = 500
KINDS = ("Pss_Anon", "Pss_Shmem", "Pss_File")
WORKERS = 2


def sparse_npy(path: Path, shape: tuple[int, ...], dtype: str) -> ArrayEntry:
    """An array of zeros that takes no disk space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        size = file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize
        file.truncate(size)
    return ArrayEntry(dtype, shape, size, sha256="")


def make_folder(folder: Path, gigabytes: float) -> None:
    """A prepared folder with about so many GB of records."""
    entries = []
    for number in range(
        max(1, round(gigabytes * 1e9 / ROWS / (2 * np.prod(OFFICIAL.record_shape))))
    ):
        name = f"zeros_{number:04d}"
        shots, velocity = (
            shard_file(folder, name, f"{kind}.npy") for kind in ("shots", "velocity")
        )
        arrays = {
            "shots": sparse_npy(shots, (ROWS, *OFFICIAL.record_shape), "float16"),
            "velocity": sparse_npy(velocity, (ROWS, *OFFICIAL.map_shape), "float32"),
        }
        entries.append(ShardEntry(name, "zeros", name, "file", ROWS, AMPLITUDE_SCALE, **arrays))
    index = {"version": FORMAT_VERSION, "survey": asdict(OFFICIAL), "rows": ROWS * len(entries)}
    shards = [asdict(entry) for entry in entries]
    (folder / "index.json").write_text(json.dumps({**index, "shards": shards}))


class Loaded(Dataset):
    """The alternative: everything in memory."""

    def __init__(self, folder: Path) -> None:
        names = [shard.name for shard in ShotStore(folder).shards]
        self.shots = [np.load(shard_file(folder, name, "shots.npy")) for name in names]
        self.velocity = [np.load(shard_file(folder, name, "velocity.npy")) for name in names]

    def __len__(self) -> int:
        return ROWS * len(self.shots)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        shard, position = divmod(row, ROWS)
        velocity = self.velocity[shard][position][None]
        return {"shots": self.shots[shard][position], "velocity": velocity}


class PeakMemory(threading.Thread):
    """Watches the memory of this process and of its children, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = dict.fromkeys(KINDS, 0.0)

    def run(self) -> None:
        while True:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            total = dict.fromkeys(KINDS, 0.0)
            for process in ["self", *children]:
                try:
                    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                except OSError:  # it has just ended
                    continue
                for line in lines:
                    kind, _, value = line.partition(":")
                    if kind in total:
                        total[kind] += int(value.split()[0]) / 1024
            self.peak = {kind: max(self.peak[kind], total[kind]) for kind in KINDS}
            time.sleep(0.05)


def train(dataset: Dataset, batch_size: int) -> None:
    """One epoch of a small network on every 14th time step of the records."""
    torch.set_num_threads(1)
    collate = getattr(dataset, "collate", None)
    loader = DataLoader(dataset, batch_size, True, num_workers=WORKERS, collate_fn=collate)
    network = torch.nn.Conv2d(OFFICIAL.shots, 1, 3, padding=1)
    optimizer = torch.optim.AdamW(network.parameters())
    for batch in loader:
        shots = batch["shots"][:, :, : 14 * OFFICIAL.ny : 14].float() / AMPLITUDE_SCALE
        loss = (network(shots) - batch["velocity"]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measure(folder: Path, loaded: bool, batch_size: int) -> None:
    """Train on `folder` and print the peaks as JSON; runs in a process of its own."""
    watch = PeakMemory()
    watch.start()
    start = time.perf_counter()
    dataset = Loaded(folder) if loaded else ShotDataset(ShotStore(folder))
    train(dataset, batch_size)
    result = {"samples": len(dataset), "seconds": time.perf_counter() - start, **watch.peak}
    print(json.dumps(result))


def main() -> None:
    """Measure every size in a process of its own, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 8, 32], help="GB (1 8 32)")
    parser.add_argument("--batch-size", type=int, default=32, help="samples in a batch (32)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--loaded", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.loaded, args.batch_size)
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"memory {memory:.0f} GB, {WORKERS} workers, batches of {args.batch_size}; peaks in MB")
    print(
        f"{'data GB':>8} {'samples':>8} {'s':>6}", *(f"{k:>9}" for k in KINDS), "np.load Pss_Anon"
    )
    for gigabytes in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            make_folder(Path(name), gigabytes)
            command = [sys.executable, __file__, "--batch-size", str(args.batch_size)]
            command += ["--measure", name]
            ours = json.loads(subprocess.check_output(command))
            note = "would not fit"
            if gigabytes < memory / 2:
                loaded = json.loads(subprocess.check_output([*command, "--loaded"]))[KINDS[0]]
                note = f"{loaded:.0f}, {loaded / ours[KINDS[0]]:.1f}x"
        peaks = [f"{ours[kind]:9.0f}" for kind in KINDS]
        print(f"{gigabytes:8g} {ours['samples']:8} {ours['seconds']:6.0f}", *peaks, f"{note:>17}")


if __name__ == "__main__":
    run_script(main)
