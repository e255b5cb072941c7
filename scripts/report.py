"""Tables of finished and running runs, from their folders: no figure typed by hand.

python scripts/report.py runs/*
python scripts/report.py runs/a runs/b --markdown --curves curves.png
python scripts/report.py runs/a --predictions a=runs/a/test.npy b=runs/b/test.npy --truth truth.npy

Means over finished folds, ± their standard deviation; an unfinished fold is marked. --predictions
adds the error of prediction files of waveform inversion by family, as the competition counts it.
"""

import argparse

from comp.core.errors import InputError, run_script
from comp.core.report import draw_curves, read_runs, report_lines, table_lines


def main() -> None:
    """Parse, read, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="*", help="run folders")
    add("--markdown", action="store_true", help="tables in markdown")
    add("--curves", help="PNG to draw learning curves into")
    add("--against", choices=("seconds", "step"), default="seconds", help="of --curves")
    add("--predictions", nargs="+", metavar="NAME=FILE", help="prediction files .npy")
    add("--truth", help="of --predictions: prediction file of the true maps")
    args = parser.parse_args()
    if not args.runs and not args.predictions:
        raise InputError("runs: got none, expected run folders, as in runs/*")
    if (args.predictions is None) != (args.truth is None):
        raise InputError("--predictions and --truth: got one, expected both")
    runs = read_runs(args.runs)
    for line in report_lines(runs, args.markdown) if runs else ():
        print(line)
    if args.predictions:
        # Imported on demand: runs of images need none of the wave solver's packages.
        from comp.fwi.pictures import error_table

        for line in table_lines(error_table(args.truth, args.predictions), args.markdown):
            print(line)
    if args.curves:
        draw_curves(args.curves, runs, args.against)
        print(f"wrote {args.curves}")


if __name__ == "__main__":
    run_script(main)
