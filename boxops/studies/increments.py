"""Studies of tricks that are added one by one: a row of the table has all that the rows above it have, and one more.

Every row is a run with each of the seeds 0, 1, 2, ...; a run's numbers go into the study's JSON and CSV when it ends.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boxops.cli.common import UserError, add_data_arguments, is_first, tell, user_errors
from boxops.studies import increments_report as report
from boxops.studies import store

# row, seed and folder of a run -> its numbers, or the exit status of one that did not end well
Run = Callable[[str, int, Path], dict[str, Any] | int]


def add_arguments(parser: argparse.ArgumentParser, study: str) -> None:
    add_data_arguments(parser)
    parser.add_argument("--split", metavar="SHARE", help="learn from this share of the images, as in boxops train")
    store.add_arguments(parser, study)
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each row (3); a --resume may ask for more")
    parser.add_argument("--quick", action="store_true", help="a few steps on small images: it shows how, not how much")


def take_defaults(
    args: argparse.Namespace, usual: Mapping[str, Any], quick: Mapping[str, Any], shapes: Mapping[str, Any]
) -> None:
    """The numbers that are not given: the usual ones, or with --quick its own, and the options of its generated images.

    Without data --quick alone can run, on those images.
    """
    if args.data is None and args.root is None and args.annotations is None:
        if not args.quick:
            raise UserError("--root: expected the folder of the data, got none; --quick needs none")
        args.data = "shapes"
    if args.quick and args.data == "shapes":
        args.data_option = list({**shapes, **dict(args.data_option)}.items())
    for name, value in {**usual, **(quick if args.quick else {})}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def carry_out(
    args: argparse.Namespace,
    study: str,
    begin: Mapping[str, Any],
    options: Iterable[str],
    run: Callable[[dict[str, Any]], Run],
    inputs: Sequence[str | None] = (),
) -> int:
    """The study from its options to its table, or what is left of it; the exit status.

    Args:
        begin: ``title``, ``rows`` (by key their names), ``left_out`` (rows that are as the one above, and why),
            ``measures`` (by key in a run's numbers their names; the first one is compared), ``papers`` (by name the
            numbers of the rows, in 0..1 as those of the measure; None where it is not known).
        run: of the study's results.
        options, inputs: see ``store.open_results``.
    """
    from boxops.training import RunFolder

    with RunFolder(args.out, first=is_first()) as folder:  # which no other study can write to until then
        with user_errors():
            folder.open()
            runs = (f"{row}_{seed}" for row in begin["rows"] for seed in range(args.seeds))
            begun = {**begin, "runs": {}}
            results = store.open_results(args, study, begun, options, runs, inputs) if is_first() else None
            results = store.agreed(results, args.device)
        status = fill(args, results, run(results))
        if status or not is_first():
            return status
        with user_errors():
            report.write(results, args.out)
            report.write_picture(results, args.out)
    report.show(results)
    print(f"wrote {', '.join(str(args.out / f'{study}.{kind}') for kind in ('csv', 'json', 'svg', 'png'))}")
    return 0


def fill(args: argparse.Namespace, results: dict[str, Any], run: Run) -> int:
    """Does the runs that are not done, seed by seed: what is stopped has the whole table of the first ones."""
    rows = [row for row in results["rows"] if row not in results["left_out"]]
    for row, why in results["left_out"].items():
        tell(f"{results['rows'][row]}: not run, as the row above: {why}")
    todo = [(row, seed) for seed in range(args.seeds) for row in rows if str(seed) not in _of(results, row)]
    if before := args.seeds * len(rows) - len(todo):
        tell(f"{before} of {args.seeds * len(rows)} runs: done before")
    began = time.monotonic()
    for i, (row, seed) in enumerate(todo):
        left = (time.monotonic() - began) / i * (len(todo) - i) if i else None
        rest = "" if left is None else f", {report.span(left)} left"
        tell(f"{results['rows'][row]}, seed {seed}: run {before + i + 1} of {before + len(todo)}{rest}")
        found = run(row, seed, args.out / f"{row}_{seed}")
        if isinstance(found, int):
            return found
        _of(results, row)[str(seed)] = found
        if is_first():
            with user_errors():
                store.save(results, args.out)
                report.write(results, args.out)
                keep_weights(args.out / f"{row}_{seed}")
    return 0


def keep_weights(run: Path) -> None:
    """Of a run that is in the JSON: what it would go on from is as large again, and best.pt too."""
    from boxops.training.checkpoint import load, save

    if not (run / "last.pt").exists():
        return
    checkpoint = load(run / "last.pt")
    if checkpoint.pop("training", None):
        save(run / "last.pt", checkpoint)
    (run / "best.pt").unlink(missing_ok=True)


def _of(results: dict[str, Any], row: str) -> dict[str, Any]:
    """The runs of a row, by their seeds."""
    of_row: dict[str, Any] = results["runs"].setdefault(row, {})
    return of_row
