"""Which images to learn from and which to hold out. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

from boxops.cli.common import SPLITS, UserError, open_data, tell

SHARE = 0.8  # to learn from, where the files hold nothing out
PAIRS = (("train", "val"), ("train", "test"))  # after the kind's own pair

Open = Callable[[str], Any]


def open_splits(args: argparse.Namespace, *, seed: int, **needs: bool) -> tuple[Any, Any]:
    """The images to learn from, and the held-out ones or None. The first have no transform yet.

    Where the files have no held-out split, name no splits, or have the same images in both, a part is split off, and
    said. Splits that were named and are not there, held-out classes that are not learnt and data without objects are
    errors; held-out images that are learnt from too are warned of.
    """
    from boxops.data import NoSuchSplit, transforms

    @cache
    def opened(split: str) -> Any:
        return open_data(args, split, seed=seed, **needs)

    trains, pairs = _names(args.data, args.train_split, args.eval_split)
    share = None if args.split is None else share_of(args.split)
    if args.split is not None and (share is None or args.eval_split is not None):
        got = args.split if share is None else f"--eval-split {args.eval_split} too"
        raise UserError(f"--split: expected a share to learn from, between 0 and 1, without --eval-split, got {got}")
    if args.eval_split == "none":
        return _learnable(_first(opened, trains)), None
    if share is not None:
        return _split_off(_first(opened, trains), share, "as --split says")
    missing: Exception | None = None
    for train, other in pairs:
        try:
            data = opened(train)
            if data.undivided:
                return _split_off(data, SHARE, "since the files name no splits")
            held_out = _with_classes(args, other, data.classes, opened, seed=seed, **needs)
        except NoSuchSplit as error:
            missing = missing or error
            continue
        held_out.transform = transforms.evaluate()
        twice = _shared(data, held_out)
        if len(twice) == len(data) == len(held_out) and not (args.train_split and args.eval_split):
            return _split_off(data, SHARE, f"since {train} and {other} have the same images")
        if twice:
            names = ", ".join(map(str, twice[:2])) + ", ..." * (len(twice) > 2)
            tell(f"warning: {len(twice)} of {len(held_out)} held-out images are learnt from too: {names}")
        tell(f"held out: {held_out.report()}")
        return _learnable(data), held_out
    assert missing is not None
    if args.eval_split is not None:
        raise missing
    return _split_off(_first(opened, trains), SHARE, f"since there are none: {missing}")


def open_held_out(args: argparse.Namespace, divided: Sequence[Any] | None = None, **options: Any) -> Any:
    """The images to evaluate on, with the options of :func:`open_data`.

    ``args.split`` is None, the name of a split, a share as train's ``--split``, or ``all``. ``divided`` is that of the
    run that the model comes from: of as many images, its held-out ones are taken, unless a split is named.
    """

    @cache
    def opened(split: str) -> Any:
        return open_data(args, split, **options)

    trains, pairs = _names(args.data, None, None)
    share = None if args.split is None else share_of(args.split)
    if share is not None:
        return _held_out(_first(opened, trains), share, "as --split says")
    if args.split is not None:
        return opened(args.split)
    others = list(dict.fromkeys(other for _, other in pairs))
    data = _first(opened, [*others, *trains] if divided else others)
    if divided and len(data) == divided[1]:
        return _held_out(data, divided[0], "as in the run of the checkpoint; --split all takes all")
    return data


def open_learnt(args: argparse.Namespace, **options: Any) -> Any:
    """The images of ``args.split``, or else of the first split to learn from that is there; options as above."""
    names = [args.split] if args.split else _names(args.data, None, None)[0]
    return _first(partial(open_data, args, **options), names)


def share_of(text: str) -> float | None:
    """The share that is meant; None if it is a name."""
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def _names(kind: str, train: str | None, other: str | None) -> tuple[list[str], list[tuple[str, str]]]:
    """What to learn from and pairs with what to hold out, the first that are there; those that are given alone."""
    usual = dict.fromkeys([SPLITS[kind], *(PAIRS if kind != "shapes" else ())])
    pairs = dict.fromkeys((train or first, other or second) for first, second in usual)
    return list(dict.fromkeys(first for first, _ in pairs)), list(pairs)


def _first(opened: Open, names: Iterable[str]) -> Any:
    from boxops.data import NoSuchSplit

    missing: Exception | None = None
    for name in names:
        try:
            return opened(name)
        except NoSuchSplit as error:
            missing = missing or error
    assert missing is not None
    raise missing


def _with_classes(args: argparse.Namespace, split: str, classes: list[str], opened: Open, **options: Any) -> Any:
    """The split, its labels those of the classes."""
    from boxops.data import BadData

    try:
        data = opened(split)
    except BadData:  # of itself it may have no classes: background alone
        data = open_data(args, split, classes=classes, **options)
    if more := [name for name in data.classes if name not in classes]:
        raise UserError(
            f"held-out data has the classes {_listed(more)} that training data lacks; training data has "
            f"{_listed(classes)}; --data-option \"classes=['...']\" names those of both"
        )
    if data.classes != classes:
        data = open_data(args, split, classes=classes, **options)
    if data.classes != classes:
        raise UserError(f"held-out data has the classes {_listed(data.classes)}, expected {_listed(classes)}, in order")
    return data


def _listed(names: list[str]) -> str:
    return ", ".join(map(str, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _learnable(data: Any) -> Any:
    if not data.has_objects():
        first = f"; the first of {len(data.problems)} problems: {data.problems[0]}" if data.problems else ""
        raise UserError(f"expected objects to learn from, got none in {len(data)} images{first}")
    return data


def _split_off(data: Any, share: float, why: str) -> tuple[Any, Any]:
    from boxops.data import transforms

    learn, held_out = _divide(data, share, why)
    held_out.transform = transforms.evaluate()
    return _learnable(learn), held_out


def _held_out(data: Any, share: float, why: str) -> Any:
    return _divide(data, share, why)[1]


def _divide(data: Any, share: float, why: str) -> tuple[Any, Any]:
    try:
        parts = data.split_off(share)
    except ValueError as error:
        raise UserError(f"--split: {error}; {why}") from error
    tell(f"held out: {len(parts[1])} of {len(data)} images, by a fixed rule (--split {share:g}), {why}")
    return parts


def _shared(data: Any, held_out: Any) -> list[Any]:
    from boxops.data.divide import shared

    paths = ([data.image_path(i) for i in range(len(data))] for data in (data, held_out))
    first, second = ([path for path in part if path is not None] for part in paths)
    return shared(first, second)
