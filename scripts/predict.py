"""Predict with a run's trained folds: a test folder, or the run's own out-of-fold rows.

accelerate launch scripts/predict.py --run runs/fwi_demo --test data/fwi_demo_test/test
accelerate launch scripts/predict.py --run runs/fwi_demo --oof
"""

import argparse
from pathlib import Path

from comp.core.errors import InputError, run_script
from comp.core.predict import new_accelerator, predict_folder, predict_oof
from comp.core.runs import finished_folds
from comp.tasks import build_task, load_config


def main() -> None:
    """Parse, find the finished folds, predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, type=Path, help="run folder, runs/<name>")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--test", "--records", help="test folder; writes <run>/fold_*/predictions/test.npy"
    )
    what.add_argument(
        "--oof", action="store_true", help="each fold's own validation rows; writes .../valid.npy"
    )
    parser.add_argument("--folds", nargs="*", help="folds to use (default: all that are finished)")
    parser.add_argument("--tta", action="store_true", help="average over the task's views")
    parser.add_argument("--batch-size", type=int, default=64, help="samples a pass (default: 64)")
    args = parser.parse_args()
    config = load_config(args.run / "config.yaml")
    task, accelerator = build_task(config), new_accelerator(config)
    finished = finished_folds(args.run)
    folds = finished if args.folds is None else [f for f in finished if str(f) in args.folds]
    if not folds or (args.folds and len(folds) < len(args.folds)):
        raise InputError(f"{args.run}: finished folds {finished}, expected {args.folds or 'any'}")
    how = {"batch_size": args.batch_size, "tta": args.tta}
    if args.test:
        outs = predict_folder(task, args.run, folds, args.test, accelerator, **how)
    else:
        outs = [predict_oof(task, args.run, f, accelerator, **how) for f in folds if f != "all"]
    for out in outs:
        accelerator.print(f"wrote {out}")
    accelerator.end_training()


if __name__ == "__main__":
    run_script(main)
