"""Documentation that quotes code, and code that says what it prints."""

import inspect
import pathlib
import re
import runpy

import pytest
from test_machine import output_of

import boxops

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
    assert len(folders) > 7


def test_getting_started_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)[1]
    said = [line.partition("  # ")[2].partition(": ")[0] for line in code.splitlines() if line.startswith("print")]
    assert said and output_of(code).splitlines() == said


@pytest.mark.parametrize("tool", ["op_table", "support_table"])
def test_tables_are_those_of_the_code(tool, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setattr("sys.argv", [tool, "--check"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr().out


def test_arguments_have_the_words_of_the_glossary():
    """Its first column's, not those that others use."""
    rows = [line.split("|")[1:4] for line in (ROOT / "docs/glossary.md").read_text().splitlines() if "`" in line]
    ours, others = ({word for row in rows for word in re.findall(r"`(\w+)`", row[column])} for column in (0, 2))
    functions = [getattr(boxops, op) for op in boxops.__all__ if inspect.isroutine(getattr(boxops, op))]
    arguments = {name for function in functions for name in inspect.signature(function).parameters}
    assert ours - {"xyxy", "xywh", "cxcywh", "cxcywhr", "labels", "Settings"} <= arguments  # labels: results
    assert not others & arguments
