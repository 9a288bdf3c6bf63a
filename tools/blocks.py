"""Tables between two comments of a page that a tool writes: `tool` writes them, `tool --check` says which are old."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def table(head: str, rows: list[tuple[str, ...]]) -> str:
    lines = [head, "|" + "---|" * (head.count("|") - 1), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def write(blocks: dict[tuple[str, str], str], tool: str) -> int:
    """`blocks`: by page and name the text that stands between <!-- name --> and <!-- end of name -->."""
    old = []
    for (page, name), new in blocks.items():
        text = (ROOT / page).read_text()
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->\n")
        if not (begin and end):
            raise SystemExit(f"{page}: expected the comments <!-- {name} --> and <!-- end of {name} -->, got none")
        if (wanted := before + begin + new + end + after) != text:
            old.append(f"{page}: its {name} is not what the code says: run {tool}")
            if "--check" not in sys.argv:
                (ROOT / page).write_text(wanted)
    if "--check" in sys.argv:
        print(*old, sep="\n", end="\n" * bool(old))
        return bool(old)
    return 0
