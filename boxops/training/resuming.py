"""Whether a run can go on with these options: what may not change is refused by name, the rest takes effect.

Fixed are what the order of the images depends on (seed, samples, the images of a step and of the data), the optimizer,
whose state is of its kind, the model and the classes. All other options may change: the learning rate and its schedule
are functions of the options and the step, so they are what they would be had the run begun so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from boxops.training.options import Options

FIXED = ("seed", "samples", "optimizer")
QUIET = ("batch_size", "accumulate", "workers", "device", "log_seconds")  # say nothing of the result


def check(
    path: Path,
    checkpoint: Mapping[str, Any],
    config: Mapping[str, Any],
    data: Any,
    options: Options,
    order: Mapping[str, Any],
    world: int = 1,
) -> list[str]:
    """What changes, in lines for the person; raises ValueError where the run of the checkpoint cannot go on."""
    state = checkpoint.get("training")
    if state is None:
        raise ValueError(f"{path}: expected last.pt of a run, got a checkpoint without its state, as best.pt is")
    check_model(path, checkpoint["model"], config)
    if checkpoint["classes"] != list(data.classes):
        raise ValueError(other(path, "classes", *_differing(checkpoint["classes"], list(data.classes))))
    # A run of the first version has its order only.
    old = {**asdict(options), **state["order"], **checkpoint.get("options", {})}
    now = {**asdict(options), **order}
    for name in FIXED:
        if old[name] != now[name]:
            raise ValueError(other(path, name, old[name], now[name]))
    if old["images"] != now["images"]:
        raise ValueError(other(path, "data", f"{old['images']} images", f"{now['images']}"))
    if old["images a step"] != now["images a step"]:
        given = f"{options.batch_size} x {options.accumulate} (accumulate) x {world} processes"
        raise ValueError(other(path, "batch_size", f"{old['images a step']} images a step", given))
    changed = [name for name in asdict(options) if old[name] != now[name] and name not in QUIET]
    return [f"{name}: {now[name]} from now on; the run had {old[name]}" for name in changed]


def check_model(path: Path, config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises ValueError where a model's options, or some of them, are not those of the run."""
    for name in dict.fromkeys(["name", *given, *config]):
        old, new = _plain(config.get(name, "the default")), _plain(given.get(name, "the default"))
        if old != new and name != "num_classes":  # these are compared by name
            raise ValueError(other(path, "model" if name == "name" else name, old, new))


def other(path: Path, name: str, old: Any, new: Any) -> str:
    return (
        f"{name}: the run in {path.parent} has {old}, got {new}; a resume goes on with the run's own, "
        "a new run takes another folder or overwrites this one"
    )


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _differing(old: list[str], new: list[str]) -> tuple[str, str]:
    """The classes that only one of them has; all of them where they are only ordered otherwise."""
    only = [name for name in old if name not in new], [name for name in new if name not in old]
    one, two = only if any(only) else (old, new)
    return ", ".join(one) or "none more", ", ".join(two) or f"not {', '.join(one)}"
