"""What a loss on re-simulated records does to held-out maps, and what it costs a step.

python benchmarks/physics_training.py                       on a GPU
python benchmarks/physics_training.py --count 24 --pad 30 --pretrain 8 --finetune 1   on a CPU

Simulates generated maps, trains a UNet without its first skip connection on their labels (the
pre-training of arXiv 2212.02338), and goes on from its weights, with the same samples and steps, in
several ways: labels alone; labels and the misfit of re-simulated records, through either solver and
with fewer shots or samples; records alone, also low-passed. For each the table gives, on held-out
maps at the end: the MAE, the relative L2 distance of their records ("misfit", through the scheme
that made the data), and the median time of a training step. A smaller --pad makes a cheaper survey
of its own, in which the data are made and re-simulated alike.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comp.core.config import parse_config
from comp.core.errors import run_script
from comp.core.folds import write_folds
from comp.core.predict import fold_folder
from comp.core.runs import read_log
from comp.core.trainer import fit
from comp.fwi.config import FwiConfig
from comp.fwi.describe import describe_folder
from comp.fwi.maps import generated_maps
from comp.fwi.simulated import write_training
from comp.fwi.survey import OFFICIAL
from comp.fwi.task import FwiTask

MODEL = {
    "encoder": "tu-resnet10t",
    "decoder": (128, 64, 32, 16, 16),
    "first_skip": False,
    "input_size": (64, 64),
    "gain": 10.0,
}


def variants(weight: float) -> dict[str, dict[str, Any]]:
    """How training goes on, by name: the settings of `physics`."""
    both, alone = {"weight": weight}, {"weight": 1.0, "label_weight": 0.0}
    return {
        "labels": {},
        "labels + sponge": {**both, "solver": "sponge"},
        "labels + deepwave": {**both, "solver": "deepwave"},
        "labels + sponge, 2 shots": {**both, "solver": "sponge", "shots": 2},
        "labels + sponge, 1/4 of the samples": {**both, "solver": "sponge", "samples": 0.25},
        "records alone, sponge": {**alone, "solver": "sponge"},
        "records alone, sponge, 2 shots": {**alone, "solver": "sponge", "shots": 2},
        "records alone, deepwave, 2 shots": {**alone, "solver": "deepwave", "shots": 2},
        "records alone, sponge, 2 shots, 8 Hz": {**alone, "shots": 2, "lowpass": 8.0},
    }


def train(name: str, place: Path, physics: dict[str, Any], **values: Any) -> dict[str, float]:
    """Fit fold 0; returns its last validation and `ms`, the median time of a step."""
    settings = values.pop("train")
    config = parse_config(
        FwiConfig,
        {
            "task": "fwi",
            "name": name,
            "root": str(place / "runs"),
            "data": {"folder": str(place / "data"), "folds": str(place / "data/folds.csv")},
            "model": MODEL,
            "physics": physics,
            "train": {"ema": 0.98, "eval_every": settings["epochs"], "log_every": 2, **settings},
            **values,
        },
        name,
    )
    fit(FwiTask(config), 0, config.folder)
    log = read_log(fold_folder(config.folder, 0) / "log.jsonl")
    rates = [event["samples_per_s"] for event in log if "samples_per_s" in event]
    last = next(event for event in reversed(log) if "valid/mae" in event)
    return {
        "ms": 1000 * settings["batch_size"] / float(np.median(rates[1:] or rates)),
        "mae": last["valid/mae"],
        "misfit": last["valid/misfit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--families", nargs="+", default=["FlatVel_A", "CurveVel_A", "FlatFault_A", "Style_A"])
    add("--count", type=int, default=400, help="maps of each family, a quarter held out (400)")
    add("--pad", type=int, default=OFFICIAL.pad, help=f"sponge cells on a side ({OFFICIAL.pad})")
    add("--pretrain", type=int, default=60, help="epochs on labels (60)")
    add("--finetune", type=int, default=4, help="epochs of each way on (4)")
    add("--batch-size", type=int, default=16)
    add("--weight", type=float, default=0.1, help="of the misfit beside the labels (0.1)")
    add("--lr", type=float, default=1e-4, help="peak learning rate of the ways on (1e-4)")
    add("--judged", type=int, default=64, help="held-out maps whose misfit is reported (64)")
    add("--only", nargs="+", metavar="WORD", help="the ways whose name holds one of these")
    add("--out", type=Path, help="folder for data and runs, kept (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(args, args.out or Path(temporary))


def compare(args: argparse.Namespace, place: Path) -> None:
    """Make the data, pre-train, go on in every way, print the table."""
    start = time.perf_counter()
    survey = replace(OFFICIAL, pad=args.pad)
    write_training(place / "data", generated_maps(args.families, args.count, 100, 0), survey)
    description = describe_folder(place / "data").grouped_by(None)
    write_folds(place / "data/folds.csv", np.arange(len(description.ids)) % 4, description, {})
    made = time.perf_counter() - start
    judged = {"valid_samples": args.judged}
    common = {"loader": {"workers": 2 if torch.cuda.is_available() else 0}}
    common |= {"augment": {"mirror": 0.0}, "schedule": {"warmup": 0.1}}
    found = {
        "pre-trained on labels": train(
            "pretrain",
            place,
            judged,
            optim={"lr": 2e-3, "weight_decay": 0.02},
            train={"epochs": args.pretrain, "batch_size": args.batch_size},
            **common,
        )
    }
    ways = variants(args.weight)
    if args.only:
        ways = {name: how for name, how in ways.items() if any(w in name for w in args.only)}
    for number, (name, physics) in enumerate(ways.items()):
        settings = {"epochs": args.finetune, "batch_size": args.batch_size}
        settings["start_from"] = str(place / "runs/pretrain")
        found[name] = train(
            f"way_{number}",
            place,
            judged | physics,
            optim={"lr": args.lr, "weight_decay": 0.02},
            train=settings,
            **common,
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"\n{len(description.ids)} samples, pad {args.pad}, batch {args.batch_size}, {device}")
    print(f"{'':38}{'ms/step':>9}{'MAE m/s':>10}{'misfit':>9}")
    for name, row in found.items():
        print(f"{name:38}{row['ms']:9.1f}{row['mae']:10.2f}{row['misfit']:9.4f}")
    print(f"data made in {made:.0f} s, all in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    run_script(main)
