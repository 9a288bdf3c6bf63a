"""Reading weights: from a file or a URL, of torchvision or of boxops, with errors that name what does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import Tensor, nn

from .weights import check_hash, fetch

State = Mapping[str, Tensor]
T = TypeVar("T")


def read(source: str | Path) -> dict[str, Any]:
    """A checkpoint as it was saved, on the CPU.

    Args:
        source: a file or a URL. Downloads are kept in torch.hub's folder, one file for each address. Where the name at
            an address ends in ``-HASH.pth``, as torchvision's do, the sha256 must begin with HASH. Of files that are
            not given as a URL (``file://`` is one) it is not checked: they may have been changed on purpose.

    Raises:
        ValueError: the file is corrupt, of another format or another hash, or holds more than tensors and plain values
            (it is read with ``weights_only=True``: nothing in it is executed).
        OSError: the file is missing or unreadable, or cannot be downloaded.
    """
    return fetched(source, lambda file: _load(file, source))


def fetched(source: str | Path, load: Callable[[Path], T]) -> T:
    """What ``load`` makes of a file, or of one that lies at an address; see :func:`read`."""
    address = str(source)
    if re.match(r"https?://", address):
        return fetch(address, load)
    if address.startswith("file://"):
        file = Path(url2pathname(urlsplit(address).path))
        check_hash(file, file.name, address)
        return load(file)
    return load(Path(source))


TORCH = b"PK\3\4"  # how torch's files begin


def is_checkpoint(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(len(TORCH)) == TORCH


FOREIGN = {  # how files begin that were meant to be something else
    b"<": "a web page, as of a login or an error",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}


def _load(file: Path, source: object) -> dict[str, Any]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a corrupt file makes zipfile, pickle or torch say
        with open(file, "rb") as opened:
            start = opened.read(64).lstrip()
        known = [what for mark, what in FOREIGN.items() if start.startswith(mark)]
        reason = (known or (str(error) or type(error).__name__).splitlines())[0]
        raise ValueError(f"{source}: expected a checkpoint of tensors and plain values, got: {reason}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{source}: expected a dict of weights, got {type(loaded).__name__}")
    return loaded


def state_of(checkpoint: Mapping[str, Any], source: object) -> State:
    """The weights in a checkpoint: the whole of it, or those in boxops' own, or where others put them."""
    for key in ("weights", "model", "state_dict"):
        if isinstance(checkpoint.get(key), Mapping):
            state: State = checkpoint[key]
            if all(isinstance(value, Tensor) for value in state.values()):
                return state
    if not checkpoint or not all(isinstance(value, Tensor) for value in checkpoint.values()):
        raise ValueError(f"{source}: expected a dict of weights, got the keys {_some(list(map(str, checkpoint)))}")
    return checkpoint


def load_weights(
    model: nn.Module, weights: State | str | Path, *, fine_tune: bool = False, source: object = None
) -> None:
    """Loads weights into a model, all or nothing.

    Args:
        model: its ``legacy_names``, (pattern, replacement) pairs, rename the keys of older checkpoints.
        weights: a state dict, a file or a URL.
        fine_tune: leave tensors of another shape as they are: the heads of another number of classes.
        source: of a state dict, what errors call it.

    Raises:
        ValueError: says which keys are missing, left over, or of another shape; the model is then as it was.
    """
    source = source or (weights if isinstance(weights, str | Path) else "weights")
    given = dict(state_of(read(weights), source) if isinstance(weights, str | Path) else weights)
    for pattern, replacement in getattr(model, "legacy_names", ()):
        given = {re.sub(pattern, replacement, key): value for key, value in given.items()}
    own = model.state_dict()
    other = [key for key in own if key in given and given[key].shape != own[key].shape]
    if fine_tune:
        for key in other:
            del given[key]
    counters = "num_batches_tracked"  # FrozenBatchNorm2d has none, and nothing reads them
    missing = [key for key in own if key not in given and not key.endswith(counters) and key not in other]
    left = [key for key in given if key not in own and not key.endswith(counters)]
    shapes = [f"{key} {[*given[key].shape]} for {[*own[key].shape]}" for key in other if key in given]
    faults = {"missing": missing, "left over": left, "of another shape": shapes}
    if any(faults.values()):
        told = "; ".join(f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items() if keys)
        raise ValueError(f"{source}: expected the weights of {type(model).__name__}, got {told}")
    if fine_tune and len(other) == len(own):
        raise ValueError(f"{source}: expected weights of {type(model).__name__}, got no tensor of its shapes")
    model.load_state_dict(given, strict=False)


def _some(keys: list[str], most: int = 5) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "") or "none"
