"""A UNet around HGNetV2 on records area-resized to the map's size, after the public baseline."""

from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from comp.fwi.models.decoder import DecoderStyle
from comp.fwi.models.parts import Side, compress, pad_to
from comp.fwi.models.pyramid import STRIDE, PyramidConfig, PyramidNetwork
from comp.fwi.survey import Survey


class HGNetConfig(PyramidConfig):
    """HGNetV2 and a decoder, on small records."""

    name: Literal["hgnet"] = Field("hgnet", description="architecture")
    backbone: str = Field("hgnetv2_b2", description="timm's hgnetv2_b0 … hgnetv2_b6")
    input_size: tuple[Side, Side] = Field((70, 70), description="resized record: time, receivers")


class HGNetUNet(PyramidNetwork):
    """(time, receiver) is read as (depth, distance): 70×70, padded to 72×72 by repeating edges.

    The first convolution of the stem and the downsampling of the last stage lose their stride, so
    that the stages see 36, 18, 9 and 9 cells a side. Weights carry over to another `input_size`.
    """

    families = ("hgnetv2_",)
    scales = (1, 2, 2, 2)
    style = DecoderStyle()

    def __init__(self, config: HGNetConfig, survey: Survey) -> None:
        self.input_size = config.input_size
        super().__init__(config, survey, config.input_size)

    def change_stem(self) -> None:
        self.backbone.stem.stem1.conv.stride = (1, 1)
        self.backbone.stages[-1].downsample.conv.stride = (1, 1)

    def prepare(self, shots: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(shots, self.input_size, mode="area")
        return pad_to(compress(x, self.gain), STRIDE)
