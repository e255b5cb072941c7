"""How fast training images come off the disk, against the plain loop of Pillow and albumentations.

python benchmarks/image_loading.py
python benchmarks/image_loading.py --images 400 --repeats 5

Makes JPEG photographs of two sizes in a temporary folder and prepares them. Both ways decode, cut
a random window, resize it to 224 × 224, flip, change colours, and give normalised float batches;
printed are images per second, the best pass of several, taken in turns.

plain: `np.array(Image.open(path).convert("RGB"))`, albumentations with Normalize and ToTensorV2,
the default collate. ours: `ImageDataset` of the prepared folder, whose uint8 batches are
normalised in the main process, where training does it on the GPU. kept: the same, with images
decoded and shrunk once by `scripts/prepare.py --size`.
"""

import argparse
import tempfile
import time
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from comp.core.config import LoaderConfig
from comp.core.errors import run_script
from comp.core.loading import StepBatches, make_loader
from comp.image.augment import AugmentConfig, training_transform
from comp.image.competitions import competition
from comp.image.data import ImageDataset
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore

SIZE, BATCH = 224, 16
SHAPES = {"400 × 300": (300, 400), "2000 × 1336": (1336, 2000)}
KEPT = 320  # short side of the images that are kept decoded
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG = AugmentConfig()


class PlainImages(Dataset):
    """What public notebooks do."""

    def __init__(self, folder: Path, ids: list[str]) -> None:
        self.folder, self.ids = folder, ids
        light = {
            key: (1 - value, 1 + value)
            for key in ("brightness", "contrast", "saturation")
            for value in [getattr(CONFIG, key)]
        }
        self.transform = A.Compose(
            [
                A.RandomResizedCrop((SIZE, SIZE), scale=CONFIG.window),
                A.HorizontalFlip(p=CONFIG.flip),
                A.ColorJitter(hue=CONFIG.hue, p=CONFIG.colour, **light),
                A.Normalize(MEAN, DEVIATION),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> torch.Tensor:
        image = np.array(Image.open(self.folder / self.ids[row]).convert("RGB"))
        return self.transform(image=image)["image"]


def make_photos(raw: Path, shape: tuple[int, int], images: int) -> None:
    """Random smooth colours with fine texture, in Plant Pathology's layout."""
    (raw / "train_images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = [f"{i:05d}.jpg" for i in range(images)]
    for name in ids:
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        photo = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
        fine = rng.normal(0, 5, (shape[0] // 2, shape[1] // 2, 3)).astype(np.float32)
        photo += cv2.resize(fine, shape[::-1]).astype(np.int16)
        pixels = photo.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(raw / "train_images" / name, quality=90)
    labels = rng.choice(["scab", "rust", "complex scab"], images)
    pd.DataFrame({"image": ids, "labels": labels}).to_csv(raw / "train.csv", index=False)


def plain_rate(raw: Path, ids: list[str], workers: int) -> float:
    """Images per second of one pass, without the start of the workers."""
    loader = DataLoader(
        PlainImages(raw / "train_images", ids), BATCH, shuffle=True, num_workers=workers
    )
    return timed(iter(loader), len(loader), lambda batch: batch)


def our_rate(prepared: Path, workers: int, seed: int) -> float:
    """As `plain_rate`, of a prepared folder."""
    store = ImageStore(prepared)
    transform = training_transform(CONFIG, (SIZE, SIZE), 3)
    dataset = ImageDataset(store, None, transform, seed)
    batches = StepBatches(len(store), BATCH, seed, stop=len(store) // BATCH)
    mean, deviation = (255 * torch.tensor(x)[:, None, None] for x in (MEAN, DEVIATION))
    loader = make_loader(dataset, batches, LoaderConfig(workers=workers), torch.device("cpu"))
    return timed(iter(loader), len(batches), lambda b: (b["image"].float() - mean) / deviation)


def timed(batches, count: int, finish) -> float:
    """Images per second from the second batch on, or from the first without its workers."""
    finish(next(batches))
    start = time.perf_counter()
    images = sum(len(finish(batch)) for batch in batches)
    return images / (time.perf_counter() - start)


def main() -> None:
    """Make the photographs, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=320, help="of each size (320)")
    parser.add_argument("--repeats", type=int, default=3, help="passes, the best counts (3)")
    parser.add_argument("--folder", help="where to make the temporary folder (the system's)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"{'photographs':>12} workers {'plain':>7} {'ours':>7} {'ratio':>6} {'kept':>7} ratio"]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for title, shape in SHAPES.items():
            raw = Path(name) / title / "raw"
            make_photos(raw, shape, args.images)
            places = {"ours": raw.parent / "out", "kept": raw.parent / "kept"}
            prepare_images(raw, places["ours"], competition("plant_pathology"))
            prepare_images(raw, places["kept"], competition("plant_pathology"), size=KEPT)
            ids = ImageStore(places["ours"]).ids.tolist()
            for workers in (0, 1, 2):
                best = dict.fromkeys(("plain", "ours", "kept"), 0.0)
                for seed in range(args.repeats):
                    rates = {"plain": plain_rate(raw, ids, workers)}
                    rates |= {key: our_rate(place, workers, seed) for key, place in places.items()}
                    best = {key: max(best[key], rate) for key, rate in rates.items()}
                plain, ours, kept = best.values()
                lines.append(
                    f"{title:>12} {workers:>7} {plain:7.0f} {ours:7.0f} {ours / plain:5.2f}x "
                    f"{kept:7.0f} {kept / plain:.2f}x"
                )
    print(f"\n{args.images} JPEGs of each size to {SIZE} × {SIZE}, batches of {BATCH}: images/s")
    print("\n".join(lines))


if __name__ == "__main__":
    run_script(main)
