"""The known competitions as data; a new one of the same shape is one entry here, or a YAML file."""

from pathlib import Path

from comp.core.config import parse_config, read_yaml
from comp.core.errors import InputError
from comp.image.entry import Competition, ImageFiles, LabelColumn, Submission

_PLANET = (
    "agriculture",
    "artisinal_mine",
    "bare_ground",
    "blooming",
    "blow_down",
    "clear",
    "cloudy",
    "conventional_mine",
    "cultivation",
    "habitation",
    "haze",
    "partly_cloudy",
    "primary",
    "road",
    "selective_logging",
    "slash_burn",
    "water",
)

_PLANTS = ("complex", "frog_eye_leaf_spot", "healthy", "powdery_mildew", "rust", "scab")

_AT_LEAST_ONE: dict[str, tuple[int, int | None]] = {"all": (1, None)}

_IMET = LabelColumn(column="attribute_ids", vocabulary="labels.csv")


def _grapheme_labels(roots: int) -> tuple[LabelColumn, ...]:
    return (
        LabelColumn(column="grapheme_root", kind="multiclass", vocabulary=roots, weight=2),
        LabelColumn(column="vowel_diacritic", kind="multiclass", vocabulary=11),
        LabelColumn(column="consonant_diacritic", kind="multiclass", vocabulary=7),
    )


_BENGALI = Competition(
    name="bengali",
    id="image_id",
    labels=_grapheme_labels(roots=168),
    columns=("grapheme",),
    images=ImageFiles(
        kind="parquet",
        train=".",
        test=(".",),
        files=("train_image_data_*.parquet", "test_image_data_*.parquet"),
        channels=1,
        shape=(137, 236),
    ),
    metric="macro_recall",
    submission=Submission(
        header=("row_id", "target"),
        rows=("consonant_diacritic", "grapheme_root", "vowel_diacritic"),
        blank=False,
    ),
)

# Rendered from fonts, see comp.image.graphemes.
_GRAPHEMES = _BENGALI.model_copy(
    update={
        "name": "graphemes",
        "labels": _grapheme_labels(roots=75),
        "columns": ("grapheme", "font"),
    }
)

_ENTRIES = (
    Competition(
        name="imet2019",
        labels=(_IMET,),
        limits={"culture": (0, 3), "tag": (1, 8)},
        metric="f2_samples",
        submission=Submission(header=("id", "attribute_ids")),
    ),
    Competition(
        name="imet2020",
        labels=(_IMET,),
        metric="f1_micro",
        submission=Submission(header=("id", "attribute_ids")),
    ),
    Competition(
        name="planet",
        table="train_v2.csv",
        id="image_name",
        labels=(LabelColumn(column="tags", vocabulary=_PLANET),),
        images=ImageFiles(
            train="train-jpg",
            # As archives one folder and what was added to it; in notebooks v2 has everything.
            test=("test-jpg-v2", "test-jpg", "test-jpg-additional"),
            files=("{id}.jpg",),
        ),
        limits=_AT_LEAST_ONE,
        metric="f2_samples",
        submission=Submission(header=("image_name", "tags")),
    ),
    Competition(
        name="protein_atlas",
        id="Id",
        labels=(LabelColumn(column="Target", vocabulary=28),),
        images=ImageFiles(
            files=("{id}_red.png", "{id}_green.png", "{id}_blue.png", "{id}_yellow.png"),
            channels=4,
        ),
        metric="f1_macro",
        submission=Submission(header=("Id", "Predicted")),
    ),
    Competition(
        name="plant_pathology",
        id="image",
        labels=(LabelColumn(column="labels", vocabulary=_PLANTS),),
        images=ImageFiles(train="train_images", test=("test_images",), files=("{id}",)),
        limits=_AT_LEAST_ONE,
        metric="f1_samples",
        submission=Submission(header=("image", "labels")),
    ),
    _BENGALI,
    _GRAPHEMES,
    Competition(
        name="emoji",
        labels=(_IMET,),
        columns=("base",),
        group="base",
        metric="f2_samples",
        submission=Submission(header=("id", "attribute_ids")),
    ),
)

COMPETITIONS: dict[str, Competition] = {entry.name: entry for entry in _ENTRIES}


def competition(name: str | Path) -> Competition:
    """A known competition by its name, or the entry in a YAML file.

    Raises:
        InputError: neither a known name nor a file; a file with an unknown key or a wrong value.
    """
    if str(name) in COMPETITIONS:
        return COMPETITIONS[str(name)]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = ", ".join(COMPETITIONS)
        raise InputError(f"competition {str(name)!r}: unknown; takes a YAML file or one of {known}")
    return parse_config(Competition, read_yaml(path), path)
