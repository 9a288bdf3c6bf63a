"""Features on the disk: arrays that grow image by image, and are read as memory maps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import Tensor


class Rows:
    """Files of rows, ``NAME.KEY``, and ``NAME.index``, whose line i says how many rows of each image i has.

    An image counts once its line is written, after its rows: whenever the process is killed, the files go on with the
    first image that is not whole.

    Args:
        folder: of the files; those that are there go on.
        dtypes: of one row, by key: structured, so that a row is all that is known of something.
    """

    def __init__(self, folder: Path, name: str, dtypes: Mapping[str, np.dtype]) -> None:
        self.dtypes = dict(dtypes)
        self.files = {key: folder / f"{name}.{key}" for key in dtypes}
        self.index = folder / f"{name}.index"
        lines = self.index.read_text().splitlines(keepends=True) if self.index.exists() else []
        self.counts = [[int(count) for count in line.split()] for line in lines if line.endswith("\n")]
        while self.counts and any(size > has for size, has in zip(self._sizes(), self._on_disk(), strict=True)):
            self.counts.pop()  # the machine went down before all was on its disk
        self._cut()

    @property
    def images(self) -> int:
        return len(self.counts)

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return sum(self._sizes())

    def add(self, rows: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Adds the rows of the next image, by key and column: all of them, or none (OSError, as on a full disk)."""
        from boxops.training.checkpoint import append

        counts = [len(next(iter(rows[key].values()))) for key in self.files]
        try:
            for (key, file), count in zip(self.files.items(), counts, strict=True):
                array = np.empty(count, self.dtypes[key])
                for column, values in rows[key].items():
                    array[column] = values.cpu().numpy()
                append(file, array.tobytes(), sync=True)
            append(self.index, _line(counts), sync=True)
        except OSError:
            self._cut()
            raise
        self.counts.append(counts)

    def read(self, key: str) -> np.ndarray:
        """All rows, mapped from the disk."""
        count = sum(self._column(key))
        if not count:  # an empty file cannot be mapped
            return np.empty(0, self.dtypes[key])
        return np.memmap(self.files[key], self.dtypes[key], "r", shape=(count,))

    def spans(self, key: str) -> list[tuple[int, int]]:
        """First row and one past the last, of each image."""
        return list(pairwise(np.cumsum([0, *self._column(key)]).tolist()))

    def _column(self, key: str) -> list[int]:
        at = list(self.files).index(key)
        return [counts[at] for counts in self.counts]

    def _sizes(self) -> list[int]:
        return [sum(self._column(key)) * self.dtypes[key].itemsize for key in self.files]

    def _on_disk(self) -> list[int]:
        return [file.stat().st_size if file.exists() else 0 for file in self.files.values()]

    def _cut(self) -> None:
        """What belongs to no whole image goes."""
        lines = b"".join(map(_line, self.counts))
        for file, size in zip([*self.files.values(), self.index], [*self._sizes(), len(lines)], strict=True):
            with open(file, "ab") as opened:
                opened.truncate(size)


def _line(counts: list[int]) -> bytes:
    return " ".join(map(str, counts)).encode() + b"\n"
