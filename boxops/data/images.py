"""Image files as detectors see them: upright, RGB, 8 bits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

File = str | Path | IO[bytes]
# How many pixels of the shorter and the longer side are of use
Enough = tuple[float, float]

# What turns the stored image upright, by EXIF's orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


class Header(NamedTuple):
    """What a file says before its pixels."""

    size: tuple[int, int]  # width and height, upright
    orientation: int  # EXIF's, 1 to 8, of the pixels as stored


def read_image(file: File, enough: Enough | None = None) -> Image.Image:
    """The image as a viewer shows it: turned as EXIF says, RGB, 8 bits.

    16 bits become 8 by their upper byte, as in OpenCV and torchvision, whatever values the image has: those of a camera
    of 12 bits are dark unless they were scaled, and a warning says so. Floating values are in 0..1, as torchvision's.
    Transparency is dropped, as in both; of several pages or frames the first is read; CMYK is converted without its
    profile. An orientation that a PNG file has after its pixels is not seen.

    Args:
        enough: (shorter, longer) side in pixels that are of use: a larger image is halved as often as it keeps one of
            them, and is never in memory in its full size if it is a JPEG.

    Raises:
        ValueError: it cannot be decoded, or is of values without a known range.
    """
    return decode(file, enough)[0]


def image_size(file: File) -> tuple[int, int]:
    """Width and height as :func:`read_image` gives them, from the file's header. ValueError where it has none."""
    return read_header(file).size


def read_header(file: File) -> Header:
    with _open(file) as image:
        return _header(image)


def decode(file: File, enough: Enough | None = None) -> tuple[Image.Image, Header]:
    """:func:`read_image`, and the header with the size that the image has in full."""
    with _open(file) as image:
        header = _header(image)
        halved = factor(header.size, enough)
        full = image.width
        if halved > 1:
            image.draft(None, (image.width // halved, image.height // halved))  # by the decoder, in JPEG alone
        drafted = round(full / image.width)
        image.load()
        turn = TURNS.get(_orientation(image))  # TIFF files are upright by now
        image = _to_rgb(image)
        if halved > drafted:
            image = image.reduce(halved // drafted)
    return image if turn is None else image.transpose(turn), header


def factor(size: tuple[int, int], enough: Enough | None) -> int:
    """The power of two by which an image of this size is read smaller."""
    if enough is None:
        return 1
    scale = max(1.0, min(size) / enough[0], max(size) / enough[1])
    return 1 << int(math.log2(scale))


@contextmanager
def _open(file: File) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise ValueError(f"expected an image within PIL.Image.MAX_IMAGE_PIXELS: {error}") from error
    except _Unknown:
        raise
    except Exception as error:  # PIL passes on whatever its decoders raise
        raise ValueError(f"expected an image, got {type(error).__name__}: {error}") from error


class _Unknown(ValueError):
    """The values of an image have no range that we know."""


def _header(image: Any) -> Header:
    orientation = _orientation(image)
    width, height = image.size
    if hasattr(image, "tag_v2"):  # TIFF, of which some versions of PIL give the upright size here
        width, height = image.tag_v2[Base.ImageWidth], image.tag_v2[Base.ImageLength]
    return Header((height, width) if orientation in SIDEWAYS else (width, height), orientation)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # broken EXIF: as if there were none, as viewers do
        value = Image.Image.getexif(image).get(Base.Orientation)  # PNG's own getexif would decode the image
        if value in TURNS:
            return int(value)
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)  # PIL warns of it
    if image.mode == "F":
        pixels = np.asarray(image)
        if not ((pixels > -0.5 / 255) & (pixels < 1 + 0.5 / 255)).all():
            raise _Unknown(f"expected floating values in 0..1, got {pixels.min():g} to {pixels.max():g}")
        image = Image.fromarray(np.round(pixels * 255).astype(np.uint8))
    elif image.mode.startswith("I"):
        image = Image.fromarray(_upper_byte(image))
    return image if image.mode == "RGB" else image.convert("RGB")


def _upper_byte(image: Any) -> np.ndarray:
    """Of integers of 16 bits, or of 32 whose upper half is empty."""
    pixels = np.asarray(image)
    low, high = int(pixels.min()), int(pixels.max())
    tags = getattr(image, "tag_v2", {})
    bits = 12 if tags.get(Base.BitsPerSample) == (12,) else 16
    if low < 0 or high >= 1 << bits:
        raise _Unknown(f"expected integers in 0..{(1 << bits) - 1}, got {low} to {high}")
    if 0 < high < 1 << (bits - 4):
        warnings.warn(
            f"an image of {bits} bits has no value above {high}, and is almost black in 8 bits; scale it to "
            f"0..{(1 << bits) - 1}, or save it in 8 bits",
            stacklevel=2,
        )
    upper = (pixels >> (bits - 8)).astype(np.uint8)
    return ~upper if tags.get(Base.PhotometricInterpretation) == 0 else upper  # white is 0
