"""Mixing a batch of images with their targets: one draw for both."""

from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator

from comp.core.config import Section
from comp.core.mixing import Blend, cutmix, draw_cutmix, draw_dirichlet, draw_mixup, mix
from comp.core.task import Batch


class MixConfig(Section):
    """Training on mixtures of images; validation and prediction see plain ones."""

    kind: Literal["none", "mixup", "dirichlet", "cutmix", "feature"] = Field(
        "none",
        description="mixup: of two images; dirichlet: of several; cutmix: a box out of another; "
        "feature: of feature maps behind model.mix_stage, otherwise as dirichlet",
    )
    alpha: float = Field(0.4, gt=0, description="of the Beta or Dirichlet distribution of weights")
    images: int = Field(2, ge=2, description="dirichlet, feature: how many make one")
    probability: float = Field(1.0, gt=0, le=1, description="that a batch is mixed at all")

    @field_validator("images")
    @classmethod
    def _check_images(cls, images: int, info: ValidationInfo) -> int:
        if images != 2 and info.data.get("kind") in ("none", "mixup", "cutmix"):
            raise ValueError("takes 2, but with mix.kind dirichlet or feature")
        return images


def mix_batch(batch: Batch, config: MixConfig, generator: torch.Generator) -> Batch:
    """Draw, and mix `image` (b, c, h, w) floats and `target` (b, C).

    To mix features the images stay as they are, and the draw goes along in the batch, for
    `network_inputs`.
    """
    images, target = batch["image"], batch["target"]
    size = len(images)
    if config.kind == "none" or float(torch.rand(1, generator=generator)) >= config.probability:
        return batch
    if config.kind == "cutmix":
        box = draw_cutmix(size, config.alpha, tuple(images.shape[-2:]), generator)
        return {**batch, "image": cutmix(images, box), "target": mix(target, box.mix)}
    if config.kind == "mixup":
        pairs = draw_mixup(size, config.alpha, generator)
        return {**batch, "image": mix(images, pairs), "target": mix(target, pairs)}
    draw = draw_dirichlet(size, config.images, config.alpha, generator)
    mixed = {**batch, "target": mix(target, draw)}
    if config.kind == "dirichlet":
        return {**mixed, "image": mix(images, draw)}
    return {**mixed, "mix_partners": draw.partners, "mix_weights": draw.weights}


def network_inputs(batch: Batch) -> tuple[Any, ...]:
    """The images, and the draw to mix their features by where there is one."""
    if "mix_weights" not in batch:
        return (batch["image"],)
    return batch["image"], Blend(batch["mix_partners"], batch["mix_weights"])
