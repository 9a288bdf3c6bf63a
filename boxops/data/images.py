"""Image files as detectors see them: RGB, 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image


def read_image(file: str | Path | IO[bytes]) -> Image.Image:
    """The image in RGB. Raises ValueError where it cannot be decoded."""
    return _open(file, decode=True).convert("RGB")


def image_size(file: str | Path | IO[bytes]) -> tuple[int, int]:
    """Width and height, from the file's header."""
    return _open(file, decode=False).size


def _open(file: str | Path | IO[bytes], decode: bool) -> Image.Image:
    try:
        with Image.open(file) as image:
            if decode:
                image.load()
            return image
    except Exception as error:  # PIL passes on whatever its decoders raise
        raise ValueError(f"expected an image, got {type(error).__name__}: {error}") from error
