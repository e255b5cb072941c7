"""From a feature map to one vector an image: average, GeM or attention.

Each pooling takes (b, n, c), the n places of a feature map or the tokens of a transformer, and
returns (b, c) in the features' own scale, so that layers behind a pretrained pooling still fit.
"""

import math
from typing import Literal

import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn

PoolingName = Literal["avg", "gem", "attention"]


class AveragePooling(nn.Module):
    """The mean over all places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, c) → (b, c)."""
        return x.mean(1)


class GeMPooling(nn.Module):
    """Generalised mean, mean(x^p)^(1/p) with p learned (Radenović et al., arXiv 1711.02512).

    Features count from 1e-6 up: the mean is one of positive numbers.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([power]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, c) → (b, c)."""
        # In float32: x³ leaves half precision's range.
        pooled = x.float().clamp(min=1e-6).pow(self.power).mean(1).pow(1 / self.power)
        return pooled.to(x.dtype)


class AttentionPooling(nn.Module):
    """A mean whose weights are a softmax over places, one set for each group of channels.

    Scores begin at zero, so that training starts from the plain average.
    """

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__()
        self.groups = math.gcd(channels, groups)
        self.score = nn.Linear(channels, self.groups, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, c) → (b, c)."""
        weights = self.score(x).float().softmax(1).to(x.dtype)
        return torch.einsum("bng,bngd->bgd", weights, x.unflatten(2, (self.groups, -1))).flatten(1)


def make_pooling(name: PoolingName, channels: int) -> nn.Module:
    """The pooling of that name for features of `channels`."""
    if name == "attention":
        return AttentionPooling(channels)
    return GeMPooling() if name == "gem" else AveragePooling()


class Places(nn.Module):
    """A backbone's features as (b, n, c): (b, c, h, w), (b, h, w, c) or (b, prefix + n, c)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
        self.prefix = getattr(backbone, "num_prefix_tokens", 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop prefix tokens, such as a class token, and flatten what is spatial."""
        if x.ndim == 3:
            return x[:, self.prefix :]
        return x.flatten(1, 2) if self.channels_last else x.flatten(2).transpose(1, 2)


class MapPooling(nn.Module):
    """A pooling where timm has its own, with the shape that the layers behind it expect."""

    def __init__(self, pooling: nn.Module, places: Places, keeps_sides: bool) -> None:
        super().__init__()
        self.pooling, self.places, self.keeps_sides = pooling, places, keeps_sides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) or (b, h, w, c) → (b, c), or the same with sides of one."""
        pooled = self.pooling(self.places(x))
        if not self.keeps_sides:
            return pooled
        return pooled[:, None, None] if self.places.channels_last else pooled[:, :, None, None]


def replace_pooling(backbone: nn.Module, name: PoolingName) -> bool:
    """Replace timm's pooling layer, so that layers behind it stay as they were pretrained.

    Returns:
        Whether there was exactly one to replace; else nothing has been done.
    """
    found = [n for n, m in backbone.named_modules() if isinstance(m, SelectAdaptivePool2d)]
    if len(found) != 1:
        return False
    channels, places = backbone.num_features, Places(backbone)
    dummy = (
        torch.zeros(1, 1, 1, channels) if places.channels_last else torch.zeros(1, channels, 1, 1)
    )
    keeps_sides = backbone.get_submodule(found[0])(dummy).ndim == 4
    backbone.set_submodule(found[0], MapPooling(make_pooling(name, channels), places, keeps_sides))
    return True
