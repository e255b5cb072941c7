"""The wave equation: `simulate(velocity, survey)` turns velocity maps into shot records.

`scheme` holds the equations' coefficients, `sponge` runs them on the CPU, and `reference` is the
slow, independent transcription that the tests measure against.
"""

from comp.fwi.wave.sponge import simulate

__all__ = ["simulate"]
