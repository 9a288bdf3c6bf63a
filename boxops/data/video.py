"""Video files, one frame at a time, read and written by PyAV: ``pip install av``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from PIL import Image

TICK = Fraction(1, 1000)  # the second's parts that times are written in
# Containers with their pictures inside; playlists (HLS, DASH, concat) would open what a stranger's file names.
FORMATS = {"format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf"}


def pyav() -> Any:
    """The module. Raises ImportError, with what to install."""
    try:
        import av
    except ImportError as error:
        raise ImportError("videos are read by PyAV, which is missing: pip install av") from error
    return av


def frames(file: str | Path | IO[bytes], every: int = 1) -> Iterator[tuple[int, float, Image.Image]]:
    """The frames 0, every, 2 every, ... as (number, seconds, image in RGB), turned upright as players do.

    Raises:
        ValueError: the file is no video, has no frame, or cannot be decoded from some frame on.
        ImportError: PyAV is missing.
    """
    av = pyav()
    number = -1
    try:
        with av.open(file if hasattr(file, "read") else str(file), options=FORMATS) as container:
            if not container.streams.video:
                raise ValueError("expected a video, got a file without one")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number % every == 0:
                    image = frame.to_image()
                    turned = getattr(frame, "rotation", 0)
                    seconds = number / 25 if frame.time is None else float(frame.time)
                    yield number, seconds, image.rotate(turned, expand=True) if turned else image
    except av.error.FFmpegError as error:
        raise ValueError(f"expected a video, got after {number + 1} frames: {error}") from error
    if number < 0:
        raise ValueError("expected a video, got one without frames")


def comment(file: str | Path) -> str | None:
    """What :func:`writer` was told to note in the file."""
    with pyav().open(str(file), options=FORMATS) as container:
        text: str | None = container.metadata.get("comment")
    return text


@contextmanager
def writer(file: IO[bytes], comment: str = "") -> Iterator[Callable[[Image.Image, float], None]]:
    """A function that adds an image, to be seen from that second on, to an mp4 (H.264, no sound).

    All get the size of the first, whose sides are made even. The file must be one that can be sought in.
    """
    av = pyav()
    with av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = comment
        stream, last = None, -1

        def add(image: Image.Image, seconds: float) -> None:
            nonlocal stream, last
            if stream is None:
                stream = container.add_stream("libx264", options={"crf": "20"})
                stream.width, stream.height = (side + side % 2 for side in image.size)
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = TICK
            if image.size != (stream.width, stream.height):
                image = image.resize((stream.width, stream.height))
            frame = av.VideoFrame.from_image(image)
            frame.pts = last = max(last + 1, round(seconds / TICK))  # times that do not rise cannot be written
            frame.time_base = TICK
            container.mux(stream.encode(frame))

        yield add
        if stream is not None:
            container.mux(stream.encode())
