"""Bengali graphemes and fonts that draw them.

A grapheme is a root, a vowel sign or none, and a consonant sign or none. Numbers of vowel and
consonant signs are Bengali.AI's. The roots, consonants and frequent conjuncts, are fewer than its
168 and have numbers of their own.

Fonts lack some conjuncts and then show a consonant with a visible virama. Such a picture does not
change when a zero-width non-joiner, which forbids the conjunct, is put after the virama; that is
how it is found. Fonts are shaped by Raqm, which Pillow's wheels have.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont, ImageOps, features

from comp.core.errors import InputError

SHAPE = (137, 236)  # height, width in pixels, as in Bengali.AI's data

_CONSONANTS = "ক খ গ ঘ ঙ চ ছ জ ঝ ঞ ট ঠ ড ঢ ণ ত থ দ ধ ন প ফ ব ভ ম য র ল শ ষ স হ ড় ঢ় য়"
_CONJUNCTS = (
    "ক্ক ক্ট ক্ত ক্ল ক্ষ ক্স গ্ধ গ্ন গ্ল ঙ্ক ঙ্গ চ্চ চ্ছ জ্জ জ্ঞ ঞ্চ ঞ্জ ট্ট ণ্ট ণ্ড ত্ত ত্ন ত্ম দ্দ দ্ধ দ্ব "
    "ন্ট ন্ত ন্দ ন্ধ প্ত ব্দ ম্প ম্ব ল্ল শ্চ ষ্ট ষ্ণ স্ত স্থ"
)
ROOTS = (*_CONSONANTS.split(), *_CONJUNCTS.split())
VOWELS = ("", "া", "ি", "ী", "ু", "ূ", "ৃ", "ে", "ৈ", "ো", "ৌ")
# What stands before the root, after it, and after the vowel.
CONSONANTS = (
    ("", "", ""),
    ("", "", "ঁ"),
    ("র্", "", ""),
    ("র্", "্য", ""),
    ("", "্য", ""),
    ("", "্র", ""),
    ("", "্র্য", ""),
)
HEADS = ("grapheme_root", "vowel_diacritic", "consonant_diacritic")
WIDTHS = (len(ROOTS), len(VOWELS), len(CONSONANTS))

_VIRAMA, _NON_JOINER, _UNASSIGNED = "\u09cd", "\u200c", "\U0010fffd"
_FONT_SIZE = 110  # pixels: about the size at which a grapheme fills the picture
_COMPARED_SIZE = 32  # enough to see whether two are the same, in a fifth of the time


@dataclass(frozen=True)
class Grapheme:
    """A grapheme.

    Attributes:
        classes: its three numbers, in the order of `HEADS`.
    """

    classes: tuple[int, int, int]

    @property
    def text(self) -> str:
        """As it is written."""
        return self._written(VOWELS[self.classes[1]])

    @property
    def stem(self) -> str:
        """The same without its vowel sign."""
        return self._written("")

    def _written(self, vowel: str) -> str:
        before, after, last = CONSONANTS[self.classes[2]]
        return before + ROOTS[self.classes[0]] + after + vowel + last


def all_graphemes() -> list[Grapheme]:
    """Every root with every vowel and consonant sign, but for texts read in two ways."""
    found = [Grapheme(each) for each in product(*map(range, WIDTHS))]
    texts = Counter(each.text for each in found)
    return [each for each in found if texts[each.text] == 1]


class Renderer:
    """A font that draws graphemes.

    Attributes:
        name: of the font's file, without its suffix.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises InputError for a file that is no font, or one without a Bengali letter."""
        if not features.check("raqm"):
            raise InputError("Pillow: built without Raqm, expected it, as in Pillow's wheels")
        self.name = Path(path).stem
        try:
            self._font, self._small = (
                ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.RAQM)
                for size in (_FONT_SIZE, _COMPARED_SIZE)
            )
        except OSError as error:
            raise InputError(f"{path}: not a font: {error}") from None
        missing = self._ink(_UNASSIGNED)
        parts = (*ROOTS, *VOWELS, *("".join(signs) for signs in CONSONANTS))
        for letter in sorted(set("".join(parts))):
            if self._ink(letter) == missing:
                raise InputError(f"{path}: no letter U+{ord(letter):04X}, expected a Bengali font")

    def whole(self, graphemes: Sequence[Grapheme]) -> list[Grapheme]:
        """Those that the font shows without a visible virama, and unlike all others."""
        # Without the vowel sign: the non-joiner would also move one that stands on the left.
        stems = {each.stem for each in graphemes}
        broken = {stem for stem in stems if self.broken(stem)}
        shown = [each for each in graphemes if each.stem not in broken]
        inks = [self._ink(each.text) for each in shown]
        times = Counter(inks)
        return [each for each, ink in zip(shown, inks) if times[ink] == 1]

    def broken(self, text: str) -> bool:
        """Whether a virama of the text is visible."""
        places = [i for i, letter in enumerate(text, start=1) if letter == _VIRAMA]
        shown = self._ink(text)
        return any(self._ink(text[:i] + _NON_JOINER + text[i:]) == shown for i in places)

    def _ink(self, text: str) -> tuple[tuple[int, int], bytes]:
        """What is seen of a text, to be compared: size and grey values."""
        mask = self._small.getmask(text, mode="L")
        return mask.size, bytes(mask)

    def draw(self, text: str, rng: np.random.Generator) -> np.ndarray:
        """(137, 236) uint8, dark on white, in a size, place, slant and turn drawn at random."""
        mask = self._font.getmask(text, mode="L")
        glyph = Image.frombytes("L", mask.size, bytes(mask))
        glyph = ImageOps.expand(glyph, 2)  # so that edges on the box are smooth too
        width, height = glyph.size
        turn, slant = rng.uniform(-0.12, 0.12), rng.uniform(-0.25, 0.25)  # radians, tangent
        cos, sin = np.cos(turn), np.sin(turn)
        forth = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, slant], [0, 1]])
        extent = np.abs(forth) @ np.array([width, height])  # of the turned box
        frame = np.array(SHAPE[::-1])
        scale = rng.uniform(0.55, 0.9) * (frame / extent).min()
        slack = frame - scale * extent
        centre = frame / 2 + slack * rng.uniform(-0.4, 0.4, 2)
        back = np.linalg.inv(scale * forth)  # Pillow asks where each pixel comes from
        start = np.array([width, height]) / 2 - back @ centre
        data = (*back[0], start[0], *back[1], start[1])
        how = Image.Transform.AFFINE, tuple(map(float, data)), Image.Resampling.BILINEAR
        darkness = rng.uniform(0.75, 1.0)
        ink_there = np.asarray(glyph.transform(SHAPE[::-1], *how), np.float32)
        return (255 - darkness * ink_there).round().astype(np.uint8)
