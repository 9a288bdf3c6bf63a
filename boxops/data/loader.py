"""A DataLoader whose workers leave signals to the process that they work for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch

# What a terminal, `timeout` or a scheduler sends to all processes of a run
LEFT = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


class Loader(torch.utils.data.DataLoader[Any]):
    """Workers end when the main process ends them or dies, not with a signal to the whole group: the main process then
    still has batches while it decides where to stop."""

    def __init__(self, data: Any, batch_size: int | None = 1, **options: Any) -> None:
        super().__init__(data, batch_size, worker_init_fn=_obey_the_parent, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not hasattr(signal, "pthread_sigmask"):
            return super().__iter__()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, LEFT)  # workers inherit it
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def bar(items: Iterable[Any], text: str, total: int | None = None) -> Iterable[Any]:
    """The items, with a bar on stderr that is gone at the end; total: how many they are, where they do not say it."""
    from rich.console import Console
    from rich.progress import track

    return track(items, text, total, console=Console(stderr=True), transient=True)


def _obey_the_parent(_: int) -> None:
    """In a worker: SIGTERM is blocked, and a thread waits for the one that the parent sends at its end."""
    for number in LEFT - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # on Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, LEFT)  # a server of forks has its own mask
        parent = multiprocessing.parent_process()

        def wait() -> None:
            while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
                pass
            os._exit(0)

        threading.Thread(target=wait, daemon=True).start()
    elif hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
