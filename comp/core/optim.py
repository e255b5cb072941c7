"""The optimizer through timm's factory, and the learning rate as a pure function of the step."""

import math
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from comp.core.config import OptimConfig, ScheduleConfig
from comp.core.errors import InputError

# Optimizers of torch's that can update all weights in one launch.
_FUSED = ("adam", "adamw")


def build_optimizer(
    model: nn.Module, config: OptimConfig, device: torch.device | None = None
) -> torch.optim.Optimizer:
    """Optimizer with no weight decay on norms and biases, and layer-wise lr decay where asked.

    timm's Muon and its variants orthogonalise the step of matrices, and of convolutions as matrices
    (out, in·height·width). By AdamW go whatever has fewer than two dimensions, depthwise
    convolutions and position embeddings (a first or second dimension of 1), very thin matrices (a
    side below 4, or 128 times the other), and, said here, the `head` and what the network names in
    `no_weight_decay`. Steps are scaled to AdamW's size, so that one `lr` serves both.

    Args:
        model: whose parameters are updated.
        config: name, rates and decay.
        device: where the model will be; on a GPU all weights are updated in one launch, if the
            optimizer can do that.

    Raises:
        InputError: a name that timm does not know.
    """
    if config.name not in list_optimizers():
        raise InputError(
            f"key 'optim.name': got {config.name!r}; takes one of {', '.join(list_optimizers())}"
        )
    how: dict[str, Any] = {}
    if "muon" in config.name:
        how = {"fallback_list": ("head.*",), "fallback_no_weight_decay": True}
    if device is not None and device.type == "cuda" and config.name in _FUSED:
        how["fused"] = True
    return create_optimizer_v2(
        model,
        opt=config.name,
        lr=config.lr,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
        **how,
    )


def lr_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """Learning rate of optimizer step `step` (from 0) of `total`, as a share of the peak.

    Linear warm-up, then constant, a cosine, or constant-then-cosine down to `final`.
    """
    warmup = round(config.warmup * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.name == "constant":
        return 1.0
    start = warmup
    if config.name == "constant_cosine":
        start = max(warmup, round(config.constant * total))
    if step < start:
        return 1.0
    done = (step - start) / max(1, total - 1 - start)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate, keeping each group's `lr_scale` from layer-wise decay."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
