"""Loops compiled by numba at their first call."""

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """`function` compiled at its first call, releasing the GIL; kept on disk if anywhere can be.

    Without `fastmath` the compiler neither fuses nor reorders arithmetic, so a result does not
    depend, to the last bit, on the width of the processor's vectors.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(function)
