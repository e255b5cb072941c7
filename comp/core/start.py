"""Start a fit from the weights of another run, of the same fold, so that nothing leaks."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from comp.core.checkpoint import load_state
from comp.core.errors import InputError
from comp.core.folds import fingerprint
from comp.core.predict import fold_weights
from comp.core.task import Task


def fold_marks(
    task: Task, fold: int | str, train_rows: np.ndarray, valid_rows: np.ndarray
) -> dict[str, str]:
    """Fingerprints of what a fit works on.

    Returns:
        "rows", of its very rows in their order: a fit goes on with the same ones only. "samples",
        of all that validate in any fold, and "held_out", of those that validate in this one: they
        tell a later fit, perhaps of other rows, which samples these weights have not seen.
    """
    ids, folds = task.ids, task.folds()
    rows = "\n\n".join("\n".join(ids[rows]) for rows in (train_rows, valid_rows))
    held_out = ids[:0] if fold == "all" else ids[folds == fold]
    return {
        "rows": hashlib.sha256(rows.encode()).hexdigest(),
        "samples": fingerprint(ids[folds >= 0]),
        "held_out": fingerprint(held_out),
    }


def starting_weights(
    source: str | Path, fold: int | str, marks: dict[str, str]
) -> tuple[Path, dict[str, torch.Tensor]]:
    """The weights that fold `fold` may start from.

    Args:
        source: a run folder, of which the same fold is taken, or a .safetensors file of one.
        fold: the fold to be trained.
        marks: its own, from `fold_marks`.

    Returns:
        The file that was read, and the weights in it.

    Raises:
        InputError: no such weights; the run is unfinished; the weights were trained on samples
            that this fold validates on. Weights of other data are taken by their fold's number.
    """
    path = Path(source)
    if path.is_dir():
        path = fold_weights(path, fold)
    state = load_state(path)
    if not isinstance(state, dict) or not {"fold", "marks", "model"} <= state.keys():
        raise InputError(f"{path}: no weights of a fold, expected best.safetensors of a run")
    if fold != "all":  # nothing is held out, so nothing can leak
        _refuse_leak(path, state, fold, marks)
    return path, state["model"]


def resampled(network: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`weights` as `network` takes them, whose input may be of another size than theirs was.

    A network with weights that belong to one size, such as position embeddings, says in a method
    `resample_weights` what they become; all others must fit as they are.
    """
    return network.resample_weights(weights) if hasattr(network, "resample_weights") else weights


def _refuse_leak(path: Path, state: dict, fold: int | str, marks: dict[str, str]) -> None:
    if state["fold"] != fold:
        raise InputError(f"{path}: weights of fold {state['fold']}, expected those of fold {fold}")
    theirs = state["marks"]
    if theirs["samples"] == marks["samples"] and theirs["held_out"] != marks["held_out"]:
        raise InputError(
            f"{path}: fold {fold} held out other samples of the same data, expected the same folds"
        )
