"""Exchange the activations of a finished backbone, pretrained weights and all."""

from collections import Counter
from typing import Any, Literal

import torch
from timm import layers
from timm.layers import activations, activations_me
from timm.models.metaformer import SquaredReLU, StarReLU
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from comp.core.errors import InputError

Activation = Literal["relu", "leaky_relu", "elu", "silu", "gelu", "hardswish", "mish"]
_NEW: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "mish": nn.Mish,
}
# Sigmoid, hard sigmoid and tanh stay: in backbones they are gates, whose range counts.
_OLD = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish, SquaredReLU, StarReLU),
    *(activations.Swish, activations.Mish, activations.HardSwish, activations.HardMish),
    *(activations.GELU, activations.GELUTanh, activations.QuickGELU),
    *(activations_me.SwishMe, activations_me.MishMe),
    *(activations_me.HardSwishMe, activations_me.HardMishMe),
)
# Layers in which the activation cannot be told from the normalisation.
_FUSED = (
    *(layers.EvoNorm2dB0, layers.EvoNorm2dB1, layers.EvoNorm2dB2, layers.EvoNorm2dS0),
    *(layers.FilterResponseNormTlu2d, layers.InplaceAbn),
)
# What those modules come down to, apart from the ones timm composes of gates.
_OPS = {
    "relu": "relu",
    "threshold": "relu",
    "hardtanh": "relu6",
    "leaky_relu": "leaky_relu",
    "rrelu_with_noise": "rrelu",
    "_prelu_kernel": "prelu",
    "elu": "elu",
    "celu": "elu",
    "gelu": "gelu",
    "silu": "silu",
    "hardswish": "hardswish",
    "mish": "mish",
}


def swap_activations(backbone: nn.Module, name: Activation) -> int:
    """Put `name` in place of each activation module, those inside timm's norm layers included.

    The new modules are out of place: autograd keeps their input all the same.

    Returns:
        How many were exchanged, the same module at several places counted once a place.
    """
    count = 0
    for module in list(backbone.modules()):
        if isinstance(module, _OLD):
            continue  # what timm composes of others is exchanged as a whole
        for child_name, child in module.named_children():
            if isinstance(child, _OLD):
                setattr(module, child_name, _NEW[name]())
                count += 1
    return count


def check_swapped(backbone: nn.Module, name: Activation, shape: tuple[int, int, int]) -> None:
    """Make sure by a traced forward pass that no other activation than `name` is left.

    Raises:
        InputError: a backbone that computes some activation itself, or none at all.
    """
    fused = [type(m).__name__ for m in backbone.modules() if isinstance(m, _FUSED)]
    used = count_activations(backbone, shape)
    left = sorted({*fused, *used.keys() - {name}})
    if left or not used:
        what = f"{', '.join(left)} built in" if left else "no activation that it knows"
        raise InputError(
            f"key 'model.activation': got {name!r}, but the backbone has {what}; takes null there"
        )


def count_activations(backbone: nn.Module, shape: tuple[int, int, int]) -> Counter[str]:
    """Which activations a forward pass computes, and how often, whoever computes them.

    Runs on torch's meta device, without data, for an image of `shape` (channels, height, width).
    """
    state = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    state = {key: value.detach().to("meta") for key, value in state.items()}
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad(), _Counting() as counting:
            functional_call(backbone, state, (torch.empty(1, *shape, device="meta"),))
    finally:
        backbone.train(training)
    return counting.found


class _Counting(TorchDispatchMode):
    """Counts the activations among the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__.removesuffix("_")
        if name in _OPS:
            self.found[_OPS[name]] += 1
        return func(*args, **(kwargs or {}))
