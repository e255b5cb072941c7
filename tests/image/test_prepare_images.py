"""A raw folder to a prepared folder: what is refused, what passes with a note, what is kept."""

import json

import numpy as np
import pandas as pd
import pytest
from cli import run
from image_layouts import SMALL_BENGALI, write_layout
from PIL import Image

from comp.core.errors import InputError
from comp.image.competitions import COMPETITIONS
from comp.image.decoding import read_image
from comp.image.graphemes import write_pixels
from comp.image.packed import ParquetImages
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore
from comp.image.testset import TestImages

PLANET = COMPETITIONS["planet"]


@pytest.fixture
def made(tmp_path):
    return write_layout(tmp_path / "raw", PLANET, train=8, test=2)


def edit(made, change):
    """Change the training table."""
    path = made.raw / made.competition.table
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    changed = change(table)
    (table if changed is None else changed).to_csv(path, index=False)
    return path


def refused(made, out):
    """The one line with which preparing ends; nothing is left that looks finished."""
    with pytest.raises(InputError) as error:
        prepare_images(made.raw, out, made.competition)
    assert "\n" not in str(error.value)
    assert not (out / "index.json").exists()
    return str(error.value)


def set_cell(column, row, value):
    def change(table):
        table.loc[row, column] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (
            set_cell("tags", 3, "clear watr"),
            "id 'train_003': label 'watr' unknown, expected one of",
        ),
        (set_cell("tags", 3, "clear clear"), "id 'train_003': label 'clear' stands there twice"),
        (set_cell("image_name", 3, "train_002"), "id 'train_002' in row 3 stands there twice"),
        (set_cell("image_name", 3, ""), "blank id in row 3"),
        (lambda table: table.rename(columns={"tags": "tag"}), "no columns 'tags', expected one"),
        (lambda table: table.assign(**{" tags": "clear"}), "2 columns 'tags', expected one"),
        (lambda table: table[:0], "a header without rows"),
    ],
)
def test_a_bad_table_is_refused(made, tmp_path, change, message):
    path = edit(made, change)
    assert refused(made, tmp_path / "out").startswith(f"{path}: {message}")


def test_tables_that_are_missing_are_named(made, tmp_path):
    (made.raw / "train_v2.csv").unlink()
    assert refused(made, tmp_path / "out") == f"{made.raw / 'train_v2.csv'}: no such file"
    imet = write_layout(tmp_path / "imet", COMPETITIONS["imet2019"], train=4, test=1)
    (imet.raw / "labels.csv").write_text("attribute_id\n1\n")
    assert "labels.csv: expected rows of a label and its name" in refused(imet, tmp_path / "out")
    (imet.raw / "labels.csv").write_text("attribute_id,attribute_name\n1,a\n1,b\n")
    assert "labels.csv: id '1' in row 1 stands there twice" in refused(imet, tmp_path / "out")
    (imet.raw / "labels.csv").unlink()
    assert "labels.csv: no such file" in refused(imet, tmp_path / "out")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        prepare_images(tmp_path / "nowhere", tmp_path / "out", PLANET)


def test_limits_of_labels_that_there_are_none_of_are_refused(tmp_path):
    entry = COMPETITIONS["imet2019"].model_copy(update={"limits": {"cultur": (0, 3)}})
    made = write_layout(tmp_path / "raw", entry, train=4, test=1)
    expected = "limits: no labels of kind 'cultur', expected one of ['culture', 'tag']"
    assert refused(made, tmp_path / "out") == expected


def test_an_empty_cell_is_an_empty_set(made, tmp_path, capsys):
    edit(made, set_cell("tags", 2, ""))
    edit(made, set_cell("tags", 4, "  clear   water "))
    prepare_images(made.raw, tmp_path / "out", PLANET)
    assert "1 images without any" in capsys.readouterr().out
    store = ImageStore(tmp_path / "out")
    sets = store.targets([2, 4])
    assert sets[0].sum() == 0
    assert [store.labels[k] for k in np.flatnonzero(sets[1])] == ["clear", "water"]
    assert store.description().labels[2].sum() == 0


def test_stray_spaces_in_the_header_pass_with_a_note(made, tmp_path, capsys):
    edit(made, lambda table: table.rename(columns={"tags": " tags "}))
    prepare_images(made.raw, tmp_path / "out", PLANET)
    assert "train_v2.csv: the header has stray spaces" in capsys.readouterr().out
    assert len(ImageStore(tmp_path / "out")) == 8


