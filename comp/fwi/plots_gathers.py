"""Pictures of shot records: one gather, or what was observed beside what a map would give."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from comp.core.errors import InputError
from comp.core.figures import save
from comp.fwi.plots_base import (
    check_shape,
    colour_bar,
    draw_gather,
    gather_limit,
    label_outer,
    panels,
)
from comp.fwi.survey import OFFICIAL, Survey

# A residual is multiplied by the largest of these that leaves nine tenths of it unclipped.
GAINS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
_GATHER_INCHES = 2.8


def gather(
    path: str | Path, record: np.ndarray, title: str = "", survey: Survey = OFFICIAL
) -> None:
    """Write the gather of one shot.

    Args:
        path: PNG file to write.
        record: (nt, receivers) amplitudes.
        title: above the gather.
        survey: times and receiver positions.

    Raises:
        InputError: the shape does not fit the survey, or the file can't be written.
    """
    check_shape("record", record, survey.record_shape[1:])
    figure = Figure(figsize=(4.5, 5), layout="constrained")
    axes = figure.subplots(1, 1, squeeze=False)
    image = draw_gather(axes[0, 0], record, survey, gather_limit(record))
    axes[0, 0].set_title(title)
    label_outer(axes, "receiver (m)", "time (s)")
    figure.colorbar(image, ax=axes, label="amplitude", extend="both")
    save(figure, path)


def residual_panels(
    path: str | Path,
    observed: np.ndarray,
    modelled: np.ndarray,
    shots: Sequence[int] | None = None,
    survey: Survey = OFFICIAL,
) -> None:
    """Write one row a shot: observed, modelled and residual gather, all clipped alike.

    A small residual is drawn with a gain, which stands above it. Above the modelled gather stands
    its relative L2 misfit ‖modelled − observed‖ / ‖observed‖. The last time step is left out of
    clip, gain and misfit: that of official records is not reliable.

    Args:
        path: PNG file to write.
        observed, modelled: (shots, nt, receivers) amplitudes of one sample.
        shots: which to draw, as positions in the record; None takes the first, the middle and
            the last.
        survey: times, source and receiver positions.

    Raises:
        InputError: a shape does not fit the survey, NaN, no such shot, a silent record, or the
            file can't be written.
    """
    observed, modelled = np.asarray(observed, np.float32), np.asarray(modelled, np.float32)
    for name, record in (("observed", observed), ("modelled", modelled)):
        check_shape(name, record, survey.record_shape)
        if not np.isfinite(record).all():
            raise InputError(f"{name}: holds NaN or infinite values")
    if shots is None:
        shots = list(dict.fromkeys((0, survey.shots // 2, survey.shots - 1)))
    for shot in shots:
        if not 0 <= shot < survey.shots:
            raise InputError(f"shot {shot}: expected 0 … {survey.shots - 1}")
        if not observed[shot].any():
            raise InputError(f"observed: shot {shot} is silent, so it has no misfit")
    chosen = list(shots)
    residual = modelled - observed
    rows = survey.trusted_rows
    limit = gather_limit(observed[chosen, :rows])
    gain = residual_gain(residual[chosen, :rows], limit)
    figure, axes, grid = panels(len(chosen), 3, _GATHER_INCHES)
    for cells, shot in zip(axes, chosen):
        for panel, record in zip(cells, (observed, modelled, gain * residual)):
            image = draw_gather(panel, record[shot], survey, limit)
        misfit = np.linalg.norm(residual[shot, :rows]) / np.linalg.norm(observed[shot, :rows])
        source = survey.source_columns[shot] * survey.dx
        cells[0].set_title(f"observed, shot at {source:.0f} m")
        cells[1].set_title(f"modelled, misfit {misfit:.2g}")
        cells[2].set_title(f"residual × {gain:,}" if gain > 1 else "residual")
    label_outer(axes, "receiver (m)", "time (s)")
    colour_bar(figure, image, grid, slice(0, None), "amplitude")
    save(figure, path)


def residual_gain(residual: np.ndarray, limit: float) -> int:
    """What to multiply a residual by so that it shows on the scale ± `limit`: one of GAINS."""
    strong = float(np.percentile(np.abs(residual), 90))
    fitting = [gain for gain in GAINS if gain * strong <= limit]
    return max(fitting, default=1) if strong > 0 else 1
