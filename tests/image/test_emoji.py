"""The emoji set from archives like those of npm."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
from cli import run
from PIL import Image

import comp.image.emoji
from comp.core.errors import InputError
from comp.core.predictions import load_predictions
from comp.image.competitions import COMPETITIONS
from comp.image.emoji import PICTURES, WORDS, write_emoji
from comp.image.store import ImageStore
from comp.image.testset import TestImages

GROUPS = {
    "groups": {"0": "smileys", "1": "people"},
    "subgroups": {"0": "face", "1": "hands"},
}


def hand(code, **more):
    """An emoji in two skin tones and without."""
    skins = [
        {"hexcode": f"{code}-1F3FB", "tone": 1},
        {"hexcode": f"{code}-1F3FB-1F3FF", "tone": [1, 5]},
    ]
    return {"hexcode": code, "group": 1, "subgroup": 1, "skins": skins, **more}


EMOJI = [
    *({"hexcode": f"1F60{i}", "group": 0, "subgroup": 0, "tags": ["happy"]} for i in range(10)),
    *(hand(f"1F44{i}", tags=["wave", f"only{i}"]) for i in range(8)),
    hand("1F3C3", tags=["run"]),
    hand("1F3C3-200D-2642-FE0F", tags=["run"]),  # a man, with the selector
    {"hexcode": "1F1E6"},  # neither group nor tags
    {"hexcode": "1F999", "group": 0, "subgroup": 0},  # no picture of it
]


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def png(value):
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (value, 0, 0, 255)).save(file, "png")
    return file.getvalue()


def codes():
    found = [code["hexcode"] for each in EMOJI for code in (each, *each.get("skins", ()))]
    # Pictures are named in small letters, some with a selector that the words lack.
    return [code.lower() if code != "1F600" else "1f600-fe0f" for code in found if code != "1F999"]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    monkeypatch.setattr(comp.image.emoji, "LEAST_IMAGES", 3)
    monkeypatch.setattr(comp.image.emoji, "LEAST_BASES", 2)
    folder = tmp_path / "npm"
    folder.mkdir()
    pictures = {f"package/img/google/64/{code}.png": png(i) for i, code in enumerate(codes())}
    archive(folder / PICTURES, {**pictures, "package/img/google/sheets/64.png": b"a sheet"})
    words = {"package/en/data.json": EMOJI, "package/meta/groups.json": GROUPS}
    words |= {"package/de/data.json": []}
    archive(folder / WORDS, {name: json.dumps(value).encode() for name, value in words.items()})
    return folder


def sets(folder):
    """The labels' names of every image of both parts, by id."""
    names = pd.read_csv(folder / "labels.csv")["attribute_name"].to_numpy()
    train = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    found = {
        name: {names[int(k)] for k in cell.split()}
        for name, cell in zip(train["id"], train["attribute_ids"])
    }
    truth = load_predictions(folder / "test_truth.npy")
    return found | {name: set(names[row > 0]) for name, row in zip(truth.ids, truth.values)}


def test_both_parts_hold_every_picture_with_its_labels(packages, tmp_path):
    raw = write_emoji(packages, tmp_path / "raw")
    found = sets(raw)
    assert sorted(found) == sorted(codes())
    assert found["1f600-fe0f"] == {"group::smileys", "subgroup::face", "tag::happy"}
    hands = {"group::people", "subgroup::hands", "tag::wave"}
    assert found["1f443"] == hands
    assert found["1f443-1f3fb"] == hands | {"tone::light"}
    assert found["1f443-1f3fb-1f3ff"] == hands | {"tone::light", "tone::dark"}
    assert found["1f1e6"] == set()
    for part in ("train", "test"):
        for path in (raw / part).iterdir():
            assert path.read_bytes() == png(codes().index(path.stem))


def test_labels_are_sorted_by_kind_and_rare_ones_left_out(packages, tmp_path):
    names = pd.read_csv(write_emoji(packages, tmp_path / "raw") / "labels.csv")
    assert names["attribute_id"].tolist() == list(range(8))
    assert names["attribute_name"].tolist() == [
        "group::people",
        "group::smileys",
        "subgroup::face",
        "subgroup::hands",
        "tag::happy",
        "tag::wave",
        "tone::dark",
        "tone::light",
    ]  # tag::only3 is on 3 images of one emoji, and so is tag::run, on 6


def test_variants_stay_together(packages, tmp_path):
    for seed in range(5):
        raw = write_emoji(packages, tmp_path / f"raw{seed}", seed)
        train = pd.read_csv(raw / "train.csv", dtype=str)
        test = {path.stem for path in (raw / "test").iterdir()}
        assert 0 < len(test) < len(train)
        for base in ("1f3c3", "1f443"):
            variants = {code for code in codes() if code.startswith(base)}
            assert variants <= test or not variants & test
        running = train[train["id"].str.startswith("1f3c3")]
        assert set(running["base"]) <= {"1F3C3"} and len(running) in (0, 6)


def test_the_script_makes_and_prepares_it(packages, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("prepare.py", "emoji", "--raw", packages, "--out", out) == 0
    store = ImageStore(out)
    assert store.competition == COMPETITIONS["emoji"]
    images = TestImages(out / "raw", store.competition)
    truth = load_predictions(out / "raw/test_truth.npy")
    assert sorted(truth.ids) == images.ids.tolist()
    assert len(store) + len(images) == len(codes())
    assert store.read(0).shape == (64, 64, 3)
    sample = pd.read_csv(out / "raw/sample_submission.csv", dtype=str)
    assert sample["id"].tolist() == truth.ids.tolist()
    assert np.isin(truth.values, (0, 1)).all()


def test_archives_that_are_missing_or_something_else(packages, tmp_path):
    (packages / WORDS).rename(packages / "words")
    with pytest.raises(InputError, match="`npm pack emojibase-data@17.0.0` brings it"):
        write_emoji(packages, tmp_path / "raw")
    (packages / WORDS).write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"17\.0\.0\.tgz: not a \.tgz archive"):
        write_emoji(packages, tmp_path / "raw")
    archive(packages / WORDS, {"package/en/data.json": b"[]"})
    with pytest.raises(InputError, match="not the words of emojibase-data-17.0.0"):
        write_emoji(packages, tmp_path / "raw")
    archive(packages / PICTURES, {})
    with pytest.raises(InputError, match="holds no pictures, expected package/img/google/64"):
        write_emoji(packages, tmp_path / "raw")
