"""Every known competition: its entry as YAML, and its official layout prepared and read back."""

import numpy as np
import pandas as pd
import pytest
import yaml
from image_layouts import write_layout
from PIL import Image

from comp.core.errors import InputError
from comp.core.files import read_table
from comp.core.folds import write_folds
from comp.core.predictions import load_predictions
from comp.image.competitions import COMPETITIONS, competition
from comp.image.glyphs import WIDTHS
from comp.image.heads import Head
from comp.image.metrics import FBeta, MacroRecall
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore
from comp.image.testset import TestImages

METRICS = {
    "imet2019": "f2_samples",
    "imet2020": "f1_micro",
    "planet": "f2_samples",
    "protein_atlas": "f1_macro",
    "plant_pathology": "f1_samples",
    "bengali": "macro_recall",
    "graphemes": "macro_recall",
    "emoji": "f2_samples",
}
CELLS = """
name: cells
id: image_id
labels: [{column: tags, vocabulary: [round, flat, dark, other]}]
images: {files: ["{id}_dna.tif", "{id}_actin.tif"], channels: 2}
metric: f1_macro
submission: {header: [image_id, tags]}
"""


def test_each_has_a_metric():
    assert METRICS.keys() == COMPETITIONS.keys()


@pytest.mark.parametrize("name", COMPETITIONS)
def test_an_entry_is_the_same_from_yaml(name, tmp_path):
    path = tmp_path / "entry.yaml"
    path.write_text(yaml.safe_dump(COMPETITIONS[name].model_dump(mode="json")))
    assert competition(path) == competition(name) == COMPETITIONS[name]


@pytest.mark.parametrize("name", [name for name in COMPETITIONS if name != "graphemes"])
def test_the_official_layout_comes_back(name, tmp_path, capsys):
    entry = COMPETITIONS[name]
    made = write_layout(tmp_path / "raw", entry, train=9, test=3)
    prepare_images(made.raw, tmp_path / "out", entry)
    store = ImageStore(tmp_path / "out")
    table = pd.read_csv(made.raw / entry.table, dtype=str)
    assert store.ids.tolist() == table[entry.id].tolist()
    assert store.competition == entry and store.metric.name == METRICS[name]
    targets = store.targets(range(9))
    first = 0
    for head, labels in zip(store.heads, entry.labels):
        cells = [
            entry.separator.join(np.array(head.labels)[row > 0])
            for row in targets[:, first : first + len(head.labels)]
        ]
        assert cells == table[labels.column].tolist()
        first += len(head.labels)
    assert first == len(store.labels) == load_predictions(made.truth).values.shape[1]
    height_width = entry.images.shape or (40, 48)
    assert store.read(0).shape == (*height_width, entry.images.channels)
    images = TestImages(made.raw, entry)
    assert images.ids.tolist() == load_predictions(made.truth).ids.tolist()
    assert images.read(0).shape == (*height_width, images.channels)
    assert store.read(0).dtype == images.read(0).dtype == np.uint8


def test_protein_atlas_channels_come_in_the_order_of_the_files(tmp_path):
    entry = COMPETITIONS["protein_atlas"]
    made = write_layout(tmp_path / "raw", entry, train=4, test=1)
    planes = [np.full((5, 6), value, np.uint8) for value in (10, 20, 30, 40)]
    for file, plane in zip(entry.images.files, planes):
        Image.fromarray(plane).save(made.raw / "train" / file.replace("{id}", "train_000"))
    prepare_images(made.raw, tmp_path / "out", entry)
    assert (ImageStore(tmp_path / "out").read(0) == [10, 20, 30, 40]).all()


def test_a_new_competition_is_a_yaml_file(tmp_path):
    path = tmp_path / "cells.yaml"
    path.write_text(CELLS)
    made = write_layout(tmp_path / "raw", competition(path))
    prepare_images(made.raw, tmp_path / "out", made.competition)
    store = ImageStore(tmp_path / "out")
    assert store.heads[0].labels == ("round", "flat", "dark", "other")
    assert store.read(1).shape == (48, 40, 2)


def test_labels_that_look_like_numbers_are_text(tmp_path):
    path = tmp_path / "cells.yaml"
    path.write_text(CELLS.replace("[round, flat, dark, other]", "[0, 1, 2, other]"))
    assert competition(path).labels[0].vocabulary == ("0", "1", "2", "other")
    path.write_text(CELLS.replace("[round, flat, dark, other]", "[0, 1.5]"))
    with pytest.raises(InputError, match="key 'labels'"):
        competition(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (("tags, vocabulary", "tags, vocabulry"), "the nearest valid key is 'labels"),
        (("f1_macro", "f1_mean"), "key 'metric': got 'f1_mean'"),
        (("f1_macro", "macro_recall"), "takes metric macro_recall with multiclass labels alone"),
        (("channels: 2", "channels: 3"), "takes as many channels as there are files, 2"),
        (('"{id}_dna.tif"', '"dna.tif"'), "takes file names with {id} once, not 'dna.tif'"),
        (('"{id}_dna.tif", "{id}_actin.tif"', '"{id}.tif"'), "takes 1 or 3 channels"),
        (("[image_id, tags]", "[image_id, tags], rows: [tag]"), "takes each of tags once"),
        (("id: image_id", "id: image_id\ngroup: plate"), "takes 'plate' in columns"),
        *(
            (
                ("id: image_id", f"id: image_id\ncolumns: [plate, {name}]"),
                f"takes no '{name}' in columns",
            )
            for name in ("id", "fold", "group", "height", "width", "broken")
        ),
        (
            ("id: image_id", "id: image_id\ncolumns: [fold]\ngroup: fold"),
            "takes no 'fold' in columns",
        ),
        (("files:", "kind: parquet, files:"), "a shape and 1 channel for parquet"),
        (
            ("id: image_id", "id: image_id\nlimits: {a: [1]}"),
            "key 'limits': got [1]; takes 2 values",
        ),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path, change, message):
    path = tmp_path / "cells.yaml"
    assert change[0] in CELLS
    path.write_text(CELLS.replace(*change))
    with pytest.raises(InputError) as error:
        competition(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_column_may_be_called_group_if_it_is_the_group(tmp_path):
    path = tmp_path / "cells.yaml"
    path.write_text(f"{CELLS}columns: [group]\ngroup: group\n")
    made = write_layout(tmp_path / "raw", competition(path), train=6, test=1)
    prepare_images(made.raw, tmp_path / "out", made.competition)
    described = ImageStore(tmp_path / "out").description()
    write_folds(tmp_path / "folds.csv", np.arange(6) // 3, described, {})
    written = read_table(tmp_path / "folds.csv")
    assert written["group"].tolist() == ["group 0"] * 3 + ["group 1"] * 3


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'imet': unknown; .* one of imet2019, imet2020, planet"):
        competition("imet")


def test_bengali_weighs_the_roots_twice():
    bengali = COMPETITIONS["bengali"]
    heads = tuple(
        Head(labels.column, tuple(map(str, range(labels.vocabulary))), labels.kind)
        for labels in bengali.labels
    )
    assert [len(head.labels) for head in heads] == [168, 11, 7]
    assert bengali.metric_of(heads) == MacroRecall(heads, (2.0, 1.0, 1.0))
    assert COMPETITIONS["planet"].metric_of(()) == FBeta("samples", 2.0)


def test_rendered_graphemes_have_a_class_for_each_part():
    labels = COMPETITIONS["graphemes"].labels
    assert tuple(each.vocabulary for each in labels) == WIDTHS
