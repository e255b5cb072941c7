"""The recipe in parts: a backbone as it is, with Mish, and with Mish and mixup, over several seeds.

    python benchmarks/image_recipe.py --config configs/image/plant_pathology.yaml
    python benchmarks/image_recipe.py --config configs/image/graphemes.yaml --parallel 3

Each run has the same data, folds and steps; they differ in `model.activation`, `mix` and `seed`
alone. Runs go to all GPUs at once, `--parallel` to a GPU: small images leave one half idle. Prints,
for each way, the best validation by the metric that selects checkpoints, mean ± standard deviation
over the seeds, and all other metrics of the last validation. Runs that are finished are not made
again.
"""

import argparse
import os
import queue
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from comp.core.errors import InputError, run_script
from comp.core.files import read_json
from comp.core.predict import fold_folder
from comp.core.runs import read_log
from comp.tasks import load_config

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
PLAIN = ("model.activation=null", "mix={kind: none}")
WAYS = {
    "as it is": PLAIN,
    "Mish": ("model.activation=mish", PLAIN[1]),
    "Mish, mixup": ("model.activation=mish", "mix={kind: mixup, alpha: 0.4}"),
    "mixup": (PLAIN[0], "mix={kind: mixup, alpha: 0.4}"),
}


def train(config, overrides, fold, gpus):
    """One run on the next free GPU, or on the CPU; returns its folder."""
    settings = load_config(config, overrides)
    gpu = gpus.get()
    try:
        command = [sys.executable, TRAIN, "--config", config, *overrides, f"folds=[{fold}]"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
        if gpu:  # runs beside each other, each with threads for all cores, take twice as long
            environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    finally:
        gpus.put(gpu)
    if done.returncode:
        raise InputError(f"{settings.name}: {done.stderr.strip().splitlines()[-1]}")
    return fold_folder(settings.folder, fold)


def result(folder):
    """The metrics of a finished fold."""
    summary = read_json(folder / "done.json")
    last = [e for e in read_log(folder / "log.jsonl") if f"valid/{summary['metric']}" in e][-1]
    found = {f"best {summary['metric']}": summary["best"], "seconds": summary["seconds"]}
    return found | {name: value for name, value in last.items() if name.startswith("valid/")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML of an image run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--fold", type=int, default=0, help="the fold that validates (default: 0)")
    parser.add_argument(
        "--parallel", type=int, default=1, help="runs at once on a GPU (default: 1)"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS)[:3])
    parser.add_argument("overrides", nargs="*", help="dotted settings, as in train.epochs=20")
    args = parser.parse_args()
    name = load_config(args.config, args.overrides).name
    gpus = queue.Queue()
    for gpu in [*range(torch.cuda.device_count())] * args.parallel or [""]:
        gpus.put(str(gpu))
    start, jobs = time.perf_counter(), {}
    with ThreadPoolExecutor(gpus.qsize()) as pool:
        for number, (way, settings) in enumerate(WAYS.items()):
            for seed in range(args.seeds if way in args.ways else 0):
                label = f"name={name}_{number}_{seed}"
                overrides = [*args.overrides, *settings, label, f"seed={seed}"]
                jobs[way, seed] = pool.submit(train, args.config, overrides, args.fold, gpus)
    table = pd.DataFrame({key: result(job.result()) for key, job in jobs.items()}).T
    ways = table.groupby(level=0, sort=False)
    mean, deviation = ways.mean(), ways.std()
    print(f"{len(jobs)} runs in {time.perf_counter() - start:.0f} s; fold {args.fold}")
    for column in table:
        cells = [f"{m:.4f} ± {d:.4f}" for m, d in zip(mean[column], deviation[column])]
        print(f"{column:28}", "   ".join(f"{w}: {c}" for w, c in zip(mean.index, cells)))


if __name__ == "__main__":
    run_script(main)
