"""SIGINT, SIGTERM and SIGHUP: the run stops where it can go on from, not where they came."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE = 1.0  # seconds: `timeout` and torchrun send a signal twice at once, a person does not


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run. No ``except Exception`` around the reading of an image takes it for a bad image.

    Attributes:
        number: of the signal; a command ends with the status 128 + number.
    """

    def __init__(self, text: str, number: int = signal.SIGTERM) -> None:
        super().__init__(text)
        self.number = int(number)


class Signals:
    """In its context the first signal is only noted (``came``); a second SIGINT, a second later or more, stops at once.

    Signals that are ignored, as SIGHUP under nohup, stay so; outside of the main thread Python lets none be handled.
    """

    def __init__(self) -> None:
        self.number, self.since, self.place = 0, 0.0, ""
        self.stop = False  # all processes know that one of them got a signal
        self.writing = self.hurry = False

    @property
    def came(self) -> bool:
        return self.number > 0

    def check(self, place: str) -> None:
        """Raises Interrupted if the run is to stop."""
        if self.stop:
            name = signal.Signals(self.number).name if self.number else "a signal to another process"
            raise Interrupted(f"stopped by {name} {place}", self.number or signal.SIGTERM)

    @contextmanager
    def at_once(self, place: str) -> Iterator[None]:
        """Here nothing is lost: a signal, or one that came before, raises Interrupted right away."""
        self.place = place
        try:
            self.stop |= self.came
            self.check(place)
            yield
        finally:
            self.place = ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Here is written what must be whole: whatever comes waits for the end."""
        self.writing = True
        try:
            yield
        finally:
            self.writing = False
        if self.hurry:
            self._stop_now()

    def __enter__(self) -> Signals:
        main = threading.current_thread() is threading.main_thread()
        heard = [number for number in STOPPING if main and signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self.old = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        if not self.number:
            self.number, self.since = number, time.monotonic()
            if self.place:
                raise Interrupted(f"stopped by {signal.Signals(number).name} {self.place}", number)
        elif number == signal.SIGINT and time.monotonic() - self.since > PATIENCE:
            self.hurry = True
            if not self.writing:
                self._stop_now()

    def _stop_now(self) -> None:
        raise Interrupted("stopped at once by a second signal", self.number)


@contextmanager
def early() -> Iterator[None]:
    """Before the first step: a signal ends the process without a traceback.

    One process gets Interrupted, so that it cleans up. Of several, one may wait for another inside torch, where Python
    hears no signals: there they have their default action, to end the process.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        with (signals := Signals()), signals.at_once("before the first step"):
            yield
        return
    with (signals := Signals()):
        for number in signals.old:
            signal.signal(number, signal.SIG_DFL)
        yield
