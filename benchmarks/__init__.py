"""`boxops bench`: every op, verified first, then timed against its rivals and the machine's own limits.

A family file (boxes.py, iou.py, nms.py) is a list of cases (case.py); harness.py runs them, measure.py one of them;
timing.py has the clocks; report.py, terminal.py, plots.py and page.py show what came out. A new family is one more
file with a list named CASES: nothing else names it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from .machine import cores

DTYPES = ("float16", "bfloat16", "float32", "float64")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ops", nargs="+", metavar="OP", help='ops or cases, with * as in a shell: nms "box_*" "nms 1,000*"'
    )
    parser.add_argument(
        "--models",
        action="store_true",
        help="a training step and an inference of each detector, and the box ops' share",
    )
    parser.add_argument(
        "--busy", action="store_true", help="one thread and all of torch's, idle and beside a busy process"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="half a minute, by a budget of time: no slow cases, and it names what else it leaves out or shortens",
    )
    parser.add_argument("--threads", type=int, metavar="T", help="CPU threads (default: the cores this process has)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page with plots")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the summary picture (.svg or .png)")
    parser.add_argument("--baseline", type=Path, metavar="OLD.json", help="compare with an older --json file")


def run(args: argparse.Namespace) -> int:
    """Runs the benchmark; 0 if every result was right, 1 if not, 2 if it could not start."""
    began = time.perf_counter()
    threads = cores() if args.threads is None else args.threads
    if threads < 1:
        return _stop(f"expected --threads >= 1, got {threads}")
    # Thread pools read these when they start, so they are set before anything that computes is imported.
    os.environ["BOXOPS_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)

    from . import harness, report, terminal

    if args.models:
        return _models(args, threads)
    if args.busy:
        return _busy(args, threads)
    if args.html or args.plot:
        try:
            from . import page, plots
        except ImportError as error:
            return _stop(f'{error}; --html and --plot draw with matplotlib: pip install "boxops[bench]"')
    try:
        baseline = report.load(args.baseline) if args.baseline else None
        cases = harness.select(args.ops, quick=args.quick)
        harness.require_device(args.device, args.dtype)
    except ValueError as error:
        return _stop(str(error))

    options = {"device": args.device, "dtype": args.dtype, "threads": threads, "quick": args.quick}
    result = harness.run(cases, **options, began=began, track=terminal.progress_bar)
    report.show(result, baseline)
    if args.json:
        report.save(result, args.json)
    if args.html:
        args.html.write_text(page.page(result, baseline), encoding="utf-8")
    if args.plot:
        try:
            plots.summary(result, args.plot)
        except ValueError as error:
            return _stop(str(error))
    for path in filter(None, (args.json, args.html, args.plot)):
        print(f"wrote {path}")
    return 1 if any(case["error"] for case in result["cases"]) else 0


def _models(args: argparse.Namespace, threads: int) -> int:
    from . import harness, models

    try:
        harness.require_device(args.device, args.dtype)
        result = models.run(args.device, threads, args.quick, args.ops)
    except ValueError as error:
        return _stop(str(error))
    models.show(result)
    _save(result, args.json)
    return 1 if any("error" in row for row in result["models"] + result["yolo"]) else 0


def _busy(args: argparse.Namespace, threads: int) -> int:
    from . import busy, harness

    try:
        result = busy.run(harness.select(args.ops, quick=args.quick), threads, args.quick)
    except ValueError as error:
        return _stop(str(error))
    busy.show(result)
    _save(result, args.json)
    return 0


def _save(result: dict[str, Any], path: Path | None) -> None:
    from . import report

    if path:
        report.save(result, path)
        print(f"wrote {path}")


def _stop(message: str) -> int:
    print(f"boxops bench: {message}", file=sys.stderr)
    return 2
