"""Networks from shot records to velocity maps, all (b, 5, nt, receivers) → (b, 1, ny, nx) m/s."""

from torch import nn

from comp.core.config import by_name
from comp.fwi.models.caformer import CAFormerConfig, CAFormerUNet
from comp.fwi.models.convnext import ConvNeXtConfig, ConvNeXtUNet
from comp.fwi.models.hgnet import HGNetConfig, HGNetUNet
from comp.fwi.models.shared_trunk import SharedTrunk, SharedTrunkConfig
from comp.fwi.models.unet import PooledUNet, UNetConfig
from comp.fwi.models.vit import ViT, ViTConfig
from comp.fwi.survey import Survey

_MODELS = {
    UNetConfig: PooledUNet,
    HGNetConfig: HGNetUNet,
    ConvNeXtConfig: ConvNeXtUNet,
    CAFormerConfig: CAFormerUNet,
    ViTConfig: ViT,
    SharedTrunkConfig: SharedTrunk,
}
ModelConfig = by_name(*_MODELS)


def build_model(config: ModelConfig, survey: Survey, fetch: bool = True) -> nn.Module:
    """The network that `config` names, for records of `survey`'s official shots.

    Without `fetch` no initial weights are looked for, neither local nor remote: trained ones are
    about to be loaded.
    """
    if not fetch:
        initial = {"pretrained": False, "weights": None}.items()
        config = config.model_copy(update={k: v for k, v in initial if hasattr(config, k)})
    return _MODELS[type(config)](config, survey)
