"""A UNet on records pooled to image size, after the competition's public baselines."""

import difflib
from typing import Any, Literal

import segmentation_models_pytorch as smp
import timm
import torch
from pydantic import Field
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn
from torch.nn import functional as F

from comp.core.backbone import InitialWeights, make_backbone
from comp.core.errors import InputError
from comp.fwi.models.parts import Side, ToVelocity, compress, in_float32, pad_to
from comp.fwi.survey import OFFICIAL_COLUMNS, Survey


class UNetConfig(InitialWeights):
    """Any encoder and decoder of segmentation-models-pytorch's UNet, on pooled records.

    `weights` are of encoders of timm's, `tu-…`, alone.
    """

    name: Literal["unet"] = Field("unet", description="architecture")
    encoder: str = Field("resnet18", description="segmentation-models-pytorch encoder")
    depth: int = Field(5, ge=3, le=5, description="encoder stages")
    decoder: tuple[int, ...] = Field((256, 128, 64, 32, 16), description="decoder channels")
    first_skip: bool = Field(True, description="hand the encoder's finest features across")
    input_size: tuple[Side, Side] = Field((96, 96), description="pooled record: time, receivers")
    gain: float = Field(0.0, ge=0, description="k of sign(x)·log(1 + k|x|) on records, 0: linear")


class PooledUNet(nn.Module):
    """Records area-pooled in time, then a UNet whose (time, receiver) is read as (depth, distance).

    Input (b, 5, nt, receivers) float32 in the record's own amplitude; output (b, 1, ny, nx) float32
    in m/s, also under autocast, as is the last layer.

    Without `first_skip` the encoder's finest features, which carry what is peculiar to the
    recording into the map (arXiv 2212.02338), reach the decoder only through the coarser ones.
    A pooled record that the encoder's stride does not divide is padded by repeating its edges, and
    the output cropped. Weights carry over to another `input_size`.

    Raises:
        InputError: an encoder that segmentation-models-pytorch does not know, a decoder of another
            depth, or weights that are not the encoder's own.
    """

    def __init__(self, config: UNetConfig, survey: Survey) -> None:
        super().__init__()
        _check(config)
        initial: dict[str, Any] = {"encoder_weights": "imagenet" if config.pretrained else None}
        if config.weights is not None:
            # Of the whole model first: timm loads strictly there, and not where it takes features.
            whole = make_backbone(
                config.encoder.removeprefix("tu-"), len(OFFICIAL_COLUMNS), weights=config.weights
            )
            initial = {"encoder_weights": True, "pretrained_cfg": whole.pretrained_cfg}
        self.net = smp.Unet(
            config.encoder,
            encoder_depth=config.depth,
            decoder_channels=config.decoder,
            in_channels=len(OFFICIAL_COLUMNS),
            classes=1,
            **initial,
        )
        self.first_skip = config.first_skip
        if not self.first_skip:
            _narrow_decoder(self.net, config)
        self.input_size, self.gain, self.stride = config.input_size, config.gain, 2**config.depth
        self.velocity = ToVelocity(survey, config.input_size)

    def forward(self, shots: torch.Tensor) -> torch.Tensor:
        """(b, 5, nt, receivers) records → (b, 1, ny, nx) velocity, m/s."""
        # Compressed after pooling: it costs a seventh there.
        x = compress(F.interpolate(shots, self.input_size, mode="area"), self.gain)
        features = list(self.net.encoder(pad_to(x, self.stride)))
        if not self.first_skip:
            features[1] = features[1][:, :0]  # [0] is the record itself, which is never skipped to
        x = self.net.decoder(features)
        return self.velocity(in_float32(self.net.segmentation_head, x))


def _narrow_decoder(net: smp.Unet, config: UNetConfig) -> None:
    """Give `net` a decoder that expects no channels from the encoder's first stage."""
    channels = list(net.encoder.out_channels)
    channels[1] = 0
    centre = not isinstance(net.decoder.center, nn.Identity)
    net.decoder = UnetDecoder(channels, config.decoder, config.depth, add_center_block=centre)
    net.initialize()


def _check(config: UNetConfig) -> None:
    if len(config.decoder) != config.depth:
        raise InputError(
            f"key 'model.decoder': got {len(config.decoder)} channels; takes {config.depth}, "
            "one a stage of model.depth"
        )
    # segmentation-models-pytorch reaches every timm backbone under a `tu-` prefix.
    known = [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]
    if config.encoder not in known and config.encoder.split(".")[0] not in known:
        near = ", ".join(difflib.get_close_matches(config.encoder, known, n=3, cutoff=0.0))
        raise InputError(f"key 'model.encoder': got {config.encoder!r}; nearest known: {near}")
    if config.weights is not None and not config.encoder.startswith("tu-"):
        raise InputError(
            f"key 'model.weights': got {config.weights!r}; takes null with model.encoder "
            f"{config.encoder!r}: only timm's, tu-…, start from a file"
        )
