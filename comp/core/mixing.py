"""Mixup: the random draw apart from the transform, so that the same draw can mix any tensor.

mixup: Zhang et al., arXiv 1710.09412.
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Mix:
    """Sample i becomes `weight[i]·x[i] + (1 − weight[i])·x[partner[i]]`.

    Attributes:
        partner: (b,) int64.
        weight: (b,) float32 in [0.5, 1]: each sample stays the larger part of itself.
    """

    partner: torch.Tensor
    weight: torch.Tensor


def draw_mixup(size: int, alpha: float, generator: torch.Generator) -> Mix:
    """Draw partners and weights λ ~ Beta(alpha, alpha), one a sample, for a batch of `size`."""
    partner = torch.randperm(size, generator=generator)
    # torch's Beta takes no generator; numpy's does, seeded from the one given.
    seed = int(torch.randint(2**62, (1,), generator=generator))
    weight = np.random.default_rng(seed).beta(alpha, alpha, size).astype("float32")
    weight = torch.from_numpy(weight)
    return Mix(partner, torch.maximum(weight, 1 - weight))


def mix(x: torch.Tensor, draw: Mix) -> torch.Tensor:
    """Apply a draw to `x` (b, ...) on whatever device it lies; integer input becomes float."""
    weight = draw.weight.to(x.device).view(-1, *[1] * (x.ndim - 1))
    return weight * x + (1 - weight) * x[draw.partner.to(x.device)]
