"""Pictures of velocity maps, predictions and shot gathers, written as PNG files.

Figures are built without pyplot: no display is needed and none stays in memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage

from comp.core.errors import InputError
from comp.core.files import atomic_path
from comp.fwi.survey import OFFICIAL, Survey

VELOCITY_COLOURS, ERROR_COLOURS, GATHER_COLOURS = "viridis", "RdBu_r", "gray"
# The direct wave is far stronger than the reflections: a gather is clipped at this percentile of
# its absolute amplitudes.
GATHER_PERCENTILE = 92
ERROR_PERCENTILE = 99  # of all absolute errors: where the shared error scale ends
PANEL_INCHES, BAR_INCHES = 2.5, 0.12
DPI = 110


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
    _check_shape("truth", truth, (len(titles), *survey.map_shape))
    _check_shape("prediction", prediction, (len(titles), *survey.map_shape))
    if shots is not None:
        _check_shape("shots", shots, (len(titles), *survey.record_shape))
    error = prediction - truth
    limit = max(1.0, float(np.percentile(np.abs(error), ERROR_PERCENTILE)))
    middle = survey.shots // 2
    figure, axes, grid = _panels(len(titles), 3 if shots is None else 4)
    for row, title in enumerate(titles):
        panels = axes[row]
        velocities = _draw_map(panels[0], truth[row], survey)
        _draw_map(panels[1], prediction[row], survey)
        errors = _draw_map(panels[2], error[row], survey, ERROR_COLOURS, (-limit, limit))
        panels[0].set_title(f"{title}, truth")
        panels[1].set_title("prediction")
        panels[2].set_title(f"error, MAE {np.abs(error[row]).mean():.0f} m/s")
        if shots is not None:
            _draw_gather(panels[3], shots[row, middle], survey)
            source = survey.source_columns[middle] * survey.dx
            panels[3].set_title(f"shot at {source:.0f} m")
    _label_outer(axes[:, :3], "distance (m)", "depth (m)")
    _label_outer(axes[:, 3:], "receiver (m)", "time (s)")
    _colour_bar(figure, velocities, grid, slice(0, 2), "velocity (m/s)")
    _colour_bar(figure, errors, grid, slice(2, 3), "prediction − truth (m/s)")
    _save(figure, path)


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
        _check_shape(name, maps, (len(maps), *survey.map_shape))
    figure, axes, grid = _panels(len(rows), max(len(maps) for maps in rows.values()))
    for panels, (name, maps) in zip(axes, rows.items()):
        panels[0].set_title(name, loc="left")
        for panel, velocity in zip(panels, maps):
            image = _draw_map(panel, velocity, survey)
        for panel in panels[len(maps) :]:
            panel.set_axis_off()
    _label_outer(axes, "distance (m)", "depth (m)")
    _colour_bar(figure, image, grid, slice(0, 3), "velocity (m/s)")
    _save(figure, path)


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
    _check_shape("record", record, survey.record_shape[1:])
    figure = Figure(figsize=(4.5, 5), layout="constrained")
    axes = figure.subplots(1, 1, squeeze=False)
    image = _draw_gather(axes[0, 0], record, survey)
    axes[0, 0].set_title(title)
    _label_outer(axes, "receiver (m)", "time (s)")
    figure.colorbar(image, ax=axes, label="amplitude", extend="both")
    _save(figure, path)


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray, GridSpec]:
    """A figure, its (rows, columns) axes, and the thin row of cells below for colour bars."""
    size = (PANEL_INCHES * columns + 0.5, PANEL_INCHES * rows + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    heights = [PANEL_INCHES] * rows + [BAR_INCHES]
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=heights)
    cells = [[figure.add_subplot(grid[i, j]) for j in range(columns)] for i in range(rows)]
    return figure, np.array(cells), grid


def _draw_map(
    axes: Axes,
    values: np.ndarray,
    survey: Survey,
    colours: str = VELOCITY_COLOURS,
    limits: tuple[float, float] | None = None,
) -> AxesImage:
    low, high = limits or (survey.min_velocity, survey.max_velocity)
    extent = (0, survey.nx * survey.dx, survey.ny * survey.dx, 0)
    return axes.imshow(values, cmap=colours, vmin=low, vmax=high, extent=extent)


def _draw_gather(axes: Axes, record: np.ndarray, survey: Survey) -> AxesImage:
    record = np.asarray(record, np.float32)
    limit = float(np.percentile(np.abs(record), GATHER_PERCENTILE)) or 1.0
    first, last = survey.receiver_columns[0], survey.receiver_columns[-1]
    extent = ((first - 0.5) * survey.dx, (last + 0.5) * survey.dx, survey.nt * survey.dt, 0)
    return axes.imshow(
        record, cmap=GATHER_COLOURS, vmin=-limit, vmax=limit, extent=extent, aspect="auto"
    )


def _label_outer(axes: np.ndarray, across: str, down: str) -> None:
    """Name and number the axes of a block of like panels at its left and lower edge only."""
    for panel in axes.flat:
        panel.tick_params(labelbottom=panel in axes[-1], labelleft=panel in axes[:, 0])
    for panel in axes[-1, :]:
        panel.set_xlabel(across)
    for panel in axes[:, :1].flat:
        panel.set_ylabel(down)


def _colour_bar(
    figure: Figure, image: AxesImage, grid: GridSpec, columns: slice, label: str
) -> None:
    cell = figure.add_subplot(grid[-1, columns])
    figure.colorbar(image, cax=cell, label=label, orientation="horizontal", extend="both")


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI)


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise InputError(f"{name}: shape {np.shape(array)}, expected {shape}")
