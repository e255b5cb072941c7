"""What an image run can be told, beyond what every run can."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from comp.core.config import RunConfig, Section
from comp.image.augment import AugmentConfig
from comp.image.losses import LossConfig
from comp.image.mixing import MixConfig
from comp.image.models import ModelConfig
from comp.image.window import Size


class DataConfig(Section):
    """Where the samples lie, and how large the network sees them."""

    folder: str = Field(description="prepared folder, see scripts/prepare.py")
    folds: str = Field(description="fold file made by scripts/make_folds.py")
    size: Size = Field((224, 224), description="height, width of the network's input, pixels")

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: Size) -> Size:
        if min(size) < 8:
            raise ValueError("takes a height and a width of at least 8 pixels")
        return size


class ImageConfig(RunConfig):
    """A run on images."""

    task: Literal["image"] = Field("image", description="the competition's kind")
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    mix: MixConfig = MixConfig()

    @field_validator("mix")
    @classmethod
    def _check_mix_stage(cls, mix: MixConfig, info: ValidationInfo) -> MixConfig:
        if "model" in info.data:
            stage = info.data["model"].mix_stage
            if mix.kind == "feature" and stage is None:
                raise ValueError("takes kind feature where model.mix_stage says at which stage")
            if mix.kind != "feature" and stage is not None:
                raise ValueError("takes kind feature where model.mix_stage is given")
        return mix
