"""Inversion of one genuine competition record from a smooth start: does the forward model hold?

COMP_SAMPLE_DATA=… python benchmarks/genuine_record.py --evaluations 1000 --out submissions

No velocity is known for the competition's test records, so what counts is the misfit: how much of
the record, to the last of its 999 good rows, a velocity map explains under the solver's stencil,
sponge, wrap and wavelet. Starts are velocities that grow linearly with depth. Prints the relative
L2 misfit against evaluations, and that of windows of the final record (‖modelled − observed‖ over
‖observed‖ in the window); with --out, writes the map, its curve and the gathers.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from comp.core.errors import InputError, run_script
from comp.fwi.plots import velocity_panels
from comp.fwi.plots_gathers import residual_panels
from comp.fwi.plots_statistics import misfit_curves
from comp.fwi.priors import PRIORS
from comp.fwi.refine import Refiner, Sample, Settings
from comp.fwi.survey import OFFICIAL
from comp.fwi.wave import simulate

STARTS = {"1500 to 4500": (1500, 4500), "2000 to 3500": (2000, 3500)}
WINDOWS = ((0, 130), (130, 300), (300, 500), (500, 700), (700, 900), (900, 999), (0, 999))
SHOWN = (1, 10, 30, 100, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000)


def linear(low: float, high: float) -> np.ndarray:
    """(70, 70) velocity that grows with depth from `low` to `high`."""
    return np.repeat(np.linspace(low, high, OFFICIAL.ny)[:, None], OFFICIAL.nx, 1)


def windows(found: np.ndarray, record: np.ndarray) -> str:
    """Relative misfit in each of WINDOWS."""
    parts = []
    for a, b in WINDOWS:
        left = np.linalg.norm((found - record)[:, a:b]) / np.linalg.norm(record[:, a:b])
        parts.append(f"{a}–{b - 1}: {left:.1e}")
    return "  ".join(parts)


def main() -> None:
    """Invert, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", help="<oid>.npy (default: the one in COMP_SAMPLE_DATA)")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=["layered", "none"])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    parser.add_argument("--out", type=Path, help="folder for genuine_*.png and the map")
    args = parser.parse_args()
    path = args.record or os.environ.get("COMP_SAMPLE_DATA")
    if not path:
        raise InputError("COMP_SAMPLE_DATA is not set and no --record given")
    if not args.record:
        path = Path(path) / "kaggle_waveform_test" / "000039dca2.npy"
    record = np.load(path, allow_pickle=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tries = [(prior, start) for prior in args.priors for start in args.starts]
    settings = Settings(
        evaluations=args.evaluations,
        tolerance=1e-6,
        stall=0.0,
        batch=len(tries),
        precision=args.precision,
    )
    samples = [Sample(i, linear(*STARTS[s]), record, p) for i, (p, s) in enumerate(tries)]
    found = [r for ended in Refiner(settings, OFFICIAL, device).refine(samples) for r in ended]
    found.sort(key=lambda one: one.row)
    for one, (prior, start) in zip(found, tries):
        print(f"prior {prior}, start {start}: {one.iterations} iterations, {one.stop}")
        shown = [k for k in SHOWN if k <= len(one.misfit)]
        print("  " + "  ".join(f"{k}: {one.misfit[k - 1]:.1e}" for k in shown))
        velocity = torch.from_numpy(one.velocity)[None].to(device, torch.float64)
        print("  " + windows(simulate(velocity)[0].cpu().numpy(), record))
    best = min(found, key=lambda one: one.misfit[-1])
    print(f"best: {tries[best.row]}, misfit {best.misfit[-1]:.2e} over rows 0 to 998")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        np.save(args.out / "genuine_velocity.npy", best.velocity)
        curves = np.full((len(found), args.evaluations), np.nan)
        for one in found:
            curves[one.row, : len(one.misfit)] = one.misfit
        names = np.array([f"{p}, {s} m/s" for p, s in tries])
        misfit_curves(args.out / "genuine_misfit.png", curves, names)
        modelled = simulate(torch.from_numpy(best.velocity)[None].to(device))[0].cpu().numpy()
        residual_panels(args.out / "genuine_gathers.png", record, modelled)
        stages = {"start": samples[best.row].start[None], "inverted": best.velocity[None]}
        velocity_panels(args.out / "genuine_map.png", [Path(path).stem], stages)


if __name__ == "__main__":
    run_script(main)
