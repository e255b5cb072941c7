"""A UNet around CAFormer on whole records, after the public full-resolution baseline."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from comp.fwi.models.decoder import DecoderStyle
from comp.fwi.models.parts import compress
from comp.fwi.models.pyramid import FullResolutionNetwork, PyramidConfig


class CAFormerConfig(PyramidConfig):
    """CAFormer (arXiv 2210.13452) and a decoder, on whole records."""

    name: Literal["caformer"] = Field("caformer", description="architecture")
    backbone: str = Field("caformer_b36", description="timm's caformer_… or convformer_…")


class CAFormerUNet(FullResolutionNetwork):
    """The 7×7 stem of stride 4 in time and 1 across, then means of 4 rows: 1000 steps become 72.

    The decoder upsamples by learned sub-pixels and weighs channels and places (SCSE).
    """

    families = ("caformer_", "convformer_")
    style = DecoderStyle(norm="instance", gelu=True, scse=True, subpixel=True)

    def change_stem(self) -> None:
        conv = self.backbone.stem.conv
        conv.stride, conv.padding = (4, 1), (2, 4)
        # timm's first stage, behind the stem, has nothing here.
        self.backbone.stages[0].downsample = nn.AvgPool2d((4, 1))

    def prepare(self, shots: torch.Tensor) -> torch.Tensor:
        return F.pad(compress(shots, self.gain), (0, 0, 78, 78), mode="reflect")
