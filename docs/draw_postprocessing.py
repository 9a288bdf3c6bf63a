"""Puts the numbers of `boxops bench --ops postprocess --json FILE` into the page: `draw_postprocessing.py FILE`."""

import sys
from pathlib import Path

from boxops.benchmarks import report

PAGE = Path(__file__).parent / "postprocessing.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def table(result):
    lines = ["| from what the network puts out | boxops | | | times faster |", "|---|---|---|---|---|"]
    for case in report.timed(result):
        for name, ratio in case["ratios"].items():
            arrays = "boxops NumPy" in case["timings"] and name in ("onnxruntime", "OpenCV", "SAHI")
            ours, theirs = (case["timings"][row]["median"] for row in ("boxops NumPy" if arrays else "boxops", name))
            same = case["differs"].get(name, "")
            note = f" ({same} differ)" if same else ""
            lines.append(
                f"| {case['label']} | {report.duration(ours)} | {name} | {report.duration(theirs)}{note} "
                f"| {report.times(ratio)} |"
            )
    lines += [f"\n{line}." for line in (report.notes(result)[0], *report.warnings(result))]
    return "\n".join(lines).replace(report.NO_BREAK, " ") + "\n"


def main(file):
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(report.load(file))}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
