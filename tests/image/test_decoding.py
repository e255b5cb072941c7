"""Image files of every kind to uint8, and files that are not what they should be."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from comp.core.errors import InputError
from comp.image.decoding import Header, read_header, read_image, shrunk_shape


def picture(height=40, width=60, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width):
    """A gradient, which JPEG keeps within a few grey values."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, rows * 0 + 90], 2).astype(
        np.uint8
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_come_back_as_they_were(tmp_path, suffix, channels):
    path, array = tmp_path / f"a.{suffix}", picture(channels=channels)
    Image.fromarray(array).save(path)
    found = read_image(path, channels)
    assert found.dtype == np.uint8
    assert np.array_equal(found, array.reshape(40, 60, channels))
    assert read_header(path) == Header(40, 60, "grey" if channels == 1 else "colour")


def test_greyscale_is_repeated_and_colour_becomes_grey(tmp_path):
    path, grey = tmp_path / "grey.png", picture(channels=1)
    Image.fromarray(grey).save(path)
    assert np.array_equal(read_image(path, 3), np.repeat(grey[:, :, None], 3, axis=2))
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(path)
    assert np.array_equal(read_image(path, 1)[:, :, 0], grey)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    path = tmp_path / f"wide.{suffix}"
    wide = np.linspace(0, 65535, 40 * 60).astype(np.uint16).reshape(40, 60)
    Image.fromarray(wide).save(path)
    assert read_header(path).kind == "16-bit"
    found = read_image(path, 3)
    assert np.array_equal(found[:, :, 1], wide // 256)
    assert found.min() == 0 and found.max() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path, mode):
    path = tmp_path / "a.png"
    colour = Image.new("RGBA", (6, 4), (200, 0, 0, 255))
    colour.paste((0, 0, 0, 0), (0, 0, 3, 4))
    (colour.quantize(4) if mode == "P" else colour.convert(mode)).save(path)
    assert read_header(path).kind == "alpha"
    found = read_image(path, 3)
    assert (found[:, :3] == 255).all()
    expected = [200, 0, 0] if mode != "LA" else [59] * 3  # grey: 0.299 of the red
    assert np.abs(found[:, 3:].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_as_its_orientation_says(tmp_path, suffix, orientation):
    path, image = tmp_path / f"a.{suffix}", Image.fromarray(smooth(40, 60))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=95)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert expected.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    assert np.array_equal(read_image(path, 3), expected)
    assert read_header(path) == Header(*expected.shape[:2], "colour")


def test_16_bit_and_transparent_pictures_are_turned_too(tmp_path):
    wide = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 20
    clear = np.concatenate([picture(), np.full((40, 60, 1), 255, np.uint8)], axis=2)
    for array, expected in ((wide, wide[:, :, None] // 256), (clear, clear[:, :, :3])):
        image = Image.fromarray(array)
        exif = image.getexif()
        exif[0x0112] = 6  # to be turned clockwise by a quarter
        image.save(tmp_path / "a.png", exif=exif)
        found = read_image(tmp_path / "a.png", 3)
        assert np.array_equal(found, np.broadcast_to(np.rot90(expected, -1), (60, 40, 3)))


def test_a_large_jpeg_is_decoded_small_where_that_suffices(tmp_path):
    path, array = tmp_path / "a.jpg", smooth(400, 640)
    Image.fromarray(array).save(path, quality=95)
    assert read_image(path, 3).shape == (400, 640, 3)
    small = read_image(path, 3, least=(90, 100))
    assert small.shape == (100, 160, 3)
    assert np.abs(small.astype(int) - array[2::4, 2::4]).max() <= 6
    assert read_image(path, 3, least=(101, 100)).shape == (200, 320, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 3, least=(90, 100)).shape == (400, 640, 3)


def test_least_counts_height_and_width_as_they_stand(tmp_path):
    path, image = tmp_path / "a.jpg", Image.fromarray(smooth(400, 640))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert read_image(path, 3, least=(160, 100)).shape == (160, 100, 3)
    assert read_image(path, 3, least=(161, 100)).shape == (320, 200, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_shrinking_smooths_and_keeps_the_shape(tmp_path, suffix):
    path, array = tmp_path / f"a.{suffix}", smooth(400, 642)
    Image.fromarray(array).save(path, quality=95)
    found = read_image(path, 3, side=50)
    assert found.shape == (50, 80, 3) and shrunk_shape(400, 642, 50) == (50, 80)
    means = array[:, 1:641].reshape(50, 8, 80, 8, 3).mean(axis=(1, 3))
    assert np.abs(found - means).max() <= 6
    assert np.array_equal(read_image(path, 3, least=(10, 10), side=50), found)
    for side in (400, 500):
        assert read_image(path, 3, side=side).shape == (400, 642, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "gif"])
@pytest.mark.parametrize("read", [read_header, lambda path: read_image(path, 3)])
def test_a_truncated_file_is_refused(tmp_path, suffix, read):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(picture(100, 100)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: unreadable image: ")
    assert "truncated" in str(error.value) and "\n" not in str(error.value)


def test_the_end_of_an_exif_thumbnail_is_not_that_of_the_file(tmp_path):
    thumbnail, path = io.BytesIO(), tmp_path / "cut.jpg"
    Image.fromarray(picture(20, 30)).save(thumbnail, "jpeg")
    image = Image.fromarray(picture(100, 100))
    image.save(path, exif=image.getexif().tobytes() + thumbnail.getvalue())
    content = path.read_bytes()
    assert content.count(b"\xff\xd9") == 2 and read_header(path) == Header(100, 100, "colour")
    scan = content.rindex(b"\xff\xda")
    for length in (scan + 20, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="unreadable image: .*truncated"):
            read_header(path)


@pytest.mark.parametrize("read", [read_header, lambda path: read_image(path, 1)])
def test_files_that_are_no_images_are_refused(tmp_path, read):
    path = tmp_path / "a.jpg"
    with pytest.raises(InputError, match=r"a\.jpg: no such file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.jpg: zero bytes, expected an image"):
        read(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"a\.jpg: not an image in a known format"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"a\.jpg: unreadable image: .*directory"):
        read(path)


def test_values_beyond_16_bits_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((4, 5), 70_000, np.int32)).save(path)
    with pytest.raises(InputError, match=r"values 70000\.\.70000, expected 8 or 16 bits"):
        read_image(path, 1)
    Image.fromarray(np.full((4, 5), 0.5, np.float32)).save(path)
    for read in (read_header, lambda path: read_image(path, 1)):
        with pytest.raises(InputError, match=r"floating point, expected 8 or 16 bits"):
            read(path)


def test_trailing_bytes_after_a_whole_jpeg_pass(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_header(path) == Header(40, 60, "colour")
