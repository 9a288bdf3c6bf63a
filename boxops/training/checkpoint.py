"""Checkpoints: whole or not at all on the disk, and plain enough to be read with ``weights_only=True``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from boxops.models.checkpoint import read


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write that takes the place of ``path`` when all is on the disk, whenever the process is killed."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, mode, newline=None if "b" in mode else "") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save(path: Path, checkpoint: dict[str, Any]) -> None:
    with atomic(path) as file:
        torch.save(checkpoint, file)


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
