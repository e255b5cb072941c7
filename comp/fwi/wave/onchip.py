"""The sponge scheme and its adjoint with whole shots held on chip, see `onchip.cu`.

For NVIDIA GPUs with thread-block clusters and 227 KB of shared memory a multiprocessor (Hopper,
data centre Blackwell), float32, and surveys whose sources and receivers share a row; `fits` tells.
Where it does not fit, `sponge_cuda` runs the same scheme with one launch a time step.

A gradient needs the forward field's Laplacian and damped change at every step, in halves with a
scale: 389 MB a shot if of all cells, about a third of that as only those are kept that are worked
on. They are kept for a batch that leaves most of the GPU's memory free. For a larger one they are
kept for as many shots as the GPU runs at a time: the forward run is repeated for each such group
just before its adjoint, so memory does not grow with the batch.
"""

import sys
from functools import cache

import torch

from comp.fwi.survey import Survey
from comp.fwi.wave import rows
from comp.fwi.wave.launcher import TABLES, Launcher, Saved, larger_columns, shared_bytes
from comp.fwi.wave.reach import larger_half, lowest_cut
from comp.fwi.wave.scheme import Gradients, Scheme

# Numbers in the records and the grids of maps that go through a launch together: 64 maps of the
# official survey, four times as many with a gradient. Without one, launches overlap, so that their
# last shots leave nothing idle.
TOGETHER = 53_152_000
# Shared memory of a block that clusters of four can have.
SHARED_BYTES = 227 * 1024
# Where waves need more steps for a cell than at this Courant number, LEAD and LAG are too few.
LEAST_COURANT = 0.14
# Steps, in place of LAG where what no receiver hears is wanted too.
FOREVER = 1_000_000


def fits(velocity: torch.Tensor, survey: Survey) -> bool:
    """Whether this backend can run `survey` on maps of this dtype on this device.

    If not, one line says why, unless the maps are not float32 on a GPU in the first place.
    """
    if velocity.device.type != "cuda" or velocity.dtype != torch.float32:
        return False
    reason = why_not(velocity.device, survey)
    if reason:
        _say(f"wave: one launch a time step, not all in one: {reason}")
    return not reason


@cache
def why_not(device: torch.device, survey: Survey) -> str:
    """What keeps float32 shots of a survey from being held on chip; empty if nothing does."""
    properties = torch.cuda.get_device_properties(device)
    if (properties.major, properties.minor) < (9, 0):
        return f"{properties.name} has no clusters of thread blocks"
    if properties.shared_memory_per_block_optin < SHARED_BYTES:
        found = properties.shared_memory_per_block_optin // 1024
        return f"{properties.name} has {found} KB of shared memory a block, 227 are needed"
    if tuple(int(part) for part in (torch.version.cuda or "0.0").split(".")[:2]) < (12, 4):
        return f"torch is built for CUDA {torch.version.cuda}, 12.4 is needed"
    if not survey_fits(survey):
        return "the survey does not fit (unequal rows, odd sides, size, thin sponge or short steps)"
    return ""


@cache
def _say(line: str) -> None:
    """Print a line on stderr, once."""
    print(line, file=sys.stderr, flush=True)


def survey_fits(survey: Survey) -> bool:
    """Whether a survey's padded grid can be cut into quadrants that fit on chip."""
    Y, X = survey.ny + 2 * survey.pad, survey.nx + 2 * survey.pad
    if survey.source_row != survey.receiver_row or Y % 2 or X % 2 or min(Y, X) < 16:
        return False
    if Y // 2 + 2 > 255 or X // 2 + 4 > 7 * 32 or survey.pad < 8:  # see the kernel's `Plan`
        return False
    if survey.min_velocity * survey.dt / survey.dx < LEAST_COURANT:
        return False
    row = survey.source_row + survey.pad
    down, right = larger_half(Y), larger_columns(X)
    cuts = [(X, right, column + survey.pad) for column in survey.source_columns]
    cuts += [(Y, down, row), (Y, down, lowest_cut(Y, survey.pad, row))]
    for size, larger, cut in cuts:  # no quadrant meets the map twice
        if larger > size - cut + survey.pad or size - larger > cut + survey.pad:
            return False
    return shared_bytes(Y, X, survey.pad, row, survey.nt) <= SHARED_BYTES


