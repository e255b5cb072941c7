"""How fast test records become predictions on disk, by scripts/predict.py itself.

python benchmarks/inference.py --run runs/mine --records 4096 --batch-size 64 --workers 8
python benchmarks/inference.py --config configs/fwi/demo.yaml --records 64 --batch-size 8

Makes record files of noise, unless --test names a folder of real ones, and predicts them on one and
on all GPUs, or on the CPU, in each precision. Printed are samples/s from file to file once the
first batch is there, the share of that time in which the first device waited for data, the most
host memory of all processes together (proportional set size), and the hours for the competition's
65,818 records at that rate, the start left out. Then how far the other precisions' maps are from
those in float32, and with --truth how much that changes the score. Files are read from the page
cache where they fit; --cold asks the kernel to drop them before each run.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from loader import drop_cache

from comp.core.checkpoint import save_state
from comp.core.config import write_config
from comp.core.errors import run_script
from comp.core.files import save_npy, write_json
from comp.core.predictions import Predictions, load_predictions
from comp.core.runs import finished_folds
from comp.fwi.metrics import scored
from comp.fwi.survey import OFFICIAL
from comp.tasks import build_task, load_config

ROOT = Path(__file__).parent.parent
TEST_RECORDS = 65_818
SPEED = re.compile(r"in ([\d.]+) s on .*: ([\d.]+) samples/s; .* for data ([\d.]+)%")


def random_run(folder: Path, config_path: str, networks: int) -> Path:
    """A run folder of untrained networks."""
    config = load_config(config_path, ["model.pretrained=false"] if "fwi" in config_path else [])
    task = build_task(config)
    write_config(folder / "config.yaml", config)
    for fold in range(networks):
        torch.manual_seed(fold)
        state = {"model": task.build_model(fetch=False).state_dict()}
        save_state(folder / f"fold_{fold}" / "final.safetensors", state)
        save_npy(folder / f"fold_{fold}" / "stand_in.npy", np.full(OFFICIAL.map_shape, 3e3, "f4"))
        write_json(folder / f"fold_{fold}" / "done.json", {"fold": fold})
    return folder


def make_records(folder: Path, count: int) -> Path:
    """Record files of noise, with about the amplitudes of real ones."""
    random = np.random.default_rng(0)
    for number in range(count):
        record = random.standard_normal(OFFICIAL.record_shape, np.float32)
        save_npy(folder / f"{number:010x}.npy", record)
    return folder


def tree_memory(root: int) -> int:
    """Bytes of a process and all below it, pages that they share counted once."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    total, left = 0, [root]
    while left:
        process = left.pop()
        left += children.get(process, [])
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        total += 1024 * int(found[1]) if found else 0
    return total


def predict(arguments: list[str], processes: int) -> tuple[float, float, float, float]:
    """Samples/s, share of waiting, peak bytes, and seconds of the whole command."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}"]
    command = [sys.executable, *(launch if processes > 1 else [])]
    command += [str(ROOT / "scripts/predict.py"), *arguments]
    before = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), before]))}
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, env=environment)
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.5)
        said.seek(0)
        text = said.read()
    seconds, found = time.perf_counter() - start, SPEED.search(text)
    if process.returncode or not found:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {text}")
    return float(found[2]), float(found[3]) / 100, peak, seconds


def difference(other: Predictions, full: Predictions, truth: Predictions | None) -> str:
    """How far predictions are from others of the same rows."""
    apart, worse = [], []
    for start in range(0, len(full), 256):
        rows = slice(start, start + 256)
        a, b = other.values[rows], np.asarray(full.values[rows])
        apart.append(np.abs(a - b).mean((1, 2), dtype=np.float64))
        if truth is not None:
            true = scored(truth.values[truth.rows_of(full.ids[rows])])
            errors = [np.abs(scored(each) - true).mean((1, 2), dtype=np.float64) for each in (a, b)]
            worse.append(errors[0] - errors[1])
    text = f"{np.concatenate(apart).mean():.4f} m/s from float32"
    return text + (f", score {np.concatenate(worse).mean():+.4f} m/s" if worse else "")


def main() -> None:
    """Make what is missing, predict, print line by line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, help="run folder (default: untrained networks of --config)")
    add("--config", default=str(ROOT / "configs/fwi/demo.yaml"), help="of the untrained networks")
    add("--networks", type=int, default=1, help="untrained networks (1)")
    add("--test", type=Path, help="folder of test records (default: noise)")
    add("--truth", type=Path, help="prediction file with the truth of --test")
    add("--records", type=int, default=256, help="records, 1.4 MB of disk each (256)")
    add("--batch-size", type=int, default=64, help="samples a pass (64)")
    add("--workers", type=int, default=4, help="loader processes per device (4)")
    add("--precisions", nargs="+", default=["fp32", "fp16", "bf16"], help="(fp32 fp16 bf16)")
    add("--devices", type=int, nargs="+", help="numbers of processes (1 and all GPUs)")
    add("--tta", action="store_true", help="with the mirrored view")
    add("--cold", action="store_true", help="drop the records from the page cache before each run")
    add("--folder", help="where to make the temporary folder (the system's)")
    args = parser.parse_args()
    gpus = torch.cuda.device_count()
    counts = args.devices or sorted({1, max(gpus, 1)})
    where = torch.cuda.get_device_name() if gpus else "CPU"
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        run = args.run or random_run(folder / "run", args.config, args.networks)
        test = args.test or make_records(folder / "test", args.records)
        networks = len(finished_folds(run))
        print(f"{networks} networks, {2 if args.tta else 1} views, {args.records} records; {where}")
        print("devices precision storage  samples/s  waiting  host memory  command  65,818 records")
        files = {}
        for count in counts:
            for precision in args.precisions:
                half = precision != "fp32"
                files[precision] = folder / f"{precision}-{count}"
                command = ["--run", run, "--test", test, "--out", files[precision]]
                command += ["--batch-size", args.batch_size, "--limit", args.records]
                command += ["--half"] * half + ["--tta"] * args.tta
                command += [f"loader.workers={args.workers}", f"train.precision={precision}"]
                if args.cold:
                    drop_cache(test)
                rate, waiting, peak, seconds = predict(list(map(str, command)), count)
                print(
                    f"{count:7} {precision:>9} {'16 bit' if half else '32 bit'} {rate:11.1f} "
                    f"{waiting:8.1%} {peak / 2**30:8.2f} GiB {seconds:6.0f} s "
                    f"{TEST_RECORDS / rate / 3600:14.2f} h",
                    flush=True,
                )
        full = files.pop("fp32", None)
        truth = None if args.truth is None else load_predictions(args.truth)
        for precision, other in files.items() if full else ():
            for path in sorted(full.glob("fold_*.npy")):
                mine = load_predictions(other / path.name)
                print(f"{precision} {path.stem}: {difference(mine, load_predictions(path), truth)}")


if __name__ == "__main__":
    run_script(main)
