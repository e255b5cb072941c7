"""Batches of images: what is in them, and that nobody else's draws are in them."""

import time

import numpy as np
import pytest
import torch
from image_layouts import write_layout

from comp.core.config import LoaderConfig
from comp.core.errors import InputError
from comp.core.loading import StepBatches, chunks, derive_seed, make_loader
from comp.image.augment import AugmentConfig, plain_transform, training_transform
from comp.image.competitions import competition
from comp.image.data import ImageDataset, TestDataset
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore
from comp.image.testset import TestImages

CPU = torch.device("cpu")
DRAWN = AugmentConfig(noise=1, affine=1)  # no two draws are alike


class SameImage:
    """The same image in every row, so that what differs was drawn."""

    channels, folder = 3, "memory"

    def __len__(self):
        return 16

    def read(self, row, least=None):
        return np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)

    def targets(self, rows):
        return np.eye(16, dtype=np.float32)[rows]


def load(dataset, batches, workers=0):
    return list(make_loader(dataset, batches, LoaderConfig(workers=workers), CPU))


def streams(workers, start=0, seed=7):
    """Batches of two epochs over 16 equal images, 4 steps each, from step `start`."""
    dataset = ImageDataset(SameImage(), None, training_transform(DRAWN, (16, 16), 3), seed)
    return load(dataset, StepBatches(16, 4, seed, start=start, stop=8), workers)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Plant Pathology's layout, tiny, and its prepared folder."""
    folder = tmp_path_factory.mktemp("plants")
    made = write_layout(folder / "raw", competition("plant_pathology"))
    prepare_images(made.raw, folder / "out", made.competition)
    return made, folder / "out"


# --- what is drawn


def test_two_workers_and_two_epochs_are_four_streams_and_the_same_when_run_again():
    first, again = streams(2), streams(2)
    # Batches go to the workers in turn; steps 0 to 3 are the first epoch.
    parts = {(worker, epoch): [] for worker in (0, 1) for epoch in (0, 1)}
    for step, batch in enumerate(first):
        parts[step % 2, step // 4] += [image.numpy().tobytes() for image in batch["image"]]
    assert all(len(part) == 8 for part in parts.values())
    assert len({image for part in parts.values() for image in part}) == 32  # none drawn twice
    for a, b in zip(first, again):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["row"], b["row"])
    other = streams(2, seed=8)
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(first, other))


@pytest.mark.parametrize("workers, start", [(0, 0), (1, 0), (2, 3), (0, 6)])
def test_workers_and_interruptions_change_nothing(workers, start):
    whole, part = streams(2), streams(workers, start)
    assert len(part) == 8 - start
    for a, b in zip(whole[start:], part):
        assert all(torch.equal(a[key], b[key]) for key in ("row", "image", "target"))


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone():
    transform = training_transform(DRAWN, (16, 16), 3)
    some = ImageDataset(SameImage(), [9, 2, 5], transform, seed=3)
    batch = some.read(np.array([2, 5]), epoch=4)
    for row, image in zip((2, 5), batch["image"].numpy()):
        alone = transform(SameImage().read(row), derive_seed(3, 4, row))
        np.testing.assert_array_equal(image, alone.transpose(2, 0, 1))
    assert torch.equal(some[1]["image"], some.read(np.array([2]), epoch=0)["image"][0])


def test_two_processes_draw_what_one_does():
    dataset = ImageDataset(SameImage(), None, training_transform(DRAWN, (16, 16), 3), 7)
    shares = [load(dataset, StepBatches(16, 4, 7, process=p, processes=2, stop=8)) for p in (0, 1)]
    for step, batch in enumerate(streams(0)):
        joined = torch.cat([share[step]["image"] for share in shares])
        assert torch.equal(joined, batch["image"])


# --- what is in a batch


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_store(made, workers):
    _, folder = made
    store = ImageStore(folder)
    rows = np.arange(len(store))[::-1][:10]
    dataset = ImageDataset(store, rows, plain_transform(AugmentConfig(), (32, 40)))
    batches = load(dataset, chunks(np.arange(10), 4), workers)
    assert [len(batch["row"]) for batch in batches] == [4, 4, 2]
    joined = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    assert joined["image"].shape == (10, 3, 32, 40) and joined["image"].dtype == torch.uint8
    assert joined["target"].shape == (10, 6) and joined["target"].dtype == torch.float32
    assert joined["row"].tolist() == rows.tolist()
    np.testing.assert_array_equal(joined["target"], store.targets(rows))
    for row, image in zip(rows, joined["image"].numpy()):
        expected = dataset.transform(store.read(row, (32, 40)))
        np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))


def test_loading_keeps_up(made):
    _, folder = made
    store = ImageStore(folder)
    dataset = ImageDataset(store, None, training_transform(AugmentConfig(), (64, 64), 3))
    began = time.perf_counter()
    batches = load(dataset, StepBatches(len(store), 8, 0, stop=6))
    seconds = time.perf_counter() - began
    assert seconds / (8 * len(batches)) < 0.05  # 1 ms on a quiet core


# --- broken files


@pytest.fixture
def spoilt(tmp_path):
    """A raw folder whose second training and second test image break after it was prepared."""
    made = write_layout(tmp_path / "raw", competition("plant_pathology"))
    prepare_images(made.raw, tmp_path / "out", made.competition)
    images = made.competition.images
    names = [sorted((made.raw / part).iterdir())[1] for part in (images.train, images.test[0])]
    names[0].write_bytes(names[0].read_bytes()[:500])
    names[1].write_bytes(b"")
    return made, tmp_path / "out", names


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_training_image_is_an_error_of_one_line(spoilt, workers):
    _, folder, (path, _) = spoilt
    dataset = ImageDataset(ImageStore(folder), None, plain_transform(AugmentConfig(), (16, 16)))
    with pytest.raises(InputError, match=path.name) as caught:
        load(dataset, chunks(np.arange(len(dataset)), 4), workers)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_test_image_is_marked(spoilt, workers):
    made, _, (_, path) = spoilt
    images = TestImages(made.raw, made.competition)
    dataset = TestDataset(images, plain_transform(AugmentConfig(), (16, 16)))
    batches = load(dataset, chunks(np.arange(len(dataset)), 4), workers)
    broken = torch.cat([batch["broken"] for batch in batches])
    found = torch.cat([batch["image"] for batch in batches])
    assert set(batches[0]) == {"row", "image", "broken"}
    assert images.ids[broken.numpy()].tolist() == [path.name]
    assert not found[broken].any() and found[~broken].flatten(1).any(1).all()


def test_rows_that_are_not_there():
    with pytest.raises(IndexError, match=r"rows 3\.\.16 of 16 in memory"):
        ImageDataset(SameImage(), [3, 16], plain_transform(AugmentConfig(), (8, 8)))
