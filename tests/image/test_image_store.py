"""The prepared folder read back: sent to workers, moved, damaged; and test images."""

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from image_layouts import SMALL_BENGALI, write_layout

from comp.core.errors import InputError
from comp.core.folds import fold_rows
from comp.core.stratify import make_folds
from comp.image.competitions import COMPETITIONS
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore, describe_folder
from comp.image.testset import TestImages

IMET = COMPETITIONS["imet2019"]


@pytest.fixture
def made(tmp_path):
    """An iMet folder beside its prepared folder, which share a parent that can be moved."""
    made = write_layout(tmp_path / "pair/raw", IMET, train=12, test=4)
    prepare_images(made.raw, tmp_path / "pair/out", IMET)
    return made


@pytest.fixture
def out(made):
    return made.raw.parent / "out"


def test_label_groups_have_the_competitions_limits(out):
    store = ImageStore(out)
    culture, tag = store.label_groups
    assert (culture.name, culture.columns) == ("culture", (0, 1))
    assert (culture.minimum, culture.maximum) == (0, 2)  # 3, but there are only 2
    assert (tag.name, tag.columns, tag.minimum, tag.maximum) == ("tag", (2, 3, 4), 1, 3)


def test_labels_without_kinds_are_one_group(tmp_path):
    entry = COMPETITIONS["plant_pathology"]
    made = write_layout(tmp_path / "raw", entry, train=6, test=1)
    prepare_images(made.raw, tmp_path / "out", entry)
    (group,) = ImageStore(tmp_path / "out").label_groups
    assert group.columns == tuple(range(6))
    assert (group.name, group.minimum, group.maximum) == ("all", 1, None)


def test_targets_counts_and_description_agree(out):
    store = ImageStore(out)
    rows = np.array([7, 0, 7])
    targets = store.targets(rows)
    assert targets.dtype == np.float32 and targets.shape == (3, 5)
    described = describe_folder(out)
    assert np.array_equal(described.labels[rows], targets)
    assert np.array_equal(described.labels.sum(axis=0), store.label_counts)
    assert described.names == store.labels and described.group is None
    assert list(described.table.columns) == ["height", "width"]
    assert described.table["height"].tolist()[:3] == ["40", "48", "44"]
    assert store.targets([]).shape == (0, 5)


def test_variants_of_one_emoji_share_a_fold(tmp_path):
    entry = COMPETITIONS["emoji"]
    made = write_layout(tmp_path / "raw", entry)
    prepare_images(made.raw, tmp_path / "out", entry)
    store = ImageStore(tmp_path / "out")
    described = store.description()
    assert described.group == "base" and described.groups.tolist() == store.groups.tolist()
    assert store.table([5]).to_dict("records") == [{"id": "train_005", "base": "base 1"}]
    folds = make_folds(described.labels, described.groups, 2, seed=0)
    train, valid = fold_rows(folds, 0)
    assert not set(store.groups[train]) & set(store.groups[valid])


def test_a_worker_gets_a_path_and_reads_the_same(out):
    store = ImageStore(out)
    assert store.ids[3] == "train_003" and len(store.table(range(12))) == 12
    sent = pickle.dumps(store)
    assert len(sent) < 1000  # the tables stay here
    received = pickle.loads(sent)
    assert np.array_equal(received.read(3), store.read(3))
    assert np.array_equal(received.targets(range(12)), store.targets(range(12)))


def test_a_pair_that_is_moved_together_is_found(made, out, tmp_path):
    before = ImageStore(out).read(2)
    made.raw.parent.rename(tmp_path / "elsewhere")
    assert np.array_equal(ImageStore(tmp_path / "elsewhere/out").read(2), before)


def test_a_prepared_folder_that_is_moved_alone_still_finds_its_images(out, tmp_path):
    before = ImageStore(out).read(2)
    (tmp_path / "far/away").mkdir(parents=True)
    out.rename(tmp_path / "far/away/out")
    assert np.array_equal(ImageStore(tmp_path / "far/away/out").read(2), before)


def test_without_the_raw_folder_only_reading_images_fails(made, out):
    shutil.rmtree(made.raw)
    store = ImageStore(out)
    assert len(store.targets([0])) == 1 and len(store.ids) == 12
    with pytest.raises(InputError, match=r"out: its raw images are gone: expected the folder 'tr"):
        store.read(0)


def test_an_image_that_breaks_later_is_named(made, out):
    path = made.raw / "train/train_004.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"train_004\.png: unreadable image"):
        ImageStore(out).read(4)


def test_rows_that_are_not_there_are_refused(out):
    store = ImageStore(out)
    for row in (12, -1):
        with pytest.raises(IndexError, match=f"row {row} of 12"):
            store.read(row)


def test_folders_that_are_not_prepared_are_refused(out):
    index = json.loads((out / "index.json").read_text())
    for change, message in (
        ({"version": 9}, "format version 9, expected 1"),
        ({"heads": [{}]}, "not an index of images: KeyError"),
        ({"competition": {"name": "x"}}, "key 'labels'"),
        ({"images": 11}, r"expected \(11,\)"),
    ):
        (out / "index.json").write_text(json.dumps({**index, **change}))
        with pytest.raises(InputError, match=message):
            ImageStore(out)
    (out / "index.json").write_text("[]")
    with pytest.raises(InputError, match="format version None"):
        ImageStore(out)
    (out / "index.json").unlink()
    with pytest.raises(InputError, match="is not a .finished. prepared folder"):
        ImageStore(out)


