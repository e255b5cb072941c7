"""Seconds, memory and bytes of a full-size submission CSV, against pandas' to_csv.

python benchmarks/submission.py
python benchmarks/submission.py --samples 5000 --decimals

Each step runs in a fresh process, whose peak resident memory is printed (Linux). The maps are
uniform noise, the slowest case, as every value has all its digits.
"""

import argparse
import contextlib
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.files import new_npy
from comp.core.predictions import load_predictions, write_ids
from comp.core.submission import check_submission, read_ids, write_submission
from comp.fwi.metrics import competition_mae, scored
from comp.fwi.submission import LAYOUT

TEST_FILES = 65_818  # of the competition; 4,607,260 rows


def make_predictions(path: Path, samples: int) -> None:
    """Write a prediction file of uniform noise within the range of the truth, m/s."""
    rng = np.random.default_rng(0)
    low, high = LAYOUT.clip_range
    with new_npy(path, (samples, *LAYOUT.value_shape), np.float32) as array:
        for start in range(0, samples, 1000):
            part = array[start : start + 1000]
            part[:] = low + (high - low) * rng.random(part.shape, dtype=np.float32)
    write_ids(path, pd.DataFrame({"id": [f"{i:010x}" for i in range(samples)]}))


def write(predictions: Path, out: Path, decimals: int | None = None) -> None:
    write_submission(out, load_predictions(predictions), LAYOUT, decimals=decimals)


def check(csv: Path) -> None:
    """What `submit.py --check` does with a sample submission: read its ids, compare every row."""
    check_submission(csv, LAYOUT, read_ids(csv, LAYOUT))


def write_pandas(predictions: Path, out: Path, samples: int) -> None:
    """The same CSV of the first samples from one DataFrame."""
    loaded = load_predictions(predictions)
    values = scored(loaded.values[:samples]).reshape(-1, *LAYOUT.row_shape)
    frame = pd.DataFrame(values.round(LAYOUT.decimals), columns=LAYOUT.header[1:])
    ids = [f"{oid}_y_{k}" for oid in loaded.ids[:samples] for k in range(LAYOUT.rows_per_id)]
    frame.insert(0, LAYOUT.header[0], ids)
    frame.to_csv(out, index=False)


def timed(step, *args):
    """(seconds, peak resident bytes) of `step` in the present process."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        start = time.perf_counter()
        step(*args)
        seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    return seconds, 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure(step, *args):
    """`timed` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(timed, step, *args).result()


def compare_decimals(folder: Path, samples: int) -> None:
    """Size, time and change of the score for several numbers of decimals.

    The score is taken of maps in whole m/s, as layered families have them, and of predictions with
    Laplace errors of 10 m/s; and of predictions that hit the truth exactly but for rounding, where
    the change is greatest: that of truth which is not in whole m/s.
    """
    rng = np.random.default_rng(1)
    path, out = folder / "decimals.npy", folder / "decimals.csv"
    make_predictions(path, samples)
    fine = load_predictions(path).values[:500]
    whole = np.rint(fine)
    near = (whole + rng.laplace(0, 10, whole.shape)).astype(np.float32)
    rows, scale = [], TEST_FILES / samples
    for decimals in (0, 1, 2, 3):
        seconds, _ = measure(write, path, out, decimals)
        change = competition_mae(near.round(decimals), whole) - competition_mae(near, whole)
        worst = competition_mae(fine.round(decimals), fine)
        size = out.stat().st_size * scale / 1e9
        rows.append([decimals, size, seconds * scale, change, worst])
    columns = ["decimals", "GB", "seconds", "MAE change, 10 m/s error", "MAE change, no error"]
    print(f"\nfrom {samples} samples, size and time scaled to {TEST_FILES}; MAE in m/s")
    print(pd.DataFrame(rows, columns=columns).to_string(index=False, float_format="%.5f"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=TEST_FILES, help="default: %(default)s")
    parser.add_argument(
        "--pandas-samples", type=int, default=2000, help="pandas writes so many (default: 2000)"
    )
    parser.add_argument("--decimals", action="store_true", help="compare numbers of decimals too")
    parser.add_argument("--folder", help="where the files go, 3 GB (default: temporary files')")
    args = parser.parse_args()
    pandas_samples = min(args.samples, args.pandas_samples)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        path, csv = folder / "predictions.npy", folder / "ours.csv"
        make_predictions(path, args.samples)
        ours, ours_peak = measure(write, path, csv)
        checked, check_peak = measure(check, csv)
        pandas, pandas_peak = measure(write_pandas, path, folder / "pandas.csv", pandas_samples)
        rows, scale = args.samples * LAYOUT.rows_per_id, args.samples / pandas_samples
        print(f"{args.samples} samples, {rows} rows, {csv.stat().st_size / 1e9:.2f} GB")
        print(f"write_submission   {ours:7.1f} s  peak {ours_peak / 2**20:6.0f} MiB")
        print(f"read ids and check {checked:7.1f} s  peak {check_peak / 2**20:6.0f} MiB")
        print(f"pandas to_csv      {pandas * scale:7.1f} s  peak {pandas_peak / 2**20:6.0f} MiB")
        print(f"(pandas: measured on {pandas_samples} samples, {pandas:.1f} s; the time is scaled)")
        print(f"write_submission is {pandas * scale / ours:.1f} times as fast as pandas to_csv")
        if args.decimals:
            compare_decimals(folder, min(args.samples, 3000))


if __name__ == "__main__":
    main()
