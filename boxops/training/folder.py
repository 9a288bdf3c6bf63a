"""The folder of a run: one process writes to it, and a run that is overwritten is kept until the new one has saved."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: there are no locks
    fcntl = None  # type: ignore[assignment]

WRITTEN = ("last.pt", "best.pt", "log.csv", "metrics.csv", "image.jpg", "samples", "stages", "events.out.tfevents.*")


class RunFolder:
    """The folder ``path``, once it is opened in the hands of this process.

    With ``overwrite``, ``begin()`` moves what the former run wrote to ``path/.overwritten``, and ``saved()``, after the
    first checkpoint, removes it. A run that ends before puts it back in ``close()``; one that is killed leaves that to
    the next ``open()``. Nothing else in the folder is touched.

    Args:
        path: made if it is not there.
        first: of several processes only the first one holds the folder and moves files; in the others nothing is done.
        overwrite: see above.

    Raises:
        ValueError: another process writes there; says which.
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, path: str | Path, *, first: bool = True, overwrite: bool = False) -> None:
        self.path, self.first, self.overwrite = Path(path), first, overwrite
        self.aside, self.moving = self.path / ".overwritten", self.path / ".overwritten.part"
        self._lock: IO[str] | None = None
        self._opened = self._made = False

    @property
    def has_run(self) -> bool:
        return any((self.path / name).exists() for name in ("last.pt", "best.pt"))

    def open(self) -> None:
        """Takes the folder, if that is not done yet, and puts back what a killed run had moved."""
        if not self.first or self._opened:
            return
        self._made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._acquire()
        except OSError as error:
            text = "a file" if self.path.is_file() else error.strerror
            raise OSError(f"expected a folder to write to, got {self.path}: {text}") from error
        self._opened = True
        if self.moving.exists():  # killed on the way: the new run had not begun
            self._move_back()
        if (self.path / "last.pt").exists():
            self.saved()
        elif self.aside.exists():
            self._restore()

    def begin(self) -> None:
        """Before a new run writes anything."""
        if not self.first or not self.overwrite:
            return
        self.moving.mkdir()
        for file in self._files():
            file.rename(self.moving / file.name)
        self.moving.rename(self.aside)

    def saved(self) -> None:
        """The run has a checkpoint: the former run is not needed any more."""
        shutil.rmtree(self.aside, ignore_errors=True)

    def close(self) -> None:
        if not self._opened:
            return
        self._opened = False
        if self.aside.exists():
            self._restore()
        if self._lock is not None:
            with suppress(OSError):
                os.unlink(self._lock.name)
            with suppress(OSError):  # a full disk, which had no room for what it tells
                self._lock.close()
        if self._made:
            with suppress(OSError):  # it is in use
                self.path.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _files(self) -> list[Path]:
        return [file for pattern in WRITTEN for file in self.path.glob(pattern)]

    def _restore(self) -> None:
        for file in self._files():  # of the run that never saved
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        self.aside.rename(self.moving)
        self._move_back()
        print(f"{self.path}: the run that was to be overwritten is back: the new one had saved nothing",
              file=sys.stderr)  # fmt: skip

    def _move_back(self) -> None:
        for file in self.moving.iterdir():
            file.rename(self.path / file.name)
        self.moving.rmdir()

    def _acquire(self) -> IO[str] | None:
        """A lock that ends with the process, however that ends. (flock's would live on in killed runs' workers.)"""
        path = self.path / ".lock"
        while True:
            file = open(path, "a+")  # noqa: SIM115  # closed in close()
            if fcntl is None:
                return file
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read()
                file.close()
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise ValueError(f"{self.path} is in use by {holder or 'another process'}") from None
                print(f"{self.path}: no locks in this file system; let no other run write here", file=sys.stderr)
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
            file.close()  # its owner removed it just now
        with suppress(OSError):  # a full disk
            name = Path(sys.argv[0]).name.replace("__main__.py", "boxops")
            command = textwrap.shorten(" ".join([name, *sys.argv[1:]]), 80, placeholder=" ...")
            file.truncate(0)
            file.write(f"process {os.getpid()} ({command})")
            file.flush()
        return file
