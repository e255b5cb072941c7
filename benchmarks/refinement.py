"""What per-sample inversion does to a prediction file: the network alone, and each prior.

    python benchmarks/refinement.py --predictions p.npy --truth truth.npy --records test
    python benchmarks/refinement.py … --priors auto none --newton auto off --limit 20
    python benchmarks/refinement.py … --processes 4                    to each GPU
    python benchmarks/refinement.py --generated 12 --blur 3            from maps blurred by 3 cells

The truth is in prediction-file form, as scripts/simulate.py --as-test writes it; its table's column
`family` splits the rows. Blurred maps may stand for predictions, and generated ones for the truth.
Prints a line for each family and way: MAE in m/s over all columns, mean and worst relative misfit,
and seconds of one GPU (all are used) or of the CPU for a sample. These are those from when all
processes have started until each is done, as one that ends before the others would have more to do
with more samples. Without --records, records of the truth are simulated by the exact scheme; --half
rounds them to scaled float16, as prepared folders hold them.
"""

import argparse
import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

from comp.core.errors import InputError, run_script
from comp.core.files import save_npy
from comp.core.predictions import load_predictions, save_predictions
from comp.core.share import Share
from comp.fwi.guesses import Newton
from comp.fwi.metrics import sample_mae
from comp.fwi.priors import PRIORS
from comp.fwi.refine_settings import Precision, Settings
from comp.fwi.refining import refine_file
from comp.fwi.shards import AMPLITUDE_SCALE
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.wave import Solver, simulate

_SEED = 7  # of generated maps


def generated(families, count, path):
    """Write a prediction file of `count` maps of each family."""
    maps = np.concatenate([generate(family, count, _SEED) for family in families])
    names = [(f"{family}_{i:03d}", family) for family in families for i in range(count)]
    save_predictions(path, pd.DataFrame(names, columns=["id", "family"]), maps)


def choose(predictions, truth, limit):
    """(table with family, starts, truth maps) of at most `limit` samples a family."""
    given, known = load_predictions(predictions), load_predictions(truth)
    rows = known.rows_of(given.ids)
    known.check_shape(given)
    table = pd.DataFrame({"id": given.ids, "family": "all"})
    if "family" in known.table:
        table["family"] = known.table["family"].to_numpy()[rows]
    chosen = table.groupby("family").head(limit).index.to_numpy()
    return table.iloc[chosen], given.values[chosen], known.values[rows[chosen]]


def write_records(folder, ids, maps, half, device):
    """Exact records of `maps` as a test folder."""
    for name, one in zip(ids, maps):
        record = simulate(torch.tensor(one[None], dtype=torch.float32, device=device))[0].cpu()
        if half:
            record = (record * AMPLITUDE_SCALE).half().float() / AMPLITUDE_SCALE
        save_npy(folder / f"{name}.npy", record.numpy())


def refine(how, samples, processes):
    """Refine a prediction file by so many processes a GPU; seconds of one GPU for a sample."""
    gpus = min(torch.cuda.device_count(), samples)
    if not gpus:
        start = time.perf_counter()
        refine_file(*how)
        return (time.perf_counter() - start) / samples
    spawn, count = torch.multiprocessing.get_context("spawn"), min(gpus * processes, samples)
    ready, spent = spawn.Barrier(count), spawn.SimpleQueue()
    torch.multiprocessing.spawn(refine_share, (how, count, ready, spent), count)
    seconds = dict(spent.get() for _ in range(count))
    counted = range(count > 1, count)  # the first waits for the others
    rows = sum(len(range(i, samples, count)) for i in counted)
    return sum(seconds[i] for i in counted) / rows * gpus / count


