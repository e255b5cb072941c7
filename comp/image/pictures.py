"""Pictures from files: what scripts/plot.py is asked for, read, put in order and drawn."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from comp.core.config import apply_overrides, parse_config, read_yaml
from comp.core.errors import InputError
from comp.core.figures import Picture, short
from comp.core.loading import derive_seed, draw_rows
from comp.image.augment import plain_transform, training_transform
from comp.image.checks import chunks
from comp.image.config import ImageConfig
from comp.image.data import ImageDataset
from comp.image.judged import load_judged
from comp.image.metrics import FBeta, MacroRecall, class_table
from comp.image.mixing import mix_batch
from comp.image.plots import batch_grid, captioned_grid
from comp.image.plots_labels import ap_bars, precision_recall
from comp.image.plots_rules import prior_sweep, threshold_sweep
from comp.image.store import ImageStore

_TINY = 1e-7  # probabilities below count as that in a logarithm
_SIDE = 220  # pixels of an image in a picture
_WIDTH = 36  # characters of a caption's line
_NAMES = 4  # labels in a caption


def draw_batch(
    out: str | Path,
    config: str | Path,
    overrides: Sequence[str] = (),
    images: int = 6,
    epochs: int = 4,
) -> None:
    """Draw images as validation and as the first epochs of fold 0 see them, and mixed if they are.

    Args:
        out: the picture.
        config: a run's YAML, whose data have been prepared.
        overrides: dotted, such as `augment.rotate=30`.
        images: how many, drawn by the config's seed.
        epochs: how many.

    Raises:
        InputError: a bad config, data that are not there, fewer than one image or epoch.
    """
    for name, number in (("images", images), ("epochs", epochs)):
        if number < 1:
            raise InputError(f"{name}: {number}, expected 1 or more")
    run = parse_config(ImageConfig, apply_overrides(read_yaml(config), overrides), config)
    store = ImageStore(run.data.folder)
    rows = draw_rows(np.arange(len(store)), images, run.seed)
    plain = ImageDataset(store, rows, plain_transform(run.augment, run.data.size))
    drawn = training_transform(run.augment, run.data.size, store.channels)
    training = ImageDataset(store, rows, drawn, derive_seed(run.seed, 0))
    seen = {"validation": plain.read(rows, 0)}
    seen |= {f"epoch {epoch}": training.read(rows, epoch) for epoch in range(epochs)}
    if run.mix.kind not in ("none", "feature"):
        batch = {**seen["epoch 0"], "image": seen["epoch 0"]["image"].float()}
        always = run.mix.model_copy(update={"probability": 1.0})
        mixed = mix_batch(batch, always, torch.Generator().manual_seed(run.seed))
        seen[f"epoch 0, {run.mix.kind}"] = mixed
    shown = [batch["image"].round().byte().permute(0, 2, 3, 1).numpy() for batch in seen.values()]
    captions = []
    for row, target in zip(rows, seen["validation"]["target"].numpy() > 0):
        names = [store.labels[column] for column in np.flatnonzero(target)]
        captions.append(f"{short(store.ids[row])}\n{_listed('labels', names)}")
    batch_grid(out, list(seen), list(zip(*shown)), captions)


def draw_classes(out: str | Path, data: str | Path, oof: str | Path) -> list[str]:
    """Draw the average precision of each label; returns what is printed, the mAP.

    Args:
        out: the picture.
        data: the prepared training data.
        oof: out-of-fold prediction file.

    Raises:
        InputError: as `load_judged`, or no label has an image.
    """
    store = ImageStore(data)
    judged = load_judged(store, oof)
    table = class_table(judged.probabilities, judged.truth, store.labels)
    ap_bars(out, table, len(judged.truth))
    return [f"mAP {table['ap'].mean():.4f} over {table['ap'].count()} labels"]


def draw_precision(out: str | Path, data: str | Path, oof: str | Path) -> None:
    """Draw precision against recall; see `draw_classes` for what it takes and raises."""
    store = ImageStore(data)
    judged = load_judged(store, oof)
    beta = store.metric.beta if isinstance(store.metric, FBeta) else 1.0
    precision_recall(out, judged.probabilities, judged.truth, store.labels, beta)


def draw_sweep(out: str | Path, data: str | Path, oof: str | Path) -> list[str]:
    """Draw the metric at each threshold, for softmax heads at each γ; returns what is printed.

    See `draw_classes` for what it takes and raises.
    """
    store = ImageStore(data)
    judged = load_judged(store, oof)
    arrays = judged.probabilities, judged.truth, judged.folds
    if isinstance(store.metric, MacroRecall):
        return [f"best γ {prior_sweep(out, *arrays, store.metric):.1f}, searched on what is shown"]
    best = threshold_sweep(out, *arrays, store.metric, store.label_groups)
    return [f"best threshold {best:g}, searched on what is shown"]


def draw_worst(out: str | Path, data: str | Path, oof: str | Path, images: int = 20) -> None:
    """Draw the images whose labels were thought least likely, by their mean log loss.

    Below each its labels with their probabilities, and the likeliest of those it does not have.
    See `draw_classes` for what else it takes and raises.

    Args:
        images: how many.
    """
    store = ImageStore(data)
    judged = load_judged(store, oof)
    losses = _log_losses(judged.probabilities, judged.truth)
    worst = np.argsort(-losses, kind="stable")[: max(1, images)]
    pixels, captions = [], []
    for i in worst:
        row, probability, true = judged.rows[i], judged.probabilities[i], judged.truth[i]
        pixels.append(store.read(int(row), (_SIDE, _SIDE)))
        # No-break spaces, so that a name and its number stay in one line.
        percent = [
            f"{short(name)}\u00a0({100 * p:.0f}\u00a0%)"
            for name, p in zip(store.labels, probability)
        ]
        order = np.argsort(-probability, kind="stable")
        has = [percent[k] for k in order[::-1] if true[k]]  # the least likely first
        lacks = [percent[k] for k in order if not true[k]]
        lines = [short(store.ids[row]), _listed("is", has), _listed("is not", lacks[:2])]
        captions.append("\n".join(lines))
    title = f"largest log loss of {len(losses)} images, {losses[worst[0]]:.2f} and below"
    captioned_grid(out, title, pixels, captions)


def _listed(what: str, names: Sequence[str]) -> str:
    """Names after what they are, wrapped, the first `_NAMES` of them."""
    more = [] if len(names) <= _NAMES else [f"{len(names) - _NAMES} more"]
    text = ", ".join([*names[:_NAMES], *more]) if names else "nothing"
    return textwrap.fill(f"{what}: {text}", _WIDTH, break_on_hyphens=False)


def _log_losses(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) mean over labels of the binary cross-entropy."""
    losses = np.empty(len(truth))
    for rows in chunks(*truth.shape):
        right = np.where(truth[rows], probabilities[rows], 1 - probabilities[rows])
        losses[rows] = -np.log(np.maximum(right, _TINY)).mean(axis=1)
    return losses


_JUDGED = {
    "--data": {"required": True, "help": "prepared folder of the training data"},
    "--oof": {"required": True, "help": "out-of-fold predictions, .npy, of all folds or of some"},
}
PICTURES = {
    "batch": Picture(
        "images as validation sees them, and augmented",
        draw_batch,
        {
            "--config": {"required": True, "help": "YAML of a run, its data prepared"},
            "overrides": {"nargs": "*", "help": "of its keys, e.g. augment.rotate=30"},
            "--images": {"type": int, "default": 6, "help": "how many (6)"},
            "--epochs": {"type": int, "default": 4, "help": "how many (4)"},
        },
    ),
    "classes": Picture("average precision of each label", draw_classes, _JUDGED),
    "precision": Picture("precision against recall", draw_precision, _JUDGED),
    "sweep": Picture("the metric at each threshold, or prior correction", draw_sweep, _JUDGED),
    "worst": Picture(
        "images whose labels were thought least likely",
        draw_worst,
        {**_JUDGED, "--images": {"type": int, "default": 20, "help": "how many (20)"}},
    ),
}
