"""Which images to hold out where the files do not say it, and which files are the same image."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path


def divide(paths: Sequence[Path], share: float) -> tuple[list[int], list[int]]:
    """The indices of the images to learn from, about that share of all, and of the held-out ones, both rising.

    The images are in the order of the SHA-1 of their files' names, without folders, and the first ones are to learn
    from: whatever the order, the folder and the machine. Files of the same bytes stay together.

    Raises:
        ValueError: share is not between 0 and 1, or there are no two different images.
    """
    if not 0 < share < 1:
        raise ValueError(f"split_off: expected a share between 0 and 1, got {share}")
    same = same_content(paths)
    rank = [(hashlib.sha1(path.name.encode(errors="surrogateescape")).digest(), path.parts[::-1]) for path in paths]
    groups = defaultdict(list)
    for index in sorted(range(len(paths)), key=rank.__getitem__):
        groups[same[index]].append(index)
    if len(groups) < 2:
        raise ValueError(f"split_off: expected two different images and more, got {len(paths)} of the same bytes")
    learn: list[int] = []
    parts = list(groups.values())
    while len(parts) > 1 and len(learn) < max(1, round(share * len(paths))):
        learn += parts.pop(0)
    return sorted(learn), sorted(index for part in parts for index in part)


def shared(first: Sequence[Path], second: Sequence[Path]) -> list[Path]:
    """Those of the second files that are among the first, by their bytes."""
    sizes = set(map(_size, first)) - {-1}
    second = [path for path in second if _size(path) in sizes]
    sizes = set(map(_size, second))
    first = [path for path in first if _size(path) in sizes]
    same = same_content([*first, *second])
    return [path for k, path in enumerate(second, len(first)) if same[k] < len(first)]


def same_content(paths: Sequence[Path]) -> list[int]:
    """For each file the index of the first that has the same bytes.

    Only files of equal size are opened, and only those with equal samples are read: 100 000 photos take seconds.
    """
    first = list(range(len(paths)))
    names: dict[Hashable, int] = {}
    sizes = defaultdict(list)
    for i, path in enumerate(paths):
        try:
            status = os.stat(path)
        except OSError:
            continue
        first[i] = names.setdefault((status.st_dev, status.st_ino) if status.st_ino else path, i)
        if first[i] == i:  # else one file by another name
            sizes[status.st_size].append(i)
    groups: Iterable[list[int]] = sizes.values()
    for key in (_samples, _digest):
        groups = [part for group in groups if len(group) > 1 for part in _parts(group, paths, key)]
    for group in groups:
        for i in group:
            first[i] = group[0]
    return [first[i] for i in first]


def _parts(group: list[int], paths: Sequence[Path], key: Callable[[Path], Hashable]) -> list[list[int]]:
    parts = defaultdict(list)
    for i in group:
        try:
            parts[key(paths[i])].append(i)
        except OSError:
            parts[i].append(i)
    return list(parts.values())


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _samples(path: Path) -> Hashable:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        read = []
        for place in (size // 3, size // 2, size - 512):
            file.seek(max(place, 0))
            read.append(file.read(512))
    return b"".join(read)


def _digest(path: Path) -> Hashable:
    return hashlib.sha1(path.read_bytes()).digest()
