"""Seconds and memory to cut folds at the size of iMet 2019, and the package's on the same labels.

python benchmarks/stratify.py
python benchmarks/stratify.py --rows 20000
python benchmarks/stratify.py --without-package

One core is enough. The labels are drawn at random: 1,103 of them, 3.5 on a row, the i-th 1/i as
frequent. Each cut runs in a fresh process, whose peak resident memory is printed (Linux). At full
size the package takes minutes; the folds of both are compared row by row.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from comp.core import stratify

ROWS, LABELS, PER_ROW = 109_237, 1_103, 3.5
FOLDS, VALID = 5, 0.1
CHUNK = 4096


def make_labels(rows: int) -> np.ndarray:
    """(rows, LABELS) bool."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, LABELS + 1)
    share = np.minimum(PER_ROW * share / share.sum(), 0.9)
    labels = np.empty((rows, LABELS), bool)
    for start in range(0, rows, CHUNK):
        part = labels[start : start + CHUNK]
        part[:] = rng.random(part.shape, dtype=np.float32) < share
    return labels


def measure(rows: int, split: bool, max_recounts: float, per_group: int):
    """(parts, seconds, peak MiB, who cut) of one cut; `max_recounts` as in comp.core.stratify."""
    stratify.MAX_RECOUNTS = max_recounts
    labels = make_labels(rows)
    groups = np.array([f"{i // per_group:06d}" for i in range(rows)])
    start = time.perf_counter()
    if split:
        parts = stratify.make_split(labels, groups, VALID, seed=0)
    else:
        parts = stratify.make_folds(labels, groups, FOLDS, seed=0)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return parts, seconds, peak, stratify.cut_by(labels, groups)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS, help="default: %(default)s")
    parser.add_argument("--without-package", action="store_true", help="time the fast cut alone")
    args = parser.parse_args()

    def run(what, *how):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            parts, seconds, peak, who = pool.submit(measure, args.rows, *how).result()
        print(f"{what:24} {seconds:7.1f} s  peak {peak:5.0f} MiB  {who}", flush=True)
        return parts

    print(f"{args.rows} rows, {LABELS} labels")
    for what, split in ((f"{FOLDS} folds", False), (f"split, {VALID:.0%} to validate", True)):
        fast = run(what, split, 0, 1)
        if not args.without_package:
            package = run(what, split, float("inf"), 1)
            print(f"{what:24} {(fast != package).sum()} rows differ")
    run(f"{FOLDS} folds, groups of 5", False, 0, 5)
    run(f"{FOLDS} folds, groups of 2", False, 0, 2)


if __name__ == "__main__":
    main()
