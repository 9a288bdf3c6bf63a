"""Documentation that quotes code, and code that says what it prints."""

import pathlib
import re

import pytest
from test_machine import output_of

ROOT = pathlib.Path(__file__).parent.parent
DIFFS = re.findall(r"```diff\n\+\+\+ (\S+)\n(.*?)```", (ROOT / "docs/adding-an-op.md").read_text(), re.DOTALL)


def lines_of(text):
    """Without the backslashes that continue a macro, whose column depends on the longest line."""
    return [line.rstrip("\\ ") for line in text.splitlines()]


@pytest.mark.parametrize(("path", "diff"), DIFFS, ids=[path for path, _ in DIFFS])
def test_adding_an_op_shows_the_code(path, diff):
    """Each line that the page adds to a file is one of it."""
    code = {f"+{line}" for line in lines_of((ROOT / path).read_text())}
    assert [line for line in lines_of(diff) if line not in code] == []


def test_adding_an_op_shows_every_kind_of_file():
    folders = {str(pathlib.Path(path).parent) for path, _ in DIFFS}
    assert len(folders) > 9


def test_getting_started_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)[1]
    said = [line.partition("  # ")[2].partition(": ")[0] for line in code.splitlines() if line.startswith("print")]
    assert said and output_of(code).splitlines() == said