def refine_share(index, how, count, ready, spent):
    """What one of the processes does once all have started."""
    os.environ.update(RANK=str(index), LOCAL_RANK=str(index))
    os.environ.update(WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    share = Share.of_launcher()
    torch.set_num_threads(max(1, os.cpu_count() // count))
    torch.zeros(1, device=share.device)
    ready.wait()
    start = time.perf_counter()
    refine_file(*how, share)
    spent.put((index, time.perf_counter() - start))


def summary(before, after, result, seconds):
    """One row, with seconds for a sample; a family may end with no error at all."""
    columns = {
        "samples": len(after),
        "MAE before": before.mean(),
        "after": after.mean(),
        "ratio": before.mean() / after.mean() if after.any() else np.inf,
        "median": np.median(after),
        "worse": int((after > before).sum()),
        "misfit before": result["start_misfit"].mean(),
        "misfit after": result["misfit"].mean(),
        "worst": result["misfit"].max(),
        "iterations": result["iterations"].mean(),
        "s a sample": seconds,
        "priors": " ".join(sorted(set(result["prior"]))),
    }
    return pd.Series(columns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--predictions", help="prediction file to start from")
    start.add_argument("--blur", type=float, help="σ of a Gaussian, cells: blurred truth instead")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--truth", help="prediction-form file of the true maps")
    truth.add_argument("--generated", type=int, help="maps of each family, with --blur")
    add("--records", help="folder of records (default: simulated from the truth)")
    add("--half", action="store_true", help="simulated records rounded to scaled float16")
    add("--priors", nargs="+", choices=["auto", *PRIORS], default=["auto"])
    add("--newton", nargs="+", choices=get_args(Newton), default=["auto"])
    add("--solvers", nargs="+", choices=get_args(Solver), default=["sponge"])
    add("--precisions", nargs="+", choices=get_args(Precision), default=["float32"])
    add("--evaluations", type=int, default=Settings.evaluations)
    add("--batch", type=int, default=Settings.batch)
    add("--families", nargs="+", help="of the truth's (default: all)")
    add("--limit", type=int, help="samples of a family, at most")
    add("--processes", type=int, default=1, help="that share a GPU (1)")
    add("--no-curved", action="store_true", help="do not look for layers between bent interfaces")
    add("--keep", type=Path, help="folder to leave the refined prediction files in")
    args = parser.parse_args()
    if args.records and args.half:
        raise InputError("--half: only for records simulated here, without --records")
    if args.processes < 1:
        raise InputError(f"--processes: got {args.processes}, expected 1 or more")
    if args.blur is not None and not 0 < args.blur < np.inf:
        raise InputError(f"--blur: got {args.blur}, expected more than 0 cells")
    if args.generated is not None and args.blur is None:
        raise InputError("--generated: with --blur only, no prediction file has its maps")
    with tempfile.TemporaryDirectory() as name:
        compare(args, Path(name))


def compare(args, folder):
    """Print the table for each way; `folder` is for files in passing."""
    if args.generated is not None:
        args.truth = folder / "truth.npy"
        generated(args.families or FAMILIES, args.generated, args.truth)
    given = args.predictions or args.truth
    limit = args.limit or len(load_predictions(given))
    table, starts, truth = choose(given, args.truth, limit)
    if args.blur:
        starts = gaussian_filter(np.asarray(starts, np.float32), args.blur, axes=(1, 2))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    of_family = table.reset_index(drop=True).groupby("family").groups
    if unknown := [family for family in args.families or () if family not in of_family]:
        known = ", ".join(of_family)
        raise InputError(f"--families: {unknown[0]!r} is none of {args.truth}'s ({known})")
    where = f"on {torch.cuda.device_count()} GPUs, {args.processes} processes each"
    print(where if device == "cuda" else "on the CPU")
    records = Path(args.records) if args.records else folder / "records"
    if not args.records:
        write_records(records, table["id"], truth, args.half, device)
    for way in product(args.priors, args.newton, args.solvers, args.precisions):
        prior, newton, solver, precision = way
        settings = Settings(
            evaluations=args.evaluations,
            batch=args.batch,
            solver=solver,
            precision=precision,
            newton=newton,
            curved=not args.no_curved,
        )
        found = {}
        for family in args.families or of_family:
            rows = of_family[family]
            given = folder / f"{family}.npy"
            save_predictions(given, table.iloc[rows], np.asarray(starts)[rows])
            out = (args.keep or folder) / "-".join([family, *way, "refined.npy"])
            how = given, records, out, settings, prior
            seconds = refine(how, len(rows), args.processes)
            result = pd.read_csv(out.with_suffix(".refined.csv"))
            before = sample_mae(starts[rows], truth[rows])
            after = sample_mae(load_predictions(out).values, truth[rows])
            found[family] = summary(before, after, result, seconds)
            print(f"\nprior {prior}, newton {newton}, {solver}, {precision}")
            lines = pd.DataFrame(found).T.infer_objects()
            print(lines.to_string(float_format="%.4g"), flush=True)


if __name__ == "__main__":
    run_script(main)
