"""How close deepwave comes to the scheme of the official data, over the ten families.

python benchmarks/solver_agreement.py --maps 4

For each family the relative L2 distance between the records of the two solvers, float32, over the
first 130, 300 and 999 rows (the last one is left out, as everywhere), with deepwave's usual layer
of 20 cells and with one as wide as the official sponge, 120. Means over maps. What is left over all
rows with 120 cells is the official sponge's own reflection, which a better absorber does not make.
Where COMP_SAMPLE_DATA names the folder of real data, real OpenFWI maps follow.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

from comp.core.errors import run_script
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.wave import pml, simulate

ROWS = (130, 300, OFFICIAL.nt - 1)
WIDTHS = (pml.PML_WIDTH, OFFICIAL.pad)


def distances(velocity: torch.Tensor) -> np.ndarray:
    """(widths, rows) relative L2 distance, mean over maps (n, ny, nx)."""
    exact = simulate(velocity, OFFICIAL)
    table = []
    for width in WIDTHS:
        other = pml.simulate(velocity, OFFICIAL, width)
        for rows in ROWS:
            error = (other - exact)[:, :, :rows].flatten(1).norm(dim=1)
            table.append(float((error / exact[:, :, :rows].flatten(1).norm(dim=1)).mean()))
    return np.reshape(table, (len(WIDTHS), len(ROWS)))


def print_row(name: str, table: np.ndarray) -> None:
    """One line of the table."""
    groups = ["  ".join(f"{value:9.2e}" for value in row) for row in table]
    print(f"{name:20}{'    '.join(groups)}", flush=True)


def print_rows(maps: dict[str, np.ndarray], device: str) -> None:
    """The lines of sets of maps (n, ny, nx), then their mean."""
    tables = []
    for name, velocity in maps.items():
        tables.append(distances(torch.from_numpy(velocity).to(device)))
        print_row(name, tables[-1])
    print_row("mean", np.mean(tables, 0))


def real_maps(folder: Path, count: int) -> dict[str, np.ndarray]:
    """At most `count` maps of each real family, spread over its file."""
    maps = {}
    for path in sorted((folder / "openfwi_velocity").glob("*.npz")):
        velocity = np.load(path)["velocity"]
        picked = np.linspace(0, len(velocity) - 1, min(count, len(velocity))).astype(int)
        maps[path.stem] = velocity[picked].astype(np.float32)
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=4, help="maps a family (4)")
    parser.add_argument("--threads", type=int, help="CPU threads (all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    start = time.perf_counter()
    print(f"relative L2 distance, {args.maps} maps a family, {args.device}")
    print(" " * 20 + "    ".join(f"{f'PML of {width} cells, rows':31}" for width in WIDTHS))
    rows = "  ".join(f"{f'0…{rows - 1}':>9}" for rows in ROWS)
    print(" " * 20 + "    ".join([rows] * len(WIDTHS)))
    generated = {family: generate(family, args.maps, seed=0) for family in FAMILIES}
    print_rows(generated, args.device)
    if folder := os.environ.get("COMP_SAMPLE_DATA"):
        print("real maps")
        print_rows(real_maps(Path(folder), args.maps), args.device)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    run_script(main)
