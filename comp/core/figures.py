"""What all pictures share, and how scripts/plot.py learns which there are.

Figures are built without pyplot: no display is needed and none stays in memory.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from comp.core.files import atomic_path

DPI = 110
NAME_LENGTH = 30  # characters of a label's name beside a panel


@dataclass(frozen=True)
class Picture:
    """A kind of picture that scripts/plot.py draws.

    Attributes:
        about: one line of help.
        draw: called with `out`, the PNG, and the options' values by name; what it returns is
            printed, line by line.
        options: keyword arguments of argparse by option, e.g. `{"--truth": {"required": True}}`.
    """

    about: str
    draw: Callable[..., Iterable[str] | None]
    options: Mapping[str, Mapping[str, Any]]


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG atomically."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI)


def short(name: object, length: int = NAME_LENGTH) -> str:
    """A name, cut where it is longer than that."""
    text = str(name)
    return text if len(text) <= length else f"{text[:length]}…"
