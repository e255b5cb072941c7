"""What validation reports of probabilities, and the number by which the best weights are chosen.

F-beta is taken at the one threshold that makes it best on the fold, with the limits of the label
groups: no threshold has been chosen yet when weights are, and the number does not change when
probabilities are shifted or scaled alike. It is a little too good, as it is searched where it is
scored; figures to report come from `comp.image.rule_report`. Macro recall is that of the most
probable classes.
"""

from collections.abc import Sequence

import numpy as np
import torch

from comp.image.heads import Head, columns
from comp.image.label_groups import Group
from comp.image.metrics import MacroRecall, Metric, mean_average_precision
from comp.image.threshold_search import fit_global
from comp.image.thresholds import plain_argmax


def selecting_metric(metric: Metric) -> str:
    """Name of the number that `validation_metrics` has for `metric`."""
    return metric.name if isinstance(metric, MacroRecall) else f"tuned_{metric.name}"


def validation_metrics(
    probabilities: np.ndarray, truth: np.ndarray, metric: Metric, groups: Sequence[Group]
) -> dict[str, float]:
    """Metrics of (n, C) probabilities against (n, C) label sets.

    Returns:
        For F-beta `tuned_<metric>`, the `threshold` it is reached at, and `map`, the mean average
        precision; for macro recall it and that of each head, `macro_recall/<head>`.
    """
    if isinstance(metric, MacroRecall):
        sets = plain_argmax(metric.heads).decide(probabilities)
        heads = metric.of_heads(sets, truth)
        found = {f"{metric.name}/{name}": recall for name, recall in heads.items()}
        return {metric.name: metric.score(sets, truth), **found}
    rule = fit_global(probabilities, truth, metric, groups)
    found = {
        selecting_metric(metric): metric.score(rule.decide(probabilities), truth),
        "threshold": rule.thresholds[0],
    }
    mean = mean_average_precision(probabilities, truth)
    return found if np.isnan(mean) else {**found, "map": mean}


def to_probabilities(logits: torch.Tensor, heads: Sequence[Head]) -> torch.Tensor:
    """(n, C) float32 probabilities: a sigmoid of each label, a softmax over a multiclass head."""
    parts = []
    for head, part in zip(heads, columns(heads)):
        mine = logits[:, part].float()
        parts.append(mine.softmax(1) if head.kind == "multiclass" else mine.sigmoid())
    return torch.cat(parts, 1)


def log_losses(
    probabilities: torch.Tensor, target: torch.Tensor, heads: Sequence[Head]
) -> torch.Tensor:
    """(n,) cross-entropy of each sample, whatever is trained on: the mean over heads.

    In a multilabel head the mean over its labels. Probabilities below 1e-7 count as that.
    """
    losses = []
    for head, part in zip(heads, columns(heads)):
        p, y = probabilities[:, part], target[:, part]
        loss = -y * p.clamp(min=1e-7).log()
        if head.kind == "multiclass":
            losses.append(loss.sum(1))
        else:
            losses.append((loss - (1 - y) * (1 - p).clamp(min=1e-7).log()).mean(1))
    return torch.stack(losses).mean(0)
