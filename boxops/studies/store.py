"""The JSON of a study: what is known so far, so that one that was stopped or killed goes on with --resume."""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boxops.cli.common import UserError, tell
from boxops.cli.outputs import protect, save_json


def add_arguments(parser: argparse.ArgumentParser, study: str) -> None:
    out = f"study-{study}"
    parser.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help=f"({out})")
    parser.add_argument("--resume", action="store_true", help="go on: what is done is not done again")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, over another study and foreign files")


def check_arguments(args: argparse.Namespace, at_least_1: Iterable[str]) -> None:
    """Those flags are 1 or more, where they are given, and only one of --overwrite and --resume is."""
    for name in at_least_1:
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected 1 or more, got {value}")
    if args.overwrite and args.resume:
        raise UserError("--overwrite: begins anew, but --resume goes on: expected one of them, got both")


def read(file: Path, study: str) -> dict[str, Any] | None:
    """What that study wrote to its JSON; None where there is none."""
    try:
        results = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("study") == study else None


def save(results: Mapping[str, Any], out: Path) -> None:
    save_json(results, out / f"{results['study']}.json")


def open_results(
    args: argparse.Namespace,
    study: str,
    begin: Mapping[str, Any],
    options: Iterable[str],
    runs: Iterable[str],
    inputs: Sequence[str | None] = (),
) -> dict[str, Any]:
    """What is known from a study to go on with; else the file of a new one, begun. Nothing of others is lost.

    Args:
        args: with those of ``add_arguments``.
        begin: what the results of a new study have besides.
        options: the flags that may not change on the way.
        runs: the folders in --out that the study's runs will have.
        inputs: files that the study reads.
    """
    files = [args.out / f"{study}.{kind}" for kind in ("json", "csv", "svg", "png")]
    done = [key for key, value in begin.items() if value == {}]  # what a study fills
    former = read(files[0], study)
    again = f"--overwrite begins anew, --out takes another folder than {args.out}"
    given = json.loads(json.dumps({name: getattr(args, name) for name in options}))
    if former and args.resume:
        for name, value in given.items():
            if (was := former["options"].get(name)) != value:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"--resume: expected the options of {files[0]}, {flag} {was}, got {value}; {again}")
        return former
    if former and not args.overwrite and any(former.get(key) for key in done):
        raise UserError(f"--out: {args.out} has a study: --resume goes on with it, {again}")
    if args.resume:
        tell(f"--resume: {args.out} has no study yet, so one begins")
    elif not args.overwrite and (others := [out for name in runs if (out := args.out / name / "last.pt").exists()]):
        raise UserError(f"--out: {others[0].parent} has a run: --resume goes on with it, {again}")
    protect([("--out", file) for file in files], inputs, args.overwrite or bool(former))
    results = {"study": study, "options": given, "began": time.time(), "overwrite": args.overwrite, **begin}
    save(results, args.out)
    return results


def mode(args: argparse.Namespace, results: Mapping[str, Any], run: Path) -> list[str]:
    """The flag of `boxops train` for a run: it goes on, or takes the place of one from before the study began."""
    last = run / "last.pt"
    if results["overwrite"] and last.exists() and last.stat().st_mtime < results["began"]:
        return ["--overwrite"]
    return ["--resume"] if args.resume else []


def last_row(file: Path) -> dict[str, str]:
    """Of a run's CSV."""
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))[-1]


def agreed(value: Any, device: str) -> Any:
    """That of the first process, in all processes of torchrun."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return value
    from torch import distributed

    from boxops.training.parts import start_processes

    start_processes(device)
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def machine(device: Any) -> str:
    """Where a run was, in words."""
    import torch

    from boxops.benchmarks.machine import facts

    return where([facts(device.type, torch.get_num_threads())])


def where(machines: Iterable[Mapping[str, Any]]) -> str:
    """The machines of a study, of ``boxops.benchmarks.machine.facts``: one, unless a resume was elsewhere."""
    texts = {
        f"{m['device']}, {m['threads']} threads, torch {m['packages']['torch']}".replace(" 1 threads", " 1 thread"): 0
        for m in machines
    }
    return "; ".join(texts) + (": not one machine" if len(texts) > 1 else "")
