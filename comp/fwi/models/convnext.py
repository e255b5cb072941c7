"""A UNet around ConvNeXt on whole records, after the public full-resolution baseline."""

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from comp.core.errors import InputError
from comp.fwi.models.decoder import DecoderStyle
from comp.fwi.models.parts import compress
from comp.fwi.models.pyramid import FullResolutionNetwork, PyramidConfig


class ConvNeXtConfig(PyramidConfig):
    """ConvNeXt and a decoder, on whole records."""

    name: Literal["convnext"] = Field("convnext", description="architecture")
    backbone: str = Field("convnext_small", description="timm's convnext_… or convnextv2_…")


class ConvNeXtUNet(FullResolutionNetwork):
    """Two 4×4 convolutions of stride 4 in time and 1 across: 1000 steps become 72 rows.

    The second one starts from the first one's weights, tiled over its channels.
    """

    families = ("convnext",)
    style = DecoderStyle(norm="instance", gelu=True)

    def change_stem(self) -> None:
        stem = self.backbone.stem
        if len(stem) != 2 or stem[0].kernel_size != (4, 4):
            raise InputError(
                f"key 'model.backbone': a stem of {len(stem)} layers, expected one of 4×4 patches "
                "as convnext_small has it"
            )
        conv, norm = stem
        conv.stride, conv.padding = (4, 1), (0, 2)
        width = conv.out_channels
        second = nn.Conv2d(width, width, 4, stride=(4, 1), padding=(0, 1))
        with torch.no_grad():
            # Scaled by the number of copies, as if they shared what one of them was pretrained for.
            tiled = conv.weight.repeat(1, -(-width // conv.in_channels), 1, 1)[:, :width]
            second.weight.copy_(tiled * conv.in_channels / width)
            second.bias.zero_()
        self.backbone.stem = nn.Sequential(conv, norm, nn.GELU(), second, copy.deepcopy(norm))
        self.backbone.norm_pre = nn.Identity()  # behind the last stage, which goes on as it is

    def prepare(self, shots: torch.Tensor) -> torch.Tensor:
        return F.pad(compress(shots, self.gain), (1, 1, 80, 80), mode="reflect")
