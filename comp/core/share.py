"""The part of a piece of work that one of several processes does.

For work whose processes meet in files alone: none waits for another while it computes, and one that
is killed takes nothing down with it.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from comp.core.errors import InputError
from comp.core.files import write_json

_POLL = 0.2  # seconds between looks at what the first process has done


def _launcher() -> list[int | str]:
    """What tells the process that started this one from any other: its number and its start."""
    parent = os.getppid()
    try:
        stat = Path(f"/proc/{parent}/stat").read_text()
    except OSError:  # no such files on this system
        return [parent]
    return [parent, stat.rpartition(")")[2].split()[19]]


@dataclass(frozen=True)
class Share:
    """Which part of the work a process does, and where.

    Attributes:
        index, count: this process and all of them; it takes the rows index, index + count, …
        device: where it computes.
        beside: how many processes compute there, this one among them.
    """

    index: int = 0
    count: int = 1
    device: str = "cpu"
    beside: int = 1

    @classmethod
    def of_launcher(cls) -> "Share":
        """As `accelerate launch` or `torchrun` say in the environment; everything without them.

        The processes meet in files alone, so none waits for another while it computes. Where there
        are more of them than GPUs, they share these.
        """
        index, count = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1)))
        if not torch.cuda.is_available():
            return cls(index, count)
        local, here = os.environ.get("LOCAL_RANK", 0), os.environ.get("LOCAL_WORLD_SIZE", count)
        gpus = torch.cuda.device_count()
        gpu = int(local) % gpus
        return cls(index, count, f"cuda:{gpu}", len(range(gpu, int(here), gpus)))

    @property
    def first(self) -> bool:
        """Whether this is the process that begins and ends the work."""
        return self.index == 0

    def open_for_others(self, path: Path) -> None:
        """Let the other processes begin; the first calls it when all is ready for them."""
        if self.first and self.count > 1:
            write_json(path, {"launcher": _launcher()})

    def wait_for_first(self, path: Path, done: Callable[[], bool]) -> None:
        """Until the first process of the same launch has called `open_for_others`, or all is done.

        A file that a killed launch left speaks of another launcher. If the first process fails, the
        launcher ends the others; without one they would wait for good.

        Raises:
            InputError: the processes are on several hosts; what `done` raises.
        """
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        if here != self.count:
            raise InputError(f"{self.count} processes, {here} of them here, expected one host")
        while not done():
            try:
                if json.loads(path.read_text()) == {"launcher": _launcher()}:
                    return
            except FileNotFoundError:
                pass
            time.sleep(_POLL)
