"""Counts the calls of boxops' functions that patch_torchvision leads to."""

from collections import Counter
from functools import wraps

import boxops


def counting(monkeypatch):
    """How often each public function of boxops is called."""
    found = Counter()

    def counted(name, function):
        @wraps(function)
        def call(*args, **kwargs):
            found[name] += 1
            return function(*args, **kwargs)

        return call

    for name in boxops.__all__:
        monkeypatch.setattr(boxops, name, counted(name, getattr(boxops, name)))
    return found
