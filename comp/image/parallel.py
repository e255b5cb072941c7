"""Work on many images in threads, under one progress bar."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, title: str
) -> list[Result]:
    """The results of `work` on each item, in order; the first error ends it all.

    Args:
        work: should let go of the interpreter lock, as reading and decoding images do.
        items: what it is given, one by one.
        threads: at work at a time.
        title: stands before the bar.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        return list(tqdm(pool.map(work, items), total=len(items), desc=title, unit="image"))
    finally:
        pool.shutdown(cancel_futures=True)  # else an error would wait for all that is queued
