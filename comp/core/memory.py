"""When the GPU's memory does not suffice: which micro-batch would, found by trying."""

import gc
from typing import TYPE_CHECKING

import torch

from comp.core.feed import one_batch

if TYPE_CHECKING:
    from comp.core.trainer import Trainer


def describe_shortage(trainer: "Trainer") -> str:
    """What to do after a step ran out of memory, in one line.

    Smaller micro-batches that divide the batch are tried on this process's device, the largest
    first. Gradients are lost.
    """
    settings = trainer.settings
    trainer.plain.forward = trainer.first_forward  # a recorded one takes one size only …
    gc.collect()  # … and holds its memory
    own = settings.batch_size // trainer.accelerator.num_processes
    failed = f"out of GPU memory with micro-batches of {own // settings.accumulate}"
    for accumulate in range(settings.accumulate + 1, own + 1):
        size, rest = divmod(own, accumulate)
        if not rest and _fits(trainer, size):
            kept = f"train.accumulate={accumulate} keeps the batch of {settings.batch_size}"
            return f"{failed}; {size} fit: {kept}"
    return f"{failed}, and no smaller one fits; expected a smaller network or input"


def _fits(trainer: "Trainer", size: int) -> bool:
    """Whether forward and backward of so many samples fit beside what the optimizer keeps."""
    device, task, network = trainer.accelerator.device, trainer.task, trainer.plain
    trainer.optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        room = []
        if not trainer.optimizer.state:  # before the first step: two moments of every weight
            room = [torch.empty_like(weight) for weight in network.parameters() for _ in range(2)]
        batch = one_batch(task, trainer.data, size, device)
        # The last step's loss, all terms of which are in.
        task.loss(network(*task.inputs(batch)), batch, 1.0)["loss"].backward()
        del room
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer.optimizer.zero_grad()
    return True
