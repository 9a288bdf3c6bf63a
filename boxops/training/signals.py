"""SIGINT and SIGTERM: the run stops where it can go on from, not where they came."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(Exception):
    """A signal stopped the run after it was saved."""


class Signals:
    """In its context the first signal is only noted (``came``) and the second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.name, self.place = "", ""
        self.stop = False  # all processes know that one of them got a signal

    @property
    def came(self) -> bool:
        return bool(self.name)

    def check(self, place: str) -> None:
        """Raises Interrupted if the run is to stop."""
        if self.stop:
            raise Interrupted(f"stopped by {self.name or 'a signal to another process'} {place}")

    @contextmanager
    def at_once(self, place: str) -> Iterator[None]:
        """Here nothing is lost: a signal raises Interrupted right away."""
        self.place = place
        try:
            yield
        finally:
            self.place = ""

    def __enter__(self) -> None:
        self.old = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        if self.name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        if self.place:
            raise Interrupted(f"stopped by {self.name} {self.place}")
