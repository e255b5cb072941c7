"""Fit one fold on accelerate: one process, several GPUs or several hosts by the same code.

Every random number is a function of (seed, fold, step, slot), see `loading.py`; a checkpoint holds
the rest, so a run that was killed ends with the weights it would have had.
"""

import math
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from traceback import clear_frames
from typing import Any

import torch
from torch import nn

from comp.core.average import Average
from comp.core.checkpoint import load_state, load_weights, save_state
from comp.core.config import dump_config
from comp.core.errors import InputError
from comp.core.feed import Feed, made_batches
from comp.core.files import save_npy, write_json
from comp.core.folds import fold_rows
from comp.core.graphs import record
from comp.core.loading import (
    StepBatches,
    derive_seed,
    draw_rows,
    due,
    limit_rows,
    make_loader,
    micro_batch_size,
    sample_names,
)
from comp.core.memory import describe_shortage
from comp.core.optim import build_optimizer, lr_factor, set_lr
from comp.core.predict import evaluate, fold_folder, new_accelerator
from comp.core.progress import Progress
from comp.core.runs import refuse_other_config
from comp.core.signals import Stopped, StopRequest
from comp.core.start import fold_marks, resampled, starting_weights
from comp.core.task import Task
from comp.core.watch import LossWatch, NonFiniteLoss, Seen, describe_break


def fit(task: Task, fold: int | str, run: Path) -> dict[str, Any]:
    """Train `fold` to its end, continuing from its last checkpoint if there is one.

    Returns:
        The summary that `done.json` holds: steps, seconds over all starts, best score, its step.

    Raises:
        InputError: bad input, a checkpoint of another config, or too little GPU memory.
        NonFiniteLoss: with the step, the sample ids and the last good checkpoint.
        Stopped: asked to end by Ctrl-C or SIGTERM; the state has been saved.
    """
    return Trainer(task, fold, fold_folder(run, fold)).fit()


