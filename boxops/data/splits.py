"""What people call the parts of a data set."""

from __future__ import annotations

ALIASES = (("train", "training"), ("trainval",), ("val", "valid", "validation", "dev"), ("test", "testing"))


class NoSuchSplit(FileNotFoundError):
    """The data are there, but not this split of them."""


def aliases(split: str) -> tuple[str, ...]:
    """The split's own name first, then the others that mean the same."""
    known = next((names for names in ALIASES if split in names), ())
    return (split, *(name for name in known if name != split))
