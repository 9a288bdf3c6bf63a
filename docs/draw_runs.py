"""Draws the losses and AP50 of training runs as docs/pictures/runs.svg: `python docs/draw_runs.py ssd=runs/ssd ...`.

Their logs, every tenth step, go into docs/models/runs/.
"""

import csv
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent


def rows(file):
    with open(file) as opened:
        return list(csv.DictReader(opened))


def main(runs):
    plt.rcParams |= {"font.size": 9, "svg.hashsalt": "boxops", "figure.constrained_layout.use": True}
    figure, axes = plt.subplots(2, len(runs), figsize=(3.6 * len(runs), 4.6), squeeze=False, sharex="col")
    (DOCS / "models/runs").mkdir(exist_ok=True)
    for (name, folder), (upper, lower) in zip(runs, axes.T, strict=True):
        log = rows(folder / "log.csv")
        steps = np.array([int(row["step"]) for row in log])
        for key in [key for key in log[0] if key not in ("step", "epoch", "lr", "loss", "seconds")]:
            values = np.convolve([float(row[key]) for row in log], np.ones(20) / 20, "valid")
            upper.plot(steps[19::5], values[::5], label=key.removeprefix("loss_"), linewidth=1)
        upper.set_title(f"{name}: losses, means of 20 steps")
        upper.set_yscale("log")
        upper.legend(fontsize=7)
        if (folder / "metrics.csv").exists():
            metrics = rows(folder / "metrics.csv")
            at = [int(row["step"]) for row in metrics]
            for key in [key for key in metrics[0] if "AP50" in key]:
                values = [float(row[key]) for row in metrics]
                lower.plot(at, values, "o-", markersize=3, label=key.removeprefix("box_"), linewidth=1)
            lower.set_ylim(0, 1)
            lower.legend(fontsize=7)
            lower.set_title("AP50 on held-out images")
            shutil.copy(folder / "metrics.csv", DOCS / f"models/runs/{name}_metrics.csv")
        else:
            lower.set_axis_off()
        lower.set_xlabel("step")
        lines = (folder / "log.csv").read_text().splitlines(keepends=True)
        (DOCS / f"models/runs/{name}_log.csv").write_text("".join([lines[0], *lines[1::10]]))
    figure.savefig(DOCS / "pictures/runs.svg", metadata={"Date": None})


if __name__ == "__main__":
    main([(name, Path(folder)) for name, _, folder in (argument.partition("=") for argument in sys.argv[1:])])
