"""A UNet on records pooled to image size, after the competition's public baselines."""

import difflib

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn
from torch.nn import functional as F

from comp.core.errors import InputError
from comp.fwi.config import ModelConfig
from comp.fwi.survey import OFFICIAL_COLUMNS, Survey


class PooledUNet(nn.Module):
    """Records area-pooled in time, then a UNet whose (time, receiver) is read as (depth, distance).

    Input (b, 5, nt, receivers) float32 in the record's own amplitude; output (b, 1, ny, nx) float32
    in m/s, also under autocast: half precision would round velocities to 2 m/s.

    Without `first_skip` the encoder's finest features, which carry what is peculiar to the
    recording into the map (arXiv 2212.02338), reach the decoder only through the coarser ones.

    Raises:
        InputError: an input size that the encoder's stride does not divide, or an encoder that
            segmentation-models-pytorch does not know.
    """

    def __init__(self, config: ModelConfig, survey: Survey) -> None:
        super().__init__()
        _check(config)
        self.net = smp.Unet(
            config.encoder,
            encoder_depth=config.depth,
            encoder_weights="imagenet" if config.pretrained else None,
            decoder_channels=config.decoder,
            in_channels=len(OFFICIAL_COLUMNS),
            classes=1,
        )
        self.first_skip = config.first_skip
        if not self.first_skip:
            _narrow_decoder(self.net, config)
        self.input_size, self.gain = config.input_size, config.gain
        self.map_shape = survey.map_shape
        self.middle = (survey.min_velocity + survey.max_velocity) / 2
        self.half_range = (survey.max_velocity - survey.min_velocity) / 2

    def forward(self, shots: torch.Tensor) -> torch.Tensor:
        """(b, 5, nt, receivers) records → (b, 1, ny, nx) velocity, m/s."""
        x = F.interpolate(shots, self.input_size, mode="area")
        if self.gain:  # after pooling: it costs a seventh there
            x = x.sign() * torch.log1p(self.gain * x.abs())
        features = list(self.net.encoder(x))
        if not self.first_skip:
            features[1] = features[1][:, :0]  # [0] is the record itself, which is never skipped to
        x = self.net.segmentation_head(self.net.decoder(features))
        x = F.interpolate(x.float(), self.map_shape, mode="bilinear", antialias=True)
        return self.middle + self.half_range * x


def _narrow_decoder(net: smp.Unet, config: ModelConfig) -> None:
    """Give `net` a decoder that expects no channels from the encoder's first stage."""
    channels = list(net.encoder.out_channels)
    channels[1] = 0
    centre = not isinstance(net.decoder.center, nn.Identity)
    net.decoder = UnetDecoder(channels, config.decoder, config.depth, add_center_block=centre)
    net.initialize()


def _check(config: ModelConfig) -> None:
    stride = 2**config.depth
    if any(side % stride for side in config.input_size):
        raise InputError(
            f"key 'model.input_size': got {list(config.input_size)}; takes multiples of {stride}, "
            f"the stride at model.depth {config.depth}"
        )
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
