"""Samples a second of the solvers on one NVIDIA GPU, forward and with the gradient.

python benchmarks/solvers_gpu.py
python benchmarks/solvers_gpu.py --batches 1 8 64 --solvers sponge deepwave-20

A sample is one velocity map with all its shots in float32; "with gradient" is the record, a sum of
squares and its gradient in the velocity. deepwave is run on the sponge's domain (120 absorbing
cells) and with its usual 20 cells. Ratios are to deepwave-120 at the same batch. Memory is the peak
that torch allocated.
"""

import argparse
import time
from functools import partial

import torch

from comp.core.errors import InputError, run_script
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.wave import pml, sponge

SOLVERS = {
    "sponge": sponge.simulate,
    "deepwave-120": partial(pml.simulate, pml_width=120),
    "deepwave-20": partial(pml.simulate, pml_width=20),
}


def maps(count: int, device: torch.device) -> torch.Tensor:
    """(count, 70, 70) generated maps of all families."""
    each = -(-count // len(FAMILIES))
    drawn = [torch.from_numpy(generate(family, each, 0)) for family in FAMILIES]
    return torch.stack(drawn, 1).flatten(0, 1)[:count].to(device)


def forward(solve, velocity):
    """The record alone."""
    with torch.no_grad():
        solve(velocity, OFFICIAL)


def with_gradient(solve, velocity):
    """The record and a gradient."""
    velocity = velocity.detach().requires_grad_()
    solve(velocity, OFFICIAL).square().sum().backward()


def rate(work, solve, velocity, least: float) -> tuple[float, float]:
    """Samples a second over at least `least` seconds, and the peak memory in GB."""
    work(solve, velocity[:1])  # compiles
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    done, start = 0, time.perf_counter()
    while True:
        work(solve, velocity)
        torch.cuda.synchronize()
        done += len(velocity)
        seconds = time.perf_counter() - start
        if seconds > least:
            return done / seconds, torch.cuda.max_memory_allocated() / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of a measurement")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise InputError("no CUDA device, this benchmark needs one")
    device = torch.device("cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, float32, 5 shots")
    print(f"{'':14}{'':>6}  {'forward':^24}  {'with gradient':^24}")
    print(f"{'solver':14}{'batch':>6}" + 2 * f"  {'/s':>8}{'ratio':>8}{'GB':>8}")
    table = maps(max(args.batches), device)
    for batch in args.batches:
        found = {name: [] for name in args.solvers}
        for name in args.solvers:
            for work in (forward, with_gradient):
                try:
                    found[name].append(rate(work, SOLVERS[name], table[:batch], args.seconds))
                except (InputError, torch.OutOfMemoryError) as error:
                    print(f"{name}, batch {batch}: {str(error).splitlines()[0]}")
                    found[name].append((float("nan"), float("nan")))
                torch.cuda.empty_cache()
        beside = found.get("deepwave-120", [(float("nan"),)] * 2)
        for name, pairs in found.items():
            cells = [
                f"  {speed:8.1f}{speed / slow[0]:8.2f}{memory:8.2f}"
                for (speed, memory), slow in zip(pairs, beside)
            ]
            print(f"{name:14}{batch:6d}" + "".join(cells), flush=True)


if __name__ == "__main__":
    run_script(main)
