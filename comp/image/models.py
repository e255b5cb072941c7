"""Networks from images to logits: any timm backbone, a pooling and the heads."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from comp.core.backbone import BackboneNetwork, InitialWeights, make_backbone
from comp.core.errors import InputError
from comp.core.mixing import Blend, Mix, mix
from comp.image.activations import (
    Activation,
    check_swapped,
    count_activations,
    swap_activations,
)
from comp.image.decoder import MLDecoder
from comp.image.heads import Head
from comp.image.pooling import Places, PoolingName, make_pooling, replace_pooling


class ModelConfig(InitialWeights):
    """The network."""

    backbone: str = Field("efficientnet_b0", description="timm model, with or without a tag")
    activation: Activation | None = Field(
        None, description="in place of all the backbone's activations, null to keep them"
    )
    head: Literal["linear", "ml_decoder"] = Field("linear", description="from features to logits")
    pooling: PoolingName = Field("avg", description="of the feature map, before a linear head")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the head's input")
    decoder_width: int = Field(768, ge=8, multiple_of=8, description="ml_decoder: of its queries")
    decoder_groups: int = Field(100, ge=1, description="ml_decoder: most queries a head")
    mix_stage: int | None = Field(
        None, ge=0, description="stage behind which samples are mixed, 0 the finest; null: nowhere"
    )

    @field_validator("pooling")
    @classmethod
    def _check_pooling(cls, pooling: str, info: ValidationInfo) -> str:
        if pooling != "avg" and info.data.get("head") == "ml_decoder":
            raise ValueError("takes avg where model.head is ml_decoder, which does not pool")
        return pooling


class ImageModel(BackboneNetwork):
    """Input (b, in_chans, height, width) float, output (b, C) float32 logits, also under autocast.

    The pooling stands where timm has its own, so that a backbone keeps what it has behind it
    (a norm, a last convolution) as it was pretrained; with `avg` the features are timm's own.

    Raises:
        InputError: a backbone, a stage or an activation that cannot be had, weights that do not fit
            exactly, or images of a size that the backbone does not take.
    """

    def __init__(
        self,
        config: ModelConfig,
        heads: Sequence[Head],
        in_chans: int = 3,
        size: tuple[int, int] | None = None,
    ) -> None:
        """`size` is the images' height and width; None is the one the backbone is known for."""
        super().__init__()
        source = {"pretrained": config.pretrained, "weights": config.weights}
        self.backbone = make_backbone(config.backbone, in_chans, size, **source)
        places, sizes = Places(self.backbone), [len(head.labels) for head in heads]
        if config.head == "ml_decoder":
            self.backbone.reset_classifier(0, "")
            self.pooling: nn.Module = places
        elif replace_pooling(self.backbone, config.pooling):
            self.pooling = nn.Identity()
        else:
            self.backbone.reset_classifier(0, "")
            pooling = make_pooling(config.pooling, self.backbone.head_hidden_size)
            self.pooling = nn.Sequential(places, pooling)
        if config.activation:
            swap_activations(self.backbone, config.activation)
            shape = size or self.backbone.pretrained_cfg["input_size"][1:]
            check_swapped(self.backbone, config.activation, (in_chans, *shape))
        self.dropout = nn.Dropout(config.dropout)
        features = self.backbone.head_hidden_size
        if config.head == "ml_decoder":
            width, groups = config.decoder_width, config.decoder_groups
            self.head: nn.Module = MLDecoder(features, sizes, width, groups)
        else:
            self.head = nn.Linear(features, sum(sizes))
        self.mixes = config.mix_stage is not None
        self._draw: Mix | Blend | None = None
        if config.mix_stage is not None:
            # A hook on a bound method: a copy of the network, as for averaged weights, has its own.
            _stage(self.backbone, config.mix_stage).register_forward_hook(self._mix_features)

    def forward(self, images: torch.Tensor, draw: Mix | Blend | None = None) -> torch.Tensor:
        """Logits of `images`, their features mixed by `draw` behind the stage `mix_stage`.

        Raises:
            ValueError: a draw for a network without `mix_stage`.
        """
        if draw is not None and not self.mixes:
            raise ValueError("a draw to mix features by, but no model.mix_stage")
        self._draw = draw
        try:
            features = self.backbone(images)
        finally:
            self._draw = None
        return self.head(self.dropout(self.pooling(features))).float()

    def _mix_features(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        # Weights are float32; under autocast features go on in the type they came in.
        return output if self._draw is None else mix(output, self._draw).to(output.dtype)


def build_model(
    config: ModelConfig,
    heads: Sequence[Head],
    in_chans: int = 3,
    fetch: bool = True,
    size: tuple[int, int] | None = None,
) -> ImageModel:
    """The network that `config` names, for images of `size` (height, width).

    Without `fetch` no initial weights are looked for, neither local nor remote: trained ones are
    about to be loaded.
    """
    if not fetch:
        config = config.model_copy(update={"pretrained": False, "weights": None})
    network = ImageModel(config, heads, in_chans, size)
    if size is not None:
        _check_size(network, config, (in_chans, *size))
    return network


def _check_size(network: ImageModel, config: ModelConfig, shape: tuple[int, int, int]) -> None:
    """Run the network without data; raises InputError where it cannot take images of `shape`."""
    try:
        count_activations(network, shape)
    except Exception as error:  # as many types as there are models
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"key 'data.size': got {list(shape[1:])}; {config.backbone} does not take it: {reason}"
        ) from None


def _stage(backbone: nn.Module, number: int) -> nn.Module:
    """The module that a backbone's stage ends with."""
    names = [info["module"] for info in backbone.feature_info]
    if number >= len(names):
        raise InputError(
            f"key 'model.mix_stage': got {number}; the backbone has stages 0 to {len(names) - 1}"
        )
    return backbone.get_submodule(names[number])
