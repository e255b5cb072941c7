"""Networks of a timm convnet's stem and four stages, and a UNet decoder."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn

from comp.core.errors import InputError
from comp.fwi.models.decoder import Decoder, DecoderStyle
from comp.fwi.models.parts import (
    BackboneConfig,
    Network,
    Side,
    ToVelocity,
    in_float32,
    near_middle,
    padded_side,
)
from comp.fwi.survey import OFFICIAL_COLUMNS, Survey

STRIDE = 8  # from the finest stage to the coarsest: every map is padded to its multiple


class PyramidConfig(BackboneConfig):
    """A convnet and its decoder."""

    decoder: tuple[Side, Side, Side, Side] = Field(
        (256, 128, 64, 32), description="decoder channels"
    )


class PyramidNetwork(Network):
    """A subclass changes the backbone's stem to what its input needs, and says what enters it."""

    families: tuple[str, ...]
    scales: Sequence[int]  # the decoder's upsampling, from the coarsest features on
    style: DecoderStyle

    def __init__(self, config: PyramidConfig, survey: Survey, crop: tuple[int, int]) -> None:
        """`crop` is the part of the decoder's output that lies over the map."""
        super().__init__(config, self.families, len(OFFICIAL_COLUMNS))
        self.backbone.head = nn.Identity()  # its norm would wait for gradients
        channels = [info["num_chs"] for info in self.backbone.feature_info]
        self.decoder = Decoder(channels, config.decoder, self.scales, self.style)
        self.head = near_middle(nn.Conv2d(config.decoder[-1], 1, 3, padding=1))
        self.velocity = ToVelocity(survey, crop)
        self.change_stem()
        self.check_records(survey)

    def change_stem(self) -> None:
        """Change what lies before the backbone's first blocks."""
        raise NotImplementedError

    def prepare(self, shots: torch.Tensor) -> torch.Tensor:
        """Records → the stem's input."""
        raise NotImplementedError

    def forward(self, shots: torch.Tensor) -> torch.Tensor:
        """(b, 5, nt, receivers) records → (b, 1, ny, nx) velocity, m/s."""
        x, features = self.backbone.stem(self.prepare(shots)), []
        for stage in self.backbone.stages:
            x = stage(x)
            features.append(x)
        return self.velocity(in_float32(self.head, self.decoder(features)))

    def check_records(self, survey: Survey) -> None:
        """Raise InputError where records of `survey` cannot be taken."""


class FullResolutionNetwork(PyramidNetwork):
    """The whole record enters; the stem makes its time steps as many as the map has rows, padded.

    A stage's blocks then see (depth, distance) of one size each, and the decoder ends there.
    """

    scales = (2, 2, 2, 1)

    def __init__(self, config: PyramidConfig, survey: Survey) -> None:
        super().__init__(config, survey, survey.map_shape)

    def check_records(self, survey: Survey) -> None:
        _, *record = survey.record_shape
        takes = [padded_side(side, STRIDE) for side in survey.map_shape]
        try:
            with torch.no_grad():
                stem = self.backbone.stem(self.prepare(torch.zeros(1, *survey.record_shape)))
                makes = list(self.backbone.stages[0].downsample(stem).shape[-2:])
        except RuntimeError:  # shorter than the padding or the kernels
            makes = []
        if makes != takes:
            raise InputError(
                f"records of {record} time steps and receivers: this stem makes {makes} of them, "
                f"expected {takes}, the map padded; an area-resized record fits hgnet or unet"
            )
