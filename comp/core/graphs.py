"""A network's kernels recorded as CUDA graphs: two launches a step in place of hundreds.

The host needs some microseconds a launch, so small networks wait for it most of the time.
"""

from typing import TYPE_CHECKING

import torch

from comp.core.feed import one_batch

if TYPE_CHECKING:
    from comp.core.trainer import Trainer


def record(trainer: "Trainer") -> None:
    """Let a trainer's network replay forward and backward pass, where `train.graph` asks for it.

    It does in training mode, on batches of the size of the trainer's micro-batches. Call it while
    nothing else uses the device. Weights, batch statistics and whatever else the network keeps stay
    as they are.
    """
    network, settings, accelerator = trainer.plain, trainer.settings, trainer.accelerator
    if not settings.graph or accelerator.device.type != "cuda":
        return
    # Gradients lie where the next replay writes, so they cannot add up over micro-batches.
    if settings.compile or settings.accumulate > 1 or accelerator.num_processes > 1:
        needs = "one process, train.accumulate=1 and train.compile=false"
        accelerator.print(f"note: train.graph takes {needs}: off")
        return
    batch = one_batch(trainer.task, trainer.data, trainer.micro_size, accelerator.device)
    inputs = trainer.task.inputs(batch)
    kept = [buffer.clone() for buffer in network.buffers()]
    # Of their own memory, which every batch is copied to.
    torch.cuda.make_graphed_callables(network, tuple(part.clone() for part in inputs))
    with torch.no_grad():
        for buffer, before in zip(network.buffers(), kept):
            buffer.copy_(before)
