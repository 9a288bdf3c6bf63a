"""The boxops command in a forked child, in a process group of its own: no further Python has to start."""

import contextlib
import os
import signal
import sys
import time

import pytest
from tiny import torch

from boxops.cli import main

with contextlib.suppress(ImportError):
    import torch.utils.tensorboard  # once, not in every child

DATA = ["--data", "shapes"] + [
    word for pair in ("size=64", "max_objects=2", "length=12") for word in ("--data-option", pair)
]
QUICK = ["train", "tiny_ssd", *DATA, "--workers", "0", "--device", "cpu", "--batch-size", "4", "--lr", "0.02",
         "--eval-split", "none"]  # fmt: skip
LONG = [*QUICK, "--epochs", "100000", "--checkpoint-seconds", "100000"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


class Running:
    """``Running(words, tmp_path)``: pid, what it says, how it ends. To be used as a context."""

    def __init__(self, words, folder):
        self.log = folder / "said"
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            sys.stdout = sys.stderr = log = open(self.log, "w", buffering=1)  # noqa: SIM115
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            torch.set_num_threads(1)  # OpenMP's threads did not come along
            sys.argv = ["boxops", *words]
            try:
                os._exit(main(words))
            except BaseException as error:
                print("Traceback", repr(error))
                os._exit(1)
        self.wait_for(lambda: os.getpgid(self.pid) == self.pid)

    def wait_for(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)

    def wait_for_rows(self, file, count):
        self.wait_for(lambda: file.exists() and len(file.read_text().splitlines()) > count)

    def end(self):
        """The exit status, negative after a signal; all of the group must end."""
        _, status = os.waitpid(self.pid, 0)
        self.pid, group = None, self.pid
        self.wait_for(lambda: not _alive(group))
        return os.waitstatus_to_exitcode(status)

    def said(self):
        return self.log.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
