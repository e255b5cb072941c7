"""How fast training samples come off the disk, against what public notebooks do and a bare memcpy.

python benchmarks/loader.py --samples 2000

Makes random records in a temporary folder, as float16 shards and as float32 files of one record
each. Both are read in random order, batch after batch; printed are the samples per second of one
pass over all, the best of the repeats. "cold": after the kernel was asked to drop the files from
its cache (posix_fadvise; this is advice, and a virtual machine's disk has caches of its own).
"memcpy": the bytes of the float16 records copied from memory to memory in the main process.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from comp.core.errors import run_script
from comp.core.files import save_npy
from comp.fwi.shard_writer import Shard, write_shards
from comp.fwi.shots import ShotDataset, ShotStore
from comp.fwi.survey import OFFICIAL

ROWS = 100  # samples in a shard
OURS, NOTEBOOK = "float16 memmap", "np.load float32"


class OneFileEach(Dataset):
    """What public notebooks do: np.load of a float32 file for each sample, default collate."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        return {
            "shots": np.load(self.folder / f"shots_{row}.npy"),
            "velocity": np.load(self.folder / f"velocity_{row}.npy"),
        }


def make_data(folder: Path, samples: int) -> None:
    """The same random records in both forms."""
    random = np.random.default_rng(0)

    def chunks(number: int, rows: int):
        for row in range(rows):
            shots = random.standard_normal((1, *OFFICIAL.record_shape), np.float32)
            velocity = random.uniform(1500, 4500, (1, *OFFICIAL.map_shape)).astype(np.float32)
            save_npy(folder / "files" / f"shots_{number * ROWS + row}.npy", shots[0])
            save_npy(folder / "files" / f"velocity_{number * ROWS + row}.npy", velocity)
            yield shots, velocity

    shards = []
    for number, start in enumerate(range(0, samples, ROWS)):
        rows, name = min(ROWS, samples - start), f"random_{number:03d}"
        about = (name, "random", name, "file", rows, {}, (name, name))
        shards.append(Shard(*about, lambda n=number, r=rows: chunks(n, r)))
    write_shards(folder / "prepared", OFFICIAL, shards)


def drop_cache(folder: Path) -> None:
    """Ask the kernel to forget every file under `folder`."""
    os.sync()
    for path in folder.rglob("*.npy"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def load_rate(dataset: Dataset, workers: int, batch_size: int, seed: int) -> float:
    """Samples per second over a pass in random order, without the start of the workers."""
    loader = DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        num_workers=workers,
        collate_fn=getattr(dataset, "collate", None),
        generator=torch.Generator().manual_seed(seed),
    )
    batches = iter(loader)
    for _ in range(2 * workers + bool(workers)):  # what is ahead of the first batch that counts
        next(batches)
    start = time.perf_counter()
    samples = sum(len(batch["shots"]) for batch in batches)
    return samples / (time.perf_counter() - start)


def memcpy_rate(samples: int, batch_size: int) -> float:
    """Samples per second when float16 records are copied from memory into batches."""
    source = np.ones((samples, *OFFICIAL.record_shape), np.float16)
    order = np.random.default_rng(0).permutation(samples)
    start = time.perf_counter()
    for first in range(0, samples, batch_size):
        rows = order[first : first + batch_size]
        batch = torch.empty((len(rows), *OFFICIAL.record_shape), dtype=torch.float16).numpy()
        for out, row in zip(batch, rows):
            out[:] = source[row]
    return samples / (time.perf_counter() - start)


def main() -> None:
    """Make the data, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1500, help="2.1 MB of disk each (1500)")
    parser.add_argument("--batch-size", type=int, default=32, help="samples in a batch (32)")
    parser.add_argument("--repeats", type=int, default=3, help="passes, the best counts (3)")
    parser.add_argument("--folder", help="where to make the temporary folder (the system's)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        make_data(folder, args.samples)
        memcpy = max(memcpy_rate(args.samples, args.batch_size) for _ in range(args.repeats))
        cases = [(state, workers) for state in ("cold", "warm") for workers in (0, 1, 2)]
        rates = {(label, *case): 0.0 for label in (OURS, NOTEBOOK) for case in cases}
        for seed in range(args.repeats):
            for label, state, workers in rates:
                if label == OURS:  # opened anew, as pages that are mapped stay in the cache
                    dataset = ShotDataset(ShotStore(folder / "prepared"))
                else:
                    dataset = OneFileEach(folder / "files", args.samples)
                if state == "cold":
                    drop_cache(folder)
                rate = load_rate(dataset, workers, args.batch_size, seed)
                rates[label, state, workers] = max(rate, rates[label, state, workers])
    print(f"\n{args.samples} samples in batches of {args.batch_size}: samples/s, best of several")
    print(f"cache workers {OURS:>16} {NOTEBOOK:>16}   ratio {'memcpy float16':>15}   ratio")
    for case in cases:
        state, workers = case
        ours, notebook = rates[OURS, *case], rates[NOTEBOOK, *case]
        print(
            f"{state:>5} {workers:>7} {ours:16.0f} {notebook:16.0f} {ours / notebook:6.2f}x "
            f"{memcpy:15.0f} {ours / memcpy:6.2f}x"
        )


if __name__ == "__main__":
    run_script(main)
