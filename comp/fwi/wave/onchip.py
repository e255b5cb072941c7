"""The sponge scheme and its adjoint with whole shots held on chip, see `onchip.cu`.

For NVIDIA GPUs with thread-block clusters and 227 KB of shared memory a multiprocessor (Hopper,
data centre Blackwell), float32, and surveys whose sources and receivers share a row; `fits` tells.
Where it does not fit, `sponge_cuda` runs the same scheme with one launch a time step.

A gradient needs the forward field's Laplacian and damped change at every step, 389 MB a shot in
halves with a scale. They are kept for a batch that leaves most of the GPU's memory free. For a
larger one they are kept for as many shots as the GPU runs at a time: the forward run is repeated
for each such group just before its adjoint, so memory does not grow with the batch.
"""

import math
import sys
from functools import cache
from pathlib import Path

import torch

from comp.core.errors import InputError
from comp.fwi.survey import Survey
from comp.fwi.wave import nvrtc, rows
from comp.fwi.wave.reach import larger_half, tables
from comp.fwi.wave.scheme import STENCIL, Gradients, Scheme
from comp.fwi.wave.sponge_cuda import free_memory

SOURCE = Path(__file__).with_name("onchip.cu")
# Numbers in the records of maps that go through a launch together, those between the receivers
# included: 128 maps of the official survey, 0.8 GB. The last shots of a launch leave parts of the
# GPU idle, so it holds many.
TOGETHER = 200_000_000
# Warps of a block, a multiple of four: fewer hide less of the memory's latency, more take longer to
# find out what each has to do.
WARPS = 20
# Steps until the work is dealt to the warps anew.
HOLD = 4
# Registers of a multiprocessor.
REGISTERS = 65536
# Shared memory of a block that clusters of four can have.
SHARED_BYTES = 227 * 1024
# A cell is worked on this many steps before and after a wave at the speed of the fastest cell can
# pass: the scheme's own waves run ahead a little. README.md has the errors of other numbers. Where
# waves need more steps for a cell than at LEAST_COURANT, so many would be too few.
LEAD, LEAST_COURANT = 32, 0.14
# Share of the free memory that what is kept for a gradient may take.
KEPT_SHARE = 0.4

# The kernels, as their definitions KEEP and ADJOINT.
KINDS = {"forward": (0, 0), "keep": (1, 0), "adjoint": (0, 1)}

Saved = tuple[torch.Tensor, ...]


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
    if Y // 2 + 2 > 255 or X // 2 + 2 > 7 * 32 or survey.pad < 8:  # see the kernel's `Plan`
        return False
    if survey.min_velocity * survey.dt / survey.dx < LEAST_COURANT:
        return False
    row = survey.source_row + survey.pad
    cuts = [column + survey.pad for column in survey.source_columns]
    for size, cut in [(Y, row), *((X, cut) for cut in cuts)]:  # no quadrant meets the map twice
        larger = larger_half(size)
        if larger > size - cut + survey.pad or size - larger > cut + survey.pad:
            return False
    return _shape(Y, X, survey.pad, row, survey.nt)["BYTES"] <= SHARED_BYTES


