"""Experiments that compare detectors, a module each: `boxops study NAME`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(file: Path, study: str) -> dict[str, Any] | None:
    """What that study wrote to its JSON; None where there is none."""
    try:
        results = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("study") == study else None
