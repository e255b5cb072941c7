"""What a person sees of a fit: one bar with the numbers people watch, the log, TensorBoard.

And of data being written: a bar over samples.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from comp.core.runs import MetricsLog


class Progress:
    """Bar and log of one fold; a context manager that closes both.

    Args:
        folder: the fold's folder; `log.jsonl` goes there. None on all processes but the first:
            nothing is shown or written there.
        title: stands before the bar.
        step: the step training starts or goes on from.
        total: steps of the whole fit.
        epoch_steps: steps of one epoch.
        send: also gets every event, e.g. `Accelerator.log`.
    """

    def __init__(
        self,
        folder: Path | None,
        title: str,
        step: int,
        total: int,
        epoch_steps: int,
        send: Callable[..., None] | None,
    ) -> None:
        self._log = None if folder is None else MetricsLog(folder / "log.jsonl", step)
        self._bar = tqdm(
            total=total,
            initial=step,
            desc=title,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            disable=folder is None,
        )
        self._epoch_steps, self._send = epoch_steps, send
        self._shown: dict[str, str] = {}
        self._restart_clock()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._log:
            self._log.close()

    def advance(self, samples: int) -> None:
        """One step over so many samples is done."""
        self._samples += samples
        self._bar.update()

    def logged(self, step: int, values: dict[str, float], lr: float) -> None:
        """The loss terms of step `step`."""
        rate = self._samples / (time.perf_counter() - self._since)
        self._write(step, {**values, "lr": lr, "samples_per_s": round(rate, 1)})
        self._show(loss=f"{values['loss']:.4f}", lr=f"{lr:.1e}", rate=f"{rate:.0f}/s")
        self._restart_clock()

    def validated(
        self, step: int, metrics: dict[str, float], metric: str, best: float | None
    ) -> None:
        """Metrics after `step` steps, as in `valid/mae` and `train/mae`.

        `metric` is the one that selects; `best` is None as long as nothing has been validated.
        """
        self._write(step, metrics)
        names = {f"valid/{metric}": metric, f"train/{metric}": f"train {metric}"}
        shown = {names[key]: value for key, value in metrics.items() if key in names}
        shown |= {} if best is None else {"best": best}
        self._show(**{key: f"{value:.4g}" for key, value in shown.items()})
        self._restart_clock()

    def _restart_clock(self) -> None:
        """Begin a new stretch of the samples-a-second figure, which leaves validation out."""
        self._since, self._samples = time.perf_counter(), 0

    def _show(self, **values: str) -> None:
        self._shown |= values
        self._bar.set_postfix(self._shown, refresh=False)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._log:
            self._log.write(step=step, epoch=round(step / self._epoch_steps, 3), **values)
        if self._send:
            self._send(values, step=step)


@contextmanager
def sample_bar(
    total: int, initial: int = 0, hidden: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """A bar over samples with MB/s; tell the yielded function (samples, bytes) as they are done."""
    start, size = time.monotonic(), 0
    with tqdm(total=total, initial=initial, unit=" samples", disable=hidden) as bar:

        def advance(samples: int, nbytes: int) -> None:
            nonlocal size
            size += nbytes
            rate = size / 1e6 / max(time.monotonic() - start, 1e-3)
            bar.set_postfix_str(f"{rate:.0f} MB/s", refresh=False)
            bar.update(samples)

        yield advance
