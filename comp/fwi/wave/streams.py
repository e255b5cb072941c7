"""Work in parts on two streams of a GPU, so that one fills what the other leaves idle."""

from collections.abc import Callable, Sequence
from functools import cache

import torch


@cache
def _pair(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


def joined(
    parts: Sequence[torch.Tensor],
    work: Callable[[torch.Tensor], torch.Tensor],
    overlap: bool,
) -> torch.Tensor:
    """What `work` makes of each part, one after another along the first axis.

    With `overlap`, parts on a GPU go to two streams in turn, in between what the current stream did
    and will do; `work` may then leave no memory of the GPU behind but what it returns.
    """
    if len(parts) == 1:
        return work(parts[0])
    if not overlap:
        return torch.cat([work(part) for part in parts])
    current = torch.cuda.current_stream(parts[0].device)
    streams = _pair(parts[0].device)
    for stream in streams:
        stream.wait_stream(current)
    made = []
    try:
        for i, part in enumerate(parts):
            with torch.cuda.stream(streams[i % 2]):
                made.append(work(part))
    finally:  # also before an error frees what they are at work on
        for stream in streams:
            current.wait_stream(stream)
    joint = torch.cat(made)
    for part in made:  # another stream may want these two before the current one has read it
        part.record_stream(current)
    return joint
