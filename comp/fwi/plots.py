"""Pictures of velocity maps and predictions, written as PNG files.

Records are drawn by `comp.fwi.plots_gathers`, misfits and errors by `comp.fwi.plots_statistics`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from comp.core.errors import InputError
from comp.core.figures import save
from comp.fwi.plots_base import (
    ERROR_COLOURS,
    PANEL_INCHES,
    check_shape,
    colour_bar,
    draw_gather,
    draw_map,
    gather_limit,
    label_outer,
    panels,
)
from comp.fwi.survey import OFFICIAL, Survey

ERROR_PERCENTILE = 99  # of all absolute errors: where the shared error scale ends
_TITLE_INCHES = 0.4  # of a title's second line


def prediction_panels(
    path: str | Path,
    titles: Sequence[str],
    truth: np.ndarray,
    prediction: np.ndarray,
    shots: np.ndarray | None = None,
    survey: Survey = OFFICIAL,
) -> None:
    """Write one row a sample: truth, prediction, error and, given records, one shot gather.

    Velocities share the survey's range, errors one symmetric scale. The MAE above an error map is
    that of all its cells.

    Args:
        path: PNG file to write.
        titles: a name for each sample, such as its family or id.
        truth, prediction: (n, ny, nx) velocity, m/s.
        shots: (n, shots, nt, receivers) records; the middle shot of each is drawn.
        survey: sizes, times and ranges.

    Raises:
        InputError: a shape does not fit the titles and the survey, or the file can't be written.
    """
    truth, prediction = np.asarray(truth, np.float32), np.asarray(prediction, np.float32)
    check_shape("truth", truth, (len(titles), *survey.map_shape))
    check_shape("prediction", prediction, (len(titles), *survey.map_shape))
    if shots is not None:
        check_shape("shots", shots, (len(titles), *survey.record_shape))
    error = prediction - truth
    limit = max(1.0, float(np.percentile(np.abs(error), ERROR_PERCENTILE)))
    middle = survey.shots // 2
    figure, axes, grid = panels(len(titles), 3 if shots is None else 4)
    for row, title in enumerate(titles):
        cells = axes[row]
        velocities = draw_map(cells[0], truth[row], survey)
        draw_map(cells[1], prediction[row], survey)
        errors = draw_map(cells[2], error[row], survey, ERROR_COLOURS, (-limit, limit))
        cells[0].set_title(f"{title}, truth")
        cells[1].set_title("prediction")
        cells[2].set_title(f"error, MAE {_speed(np.abs(error[row]).mean())}")
        if shots is not None:
            record = shots[row, middle]
            draw_gather(cells[3], record, survey, gather_limit(record))
            source = survey.source_columns[middle] * survey.dx
            cells[3].set_title(f"shot at {source:.0f} m")
    label_outer(axes[:, :3], "distance (m)", "depth (m)")
    label_outer(axes[:, 3:], "receiver (m)", "time (s)")
    colour_bar(figure, velocities, grid, slice(0, 2), "velocity (m/s)")
    colour_bar(figure, errors, grid, slice(2, 3), "prediction − truth (m/s)")
    save(figure, path)


def velocity_panels(
    path: str | Path,
    titles: Sequence[str],
    stages: Mapping[str, np.ndarray],
    truth: np.ndarray | None = None,
    survey: Survey = OFFICIAL,
) -> None:
    """Write one row a sample, its velocity at each stage and the truth, all on one scale.

    Args:
        path: PNG file to write.
        titles: a name for each sample, such as its family or id.
        stages: name, such as "start" or "refined", and (n, ny, nx) velocity, m/s, of each column.
        truth: (n, ny, nx) m/s, the last column; gives every stage its MAE over all cells.
        survey: sizes and velocity range.

    Raises:
        InputError: no stage, a shape that does not fit the titles and the survey, or the file
            can't be written.
    """
    if not stages:
        raise InputError("stages: none given, expected at least one named array of maps")
    columns = dict(stages) if truth is None else {**stages, "truth": truth}
    columns = {name: np.asarray(maps, np.float32) for name, maps in columns.items()}
    for name, maps in columns.items():
        check_shape(name, maps, (len(titles), *survey.map_shape))
    figure, axes, grid = panels(len(titles), len(columns), PANEL_INCHES + _TITLE_INCHES)
    for row, title in enumerate(titles):
        for panel, (name, maps) in zip(axes[row], columns.items()):
            image = draw_map(panel, maps[row], survey)
            error = ""
            if truth is not None and name in stages:
                error = f", MAE {_speed(np.abs(maps[row] - columns['truth'][row]).mean())}"
            panel.set_title(f"{name}{error}")
        axes[row, 0].set_title(f"{title}\n{axes[row, 0].get_title()}")
    label_outer(axes, "distance (m)", "depth (m)")
    colour_bar(figure, image, grid, slice(0, None), "velocity (m/s)")
    save(figure, path)


def maps_grid(path: str | Path, rows: Mapping[str, np.ndarray], survey: Survey = OFFICIAL) -> None:
    """Write velocity maps in named rows on one colour scale.

    Args:
        path: PNG file to write.
        rows: name and (n, ny, nx) maps, m/s, of each row; rows may differ in length.
        survey: sizes and velocity range.

    Raises:
        InputError: a shape does not fit the survey, or the file can't be written.
    """
    for name, maps in rows.items():
        check_shape(name, maps, (len(maps), *survey.map_shape))
    figure, axes, grid = panels(len(rows), max(len(maps) for maps in rows.values()))
    for cells, (name, maps) in zip(axes, rows.items()):
        cells[0].set_title(name, loc="left")
        for panel, velocity in zip(cells, maps):
            image = draw_map(panel, velocity, survey)
        for panel in cells[len(maps) :]:
            panel.set_axis_off()
    label_outer(axes, "distance (m)", "depth (m)")
    colour_bar(figure, image, grid, slice(0, 3), "velocity (m/s)")
    save(figure, path)


def _speed(value: float) -> str:
    """In whole m/s, below 10 with one decimal."""
    return f"{value:.0f} m/s" if value >= 10 else f"{value:.1f} m/s"
