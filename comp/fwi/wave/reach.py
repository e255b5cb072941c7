"""When waves can be where, and where to cut the grid by that, for `onchip.cu`."""

from functools import cache
from pathlib import Path

import torch

from comp.fwi.wave import nvrtc
from comp.fwi.wave.scheme import Scheme

SOURCE = Path(__file__).with_name("reach.cu")
# A second round brings waves that turn back up; a third changes nothing that is heard.
ROUNDS = 2


def larger_half(size: int) -> int:
    """Rows or columns of the larger quadrants of a grid of an even size; an even number too."""
    return 2 * ((size + 3) // 4)


def lowest_cut(Y: int, pad: int, row: int) -> int:
    """The last row to cut the grid above: in the map, an even number below the sources'."""
    return row + (Y - pad - 1 - row) // 2 * 2


@cache
def on_device(numbers: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(len,) int32, copied once: the host waits for a copy, and all that was queued before it."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=torch.int32, device=device)


def arrivals(scheme: Scheme, source_columns: torch.Tensor) -> torch.Tensor:
    """Steps that waves need from each source, and to the nearest receiver, see `reach.cu`.

    Times of 2×2 cells, their fastest standing for all, and of straight fronts from one place to
    the next: near to what the scheme's waves take, not bounds of it. Whoever uses them leaves room.

    Returns:
        (n, shots + 1, Y / 2, X / 2) float32; the last is to the nearest receiver. Row 0 holds the
        sources' row and the one below.
    """
    n, shots, _ = scheme.amplitude.shape
    Y, X = scheme.alpha.shape[1:]
    times = scheme.alpha.new_empty(n, shots + 1, Y // 2, X // 2)
    if not n:
        return times
    receivers, pad = scheme.receivers, scheme.pad
    definitions = {"Y": Y, "X": X, "PAD": pad, "ROUNDS": ROUNDS}
    map_places = (Y // 2 - pad + 2) * (X // 2 - pad + 2)  # at most
    nvrtc.Launch(
        nvrtc.load(SOURCE, "arrivals", {name: str(number) for name, number in definitions.items()}),
        (n * (shots + 1), 1, 1),
        32 * -(-max(Y, X) // 64),
        [
            scheme.alpha,
            source_columns,
            times,
            int(receivers[:, 1].min()),
            int(receivers[:, 1].max()),
            int(receivers[0, 0]),
            shots,
        ],
        Y * X + 4 * map_places,
    )()
    return times


def cut_rows(scheme: Scheme, times: torch.Tensor, lead: int, lag: int) -> torch.Tensor:
    """(n · shots,) int32 where to cut the grid, so that both sides have about the same to do.

    All steps at which a cell matters are counted, in whole steps, so that the sum does not depend
    on its order and a shot runs alike in every batch.
    """
    nt, (Y, _) = scheme.amplitude.shape[2], scheme.alpha.shape[1:]
    row = int(scheme.receivers[0, 0])
    times = times[..., ::4]  # some columns say as much
    since = (times[:, :-1] - lead).clamp(min=0)
    until = (nt + lag - times[:, -1:]).clamp(max=nt)
    work = (until - since).clamp(min=0).int().sum(3)
    below = larger_half(Y) // 2
    # Of the lower half, for each row to cut above; it goes round to the rows that come first.
    so_far = torch.nn.functional.pad(torch.cat([work, work[..., :below]], 2).cumsum(2), (1, 0))
    lower = so_far[..., below:] - so_far[..., :-below]
    too_much = 2 * lower > work.sum(2, keepdim=True)
    rows = 2 * too_much.int().cumprod(2).sum(2) + row
    return rows.clamp(max=lowest_cut(Y, scheme.pad, row)).flatten().int()
