"""CPU threads of a process that a launcher started."""

import os

import torch


def share_cores(processes: int) -> None:
    """Let this one of `processes` that compute on the CPU use its part of the cores.

    The launcher gives each process one thread, which is right beside a GPU only. Another number in
    OMP_NUM_THREADS is somebody's wish, and stays.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
