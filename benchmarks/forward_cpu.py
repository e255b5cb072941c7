"""Seconds a sample of the forward model on the CPU, against NumPy and against deepwave.

python benchmarks/forward_cpu.py --maps 4 --repeats 3

A sample is one velocity map with all its shots. The NumPy time is extrapolated from its first
steps; its steps all cost the same. deepwave solves another scheme (a narrower grid with a PML), so
its row says what the exact records cost beside the usual tool, not who does the same work faster.
"""

import argparse
import time
from dataclasses import replace

import deepwave
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


def run_deepwave(velocity: torch.Tensor, survey: Survey) -> torch.Tensor:
    """Receiver amplitudes (n·shots, receivers, nt) with deepwave's default PML, one step a sample.

    `max_vel` is pinned to that of the maps, so that no inner time step depends on the batch.
    """
    n = len(velocity)
    sources = torch.tensor([[(survey.source_row, c)] for c in survey.source_columns])
    receivers = torch.tensor([(survey.receiver_row, c) for c in survey.receiver_columns])
    wavelet = torch.from_numpy(survey.wavelet()).to(velocity.dtype)
    return deepwave.scalar(
        velocity.repeat_interleave(survey.shots, 0),
        survey.dx,
        survey.dt,
        source_amplitudes=wavelet.repeat(n * survey.shots, 1, 1),
        source_locations=sources.repeat(n, 1, 1),
        receiver_locations=receivers.repeat(n * survey.shots, 1, 1),
        accuracy=4,
        pml_freq=survey.peak_frequency,
        max_vel=float(velocity.max()),
    ).receiver_amplitudes


def compare(velocity: torch.Tensor, survey: Survey, repeats: int, numpy_steps: int) -> None:
    """Print the table of one survey."""
    n = len(velocity)
    few = replace(survey, nt=numpy_steps)
    steps = survey.nt / few.nt
    rows = {
        "simulate, float32": best_of(repeats, simulate, velocity, survey) / n,
        "simulate, float64": best_of(repeats, simulate, velocity.double(), survey) / n,
        "NumPy transcription, float64, one thread": steps
        * best_of(repeats, reference.simulate, velocity[0].numpy(), few),
        "deepwave.scalar, float32": best_of(repeats, run_deepwave, velocity, survey) / n,
    }
    print(f"\n{survey.shots} shots, {survey.nt} steps")
    for name, seconds in rows.items():
        ratio = seconds / rows["simulate, float32"]
        print(f"  {name:40} {seconds:8.3f} s a sample {ratio:8.1f} ×")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=4, help="velocity maps a call")
    parser.add_argument("--repeats", type=int, default=5, help="calls; the fastest counts")
    parser.add_argument("--numpy-steps", type=int, default=20, help="time steps of the NumPy run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    # Below 4243 m/s, above which deepwave would take two inner steps a sample.
    depth = torch.linspace(1500, 4000, OFFICIAL.ny)
    velocity = depth[:, None].expand(arguments.maps, *OFFICIAL.map_shape).contiguous()
    first = best_of(1, simulate, velocity[:1], replace(OFFICIAL, nt=1))
    print(f"first call (compiles, or loads what an earlier run compiled): {first:.1f} s")
    print(f"{arguments.maps} maps a call, {arguments.threads} threads, best of {arguments.repeats}")
    for survey in (OFFICIAL, OFFICIAL.with_six_shots()):
        compare(velocity, survey, arguments.repeats, arguments.numpy_steps)


if __name__ == "__main__":
    main()
