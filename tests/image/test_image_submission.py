"""Submission CSVs of labels: what is written, what is read back, what is refused."""

import numpy as np
import pandas as pd
import pytest

from comp.core import layout as layout_module
from comp.core import submission
from comp.core.errors import InputError
from comp.core.predictions import load_predictions, save_predictions
from comp.core.submission import check_submission, read_ids, read_submission, write_submission
from comp.image.competitions import COMPETITIONS
from comp.image.heads import Head
from comp.image.label_groups import one_group
from comp.image.submission import ImageLayout, read_layout
from comp.image.thresholds import GroupThresholds, plain_argmax

WORDS = Head("tags", ("clear", "water", "road", "haze"), "multilabel")
PARTS = (
    Head("grapheme_root", tuple(map(str, range(5))), "multiclass"),
    Head("vowel_diacritic", tuple(map(str, range(3))), "multiclass"),
    Head("consonant_diacritic", tuple(map(str, range(4))), "multiclass"),
)
HALF = GroupThresholds(groups=one_group(4), thresholds=(0.5,))
PLANET = ImageLayout(COMPETITIONS["planet"], (WORDS,), HALF)
BENGALI = ImageLayout(COMPETITIONS["bengali"], PARTS, plain_argmax(PARTS))


def predictions(tmp_path, values, ids=None):
    ids = [f"Test_{i}" for i in range(len(values))] if ids is None else ids
    save_predictions(tmp_path / "p.npy", pd.DataFrame({"id": ids}), np.array(values, np.float32))
    return load_predictions(tmp_path / "p.npy")


def lines(path):
    return path.read_text().splitlines()


def test_labels_are_joined_and_an_empty_set_is_an_empty_cell(tmp_path):
    out = tmp_path / "s.csv"
    values = [[0.9, 0.1, 0.6, 0], [0, 0.2, 0.1, 0], [0, 0, 0, 1]]
    ids = write_submission(out, predictions(tmp_path, values), PLANET)
    assert lines(out) == ["image_name,tags", "Test_0,clear road", "Test_1,", "Test_2,haze"]
    assert check_submission(out, PLANET, ids) == 3
    read = PLANET.sets(read_submission(out, PLANET, ids))
    assert (read == (np.array(values) > 0.5)).all()


def test_where_a_blank_is_not_allowed_the_most_probable_label_is_written(tmp_path):
    entry = COMPETITIONS["planet"]
    rows = entry.submission.model_copy(update={"blank": False})
    layout = ImageLayout(entry.model_copy(update={"submission": rows}), (WORDS,), HALF)
    out = tmp_path / "s.csv"
    ids = write_submission(out, predictions(tmp_path, [[0.1, 0.2, 0.4, 0.3]]), layout)
    assert lines(out)[1] == "Test_0,road"
    out.write_text("image_name,tags\nTest_0,\n")
    with pytest.raises(InputError, match=r"line 2 \(Test_0\): 0 labels, expected one or more"):
        check_submission(out, layout, ids)


def test_three_rows_an_image_in_the_order_of_the_sample(tmp_path):
    values = np.zeros((2, 12), np.float32)
    values[0, [3, 5 + 1, 8 + 2]] = 0.9
    values[1, [0, 5 + 2, 8 + 0]] = 0.7
    out = tmp_path / "s.csv"
    ids = write_submission(out, predictions(tmp_path, values), BENGALI)
    assert lines(out) == [
        *("row_id,target", "Test_0_consonant_diacritic,2", "Test_0_grapheme_root,3"),
        *("Test_0_vowel_diacritic,1", "Test_1_consonant_diacritic,0"),
        *("Test_1_grapheme_root,0", "Test_1_vowel_diacritic,2"),
    ]
    assert read_ids(out, BENGALI).tolist() == ["Test_0", "Test_1"]
    shuffled = [lines(out)[0], *reversed(lines(out)[1:])]
    out.write_text("\n".join(shuffled) + "\n")
    read = BENGALI.sets(read_submission(out, BENGALI, ids))
    assert (read == (values > 0)).all()


def test_chunks_of_any_size_give_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    file = predictions(tmp_path, rng.random((50, 12)))
    whole = write_submission(tmp_path / "a.csv", file, BENGALI)
    monkeypatch.setattr(submission, "_CHUNK_VALUES", 36)  # three images
    monkeypatch.setattr(layout_module, "_READ_VALUES", 35)  # seven rows
    write_submission(tmp_path / "b.csv", file, BENGALI)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    read = BENGALI.sets(read_submission(tmp_path / "b.csv", BENGALI, whole))
    assert (read == BENGALI.rule.decide(file.values)).all()
    assert check_submission(tmp_path / "b.csv", BENGALI, whole) == 150


def test_a_sample_with_stray_spaces_in_its_header_passes(tmp_path, capsys):
    sample = tmp_path / "sample.csv"
    sample.write_text("image_name, tags\nTest_1,clear\nTest_0,clear\n")
    file = predictions(tmp_path, [[1, 0, 0, 0], [0, 1, 0, 0]])
    ids = write_submission(tmp_path / "s.csv", file, PLANET, sample)
    assert "stray spaces" in capsys.readouterr().out
    assert ids.tolist() == ["Test_1", "Test_0"]
    assert lines(tmp_path / "s.csv") == ["image_name,tags", "Test_1,water", "Test_0,clear"]


@pytest.mark.parametrize(
    ("layout", "text", "message"),
    [
        (PLANET, "Test_0,clear watr", r"line 2 \(Test_0\): label 'watr', expected one of the 4 of"),
        (PLANET, "Test_9,clear", r"line 2: row id 'Test_9' is unknown"),
        (PLANET, "Test_0,clear\nTest_0,clear", "line 3: row id 'Test_0' stands there twice"),
        (BENGALI, "Test_0_root,1", "line 2: row id 'Test_0_root' is unknown"),
        (BENGALI, "Test_0_vowel_diacritic,3", r"label '3', expected one of the 3 of vowel_dia"),
        (BENGALI, "Test_0_vowel_diacritic,", "0 labels, expected one"),
        (BENGALI, "Test_0_vowel_diacritic,1 2", "2 labels, expected one"),
        (BENGALI, "Test_0_vowel_diacritic,1", "2 of 3 rows missing, first 'Test_0_consonant_dia"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_line(tmp_path, layout, text, message):
    out = tmp_path / "s.csv"
    out.write_text(f"{','.join(layout.header)}\n{text}\n")
    with pytest.raises(InputError, match=message):
        read_submission(out, layout, ["Test_0"])


def test_repeated_and_padded_separators_are_no_labels(tmp_path):
    out = tmp_path / "s.csv"
    out.write_text("image_name,tags\nTest_0, clear   road \n")
    read = PLANET.sets(read_submission(out, PLANET, ["Test_0"]))
    assert read.tolist() == [[True, False, True, False]]


def test_a_rule_is_needed_and_must_fit(tmp_path):
    without = ImageLayout(COMPETITIONS["planet"], (WORDS,))
    with pytest.raises(InputError, match="--rule: not given"):
        write_submission(tmp_path / "s.csv", predictions(tmp_path, [[1, 0, 0, 0]]), without)
    assert not (tmp_path / "s.csv").exists()
    with pytest.raises(InputError, match="made for 4 labels, expected 12 as of comp"):
        ImageLayout(COMPETITIONS["bengali"], PARTS, HALF)
    with pytest.raises(InputError, match="--data: not given"):
        read_layout(None, None)