def test_a_table_that_was_changed_is_refused(out):
    path = out / "table.csv"
    path.write_text(path.read_text().replace("train_003", "train_333"))
    with pytest.raises(InputError, match=r"table\.csv: its ids are not those of ids\.npy"):
        ImageStore(out).table([0])


def test_test_images_of_the_raw_folder_or_of_their_own(made):
    images, own = TestImages(made.raw, IMET), TestImages(made.raw / "test", IMET)
    assert len(images) == 4 and images.ids.tolist() == own.ids.tolist()
    assert images.ids.tolist() == [f"test_{i:03d}" for i in range(4)]
    assert np.array_equal(images.read(1), own.read(1))
    sent = pickle.loads(pickle.dumps(images))
    assert np.array_equal(sent.read(1), images.read(1))


def test_test_images_in_a_wanted_order_with_one_missing(made):
    images = TestImages(made.raw, IMET, ids=["test_003", "test_009", "test_000"])
    assert np.array_equal(images.read(2), TestImages(made.raw, IMET).read(0))
    with pytest.raises(InputError, match=r"test_009\.png: no such file"):
        images.read(1)


def test_a_broken_test_image_is_named_when_it_is_read(made):
    (made.raw / "test/test_002.png").write_bytes(b"")
    images = TestImages(made.raw, IMET)
    assert len(images) == 4 and images.read(1).shape[2] == 3
    with pytest.raises(InputError, match=r"test_002\.png: zero bytes"):
        images.read(2)


def test_other_files_are_not_taken_for_images(tmp_path):
    entry = COMPETITIONS["plant_pathology"]  # whose ids are the files' names
    made = write_layout(tmp_path / "raw", entry, train=4, test=2)
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (made.raw / "test_images" / name).write_bytes(b"x")
    (made.raw / "test_images/more.jpg").mkdir()
    assert TestImages(made.raw, entry).ids.tolist() == ["test_000.jpg", "test_001.jpg"]


def test_test_images_in_two_folders(tmp_path):
    entry = COMPETITIONS["planet"]
    made = write_layout(tmp_path / "raw", entry, train=4, test=3)
    more = made.raw / "test-jpg-additional"
    more.mkdir()
    (made.raw / "test-jpg-v2/test_001.jpg").rename(more / "file_0.jpg")
    images = TestImages(made.raw, entry)
    assert images.ids.tolist() == ["file_0", "test_000", "test_002"]
    assert all(images.read(i).shape[2] == 3 for i in range(3))


def test_an_image_in_two_folders_counts_once_and_is_the_first_ones(tmp_path, capsys):
    entry = COMPETITIONS["planet"]
    made = write_layout(tmp_path / "raw", entry, train=4, test=3)
    whole = TestImages(made.raw, entry)
    said = f"note: {made.raw}: test images of test-jpg-v2; there is no test-jpg, "
    assert capsys.readouterr().out == f"{said}test-jpg-additional\n"
    for name in ("test-jpg", "test-jpg-additional"):
        (made.raw / name).mkdir()
        shutil.copy(made.raw / "train-jpg/train_000.jpg", made.raw / name / "test_000.jpg")
    images = TestImages(made.raw, entry)
    assert images.ids.tolist() == whole.ids.tolist()
    assert np.array_equal(images.read(0), whole.read(0))
    assert len(TestImages(made.raw / "test-jpg", entry)) == 1
    assert capsys.readouterr().out == ""  # all are there, or none was asked for


def test_test_images_as_the_archives_have_them(tmp_path, capsys):
    entry = COMPETITIONS["planet"]
    made = write_layout(tmp_path / "raw", entry, train=4, test=3)
    (made.raw / "test-jpg-v2").rename(made.raw / "test-jpg")
    assert len(TestImages(made.raw, entry)) == 3
    assert "test-jpg; there is no test-jpg-v2, test-jpg-additional" in capsys.readouterr().out


def test_folders_without_test_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        TestImages(tmp_path / "nowhere", IMET)
    with pytest.raises(InputError, match=r"no images here, expected \{id\}\.png"):
        TestImages(tmp_path, IMET)
    with pytest.raises(InputError, match="no parquet files here, expected test_image_data"):
        TestImages(tmp_path, SMALL_BENGALI)


def test_test_images_of_parquet_files(tmp_path):
    made = write_layout(tmp_path / "raw", SMALL_BENGALI, train=3, test=5)
    table = pd.read_parquet(made.raw / "test_image_data_0.parquet")
    pixels = table.drop(columns="image_id").to_numpy().reshape(5, 24, 30, 1)
    images = TestImages(made.raw, SMALL_BENGALI)
    assert images.ids.tolist() == [f"test_00{i}" for i in range(5)] and images.channels == 1
    sent = pickle.loads(pickle.dumps(images))
    assert np.array_equal(sent.read(1), pixels[1])
    del sent  # a worker that ends must not take the pixels with it
    assert all(np.array_equal(images.read(i), pixels[i]) for i in range(5))
    wanted = TestImages(made.raw, SMALL_BENGALI, ids=["test_003", "x"])
    assert np.array_equal(wanted.read(0), pixels[3])
    with pytest.raises(InputError, match="raw: no image 'x' in its parquet files"):
        wanted.read(1)
