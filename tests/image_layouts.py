"""Tiny folders in the official layout of any image competition, with labels that can be learnt.

    made = write_layout(tmp_path / "raw", competition("imet2019"))
    prepare_images(made.raw, tmp_path / "prepared", made.competition)

Each label shows as a bright block at a place of its own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from comp.core.predictions import save_predictions
from comp.image.competitions import COMPETITIONS
from comp.image.entry import ID, Competition
from comp.image.graphemes import write_pixels

USED = 4  # labels of each head that occur: few, so that few images are enough
IMET_NAMES = ("culture::french", "culture::maya", "tag::cats", "tag::dogs", "tag::ships")
SIDES = ((40, 48), (48, 40), (44, 44))  # height, width of files in turn

_BENGALI = COMPETITIONS["bengali"]
# 32,333 columns of parquet take seconds however few the rows.
SMALL_BENGALI = _BENGALI.model_copy(
    update={"images": _BENGALI.images.model_copy(update={"shape": (24, 30)})}
)


@dataclass(frozen=True)
class Made:
    """What was written.

    Attributes:
        competition: its entry.
        raw: the raw folder: training table, images of both parts, `sample_submission.csv`.
        sample: the sample submission.
        truth: of the test images as a prediction file, (n, C) in the order of the vocabulary.
    """

    competition: Competition
    raw: Path
    sample: Path
    truth: Path


def write_layout(folder, entry: Competition, train=24, test=6, seed=0) -> Made:
    """Write `train` and `test` images with their tables; the truth lies beside `folder`."""
    rng, folder = np.random.default_rng(seed), Path(folder)
    folder.mkdir(parents=True)
    suffix = "" if entry.images.files[0] != ID else ".jpg"
    ids = {
        part: [f"{part}_{i:03d}{suffix}" for i in range(n)]
        for part, n in (("train", train), ("test", test))
    }
    chosen = {part: _choose(entry, len(names), rng) for part, names in ids.items()}
    words = [_vocabulary(folder, labels) for labels in entry.labels]
    table = pd.DataFrame({entry.id: ids["train"]})
    for labels, known, sets in zip(entry.labels, words, chosen["train"]):
        table[labels.column] = [entry.separator.join(known[k] for k in each) for each in sets]
    for column in entry.columns:
        table[column] = [f"{column} {i // 3}" for i in range(train)]
    table.to_csv(folder / entry.table, index=False)
    for part, names in ids.items():
        blocks = [_blocks([sets[i] for sets in chosen[part]]) for i in range(len(names))]
        _write_images(folder, entry, part, names, blocks, rng)
    truth = folder.parent / f"{folder.name}_truth.npy"
    _write_truth(truth, ids["test"], chosen["test"], [len(known) for known in words])
    return Made(entry, folder, _write_sample(folder, entry, ids["test"], words), truth)


def _choose(entry, images, rng):
    """For each label column the sets of columns of all images, at least one label each."""
    result = []
    for labels in entry.labels:
        if labels.kind == "multiclass":
            classes = rng.permutation(np.arange(images) % USED)
            result.append([[int(k)] for k in classes])
            continue
        hits = rng.random((images, USED)) < 0.35
        hits[np.arange(images), np.arange(images) % USED] = True
        result.append([np.flatnonzero(row).tolist() for row in hits])
    return result


def _vocabulary(folder, labels):
    source = labels.vocabulary
    if isinstance(source, str):
        rows = {"attribute_id": range(len(IMET_NAMES)), "attribute_name": IMET_NAMES}
        pd.DataFrame(rows).to_csv(folder / source, index=False)
        return [str(i) for i in range(len(IMET_NAMES))]
    if isinstance(source, int):
        return [str(i) for i in range(source)]
    return list(source) if source else [f"label{i}" for i in range(USED)]


def _blocks(sets):
    """(head, label) of every block in the picture."""
    return [(head, label) for head, each in enumerate(sets) for label in each]


def _draw(blocks, height, width, rng):
    """(height, width) uint8: a row of the picture for each head, a column for each label."""
    picture = rng.integers(0, 60, (height, width), dtype=np.uint8)
    rows, columns = height // 3, width // USED
    for head, label in blocks:
        top, left = head * rows, label * columns
        picture[top : top + rows, left : left + columns] += 180
    return picture


def _write_images(folder, entry, part, names, blocks, rng):
    images = entry.images
    if images.kind == "parquet":
        pixels = np.stack([_draw(each, *images.shape, rng) for each in blocks])
        pattern = images.files[("train", "test").index(part)]
        parts = 2 if part == "train" else 1
        for number, rows in enumerate(np.array_split(np.arange(len(names)), parts)):
            path = folder / pattern.replace("*", str(number))
            write_pixels(path, entry.id, [names[i] for i in rows], pixels[rows])
        return
    place = folder / (images.train if part == "train" else images.test[0])
    place.mkdir(parents=True)
    for i, (name, each) in enumerate(zip(names, blocks)):
        picture = _draw(each, *SIDES[i % len(SIDES)], rng)
        for file in images.files:
            grey = len(images.files) > 1 or images.channels == 1
            array = picture if grey else np.stack([picture, picture // 2, 255 - picture], axis=2)
            Image.fromarray(array).save(place / file.replace(ID, name))


def _write_truth(path, ids, sets, widths):
    """Sets of columns as a prediction file."""
    values = np.zeros((len(ids), sum(widths)), np.float32)
    for first, each in zip(np.cumsum([0, *widths]), sets):
        for row, columns in enumerate(each):
            values[row, first + np.array(columns, int)] = 1
    save_predictions(path, pd.DataFrame({"id": ids}), values)


def _write_sample(folder, entry, ids, words):
    heads = entry.submission.rows
    rows = [f"{name}_{head}" for name in ids for head in heads] if heads else ids
    cells = ["0" if heads else words[0][0]] * len(rows)
    path = folder / "sample_submission.csv"
    pd.DataFrame(dict(zip(entry.submission.header, (rows, cells)))).to_csv(path, index=False)
    return path
