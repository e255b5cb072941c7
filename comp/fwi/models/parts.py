"""What the networks share: amplitude compression, padding, the way out in m/s, a timm backbone."""

import math
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from comp.core.backbone import BackboneNetwork, InitialWeights, check_backbone, make_backbone
from comp.fwi.survey import Survey

HeadT = TypeVar("HeadT", nn.Conv2d, nn.Linear)
Side = Annotated[int, Field(ge=8)]


class BackboneConfig(InitialWeights):
    """What every network around a timm backbone can be told."""

    backbone: str = Field(description="timm model, with or without a tag")
    gain: float = Field(0.0, ge=0, description="k of sign(x)·log(1 + k|x|) on records, 0: linear")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the last block")
    grad_checkpointing: bool = Field(False, description="save memory, compute the backbone twice")


class Network(BackboneNetwork):
    """Input (b, 5, nt, receivers) float32 in the record's own amplitude; output (b, 1, ny, nx) m/s.

    The output is float32 also under autocast, and so is the last layer, see `in_float32`.

    Raises:
        InputError: a backbone of another family, one that cannot be had, or weights not its own.
    """

    def __init__(
        self,
        config: BackboneConfig,
        families: tuple[str, ...],
        in_chans: int,
        size: tuple[int, int] | None = None,
        **how: Any,
    ) -> None:
        """`families` are the beginnings of names that the network takes; rest: `make_backbone`."""
        super().__init__()
        check_backbone(config.backbone, families)
        how |= {"pretrained": config.pretrained, "weights": config.weights}
        how |= {"drop_path_rate": config.drop_path}
        self.backbone = make_backbone(config.backbone, in_chans, size, **how)
        if config.grad_checkpointing:
            self.backbone.set_grad_checkpointing()
        self.gain = config.gain


class ToVelocity(nn.Module):
    """(b, 1, h, w) float32 around zero → (b, 1, ny, nx) float32 velocity, m/s.

    Linear: 0 is the middle of the competition's range and ±1 are its ends, which may be left;
    `sigmoid` keeps to it.
    """

    def __init__(
        self, survey: Survey, crop: tuple[int, int] | None = None, sigmoid: bool = False
    ) -> None:
        """`crop` is the part of (h, w), in its middle, that lies over the map; None is all."""
        super().__init__()
        self.crop, self.sigmoid, self.map_shape = crop, sigmoid, survey.map_shape
        self.middle = (survey.min_velocity + survey.max_velocity) / 2
        self.half_range = (survey.max_velocity - survey.min_velocity) / 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One channel of features → velocity."""
        if self.crop is not None:
            top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], self.crop))
            x = x[..., top : top + self.crop[0], left : left + self.crop[1]]
        x = resize(x, self.map_shape)
        if self.sigmoid:
            x = 2 * x.sigmoid() - 1
        return self.middle + self.half_range * x


def near_middle(head: HeadT) -> HeadT:
    """A network's last layer, so begun that all velocities are near the middle of their range."""
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def in_float32(head: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`head` of `x`, also under autocast: bfloat16 near ±1 would round velocities to 6 m/s."""
    with torch.autocast(x.device.type, enabled=False):
        return head(x.float())


def compress(x: torch.Tensor, gain: float) -> torch.Tensor:
    """sign(x)·log(1 + gain·|x|), or `x` itself for gain 0: late arrivals are weak."""
    return x.sign() * torch.log1p(gain * x.abs()) if gain else x


def resize(x: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(b, c, h, w) → (b, c, *shape), bilinear, nothing aliased."""
    if tuple(x.shape[-2:]) == tuple(shape):
        return x
    return F.interpolate(x, shape, mode="bilinear", antialias=True)


def pad_to(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(b, c, h, w) with its edges repeated on both sides until `stride` divides h and w."""
    missing = [padded_side(side, stride) - side for side in x.shape[-2:]]
    if not any(missing):
        return x
    (top, left), (bottom, right) = zip(*((m // 2, m - m // 2) for m in missing))
    return F.pad(x, (left, right, top, bottom), mode="replicate")


def padded_side(side: int, stride: int) -> int:
    """The smallest multiple of `stride` that is not below `side`."""
    return math.ceil(side / stride) * stride
