"""Bengali graphemes rendered from fonts, laid out as Bengali.AI's data are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import atomic_path
from comp.core.predictions import save_predictions
from comp.image.glyphs import (
    CONSONANTS,
    HEADS,
    ROOTS,
    VOWELS,
    WIDTHS,
    Grapheme,
    Renderer,
    all_graphemes,
)

TEST_SHARE = 0.1  # of the graphemes, and of the images of the others
_TRAIN_FILES = 4

_Image = tuple[Renderer, Grapheme]


def write_graphemes(
    fonts: Sequence[str | Path],
    raw: str | Path,
    graphemes: int = 1200,
    copies: int = 2,
    seed: int = 0,
) -> Path:
    """Write the set. About half of its test images show graphemes that no training image shows.

    Args:
        fonts: Bengali font files.
        raw: the folder to write: `train.csv`, `test.csv`, `class_map.csv`,
            `sample_submission.csv` and parquet files. What was left to be predicted lies beside
            them in `test_truth.npy`, a prediction file whose table says `seen` or not.
        graphemes: drawn from all that the fonts can show.
        copies: images of a grapheme by each font.
        seed: of everything drawn.

    Returns:
        `raw`.

    Raises:
        InputError: no font, one that is no Bengali font or twice there, or fewer graphemes than
            asked for.
    """
    raw, rng = Path(raw), np.random.default_rng(seed)
    renderers = [Renderer(path) for path in fonts]
    names = [each.name for each in renderers]
    if not names or len(set(names)) < len(names):
        raise InputError(f"fonts: {', '.join(names) or 'none'}, expected one or more, each once")
    whole = {each.name: each.whole(all_graphemes()) for each in renderers}
    known = sorted({each for some in whole.values() for each in some}, key=lambda g: g.classes)
    if not 0 < graphemes <= len(known):
        raise InputError(f"graphemes: {graphemes}, expected 1 to {len(known)} with these fonts")
    drawn = [known[i] for i in rng.permutation(len(known))[:graphemes]]
    unseen, drawn = set(drawn[: round(TEST_SHARE * graphemes)]), set(drawn)
    images = [
        (renderer, each)
        for renderer in renderers
        for each in whole[renderer.name]
        if each in drawn
        for _ in range(copies)
    ]
    images = [images[i] for i in rng.permutation(len(images))]
    held_out = rng.random(len(images)) < TEST_SHARE
    parts: dict[str, list[_Image]] = {"train": [], "test": []}
    for image, held in zip(images, held_out):
        parts["test" if held or image[1] in unseen else "train"].append(image)
    tables = {part: _table(part, members) for part, members in parts.items()}
    raw.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(images), desc="drawing", unit="image") as bar:
        for part, files in (("train", _TRAIN_FILES), ("test", 1)):
            ids = tables[part]["image_id"].to_numpy()
            for number, rows in enumerate(np.array_split(np.arange(len(ids)), files)):
                pixels = [parts[part][i][0].draw(parts[part][i][1].text, rng) for i in rows]
                path = raw / f"{part}_image_data_{number}.parquet"
                write_pixels(path, "image_id", ids[rows], np.array(pixels))
                bar.update(len(rows))
    _write_csv(raw / "train.csv", tables["train"])
    _write_csv(raw / "class_map.csv", _class_map())
    seen = tables["test"]["grapheme"].isin(tables["train"]["grapheme"])
    _write_test(raw, tables["test"].assign(seen=seen))
    return raw


def write_pixels(path: Path, id_column: str, ids: Sequence[str], images: np.ndarray) -> None:
    """Write (n, height, width) uint8 images as the rows of a parquet file, as Bengali.AI has them.

    A column an id, then one for each pixel, named by its number. Statistics and dictionaries of so
    many columns would take longer than the pixels.
    """
    columns = np.ascontiguousarray(images.reshape(len(images), -1).T)
    table = pa.table(
        {id_column: pa.array(ids, pa.string())} | {str(k): each for k, each in enumerate(columns)}
    )
    with atomic_path(path) as partial:
        pq.write_table(table, partial, use_dictionary=False, write_statistics=False)


def _table(part: str, images: Sequence[_Image]) -> pd.DataFrame:
    """The training table of a part."""
    classes = np.array([each.classes for _, each in images], int).reshape(len(images), len(HEADS))
    table = pd.DataFrame(classes, columns=list(HEADS))
    table.insert(0, "image_id", [f"{part.capitalize()}_{i}" for i in range(len(images))])
    return table.assign(
        grapheme=[each.text for _, each in images], font=[font.name for font, _ in images]
    )


def _class_map() -> pd.DataFrame:
    """What the numbers stand for; "0" for no sign, as in Bengali.AI's own."""
    signs = (ROOTS, VOWELS, ["".join(each) for each in CONSONANTS])
    rows = [
        (head, number, sign or "0")
        for head, known in zip(HEADS, signs)
        for number, sign in enumerate(known)
    ]
    return pd.DataFrame(rows, columns=["component_type", "label", "component"])


def _write_test(raw: Path, table: pd.DataFrame) -> None:
    """The files that ask for predictions, and the truth."""
    components = sorted(HEADS)
    asked = pd.DataFrame(
        [(f"{name}_{head}", name, head) for name in table["image_id"] for head in components],
        columns=["row_id", "image_id", "component"],
    )
    _write_csv(raw / "test.csv", asked)
    _write_csv(raw / "sample_submission.csv", asked[["row_id"]].assign(target=0))
    truth = [np.eye(width, dtype=np.float32)[table[head]] for head, width in zip(HEADS, WIDTHS)]
    columns = table.drop(columns=list(HEADS)).rename(columns={"image_id": "id"})
    save_predictions(raw / "test_truth.npy", columns, np.concatenate(truth, axis=1))


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False)
