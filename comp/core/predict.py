"""Inference in order: metrics on a validation fold, prediction files with their ids."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, tqdm
from torch import nn
from torch.utils.data import Dataset

from comp.core.checkpoint import load_note, load_state, load_weights
from comp.core.config import RunConfig
from comp.core.errors import InputError
from comp.core.files import new_npy, partial_path
from comp.core.loading import chunks, limit_rows, make_loader, to_device
from comp.core.predictions import note_broken, write_ids
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
    return network.eval()


def predict_oof(
    task: Task, run: Path, fold: int | str, accelerator: Accelerator, **how: Any
) -> Path:
    """Predict a fold's validation rows with its own weights: its part of the out-of-fold file.

    Writes `valid.npy` and, in the same form, `valid_truth.npy`, on which ensembles are weighted.
    """
    path = fold_weights(run, fold)
    valid = np.flatnonzero(task.folds() == fold)
    rows = limit_rows(valid, load_note(path, "config")["limit"])
    table = task.table(rows)
    table.insert(1, "fold", fold)  # marks the file as out-of-fold, see comp.core.oof
    out = fold_folder(run, fold) / "predictions" / "valid.npy"
    network = load_network(task, path)
    predict(task, [network], task.dataset(rows), table, [out], accelerator, **how)
    if accelerator.is_main_process:
        truth = out.with_name("valid_truth.npy")
        with new_npy(truth, (len(rows), *task.prediction_shape), np.float32) as file:
            for chunk in chunks(np.arange(len(rows)), 512):
                file[chunk] = task.truth(rows[chunk])
        write_ids(truth, table)
    return out


def predict_folder(
    task: Task,
    run: Path,
    folds: Sequence[int | str],
    folder: str,
    accelerator: Accelerator,
    **how: Any,
) -> list[Path]:
    """Predict a test folder with the weights of each fold, reading every record once."""
    networks = [load_network(task, fold_weights(run, fold)) for fold in folds]
    outs = [fold_folder(run, fold) / "predictions" / "test.npy" for fold in folds]
    table, dataset = task.test_data(folder)
    predict(task, networks, dataset, table, outs, accelerator, **how)
    return outs


@torch.inference_mode()
def predict(
    task: Task,
    networks: Sequence[nn.Module],
    dataset: Dataset,
    table: pd.DataFrame,
    outs: Sequence[Path],
    accelerator: Accelerator,
    *,
    batch_size: int = 64,
    tta: bool = False,
) -> None:
    """Write one prediction file per network, rows in the order of `table`.

    Several processes each write their own stretch of rows into the same files. Samples that could
    not be read get the task's `stand_in`; the id table marks them, and they are named at the end.

    Args:
        task: casts, views and their inverses.
        networks: each takes the same input.
        dataset: yields the samples of `table`, in its order.
        table: the id table; first column `id`.
        outs: the array file of each network.
        accelerator: devices and processes.
        batch_size: samples per forward pass and process.
        tta: average over the task's views instead of the plain one alone.
    """
    main, device = accelerator.is_main_process, accelerator.device
    views = task.views() if tta else task.views()[:1]
    networks = [network.to(device) for network in networks]
    shape = (len(table), *task.prediction_shape)
    share = np.array_split(np.arange(len(table)), accelerator.num_processes)
    own = share[accelerator.process_index]
    loader = make_loader(dataset, chunks(own, batch_size), task.config.loader, device)
    with ExitStack() as stack:
        if main:
            files = [stack.enter_context(new_npy(out, shape, np.float32)) for out in outs]
        accelerator.wait_for_everyone()
        if not main:
            files = [np.lib.format.open_memmap(partial_path(out), mode="r+") for out in outs]
        bar = stack.enter_context(
            tqdm(total=len(own), desc="predict", unit="sample", dynamic_ncols=True)
        )
        start = int(own[0]) if len(own) else 0
        broken = np.zeros(len(table), bool)
        for batch in loader:
            batch = task.plain_batch(to_device(batch, device))
            size = len(next(iter(batch.values())))
            if "broken" in batch:
                broken[start : start + size] = batch["broken"].cpu().numpy()
            for network, file in zip(networks, files):
                seen = [
                    task.unview(_forward(task, network, task.view(batch, view), accelerator), view)
                    for view in views
                ]
                mean = torch.stack(seen).mean(0).cpu().numpy()
                if (lost := broken[start : start + size]).any():
                    mean[lost] = task.stand_in()
                if not np.isfinite(mean).all():
                    bad = int(np.argmin(np.isfinite(mean).reshape(size, -1).all(1)))
                    raise InputError(f"prediction of {table['id'].iloc[start + bad]} is not finite")
                file[start : start + size] = mean
            start += size
            bar.update(size)
        for file in files:
            file.flush()
        accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        broken = np.any(gather_object([broken]), axis=0)
    if main:
        marked = table.assign(broken=broken.astype(int)) if broken.any() else table
        for out in outs:
            write_ids(out, marked)
        note_broken(marked)
    accelerator.wait_for_everyone()


def _forward(
    task: Task, network: nn.Module, batch: Batch, accelerator: Accelerator
) -> torch.Tensor:
    with accelerator.autocast():
        output = network(*task.inputs(batch))
    return task.predictions(output.float())
