"""A small multilabel set that anyone can have: emoji and their tags, laid out as iMet's data are.

The pictures are those of the npm package emoji-datasource-google (Apache-2.0), 64 × 64 pixels, the
words those of emojibase-data (MIT). `npm pack NAME@VERSION` brings either as one archive. Labels
are an emoji's group, subgroup, tags and skin tones.
"""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.core.files import atomic_path
from comp.core.predictions import save_predictions

PICTURES = "emoji-datasource-google-16.0.0.tgz"
WORDS = "emojibase-data-17.0.0.tgz"
LEAST_IMAGES = 20  # with a label, for it to count
# And different emoji, enough for a test part and five folds. All 26 variants of a couple are one.
LEAST_BASES = 8
TEST_SHARE = 0.2

_KINDS = ("group", "subgroup", "tag", "tone")
_TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
_PICTURE = re.compile(r"package/img/google/64/(?P<name>[0-9a-f-]+)\.png")
# Woman or man, and facing right: drawn like the emoji without.
_VARIANT = re.compile(r"-200D-(2640|2642|27A1)(?=-|$)")


@dataclass(frozen=True)
class _Emoji:
    """One picture: `base` is the same for all variants, in skin tone, gender and direction."""

    name: str
    base: str
    labels: frozenset[str]


def write_emoji(packages: str | Path, raw: str | Path, seed: int = 0) -> Path:
    """Write the set: a training and a test part, which share no base emoji.

    Args:
        packages: folder with the two archives, `PICTURES` and `WORDS`.
        raw: the folder to write: `train`, `test`, `train.csv` (id, attribute_ids, base),
            `labels.csv` (attribute_id, attribute_name), `sample_submission.csv`. What was left to
            be predicted lies beside them, in `test_truth.npy`, as a prediction file.
        seed: of the draw of the test part, `TEST_SHARE` of the base emoji.

    Returns:
        `raw`.

    Raises:
        InputError: an archive is missing or not what it should be.
    """
    packages, raw = Path(packages), Path(raw)
    pictures = _read_pictures(packages / PICTURES)
    emoji = list(_find_emoji(packages / WORDS, pictures))
    names = _frequent_labels(emoji)
    bases = sorted({each.base for each in emoji})
    drawn = np.random.default_rng(seed).permutation(len(bases))[: round(TEST_SHARE * len(bases))]
    held_out = {bases[i] for i in drawn}
    parts = {
        "train": [each for each in emoji if each.base not in held_out],
        "test": [each for each in emoji if each.base in held_out],
    }
    for part, members in parts.items():
        (raw / part).mkdir(parents=True, exist_ok=True)
        for each in members:  # the tables follow, so nobody takes a part of them for the set
            (raw / part / f"{each.name}.png").write_bytes(pictures[each.name])
    column = {label: i for i, label in enumerate(names)}
    truth = {part: _multi_hot(members, column) for part, members in parts.items()}
    _write_csv(raw / "labels.csv", attribute_id=range(len(names)), attribute_name=names)
    _write_csv(
        raw / "train.csv",
        id=[each.name for each in parts["train"]],
        attribute_ids=[" ".join(map(str, np.flatnonzero(row))) for row in truth["train"]],
        base=[each.base for each in parts["train"]],
    )
    ids = [each.name for each in parts["test"]]
    _write_csv(raw / "sample_submission.csv", id=ids, attribute_ids=["0"] * len(ids))
    save_predictions(raw / "test_truth.npy", pd.DataFrame({"id": ids}), truth["test"])
    return raw


def _read_pictures(path: Path) -> dict[str, bytes]:
    """PNG bytes by name, e.g. `1f44b-1f3fb`."""
    found = {}
    for member, content in _read_archive(path, _PICTURE):
        found[_PICTURE.fullmatch(member)["name"]] = content
    if not found:
        raise InputError(f"{path}: holds no pictures, expected package/img/google/64/*.png")
    return found


def _find_emoji(path: Path, pictures: dict[str, bytes]) -> Iterator[_Emoji]:
    """Every emoji of the words' package that there is a picture of, in its order."""
    wanted = re.compile(r"package/(en/data|meta/groups)\.json")
    files = {name: json.loads(content) for name, content in _read_archive(path, wanted)}
    try:
        meta = files["package/meta/groups.json"]
        named = {_plain(name): name for name in pictures}
        for entry in files["package/en/data.json"]:
            labels = {f"tag::{tag}" for tag in entry.get("tags", ())}
            for kind in ("group", "subgroup"):
                if kind in entry:  # a lone regional indicator has none
                    labels.add(f"{kind}::{meta[f'{kind}s'][str(entry[kind])]}")
            base = _VARIANT.sub("", _plain(entry["hexcode"]).upper())
            for each in (entry, *entry.get("skins", ())):
                name = named.get(_plain(each["hexcode"]))
                if name is not None:
                    yield _Emoji(name, base, frozenset(labels | _tones(each)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the words of {WORDS}: {error!r}") from None


def _frequent_labels(emoji: Sequence[_Emoji]) -> list[str]:
    """Labels on enough images and enough base emoji, by kind and name."""
    images = Counter(label for each in emoji for label in each.labels)
    bases = Counter(label for _, label in {(e.base, label) for e in emoji for label in e.labels})
    kept = [k for k in images if images[k] >= LEAST_IMAGES and bases[k] >= LEAST_BASES]
    return sorted(kept, key=lambda label: (_KINDS.index(label.split("::")[0]), label))


def _tones(entry: dict[str, Any]) -> set[str]:
    """Skin tones in the picture: a couple may have two."""
    tones = entry.get("tone", ())
    return {f"tone::{_TONES[tone - 1]}" for tone in ([tones] if isinstance(tones, int) else tones)}


def _plain(code: str) -> str:
    """Code points without the variation selector, which the two packages use differently."""
    return "-".join(point for point in code.lower().split("-") if point != "fe0f")


def _read_archive(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each wanted file of a .tgz; nothing is unpacked to disk."""
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            for member in archive:
                if member.isfile() and wanted.fullmatch(member.name):
                    yield member.name, archive.extractfile(member).read()
    except FileNotFoundError:
        package, _, version = path.stem.rpartition("-")
        raise InputError(
            f"{path}: no such file; `npm pack {package}@{version}` brings it"
        ) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a .tgz archive: {error}") from None


def _multi_hot(members: list[_Emoji], column: dict[str, int]) -> np.ndarray:
    """(n, C) float32."""
    out = np.zeros((len(members), len(column)), np.float32)
    for row, each in enumerate(members):
        out[row, [column[label] for label in each.labels if label in column]] = 1
    return out


def _write_csv(path: Path, **columns: Any) -> None:
    with atomic_path(path) as partial:
        pd.DataFrame(columns).to_csv(partial, index=False)
