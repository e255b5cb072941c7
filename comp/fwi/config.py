"""What a waveform-inversion run can be told, beyond what every run can."""

from typing import Literal

from pydantic import Field

from comp.core.config import RunConfig, Section


class DataConfig(Section):
    """Where the samples lie."""

    folder: str = Field(description="prepared folder: shots and velocity shards")
    folds: str = Field(description="fold file made by scripts/make_folds.py")


class AugmentConfig(Section):
    """What is done to training samples; each draw is made anew for every sample and epoch."""

    mirror: float = Field(0.5, ge=0, le=1, description="probability of mirroring left to right")
    noise: float = Field(0.0, ge=0, description="Gaussian noise, share of the record's RMS")
    amplitude: float = Field(0.0, ge=0, lt=1, description="gain drawn from 1 ± this")
    mixup: float = Field(0.0, ge=0, description="Beta parameter of mixup, 0 for none")


class ModelConfig(Section):
    """The network."""

    name: Literal["unet"] = Field("unet", description="architecture")
    encoder: str = Field("resnet18", description="segmentation-models-pytorch encoder")
    depth: int = Field(5, ge=3, le=5, description="encoder stages")
    decoder: tuple[int, ...] = Field((256, 128, 64, 32, 16), description="decoder channels")
    input_size: tuple[int, int] = Field((96, 96), description="pooled record: time, receivers")
    gain: float = Field(0.0, ge=0, description="k of sign(x)·log(1 + k|x|) on records, 0: linear")
    pretrained: bool = Field(False, description="start from ImageNet weights (downloads them)")


class FwiConfig(RunConfig):
    """A waveform-inversion run."""

    task: Literal["fwi"] = Field("fwi", description="the competition's kind")
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
