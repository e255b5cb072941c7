"""What the kernels of `onchip.cu` read beside α: the sponge by rows and columns, and which cells
matter when.
"""

from functools import cache

import torch

from comp.fwi.wave.rows import alpha_at_sources
from comp.fwi.wave.scheme import Scheme

# Halves hold at most 65504. The largest value kept is a Laplacian at a source, of about the
# source's amplitude over α there; HEADROOM times that fits.
HALF_RANGE, HEADROOM = 65504, 16
# Slowness is added up in integers of 2⁻²⁰ steps a cell: the same sum in any order.
FIXED_POINT = 2**20


def larger_half(size: int) -> int:
    """Rows or columns of the larger quadrants of a grid of an even size; an even number too."""
    return 2 * ((size + 3) // 4)


def tables(scheme: Scheme, lead: int) -> dict[str, torch.Tensor]:
    """What the kernel reads, named as its parameters; `lead` is that of `awake`."""
    row, column = (int(i) for i in scheme.receivers[0])
    across = scheme.kappa[:, row]  # there, κ is that of the side columns, 0 between them
    inner = across != scheme.kappa[:, 0]
    largest = (scheme.amplitude.abs().amax(2) / alpha_at_sources(scheme)).amax(1)
    largest = largest.clamp(min=torch.finfo(torch.float32).tiny)
    return {
        "keep_column": torch.where(inner, 0, 1 - across).contiguous(),
        "keep_row": (1 - scheme.kappa[:, :, column]).contiguous(),
        "fastest": scheme.alpha.amax((1, 2)).sqrt(),
        "awake": awake(scheme, lead),
        "source_column": _on_device(tuple(scheme.sources[:, 1].tolist()), scheme.alpha.device),
        "scale": HALF_RANGE / HEADROOM / largest,
    }


@cache
def _on_device(numbers: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(len,) int32, copied once: the host waits for a copy, and all that was queued before it."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=torch.int32, device=device)


def awake(scheme: Scheme, lead: int) -> torch.Tensor:
    """How many rows and columns of each quadrant matter at each step.

    A wave needs at least 1/c steps from a row to the next, c the larger of their largest Courant
    numbers, and so between columns. A row matters from the step at which it can have been reached
    from the source until the last at which it can still reach a receiver in time; the same way
    round, as both stand on one row. Both are bounds, so nothing is lost but what the scheme's
    dispersion sends ahead, for which `lead` steps make room.

    Returns:
        (n · shots, nt, 4) int16: rows downward and upward, columns right and left of the source.
    """
    nt, device = scheme.amplitude.shape[2], scheme.alpha.device
    Y, X = scheme.alpha.shape[1:]
    down, right = larger_half(Y), larger_half(X)
    row, cuts = int(scheme.receivers[0, 0]), scheme.sources[:, 1].tolist()
    steps = torch.arange(nt, device=device)
    reached, heard = steps + lead, nt - steps + lead

    rows = _between(_slowness(scheme.alpha, 2), [row], device)[:, 0]
    both = torch.minimum(reached, heard)
    counts = []
    for order in (range(row, row + down), range(row - 1, row - 1 - (Y - down), -1)):
        lines = _on_device(tuple(i % Y for i in order), device)
        counts.append(_count(rows[:, lines], both)[:, None].expand(-1, len(cuts), -1))

    columns = _slowness(scheme.alpha, 1)
    from_sources = _between(columns, cuts, device)
    first, last = int(scheme.receivers[:, 1].min()), int(scheme.receivers[:, 1].max())
    to_receivers = _between(columns, [first, last], device).amin(1)
    to_receivers[:, first : last + 1] = 0
    shot = _on_device(tuple(range(len(cuts))), device)[:, None]
    for orders in (
        [range(cut, cut + right) for cut in cuts],
        [range(cut - 1, cut - 1 - (X - right), -1) for cut in cuts],
    ):
        flat = tuple(x % X for order in orders for x in order)
        lines = _on_device(flat, device).view(len(cuts), -1)
        counts.append(
            torch.minimum(
                _count(from_sources[:, shot, lines], reached), _count(to_receivers[:, lines], heard)
            )
        )
    return torch.stack(counts, -1).to(torch.int16).flatten(0, 1).contiguous()


def _slowness(alpha: torch.Tensor, across: int) -> torch.Tensor:
    """(n, lines + 1) int64 least time from line 0 to each line, and once round the grid."""
    courant = alpha.amax(across).double().sqrt()
    faster = torch.maximum(courant, courant.roll(-1, 1))
    steps = (FIXED_POINT / faster).floor().long().cumsum(1)
    return torch.nn.functional.pad(steps, (1, 0))


def _between(along: torch.Tensor, lines: list[int], device: torch.device) -> torch.Tensor:
    """(n, len(lines), all lines) least times between lines, the shorter way round."""
    from_line = along[:, _on_device(tuple(lines), device), None]
    one_way = (along[:, None, :-1] - from_line).abs()
    return torch.minimum(one_way, along[:, None, -1:] - one_way)


def _count(times: torch.Tensor, until: torch.Tensor) -> torch.Tensor:
    """(…, nt) how many lines, counted from the first, hold all whose time is at most `until`."""
    last = times.flip(-1).cummin(-1).values.flip(-1).contiguous()
    limits = (until * FIXED_POINT).expand(*times.shape[:-1], -1).contiguous()
    return torch.searchsorted(last, limits, right=True)
