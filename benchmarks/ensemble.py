"""Seconds and memory of combining full-size prediction files, against plain NumPy in the same run.

python benchmarks/ensemble.py
python benchmarks/ensemble.py --models 5 --samples 20000 --dtype float32

Each way runs in a fresh process, whose peak resident memory is printed (Linux). The files hold
generated maps of the ten families with errors of their own; they take 6.5 GB as float16 and 13 GB
as float32. Plain NumPy is np.stack of all the files and then np.mean, np.average, np.median or a
sort with cumulated weights, on the first samples, its time scaled to all.
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

from comp.core.ensemble import METHODS, combine
from comp.core.files import new_npy
from comp.core.predictions import load_predictions, write_ids
from comp.core.recipe import Recipe
from comp.fwi.blend import FwiBlender
from comp.fwi.families import fit_router, map_features
from comp.fwi.submission import LAYOUT
from comp.fwi.velocity import FAMILIES, generate

TEST_FILES = 65_818  # of the competition
_OF_FAMILY = 100  # different maps; they are repeated, with other errors
BY_FAMILY = "weighted-median by family, rounded"


def make_files(folder: Path, models: int, samples: int, dtype: str) -> list[Path]:
    """Prediction files of maps with Laplace errors, m/s."""
    maps = np.concatenate([generate(name, _OF_FAMILY, 0) for name in FAMILIES])
    table = pd.DataFrame({"id": [f"{i:010x}" for i in range(samples)]})
    paths = []
    for model in range(models):
        rng = np.random.default_rng(model)
        noisy = (maps + rng.laplace(0, 10 + 5 * model, maps.shape)).clip(*LAYOUT.clip_range)
        path = folder / f"{model}.npy"
        with new_npy(path, (samples, *LAYOUT.value_shape), dtype) as array:
            for start in range(0, samples, len(noisy)):
                part = array[start : start + len(noisy)]
                part[:] = noisy[: len(part)]
        write_ids(path, table)
        paths.append(path)
    return paths


def make_recipe(models: int) -> Recipe:
    """Weights of ten families, and a router for them."""
    rng = np.random.default_rng(0)
    maps = np.concatenate([generate(name, _OF_FAMILY, 1) for name in FAMILIES])
    router = fit_router(map_features(maps), np.repeat(FAMILIES, _OF_FAMILY))
    weights = {name: rng.dirichlet(np.ones(models)).tolist() for name in ("all", *FAMILIES)}
    settings = {"post": "round", "router": router.to_dict()}
    return Recipe("fwi", "weighted-median", models, weights, settings)


def ours(paths: list[Path], out: Path, method: str, weights: np.ndarray) -> None:
    if method == BY_FAMILY:
        FwiBlender().apply(make_recipe(len(paths)), paths, out)
    else:
        combine(paths, out, method, weights)


def plain(paths: list[Path], out: Path, method: str, weights: np.ndarray, samples: int) -> None:
    """All in memory at once, of the first samples."""
    stack = np.stack([load_predictions(path).values[:samples] for path in paths])
    stack = stack.astype(np.float32)
    if method == "weighted-median":
        order = stack.argsort(axis=0)
        half = (weights[order].cumsum(axis=0) >= 0.5).argmax(axis=0)[None]
        result = np.take_along_axis(np.take_along_axis(stack, order, 0), half, 0)[0]
    elif method == "weighted":
        result = np.average(stack, axis=0, weights=weights)
    else:
        result = (np.mean if method == "mean" else np.median)(stack, axis=0)
    np.save(out, result.astype(np.float32))


def timed(step, *args):
    """(seconds, of all cores together, peak resident bytes) of `step` in the present process."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        start, busy = time.perf_counter(), time.process_time()
        step(*args)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    status = Path("/proc/self/status").read_text()
    return seconds, busy, 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure(step, *args):
    """`timed` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(timed, step, *args).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=TEST_FILES, help="default: %(default)s")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument(
        "--plain-samples", type=int, default=2000, help="NumPy combines so many (default: 2000)"
    )
    parser.add_argument("--folder", help="where the files go (default: temporary files')")
    args = parser.parse_args()
    some = min(args.samples, args.plain_samples)
    weights = np.arange(1, args.models + 1) / np.arange(1, args.models + 1).sum()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        paths = make_files(folder, args.models, args.samples, args.dtype)
        size = sum(path.stat().st_size for path in paths) / 1e9
        print(f"{args.models} files of {args.samples} maps, {args.dtype}, {size:.1f} GB together")
        rows = {}
        for method in (*METHODS, BY_FAMILY):
            seconds, busy, peak = measure(ours, paths, folder / "out.npy", method, weights)
            rows[method] = {"seconds": seconds, "CPU s": busy, "peak MiB": peak / 2**20}
            if method != BY_FAMILY:
                plainly = paths, folder / "plain.npy", method, weights, some
                scaled, _, most = measure(plain, *plainly)
                scaled *= args.samples / some
                rows[method] |= {"plain NumPy s": scaled, "its peak MiB": most / 2**20}
                rows[method]["ratio"] = scaled / seconds
        table = pd.DataFrame.from_dict(rows, orient="index")
        print(table.to_string(float_format="%.1f", na_rep="-"))
        print(f"(NumPy: measured on {some} samples; the time is scaled to {args.samples})")


if __name__ == "__main__":
    main()
