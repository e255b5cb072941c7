"""Networks from shot records to velocity maps, all (b, 5, nt, receivers) → (b, 1, ny, nx) m/s."""

from torch import nn

from comp.fwi.config import ModelConfig
from comp.fwi.models.unet import PooledUNet
from comp.fwi.survey import Survey

_MODELS = {"unet": PooledUNet}


def build_model(config: ModelConfig, survey: Survey) -> nn.Module:
    """The network that `config` names, for records of `survey`'s official shots."""
    return _MODELS[config.name](config, survey)
