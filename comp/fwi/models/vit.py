"""A vision transformer on the five shots side by side, with or without a decoder."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from comp.core.errors import InputError
from comp.fwi.models.parts import ToVelocity, compress, in_float32, resize
from comp.fwi.models.tokens import TokenConfig, TokenNetwork
from comp.fwi.survey import OFFICIAL_COLUMNS, Survey


class ViTConfig(TokenConfig):
    """A vision transformer."""

    name: Literal["vit"] = Field("vit", description="architecture")
    backbone: str = Field("vit_base_patch16_224", description="timm's vit_… or eva02_…")
    size: int = Field(350, ge=16, description="side of the image of five shots")
    patch: int | None = Field(10, ge=2, description="side of a patch, null: the backbone's own")
    cells: int = Field(2, ge=1, description="side of the part of a map that a token answers with")
    decoder_depth: int = Field(0, ge=0, description="decoder layers, 0: tokens answer themselves")
    decoder_width: int = Field(512, ge=64, multiple_of=64, description="of the decoder's queries")


class ViT(TokenNetwork):
    """(5, nt, receivers) → (1, size, size): each shot resized to a fifth of the columns.

    Without a decoder every token answers for the cells at its own place in the image; with one, a
    query for each part of the map looks at all tokens. The sigmoid keeps to 1500 … 4500 m/s.
    """

    def __init__(self, config: ViTConfig, survey: Survey) -> None:
        super().__init__(config, ("vit_", "eva02_"), len(OFFICIAL_COLUMNS))
        width = self.backbone.num_features
        self.decoder = None
        if config.decoder_depth:
            self.decoder = MapDecoder(width, config, survey)
            width = config.decoder_width
        self.head = self.make_head(width)
        self.velocity = ToVelocity(survey, sigmoid=True)

    def forward(self, shots: torch.Tensor) -> torch.Tensor:
        """(b, 5, nt, receivers) records → (b, 1, ny, nx) velocity, m/s."""
        x = compress(resize(shots, (self.size, self.size // shots.shape[1])), self.gain)
        x = x.transpose(1, 2).flatten(2)[:, None]
        x = self.tokens(self.backbone.forward_features(x))
        if self.decoder is not None:
            x = self.decoder(x)
        return self.velocity(self.spread(in_float32(self.head, x)))

    def no_weight_decay(self) -> set[str]:
        """Also the decoder's queries, which are places."""
        return super().no_weight_decay() | ({"decoder.queries"} if self.decoder else set())


class MapDecoder(nn.Module):
    """(b, n, c) tokens of the image → (b, m, width) tokens of the map, one for each `cells`².

    Each layer attends among the queries, then from them to the image, as in arXiv 1706.03762.
    Queries belong to the map, so that they are the same for an image of any size.
    """

    def __init__(self, features: int, config: ViTConfig, survey: Survey) -> None:
        super().__init__()
        if survey.ny % config.cells or survey.nx % config.cells:
            raise InputError(
                f"key 'model.cells': got {config.cells}; takes a divisor of {survey.map_shape}, "
                "the map's sides, where model.decoder_depth is not 0"
            )
        width, count = config.decoder_width, survey.ny * survey.nx // config.cells**2
        self.queries = nn.Parameter(torch.empty(1, count, width))
        nn.init.trunc_normal_(self.queries, std=0.02)
        self.features = nn.Linear(features, width)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width,
                width // 64,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens of the image → tokens of the map."""
        features = self.features(tokens)
        x = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, features)
        return self.norm(x)
