"""What `boxops detect` reads: files, folders, patterns and addresses. Imports no torch."""

from __future__ import annotations

import glob
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from boxops.cli.common import UserError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv")
LIMITS = {False: 256 << 20, True: 4 << 30}  # bytes of an image and of a video that are downloaded
PATIENCE = 30.0, 1800.0  # seconds until a server says something, and for the whole of a download


class Unreadable(Exception):
    """An input that nothing can be found in, and why, in one line."""

    def __init__(self, error: Exception) -> None:
        super().__init__(" ".join(str(error).split()) or type(error).__name__)


@dataclass(frozen=True)
class Input:
    """An image or a video to look at."""

    name: str  # as messages and the JSON have it: the path or the address
    path: Path  # of an address, only its last parts

    @property
    def video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS

    @property
    def remote(self) -> bool:
        return re.match("https?://", self.name, re.IGNORECASE) is not None

    def frames(self, every: int = 1) -> Iterator[tuple[dict[str, Any], Any]]:
        """The image and {}, or each frame of a video that ``every`` leaves, with its ``frame`` and ``time`` in seconds.

        Raises:
            Unreadable: it cannot be read, or no further.
        """
        from boxops.data import video
        from boxops.data.images import read_image

        try:
            with self._open() as file:
                if not self.video:
                    yield {}, read_image(file)
                    return
                for number, seconds, image in video.frames(file, every):
                    yield {"frame": number, "time": round(seconds, 3)}, image
        except (OSError, ValueError) as error:
            raise Unreadable(error) from error

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The file, or what is downloaded, until this is left: an image in memory, a video on the disk."""
        if not self.remote:
            yield self.path
            return
        with tempfile.SpooledTemporaryFile(max_size=LIMITS[False]) as file:
            _download(self.name, file, LIMITS[self.video])
            file.seek(0)
            yield file


def find_inputs(words: list[str]) -> list[Input]:
    """Files as they are given; of folders the images in them; of patterns the images and videos that fit; addresses."""
    return [found for word in words for found in _find(word)]


def _find(word: str) -> list[Input]:
    scheme = re.match(r"([a-z][a-z0-9+.-]+)://", word, re.IGNORECASE)
    if scheme is not None:
        parts = urlsplit(word)
        if parts.scheme in ("http", "https") and parts.netloc:
            folder, _, name = unquote(parts.path).strip("/").replace("\\", "/").rpartition("/")
            safe = re.sub(r'[<>:"|?*\x00-\x1f]', "_", name)[-100:]
            host = parts.hostname or ""
            return [Input(word, Path(Path(folder).name or host, safe or host))]
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise UserError(f"{word}: expected an address of http, https or file, got another")
        word = urllib.request.url2pathname(parts.path)
    path = Path(word)
    if path.is_dir():
        inside = sorted(path.iterdir())
        images = [Input(str(file), file) for file in inside if file.suffix.lower() in PICTURES]
        videos = [file.name for file in inside if file.suffix.lower() in VIDEOS]
        if not images:
            raise UserError(f"{path}: expected a folder with images, got none of {', '.join(PICTURES)}")
        if videos:
            print(f"{path}: {len(videos)} videos left out, {videos[0]} for one: name those to look at", file=sys.stderr)
        return images
    if path.exists():
        return [Input(str(path), path)]
    if not glob.has_magic(word):
        raise UserError(f"{path}: expected an image or a folder, got no such file")
    fitting = [Path(found) for found in sorted(glob.glob(word, recursive=True))]
    files = [file for file in fitting if file.suffix.lower() in PICTURES + VIDEOS and file.is_file()]
    if not files:
        raise UserError(f"{word}: expected a pattern that fits images or videos, got {len(fitting)} other files")
    return [Input(str(file), file) for file in files]


def _download(url: str, file: IO[bytes], limit: int) -> None:
    opener = urllib.request.OpenerDirector()  # of no file:// and ftp://, where a server might redirect to
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
                    urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler,
                    urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler):  # fmt: skip
        opener.add_handler(handler())
    end, size = time.monotonic() + PATIENCE[1], 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "boxops"})
        with opener.open(request, timeout=PATIENCE[0]) as answer:
            while chunk := answer.read(1 << 16):
                size += len(chunk)
                if size > limit:
                    raise ValueError(f"expected a file of at most {limit >> 20} MiB, got a larger one")
                if time.monotonic() > end:
                    raise TimeoutError(f"expected it within {PATIENCE[1] / 60:g} minutes, got {size} bytes")
                file.write(chunk)
            expected = answer.headers.get("Content-Length")
            if expected is not None and expected.isdigit() and size < int(expected):
                raise OSError(f"expected {expected} bytes, got {size}")
    except HTTPException as error:
        raise OSError(f"expected an answer of HTTP, got {type(error).__name__}: {error}") from error
