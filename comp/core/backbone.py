"""timm backbones: made with initial weights that fit exactly, and timm's protocols around them."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from pydantic import Field, ValidationInfo, field_validator
from timm.models import group_parameters
from torch import nn

from comp.core.config import Section
from comp.core.errors import InputError

# For the few models whose authors gave none, such as MetaFormer: timm's convnets have these names.
_GROUPS = {
    "stem": r"^stem",
    "blocks": [
        (r"^stages\.(\d+)\.downsample", (0,)),
        (r"^stages\.(\d+)\.blocks\.(\d+)", None),
    ],
}


class BackboneNetwork(nn.Module):
    """A network around a timm model, its `backbone`; what else it has learns as the last layer."""

    backbone: nn.Module

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int]]:
        """timm's protocol for layer-wise learning rates: the backbone's layers, then the rest."""
        matcher = getattr(self.backbone, "group_matcher", None)
        groups = matcher(coarse=coarse) if matcher else _GROUPS
        layers = group_parameters(self.backbone, groups, reverse=True)
        last = max(layers.values(), default=-1) + 1
        return lambda name: (layers.get(name.removeprefix("backbone."), last),)

    def no_weight_decay(self) -> set[str]:
        """timm's protocol for weights that decay would harm: those the backbone names."""
        named = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in named}


class InitialWeights(Section):
    """Where the weights that a network begins with come from, in the networks' configs."""

    pretrained: bool = Field(False, description="start from ImageNet weights (downloads them)")
    weights: str | None = Field(
        None, description="local file with timm's weights of the backbone, classifier included"
    )

    @field_validator("weights")
    @classmethod
    def _check_one_source(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights is not None and info.data.get("pretrained"):
            raise ValueError("takes null where model.pretrained is true: one source of weights")
        return weights


def make_backbone(
    name: str,
    in_chans: int,
    size: tuple[int, int] | None = None,
    *,
    pretrained: bool = False,
    weights: str | None = None,
    **how: Any,
) -> nn.Module:
    """The timm model `name` without its classifier.

    Args:
        name: with or without a tag.
        in_chans: channels of its input; pretrained weights of three are adapted.
        size: height and width of its input; None is what the model is known for.
        pretrained: fetch timm's weights.
        weights: local file with timm's weights of the whole model.
        how: whatever else timm's model takes, such as `patch_size`.

    Raises:
        InputError: no such model, or weights that are not exactly its own.
    """
    check_backbone(name)
    overlay = None
    if weights is not None:
        if not Path(weights).is_file():
            raise InputError(f"{weights}: no such file, expected weights of {name}")
        overlay = {"file": weights}
        if not weights.endswith(".npz"):  # the type of Google's own files
            overlay["custom_load"] = False
    try:
        known = timm.get_pretrained_cfg(name)
        if size is not None and known is not None and known.fixed_input_size:
            how["img_size"] = size  # position embeddings and windows are made for one size
        # With the classifier, though it is dropped: without it timm does not load strictly.
        backbone = timm.create_model(
            name,
            pretrained=pretrained or overlay is not None,
            pretrained_cfg_overlay=overlay,
            in_chans=in_chans,
            **how,
        )
    except Exception as error:  # as many types as there are models and file formats
        source = weights or f"key 'model.backbone': {name!r}"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{source}: not usable as {name}: {reason}") from error
    backbone.reset_classifier(0)
    return backbone


def check_backbone(name: str, families: tuple[str, ...] = ("",)) -> None:
    """Raise InputError where timm has no model `name`, or its name begins with none of `families`.

    The message names the nearest that can be had.
    """
    known = [model for model in timm.list_models() if model.startswith(families)]
    if not timm.is_model(name) or not name.startswith(families):
        near = ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.0))
        raise InputError(f"key 'model.backbone': got {name!r}; nearest known: {near}")
