"""Image files to uint8 arrays, and what can be told of a file without decoding it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from comp.core.errors import InputError

# Bytes in which a file's end mark is looked for: few, as an EXIF thumbnail, which a JPEG has before
# its tables and pixels, ends with the same mark.
_TAIL = 256
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_EXIF_ORIENTATION = 0x0112
_PNG_EXIF = {"exif", "Raw profile type exif"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """What a file's header says of its image.

    Attributes:
        height, width: pixels.
        kind: "colour", "grey", "16-bit" or "alpha", as far as it changes how the image is read.
    """

    height: int
    width: int
    kind: str


def read_image(
    path: str | Path,
    channels: int,
    least: tuple[int, int] | None = None,
    side: int | None = None,
) -> np.ndarray:
    """Decode a file as 8-bit colour (3 channels) or grey (1 channel).

    Greyscale among colour is repeated in all channels, 16 bits a value are scaled to 8, and what is
    transparent lies on white. The picture stands as its EXIF orientation says.

    Args:
        path: any format that Pillow reads.
        channels: 3 or 1.
        least: height and width that suffice: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size
            as long as it stays that large, which takes a fraction of the time. Without effect
            where `side` is given, so that an image is the same whoever reads it.
        side: a larger image is shrunk to this short side, in pixels, and smoothed by it.

    Returns:
        (H, W, channels) uint8.

    Raises:
        InputError: no such file, truncated, or not an image of 8 or 16 bits.
    """
    with _opened(path) as image:
        width, height = image.size
        if side is not None:
            least = (2 * side, 2 * side)  # leaves the resize something to smooth
        if least is not None and image.format == "JPEG":
            image.draft(None, least if _quarter_turned(image) else least[::-1])
        image.load()
        turn = _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
        image = _converted(image, channels, path)
        if side is not None and side < min(width, height):
            height, width = shrunk_shape(height, width, side)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        array = np.asarray(image if turn is None else image.transpose(turn))
    return array if channels == 3 else array[:, :, None]


def read_header(path: str | Path) -> Header:
    """Size and kind of an image; its pixels are decoded unless the file ends as a whole one does.

    That is known of JPEG and PNG.

    Raises:
        InputError: no such file, zero bytes, truncated, or not an image of 8 or 16 bits.
    """
    with _opened(path) as image:
        mark = _END_MARKS.get(image.format or "")
        if mark is None or mark not in _tail(path):
            image.load()
        kind = _kind(image, path)
        height, width = image.height, image.width
        if _quarter_turned(image):
            height, width = width, height
        return Header(height, width, kind)


def shrunk_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width once the short side is at most `side`."""
    scale = min(1.0, side / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The open image; whatever goes wrong with it inside the block is an InputError."""
    try:
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        found = "zero bytes" if empty else "not an image in a known format"
        raise InputError(f"{path}: {found}, expected an image") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: unreadable image: {' '.join(str(error).split())}") from None


def _tail(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        return file.read()


def _quarter_turned(image: Image.Image) -> bool:
    """Whether height and width change places when the image is stood upright."""
    if image.format == "TIFF":
        return False  # Pillow turns it, and says so beforehand
    if image.format == "PNG" and not image.info.keys() & _PNG_EXIF:
        return False  # Pillow would decode the pixels to look for it behind them
    return image.getexif().get(_EXIF_ORIENTATION, 1) >= 5


def _kind(image: Image.Image, path: str | Path) -> str:
    if image.mode.startswith("I"):
        return "16-bit"
    if image.mode == "F":
        raise InputError(f"{path}: pixels are floating point, expected 8 or 16 bits")
    if image.has_transparency_data:
        return "alpha"
    return "grey" if image.mode in ("1", "L") else "colour"


def _converted(image: Image.Image, channels: int, path: str | Path) -> Image.Image:
    """The image in Pillow's mode RGB or L."""
    mode = "RGB" if channels == 3 else "L"
    kind = _kind(image, path)
    if kind == "16-bit":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise InputError(f"{path}: values {wide.min()}..{wide.max()}, expected 8 or 16 bits")
        image = Image.fromarray((wide.astype(np.uint16) >> 8).astype(np.uint8))
    elif kind == "alpha":
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)
