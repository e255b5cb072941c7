"""Train the folds that a config names; run again, it goes on where it stood.

accelerate launch scripts/train.py --config configs/fwi/demo.yaml train.epochs=5
accelerate launch scripts/train.py --config configs/image/demo.yaml
"""

import argparse
import sys

from comp.core.errors import run_script
from comp.core.folds import fold_rows
from comp.core.predict import fold_folder, new_accelerator
from comp.core.runs import open_run
from comp.core.signals import Stopped
from comp.core.trainer import fit
from comp.tasks import build_task, load_config


def main() -> None:
    """Parse, load the config, fit fold after fold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", required=True, help="YAML file; runs/<name>/config.yaml repeats a run"
    )
    parser.add_argument(
        "--limit", type=int, help="use at most so many samples a split: a quick look"
    )
    parser.add_argument("overrides", nargs="*", help="dotted settings, as in optim.lr=3e-4")
    args = parser.parse_args()
    limit = [] if args.limit is None else [f"limit={args.limit}"]
    config = load_config(args.config, [*args.overrides, *limit])
    task = build_task(config)
    for fold in config.folds:  # before a run folder is made, and before hours are spent
        fold_rows(task.folds(), fold)
    accelerator = new_accelerator(config)
    with accelerator.main_process_first():
        run = open_run(config)
    for fold in config.folds:
        done = fold_folder(run, fold) / "done.json"
        if done.exists():
            accelerator.print(f"fold {fold}: finished, skipped; see {done} (name=… trains it anew)")
            continue
        try:
            summary = fit(task, fold, run)
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(128 + stopped.signum)
        accelerator.print(
            f"fold {fold}: best {summary['metric']} {summary['best']} at step "
            f"{summary['best_step']} of {summary['steps']}, {summary['seconds']} s"
        )
    accelerator.end_training()


if __name__ == "__main__":
    run_script(main)
