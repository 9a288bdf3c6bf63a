"""Puts a study into the documentation: `python docs/draw_study.py study-regions`, or the folder of another one.

Its table and picture go into docs/models/study.md between the study's markers, the picture also to docs/pictures/, its
numbers to docs/models/runs/. Of `boxops study regions` what the four detectors see in its image is drawn too.
"""

import re
import shutil
import sys
from pathlib import Path

from boxops.cli import main as boxops
from boxops.studies import increments_report, regions, regions_report, store

DOCS = Path(__file__).parent
PICTURE = "\n![{alt}](../pictures/study_{study}.svg)\n\n{table}\n"
COMPARED = """What the four see in an image that none of them learnt from, by `boxops detect --compare`:

![detections of all four, side by side](../pictures/study_compare.jpg)

"""
STUDIES = {  # each: its table, and what its picture shows
    "regions": (regions_report.markdown, "training and test times, ours beside the papers'"),
    "tricks": (increments_report.markdown, "AP50 of each row and seed, beside the paper's mAP"),
    "classification": (increments_report.markdown, "top-1 accuracy of each row and seed, beside the paper's"),
}


def main(folder):
    found = [(name, results) for name in STUDIES if (results := store.read(folder / f"{name}.json", name))]
    if len(found) != 1 or not whole(*found[0]):
        sys.exit(f"{folder}: expected a whole study of {', '.join(STUDIES)}")
    ((study, results),) = found
    shutil.copy(folder / f"{study}.svg", DOCS / f"pictures/study_{study}.svg")
    for kind in ("csv", "json"):  # files by their names alone
        text = re.sub(r'(?<=[ "])/[^ "]*/', "", (folder / f"{study}.{kind}").read_text())
        (DOCS / f"models/runs/study_{study}.{kind}").write_text(text)
    table, alt = STUDIES[study]
    text = PICTURE.format(alt=alt, study=study, table=table(results)) + (COMPARED if study == "regions" else "")
    begin, end = f"<!-- {study}: python docs/draw_study.py -->", f"<!-- end of {study} -->"
    page = DOCS / "models/study.md"
    page.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}{end}", page.read_text(), flags=re.DOTALL))
    return compare(folder, results) if study == "regions" else 0


def whole(study, results):
    if study == "regions":
        return list(results["systems"]) == list(regions.PAPERS)
    return all(entry["values"] for entry in increments_report.table(results))


def compare(folder, results):
    checkpoints = [str(folder / system / "last.pt") for system in results["systems"]]
    picture = DOCS / "pictures/study_compare.jpg"
    words = ["--compare", *checkpoints, "--out", str(picture), "--overwrite"]
    return boxops(["detect", str(folder / "rcnn/image.jpg"), *words])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
