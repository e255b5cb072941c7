"""What a waveform-inversion run can be told, beyond what every run can."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from comp.core.config import RunConfig, Section
from comp.fwi.models import ModelConfig, UNetConfig
from comp.fwi.survey import OFFICIAL_COLUMNS
from comp.fwi.velocity import FAMILIES
from comp.fwi.wave import Solver


class DataConfig(Section):
    """Where the samples lie."""

    folder: str = Field(description="prepared folder: shots and velocity shards")
    folds: str = Field(description="fold file made by scripts/make_folds.py")
    extra: tuple[str, ...] = Field(
        (), description="prepared folders whose samples only train, see scripts/simulate.py"
    )


class AugmentConfig(Section):
    """What is done to training samples; each draw is made anew for every sample and epoch."""

    mirror: float = Field(0.5, ge=0, le=1, description="probability of mirroring left to right")
    noise: float = Field(0.0, ge=0, description="Gaussian noise, share of the record's RMS")
    amplitude: float = Field(0.0, ge=0, lt=1, description="gain drawn from 1 ± this")
    mixup: float = Field(0.0, ge=0, description="Beta parameter of mixup, 0 for none")


class PhysicsConfig(Section):
    """A loss on records simulated from the prediction: weight × misfit(simulate(map), record).

    The misfit is the relative L2 distance of a sample's records, so `weight` has no unit.
    """

    weight: float = Field(0.0, ge=0, description="of the misfit in the loss, 0 for no physics")
    label_weight: float = Field(1.0, ge=0, description="of the error in the loss, 0: no labels")
    solver: Solver = Field("sponge", description="of the wave equation, see comp.fwi.wave")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps without the misfit")
    ramp: float = Field(0.0, ge=0, le=1, description="share in which it then comes in, linearly")
    samples: float = Field(1.0, gt=0, le=1, description="share of a batch that is simulated")
    shots: int = Field(
        len(OFFICIAL_COLUMNS), ge=1, le=len(OFFICIAL_COLUMNS), description="drawn anew each step"
    )
    window: tuple[float, float] = Field(
        (1.0, 1.0), description="share of the record, from its start; drawn between these each step"
    )
    taper: float = Field(0.0, ge=0, le=1, description="share of that faded out at its end")
    lowpass: float | None = Field(None, gt=0, description="Hz at which half the amplitude passes")
    valid_samples: int = Field(
        0, ge=0, description="validation maps whose misfit, by the sponge solver, is reported"
    )

    @field_validator("window")
    @classmethod
    def _check_window(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not 0 < window[0] <= window[1] <= 1:
            raise ValueError("takes two ascending shares above 0, up to 1")
        return window

    @field_validator("label_weight")
    @classmethod
    def _check_some_loss(cls, label_weight: float, info: ValidationInfo) -> float:
        if label_weight == 0 and info.data.get("weight") == 0:
            raise ValueError("takes more than 0 where physics.weight is 0: no loss would be left")
        return label_weight

    @field_validator("warmup", "ramp")
    @classmethod
    def _check_first_steps(cls, share: float, info: ValidationInfo) -> float:
        if share > 0 and info.data.get("label_weight") == 0:
            raise ValueError("takes 0 where physics.label_weight is 0: no loss would be left")
        return share


class OnlineConfig(Section):
    """Training samples made as training goes: maps in the loader, their records on the device.

    An epoch sees `samples` of them beside the stored ones, all shuffled together. The numbers from
    `real` to `generated` are weights: how often each kind of map is made.
    """

    real: float = Field(0.0, ge=0, description="weight of training maps as they are")
    blend: float = Field(1.0, ge=0, description="weight of blends of two training maps")
    crop: float = Field(1.0, ge=0, description="weight of enlarged windows of training maps")
    warp: float = Field(1.0, ge=0, description="weight of training maps turned, sheared, scaled")
    mirror: float = Field(0.0, ge=0, description="weight of mirrored training maps")
    generated: float = Field(0.0, ge=0, description="weight of maps made by the generators")
    families: tuple[str, ...] = Field((), description="of generated maps; none: those of the data")
    samples: int = Field(0, ge=0, description="made anew in each epoch, 0: none")
    stored: bool = Field(True, description="train on the data's own samples too")

    def weights(self) -> dict[str, float]:
        """The weight of each kind of map."""
        kinds = ("real", "blend", "crop", "warp", "mirror", "generated")
        return {kind: getattr(self, kind) for kind in kinds}

    @field_validator("families")
    @classmethod
    def _check_families(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [family for family in families if family not in FAMILIES]:
            raise ValueError(f"{unknown[0]!r} is unknown, takes some of {', '.join(FAMILIES)}")
        return families

    @field_validator("samples")
    @classmethod
    def _check_some_kind(cls, samples: int, info: ValidationInfo) -> int:
        weights = [value for value in info.data.values() if isinstance(value, float)]
        if samples and not any(weights):
            raise ValueError("takes 0 where every kind of map has weight 0")
        return samples

    @field_validator("stored")
    @classmethod
    def _check_some_sample(cls, stored: bool, info: ValidationInfo) -> bool:
        if not stored and info.data.get("samples") == 0:
            raise ValueError("takes true where online.samples is 0: nothing would be left to train")
        return stored


class FwiConfig(RunConfig):
    """A waveform-inversion run."""

    task: Literal["fwi"] = Field("fwi", description="the competition's kind")
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = UNetConfig()
    physics: PhysicsConfig = PhysicsConfig()
    online: OnlineConfig = OnlineConfig()

    @field_validator("physics")
    @classmethod
    def _check_records_are_of_one_map(
        cls, physics: PhysicsConfig, info: ValidationInfo
    ) -> PhysicsConfig:
        if physics.weight > 0 and "augment" in info.data and info.data["augment"].mixup > 0:
            raise ValueError("takes weight 0 where augment.mixup is on: no map has a mixed record")
        return physics
