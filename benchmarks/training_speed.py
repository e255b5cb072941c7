"""How fast a training step is, against the way of public notebooks, and what the GPU does in it.

python benchmarks/training_speed.py --configs configs/fwi/*.yaml                 on a GPU
python benchmarks/training_speed.py --configs configs/fwi/demo.yaml --maps 24 --pad 10 \\
    --seconds 2 --warmup 1 --set train.batch_size=4 loader.workers=0              on a CPU

Simulates generated maps into a temporary folder, as shards and as float32 files of 500 samples,
and trains each config's network on them, for so many seconds after a warm-up:

ours      the trainer's own step with its loader, as the config says (--set changes it for all)
notebook  the same network and batch: eager, fp16 autocast on a GPU, `np.load(mmap_mode="r")` of the
          float32 files, default collate, AdamW, clipped gradients, averaged weights, loss.item()
stall     share of our time in which a step waited for the loader while the GPU had nothing left to
          do; a wait within which the GPU ran out counts whole, so this is an upper bound
online    the same with every sample made as training goes (online.samples, online.stored=false);
          "made" is the share of such a step by which it is longer than one on stored records
MFU       floating-point operations of forward and backward, counted by torch, × samples/s, over
          --peak: what the GPU can do in 16 bits without sparsity, known for common ones
"""

import argparse
import gc
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from comp.core.errors import InputError, run_script
from comp.core.feed import Feed, made_batches, one_batch
from comp.core.files import save_npy
from comp.core.folds import write_folds
from comp.core.graphs import record
from comp.core.loading import make_loader
from comp.core.optim import lr_factor, set_lr
from comp.core.trainer import Trainer
from comp.core.watch import LossWatch
from comp.fwi.describe import describe_folder
from comp.fwi.maps import generated_maps
from comp.fwi.shots import ShotStore
from comp.fwi.simulated import write_training
from comp.fwi.survey import OFFICIAL
from comp.tasks import build_task, load_config

FILE_ROWS = 500  # samples in a file of the competition
# TFLOP/s of dense 16-bit matrix products, from the makers' data sheets.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "V100": 125, "T4": 65}


@dataclass
class Rate:
    """What a loop measured: samples/s, share of time waiting, bytes at the peak."""

    samples: float
    stall: float = 0.0
    memory: int = 0


class Timed:
    """A loader's iterator that adds up the waits in which the device ran dry."""

    def __init__(self, batches: Iterator, device: torch.device) -> None:
        self._batches, self._device, self.waited = batches, device, 0.0

    def __iter__(self) -> "Timed":
        return self

    def __next__(self):
        queued = None
        if self._device.type == "cuda":
            queued = torch.cuda.default_stream(self._device).record_event()
        start = time.perf_counter()
        batch = next(self._batches)
        if queued is None or queued.query():
            self.waited += time.perf_counter() - start
        return batch


class Notebook(Dataset):
    """Float32 files of 500 samples, mapped, one sample at a time."""

    def __init__(self, folder: Path) -> None:
        count = len(list(folder.glob("data*.npy")))
        self.shots = [np.load(folder / f"data{i}.npy", mmap_mode="r") for i in range(count)]
        self.velocity = [np.load(folder / f"model{i}.npy", mmap_mode="r") for i in range(count)]

    def __len__(self) -> int:
        return sum(map(len, self.shots))

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        file, place = divmod(row, FILE_ROWS)
        shots, velocity = self.shots[file][place], self.velocity[file][place]
        if np.random.random() < 0.5:
            shots, velocity = shots[::-1, :, ::-1], velocity[..., ::-1]
        return shots.copy(), velocity.copy()


