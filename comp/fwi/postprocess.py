"""What may be done to combined maps: nothing, or what the truth is known to keep to."""

import numpy as np

from comp.fwi.survey import OFFICIAL

# The simplest first; each does what the one before it does, too.
POSTS = ("none", "clip", "round")
# Families of layers and faults hold whole m/s, photographs do not.
_FRACTIONAL = "Style"


def is_layered(families: np.ndarray) -> np.ndarray:
    """(k,) bool of (k,) family names."""
    return np.array([not str(family).startswith(_FRACTIONAL) for family in families], dtype=bool)


def postprocess(maps: np.ndarray, post: str, families: np.ndarray | None) -> np.ndarray:
    """Maps clipped to the survey's velocities, and rounded to whole m/s where layers are.

    Args:
        maps: (k, ny, ...) float32, m/s.
        post: one of POSTS.
        families: (k,) names, to round by.
    """
    if post == "none":
        return maps
    maps = OFFICIAL.clip(maps)
    if post == "round":
        whole = is_layered(families)
        maps[whole] = np.rint(maps[whole])
    return maps