class Trainer:
    """One fold's fit; `fit()` runs it, the other methods are its parts."""

    def __init__(self, task: Task, fold: int | str, folder: Path) -> None:
        self.task, self.fold, self.folder = task, fold, folder
        self.config, self.settings = task.config, task.config.train
        self.accelerator = new_accelerator(
            self.config, folder if self.settings.tensorboard else None
        )
        self.main = self.accelerator.is_main_process
        self.seed = derive_seed(self.config.seed, 2**32 - 1 if fold == "all" else int(fold))
        self.train_rows, self.valid_rows = (
            limit_rows(rows, self.config.limit) for rows in fold_rows(task.folds(), fold)
        )
        probes = self.settings.probes(task.mixes)
        self.probe_rows = draw_rows(self.train_rows, probes, self.seed)
        self.data = task.training_dataset(self.train_rows, self.seed)
        processes = self.accelerator.num_processes
        self.micro_size = micro_batch_size(self.settings, processes, len(self.data))
        self.marks = fold_marks(task, fold, self.train_rows, self.valid_rows)
        torch.manual_seed(self.seed)
        network = self._first_network()
        if self.settings.channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.model, self.optimizer = self.accelerator.prepare(
            network, build_optimizer(network, self.config.optim, self.accelerator.device)
        )
        self.plain, self.first_forward = network, network.forward
        self.weights = list(network.parameters())
        self.average = Average(network, self.settings.ema) if self.settings.ema else None
        self.step, self.best, self.best_step, self.stale = 0, None, 0, 0
        self.began = time.time()  # or so long before, as earlier starts of this fit took
        self.epoch_steps = len(self.data) // self.settings.batch_size
        self.total = self.settings.epochs * self.epoch_steps

    def _first_network(self) -> nn.Module:
        """The network as training finds it; of its own checkpoint `resume` takes care."""
        resumes, source = (self.folder / "last.safetensors").exists(), self.settings.start_from
        network = self.task.build_model(fetch=not (resumes or source))
        if source and not resumes:
            path, weights = starting_weights(source, self.fold, self.marks)
            load_weights(network, resampled(network, weights), path)
            self.accelerator.print(f"fold {self.fold} starts from {path}")
        return network

    @property
    def network(self) -> nn.Module:
        """The network to judge and to keep: the averaged one where there is one."""
        return self.average.module if self.average else self.plain

    def fit(self) -> dict[str, Any]:
        """Train to the end; see the function `fit`."""
        self.resume()
        with self._progress() as progress, StopRequest() as stop:
            try:
                self._run(progress, stop)
            except torch.OutOfMemoryError as error:
                clear_frames(error.__traceback__)  # they hold what filled the memory
                raise InputError(f"fold {self.fold}, {describe_shortage(self)}") from None
        summary = {
            "fold": self.fold,
            "steps": self.step,
            "seconds": round(time.time() - self.began, 1),
            "metric": self.task.metric,
            "best": self.best,
            "best_step": self.best_step,
        }
        if self.main:
            self._save_weights("final", None)
            with suppress(NotImplementedError):
                save_npy(self.folder / "stand_in.npy", self.task.stand_in())
            write_json(self.folder / "done.json", summary)
        for tracker in self.accelerator.trackers:
            tracker.finish()
        # Not `end_training`: that would end the process group, which the next fold needs.
        self.accelerator.wait_for_everyone()
        return summary

    def _progress(self) -> Progress:
        send = None
        if self.settings.tensorboard:
            self.accelerator.init_trackers("events")
            send = self.accelerator.log
        folder, span = self.folder if self.main else None, (self.step, self.total, self.epoch_steps)
        return Progress(folder, f"fold {self.fold}", *span, send)

    def _run(self, progress: Progress, stop: StopRequest) -> None:
        batches = self.batches()
        device, how = self.accelerator.device, self.config.loader
        record(self)
        loader = iter(make_loader(self.data, batches, how, device))
        feed = Feed(made_batches(self.task, loader, batches, device), device, how.ahead)
        watch = LossWatch(self.accelerator.gather, strict=self.settings.precision != "fp16")
        while self.step < self.total and not self._early():
            lr = self.config.optim.lr * lr_factor(self.step, self.total, self.config.schedule)
            set_lr(self.optimizer, lr)
            watch.push(self.step, *self.train_step(feed), stop.signum)
            self.step += 1
            progress.advance(self.settings.batch_size)
            logs, saves, validates = due(self.step, self.total, self.epoch_steps, self.settings)
            validates = validates and len(self.valid_rows) + len(self.probe_rows) > 0
            # What the step computed is read one step later, so that the device never waits for the
            # host, but before anything is written.
            seen = watch.read(everything=logs or saves or validates)
            if seen.signum:
                seen = watch.read(everything=True)
            if seen.broken:
                raise NonFiniteLoss(self._broken_message(seen, batches))
            if logs:
                progress.logged(self.step, seen.values, lr)
            if validates:
                self._validate(progress)
            if saves or validates or seen.signum:
                self.save()
            if seen.signum:
                raise Stopped(
                    f"fold {self.fold} stopped at step {self.step} of {self.total} and saved; "
                    "the same command goes on from there",
                    seen.signum,
                )

    def batches(self) -> StepBatches:
        """What this process trains on from this step to the last."""
        return StepBatches(
            len(self.data),
            self.settings.batch_size,
            self.seed,
            accumulate=self.settings.accumulate,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            start=self.step,
            stop=self.total,
        )

    def train_step(self, feed: Feed) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One optimizer step: accumulate, clip, update, average.

        Returns:
            The loss terms, averaged over this process's micro-batches, and the gradient norm.
        """
        accumulate, sums = self.settings.accumulate, {}
        for micro in range(accumulate):
            seed, batch = next(feed)
            torch.manual_seed(seed)  # for dropout and the like inside the network
            last = micro == accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                output = self.model(*self.task.inputs(batch))
                terms = self.task.loss(output, batch, self.step / self.total)
                self.accelerator.backward(terms["loss"] / accumulate)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach().float() / accumulate
            if not last:
                feed.prefetch()
        norm = self.accelerator.clip_grad_norm_(self.weights, self.settings.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update(self.plain, step=self.step)
        feed.prefetch()
        return sums, norm.detach()

    def _early(self) -> bool:
        return self.settings.early_stop is not None and self.stale >= self.settings.early_stop

    def _validate(self, progress: Progress) -> None:
        metrics = {}
        for part, rows in (("train", self.probe_rows), ("valid", self.valid_rows)):
            if len(rows):
                found = evaluate(self.task, self.network, rows, self.accelerator, self.micro_size)
                metrics |= {f"{part}/{name}": value for name, value in found.items()}
        score = metrics.get(f"valid/{self.task.metric}")
        if score is not None:
            self._judge(score)
        progress.validated(self.step, metrics, self.task.metric, self.best)

    def _judge(self, score: float) -> None:
        sign = 1 if self.task.lower_is_better else -1
        better = self.best is None or sign * score < sign * self.best
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best, self.best_step = score, self.step
            if self.main:
                self._save_weights("best", score)

    def _broken_message(self, seen: Seen, batches: StepBatches) -> str:
        ids = sample_names(self.data, self.task.ids[self.train_rows], batches, seen.step)
        last = self.folder / "last.safetensors"
        return (
            f"fold {self.fold}, {describe_break(seen, ids, self.settings.accumulate)}; "
            f"last good checkpoint: {last if last.exists() else 'none yet'}"
        )

    def save(self) -> None:
        """Write `last.safetensors`, from which `resume` goes on exactly."""
        if self.main:
            scaler = self.accelerator.scaler
            state = {
                "config": dump_config(self.config),
                "data": self.marks["rows"],
                "seconds": time.time() - self.began,
                "progress": [self.step, self.best, self.best_step, self.stale],
                "model": self.plain.state_dict(),
                "average": self.average.module.state_dict() if self.average else None,
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler else None,
            }
            save_state(self.folder / "last.safetensors", state)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Continue from `last.safetensors` if it is there; refuse one of another config or data."""
        path = self.folder / "last.safetensors"
        if not path.exists():
            return
        state = load_state(path)
        refuse_other_config(path, state["config"], self.config)
        if state["data"] != self.marks["rows"]:
            raise InputError(f"{path}: fold {self.fold} had other samples, expected the same folds")
        self.step, self.best, self.best_step, self.stale = state["progress"]
        self.began -= state.get("seconds", 0.0)
        load_weights(self.plain, state["model"], path)
        if self.average:
            load_weights(self.average.module, state["average"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.accelerator.print(f"fold {self.fold} goes on at step {self.step} of {self.total}")

    def _save_weights(self, name: str, score: float | None) -> None:
        state = {
            "config": dump_config(self.config),
            "fold": self.fold,
            "marks": self.marks,
            "step": self.step,
            "metric": self.task.metric,
            "score": score,
            "model": self.network.state_dict(),
        }
        save_state(self.folder / f"{name}.safetensors", state)
