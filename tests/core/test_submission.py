"""Submissions of two made-up layouts: labels as text, one row an id; numbers, three rows an id."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from cli import disk_full_at, run

from comp.core import layout as layout_module
from comp.core import submission
from comp.core.errors import InputError
from comp.core.predictions import load_predictions, save_predictions
from comp.core.submission import (
    check_submission,
    read_ids,
    read_submission,
    read_truth,
    write_submission,
)

LABELS = ("rust", "scab", "complex")


class TextLayout:
    """One row an id: the labels whose probability is above a half."""

    header = ("image", "labels")
    rows_per_id = 1
    value_shape = (3,)
    row_shape = (3,)
    column_type = pa.string()
    decimals = None
    valid_range = (0.0, 1.0)
    clip_range = (0.0, 1.0)

    def row_ids(self, ids):
        return pa.array(ids, pa.string())

    def split(self, row_ids):
        return row_ids, np.zeros(len(row_ids), np.int64)

    def columns(self, values):
        return [pa.array([" ".join(np.array(LABELS)[row > 0.5]) for row in values], pa.string())]

    def rows(self, columns, numbers):
        return np.array(
            [[name in cell.split(" ") for name in LABELS] for cell in columns[0].to_pylist()],
            np.float32,
        )


class TripleLayout:
    """Three rows an id, `<id>/<part>`, of two numbers each."""

    header = ("row_id", "a", "b")
    rows_per_id = 3
    value_shape = (3, 2)
    row_shape = (2,)
    column_type = pa.float32()
    decimals = 1
    valid_range = (0.0, 100.0)
    clip_range = (10.0, 90.0)

    def row_ids(self, ids):
        return pa.array([f"{name}/{part}" for name in ids for part in "xyz"], pa.string())

    def split(self, row_ids):
        parts = pc.extract_regex(row_ids, "^(?P<name>.+)/(?P<part>[xyz])$")
        number = pc.index_in(parts.field("part"), value_set=pa.array(list("xyz"))).fill_null(-1)
        return pc.fill_null(parts.field("name"), ""), number.to_numpy()

    def columns(self, values):
        return [pa.array(column) for column in values.reshape(-1, 2).T.astype(np.float32)]

    def rows(self, columns, numbers):
        return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)


TRIPLE = TripleLayout()
IDS = ["e", "b", "d", "a", "c"]


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks that end within the rows of an id, when written and when read."""
    monkeypatch.setattr(submission, "_CHUNK_ROWS", 6)
    monkeypatch.setattr(layout_module, "_READ_BYTES", 32)


@pytest.fixture
def predictions(tmp_path):
    values = np.random.default_rng(0).uniform(10, 90, (5, 3, 2)).astype(np.float32)
    save_predictions(tmp_path / "p.npy", pd.DataFrame({"id": IDS}), values)
    return load_predictions(tmp_path / "p.npy")


def changed(predictions, place, value):
    values = np.array(predictions.values)
    values[place] = value
    save_predictions(predictions.path, predictions.table, values)
    return load_predictions(predictions.path)


@pytest.fixture
def lines(tmp_path, predictions):
    """The lines of a good submission in the order of IDS, header first."""
    write_submission(tmp_path / "good.csv", predictions, TRIPLE)
    return (tmp_path / "good.csv").read_text().splitlines()


