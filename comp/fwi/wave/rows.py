"""What the kernels take and give on rows of the padded grid, (n, shots, nt, width): sources,
residuals, records, and the gradient in what the sources fire.

The rows reach from the first column with a source or a receiver to the last, see `span`.
"""

import torch

from comp.fwi.wave.scheme import Scheme


def span(scheme: Scheme) -> tuple[int, int]:
    """The first column of the rows, and their width."""
    columns = torch.cat([scheme.sources[:, 1], scheme.receivers[:, 1]])
    first, last = int(columns.min()), int(columns.max())
    return first, last + 1 - first


def zeros(scheme: Scheme) -> torch.Tensor:
    """A row of zeros for every shot and step."""
    return scheme.alpha.new_zeros(*scheme.amplitude.shape, span(scheme)[1])


def sources(scheme: Scheme) -> torch.Tensor:
    """What is added to the sources' row."""
    row, (first, _) = zeros(scheme), span(scheme)
    for shot, x in enumerate(scheme.sources[:, 1].tolist()):
        row[:, shot, :, x - first] = scheme.amplitude[:, shot]
    return row


def residuals(scheme: Scheme, grad_record: torch.Tensor) -> torch.Tensor:
    """What the adjoint adds to the receivers' row: α·grad_record, summed where receivers meet."""
    y, columns = int(scheme.receivers[0, 0]), scheme.receivers[:, 1]
    row, (first, _) = zeros(scheme), span(scheme)
    at_receivers = scheme.alpha[:, y, columns.tolist()][:, None, None] * grad_record
    return row.index_add_(3, (columns - first).to(row.device), at_receivers)


def at_receivers(scheme: Scheme, row: torch.Tensor) -> torch.Tensor:
    """(n, shots, nt, receivers) of a row."""
    first, _ = span(scheme)
    columns = (scheme.receivers[:, 1] - first).tolist()
    if columns == list(range(columns[0], columns[-1] + 1)):  # a slice needs no index on the GPU
        return row[..., columns[0] : columns[-1] + 1].contiguous()
    return row[..., columns]


def alpha_at_sources(scheme: Scheme) -> torch.Tensor:
    """(n, shots); one by one, as the host would wait for a list of indices to reach a GPU."""
    return torch.stack([scheme.alpha[:, y, x] for y, x in scheme.sources.tolist()], 1)


def amplitude_gradient(scheme: Scheme, row: torch.Tensor) -> torch.Tensor:
    """(n, shots, nt) from the adjoint field μ = α·λ on the sources' row."""
    first, _ = span(scheme)
    columns = enumerate(scheme.sources[:, 1].tolist())
    of_sources = torch.stack([row[:, shot, :, x - first] for shot, x in columns], 1)
    return of_sources / alpha_at_sources(scheme)[..., None]
