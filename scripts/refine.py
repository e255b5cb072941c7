"""Fit every predicted velocity map to its own record: per-sample waveform inversion.

accelerate launch scripts/refine.py --predictions runs/fwi_demo/test.npy \\
    --records data/fwi_demo_test/test --out runs/fwi_demo/refined.npy

Writes a prediction file of the same form, with a table of what became of each sample
(<out>.refined.csv) and the misfit curves (<out>.misfit.npy) beside it. A killed run goes on.
"""

import argparse
import sys
from pathlib import Path

from comp.core.errors import run_script
from comp.core.share import Share
from comp.core.signals import Stopped
from comp.core.threads import share_cores
from comp.fwi.priors import PRIORS
from comp.fwi.refine import Settings
from comp.fwi.refining import refine_file


def main() -> None:
    """Parse, refine, say how it went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--predictions", required=True, help="prediction file, <stem>.npy with <stem>.ids.csv")
    add("--records", required=True, help="folder of <id>.npy, or a prepared folder")
    add("--out", required=True, type=Path, help="prediction file to write")
    add("--prior", choices=["auto", *PRIORS], default="auto", help="default: chosen by sample")
    for name, text in {
        "evaluations": "simulations with gradient of a sample, at most",
        "tolerance": "relative misfit at which a sample is done",
        "batch": "samples that advance together",
        "solver": "sponge or deepwave",
        "precision": "float32 or float64",
        "newton": "Gauss-Newton, of the whole Hessian, first: on, off or auto, on GPUs",
    }.items():
        value = getattr(Settings, name)
        add(f"--{name}", type=type(value), default=value, help=f"{text} (default: {value})")
    add("--curved", action=argparse.BooleanOptionalAction, default=True, help="bent layers")
    add("--hours", type=float, default=float("inf"), help="after which no sample is begun")
    args = vars(parser.parse_args())
    files = [args.pop(name) for name in ("predictions", "records", "out")]
    prior, hours, share = args.pop("prior"), args.pop("hours"), Share.of_launcher()
    if share.device == "cpu":
        share_cores(share.count)
    try:
        left = refine_file(*files, Settings(**args), prior, share, hours=hours)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    if share.index == 0:
        print(f"wrote {files[2]}" + (f", {left} samples to go: run it again" if left else ""))


if __name__ == "__main__":
    run_script(main)
