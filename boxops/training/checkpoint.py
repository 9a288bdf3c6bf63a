"""Checkpoints: whole or not at all on the disk, and plain enough to be read with ``weights_only=True``."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from boxops.models.checkpoint import read


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write that takes the place of ``path`` when all is on the disk, whenever the process is killed.

    Where that fails nothing of it is left, and ``path`` is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, mode, newline=None if "b" in mode else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def append(path: Path, data: bytes, sync: bool = False) -> None:
    """Adds all of the data to a file, or nothing where there is no room (OSError); ``sync`` waits for the disk."""
    with open(path, "ab", buffering=0) as file:
        end, left = file.seek(0, os.SEEK_END), memoryview(data)
        try:
            while left:  # a disk takes what it has room for, and says the next time that it is full
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise
        if sync:
            os.fsync(file.fileno())


def save(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raises OSError where it cannot be written."""
    with atomic(path) as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's writer hides what the file said
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint of `boxops train`: ``model`` (its config), ``classes``, ``category_ids``, ``weights``, ``training``.

    Raises:
        ValueError: the file is corrupt or another kind of checkpoint.
        OSError: it is missing or unreadable.
    """
    checkpoint = read(path)
    if checkpoint.get("boxops") != 1 or not {"model", "classes", "weights"} <= checkpoint.keys():
        keys = ", ".join(map(str, list(checkpoint)[:5]))
        raise ValueError(f"{path}: expected a checkpoint of boxops train, got the keys {keys}")
    return checkpoint


# Options that make a builder open a file or an address. A checkpoint's own weights replace all that they would give.
OPENING = ("weights", "backbone_weights", "fine_tune", "pretrained", "cfg")


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[Any, dict[str, Any]]:
    """The model of a checkpoint, in evaluation mode, and the checkpoint.

    A checkpoint may come from anyone: its options make nothing be opened or downloaded, and the model is built only if
    the checkpoint has weights for all of it.

    Raises:
        ValueError: the file is corrupt, another kind of checkpoint, or its options and weights are of no model here.
        OSError: it is missing or unreadable.
    """
    from boxops import models

    checkpoint = load(path)
    config, classes, weights = (checkpoint[key] for key in ("model", "classes", "weights"))
    create: Callable[..., Any] = models.create
    try:
        if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"expected classes to be names, got {reprlib.repr(classes)}")
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise ValueError(f"expected weights to be tensors by name, got {reprlib.repr(weights)}")
        if not isinstance(config, dict) or not isinstance(config.get("name"), str):
            raise ValueError(f"expected model to be a name and options, got {reprlib.repr(config)}")
        options = {key: value for key, value in config.items() if key not in OPENING}
        _check_words(options)
        with torch.device("meta"):  # takes no memory, whatever sizes the options say
            wanted = sum(value.numel() for value in create(**options).state_dict().values())
        given = sum(value.numel() for value in weights.values())
        if wanted > 2 * given:
            raise ValueError(f"expected weights of {wanted:.3g} numbers for {reprlib.repr(options)}, got {given:.3g}")
        model = create(**options)
        models.load_weights(model, weights)
    except Exception as error:  # whatever modules say of sizes that they cannot have
        raise ValueError(f"{path}: expected a checkpoint of a model of boxops, got: {error}") from error
    return model.to(device).eval(), checkpoint


def _check_words(options: Any) -> None:
    """Texts among a model's options are plain words: timm, for one, takes hf-hub:... and local-dir:... as names."""
    if isinstance(options, dict):
        options = [*options, *options.values()]
    if isinstance(options, list | tuple):
        for value in options:
            _check_words(value)
    elif isinstance(options, str) and re.search(r"[:/\\]", options):
        raise ValueError(f"expected options without files and addresses, got {options!r}")
