"""Tables and a progress bar for the terminal, by rich where it is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

RICH = importlib.util.find_spec("rich") is not None  # without it: no progress bar, and no colours
Cell = tuple[str, str]  # text and mood
MOODS = {"ours": "bold", "dim": "dim", "good": "green", "bad": "bold red", "": ""}
# Columns that may take several lines.
WRAPPED = ("case", "detector", "job", "stage", "ratio of box ops", "times faster than", "goal")
GAP, NO_BREAK = 2, "\N{NO-BREAK SPACE}"


def progress_bar(cases: Sequence[Any]) -> Iterator[Any]:
    """Goes through the cases and shows which one is at work."""
    if not RICH:
        yield from cases
        return
    from rich import console, progress

    columns = ("{task.percentage:>3.0f} %", progress.BarColumn(), progress.TimeElapsedColumn(), "{task.description}")
    with progress.Progress(*columns, transient=True, console=console.Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(cases))
        for case in cases:
            bar.update(task, description=case.name)
            yield case
            bar.advance(task)


def width() -> int:
    """Of the terminal, or what COLUMNS says. A file or a pipe has room for all."""
    known = os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty()
    return shutil.get_terminal_size().columns if known else 10_000


def print_table(title: str, names: Sequence[str], rows: Iterable[Sequence[Cell]], spare: Collection[str] = ()) -> None:
    """Nothing is cut. Where the terminal is narrow, cells wrap at spaces (not at no-break ones) and, where that is not
    enough, the columns in `spare` are left out, the first first, and named."""
    rows = [list(row) for row in rows]
    texts = [[name, *(row[i][0] for row in rows)] for i, name in enumerate(names)]
    wanted = [max(map(len, column)) for column in texts]
    least = [
        max(len(word) for text in column for word in (text.split(" ") if name in WRAPPED else [text]))
        for name, column in zip(names, texts, strict=True)
    ]
    shown, left_out, room = list(range(len(names))), [], width()
    for name in spare:
        if sum(least[i] for i in shown) + GAP * (len(shown) - 1) <= room:
            break
        shown.remove(names.index(name))
        left_out.append(name)
    room -= sum(least[i] for i in shown) + GAP * (len(shown) - 1)
    widths = {}
    for i in sorted(shown, key=lambda i: wanted[i] - least[i]):  # what is over goes to those that ask for least
        widths[i] = least[i] + max(0, min(wanted[i] - least[i], room))
        room -= widths[i] - least[i]

    def lines(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
        texts = [textwrap.wrap(cells[i][0], widths[i], break_long_words=False, break_on_hyphens=False) for i in shown]
        for number in range(max(map(len, texts))):
            parts = [text[number] if number < len(text) else "" for text in texts]
            parts = [
                f"{part:{'<' if names[i] in WRAPPED or not i else '>'}{widths[i]}}"
                for i, part in zip(shown, parts, strict=True)
            ]
            yield [(part.replace(NO_BREAK, " "), cells[i][1]) for i, part in zip(shown, parts, strict=True)]

    write = _writer()
    if title:
        write([("\n" + title, "ours")])
    for line in lines([(name, "dim") for name in names]):
        write(line)
    write([("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (sum(widths.values()) + GAP * (len(shown) - 1)), "dim")])
    ops = [row[0][0].split()[0] for row in rows]
    grouped = len(set(ops)) < len(ops)  # then with a line between one op and the next
    for row, op, last in zip(rows, ops, [None, *ops], strict=False):
        if grouped and last not in (None, op):
            write([])
        for line in lines(row):
            write(line)
    if left_out:
        write([(f"(no room in {width()} columns for: {', '.join(left_out)})", "dim")])
    write([])


def print_warnings(lines: Iterable[str]) -> None:
    write = _writer()
    for line in lines:
        write([(f"WARNING: {line}", "bad")])


def _writer() -> Callable[[list[Cell]], None]:
    if not RICH:
        return lambda parts: print((" " * GAP).join(text for text, _ in parts).rstrip())
    from rich import console, text

    screen = console.Console(highlight=False)

    def write(parts: list[Cell]) -> None:
        line = text.Text(" " * GAP).join(text.Text(part, MOODS[mood]) for part, mood in parts)
        line.rstrip()
        screen.print(line, soft_wrap=True)

    return write
