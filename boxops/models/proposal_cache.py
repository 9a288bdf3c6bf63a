"""Proposals that were computed once, kept in a file by what they were computed from."""

from __future__ import annotations

import sqlite3
import warnings
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 10.0  # seconds that a process waits for another one that writes


class Cache:
    """Boxes float32 [P, 4] by key: the digest of an image and of how its boxes were found, so nothing in it gets old.

    A file of SQLite, which any number of processes read and write, and which a killed one leaves whole. Where it cannot
    be read or written (another program's file, a folder without permission, a full disk, a lock that stays), that is
    said once, and what is put is kept in memory. What was damaged on the disk is not there. Copies, as those of worker
    processes, share the file and have the memory of the moment that they were made.

    Args:
        path: of the file, which need not exist; None: memory alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.memory: dict[bytes, bytes] = {}
        self.lost: set[str] = set()  # "rw": it is not read, "rwc": not written

    def get(self, key: bytes) -> np.ndarray | None:
        packed = self.memory.get(key)
        if packed is None and (rows := self._run("rw", "SELECT boxes FROM proposals WHERE key = ?", key)):
            packed = rows[0][0]
        return None if packed is None else unpacked(packed)

    def put(self, key: bytes, packed: bytes) -> None:
        """Keeps boxes that are :func:`packed`."""
        if self._run("rwc", "INSERT OR REPLACE INTO proposals VALUES (?, ?)", key, packed) is None:
            self.memory[key] = packed

    def _run(self, mode: str, statement: str, *values: bytes) -> list[Any] | None:
        """The rows; None where the file cannot be used. No connection outlives a call, so none is carried by a fork."""
        if self.path is None or mode in self.lost:
            return None
        try:
            if mode == "rwc":
                self.path.parent.mkdir(parents=True, exist_ok=True)
            elif not self.path.exists():
                return None
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
            with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE)) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS proposals (key BLOB PRIMARY KEY, boxes BLOB)")
                return file.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            if not self.lost:
                what = "read" if mode == "rw" else "written"
                warnings.warn(f"proposals: {self.path} cannot be {what}, and is done without: {error}", stacklevel=4)
            self.lost.add(mode)
            return None


def packed(boxes: np.ndarray) -> bytes:
    """Boxes as they are kept: exact, and with a checksum, which zlib adds."""
    return zlib.compress(np.ascontiguousarray(boxes, np.float32).astype("<f4").tobytes())


def unpacked(packed: bytes) -> np.ndarray | None:
    """None if they were damaged."""
    try:
        return np.frombuffer(zlib.decompress(packed), "<f4").astype(np.float32).reshape(-1, 4)
    except (zlib.error, TypeError, ValueError):
        return None
