"""Inference in order: metrics on a validation fold, prediction files with their ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import nn
from torch.utils.data import Dataset

from comp.core.checkpoint import load_note, load_state, load_weights
from comp.core.config import RunConfig
from comp.core.errors import InputError
from comp.core.files import new_npy
from comp.core.inference import StandIns
from comp.core.loading import chunks, limit_rows, make_loader, to_device
from comp.core.predicting import Settings, predict_files
from comp.core.predictions import write_ids
from comp.core.task import Batch, Task
from comp.core.threads import share_cores

_PRECISION = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def new_accelerator(config: RunConfig, events: Path | None = None) -> Accelerator:
    """An accelerator for `config`; with a folder for `events`, TensorBoard's are written there."""
    accelerator = Accelerator(
        mixed_precision=_PRECISION[config.train.precision],
        dynamo_backend="inductor" if config.train.compile else "no",
        log_with="tensorboard" if events else None,
        project_dir=events,
    )
    if accelerator.device.type == "cpu":
        share_cores(accelerator.num_processes)
    return accelerator


@torch.inference_mode()
def evaluate(
    task: Task, network: nn.Module, rows: np.ndarray, accelerator: Accelerator, batch_size: int
) -> dict[str, float]:
    """Metrics of `network` on the training data's `rows`.

    Every process scores its share; the shares are gathered and put in row order before the metrics
    are computed, so the number of processes does not change them. The first process's weights and
    batch statistics count.
    """
    processes, process = accelerator.num_processes, accelerator.process_index
    if processes > 1:
        for tensor in network.state_dict().values():
            tensor.copy_(broadcast(tensor.contiguous()))
    network.eval()
    dataset, share = task.dataset(rows), np.arange(process, len(rows), processes)
    loader = make_loader(dataset, chunks(share, batch_size), task.config.loader, accelerator.device)
    found: list[Batch] = []
    for batch in loader:
        batch = task.plain_batch(to_device(batch, accelerator.device))
        scores = task.score_samples(_forward(task, network, batch, accelerator), batch)
        found.append({name: value.cpu() for name, value in scores.items()})
    network.train()
    parts: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    if found:
        parts = [(share, {k: torch.cat([f[k] for f in found]).numpy() for k in found[0]})]
    if processes > 1:
        parts = gather_object(parts)
    order = np.argsort(np.concatenate([positions for positions, _ in parts]))
    names = parts[0][1]
    scores = {k: np.concatenate([part[k] for _, part in parts])[order] for k in names}
    return task.metrics(scores, rows)


def fold_weights(run: Path, fold: int | str) -> Path:
    """The weights to predict with: the best by validation, the last ones where none was made.

    Raises:
        InputError: the fold has not been trained to its end.
    """
    folder = fold_folder(run, fold)
    if not (folder / "done.json").exists():
        raise InputError(f"{folder}: fold {fold} is not finished; train it first")
    best = folder / "best.safetensors"
    return best if best.exists() else folder / "final.safetensors"


def fold_folder(run: Path, fold: int | str) -> Path:
    """The folder of one fold inside a run folder."""
    return run / f"fold_{fold}"


def load_network(task: Task, path: Path) -> nn.Module:
    """The task's network with the weights of `path`, ready to predict."""
    network = task.build_model(fetch=False)
    load_weights(network, load_state(path)["model"], path)
    if task.config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network.eval()


def predict_oof(
    task: Task,
    run: Path,
    fold: int | str,
    accelerator: Accelerator,
    *,
    out: Path | None = None,
    limit: int | None = None,
    **how: Any,
) -> Path:
    """Predict a fold's validation rows with its own weights: its part of the out-of-fold file.

    Writes `valid.npy` and, in the same form, `valid_truth.npy`, on which ensembles are weighted; in
    a folder `out` they are `fold_<k>.npy` and `fold_<k>_truth.npy`.
    """
    if "budget" in how and how["budget"].limited:  # which would have to be dealt among the folds
        raise InputError("--hours: given with --oof, expected with a test folder only")
    path = fold_weights(run, fold)
    valid = np.flatnonzero(task.folds() == fold)
    rows = limit_rows(limit_rows(valid, load_note(path, "config")["limit"]), limit)
    table = task.table(rows)
    table.insert(1, "fold", fold)  # marks the file as out-of-fold, see comp.core.oof
    file = _out_file(run, fold, out, "valid")
    network = load_network(task, path)
    how |= {"names": [f"fold {fold}"], "source": "out-of-fold"}
    predict(task, [network], task.dataset(rows), table, [file], accelerator, **how)
    if accelerator.is_main_process:
        truth = file.with_name(f"{file.stem}_truth.npy")
        with new_npy(truth, (len(rows), *task.prediction_shape), np.float32) as array:
            for chunk in chunks(np.arange(len(rows)), 512):
                array[chunk] = task.truth(rows[chunk])
        write_ids(truth, table)
    return file


