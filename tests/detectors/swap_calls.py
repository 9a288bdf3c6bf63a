"""Counts the calls of what patch_torchvision puts in."""

from collections import Counter
from functools import wraps

from boxops import swap

FUNCTIONS = {name for path, name, _ in swap.TABLE if path in ("torchvision.ops", "torchvision.ops.boxes")}


def counting(monkeypatch):
    """How often each replacement of the table is called."""
    found = Counter()

    def counted(path, name, replacement):
        key = name if name in FUNCTIONS else f"{path.rpartition('.')[2]}.{name}"

        @wraps(replacement)
        def call(*args, **kwargs):
            found[key] += 1
            return replacement(*args, **kwargs)

        return path, name, call

    monkeypatch.setattr(swap, "TABLE", [counted(*row) for row in swap.TABLE])
    return found