@pytest.mark.parametrize("bad", ["missing", "zero bytes", "truncated"])
def test_bad_images_are_counted_and_the_first_is_named(made, tmp_path, bad):
    for row in (5, 3):
        path = made.raw / f"train-jpg/train_00{row}.jpg"
        content = path.read_bytes()
        path.write_bytes(b"" if bad == "zero bytes" else content[: len(content) // 2])
        if bad == "missing":
            path.unlink()
    message = refused(made, tmp_path / "out")
    assert message.startswith(f"{path}: ")
    assert {"missing": "no such file"}.get(bad, bad) in message.lower()
    assert message.endswith("(2 of 8 training images are bad)")


def test_channels_must_be_there_and_of_one_size(tmp_path):
    made = write_layout(tmp_path / "raw", COMPETITIONS["protein_atlas"], train=4, test=1)
    path = made.raw / "train/train_001_blue.png"
    Image.new("L", (48, 40)).save(path)
    assert refused(made, tmp_path / "out").startswith(
        f"{path}: 40 × 48 pixels, expected 48 × 40 as in train_001_red.png"
    )
    path.unlink()
    assert refused(made, tmp_path / "out").startswith(f"{path}: no such file")


def test_images_unlike_the_others_pass_with_a_note(made, tmp_path, capsys):
    folder = made.raw / "train-jpg"
    Image.open(folder / "train_002.jpg").convert("L").save(folder / "train_002.jpg")
    Image.fromarray(np.full((9, 9), 5000, np.uint16)).save(folder / "x.png")
    (folder / "x.png").rename(folder / "train_004.jpg")
    prepare_images(made.raw, tmp_path / "out", PLANET)
    said = capsys.readouterr().out
    assert "note: 1 of 8 images are greyscale; they are repeated" in said
    assert "note: 1 of 8 images have 16 bits a value; they are scaled to 8" in said
    assert "the first is 'train_002'" in said and "the first is 'train_004'" in said
    store = ImageStore(tmp_path / "out")
    assert store.read(2).shape[2] == 3
    assert (store.read(4) == 5000 // 256).all()


def test_small_copies_are_kept_and_test_images_are_shrunk_alike(made, tmp_path):
    prepare_images(made.raw, tmp_path / "out", PLANET, size=20)
    store = ImageStore(tmp_path / "out")
    assert store.size == 20
    expected = read_image(made.raw / "train-jpg/train_000.jpg", 3, side=20)
    assert expected.shape == (20, 24, 3) and np.array_equal(store.read(0), expected)
    assert store.read(1).shape == (24, 20, 3)
    images = TestImages(made.raw, PLANET, size=store.size)
    assert images.read(0).shape == (20, 24, 3)
    assert TestImages(made.raw, PLANET).read(0).shape == (40, 48, 3)
    for path in (made.raw / "train-jpg").iterdir():  # the copies are all that training needs
        path.unlink()
    assert ImageStore(tmp_path / "out").read(7).shape[2] == 3


def test_copies_that_were_damaged_are_refused(made, tmp_path):
    prepare_images(made.raw, tmp_path / "out", PLANET, size=20)
    pixels, shapes = tmp_path / "out/pixels.npy", tmp_path / "out/shapes.npy"
    np.save(shapes, np.load(shapes)[:-1])
    with pytest.raises(InputError, match=r"pixels\.npy: 11040 bytes, expected 9600"):
        ImageStore(tmp_path / "out").read(0)
    pixels.write_bytes(pixels.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"pixels\.npy: truncated"):
        ImageStore(tmp_path / "out").read(0)


def test_preparing_again_replaces_what_was_there(made, tmp_path):
    prepare_images(made.raw, tmp_path / "out", PLANET, size=20)
    edit(made, lambda table: table[:5])
    prepare_images(made.raw, tmp_path / "out", PLANET)
    store = ImageStore(tmp_path / "out")
    assert len(store) == 5 and store.size is None
    assert store.read(0).shape == (40, 48, 3)
    assert not (tmp_path / "out/pixels.npy").exists()


def test_a_size_must_make_sense(made, tmp_path):
    with pytest.raises(InputError, match="size: 0, expected 1 pixel or more"):
        prepare_images(made.raw, tmp_path / "out", PLANET, size=0)


def bengali(folder, ids, table_ids=None):
    """A raw folder in files of two images; their pixels."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (len(ids), 24, 30), dtype=np.uint8)
    for part in range(0, len(ids), 2):
        path = folder / f"train_image_data_{part // 2}.parquet"
        write_pixels(path, "image_id", ids[part : part + 2], pixels[part : part + 2])
    table_ids = ids if table_ids is None else table_ids
    table = pd.DataFrame({"image_id": table_ids})
    for column in ("grapheme_root", "vowel_diacritic", "consonant_diacritic"):
        table[column] = np.arange(len(table_ids)) % 7
    table.assign(grapheme="x").to_csv(folder / "train.csv", index=False)
    return pixels


def test_parquet_rows_are_unpacked_in_their_order(tmp_path):
    ids = [f"Train_{i}" for i in range(21)]  # file 10 comes after file 9
    pixels = bengali(tmp_path / "raw", ids, table_ids=ids[::-1])
    prepare_images(tmp_path / "raw", tmp_path / "out", SMALL_BENGALI)
    store = ImageStore(tmp_path / "out")
    assert store.ids.tolist() == ids
    assert all(np.array_equal(store.read(i)[:, :, 0], pixels[i]) for i in range(21))
    roots = store.targets(range(21))[:, :168].argmax(1)
    assert roots.tolist() == [i % 7 for i in range(21)][::-1]
    assert store.table([4]).to_dict("records") == [{"id": "Train_4", "grapheme": "x"}]


def test_parquet_files_must_fit_the_table(tmp_path):
    ids = ["a", "b", "c"]
    for number, (table_ids, message) in enumerate(
        [
            (["a", "b"], "image 'c' is not in the training table"),
            (["a", "b", "c", "d"], r"no image 'd' \(1 missing\)"),
        ]
    ):
        raw = tmp_path / f"raw{number}"
        bengali(raw, ids, table_ids)
        with pytest.raises(InputError, match=message):
            prepare_images(raw, tmp_path / "out", SMALL_BENGALI)
    with pytest.raises(InputError, match="no parquet files here, expected train_image_data"):
        path = tmp_path / "raw1"
        for file in path.glob("*.parquet"):
            file.unlink()
        prepare_images(path, tmp_path / "out", SMALL_BENGALI)
    with pytest.raises(InputError, match="size: 20, but images of parquet files are kept"):
        prepare_images(path, tmp_path / "out", SMALL_BENGALI, size=20)


def test_parquet_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write_pixels(path, "image_id", ["a"], np.zeros((1, 6, 5), np.uint8))
    cut = b"PAR1"
    for content, shape, column, message in (
        (None, (7, 5), "image_id", "30 pixels, expected 7 × 5"),
        (None, (6, 5), "name", "no column 'name', expected it and the pixels"),
        ({"image_id": ["a"], "0": [0.5]}, (1, 1), "image_id", "column '0' is double"),
        (cut, (6, 5), "image_id", "not a parquet file: "),
    ):
        if isinstance(content, dict):
            pd.DataFrame(content).to_parquet(path)
        elif content:
            path.write_bytes(content)
        with pytest.raises(InputError) as error:
            ParquetImages([tmp_path], "*.parquet", shape, column)
        assert str(error.value).startswith(f"{path}: {message}")


def test_a_pixel_without_a_value_is_refused(tmp_path):
    table = pd.DataFrame({"image_id": ["a", "b"], "0": pd.array([1, None], "UInt8")})
    table.to_parquet(tmp_path / "a.parquet")
    images = ParquetImages([tmp_path], "*.parquet", (1, 1), "image_id")
    with pytest.raises(InputError, match="a.parquet: column '0' has gaps"):
        images.pack(tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_exactly_one_label_in_a_softmax_column(tmp_path):
    bengali(tmp_path / "raw", ["a", "b"])
    path = tmp_path / "raw/train.csv"
    table = pd.read_csv(path, dtype=str)
    for cell, found in (("", 0), ("1 2", 2)):
        table.assign(vowel_diacritic=["3", cell]).to_csv(path, index=False)
        with pytest.raises(InputError) as error:
            prepare_images(tmp_path / "raw", tmp_path / "out", SMALL_BENGALI)
        assert f"id 'b': {found} labels in 'vowel_diacritic', expected one" in str(error.value)
    table.assign(grapheme=["x", " "]).to_csv(path, index=False)
    with pytest.raises(InputError, match="id 'b': blank 'grapheme', expected a value"):
        prepare_images(tmp_path / "raw", tmp_path / "out", SMALL_BENGALI)


def test_a_vocabulary_can_come_from_the_table(made, tmp_path):
    labels = made.competition.labels[0].model_copy(update={"vocabulary": None})
    entry = made.competition.model_copy(update={"labels": (labels,)})
    edit(made, lambda table: table.assign(tags=["10 9", "2", "", "9", "2", "2", "2", "2"]))
    prepare_images(made.raw, tmp_path / "out", entry)
    assert ImageStore(tmp_path / "out").heads[0].labels == ("2", "9", "10")
    edit(made, lambda table: table.assign(tags=["10 b", "a", "", "9", "a", "a", "a", "a"]))
    prepare_images(made.raw, tmp_path / "out", entry)
    assert ImageStore(tmp_path / "out").heads[0].labels == ("10", "9", "a", "b")


def test_the_script_prepares_and_reports_in_one_line(made, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--task", "image", "--competition", "planet", "--raw", made.raw, "--out", out]
    assert run("prepare.py", *command, "--size", 16) == 0
    assert "8 images, 17 labels" in capsys.readouterr().out
    assert json.loads((out / "index.json").read_text())["size"] == 16
    (made.raw / "train-jpg/train_003.jpg").unlink()
    assert run("prepare.py", *command) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1 and "train_003.jpg: no such file" in errors[0]


@pytest.mark.parametrize(
    "command, message",
    [
        (["--task", "image", "--raw", "x"], "image takes --competition --raw or"),
        (["emoji"], "emoji takes --raw"),
        (["graphemes", "--raw", "x"], "graphemes takes --fonts"),
        (["--raw", "x", "--verify"], "fwi takes --raw or --verify"),
        (["--raw", "x", "--size", 5], "fwi takes --raw or --verify"),
    ],
)
def test_the_script_takes_what_belongs_together(tmp_path, capsys, command, message):
    assert run("prepare.py", *command, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
