"""A competition's raw folder into a prepared folder, whose format `comp.image.store` describes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comp.core.errors import InputError
from comp.core.files import atomic_path, save_npy, write_json
from comp.image.decoding import Header, shrunk_shape
from comp.image.entry import Competition
from comp.image.folder import FileImages
from comp.image.labels import Training, read_training
from comp.image.packed import ParquetImages, pack_images
from comp.image.parallel import in_threads
from comp.image.store import FORMAT_VERSION, INDEX, limited_groups

# Headers are small reads scattered over a disk; more threads than cores wait for it together.
_THREADS = 4 * (os.cpu_count() or 1)

_NOTES = {
    "grey": "are greyscale; they are repeated in every channel",
    "16-bit": "have 16 bits a value; they are scaled to 8",
    "alpha": "have transparent parts, which lie on white",
}


def prepare_images(
    raw: str | Path, out: str | Path, competition: Competition, size: int | None = None
) -> None:
    """Check a raw folder and write its prepared folder: tables, labels, and where the images are.

    Images stay where they are, unless they come in parquet files or a `size` is given: then they
    are decoded once, into one file of uint8 pixels.

    Args:
        raw: the competition's folder, with the training table.
        out: the prepared folder; what an earlier run left there is replaced.
        competition: the competition's entry.
        size: keep decoded images with this short side, in pixels, so that training need not decode
            large photographs anew in every epoch. Test images are then shrunk alike.

    Raises:
        InputError: as `comp.image.labels.read_training`; images that are missing or unreadable (the
            first is named and all are counted); parquet files whose ids are not the table's; limits
            of labels that there are none of.
    """
    raw, out = Path(raw), Path(out)
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder")
    if size is not None and size < 1:
        raise InputError(f"size: {size}, expected 1 pixel or more")
    training = read_training(raw, competition)
    limited_groups(training.names, competition)  # else a wrong limit shows only after training
    (out / INDEX).unlink(missing_ok=True)  # written last: without it the folder is not finished
    if competition.images.kind == "parquet":
        training = _pack_rows(raw, out, competition, training, size)
        shapes = np.tile(competition.images.shape, (len(training.table), 1))
    else:
        shapes = _check_files(raw, out, competition, training.table["id"].tolist(), size)
    _write_tables(out, training, shapes)
    where = {
        "absolute": str(raw.resolve()),
        "relative": os.path.relpath(raw.resolve(), out.resolve()),
    }
    index = {
        "version": FORMAT_VERSION,
        "competition": competition.model_dump(mode="json"),
        "raw": where,
        "images": len(training.table),
        "packed": (out / "pixels.npy").exists(),
        "size": size,
        "heads": [
            {"name": head.name, "kind": head.kind, "labels": head.labels} for head in training.heads
        ],
        "labels": training.names,
    }
    write_json(out / INDEX, index)
    counts = np.diff(training.targets.indptr)
    print(
        f"{out}: {len(counts)} images, {training.targets.shape[1]} labels, "
        f"{counts.mean():.2f} an image, {int((counts == 0).sum())} images without any"
    )


def _pack_rows(
    raw: Path, out: Path, competition: Competition, training: Training, size: int | None
) -> Training:
    """Unpack the training images; the training table in their order."""
    if size is not None:
        raise InputError(f"size: {size}, but images of parquet files are kept as they are")
    images, folder = competition.images, raw / competition.images.train
    parquet = ParquetImages([folder], images.files[0], images.shape, competition.id)
    training = training.in_order(parquet.ids, folder)
    parquet.pack(out)
    return training


def _check_files(
    raw: Path, out: Path, competition: Competition, ids: Sequence[str], size: int | None
) -> np.ndarray:
    """(n, 2) height and width of each training image; with `size`, of those that are kept."""
    folder = raw / competition.images.train
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of training images")
    files = FileImages([folder], competition.images)

    def inspect(image_id: str) -> list[Header] | InputError:
        try:
            return files.headers(image_id)
        except InputError as error:
            return error

    found = in_threads(inspect, ids, _THREADS, "checking")
    errors = [each for each in found if isinstance(each, InputError)]
    if errors:
        raise InputError(f"{errors[0]} ({len(errors)} of {len(ids)} training images are bad)")
    _print_notes(found, ids, competition.images.channels)
    shapes = np.array([(headers[0].height, headers[0].width) for headers in found])
    for stale in ("pixels.npy", "shapes.npy"):
        (out / stale).unlink(missing_ok=True)
    if size is not None:
        shapes = np.array([shrunk_shape(*shape, size) for shape in shapes.tolist()])
        channels = np.full((len(ids), 1), competition.images.channels)
        pack_images(
            lambda i: files.read(ids[i], side=size),
            np.concatenate([shapes, channels], axis=1),
            out,
            os.cpu_count() or 1,
        )
    return shapes


def _print_notes(found: Sequence[list[Header]], ids: Sequence[str], channels: int) -> None:
    """Say which images are not like the others."""
    for kind, what in _NOTES.items():
        if kind == "grey" and channels != 3:
            continue
        having = [name for name, headers in zip(ids, found) if any(h.kind == kind for h in headers)]
        if having:
            print(f"note: {len(having)} of {len(ids)} images {what}; the first is {having[0]!r}")


def _write_tables(out: Path, training: Training, shapes: np.ndarray) -> None:
    table = training.table.assign(height=shapes[:, 0], width=shapes[:, 1])
    with atomic_path(out / "table.csv") as partial:
        table.to_csv(partial, index=False)
    encoded = [name.encode() for name in training.table["id"]]
    save_npy(out / "ids.npy", np.array(encoded))
    save_npy(out / "target_stops.npy", training.targets.indptr[1:].astype(np.int64))
    save_npy(out / "target_columns.npy", training.targets.indices.astype(np.int32))