def _shape(Y: int, X: int, pad: int, row: int, nt: int) -> dict[str, int]:
    """How `onchip.cu` is compiled for a padded grid, and bytes of shared memory that it takes."""
    down, right = larger_half(Y), larger_half(X)
    numbers = 2 * (down + 4) * (right + 4) + 4 + 2 * down + 3 * right
    below = max(1, Y - pad - row) + (Y - row < down)
    above = max(1, row - pad) + (row < Y - down)
    numbers += max(below, above) * 2 * ((X - 2 * pad + 1) // 2 + 3)
    return {
        "Y": Y,
        "X": X,
        "WARPS": WARPS,
        "REGISTERS": REGISTERS // WARPS // 256 * 8,
        # The adjoint's last sum takes a number a thread.
        "BYTES": max(4 * numbers + -(-nt // HOLD) * (2 * -(-right // 32) + 1), 4 * 32 * WARPS),
        "HOLD": HOLD,
    }


def chunk(velocity: torch.Tensor, survey: Survey, gradient: bool) -> int:
    """How many maps to simulate at once."""
    return max(1, TOGETHER // (survey.shots * survey.nt * (survey.nx + 2 * survey.pad)))


def run(scheme: Scheme, keep: bool) -> tuple[torch.Tensor, Saved]:
    """Records of a scheme's maps, on its device.

    Args:
        scheme: n maps.
        keep: save what `gradients` needs, if there is room.

    Returns:
        (n, shots, nt, receivers) records; the history, or nothing saved.
    """
    with torch.cuda.device(scheme.alpha.device):
        launcher = _Launcher(scheme)
        inject, record = rows.sources(scheme), rows.empty(scheme)
        saved = (launcher.history(launcher.fields),) if keep and launcher.room() else ()
        launcher("keep" if saved else "forward", 0, launcher.fields, inject, record, *saved)
        return rows.at_receivers(scheme, record), saved


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
        launcher = _Launcher(scheme)
        inject, trace = rows.residuals(scheme, grad_record), rows.empty(scheme)

        by_alpha = scheme.alpha.new_empty(n, shots, Y, X)
        by_kappa = scheme.alpha.new_empty(n, shots, 4)
        together = launcher.fields if saved else launcher.together()
        (history,) = saved or (launcher.history(together),)
        work = launcher.work(together)
        sources = None if saved else rows.sources(scheme)
        for first in range(0, launcher.fields, max(1, together)):
            count = min(together, launcher.fields - first)
            if not saved:
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


class _Launcher:
    """The kernels for a scheme's maps, and the tables that they read."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        n, self._shots, self._nt = scheme.amplitude.shape
        self.fields = n * self._shots
        row = int(scheme.receivers[0, 0])
        self._shape = _shape(*scheme.alpha.shape[1:], scheme.pad, row, self._nt)
        self._tables = tables(scheme, LEAD)
        self.scale = self._tables["scale"]

    def work(self, shots: int) -> torch.Tensor:
        """Room for the sums of so many shots: a value a cell."""
        return self._scheme.alpha.new_empty(shots, *self._cells())

    def history(self, shots: int) -> torch.Tensor:
        """Room for what the gradient of so many shots needs: two values a cell and step."""
        shape = shots, self._nt, *self._cells(), 2
        return torch.empty(shape, dtype=torch.float16, device=self._scheme.alpha.device)

    def room(self) -> bool:
        """Whether the history of all shots leaves enough memory free."""
        return self.fields * self._history_bytes() <= KEPT_SHARE * self._free()

    def together(self) -> int:
        """How many shots to have in the history: those that run at a time, if they fit."""
        size, free = self._history_bytes(), self._free()
        if size > free:
            raise InputError(
                f"velocity: a shot with gradient takes {size / 1e9:.1f} GB of GPU memory, "
                f"{free / 1e9:.1f} are free"
            )
        return max(1, min(self._clusters(), self.fields, int(0.9 * free / size)))

    def _history_bytes(self) -> int:
        """Of a shot."""
        return 4 * self._nt * math.prod(self._cells())

    def _free(self) -> float:
        return free_memory(self._scheme.alpha.device)

    def _cells(self) -> tuple[int, int, int]:
        """Four quadrants of the largest size."""
        return 4, larger_half(self._shape["Y"]), larger_half(self._shape["X"])

    def __call__(
        self,
        kind: str,
        first: int,
        count: int,
        inject: torch.Tensor,
        record: torch.Tensor | None,
        *sums: torch.Tensor,
    ) -> None:
        """Run shots first … first + count − 1; `sums`: history, work, by_alpha, by_kappa."""
        if not count:
            return
        history, work, by_alpha, by_kappa = (*sums, None, None, None, None)[:4]
        receivers = self._scheme.receivers
        read = ["keep_column", "keep_row", "fastest", "awake", "source_column"]
        nvrtc.Launch(
            self._function(kind),
            (4 * count, 1, 1),
            32 * WARPS,
            [
                self._scheme.alpha,
                *(self._tables[name] for name in read),
                inject,
                record,
                history,
                self.scale,
                work,
                by_alpha,
                by_kappa,
                int(receivers[:, 1].min()),
                int(receivers[:, 1].max()),
                int(receivers[0, 0]),
                self._scheme.pad,
                self._shots,
                self._nt,
                first,
            ],
            self._shape["BYTES"],
        )()

    def _clusters(self) -> int:
        """How many shots the GPU runs at a time."""
        function = self._function("adjoint")
        return nvrtc.active_clusters(function, 4, 32 * WARPS, self._shape["BYTES"])

    def _function(self, kind: str) -> object:
        """The kernel "forward", "keep" or "adjoint"."""
        keep, adjoint = KINDS[kind]
        centre, near, far = STENCIL
        names = ["Y", "X", "WARPS", "HOLD", "REGISTERS"]
        definitions = {name: str(self._shape[name]) for name in names}
        definitions |= {"CENTRE": repr(centre), "NEAR": f"({near!r})", "FAR": f"({far!r})"}
        definitions |= {"LEAD": str(LEAD), "KEEP": str(keep), "ADJOINT": str(adjoint)}
        return nvrtc.load(SOURCE, "run", definitions)
