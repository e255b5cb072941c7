"""Losses on logits and targets (n, C) that may be soft, as mixing leaves them.

All are means over samples and columns, in float32 or better whatever the logits' type, and finite
with finite gradients for logits of any size that training meets.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch.nn import functional as F

from comp.core.config import Section
from comp.core.errors import InputError
from comp.image.heads import Head, columns

Average = Literal["samples", "micro", "macro"]


class LossConfig(Section):
    """What is minimised: in a multilabel head a weighted sum of losses, else cross-entropy."""

    bce: float = Field(1.0, ge=0, description="weight of binary cross-entropy")
    focal: float = Field(0.0, ge=0, description="weight of the focal loss")
    asymmetric: float = Field(0.0, ge=0, description="weight of the asymmetric loss")
    fbeta: float = Field(0.0, ge=0, description="weight of 1 − soft F-beta")
    focal_gamma: float = Field(2.0, ge=0, description="focusing power of the focal loss")
    focal_alpha: float | None = Field(
        None, gt=0, lt=1, description="focal loss: share of the positives' weight, none: as bce"
    )
    gamma_positive: float = Field(1.0, ge=0, description="asymmetric: focusing of positives")
    gamma_negative: float = Field(4.0, ge=0, description="asymmetric: focusing of negatives")
    margin: float = Field(
        0.05, ge=0, lt=1, description="asymmetric: negatives below this probability cost nothing"
    )
    beta: float = Field(2.0, gt=0, description="fbeta: weight of recall against precision")
    average: Average = Field("samples", description="fbeta: over what it is computed and averaged")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="multiclass heads: share of the target spread over all classes"
    )
    heads: dict[str, float] = Field({}, description="weight by head, 1 where not given")

    @field_validator("fbeta")
    @classmethod
    def _check_some_loss(cls, fbeta: float, info: ValidationInfo) -> float:
        if fbeta == 0 and not any(info.data.get(n) for n in ("bce", "focal", "asymmetric")):
            raise ValueError(
                "takes more than 0 where bce, focal and asymmetric are 0: no loss left"
            )
        return fbeta

    @field_validator("heads")
    @classmethod
    def _check_heads(cls, heads: dict[str, float]) -> dict[str, float]:
        if any(weight < 0 for weight in heads.values()):
            raise ValueError("takes weights of at least 0")
        return heads


class HeadLosses:
    """The loss of all heads together: the mean of theirs, weighted.

    Raises:
        InputError: a weight for a head that there is not, or no head with a weight above 0.
    """

    def __init__(self, config: LossConfig, heads: Sequence[Head]) -> None:
        names = [head.name for head in heads]
        for name in config.heads:
            if name not in names:
                raise InputError(
                    f"key 'loss.heads': got {name!r}; the heads are {', '.join(names)}"
                )
        weights = [config.heads.get(name, 1.0) for name in names]
        if sum(weights) == 0:
            raise InputError("key 'loss.heads': every weight is 0; takes one above 0")
        self.config, self.heads, self.columns = config, tuple(heads), columns(heads)
        self.weights = [weight / sum(weights) for weight in weights]

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scalar terms for (n, C) logits and targets.

        Returns:
            "loss" and, where there are several heads, "train_loss/<head>" of each.
        """
        terms = {}
        for head, part in zip(self.heads, self.columns):
            terms[f"train_loss/{head.name}"] = self._head(head, logits[:, part], targets[:, part])
        total = sum(weight * term for weight, term in zip(self.weights, terms.values()))
        return {"loss": total, **(terms if len(terms) > 1 else {})}

    def _head(self, head: Head, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        config = self.config
        if head.kind == "multiclass":
            return cross_entropy(logits, targets, config.label_smoothing)
        total = torch.zeros((), device=logits.device)
        if config.bce:
            total = total + config.bce * bce(logits, targets)
        if config.focal:
            loss = focal(logits, targets, config.focal_gamma, config.focal_alpha)
            total = total + config.focal * loss
        if config.asymmetric:
            gammas = config.gamma_positive, config.gamma_negative
            loss = asymmetric(logits, targets, *gammas, config.margin)
            total = total + config.asymmetric * loss
        if config.fbeta:
            total = total + config.fbeta * fbeta_loss(logits, targets, config.beta, config.average)
        return total


def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(*_precise(logits, targets))


def focal(
    logits: torch.Tensor, targets: torch.Tensor, gamma: float = 2.0, alpha: float | None = None
) -> torch.Tensor:
    """Focal loss, `−[α·y·(1 − p)^γ·log p + (1 − α)·(1 − y)·p^γ·log(1 − p)]` (arXiv 1708.02002).

    Without `alpha` both factors are 1, so that γ = 0 gives binary cross-entropy.
    """
    logits, targets = _precise(logits, targets)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    # Powers by way of the logarithms: these neither vanish nor have infinite slopes anywhere.
    loss = positive * targets * (gamma * log_q).exp() * log_p
    loss = loss + negative * (1 - targets) * (gamma * log_p).exp() * log_q
    return -loss.mean()


def asymmetric(
    logits: torch.Tensor,
    targets: torch.Tensor,
    gamma_positive: float = 1.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> torch.Tensor:
    """Asymmetric loss, `−[y·(1 − p)^γ₊·log p + (1 − y)·p_m^γ₋·log(1 − p_m)]`, p_m = max(p − m, 0).

    Ridnik et al., arXiv 2009.14119; here a mean, there a sum over labels and samples.
    """
    logits, targets = _precise(logits, targets)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = (gamma_positive * log_q).exp() * log_p
    if margin == 0:
        negative = (gamma_negative * log_p).exp() * log_q
    else:
        # Not below the smallest number, where a power under 1 has an infinite slope.
        shifted = (log_p.exp() - margin).clamp(min=torch.finfo(logits.dtype).tiny)
        negative = shifted**gamma_negative * (log_q.exp() + margin).clamp(max=1).log()
    return -(targets * positive + (1 - targets) * negative).mean()


def fbeta_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    beta: float = 2.0,
    average: Average = "samples",
    smooth: float = 1.0,
) -> torch.Tensor:
    """1 − F-beta with probabilities in place of decisions.

    `F = ((1 + β²)·Σyp + s) / (β²·Σy + Σp + s)`, summed over a sample's labels ("samples"), over the
    batch's samples for each label ("macro"), or over both ("micro"); then the mean. Where no label
    is true, s lets F rise to 1 as the probabilities fall.
    """
    logits, targets = _precise(logits, targets)
    p = logits.sigmoid()
    over = {"samples": (1,), "macro": (0,), "micro": (0, 1)}[average]
    true, found, hit = targets.sum(over), p.sum(over), (targets * p).sum(over)
    score = ((1 + beta**2) * hit + smooth) / (beta**2 * true + found + smooth)
    return 1 - score.mean()


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Softmax cross-entropy against rows of probabilities; a mean over samples only."""
    return F.cross_entropy(*_precise(logits, targets), label_smoothing=label_smoothing)


def _precise(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the logits' type, or in float32 where that is half precision."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), targets.to(dtype)
