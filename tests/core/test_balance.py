"""The balance of folds: counted, told and drawn."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from comp.core.balance import SHOWN, balance_table, balance_text, draw_balance, find_gaps
from comp.core.errors import InputError


def test_balance_table_counts():
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 1]])
    table = balance_table(np.array([0, 1, 0, -1]), labels, ["a", "b"])
    assert table["all", "n"].to_dict() == {"samples": 4, "a": 3, "b": 2}
    assert table["fold 0", "n"].to_dict() == {"samples": 2, "a": 1, "b": 1}
    assert table["fold 0", "%"].to_dict() == {"samples": 100, "a": 50, "b": 50}
    assert table["train only", "n"].to_dict() == {"samples": 1, "a": 1, "b": 1}
    assert table["off", "pp"].to_dict() == {"samples": 0, "a": 25, "b": 50}


def test_gaps_name_what_a_fold_lacks():
    labels = np.zeros((20, 4), int)
    labels[:, 0] = 1  # everywhere
    labels[:2, 1] = 1  # folds 0 and 1 only
    labels[[2, 6], 2] = 1  # fold 2 only
    folds = np.arange(20) % 4
    ids = np.arange(20).astype(str)
    assert find_gaps(folds, labels, ["every", "two", "one", "none"], ids) == [
        "2 labels have fewer groups than the 4 folds, so no cut can balance them: "
        "make fewer folds or smaller groups",
        "two: 2 samples in 2 groups: never validated in fold 2, 3",
        "one: 2 samples in 2 groups: never validated in fold 0, 1, 3; "
        "never trained while fold 2 validates",
        "none: no samples",
    ]
    assert find_gaps(folds, labels[:, :1], ["every"], ids) == []


def test_gaps_name_unequal_folds():
    folds = np.array([0] * 6 + [1] * 4)
    gaps = find_gaps(folds, np.ones((10, 1), int), ["a"], np.arange(10).astype(str))
    assert gaps == ["folds hold 4 to 6 samples: groups are few or unequal"]


def table_of(n_labels, n=1000, folds=5, seed=0):
    """Balance of random folds; the first labels are common, the last rare."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n, n_labels)) < 0.5 / np.arange(1, n_labels + 1)
    names = [f"label {i}" for i in range(n_labels)]
    return balance_table(rng.integers(0, folds, n), labels, names)


def test_text_shows_a_small_table_whole_and_in_order():
    lines = balance_text(table_of(4), ["label 3: no samples"]).splitlines()
    assert [line.split()[:2] for line in lines[3:-1]] == [["label", str(i)] for i in range(4)]
    assert lines[2].split()[:3] == ["samples", "1000", "100.0"]
    assert lines[-1] == "warning: label 3: no samples"


def test_text_shows_what_is_furthest_off_in_a_large_table():
    table = table_of(SHOWN + 30)
    lines = balance_text(table, [f"label {i}: no samples" for i in range(SHOWN + 7)]).splitlines()
    shown = [int(line.split()[1]) for line in lines[3 : 3 + SHOWN]]
    off = table["off", "pp"].to_numpy()[1:]
    assert sorted(off[shown], reverse=True) == list(off[shown])
    assert off[shown].min() >= np.delete(off, shown).max()
    assert lines[3 + SHOWN] == "and 30 labels that are off by less"
    assert len(lines) == 3 + SHOWN + 1 + SHOWN + 1
    assert lines[-1] == "warning: and 7 more labels like these"


def orange(path):
    """Rows and columns with the colour of fold 1, as shares of the picture's height and width."""
    pixels = imread(path, format="png")[..., :3]
    rows, columns = np.nonzero(np.all(np.abs(pixels - (1.0, 0.498, 0.055)) < 0.02, axis=2))
    return rows / pixels.shape[0], columns / pixels.shape[1]


def test_picture_shows_the_worst_label_on_top(tmp_path):
    # The last of four labels is nearly absent from fold 1, the others are balanced.
    folds = np.arange(1000) % 5
    labels = np.tile((np.arange(1000) // 5 % 4 == 0)[:, None], (1, 4))
    labels[folds == 1, 3] &= np.arange(200) < 20
    draw_balance(tmp_path / "a.png", balance_table(folds, labels, list("abcd")))
    rows, columns = orange(tmp_path / "a.png")
    outlier = rows < 0.16  # the top line of a panel
    for panel in (columns < 0.5, columns > 0.5):
        dots = panel & (rows < 0.8)  # not the legend
        assert (dots & outlier).any() and (dots & ~outlier).any()
        assert columns[dots & outlier].max() < columns[dots & ~outlier].min() - 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("n_labels, folds", [(1, 2), (12, 10), (300, 30)])
def test_pictures_of_any_size(tmp_path, n_labels, folds):
    draw_balance(tmp_path / "a.png", table_of(n_labels, folds=folds))
    height, width = imread(tmp_path / "a.png", format="png").shape[:2]
    assert 150 < height < 900 and width == 1430


def test_split_and_odd_names_are_drawn(tmp_path):
    labels = np.random.default_rng(0).random((200, 3)) < 0.3
    labels[:, 2] = False  # nothing to draw of it
    table = balance_table(np.arange(200) % 4 // 3 - 1, labels, ["$x_y", "long " * 20, "none"])
    draw_balance(tmp_path / "a.png", table)
    assert imread(tmp_path / "a.png").std() > 0.05


def test_pyplot_is_not_needed():
    code = "import sys, comp.core.balance; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_to_draw(tmp_path):
    table = balance_table(np.arange(10) % 2, np.zeros((10, 2), int), ["a", "b"])
    with pytest.raises(InputError, match=r"a.png: nothing to draw, no label has a sample"):
        draw_balance(tmp_path / "a.png", table)
    assert not list(tmp_path.iterdir())
