"""EVA-02 that sees each shot by itself first, then their mean."""

from typing import Literal

import torch
from pydantic import Field
from timm.models import checkpoint
from torch import nn

from comp.core.errors import InputError
from comp.fwi.models.parts import ToVelocity, compress, in_float32, resize
from comp.fwi.models.tokens import TokenConfig, TokenNetwork
from comp.fwi.survey import Survey

_STEPS = 4  # consecutive time steps that stand side by side in a shot's image
_MARGIN = 70 / 72  # share of the answer's side that lies over the map


class SharedTrunkConfig(TokenConfig):
    """EVA-02 (arXiv 2303.11331) over single shots, then over their mean."""

    name: Literal["shared_trunk"] = Field("shared_trunk", description="architecture")
    backbone: str = Field("eva02_base_patch14_224", description="timm's eva02_…")
    size: int = Field(252, ge=16, description="side of the image of one shot")
    cells: int = Field(4, ge=1, description="side of the part of a map that a token answers with")
    shot_blocks: int | None = Field(
        None, ge=1, description="blocks before the mean over shots, null: a third of all"
    )


class SharedTrunk(TokenNetwork):
    """(5, nt, receivers) → five images (nt/4, 4·receivers), resized to size², through one trunk.

    A shot's source is told by its own direct wave, so no embedding tells it. Tokens answer by
    sub-pixels: 18×18 of them with 4×4 cells each make 72×72, whose middle is the map.
    """

    def __init__(self, config: SharedTrunkConfig, survey: Survey) -> None:
        super().__init__(config, ("eva02_",))
        depth = len(self.backbone.blocks)
        self.shot_blocks = depth // 3 if config.shot_blocks is None else config.shot_blocks
        if self.shot_blocks > depth:
            raise InputError(
                f"key 'model.shot_blocks': got {self.shot_blocks}; {config.backbone} has {depth}"
            )
        if survey.nt % _STEPS:
            raise InputError(f"records of {survey.nt} time steps: expected a multiple of {_STEPS}")
        self.checkpointing = config.grad_checkpointing
        self.head = self.make_head(self.backbone.num_features)
        side = round(self.grid * self.cells * _MARGIN)
        self.velocity = ToVelocity(survey, (side, side))

    def forward(self, shots: torch.Tensor) -> torch.Tensor:
        """(b, 5, nt, receivers) records → (b, 1, ny, nx) velocity, m/s."""
        batch, count = shots.shape[:2]
        x = shots.flatten(0, 1).unflatten(1, (-1, _STEPS)).transpose(2, 3).flatten(2)[:, None]
        x = compress(resize(x, (self.size, self.size)), self.gain)
        x, rope = self.backbone._pos_embed(self.backbone.patch_embed(x))
        x = self.backbone.norm_pre(x)
        x = self._run(self.backbone.blocks[: self.shot_blocks], x, rope)
        x = x.unflatten(0, (batch, count)).mean(1)
        x = self._run(self.backbone.blocks[self.shot_blocks :], x, rope)
        x = self.tokens(self.backbone.norm(x))
        return self.velocity(self.spread(in_float32(self.head, x)))

    def _run(self, blocks: nn.ModuleList, x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
        for block in blocks:
            x = checkpoint(block, x, rope=rope) if self.checkpointing else block(x, rope=rope)
        return x
