"""Prediction files from start to end: what is done already, what there is time for, the rest.

Processes meet twice: before the first row, and when the files lie in their place. In between each
works for itself, so that a slow one makes none wait.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from comp.core.budget import Budget, Pace, Pair, affordable, ordered_pairs
from comp.core.chunks import Chunks
from comp.core.claims import exclusive
from comp.core.config import LoaderConfig
from comp.core.folds import fingerprint
from comp.core.halves import FULL
from comp.core.inference import Inference, StandIns
from comp.core.loading import make_loader, to_device
from comp.core.passes import Forward, Passes, measure
from comp.core.predictions import note_broken
from comp.core.signals import Stopped, StopRequest
from comp.core.task import Task

_POLL = 0.2  # seconds between looks at what the other processes have done


@dataclass(frozen=True)
class Settings:
    """How to predict.

    Attributes:
        batch_size: samples that are read together, and that go through a network together.
        tta: average over the task's views instead of the plain one alone.
        half: store two bytes a value.
        budget: the time there is.
        chunk: rows that are finished together; a kill costs at most so many of each process.
        names: what the networks are called in messages.
        source: what is predicted, for the check that a restart goes on with the same work.
    """

    batch_size: int = 64
    tta: bool = False
    half: bool = False
    budget: Budget = field(default_factory=Budget)
    chunk: int = 512
    names: Sequence[str] = ()
    source: str = ""


def predict_files(
    task: Task,
    networks: Sequence[nn.Module],
    forward: Forward,
    dataset: Dataset,
    positions: np.ndarray,
    table: pd.DataFrame,
    outs: Sequence[Path],
    stand_in: StandIns,
    settings: Settings,
    device: torch.device,
    share: tuple[int, int],
    meet: Callable[[], None],
) -> list[Path]:
    """See `comp.core.predict.predict`.

    Args:
        task, networks, forward, dataset, positions, table, outs, stand_in, settings: the work.
        device: of the networks.
        share: index of this process, and the number of all.
        meet: returns when all processes have called it.
    """
    views = task.views() if settings.tta else task.views()[:1]
    pairs = ordered_pairs(len(networks), len(views))
    storage = task.half if settings.half else FULL
    chunks = Chunks(outs, (len(table), *task.prediction_shape), storage, settings.chunk)
    passes, main, budget = Passes(task, networks, views, forward), share[0] == 0, settings.budget
    with ExitStack() as stack:
        if main:
            stack.enter_context(exclusive(chunks.folder))
            chunks.claim(_recipe(task, networks, views, table, storage.dtype, settings))
            first = positions[chunks.rows(min(chunks.pending(), default=0))[: settings.batch_size]]
            plan = _plan(task, passes, pairs, chunks, dataset, first, budget, device, share[1])
            chunks.write_plan(plan)
            chunks.prepare(min(plan["pairs"], len(networks)))
        meet()
        plan, own, done = chunks.plan(), chunks.pending(*share), chunks.finished()
        files = min(plan["pairs"], len(networks))
        rows = sum(len(chunks.rows(chunk)) for chunk in own)
        if own:
            chunks.open(files)
        bar = stack.enter_context(
            tqdm(total=rows, desc="predict", unit="sample", dynamic_ncols=True, disable=not main)
        )
        stop = stack.enter_context(StopRequest())

        def heed(count: int) -> None:
            bar.update(count)
            if stop.signum:
                raise Stopped("stopped; finished chunks are kept, run again to go on", stop.signum)

        names = table["id"].to_numpy()
        work = Inference(task, passes, pairs, chunks, stand_in, names, device)
        pace = Pace(budget, plan["now"], rows, plan["costs"])
        meet()  # no process may finish, and remove the notes, before all have read them
        work.run(own, dataset, positions, settings.batch_size, files, pace, budget, heed)
        waited = work.waits.seconds()
        while main and chunks.pending():
            heed(0)
            time.sleep(_POLL)
        if main:
            fresh = sum(len(chunks.rows(c)) for c in range(chunks.count) if c not in done)
            _say_speed(fresh, share[1], work.waits.began, waited)
            notes = chunks.notes()
            marked = _marked(table, notes, chunks)
            chunks.collect(marked, files)
            note_broken(marked)
            _say_left_out(pairs, notes, views, chunks, settings.names)
        while not main and chunks.folder.exists():  # quietly: waiting here must not time out
            heed(0)
            time.sleep(_POLL)
    meet()
    return list(outs[:files])


def _recipe(
    task: Task,
    networks: Sequence[nn.Module],
    views: Sequence[str],
    table: pd.DataFrame,
    dtype: str,
    settings: Settings,
) -> dict[str, Any]:
    """All that decides what the files will hold."""
    return {
        "networks": [_digest(network) for network in networks],
        "views": views,
        "ids": fingerprint(table["id"].to_numpy()),
        "inputs": settings.source,
        "precision": task.config.train.precision,
        "stored as": dtype,
        "batch size": settings.batch_size,
        "rows of a chunk": settings.chunk,
    }


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _plan(
    task: Task,
    passes: Passes,
    pairs: Sequence[Pair],
    chunks: Chunks,
    dataset: Dataset,
    first: np.ndarray,
    budget: Budget,
    device: torch.device,
    processes: int,
) -> dict[str, Any]:
    """How many pairs the files are made for, how many the next rows get, what each costs.

    An earlier start's choice stays, so that rows agree; with less time the rows to come get less.
    """
    plan = {"pairs": len(pairs), "now": len(pairs), "costs": None}
    known = chunks.plan()
    if budget.limited and chunks.pending():
        (batch,) = make_loader(dataset, [first.tolist()], LoaderConfig(workers=0), device)
        batch.pop("broken", None)
        costs = measure(passes, to_device(batch, device), pairs, budget)
        rows = sum(len(chunks.rows(chunk)) for chunk in chunks.pending())
        plan["now"] = affordable(costs, -(-rows // processes), budget.left)
        plan |= {"costs": costs, "pairs": plan["now"]}
    if known:
        plan["pairs"] = known["pairs"]
    return {**plan, "now": min(plan["now"], plan["pairs"])}


def _marked(table: pd.DataFrame, notes: pd.DataFrame, chunks: Chunks) -> pd.DataFrame:
    """The id table, with a column for what befell some of its rows, if any."""
    if not len(notes):
        return table
    broken = np.zeros(len(table), int)
    broken[[row for rows in notes["broken"] for row in rows]] = 1
    pairs = notes["pairs"].to_numpy()[np.arange(len(table)) // chunks.size]
    table = table.assign(broken=broken) if broken.any() else table
    return table.assign(pairs=pairs) if (pairs != pairs[0]).any() else table


def _say_speed(rows: int, processes: int, began: float | None, waited: float) -> None:
    if began is not None:
        seconds = max(time.perf_counter() - began, 1e-9)
        print(
            f"{rows} samples in {seconds:.2f} s on {processes} devices: {rows / seconds:.2f} "
            f"samples/s; the first device waited for data {waited / seconds:.1%} of the time"
        )


def _say_left_out(
    pairs: Sequence[Pair],
    notes: pd.DataFrame,
    views: Sequence[str],
    chunks: Chunks,
    names: Sequence[str],
) -> None:
    """One line on what there was no time for, if anything."""
    if not len(notes) or notes["pairs"].min() == len(pairs):
        return
    names = names or [out.stem for out in chunks.outs]
    rows = np.array([len(chunks.rows(chunk)) for chunk in range(chunks.count)])
    parts = []
    for number, (network, view) in enumerate(pairs):
        lacking = int(rows[notes["pairs"] <= number].sum())
        if number == 0 and lacking:
            parts.append(f"any prediction of {lacking} samples, which have the stand-in")
        elif lacking:
            some = "" if lacking == rows.sum() else f" for {lacking} of {rows.sum()} samples"
            parts.append(f"{names[network]} {views[view]}{some}")
    print(f"warning: there was no time for {'; '.join(parts)}")
