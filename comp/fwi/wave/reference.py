"""The official forward model, transcribed line by line in float64 NumPy: slow and obvious.

It is the yardstick of the tests and shares nothing with the fast solvers but `Survey`.
"""

import math

import numpy as np

from comp.fwi.survey import Survey


def simulate(velocity: np.ndarray, survey: Survey) -> np.ndarray:
    """Record (shots, nt, receivers), float64, of one velocity map (ny, nx) in m/s.

    A complex map gives a complex record, of which v + i·ε·δv makes a derivative: for small ε the
    imaginary part is ε times the change along δv, without a difference of large numbers.
    """
    pad, dx, dt = survey.pad, survey.dx, survey.dt
    velocity = np.asarray(velocity)
    velocity = velocity.astype(np.result_type(velocity, np.float64))
    alpha = (np.pad(velocity, pad, mode="edge") * dt / dx) ** 2

    a = (pad - 1) * dx
    damp = np.zeros_like(alpha)
    strength = 3 * velocity.min() * math.log(survey.sponge_reflection) / (2 * a)
    for i in range(pad):  # top and bottom first, so that left and right keep the corners
        damp[pad - 1 - i, :] = damp[pad + survey.ny + i, :] = strength * (i * dx / a) ** 2
    for i in range(pad):
        damp[:, pad - 1 - i] = damp[:, pad + survey.nx + i] = strength * (i * dx / a) ** 2
    kappa = damp * dt

    c1, c2, c3 = -2.5, 4 / 3, -1 / 12
    wavelet = survey.wavelet()
    rows = pad + survey.receiver_row
    columns = pad + np.array(survey.receiver_columns)
    record = np.empty(survey.record_shape, alpha.dtype)
    for shot, column in enumerate(survey.source_columns):
        source = pad + survey.source_row, pad + column
        strength = (velocity[survey.source_row, column] * dt) ** 2
        before, now = np.zeros_like(alpha), np.zeros_like(alpha)
        for k in range(survey.nt):
            near = sum(np.roll(now, shift, axis) for shift in (-1, 1) for axis in (0, 1))
            far = sum(np.roll(now, shift, axis) for shift in (-2, 2) for axis in (0, 1))
            after = (2 + 2 * c1 * alpha - kappa) * now - (1 - kappa) * before
            after += alpha * (c2 * near + c3 * far)
            after[source] += strength * wavelet[k]
            record[shot, k] = after[rows, columns]
            before, now = now, after
    return record
