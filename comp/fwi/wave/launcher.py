"""The launches of `onchip.cu` for a scheme's maps, and the tables that its kernels read."""

from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch

from comp.core.errors import InputError
from comp.fwi.wave import nvrtc, rows
from comp.fwi.wave.reach import arrivals, cut_rows, larger_half, lowest_cut, on_device
from comp.fwi.wave.rows import alpha_at_sources
from comp.fwi.wave.scheme import STENCIL, Scheme
from comp.fwi.wave.sponge_cuda import free_memory

SOURCE = Path(__file__).with_name("onchip.cu")
# Warps of a block, a multiple of four: fewer hide less of the memory's latency, more have too few
# registers for two rows of four columns a thread.
WARPS = {"forward": 16, "keep": 16, "adjoint": 12, "fields": 16}
# Steps until the work is dealt to the warps anew.
HOLD = 8
# Registers of a multiprocessor.
REGISTERS = 65536
# A cell is worked on so many steps before a wave can arrive, and so many longer than one from
# there can be heard: the scheme's own waves run ahead a little. README.md has the errors of others.
LEAD, LAG = 24, 40
# Share of the free memory that what is kept for a gradient may take.
KEPT_SHARE = 0.4

# Halves hold at most 65504. The largest value kept is a Laplacian at a source, of about the
# source's amplitude over α there; HEADROOM times that fits.
HALF_RANGE, HEADROOM = 65504, 16

# The kernels, as their definitions.
KINDS = {"forward": "", "keep": "KEEP", "adjoint": "ADJOINT", "fields": "FIELDS"}
# Bytes that the history takes for a row of 32 columns at a step.
ROW_BYTES = 32 * 4

Saved = tuple[torch.Tensor, ...]
# Tensors of `Saved` before the history: see `Launcher._made`.
TABLES = 6


