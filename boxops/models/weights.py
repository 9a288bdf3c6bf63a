"""Where weights come from: torchvision's names of them, and addresses, whose files are kept."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, TypeVar
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
import torchvision
from torchvision.models import WeightsEnum

Weights: TypeAlias = str | Path | WeightsEnum | None
T = TypeVar("T")
NAME = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*")
# sha256 in a file's name begins so, by torchvision's convention; eight digits like 20240131 are a date
HASH = re.compile(r"-(?!(?:19|20)\d{6}\.)([a-f0-9]{8,64})\.")
SILENCE = 60.0  # seconds without an answer


def torchvision_name(model: str) -> str:
    """How torchvision spells the name of a detector: fasterrcnn_resnet50_fpn."""
    return model.replace("_rcnn", "rcnn")


def named_weights(model: str) -> type[WeightsEnum] | None:
    """torchvision's weights of a detector or a backbone, if it has that model."""
    name = torchvision_name(model)
    return torchvision.models.get_model_weights(name) if name in torchvision.models.list_models() else None


def address(model: str, weights: Weights) -> str | Path | None:
    """The file or the address of weights; where they are a name, torchvision's address of it.

    Args:
        model: a detector or a backbone.
        weights: None, a file, an address, a member of torchvision's enum for that model, or the member's name:
            "DEFAULT", "COCO_V1", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1". (Of a file with such a name write a Path.)

    Raises:
        ValueError: the model has no weights by name, or none of this name.
    """
    name = repr(weights) if isinstance(weights, WeightsEnum) else weights
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return name
    known = named_weights(model)
    if known is None:
        having = ", ".join(torchvision.models.list_models(module=torchvision.models.detection))
        raise ValueError(f"expected a file or a URL of weights for {model}, got {name}: by name only {having} have any")
    kind, _, member = name.rpartition(".")
    if kind not in ("", known.__name__) or member not in known.__members__:
        raise ValueError(f"expected {known.__name__} for {model}: {', '.join(known.__members__)}; got {name}")
    url: str = known[member].url
    return url


def categories(model: str) -> list[str]:
    """What the labels of a detector's weights by name mean: label 0 is the background. [] where that is not known."""
    known = named_weights(model)
    return [] if known is None else list(known["DEFAULT"].meta["categories"] or [])  # type: ignore[misc]


def check_hash(file: Path, name: str, source: object) -> None:
    """Raises ValueError if the name holds a hash that is not the file's."""
    expected = HASH.search(name)
    if expected is None:
        return
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(expected[1]):
        raise ValueError(f'{source}: invalid hash value (expected "{expected[1]}", got "{digest.hexdigest()}")')


def fetch(url: str, load: Callable[[Path], T]) -> T:
    """What ``load`` makes of the file at an address, which is kept in ``checkpoints/boxops`` of torch.hub's folder.

    An address has a file of its own there. A file is kept only once it is whole, has the hash that its name says and
    was loaded; one that is no longer so is fetched again. Where torchvision has kept a file with that name and hash, it
    is read. Processes that fetch the same at once do not disturb each other.

    Raises:
        OSError: there is no such address, no network, or the connection broke.
        ValueError: what came has another hash, or ``load`` raises it.
    """
    name = unquote(urlsplit(url).path).rpartition("/")[2] or "weights"
    folder = Path(torch.hub.get_dir(), "checkpoints")
    own = folder / "boxops" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    for kept in [folder / name, own] if HASH.search(name) else [own]:
        if kept.is_file():
            try:
                check_hash(kept, name, url)
                return load(kept)
            except ValueError:
                continue  # it is not whole
    own.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=own.parent) as aside:
        part = Path(aside, "part")
        download(url, part)
        check_hash(part, name, url)
        loaded = load(part)
        os.replace(part, own)
    return loaded


def download(url: str, file: Path) -> None:
    """Raises OSError with the address if not all of it comes."""
    from rich.console import Console
    from rich.progress import wrap_file

    try:
        with (
            urlopen(Request(url, headers={"User-Agent": "boxops"}), timeout=SILENCE) as answer,
            open(file, "wb") as out,
        ):
            length = int(answer.headers["Content-Length"] or 0)
            shown: dict[str, Any] = {"console": Console(stderr=True), "disable": not (length and sys.stderr.isatty())}
            with wrap_file(answer, length, description=url.rpartition("/")[2], **shown) as reader:
                shutil.copyfileobj(reader, out)
            if length and out.tell() != length:
                raise ConnectionError(f"the first {out.tell()} of {length} bytes")
    except (OSError, HTTPException) as error:
        reason = error.reason if type(error) is URLError else error
        raise OSError(f"{url}: expected a file to download, got: {str(reason) or type(error).__name__}") from error
