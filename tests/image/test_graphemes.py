"""Bengali graphemes: their texts, what a font can show, and the set rendered from fonts."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from cli import run

import comp.image.graphemes
from comp.core.errors import InputError
from comp.core.predictions import load_predictions
from comp.image.competitions import COMPETITIONS
from comp.image.glyphs import CONSONANTS, ROOTS, VOWELS, WIDTHS, Grapheme, Renderer, all_graphemes
from comp.image.graphemes import write_graphemes
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore
from comp.image.testset import TestImages

LATIN = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
SOUGHT = ("Lohit-Bengali.ttf", "NotoSansBengali-Regular.ttf")


@pytest.fixture(scope="module")
def fonts():
    found = {path.name: path for path in Path("/usr/share/fonts").rglob("*Bengali*.ttf")}
    if not found.keys() >= set(SOUGHT):
        pytest.skip("Debian's fonts-noto-core and fonts-lohit-beng-bengali are not installed")
    return [found[name] for name in SOUGHT]


def test_texts_are_put_together_in_the_order_of_writing():
    ka, sign_i = ROOTS.index("ক"), VOWELS.index("ি")
    assert Grapheme((ka, 0, 0)).text == "ক"
    assert [Grapheme((ka, sign_i, k)).text for k in range(7)] == [
        "কি",
        "কিঁ",
        "র্কি",
        "র্ক্যি",
        "ক্যি",
        "ক্রি",
        "ক্র্যি",
    ]
    assert Grapheme((ka, sign_i, 3)).stem == "র্ক্য"


def test_every_text_has_one_reading():
    assert WIDTHS == (75, 11, 7) == (len(set(ROOTS)), len(set(VOWELS)), len(set(CONSONANTS)))
    graphemes = all_graphemes()
    texts = [each.text for each in graphemes]
    assert len(set(texts)) == len(texts) == 5709
    assert "র্য" not in texts  # ra with ya below it, or ya with ra above it


def test_a_font_must_be_bengali(tmp_path):
    with pytest.raises(InputError, match=r"DejaVuSans\.ttf: no letter U\+0995, expected a Bengali"):
        Renderer(LATIN)
    for content in (None, b"no font"):
        if content:
            (tmp_path / "a.ttf").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.ttf: not a font"):
            Renderer(tmp_path / "a.ttf")


def test_conjuncts_that_a_font_lacks_are_found(fonts):
    lohit, noto = map(Renderer, fonts)
    assert not noto.broken("ক্ষ") and not lohit.broken("ক্ষ")
    assert lohit.broken("ক্ক্র") and not noto.broken("ক্ক্র")
    assert noto.broken("হ্ম্র")
    assert noto.broken("ক্\u200cষ")  # the conjunct forbidden
    vowel = VOWELS.index("ি")  # stands on the left, where it would hide the difference
    broken = Grapheme((ROOTS.index("ক্ক"), vowel, 5))
    assert lohit.whole([broken, Grapheme((0, vowel, 0))]) == [Grapheme((0, vowel, 0))]


def test_pictures_are_dark_on_white_whole_and_drawn_by_the_seed(fonts):
    renderer = Renderer(fonts[1])
    pictures = [renderer.draw("ক্ষো", np.random.default_rng(seed)) for seed in (*range(20), 0)]
    assert all(each.shape == (137, 236) and each.dtype == np.uint8 for each in pictures)
    assert np.array_equal(pictures[0], pictures[-1])
    assert not np.array_equal(pictures[0], pictures[1])
    for each in pictures:
        edge = np.concatenate([each[0], each[-1], each[:, 0], each[:, -1]])
        assert (edge == 255).all()  # nothing is cut off
        assert each.min() < 80 and 0.02 < (each < 128).mean() < 0.4


def test_the_set_has_unseen_and_seen_graphemes_in_its_test_part(fonts, tmp_path, monkeypatch):
    monkeypatch.setattr(comp.image.graphemes, "TEST_SHARE", 0.25)
    monkeypatch.setattr(comp.image.graphemes, "_TRAIN_FILES", 1)
    monkeypatch.setattr(comp.image.glyphs, "SHAPE", (24, 30))
    raw = write_graphemes(fonts, tmp_path / "raw", graphemes=24, copies=2)
    train = pd.read_csv(raw / "train.csv")
    truth = load_predictions(raw / "test_truth.npy")
    assert truth.values.shape == (len(truth), sum(WIDTHS))
    assert (truth.values.sum(axis=1) == 3).all()
    seen = truth.table["grapheme"].isin(train["grapheme"])
    assert (seen == truth.table["seen"]).all() and seen.any() and not seen.all()
    assert len(train) + len(truth) <= 24 * 2 * 2
    assert truth.table["grapheme"][~seen].nunique() >= 6
    known = {each.classes: each.text for each in all_graphemes()}
    heads = ["grapheme_root", "vowel_diacritic", "consonant_diacritic"]
    for classes, text in zip(train[heads].itertuples(index=False), train["grapheme"]):
        assert known[tuple(classes)] == text
    sample = pd.read_csv(raw / "sample_submission.csv")
    assert sample["row_id"].tolist()[:3] == [
        "Test_0_consonant_diacritic",
        "Test_0_grapheme_root",
        "Test_0_vowel_diacritic",
    ]
    assert len(sample) == 3 * len(truth)
    assert len(pd.read_csv(raw / "class_map.csv")) == sum(WIDTHS)

    images = COMPETITIONS["graphemes"].images.model_copy(update={"shape": (24, 30)})
    entry = COMPETITIONS["graphemes"].model_copy(update={"images": images})
    prepare_images(raw, tmp_path / "out", entry)
    store = ImageStore(tmp_path / "out")
    assert store.description().grouped_by("grapheme").groups.tolist() == train["grapheme"].tolist()
    assert store.read(0).shape == (24, 30, 1) and store.read(0).min() < 200
    assert TestImages(raw, entry).ids.tolist() == truth.ids.tolist()


def test_what_cannot_be_drawn_is_refused(fonts, tmp_path):
    with pytest.raises(InputError, match="fonts: none, expected one or more"):
        write_graphemes([], tmp_path)
    with pytest.raises(InputError, match="expected one or more, each once"):
        write_graphemes([fonts[0], fonts[0]], tmp_path)
    with pytest.raises(InputError, match="graphemes: 9999, expected 1 to 5577 with these fonts"):
        write_graphemes([fonts[1]], tmp_path, graphemes=9999)


def test_the_script_reports_a_font_in_one_line(tmp_path, capsys):
    assert run("prepare.py", "graphemes", "--fonts", LATIN, "--out", tmp_path / "out") == 2
    assert "error: " in capsys.readouterr().err