def larger_columns(X: int) -> int:
    """Of the larger quadrants: a multiple of four."""
    return 4 * ((X + 7) // 8)


def shared_bytes(Y: int, X: int, pad: int, row: int, nt: int) -> int:
    """Shared memory that a block of `onchip.cu` takes for a padded grid."""
    down, right = larger_half(Y), larger_columns(X)
    numbers = 2 * ((down + 4) * (right + 4) + 4) + 4 + 2 * down + 3 * right
    below = max(1, Y - pad - row) + (Y - row < down)
    lowest = lowest_cut(Y, pad, row)
    above = max(1, lowest - pad) + (row < Y - down)
    numbers += max(below, above) * 2 * ((X - 2 * pad + 1) // 2 + 3)
    plan = 8 + 2 * -(-right // 32) // 4 * 4  # whole words
    size = 4 * numbers + -(-nt // HOLD) * plan
    # The adjoint's last sum takes a number a thread.
    return max(size, 4 * 32 * max(WARPS.values()))


def sponge_lines(scheme: Scheme) -> tuple[torch.Tensor, torch.Tensor]:
    """1 − κ of the side columns (n, X), 0 of inner ones; of the inner columns by rows (n, Y)."""
    row, column = (int(i) for i in scheme.receivers[0])
    across = scheme.kappa[:, row]  # there, κ is that of the side columns, 0 between them
    inner = across != scheme.kappa[:, 0]
    by_rows = 1 - scheme.kappa[:, :, column]
    return torch.where(inner, 0, 1 - across).contiguous(), by_rows.contiguous()


def history_scale(scheme: Scheme) -> torch.Tensor:
    """(n,) of the halves that are kept for a gradient."""
    largest = (scheme.amplitude.abs().amax(2) / alpha_at_sources(scheme)).amax(1)
    return HALF_RANGE / HEADROOM / largest.clamp(min=torch.finfo(torch.float32).tiny)


class Launcher:
    """The kernels for a scheme's maps, and the tables that they read."""

    def __init__(self, scheme: Scheme, tables: Saved = (), lag: int = LAG) -> None:
        """For a scheme's maps.

        Args:
            scheme: of them.
            tables: of another launcher for the same scheme and lag; made where there are none.
            lag: steps for which a cell is worked on after it can last be heard.
        """
        self._scheme, self._lag = scheme, lag
        n, self._shots, self._nt = scheme.amplitude.shape
        self.fields = n * self._shots
        self._row = int(scheme.receivers[0, 0])
        self._Y, self._X = scheme.alpha.shape[1:]
        self._bytes = shared_bytes(self._Y, self._X, scheme.pad, self._row, self._nt)
        self.tables = tables or self._made()

    def _made(self) -> Saved:
        """What the kernels read beside α, in the order of their parameters, then the scale."""
        scheme, device = self._scheme, self._scheme.alpha.device
        keep_column, keep_row = sponge_lines(scheme)
        source_columns = on_device(tuple(scheme.sources[:, 1].tolist()), device)
        times = arrivals(scheme, source_columns)
        cut = cut_rows(scheme, times, LEAD, self._lag)
        plans, blocks = -(-self._nt // HOLD), -(-self._cells()[2] * 4 // 32)
        worked_on = torch.empty(self.fields, 4, plans, blocks, dtype=torch.uint8, device=device)
        if self.fields:
            nvrtc.Launch(
                self._function("forward", "plan"),
                (4 * self.fields, 1, 1),
                256,
                [times, source_columns, cut, worked_on, self._row, self._shots, self._nt],
                4 * blocks * self._cells()[1],
            )()
        return keep_column, keep_row, worked_on, source_columns, cut, history_scale(scheme)

    @property
    def scale(self) -> torch.Tensor:
        """(n,) of what is kept."""
        return self.tables[-1]

    def work(self, shots: int) -> torch.Tensor:
        """Room for the sums of so many shots: a value a cell."""
        return self._scheme.alpha.new_empty(shots, *self._cells(), 4)

    def history(self, shots: int) -> torch.Tensor:
        """Room for what the gradient of any so many shots in a row needs."""
        ends = self._history[1]
        most = max(end - before for end, before in zip(ends[shots:], ends))
        return torch.empty(most * ROW_BYTES, dtype=torch.uint8, device=self._scheme.alpha.device)

    def room(self) -> bool:
        """Whether the history of all shots leaves enough memory free."""
        return self._history[1][-1] * ROW_BYTES <= KEPT_SHARE * self._free()

    def together(self) -> int:
        """How many shots to have in the history: those that run at a time, if they fit."""
        ends, free = self._history[1], 0.9 * self._free()  # the sums of a shot take little
        size = ROW_BYTES * max((b - a for a, b in pairwise(ends)), default=1)
        if size > free:
            raise InputError(
                f"velocity: a shot with gradient takes {size / 1e9:.1f} GB of GPU memory, "
                f"{free / 1e9:.1f} are free"
            )
        return max(1, min(self._clusters(), self.fields, int(free / size)))

    @cached_property
    def _history(self) -> tuple[torch.Tensor, list[int]]:
        """(fields, 4) the first row of each quadrant in a history of all, and where each shot ends,
        from a zero on. The host waits for it."""
        sizes = self.tables[2].sum((2, 3), dtype=torch.int64) * HOLD
        ends = sizes.flatten().cumsum(0)
        return (ends - sizes.flatten()).contiguous(), [0, *ends[3::4].tolist()]

    def _free(self) -> float:
        return free_memory(self._scheme.alpha.device)

    def _cells(self) -> tuple[int, int, int]:
        """Four quadrants of the largest size, columns by fours."""
        return 4, larger_half(self._Y), larger_columns(self._X) // 4

    def __call__(
        self,
        kind: str,
        first: int,
        count: int,
        inject: torch.Tensor,
        record: torch.Tensor | None,
        history: torch.Tensor | None,
        *sums: torch.Tensor,
        fields: torch.Tensor | None = None,
        every: int = 1,
    ) -> None:
        """Run shots first … first + count − 1; `sums`: work, by_alpha, by_kappa."""
        if not count:
            return
        work, by_alpha, by_kappa = (*sums, None, None, None)[:3]
        nvrtc.Launch(
            self._function(kind),
            (4 * count, 1, 1),
            32 * WARPS[kind],
            [
                self._scheme.alpha,
                *self.tables[:-1],
                inject,
                record,
                history,
                None if history is None else self._history[0],
                self.scale,
                work,
                by_alpha,
                by_kappa,
                fields,
                self._row,
                *rows.span(self._scheme),
                self._scheme.pad,
                self._shots,
                self._nt,
                first,
                every,
            ],
            self._bytes,
        )()

    def _clusters(self) -> int:
        """How many shots the GPU runs at a time."""
        function = self._function("adjoint")
        return nvrtc.active_clusters(function, 4, 32 * WARPS["adjoint"], self._bytes)

    def _function(self, kind: str, name: str = "run") -> object:
        """A kernel of the source as compiled for one of KINDS."""
        centre, near, far = STENCIL
        definitions = {"Y": str(self._Y), "X": str(self._X), "HOLD": str(HOLD)}
        warps = WARPS[kind]
        definitions |= {"WARPS": str(warps), "REGISTERS": str(REGISTERS // warps // 256 * 8)}
        definitions |= {"CENTRE": repr(centre), "NEAR": f"({near!r})", "FAR": f"({far!r})"}
        definitions |= {"LEAD": str(LEAD), "LAG": str(self._lag)}
        definitions |= {flag: str(int(flag == KINDS[kind])) for flag in KINDS.values() if flag}
        return nvrtc.load(SOURCE, name, definitions)
