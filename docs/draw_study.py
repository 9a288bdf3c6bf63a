"""Puts a study of `boxops study regions` into the documentation: `python docs/draw_study.py study-regions`.

Its table and pictures go into docs/models/study.md between the markers, the bars to docs/pictures/study_regions.svg,
its numbers to docs/models/runs/, and what the four detectors see in its image to docs/pictures/study_compare.jpg.
"""

import re
import shutil
import sys
from pathlib import Path

from boxops.cli import main as boxops
from boxops.studies import regions
from boxops.studies.regions_report import markdown

DOCS = Path(__file__).parent
PICTURES = """
![training and test times, ours beside the papers'](../pictures/study_regions.svg)

{table}
What the four see in an image that none of them learnt from, by `boxops detect --compare`:

![detections of all four, side by side](../pictures/study_compare.jpg)
"""
BEGIN, END = "<!-- study: python docs/draw_study.py -->", "<!-- end of study -->"


def main(folder):
    results = regions.read(folder)
    if results is None or list(results["systems"]) != list(regions.PAPERS):
        sys.exit(f"{folder}: expected a whole study of boxops study regions")
    shutil.copy(folder / "regions.svg", DOCS / "pictures/study_regions.svg")
    for kind in ("csv", "json"):  # files by their names alone
        text = re.sub(r'(?<=[ "])/[^ "]*/', "", (folder / f"regions.{kind}").read_text())
        (DOCS / f"models/runs/study_regions.{kind}").write_text(text)
    page = DOCS / "models/study.md"
    block = f"{BEGIN}\n{PICTURES.format(table=markdown(results))}\n{END}"
    page.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: block, page.read_text(), flags=re.DOTALL))
    checkpoints = [str(folder / system / "last.pt") for system in results["systems"]]
    picture = DOCS / "pictures/study_compare.jpg"
    words = ["--compare", *checkpoints, "--out", str(picture), "--overwrite"]
    return boxops(["detect", str(folder / "rcnn/image.jpg"), *words])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
