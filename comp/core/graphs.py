"""A network's kernels recorded as CUDA graphs: two launches a step in place of hundreds.

The host needs some microseconds a launch, so small networks wait for it most of the time.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from comp.core.feed import one_batch

if TYPE_CHECKING:
    from comp.core.trainer import Trainer

_TAKES = "one process, train.accumulate=1, train.compile=false and inputs that are all alike"


def record(trainer: "Trainer") -> None:
    """Let a trainer's network replay forward and backward pass, where `train.graph` asks for it.

    It does in training mode, on batches of the size of the trainer's micro-batches. Call it while
    nothing else uses the device. Weights and buffers, batch statistics among them, stay as they
    are.
    """
    network, settings, accelerator = trainer.plain, trainer.settings, trainer.accelerator
    if not settings.graph or accelerator.device.type != "cuda":
        return
    # Gradients lie where the next replay writes, so they cannot add up over micro-batches.
    several = settings.accumulate > 1 or accelerator.num_processes > 1
    if several or settings.compile or not trainer.task.fixed_inputs:
        accelerator.print(f"note: train.graph: off, it takes {_TAKES}")
        return
    batch = one_batch(trainer.task, trainer.data, trainer.micro_size, accelerator.device)
    # Of their own memory, which every batch is copied to.
    inputs = tuple(part.clone() for part in trainer.task.inputs(batch))
    kept = [buffer.clone() for buffer in network.buffers()]
    with _no_collection():
        torch.cuda.make_graphed_callables(network, inputs, allow_unused_input=True)
    with torch.no_grad():
        for buffer, before in zip(network.buffers(), kept):
            buffer.copy_(before)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage, and with none collected.

    A recorded network and its graphs hold each other, so those of the fold before go when they are
    collected, and while others are being recorded they must not.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
