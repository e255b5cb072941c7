"""What benchmarks/transfer.sh counts: the samples of an epoch, and what runs cost and had when.

python benchmarks/transfer.py epoch --config configs/fwi/hgnet_b2.yaml train.batch_size=64
python benchmarks/transfer.py times one=runs/a other=runs/b_1+runs/b_2

Runs joined by + count as one, trained one after the other.
"""

import argparse
from pathlib import Path

import pandas as pd

from comp.core.config import read_yaml
from comp.core.errors import InputError, run_script
from comp.core.folds import fold_rows
from comp.core.loading import limit_rows
from comp.core.report import read_runs, table_lines
from comp.fwi.pictures import named_files
from comp.tasks import build_task, load_config


def epoch_samples(config: str, overrides: list[str]) -> int:
    """Samples that the first fold's training sees in an epoch: whole batches."""
    task = build_task(load_config(config, overrides))
    rows = limit_rows(fold_rows(task.folds(), task.config.folds[0])[0], task.config.limit)
    batch = task.config.train.batch_size
    if batch > len(rows):
        raise InputError(f"key 'train.batch_size': got {batch}; takes at most {len(rows)} here")
    return len(rows) // batch * batch


def read_joined(name: str, text: str) -> dict:
    """Samples, seconds in all, best MAE and the curve of runs joined by +."""
    samples, wall, curves, before = 0, 0.0, [], 0.0
    for folder, run in zip(text.split("+"), read_runs(text.split("+"))):
        fold = run.folds[0]
        if not fold.finished or fold.metric != "mae":
            raise InputError(f"{folder}: expected a finished run that validated its MAE")
        samples += fold.steps * read_yaml(Path(folder) / "config.yaml")["train"]["batch_size"]
        wall += fold.seconds
        curves.append(fold.curve.assign(seconds=fold.curve["seconds"] + before))
        before = curves[-1]["seconds"].iloc[-1]
    best, curve = fold.best, pd.concat(curves)
    return {"run": name, "samples": samples, "wall s": wall, "best MAE": best, "curve": curve}


def times_table(runs: list[dict], until: float) -> pd.DataFrame:
    """A row a run: its cost, MAE at best and at its end, and after `until` seconds of training."""
    rows = []
    for run in runs:
        curve = run.pop("curve")
        past, end = curve[curve["seconds"] <= until], curve.iloc[-1]
        ends = {"training s": end["seconds"], "MAE at its end": end["metric"]}
        mae, when = past.iloc[-1][["metric", "seconds"]] if len(past) else (float("nan"),) * 2
        rows.append({**run, **ends, f"MAE by {until:.1f} s": mae, "of second": when})
    table = pd.DataFrame(rows)
    numbers = table.columns.drop(["run", "samples"])
    return table.assign(**{name: table[name].map("{:.1f}".format) for name in numbers})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    epoch = commands.add_parser("epoch", help="samples of an epoch")
    epoch.add_argument("--config", required=True, help="YAML file")
    epoch.add_argument("overrides", nargs="*", help="dotted settings")
    times = commands.add_parser("times", help="finished runs at equal time")
    times.add_argument("runs", nargs="+", metavar="NAME=RUN[+RUN]", help="run folders")
    times.add_argument("--until", nargs="+", default=(), help="the faster of these ends (all)")
    args = parser.parse_args()
    if args.command == "epoch":
        print(epoch_samples(args.config, args.overrides))
        return
    runs = [read_joined(*each) for each in named_files(args.runs).items()]
    those = [run for run in runs if run["run"] in args.until] or runs
    until, fastest = min((run["curve"]["seconds"].iloc[-1], run["run"]) for run in those)
    print("\n".join(table_lines(times_table(runs, until), markdown=True)))
    print(f"\n{fastest} ended after {until:.1f} s of training, validation left out. Longer")
    print("runs stood at their last validation by then, their learning rate not all the way down.")


if __name__ == "__main__":
    run_script(main)
