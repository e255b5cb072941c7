"""Seconds a sample of the solvers on the CPU, forward and with the gradient.

python benchmarks/solvers_cpu.py --maps 2 --repeats 3

A sample is one velocity map with all its shots; "+ gradient" is the record, a sum of squares and
its gradient in the velocity. Ratios are to the exact scheme's record in float32. The NumPy time is
extrapolated from its first steps; its steps all cost the same. deepwave solves another scheme (20
cells of a PML instead of 120 of a sponge), so its rows say what the exact records cost beside the
usual tool, not who does the same work faster. Memory is the most that the process ever held, after
the rows so far.
"""

import argparse
import resource
import time
from dataclasses import replace

import torch

from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave import reference, simulate


def best_of(repeats: int, function, *arguments) -> float:
    """Shortest wall time of several calls, s."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def with_gradient(velocity: torch.Tensor, survey: Survey, solver: str = "sponge"):
    """The record and a gradient."""
    velocity = velocity.detach().requires_grad_()
    simulate(velocity, survey, solver).square().sum().backward()


def compare(velocity: torch.Tensor, survey: Survey, repeats: int, numpy_steps: int) -> None:
    """Print the table of one survey."""
    few = replace(survey, nt=numpy_steps)
    double, one = velocity.double(), velocity[0].numpy()
    rows = {
        "sponge, float32": (simulate, velocity, survey),
        "sponge, float32, + gradient": (with_gradient, velocity, survey),
        "deepwave, float32": (simulate, velocity, survey, "deepwave"),
        "deepwave, float32, + gradient": (with_gradient, velocity, survey, "deepwave"),
        "sponge, float64": (simulate, double, survey),
        "sponge, float64, + gradient": (with_gradient, double, survey),
        "NumPy transcription, float64, one thread": (reference.simulate, one, few),
    }
    print(f"\n{survey.shots} shots, {survey.nt} steps")
    first = None
    for name, (work, *arguments) in rows.items():
        each = survey.nt / few.nt if work is reference.simulate else 1 / len(velocity)
        seconds = each * best_of(repeats, work, *arguments)
        first = first or seconds
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"  {name:40} {seconds:8.3f} s {seconds / first:8.1f} × {memory:6.1f} GB")


def main() -> None:
    """Parse, print a table for five shots and one for six."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=2, help="velocity maps a call (default: 2)")
    parser.add_argument("--repeats", type=int, default=3, help="calls; the fastest counts")
    parser.add_argument("--numpy-steps", type=int, default=20, help="time steps of the NumPy run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    depth = torch.linspace(1500, 4500, OFFICIAL.ny)
    velocity = depth[:, None].expand(arguments.maps, *OFFICIAL.map_shape).contiguous()
    first = best_of(1, with_gradient, velocity[:1], replace(OFFICIAL, nt=1))
    print(f"first call (compiles, or loads what an earlier run compiled): {first:.1f} s")
    print(f"{arguments.maps} maps a call, {arguments.threads} threads, best of {arguments.repeats}")
    for survey in (OFFICIAL, OFFICIAL.with_six_shots()):
        compare(velocity, survey, arguments.repeats, arguments.numpy_steps)


if __name__ == "__main__":
    main()
