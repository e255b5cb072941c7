"""Compare generated velocity maps with published OpenFWI maps by simple statistics.

    COMP_SAMPLE_DATA=samples python benchmarks/velocity_statistics.py --picture maps.png

Reads the maps in $COMP_SAMPLE_DATA/openfwi_velocity/*.npz (key `velocity`, (n, 70, 70), m/s).
Prints a table, one row a statistic, with the ratio generated / published, and then a plain line for
each statistic that differs by more than the tolerance and by more than three standard errors.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import wasserstein_distance

from comp.core.errors import run_script
from comp.fwi.plots import maps_grid
from comp.fwi.velocity import generate
from comp.fwi.velocity_faults import block_faulted, stack_faulted

STEP = 20  # m/s from row to row; less is no interface
PARTS = 10  # a statistic's standard error comes from its spread over this many parts of the maps


def published_pairs(seed: int) -> dict[str, tuple[str, str, Callable[[int], np.ndarray]]]:
    """Published file -> the family it is compared with, a remark, and count -> generated maps."""
    rng = np.random.default_rng(seed)
    return {
        "FlatVel_A": ("FlatVel_A", "", partial(generate, "FlatVel_A", seed=seed)),
        "CurveVel_A": ("CurveVel_A", "", partial(generate, "CurveVel_A", seed=seed)),
        "FlatFault_A": (
            "FlatFault_A",
            "the published sample has only maps of 4 layers, so only such are generated",
            partial(block_faulted, rng, curved=False, layers=(4,)),
        ),
        "CurveFault_A": (
            "CurveFault_B",
            "the published sample, though named CurveFault_A, holds maps of twelve sharp-edged "
            "layers torn by several faults: two stacks of 6, compared with CurveFault_B",
            partial(stack_faulted, rng, curved=True, layers=(6,)),
        ),
    }


def interfaces(maps: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean number of layers a column, and the velocity jump (m/s) at every interface.

    Consecutive rows that change by more than STEP in the same direction are one interface, so
    blurred ones count once.
    """
    change = np.diff(maps.astype(np.float64), axis=1).transpose(0, 2, 1).reshape(-1)
    direction = np.where(np.abs(change) > STEP, np.sign(change), 0)
    direction = direction.reshape(-1, maps.shape[1] - 1)
    starts = direction != 0
    starts[:, 1:] &= direction[:, 1:] != direction[:, :-1]
    run = np.cumsum(starts) - 1
    inside = direction.reshape(-1) != 0
    jumps = np.bincount(run[inside], weights=change[inside])
    return 1 + starts.sum() / len(starts), jumps


def statistics(maps: np.ndarray) -> dict[str, float]:
    """Statistics of a set of maps (n, ny, nx); shares in %, velocities in m/s."""
    layers, jumps = interfaces(maps)
    table = {"layers a column": layers, "mean |jump| at an interface": np.abs(jumps).mean()}
    for q in (10, 50, 90):
        table[f"jump, {q} % quantile"] = float(np.quantile(jumps, q / 100))
    table["jumps to a lower velocity, %"] = 100 * float((jumps < 0).mean())
    edges = np.linspace(1500, 4500, 7)
    for low, high, n in zip(edges, edges[1:], np.histogram(maps, edges)[0]):
        table[f"velocity {low:.0f} to {high:.0f}, %"] = 100 * n / maps.size
    profile = maps.mean((0, 2))
    table["top row, mean velocity"] = profile[0]
    table["growth with depth, a row"] = (profile[-1] - profile[0]) / (len(profile) - 1)
    table["mean |change| a column"] = np.abs(np.diff(maps, axis=2)).mean()
    table["MAE of the mean map"] = np.abs(maps - maps.mean(0)).mean()
    return {name: float(value) for name, value in table.items()}


def standard_errors(maps: np.ndarray) -> dict[str, float]:
    """Standard error of each statistic over the set, from its spread over PARTS parts."""
    parts = [statistics(part) for part in np.array_split(maps, PARTS)]
    return {n: np.std([p[n] for p in parts], ddof=1) / PARTS**0.5 for n in parts[0]}


def compare(published: np.ndarray, generated: np.ndarray, tolerance: float) -> None:
    """Print the table of one pair and the lines for what differs notably."""
    left, right = statistics(published), statistics(generated)
    noise = np.hypot(*(list(standard_errors(m).values()) for m in (published, generated)))
    print(f"{'':32}{'published':>10}{'generated':>11}{'ratio':>7}")
    notable = []
    for name, error in zip(left, noise):
        a, b = left[name], right[name]
        ratio = f"{b / a:.2f}" if a else "-"
        print(f"{name:32}{a:10.1f}{b:11.1f}{ratio:>7}")
        if abs(b - a) > max(tolerance * abs(a), 3 * error, 0.5):
            notable.append(f"differs: {name}: published {a:.1f}, generated {b:.1f}")
    distance = wasserstein_distance(published[:, ::3, ::3].ravel(), generated[:, ::3, ::3].ravel())
    print(f"{'Wasserstein distance, m/s':32}{distance:21.1f}")
    print("\n".join(notable) or "nothing differs notably", end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="generated maps a family")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated maps")
    parser.add_argument("--tolerance", type=float, default=0.1, help="relative, for a plain line")
    parser.add_argument("--picture", type=Path, help="PNG to write: published, generated, in rows")
    args = parser.parse_args()
    if "COMP_SAMPLE_DATA" not in os.environ:
        print("skipped: COMP_SAMPLE_DATA is not set; it names the folder of published maps")
        return
    folder = Path(os.environ["COMP_SAMPLE_DATA"]) / "openfwi_velocity"
    rows = {}
    for name, (family, remark, draw) in published_pairs(args.seed).items():
        published = np.load(folder / f"{name}.npz")["velocity"].astype(np.float32)
        generated = draw(args.count)
        print(f"{family}: {len(published)} published, {len(generated)} generated maps")
        print(f"note: {remark}" if remark else "", end="\n" if remark else "")
        compare(published, generated, args.tolerance)
        rows[f"{name}, published"] = published[:8]
        rows[f"{family}, generated"] = generated[:8]
    if args.picture:
        others = ("FlatVel_B", "CurveVel_B", "FlatFault_B", "CurveFault_A", "Style_A", "Style_B")
        rows |= {f"{f}, generated": generate(f, 8, args.seed) for f in others}
        maps_grid(args.picture, rows)
        print(f"picture: {args.picture}")


if __name__ == "__main__":
    run_script(main)
