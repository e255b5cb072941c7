"""What per-sample inversion does to a prediction file: the network alone, and each prior.

    python benchmarks/refinement.py --predictions p.npy --truth truth.npy --records test
    python benchmarks/refinement.py … --priors auto none --solvers sponge deepwave --limit 20

The truth is in prediction-file form, as scripts/simulate.py --as-test writes it; its table's column
`family` splits the rows. Prints a line for each family and way: MAE in m/s over all columns, mean
and worst relative misfit, and what it cost. Without --records, records of the truth are simulated
by the exact scheme; --half rounds them to scaled float16, as prepared folders hold them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from comp.core.errors import InputError, run_script
from comp.core.files import save_npy
from comp.core.predictions import load_predictions, save_predictions
from comp.fwi.metrics import sample_mae
from comp.fwi.priors import PRIORS
from comp.fwi.refine import Settings
from comp.fwi.refine_work import Share
from comp.fwi.refining import refine_file
from comp.fwi.shards import AMPLITUDE_SCALE
from comp.fwi.wave import simulate


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


def summary(table, before, after, result, seconds):
    """One row for each family."""
    rows = result.assign(before=before, after=after, family=table["family"].to_numpy())
    named = {
        "samples": ("after", "size"),
        "MAE before": ("before", "mean"),
        "after": ("after", "mean"),
        "median": ("after", "median"),
        "misfit before": ("start_misfit", "mean"),
        "misfit after": ("misfit", "mean"),
        "worst": ("misfit", "max"),
        "iterations": ("iterations", "mean"),
        "evaluations": ("evaluations", "mean"),
    }
    found = rows.groupby("family").agg(**named)
    found.insert(3, "ratio", found["MAE before"] / found["after"])
    found["s a sample"] = seconds / len(rows)
    kinds = rows.groupby("family")["prior"].agg(lambda x: " ".join(sorted(set(x))))
    return found.assign(priors=kinds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--predictions", required=True, help="prediction file to start from")
    add("--truth", required=True, help="prediction-form file of the true maps")
    add("--records", help="folder of records (default: simulated from the truth)")
    add("--half", action="store_true", help="simulated records rounded to scaled float16")
    add("--priors", nargs="+", choices=["auto", *PRIORS], default=["auto", "none"])
    add("--solvers", nargs="+", default=["sponge"], help="sponge, deepwave")
    add("--precisions", nargs="+", default=["float32"], help="float32, float64")
    add("--evaluations", type=int, default=Settings.evaluations)
    add("--batch", type=int, default=Settings.batch)
    add("--limit", type=int, help="samples of a family, at most")
    args = parser.parse_args()
    if args.records and args.half:
        raise InputError("--half: only for records simulated here, without --records")
    limit = args.limit or len(load_predictions(args.predictions))
    table, starts, truth = choose(args.predictions, args.truth, limit)
    before = sample_mae(starts, truth)
    share = Share(device=Share.of_launcher().device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_predictions(folder / "starts.npy", table, np.asarray(starts))
        records = Path(args.records) if args.records else folder / "records"
        if not args.records:
            write_records(records, table["id"], truth, args.half, share.device)
        for prior in args.priors:
            for solver in args.solvers:
                for precision in args.precisions:
                    settings = Settings(
                        evaluations=args.evaluations,
                        batch=args.batch,
                        solver=solver,
                        precision=precision,
                    )
                    out = folder / "refined.npy"
                    start = time.perf_counter()
                    refine_file(folder / "starts.npy", records, out, settings, prior, share)
                    seconds = time.perf_counter() - start
                    result = pd.read_csv(out.with_suffix(".refined.csv"))
                    after = sample_mae(load_predictions(out).values, truth)
                    print(f"\nprior {prior}, {solver}, {precision}, on {share.device}")
                    found = summary(table, before, after, result, seconds)
                    print(found.to_string(float_format="%.4g"), flush=True)


if __name__ == "__main__":
    run_script(main)