def csv_of(tmp_path, lines, name="changed.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_text_rows_are_what_the_layout_says(tmp_path):
    values = np.array([[0.9, 0.1, 0.8], [0.2, 0.3, 0.1], [0.0, 1.0, 0.0]], np.float32)
    save_predictions(tmp_path / "p.npy", pd.DataFrame({"id": ["x.jpg", "y.jpg", "z.jpg"]}), values)
    layout, out = TextLayout(), tmp_path / "s.csv"
    ids = write_submission(out, load_predictions(tmp_path / "p.npy"), layout)
    assert out.read_text() == "image,labels\nx.jpg,rust complex\ny.jpg,\nz.jpg,scab\n"
    assert check_submission(out, layout, ids) == 3
    assert (read_submission(out, layout, ids)[:, 0] == (values > 0.5)).all()


def test_numbers_round_trip_over_chunks(tmp_path, predictions, small_chunks):
    ids = write_submission(tmp_path / "s.csv", predictions, TRIPLE)
    assert ids.tolist() == IDS
    assert read_ids(tmp_path / "s.csv", TRIPLE).tolist() == IDS
    assert check_submission(tmp_path / "s.csv", TRIPLE, ids) == 15
    found = read_submission(tmp_path / "s.csv", TRIPLE, ids)
    assert found.shape == (5, 3, 2)
    np.testing.assert_array_equal(found, predictions.values.round(1))
    text = (tmp_path / "s.csv").read_text()
    assert text.startswith("row_id,a,b\ne/x,61,31.6\ne/y,13.3,11.3\n")


def test_rows_follow_the_sample(tmp_path, predictions, lines):
    order = ["a", "b", "c", "d", "e"]
    body = [f"{name}/{part},0,0" for name in order for part in "xyz"]
    sample = csv_of(tmp_path, [lines[0], *body], "sample.csv")
    ids = write_submission(tmp_path / "s.csv", predictions, TRIPLE, sample)
    assert ids.tolist() == order
    assert check_submission(tmp_path / "s.csv", TRIPLE, read_ids(sample, TRIPLE)) == 15
    rows = [IDS.index(name) for name in order]
    np.testing.assert_array_equal(
        read_submission(tmp_path / "s.csv", TRIPLE, order), predictions.values[rows].round(1)
    )


def test_stray_spaces_in_the_sample_header_are_noted(tmp_path, predictions, lines, capsys):
    sample = csv_of(tmp_path, ["row_id, a ,b", *lines[1:]])
    write_submission(tmp_path / "s.csv", predictions, TRIPLE, sample)
    assert "stray spaces" in capsys.readouterr().out
    assert (tmp_path / "s.csv").read_text().startswith("row_id,a,b\n")
    with pytest.raises(InputError, match="column 2 of the header is ' a '"):
        check_submission(sample, TRIPLE, IDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: ["id,a,b", *s[1:]], "column 1 of the header is 'id', expected 'row_id'"),
        (lambda s: ["row_id,a", *s[1:]], "column 3 of the header is 'nothing', expected 'b'"),
        (lambda s: [s[0] + ",c", *s[1:]], "column 4 of the header is 'c', expected 'nothing'"),
        (lambda s: s[:-3], "1 ids unknown to .*, first 'c'"),
        (lambda s: [*s, "f/x,0,0", "f/y,0,0", "f/z,0,0"], "1 of 6 ids missing, first 'f'"),
        (lambda s: [*s, *s[1:4]], "line 17: id 'e' stands there twice"),
        (lambda s: s[:1], "a header without rows"),
        (lambda s: s[:-1], "ends within the 3 rows of id 'c'"),
        (lambda s: [s[0], s[2], s[1], *s[3:]], "line 2: row id 'e/y', expected 'e/x'"),
        (lambda s: [*s[:8], "d-y,0,0", *s[9:]], "line 9: row id 'd-y', expected one like '<id>/x'"),
    ],
)
def test_a_sample_that_does_not_match_is_refused(
    tmp_path, predictions, lines, small_chunks, change, message
):
    sample = csv_of(tmp_path, change(lines), "sample.csv")
    with pytest.raises(InputError, match=message):
        write_submission(tmp_path / "s.csv", predictions, TRIPLE, sample)
    assert not list(tmp_path.glob("s.csv*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: ["row_id, a,b", *s[1:]], "column 2 of the header is ' a', expected 'a'"),
        (lambda s: [s[0], *s[4:7], *s[1:4], *s[7:]], "line 2: .*'b/x', expected 'e/x'.*order"),
        (lambda s: [*s[:4], "q/x,20,20", *s[5:]], "line 5: .*'q/x', expected 'b/x'.*unknown"),
        (lambda s: [*s[:5], *s[6:]], "line 6: row id 'b/z', expected 'b/y'"),
        (lambda s: s[:-2], "ends after 13 rows, expected 15"),
        (lambda s: [*s, "f/x,20,20"], "line 17: row id 'f/x', expected the end of the file"),
        (lambda s: [*s[:9], "d/z,nan,20", *s[10:]], r"line 10 \(d/z\): value nan, expected 0..100"),
        (lambda s: [*s[:9], "d/z,,20", *s[10:]], r"line 10 \(d/z\): value nan"),
        (lambda s: [*s[:9], "d/z,20,inf", *s[10:]], r"line 10 \(d/z\): value inf"),
        (lambda s: [*s[:9], "d/z,20,100.5", *s[10:]], r"line 10 \(d/z\): value 100.5"),
        (lambda s: [*s[:9], "d/z,20,high", *s[10:]], "Row #10: .*invalid value 'high'"),
        (lambda s: [*s[:9], "d/z,20", *s[10:]], "Row #10: Expected 3 columns, got 2"),
        (lambda s: s[:1], "ends after 0 rows, expected 15"),
    ],
)
def test_check_names_the_first_difference(tmp_path, lines, small_chunks, change, message):
    assert check_submission(csv_of(tmp_path, lines), TRIPLE, IDS) == 15
    with pytest.raises(InputError, match=message) as caught:
        check_submission(csv_of(tmp_path, change(lines)), TRIPLE, IDS)
    assert "\n" not in str(caught.value)


def test_a_truth_may_have_stray_spaces_in_its_header(tmp_path, predictions, lines, capsys):
    spaced = csv_of(tmp_path, [lines[0].replace(",", " , "), *lines[1:]])
    ids, values = read_truth(spaced, TRIPLE)
    assert ids.tolist() == IDS and capsys.readouterr().out.count("stray spaces") == 1
    np.testing.assert_array_equal(values, predictions.values.round(1))
    for strict in (read_submission, check_submission):
        with pytest.raises(InputError, match="column 1 of the header is"):
            strict(spaced, TRIPLE, IDS)


