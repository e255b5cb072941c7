"""Ending a run on request: Ctrl-C or SIGTERM is noted, and acted on between two steps."""

import ctypes
import os
import signal
import sys
from types import FrameType

GRACE = 30  # seconds


class Stopped(Exception):
    """The run was asked to end and has saved itself.

    Attributes:
        signum: the signal that asked.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


class StopRequest:
    """Context manager: within it SIGINT and SIGTERM only set `signum`; a second one interrupts."""

    def __init__(self) -> None:
        self.signum = 0

    def __enter__(self) -> "StopRequest":
        self._old = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        _follow_launcher()
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum


def _follow_launcher() -> None:
    """Have the kernel send SIGTERM when `accelerate launch` dies, which forwards no signal itself.

    Without it a terminated launcher would leave the training process running, unseen.
    """
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def outlive_signals(_worker: int) -> None:
    """For loader workers: a signal to the whole group must not end them before the trainer saves.

    After a SIGTERM they have `GRACE` seconds; the trainer usually dismisses them sooner.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
