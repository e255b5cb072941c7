"""Samples a second of the solvers on one NVIDIA GPU, forward and with the gradient.

python benchmarks/solvers_gpu.py
python benchmarks/solvers_gpu.py --batches 1 8 64 --solvers sponge deepwave-20

A sample is one velocity map with all its shots in float32; "with gradient" is the record, a sum of
squares and its gradient in the velocity.

sponge         the exact scheme as it is chosen for this GPU: whole shots on chip, or step by step
launches       the exact scheme with one launch a time step
compiled       the exact scheme as plain tensor operations, a step of it through torch.compile;
               forward only
deepwave-120   deepwave on the same domain (120 absorbing cells); deepwave-20: with its usual 20

Ratios are to deepwave-120 at the same batch. Gcells/s are 1e9 updates of a cell and step, counted
as if every cell of the padded grid were updated at every step, and "of chip" is how much of the
GPU's single-precision instructions they would be at 14 an update (more than 100 % is possible: what
no wave has reached is left out). Memory is the peak that torch allocated.
"""

import argparse
import time
from functools import partial

import torch

from comp.core.errors import InputError, run_script
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.wave import onchip, pml, sponge
from comp.fwi.wave.scheme import STENCIL, discretise

INSTRUCTIONS = 14  # single-precision ones of an update
LANES = 128  # of a multiprocessor


def launches(velocity, survey):
    """The exact scheme by the kernel that runs one step."""
    chosen, onchip.fits = onchip.fits, lambda *_: False
    try:
        return sponge.simulate(velocity, survey)
    finally:
        onchip.fits = chosen


def one_step(field, before, alpha, kappa):
    """The field after `field` and `before`, without the source."""
    centre, near, far = STENCIL
    lap = centre * field
    for weight, by in ((near, 1), (far, 2)):
        for axis in (-1, -2):
            lap = lap + weight * (field.roll(by, axis) + field.roll(-by, axis))
    return field + (1 - kappa) * (field - before) + alpha * lap


compiled_step = torch.compile(one_step, dynamic=True)


def compiled(velocity, survey):
    """The exact scheme in tensor operations."""
    if velocity.requires_grad:
        raise InputError("forward only")
    scheme = discretise(velocity, survey)
    alpha, kappa = scheme.alpha[:, None], scheme.kappa[:, None]
    (rows, columns), shots = scheme.sources.T.tolist(), range(survey.shots)
    row, heard = int(scheme.receivers[0, 0]), scheme.receivers[:, 1].tolist()
    field = alpha.new_zeros(len(alpha), survey.shots, *alpha.shape[2:])
    before, record = torch.zeros_like(field), []
    for k in range(survey.nt):
        field, before = compiled_step(field, before, alpha, kappa), field
        field[:, list(shots), rows, columns] += scheme.amplitude[:, :, k]
        record.append(field[:, :, row, heard])
    return torch.stack(record, 2)


SOLVERS = {
    "sponge": sponge.simulate,
    "launches": launches,
    "compiled": compiled,
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
    properties = torch.cuda.get_device_properties(device)
    peak = properties.multi_processor_count * LANES * properties.clock_rate * 1e3 / INSTRUCTIONS
    updates = OFFICIAL.shots * OFFICIAL.nt * 4
    updates *= (OFFICIAL.ny // 2 + OFFICIAL.pad) * (OFFICIAL.nx // 2 + OFFICIAL.pad)
    print(f"{'':14}{'':>6}  {'forward':^42}  {'with gradient':^24}")
    head = f"{'/s':>8}{'ratio':>8}{'GB':>8}"
    print(f"{'solver':14}{'batch':>6}  {head}{'Gcells/s':>9}{'of chip':>9}  {head}")
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
            rates = pairs[0][0] * updates
            cells.insert(1, f"{rates / 1e9:9.0f}{100 * rates / peak:8.0f}%")
            print(f"{name:14}{batch:6d}" + "".join(cells), flush=True)


if __name__ == "__main__":
    run_script(main)
