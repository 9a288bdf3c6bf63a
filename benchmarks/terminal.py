"""Tables and a progress bar for the terminal, by rich where it is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

RICH = importlib.util.find_spec("rich") is not None  # without it: no progress bar, and no colours
Cell = tuple[str, str]  # text and mood
MOODS = {"ours": "bold", "dim": "dim", "good": "green", "bad": "bold red", "": ""}
WRAPPED = ("case", "detector", "stage", "times faster than", "goal")  # columns that may take several lines
GAP = 2


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

    def wrapped(text: str, i: int) -> str:
        lines = textwrap.wrap(text, widths[i], break_long_words=False, break_on_hyphens=False) or [""]
        return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")

    head = [wrapped(names[i], i) for i in shown]
    body = [[(wrapped(row[i][0], i), row[i][1]) for i in shown] for row in rows]
    (_rich if RICH else _plain)(title, head, body, [widths[i] for i in shown])
    if left_out:
        print(f"(no room in {width()} columns for: {', '.join(left_out)})")


def _plain(title: str, head: Sequence[str], body: Sequence[Sequence[Cell]], widths: Sequence[int]) -> None:
    print(title)
    for row in [[(text, "") for text in head], *body]:
        cells = [text.split("\n") for text, _ in row]
        for line in range(max(map(len, cells))):
            parts = [cell[line] if line < len(cell) else "" for cell in cells]
            aligned = [
                f"{part:>{w}}" if i else f"{part:<{w}}" for i, (part, w) in enumerate(zip(parts, widths, strict=True))
            ]
            print((" " * GAP).join(aligned).rstrip())


def _rich(title: str, head: Sequence[str], body: Sequence[Sequence[Cell]], widths: Sequence[int]) -> None:
    from rich import box, console, table, text

    shown = table.Table(title=title or None, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP, 0, 0))
    for index, (name, size) in enumerate(zip(head, widths, strict=True)):
        shown.add_column(name, justify="right" if index else "left", no_wrap=True, min_width=size)
    ops = [row[0][0].split()[0] for row in body]
    grouped = len(set(ops)) < len(ops)  # then with a line between one op and the next
    for row, op, last in zip(body, ops, [None, *ops], strict=False):
        if grouped and last not in (None, op):
            shown.add_section()
        shown.add_row(*(text.Text(words, MOODS[mood]) for words, mood in row))
    console.Console(width=max(sum(widths) + GAP * len(widths), width())).print(shown)
