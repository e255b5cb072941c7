"""Averaged weights: an exponential moving average of everything in a network's state."""

import torch
from timm.utils import ModelEmaV3
from torch import nn


class Average(ModelEmaV3):
    """timm's, with the tensors to be averaged found once.

    Listing a network's state anew takes longer than a small network's forward pass. So tensors of
    the state must be changed in place, as torch's own modules and optimizers do.

    Attributes:
        module: the averaged network, in evaluation mode.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """For a network that is where it will be trained; decay grows to `decay` with the steps."""
        super().__init__(network, decay=decay, use_warmup=True)
        self._ours, self._theirs = _sorted(self.module), _sorted(network)

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Move the averages; `model` is the network given first."""
        (ours, our_counts), (theirs, their_counts) = self._ours, self._theirs
        torch._foreach_lerp_(ours, theirs, weight=1 - decay)
        if our_counts:
            torch._foreach_copy_(our_counts, their_counts)


def _sorted(network: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A network's state: what can be averaged, and what is only counted."""
    state = list(network.state_dict().values())
    counts = [tensor for tensor in state if not tensor.is_floating_point()]
    return [tensor for tensor in state if tensor.is_floating_point()], counts
