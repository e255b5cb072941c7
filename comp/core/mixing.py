"""Mixup and cutmix: the random draw apart from the transform, so that one draw can mix any tensor.

Inputs, features and targets are mixed by the same draw. Targets must be multi-hot or one-hot: their
weighted mean is what cross-entropies, by sigmoid or by softmax, take for a mixed sample.

mixup: Zhang et al., arXiv 1710.09412; cutmix: Yun et al., arXiv 1905.04899.
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Mix:
    """Sample i becomes `weight[i]·x[i] + (1 − weight[i])·x[partner[i]]`.

    Attributes:
        partner: (b,) int64.
        weight: (b,) float32 in [0, 1].
    """

    partner: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class Blend:
    """Sample i becomes `weights[0, i]·x[i] + Σⱼ weights[j, i]·x[partners[j − 1, i]]`, of k images.

    Attributes:
        partners: (k − 1, b) int64.
        weights: (k, b) float32, columns summing to 1.
    """

    partners: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class CutMix:
    """Sample i gets the pixels of its partner inside a box.

    Attributes:
        boxes: (b, 4) int64: top, bottom, left, right in pixels; bottom and right lie outside.
        shape: (height, width) of the images that the boxes were drawn for.
        mix: the partners, weighted by their exact share of the pixels; mixes the targets.
    """

    boxes: torch.Tensor
    shape: tuple[int, int]
    mix: Mix


def draw_mixup(size: int, alpha: float, generator: torch.Generator) -> Mix:
    """Draw partners and weights λ ~ Beta(alpha, alpha), one a sample, for a batch of `size`.

    Each sample stays the larger part of itself.
    """
    partner = torch.randperm(size, generator=generator)
    weight = _numpy_generator(generator).beta(alpha, alpha, size).astype("float32")
    weight = torch.from_numpy(weight)
    return Mix(partner, torch.maximum(weight, 1 - weight))


def draw_dirichlet(size: int, images: int, alpha: float, generator: torch.Generator) -> Blend:
    """Draw `images` − 1 partners and weights ~ Dirichlet(alpha, …, alpha) for each sample.

    Each sample is the largest part of itself; two images are the same in law as `draw_mixup`.
    """
    partners = torch.stack([torch.randperm(size, generator=generator) for _ in range(images - 1)])
    weights = _numpy_generator(generator).dirichlet([alpha] * images, size).T
    weights = torch.from_numpy(np.sort(weights, axis=0)[::-1].astype("float32"))
    return Blend(partners, weights)


def draw_cutmix(
    size: int, alpha: float, shape: tuple[int, int], generator: torch.Generator
) -> CutMix:
    """Draw partners and boxes of the share 1 − λ, λ ~ Beta(alpha, alpha), for images of `shape`.

    A box's centre is uniform and what lies outside the image is cut off, so that the weights are
    computed from the boxes as they end up.
    """
    height, width = shape
    partner = torch.randperm(size, generator=generator)
    centre = torch.rand(size, 2, generator=generator)
    kept = torch.from_numpy(_numpy_generator(generator).beta(alpha, alpha, size))
    sides = torch.tensor([height, width])
    box = ((1 - kept).sqrt()[:, None] * sides).round().long()
    first = (centre * sides).long() - box // 2
    last = torch.minimum(first + box, sides)
    first = first.clamp(min=0)
    share = ((last - first).prod(1) / (height * width)).float()
    boxes = torch.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1)
    return CutMix(boxes, (height, width), Mix(partner, 1 - share))


def mix(x: torch.Tensor, draw: Mix | Blend) -> torch.Tensor:
    """Apply a draw to `x` (b, ...) on whatever device it lies; integer input becomes float."""
    if isinstance(draw, Mix):
        draw = Blend(draw.partner[None], torch.stack([draw.weight, 1 - draw.weight]))
    weights = draw.weights.to(x.device, non_blocking=True).view(
        len(draw.weights), -1, *[1] * (x.ndim - 1)
    )
    mixed = weights[0] * x
    for partner, weight in zip(draw.partners.to(x.device, non_blocking=True), weights[1:]):
        mixed = mixed + weight * x[partner]
    return mixed


def cutmix(x: torch.Tensor, draw: CutMix) -> torch.Tensor:
    """Apply a draw to images (b, ..., height, width) of any type, on whatever device they lie.

    Raises:
        ValueError: images of another size than the boxes, whose weights would not be theirs.
    """
    if tuple(x.shape[-2:]) != draw.shape:
        raise ValueError(f"images of {tuple(x.shape[-2:])} pixels, drawn for {draw.shape}")
    top, bottom, left, right = draw.boxes.to(x.device, non_blocking=True).T[:, :, None]
    row, column = (torch.arange(side, device=x.device) for side in draw.shape)
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    inside = rows[:, :, None] & columns[:, None, :]
    inside = inside.view(len(x), *[1] * (x.ndim - 3), *draw.shape)
    return torch.where(inside, x[draw.mix.partner.to(x.device, non_blocking=True)], x)


def _numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """One seeded from `generator`: torch's Beta and Dirichlet take no generator, numpy's do."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
