"""The decoder of the networks with a feature pyramid: segmentation-models-pytorch's UNet blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import nn

_NORMS = {"batch": "batchnorm", "instance": {"type": "instancenorm", "affine": True}}


@dataclass(frozen=True)
class DecoderStyle:
    """How a decoder is built; a network's own, not a setting."""

    norm: Literal["batch", "instance"] = "batch"
    gelu: bool = False  # instead of ReLU
    scse: bool = False  # squeeze and excitation over channels and over places, arXiv 1803.02579
    subpixel: bool = False  # learned upsampling, arXiv 1609.05158, instead of repetition


class Decoder(nn.Module):
    """Features of falling resolution → (b, channels[-1], h, w) at `scales` times the coarsest.

    One block for each of `channels`: upsample, concatenate the next finer features while there are
    any, two 3×3 convolutions.
    """

    def __init__(
        self,
        features: Sequence[int],
        channels: Sequence[int],
        scales: Sequence[int],
        style: DecoderStyle,
    ) -> None:
        """`features` are the encoder's channels, finest first; `scales` the blocks' upsampling."""
        super().__init__()
        coarsest, *skips = reversed(features)
        skips += [0] * (len(channels) - len(skips))
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for before, skip, after, scale in zip((coarsest, *channels), skips, channels, scales):
            block = UnetDecoderBlock(
                before,
                skip,
                after,
                use_norm=_NORMS[style.norm],
                attention_type="scse" if style.scse else None,
            )
            if not skip:
                block.attention1 = nn.Identity()  # runs on what is concatenated only
            self.blocks.append(block)
            self.ups.append(_upsampling(before, scale, style.subpixel))
        initialize_decoder(self.blocks)
        if style.gelu:
            for module in self.modules():
                if isinstance(module, Conv2dReLU):
                    module[-1] = nn.GELU()

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """(b, c, h, w) features, finest first → the last block's."""
        x, *skips = reversed(features)
        for number, (up, block) in enumerate(zip(self.ups, self.blocks)):
            x = up(x)
            x = block(x, *x.shape[-2:], skips[number] if number < len(skips) else None)
        return x


def _upsampling(channels: int, scale: int, subpixel: bool) -> nn.Module:
    if scale == 1:
        return nn.Identity()
    if not subpixel:
        return nn.Upsample(scale_factor=scale)
    spread = nn.Conv2d(channels, channels * scale**2, 1)
    # Begins as repetition: places drawn apart would leave a checkerboard to unlearn.
    with torch.no_grad():
        for weight in (spread.weight, spread.bias):
            weight.copy_(weight[:: scale**2].repeat_interleave(scale**2, 0))
    return nn.Sequential(spread, nn.PixelShuffle(scale))