def make_data(folder: Path, families: list[str], count: int, pad: int) -> None:
    """A prepared folder with two folds, an eighth of it in the second, and the notebook's files."""
    survey = replace(OFFICIAL, pad=pad)
    each = -(-count // len(families))
    write_training(folder / "data", generated_maps(families, each, FILE_ROWS, 0), survey)
    description = describe_folder(folder / "data").grouped_by(None)
    folds = (np.arange(len(description.ids)) % 8 > 0).astype(int)
    write_folds(folder / "data/folds.csv", folds, description, {})
    store = ShotStore(folder / "data")
    for i, start in enumerate(range(0, len(store), FILE_ROWS)):
        rows = range(start, min(start + FILE_ROWS, len(store)))
        shots = np.stack([store.shots(row) for row in rows]).astype(np.float32)
        save_npy(folder / f"files/data{i}.npy", shots / np.float32(store.amplitude_scale))
        save_npy(folder / f"files/model{i}.npy", store.velocities(rows)[:, None])


def device_done(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(step, device: torch.device, batch_size: int, args: argparse.Namespace) -> Rate:
    """Call `step` for the warm-up, then for --seconds."""
    # The first steps compile, load kernels and fill the loader; few may take all of the warm-up.
    for seconds, least, counted in ((args.warmup, 5, False), (args.seconds, 3, True)):
        device_done(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        start, steps = time.perf_counter(), 0
        while steps < least or time.perf_counter() - start < seconds:
            step(counted)
            steps += 1
        device_done(device)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Rate(steps * batch_size / (time.perf_counter() - start), memory=memory)


def ours(trainer: Trainer, args: argparse.Namespace) -> Rate:
    """The steps of `Trainer._run`, without what comes between epochs."""
    device, config, batches = trainer.accelerator.device, trainer.config, trainer.batches()
    record(trainer)
    loader = Timed(iter(make_loader(trainer.data, batches, config.loader, device)), device)
    made = made_batches(trainer.task, loader, batches, device)
    feed = Feed(made, device, config.loader.ahead)
    watch = LossWatch(trainer.accelerator.gather, strict=False)
    began = None

    def step(counted: bool) -> None:
        nonlocal began
        if counted and began is None:
            began, loader.waited = time.perf_counter(), 0.0
        factor = lr_factor(trainer.step, trainer.total, config.schedule)
        set_lr(trainer.optimizer, config.optim.lr * factor)
        watch.push(trainer.step, *trainer.train_step(feed), 0)
        trainer.step += 1
        watch.read(everything=trainer.step % config.train.log_every == 0)

    rate = measure(step, device, config.train.batch_size, args)
    rate.stall = loader.waited / (time.perf_counter() - began)
    return rate


def notebook(task, folder: Path, device: torch.device, args: argparse.Namespace) -> Rate:
    """The plain loop of public notebooks."""
    config = task.config
    network = task.build_model(fetch=False).to(device)
    average = ModelEmaV3(network, decay=0.99)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.optim.lr)
    cuda = device.type == "cuda"
    scaler = torch.amp.GradScaler(enabled=cuda)
    loader = DataLoader(
        Notebook(folder / "files"),
        config.train.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.loader.workers,
        pin_memory=cuda,
        persistent_workers=config.loader.workers > 0,
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def step(_: bool) -> None:
        shots, velocity = (part.to(device) for part in next(batches))
        with torch.autocast("cuda", torch.float16) if cuda else nullcontext():
            output = network(shots)
        loss = (output.float() - velocity).abs().mean() / 1500
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        average.update(network)
        loss.item()

    return measure(step, device, config.train.batch_size, args)


def flops(trainer: Trainer) -> float:
    """Floating-point operations of forward and backward a sample."""
    device, size = trainer.accelerator.device, min(2, trainer.micro_size)
    batch = one_batch(trainer.task, trainer.data, size, device)
    with FlopCounterMode(display=False) as counter:
        output = trainer.plain(*trainer.task.inputs(batch))
        output.float().mean().backward()
    trainer.optimizer.zero_grad()
    return counter.get_total_flops() / size


def compare(path: str, folder: Path, args: argparse.Namespace) -> str:
    """A line of the table."""
    name = Path(path).stem
    settings = [f"data.folder={folder / 'data'}", f"data.folds={folder / 'data/folds.csv'}"]
    settings += [f"root={folder / 'runs'}", f"name={name}", "folds=[0]", "train.epochs=1000000"]
    settings += ["train.start_from=null", *args.set]
    config = load_config(path, settings)
    if config.task != "fwi":
        raise InputError(f"{path}: task {config.task!r}, expected a config of waveform inversion")
    if getattr(config.model, "pretrained", False):  # nothing is downloaded for a measurement
        settings.append("model.pretrained=false")

    def trainer(*more: str) -> Trainer:
        task = build_task(load_config(path, [*settings, *more]))
        return Trainer(task, 0, folder / "runs" / name)

    stored = trainer()
    device, operations = stored.accelerator.device, flops(stored)
    found, task = ours(stored, args), stored.task
    samples = len(stored.train_rows)
    del stored  # its memory is not the notebook's
    gc.collect()  # of recorded graphs, which hold each other
    torch.cuda.empty_cache()
    plain = notebook(task, folder, device, args)
    online = trainer(f"online.samples={samples}", "online.stored=false", "online.generated=1")
    made = ours(online, args)
    peak = args.peak or next(
        (tflops for key, tflops in PEAKS.items() if key in device_name(device)), None
    )
    used = f"{100 * operations * found.samples / peak / 1e12:7.1f}" if peak else f"{'–':>7}"
    return (
        f"{name:24}{found.samples:9.1f}{plain.samples:10.1f}{found.samples / plain.samples:7.2f}x"
        f"{100 * found.stall:8.1f}{found.memory / 2**30:9.2f}{plain.memory / 2**30:10.2f}"
        f"{operations / 1e9:9.2f}{used}{made.samples:9.1f}"
        f"{100 * max(0.0, 1 - made.samples / found.samples):7.1f}  {config.train.precision}"
        f"{', compiled' if config.train.compile else ''}{', graphs' if config.train.graph else ''}"
        f", batch {config.train.batch_size}"
    )


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main() -> None:
    """Make the data, measure config after config, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--configs", nargs="+", required=True, help="YAML files of waveform inversion")
    add("--families", nargs="+", default=["FlatVel_A", "CurveVel_B", "FlatFault_A", "Style_A"])
    add("--maps", type=int, default=2000, help="samples, 2.1 MB of disk each (2000)")
    add("--pad", type=int, default=OFFICIAL.pad, help=f"sponge cells on a side ({OFFICIAL.pad})")
    add("--seconds", type=float, default=20, help="of each loop that count (20)")
    add("--warmup", type=float, default=10, help="seconds before them (10)")
    add("--peak", type=float, help="TFLOP/s of the device (known for common GPUs)")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every config")
    add("--folder", help="where to make the temporary folder (the system's)")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        make_data(Path(name), args.families, args.maps, args.pad)
        print(f"\n{device_name(device)}, torch {torch.__version__}; samples/s, % and GiB")
        print(
            f"{'config':24}{'ours':>9}{'notebook':>10}{'ratio':>8}{'stall %':>8}{'GiB':>9}"
            f"{'notebook':>10}{'GFLOP':>9}{'MFU %':>7}{'online':>9}{'made %':>7}"
        )
        for path in args.configs:
            print(compare(path, Path(name), args), flush=True)


if __name__ == "__main__":
    run_script(main)
