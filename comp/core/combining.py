"""Several predictions of the same values into one, in compiled loops: weighted mean and median."""

import numpy as np

from comp.core.compiled import compiled

_BLOCK = 256  # values of a file worked on at once: those of ten files fit the first cache
_ROUNDING = 1e-6  # of a sum of weights in float32


def weighted_mean(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the files, summed in float64.

    Args:
        stack: (files, k, ...) float32, C-contiguous.
        weights: (k, files), or (files,) for all samples alike; each sample's sum to one.

    Returns:
        (k, ...) float32.
    """
    files, samples = stack.shape[:2]
    result = np.empty(stack.shape[1:], np.float32)
    shares = _per_sample(weights, samples, files, np.float64)
    _mean(stack.reshape(files, samples, -1), shares, result.reshape(samples, -1))
    return result


def weighted_median(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The value that half of the weight lies below; between two of them, their midpoint.

    With equal weights this is the median. A file without weight counts as if it were not there.

    Args and returns: as `weighted_mean`.
    """
    files, samples = stack.shape[:2]
    result = np.empty(stack.shape[1:], np.float32)
    shares = _per_sample(weights, samples, files, np.float32)
    pairs = sorting_network(files)
    _median(stack.reshape(files, samples, -1), shares, pairs, result.reshape(samples, -1))
    return result


def _per_sample(weights: np.ndarray, samples: int, files: int, dtype: type) -> np.ndarray:
    """(k, files) weights in memory of their own; the loops are compiled for that layout alone."""
    return np.broadcast_to(np.asarray(weights, dtype), (samples, files)).copy()


def sorting_network(count: int) -> np.ndarray:
    """(comparisons, 2) pairs of places which, put in order one after another, sort `count` values.

    Batcher's odd-even merge sort: it compares the same places whatever the values, so that many
    values are sorted at a time in the lanes of a vector.
    """
    pairs, p = [], 1
    while p < count:
        k = p
        while k:
            for j in range(k % p, count - k, 2 * k):
                for i in range(min(k, count - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return np.array(pairs, np.int64).reshape(-1, 2)


@compiled
def _mean(stack: np.ndarray, weights: np.ndarray, result: np.ndarray) -> None:
    """(files, k, m) float32 and (k, files) float64 into (k, m)."""
    files, samples, width = stack.shape
    total = np.empty(width)
    for sample in range(samples):
        total[:] = 0
        for file in range(files):
            weight = weights[sample, file]
            values = stack[file, sample]
            for j in range(width):
                total[j] += weight * values[j]
        for j in range(width):
            result[sample, j] = total[j]


@compiled
def _median(stack: np.ndarray, weights: np.ndarray, pairs: np.ndarray, result: np.ndarray) -> None:
    """(files, k, m) and (k, files) float32, by a sorting network, into (k, m)."""
    files, samples, width = stack.shape
    value = np.empty((files, _BLOCK), np.float32)
    share = np.empty((files, _BLOCK), np.float32)
    below = np.empty(_BLOCK, np.float32)
    low = np.empty(_BLOCK, np.float32)
    high = np.empty(_BLOCK, np.float32)
    least = np.float32(0.5 - _ROUNDING)
    most = np.float32(0.5 + _ROUNDING)
    for sample in range(samples):
        for start in range(0, width, _BLOCK):
            count = min(_BLOCK, width - start)
            for file in range(files):
                value[file, :count] = stack[file, sample, start : start + count]
                share[file, :] = weights[sample, file]
            for pair in range(len(pairs)):
                a, b = value[pairs[pair, 0]], value[pairs[pair, 1]]
                u, v = share[pairs[pair, 0]], share[pairs[pair, 1]]
                for j in range(_BLOCK):
                    x, y, s, t = a[j], b[j], u[j], v[j]
                    swap = x > y
                    a[j] = y if swap else x
                    b[j] = x if swap else y
                    u[j] = t if swap else s
                    v[j] = s if swap else t
            below[:] = 0
            for file in range(files):
                x, u = value[file], share[file]
                for j in range(_BLOCK):
                    before = below[j]
                    after = before + u[j]
                    low[j] = x[j] if (before < least) & (after >= least) else low[j]
                    high[j] = x[j] if (before <= most) & (after > most) else high[j]
                    below[j] = after
            for j in range(count):
                result[sample, start + j] = (low[j] + high[j]) / np.float32(2)
