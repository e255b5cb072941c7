"""What makes a record or a velocity map unfit for use, found before it is used."""

from pathlib import Path

import numpy as np
import torch

from comp.core.errors import InputError

# Rock from mud to basalt, m/s. The competition keeps to 1500-4500; beyond this range it is not a
# P-wave velocity in m/s (km/s, slowness, an index into a table).
VELOCITY_RANGE = (1000.0, 6000.0)


def check_records(
    records: np.ndarray | torch.Tensor, path: str | Path, first_row: int | None = None
) -> np.ndarray:
    """Check records for NaN and for dead (constant) shots; return the peak amplitude of each.

    Args:
        records: (n, shots, nt, receivers) amplitudes, an array or a tensor on any device.
        path: what they came from, for the message.
        first_row: the row of `records[0]` in `path`; None when it holds a single record.

    Returns:
        (n,) largest absolute amplitude.

    Raises:
        InputError: names the first bad row and shot.
    """
    flat = records.reshape(*records.shape[:2], -1)
    if isinstance(flat, torch.Tensor):
        low, high = (edge.cpu().numpy() for edge in flat.aminmax(dim=-1))
    else:
        with np.errstate(invalid="ignore"):  # NaN comes through min and max, as it should
            low, high = flat.min(axis=-1), flat.max(axis=-1)
    infinite = ~np.isfinite(low) | ~np.isfinite(high)
    bad = infinite | (low == high)
    if bad.any():
        row, shot = np.argwhere(bad)[0]
        place = f"{path}: " if first_row is None else f"{path}: row {first_row + row}: "
        if infinite[row, shot]:
            raise InputError(f"{place}shot {shot} holds NaN or infinite values")
        raise InputError(f"{place}shot {shot} is constant ({low[row, shot]:g}): a dead record")
    return np.maximum(-low, high).max(axis=1)


def check_velocity(maps: np.ndarray, path: str | Path, first_row: int) -> None:
    """Check velocity maps (n, ny, nx), m/s; raises InputError naming the first bad row."""
    low, high = VELOCITY_RANGE
    fit = ((maps >= low) & (maps <= high)).all(axis=(1, 2))  # NaN is not >= anything
    if not fit.all():
        row = int(np.argmin(fit))
        found = f"velocity {maps[row].min():g}..{maps[row].max():g} m/s"
        raise InputError(f"{path}: row {first_row + row}: {found}, expected {low:g}..{high:g}")
