"""What all pictures of maps and records share: colours, scales, panels, metres and seconds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage

from comp.core.errors import InputError
from comp.fwi.survey import Survey

VELOCITY_COLOURS, ERROR_COLOURS, GATHER_COLOURS = "viridis", "RdBu_r", "gray"
# The direct wave is far stronger than the reflections: a gather is clipped at this percentile of
# its absolute amplitudes.
GATHER_PERCENTILE = 92
PANEL_INCHES, BAR_INCHES = 2.5, 0.12


def panels(
    rows: int, columns: int, height: float = PANEL_INCHES
) -> tuple[Figure, np.ndarray, GridSpec]:
    """A figure, its (rows, columns) axes, and the grid whose last, thin row is for colour bars."""
    size = (PANEL_INCHES * columns + 0.5, height * rows + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    heights = [height] * rows + [BAR_INCHES]
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=heights)
    cells = [[figure.add_subplot(grid[i, j]) for j in range(columns)] for i in range(rows)]
    return figure, np.array(cells), grid


def draw_map(
    axes: Axes,
    values: np.ndarray,
    survey: Survey,
    colours: str = VELOCITY_COLOURS,
    limits: tuple[float, float] | None = None,
) -> AxesImage:
    """Draw a map (ny, nx) in metres; `limits` None takes the survey's velocity range."""
    low, high = limits or (survey.min_velocity, survey.max_velocity)
    extent = (0, survey.nx * survey.dx, survey.ny * survey.dx, 0)
    return axes.imshow(values, cmap=colours, vmin=low, vmax=high, extent=extent)


def gather_limit(record: np.ndarray) -> float:
    """The amplitude at which a record of any shape is clipped; 1 for a silent one."""
    return float(np.percentile(np.abs(np.asarray(record, np.float32)), GATHER_PERCENTILE)) or 1.0


def draw_gather(axes: Axes, record: np.ndarray, survey: Survey, limit: float) -> AxesImage:
    """Draw a gather (nt, receivers) in metres and seconds, clipped at ± `limit`."""
    first, last = survey.receiver_columns[0], survey.receiver_columns[-1]
    extent = ((first - 0.5) * survey.dx, (last + 0.5) * survey.dx, survey.nt * survey.dt, 0)
    return axes.imshow(
        np.asarray(record, np.float32),
        cmap=GATHER_COLOURS,
        vmin=-limit,
        vmax=limit,
        extent=extent,
        aspect="auto",
    )


def label_outer(axes: np.ndarray, across: str, down: str) -> None:
    """Name and number the axes of a block of like panels at its left and lower edge only."""
    for panel in axes.flat:
        panel.tick_params(labelbottom=panel in axes[-1], labelleft=panel in axes[:, 0])
    for panel in axes[-1, :]:
        panel.set_xlabel(across)
    for panel in axes[:, :1].flat:
        panel.set_ylabel(down)


def colour_bar(
    figure: Figure, image: AxesImage, grid: GridSpec, columns: slice, label: str
) -> None:
    """A horizontal colour bar below some columns of `panels`."""
    cell = figure.add_subplot(grid[-1, columns])
    figure.colorbar(image, cax=cell, label=label, orientation="horizontal", extend="both")


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise InputError naming what has another shape than expected."""
    if np.shape(array) != shape:
        raise InputError(f"{name}: shape {np.shape(array)}, expected {shape}")
