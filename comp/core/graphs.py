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

    That is in training mode and on a GPU. Batches must have the size of the trainer's micro-batches
    from now on, and gradients must not add up over several: they lie where the next replay writes.
    Call it while nothing else uses the device. Weights, batch statistics and whatever else the
    network keeps stay as they are.
    """
    network, device = trainer.plain, trainer.accelerator.device
    if not trainer.settings.graph or device.type != "cuda":
        return
    inputs = trainer.task.inputs(one_batch(trainer.task, trainer.data, trainer.micro_size, device))
    kept = [buffer.clone() for buffer in network.buffers()]
    with torch.cuda.device(device):  # whose streams record
        # Of their own memory, which every batch is copied to.
        torch.cuda.make_graphed_callables(network, tuple(part.clone() for part in inputs))
    with torch.no_grad():
        for buffer, before in zip(network.buffers(), kept):
            buffer.copy_(before)