def predict_folder(
    task: Task,
    run: Path,
    folds: Sequence[int | str],
    folder: str,
    accelerator: Accelerator,
    *,
    out: Path | None = None,
    sample: str | Path | None = None,
    limit: int | None = None,
    **how: Any,
) -> list[Path]:
    """Predict a test folder with the weights of each fold, reading every record once.

    Args:
        task, run, folds, accelerator: whose weights predict, and where.
        folder: the test folder.
        out: a folder for `fold_<k>.npy`, where the run's own is not to be written to.
        sample: see `Task.test_data`.
        limit: at most so many samples, evenly spread.
        how: see `predict`.

    Returns:
        The files that were written; fewer than folds only where the time did not suffice.
    """
    networks = [load_network(task, fold_weights(run, fold)) for fold in folds]
    outs = [_out_file(run, fold, out, "test") for fold in folds]
    table, dataset = task.test_data(folder, sample)
    kept = limit_rows(np.arange(len(table)), limit)
    how |= {"names": [f"fold {fold}" for fold in folds], "source": str(folder), "positions": kept}
    how["stand_ins"] = [fold_folder(run, fold) / "stand_in.npy" for fold in folds]
    table = table.iloc[kept].reset_index(drop=True)
    return predict(task, networks, dataset, table, outs, accelerator, **how)


def _out_file(run: Path, fold: int | str, out: Path | None, name: str) -> Path:
    if out is not None:
        return out / f"fold_{fold}.npy"
    return fold_folder(run, fold) / "predictions" / f"{name}.npy"


@torch.inference_mode()
def predict(
    task: Task,
    networks: Sequence[nn.Module],
    dataset: Dataset,
    table: pd.DataFrame,
    outs: Sequence[Path],
    accelerator: Accelerator,
    *,
    positions: np.ndarray | None = None,
    stand_ins: Sequence[Path] = (),
    **how: Any,
) -> list[Path]:
    """Write one prediction file per network, rows in the order of `table`.

    Processes take chunks of rows in turn and write into the same files. Killed and started again,
    the same call goes on. Samples that could not be read, or whose values are not finite, get the
    stand-in; the id table marks them, and they are named at the end.

    Args:
        task: casts, views and their inverses.
        networks: each takes the same input.
        dataset: yields the samples of `table`.
        table: the id table; first column `id`.
        outs: the array file of each network.
        accelerator: devices and processes.
        positions: (n,) place in `dataset` of each row; None if the order is the same.
        stand_ins: file of each network's stand-in; where there is none, the task is asked.
        how: `comp.core.predicting.Settings`.

    Returns:
        The files that were written, the first of `outs`: all, unless the time did not suffice.

    Raises:
        InputError: unfinished work of another kind is in the way; the predictions of a whole batch
            are not finite, or one is and there is no stand-in.
        Stopped: asked to end by Ctrl-C or SIGTERM; the next call goes on.
    """
    device = accelerator.device
    return predict_files(
        task,
        [network.to(device) for network in networks],
        lambda network, batch: _forward(task, network, batch, accelerator),
        dataset,
        np.arange(len(table)) if positions is None else positions,
        table,
        outs,
        StandIns(task, stand_ins),
        Settings(**how),
        device,
        (accelerator.process_index, accelerator.num_processes),
        accelerator.wait_for_everyone,
    )


def _forward(
    task: Task, network: nn.Module, batch: Batch, accelerator: Accelerator
) -> torch.Tensor:
    with accelerator.autocast():
        output = network(*task.inputs(batch))
    return task.predictions(output.float())
