"""What train and evaluate show in a terminal of 80 columns."""

import io
import re
import warnings
from contextlib import redirect_stderr

import pytest
from rich.cells import cell_len
from rich.console import Console
from tiny import torch

from boxops import cli, evaluation
from boxops.evaluation import table
from boxops.training import logs

AP = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        """All that was ever shown, without escape sequences."""
        return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue()))


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()  # for redirect_stderr: pytest puts its own in place after this


def test_the_bar_has_epoch_step_loss_and_time_in_80_columns(terminal, tmp_path):
    losses = {"loss_classifier": 1234.5, "loss_box_reg": 0.5, "loss_objectness": 1.25, "loss_rpn_box_reg": 10.125}
    with redirect_stderr(terminal):
        told = logs.Logs(tmp_path, 0, False, 123456, 10, enabled=True)
        for step in range(1, 4):
            told.add_step(step, 119, 1e-3, losses, 9.9)
            told.progress.refresh()
        with told.aside():
            terminal.write("\nanother bar\n")
        told.say("a line above with a long text: " + "word " * 40)
        told.close()
    lines = terminal.lines()
    assert max(map(cell_len, lines)) <= 80
    assert any(re.search(r"epoch 120 .+ 3/123456 loss 1246.375 0.10 it/s 14 d 3:29:45 left", line) for line in lines)
    assert "another bar" in lines


@pytest.mark.parametrize("width", [60, 80, 140])
def test_tables_fit_the_width_and_names_are_no_markup(width):
    names = ["cat", "[red]dog[/red]", "[/]", "猫" * 40, "a very long name of a class " * 4]
    metrics = dict.fromkeys(AP, 0.125) | {f"{kind}/{name}": 0.5 for name in names for kind in ("AP", "AP50")}
    shown = io.StringIO()
    Console(file=shown, width=width).print(table(metrics, width))
    text = shown.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    assert text.count("0.125") == len(AP) and text.count("0.500") == 2 * len(names)
    assert all(name in text for name in ("cat", "[/]", *AP))
    assert width < 80 or "[red]dog[/red]" in text


def test_evaluation_has_a_bar(terminal, tmp_path):
    from boxops.data import open_dataset, transforms

    class Nothing(torch.nn.Module):
        def forward(self, images):
            empty = torch.zeros(0)
            return [{"boxes": torch.zeros(0, 4), "scores": empty, "labels": empty.long()} for _ in images]

    data = open_dataset("shapes", split="val", length=6, size=64, transform=transforms.evaluate())
    with redirect_stderr(terminal):
        evaluation.evaluate(Nothing(), data, batch_size=2, progress=True)
    assert any("evaluation" in line and "100%" in line for line in terminal.lines())
    assert max(map(cell_len, terminal.lines())) <= 80


def test_warnings_of_boxops_are_one_line_and_those_of_others_as_usual():
    usual = warnings.formatwarning
    assert cli._in_one_line(usual, "no font", UserWarning, cli.__file__, 3) == "boxops: no font\n"
    assert cli._in_one_line(usual, "old", UserWarning, torch.__file__, 3, "") == usual(
        "old", UserWarning, torch.__file__, 3, ""
    )
