"""Predict with a run's trained folds: a test folder, or the run's own out-of-fold rows.

accelerate launch scripts/predict.py --run runs/fwi_demo --test data/fwi_demo_test/test
accelerate launch scripts/predict.py --run runs/fwi_demo --oof
accelerate launch scripts/predict.py --run runs/mine --test test --tta --out predictions --half \\
    --hours 8.5 --sample sample_submission.csv loader.workers=4 train.precision=fp16
"""

import argparse
import sys
from pathlib import Path

from comp.core.budget import Budget
from comp.core.errors import run_script
from comp.core.predict import new_accelerator, predict_folder, predict_oof
from comp.core.runs import chosen_folds
from comp.core.signals import Stopped
from comp.tasks import build_task, load_run


def main() -> None:
    """Parse, find the finished folds, predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, what = parser.add_argument, parser.add_mutually_exclusive_group(required=True)
    add("--run", required=True, type=Path, help="run folder, runs/<name>")
    what.add_argument("--test", "--records", help="test folder; writes .../predictions/test.npy")
    what.add_argument("--oof", action="store_true", help="validation rows; writes .../valid.npy")
    add("--out", type=Path, help="folder for fold_<k>.npy (default: <run>/fold_<k>/predictions)")
    add("--folds", nargs="*", default=[], help="folds to use (default: all that are finished)")
    add("--tta", action="store_true", help="average over the task's views")
    add("--batch-size", type=int, default=64, help="samples a pass (default: 64)")
    add("--half", action="store_true", help="store two bytes a value")
    add("--hours", type=float, help="leave out the views, then the networks, that take longer")
    add("--sample", help="sample submission; sets the test ids, there or not, and their order")
    add("--limit", type=int, help="at most so many samples: a quick look")
    add("overrides", nargs="*", help="dotted settings, as in loader.workers=4 train.precision=fp16")
    args = parser.parse_args()
    budget = Budget(args.hours)
    wanted = [fold for fold in args.folds if "=" not in fold]  # --folds takes in what follows it
    config = load_run(args.run, [*args.overrides, *(x for x in args.folds if "=" in x)])
    task, accelerator = build_task(config), new_accelerator(config)
    folds = chosen_folds(args.run, wanted)
    how = {"batch_size": args.batch_size, "tta": args.tta, "half": args.half, "budget": budget}
    how |= {"out": args.out, "limit": args.limit}
    given = args.run, folds, args.test, accelerator
    try:
        outs = predict_folder(task, *given, sample=args.sample, **how) if args.test else []
        for fold in () if args.test else [fold for fold in folds if fold != "all"]:
            outs.append(predict_oof(task, args.run, fold, accelerator, **how))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    accelerator.print("\n".join(f"wrote {out}" for out in outs))
    accelerator.end_training()


if __name__ == "__main__":
    run_script(main)
