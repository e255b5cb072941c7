"""What the transformers share: one square image in patches, each of which answers for cells."""

import math

import torch
from pydantic import Field
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.nn import functional as F

from comp.core.errors import InputError
from comp.fwi.models.parts import BackboneConfig, Network, near_middle


class TokenConfig(BackboneConfig):
    """A transformer on patches."""

    size: int = Field(ge=16, description="side of the image that a record becomes")
    patch: int | None = Field(None, ge=2, description="side of a patch, null: the backbone's own")
    cells: int = Field(ge=1, description="side of the part of a map that a token answers with")


class TokenNetwork(Network):
    """Weights carry over to another `size`: position embeddings are resampled, all else fits.

    Raises:
        InputError: a size that patches, or what stands side by side in the image, do not divide.
    """

    def __init__(self, config: TokenConfig, families: tuple[str, ...], beside: int = 1) -> None:
        """`beside` images stand side by side in the one that is cut into patches."""
        how = {} if config.patch is None else {"patch_size": config.patch}
        super().__init__(config, families, 1, (config.size, config.size), **how)
        self.size, self.cells = config.size, config.cells
        patch = self.backbone.patch_embed.patch_size[0]
        if config.size % math.lcm(patch, beside):
            raise InputError(
                f"key 'model.size': got {config.size}; takes multiples of "
                f"{math.lcm(patch, beside)}, for patches of {patch}"
                + (f" and {beside} shots side by side" if beside > 1 else "")
            )
        self.grid = config.size // patch
        self.backbone.reset_classifier(0, "")

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """The backbone's (b, prefix + n, c) features → (b, n, c), normed wherever timm does it."""
        return self.backbone.fc_norm(x)[:, self.backbone.num_prefix_tokens :]

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, cells²) of a square of tokens → (b, 1, √n·cells, √n·cells)."""
        side = math.isqrt(x.shape[1])
        return F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (side, side)), self.cells)

    def make_head(self, width: int) -> nn.Linear:
        """From a token to its cells."""
        return near_middle(nn.Linear(width, self.cells**2))

    def resample_weights(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights of this network at another size, their position embeddings at this one's."""
        name, prefix = "backbone.pos_embed", self.backbone.num_prefix_tokens
        if getattr(self.backbone, "no_embed_class", False):
            prefix = 0
        if name not in weights or self.backbone.pos_embed is None:
            return weights
        count = weights[name].shape[1] - prefix
        if count == self.grid**2 or count < 1 or math.isqrt(count) ** 2 != count:
            return weights
        embedding = resample_abs_pos_embed(
            weights[name], [self.grid, self.grid], num_prefix_tokens=prefix
        )
        return {**weights, name: embedding}
