"""What commands write: nothing is written over an input, nor unasked over a file of someone else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from boxops.cli.common import UserError
from boxops.cli.inputs import PICTURES, VIDEOS, Input

MARK = "boxops"  # begins Software in the EXIF of pictures, the comment of videos, the title of SVG
SOFTWARE = 0x0131


def place(inputs: list[Input], out: Path, several: bool) -> list[Path]:
    """The output of each input: ``out`` itself, or files in it, all of different names.

    In a folder an image is NAME.jpg, a video NAME.mp4; of images with one name the later ones are called FOLDER-NAME,
    and where that does not do, NAME-1, NAME-2, ...
    """
    suffix = out.suffix.lower()
    what = f"{len(inputs)} images" if several else "a video" if inputs[0].video else "an image"
    if not several and not out.is_dir() and suffix:
        expected = (".mp4",) if inputs[0].video else PICTURES
        if suffix not in expected:
            raise UserError(f"--out: expected {', '.join(expected)} or a folder for {what}, got {out}")
        return [out]
    if (several and suffix in PICTURES + VIDEOS and not out.is_dir()) or out.is_file():
        raise UserError(f"--out: expected a folder for {what}, got {out}")
    taken: set[str] = set()
    places = []
    for one in inputs:
        name = next(name for name in _names(one) if name.casefold() not in taken)
        taken.add(name.casefold())  # file systems may not tell x from X
        places.append(out / name)
    return places


def _names(one: Input) -> Iterator[str]:
    suffix, stem, folder = ".mp4" if one.video else ".jpg", one.path.stem, one.path.absolute().parent.name
    yield stem + suffix
    if folder:
        yield f"{folder}-{stem}{suffix}"
    number = 0
    while True:
        number += 1
        yield f"{stem}-{number}{suffix}"


def protect(outputs: Iterable[tuple[str, Path]], inputs: Iterable[str | Path | None], overwrite: bool) -> None:
    """Before anything is computed: UserError unless all outputs can be written and nothing is lost by it.

    Args:
        outputs: the options and the files.
        inputs: all that this command reads, addresses among them.
        overwrite: whether files that boxops did not make may be replaced; inputs may not.
    """
    read = {key for path in inputs if path is not None for key in _keys(Path(path))}
    written: set[Any] = set()
    strange: list[tuple[str, Path]] = []
    for option, path in outputs:
        keys = _keys(path)
        if read & keys:
            raise UserError(f"{option}: expected a file that is no input, got {path}, which would be lost")
        if written & keys:
            raise UserError(f"{option}: expected outputs of different names, got {path} twice")
        written |= keys
        if path.is_dir():
            raise UserError(f"{option}: expected a file, got the folder {path}")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"{option}: expected a folder to write to, got {folder}")
        if os.path.lexists(path) and not _ours(path):
            strange.append((option, path))
    if strange and not overwrite:
        option, path = strange[0]
        count = f"{len(strange)} such files" if len(strange) > 1 else "it"
        raise UserError(f"{option}: {path} exists and is not boxops' own; --overwrite replaces {count}")


def _keys(path: Path) -> set[Any]:
    """A path's real name, and what it is on the disk: hard links and other spellings of a file share that."""
    keys: set[Any] = {os.path.normcase(os.path.realpath(path))}
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return keys
    return keys | {(status.st_dev, status.st_ino)}


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _ours(path: Path) -> bool:
    """Whether boxops made the file; a picture or a video says so itself, JSON by its form."""
    try:
        if _is_video(path):
            from boxops.data.video import comment

            return (comment(path) or "").startswith(MARK)
        if path.suffix.lower() in PICTURES:
            from PIL import Image

            with Image.open(path) as image:
                return str(image.getexif().get(SOFTWARE)).startswith(MARK)
        if path.suffix.lower() == ".svg":
            return f"<dc:title>{MARK}</dc:title>".encode() in path.read_bytes()
        made = json.loads(path.read_bytes())
    except Exception:  # whatever foreign files make the decoders say
        return False
    if isinstance(made, dict):  # of evaluate, or of data anchors
        return not made.keys().isdisjoint({"box_AP", "mask_AP", "keypoint_AP", "VOC_AP", "average_IoU"})
    return isinstance(made, list) and all(
        isinstance(row, dict) and {"image", "detections"} <= row.keys() for row in made
    )


@contextmanager
def open_output(path: Path | None) -> Iterator[Callable[[Any, float], None]]:
    """``add(picture, seconds)`` writes a PIL image, or the next frame of a video; none is begun before that. All files
    are whole or not there, and marked as ours."""
    from boxops.data import video
    from boxops.training.checkpoint import atomic

    write: Callable[[Any, float], None] | None = None

    def add(picture: Any, seconds: float) -> None:
        nonlocal write
        assert path is not None
        if write is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(atomic(path))
            write = stack.enter_context(video.writer(file, MARK)) if _is_video(path) else partial(_save, path, file)
        write(picture, seconds)

    try:
        with ExitStack() as stack:
            yield add
    except OSError as error:
        raise UserError(f"{path}: {error}") from error


def _save(path: Path, file: IO[bytes], picture: Any, _: float) -> None:
    from PIL import Image

    quality = {} if path.suffix.lower() in (".tif", ".tiff") else {"quality": 92}
    picture.save(file, Image.registered_extensions()[path.suffix.lower()], exif=_exif(), **quality)


def _exif() -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif[SOFTWARE] = MARK
    return exif


@contextmanager
def figure_of(paths: Iterable[Path], size: tuple[float, float]) -> Iterator[Any]:
    """A figure of matplotlib to draw on, of so many inches, which is saved as these .png and .svg in the end."""
    import matplotlib
    from matplotlib.figure import Figure

    from boxops.training.checkpoint import atomic

    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": MARK}):  # equal figures, equal files
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = path.suffix.lower()[1:]
            marks: dict[str, Any] = (
                {"metadata": {"Title": MARK, "Date": None}} if kind == "svg" else {"pil_kwargs": {"exif": _exif()}}
            )
            with atomic(path) as file:
                figure.savefig(file, format=kind, dpi=130, **marks)


def save_json(value: Mapping[str, Any] | list[Any], path: Path) -> None:
    from boxops.training.checkpoint import atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write(json.dumps(value, indent=1).encode())
