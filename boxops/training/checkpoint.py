"""Checkpoints: whole or not at all on the disk, and plain enough to be read with ``weights_only=True``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

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


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[Any, dict[str, Any]]:
    """The model of a checkpoint, in evaluation mode, and the checkpoint."""
    from boxops import models

    checkpoint = load(path)
    create: Callable[..., Any] = models.create
    model = create(**checkpoint["model"])
    models.load_weights(model, checkpoint["weights"])
    return model.to(device).eval(), checkpoint