def test_any_row_order_reads_the_same(tmp_path, predictions, lines, small_chunks):
    shuffled = [lines[i] for i in 1 + np.random.default_rng(1).permutation(15)]
    found = read_submission(csv_of(tmp_path, [lines[0], *shuffled]), TRIPLE, IDS)
    np.testing.assert_array_equal(found, predictions.values.round(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: [*s[:4], *s[5:]], "1 of 15 rows missing, first 'b/x'"),
        (lambda s: [*s, s[4]], "line 17: row id 'b/x' stands there twice"),
        (lambda s: [*s, "f/x,20,20"], "line 17: row id 'f/x' is unknown"),
        (lambda s: [*s[:4], "b-x,20,20", *s[5:]], "line 5: row id 'b-x' is unknown"),
        (lambda s: [*s[:4], "b/x,nan,20", *s[5:]], r"line 5 \(b/x\): value nan"),
    ],
)
@pytest.mark.parametrize("read_bytes", [32, 1 << 20])
def test_reading_refuses_what_cannot_be_scored(
    tmp_path, lines, monkeypatch, change, message, read_bytes
):
    monkeypatch.setattr(layout_module, "_READ_BYTES", read_bytes)
    with pytest.raises(InputError, match=message):
        read_submission(csv_of(tmp_path, change(lines)), TRIPLE, IDS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 100.5])
def test_bad_values_are_refused_naming_the_id(tmp_path, predictions, value):
    bad = changed(predictions, (3, 1, 1), value)
    with pytest.raises(InputError, match=f"id 'a': value {value:g}, expected 0..100"):
        write_submission(tmp_path / "s.csv", bad, TRIPLE)
    assert not list(tmp_path.glob("s.csv*"))
    if np.isfinite(value):  # asked to clip, one stray value must not cost the submission
        write_submission(tmp_path / "s.csv", bad, TRIPLE, clip=True)
        clipped = read_submission(tmp_path / "s.csv", TRIPLE, bad.ids)
        assert clipped.min() >= 10 and clipped.max() <= 90
    else:
        with pytest.raises(InputError, match=f"id 'a': value {value:g}, expected a finite number"):
            write_submission(tmp_path / "s.csv", bad, TRIPLE, clip=True)
        assert not list(tmp_path.glob("s.csv*"))


def test_clipping_only_on_request(tmp_path, predictions, capsys):
    outside = changed(predictions, (3, 1, 1), 95.0)
    for clip, expected in ((False, 95.0), (True, 90.0)):
        ids = write_submission(tmp_path / "s.csv", outside, TRIPLE, clip=clip)
        assert read_submission(tmp_path / "s.csv", TRIPLE, ids)[3, 1, 1] == expected
    printed = capsys.readouterr().out
    assert "outside 10..90 kept: 1\n" in printed and "outside 10..90 clipped: 1\n" in printed


def test_decimals_override_the_layout(tmp_path, predictions):
    ids = write_submission(tmp_path / "s.csv", predictions, TRIPLE, decimals=3)
    found = read_submission(tmp_path / "s.csv", TRIPLE, ids)
    np.testing.assert_array_equal(found, predictions.values.round(3))


def test_another_shape_and_unwritable_ids_are_refused(tmp_path, predictions):
    save_predictions(tmp_path / "p.npy", predictions.table, np.zeros((5, 3, 1), np.float32))
    with pytest.raises(InputError, match=r"sample shape \(3, 1\), expected \(3, 2\)"):
        write_submission(tmp_path / "s.csv", load_predictions(tmp_path / "p.npy"), TRIPLE)
    table = pd.DataFrame({"id": ["e", "b,2", "d", "a", "c"]})
    save_predictions(tmp_path / "p.npy", table, np.full((5, 3, 2), 50, np.float32))
    with pytest.raises(InputError, match="b,2"):
        write_submission(tmp_path / "s.csv", load_predictions(tmp_path / "p.npy"), TRIPLE)
    assert not list(tmp_path.glob("s.csv*"))


def test_missing_and_binary_files_are_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_ids(tmp_path / "none.csv", TRIPLE)
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="not a text file"):
        read_ids(tmp_path / "binary.csv", TRIPLE)


def test_a_full_disk_leaves_the_old_file(tmp_path, capsys):
    """It is full in the middle of the file."""
    values = np.full((2000, 70, 70), 3000.123, np.float32)
    table = pd.DataFrame({"id": [f"{i:010x}" for i in range(2000)]})
    save_predictions(tmp_path / "p.npy", table, values)
    out = tmp_path / "s.csv"
    out.write_text("old\n")
    with disk_full_at(1 << 22):
        assert run("submit.py", "--predictions", tmp_path / "p.npy", "--out", out) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"error: {out}: not written: File too large")
    assert out.read_text() == "old\n" and not list(tmp_path.glob("*.partial"))