def chunk(velocity: torch.Tensor, survey: Survey, gradient: bool) -> int:
    """How many maps to simulate at once; without a gradient at most half, so that two overlap."""
    cells = (survey.ny + 2 * survey.pad) * (survey.nx + 2 * survey.pad)
    most = max(1, TOGETHER // (survey.shots * (survey.nt * survey.nx + cells)))
    return 4 * most if gradient else max(1, min(most, -(-len(velocity) // 2)))


def run(scheme: Scheme, keep: bool) -> tuple[torch.Tensor, Saved]:
    """Records of a scheme's maps, on its device.

    Args:
        scheme: n maps.
        keep: save what `gradients` needs, if there is room.

    Returns:
        (n, shots, nt, receivers) records; the tables of `Launcher`, and the history if kept.
    """
    with torch.cuda.device(scheme.alpha.device):
        launcher = Launcher(scheme)
        inject, record = rows.sources(scheme), rows.zeros(scheme)
        history = launcher.history(launcher.fields) if keep and launcher.room() else None
        kind = "forward" if history is None else "keep"
        launcher(kind, 0, launcher.fields, inject, record, history)
        kept = () if history is None else (history,)
        return rows.at_receivers(scheme, record), (*launcher.tables, *kept) if keep else ()


def snapshots(scheme: Scheme, every: int) -> torch.Tensor:
    """Fields of one map's shots after each `every` steps, (nt // every, shots, Y, X)."""
    with torch.cuda.device(scheme.alpha.device):
        _, shots, nt = scheme.amplitude.shape
        fields = scheme.alpha.new_empty(nt // every, shots, *scheme.alpha.shape[1:])
        launcher, inject = Launcher(scheme, lag=FOREVER), rows.sources(scheme)
        launcher("fields", 0, launcher.fields, inject, None, None, fields=fields, every=every)
        return fields


def gradients(scheme: Scheme, saved: Saved, grad_record: torch.Tensor) -> Gradients:
    """What Σ grad_record·record changes with each coefficient.

    κ can only grow or shrink as a whole, and its slope in that direction is what is found; all of
    it is given to the first cell.

    Raises:
        InputError: the GPU's memory is too small for the history of one shot.
    """
    with torch.cuda.device(scheme.alpha.device):
        n, shots, _ = scheme.amplitude.shape
        Y, X = scheme.alpha.shape[1:]
        launcher = Launcher(scheme, saved[:TABLES])
        inject, trace = rows.residuals(scheme, grad_record), rows.zeros(scheme)

        by_alpha = scheme.alpha.new_empty(n, shots, Y, X)
        by_kappa = scheme.alpha.new_empty(n, shots, 4)
        kept = len(saved) > TABLES
        # Before the history, which takes what is left.
        sources = None if kept else rows.sources(scheme)
        together = launcher.fields if kept else launcher.together()
        history = saved[-1] if kept else launcher.history(together)
        work = launcher.work(together)
        for first in range(0, launcher.fields, max(1, together)):
            count = min(together, launcher.fields - first)
            if not kept:
                launcher("keep", first, count, sources, None, history)
            launcher("adjoint", first, count, inject, trace, history, work, by_alpha, by_kappa)

        # Summed one by one: a sum over a dimension may go in another order in another batch.
        alpha = sum(by_alpha[:, shot] for shot in range(shots))
        alpha /= launcher.scale[:, None, None] * scheme.alpha
        slope = sum(by_kappa[:, shot, part] for shot in range(shots) for part in range(4))
        kappa = torch.zeros_like(scheme.kappa)
        strongest = scheme.kappa[:, 0, 0]
        kappa[:, 0, 0] = torch.where(strongest > 0, slope / launcher.scale / strongest, 0)
        return Gradients(alpha, kappa, rows.amplitude_gradient(scheme, trace))
