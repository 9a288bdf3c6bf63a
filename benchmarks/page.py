"""The result as one HTML page that needs nothing from elsewhere: inline SVG, inline style, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from . import plots, report

CSS = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--font);-webkit-font-smoothing:antialiased}
main{max-width:1120px;margin:0 auto;padding:56px 28px 80px}
header p,.lead,figcaption,footer{color:var(--muted)}
h1{font-size:34px;line-height:1.2;letter-spacing:-.02em;margin:0 0 6px;font-weight:650}
h2{font-size:20px;letter-spacing:-.01em;margin:64px 0 4px;font-weight:650}
p{margin:0 0 10px}.lead{max-width:74ch;margin-bottom:18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:32px 0 0}
.tile{border:1px solid var(--grid);border-radius:12px;padding:16px 18px}
.tile b{display:block;font-size:28px;line-height:1.2;letter-spacing:-.02em;font-weight:650}
.tile span{color:var(--muted);font-size:14px}
figure{margin:0;overflow-x:auto}figure svg{display:block;width:100%;min-width:760px;height:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th{font-weight:500;color:var(--muted);text-align:right;border-bottom:1px solid var(--grid)}
th{vertical-align:bottom;line-height:1.3}
th,td{padding:4px 0 4px 13px}td{white-space:nowrap}td{text-align:right}
th:first-child,td:first-child{text-align:left;padding-left:0}
tr.first td{border-top:1px solid var(--grid)}tbody tr:first-child td{border-top:0}
td small{color:var(--muted);font-size:inherit}
.ours{font-weight:650}.dim{color:var(--muted)}.good{color:var(--powerboxes)}.bad{color:var(--bad);font-weight:650}
.warning{border-left:3px solid var(--bad);padding:4px 14px;margin:20px 0 0;overflow-wrap:anywhere}
td.wraps{white-space:normal;min-width:215px}
ul{padding-left:18px;margin:8px 0}li{margin:3px 0}footer{font-size:14px;margin-top:48px}
@media (max-width:640px){main{padding:32px 16px 56px}h1{font-size:26px}}
"""


def page(result: report.Result, baseline: report.Result | None = None) -> str:
    machine, options, cases = result["machine"], result["options"], report.timed(result)
    compared = [case for case in cases if case["ratios"]]
    title = f"boxops {machine['packages']['boxops'] or ''} on {machine['device']}"
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_facts(result))}</p></header>",
        *(f'<p class="warning">{escape(line)}</p>' for line in report.warnings(result)),
        _tiles(result),
    ]
    if compared:
        body += _section(
            "Times faster",
            "Than the strongest rival of the case, named behind the bar; red where it is faster. "
            "Marks are the goals beyond even, where they are against that rival.",
            plots.svg_of(plots.ratio_bars(compared), "Times faster than the strongest rival, per case"),
        )
    if cases and (lines := plots.speed(cases)):
        body += _section(
            "Time against N",
            "Median time of one call; the band is the middle half of the measurements. "
            "Pairwise measures compare N boxes with N.",
            plots.svg_of(lines, "Time of a call against the number of boxes"),
        )
    if cases:
        body += _section(
            "Under the roof",
            "Bytes that must move (inputs and outputs, once each) over the time taken. Left, the cost of a call is the "
            "roof; right, the bandwidth measured in this run. Between them data fits the caches and may pass the roof. "
            "NMS moves little and computes much: it lies below.",
            plots.svg_of(plots.roofline(cases, machine["bandwidth"]), "Memory roofline"),
        )
        body += ["<h2>Smallest margins</h2>", _table(report.MARGINS, report.margins(result))] if compared else []
        body += ["<h2>Every case</h2>", _table(report.COLUMNS, map(report.cells, cases))]
    if baseline:
        body += ["<h2>Against the baseline</h2>", _table(report.COMPARED, report.compare(result, baseline))]
        body += [_list(report.differing(result, baseline))]
    body += ["<h2>How this was measured</h2>", _list([*METHOD[options["device"]], *report.notes(result)])]
    if cases:
        body += ["<h2>What was verified</h2>", _table(["case", "compared"], [_verified(case) for case in cases])]
    style = plots.variables() + CSS
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


METHOD = {
    "cpu": [
        "Every result was verified before its op was timed; a wrong one is refused.",
        "boxops and its rivals took turns in one process, so that a slow spell of the machine falls on all of them. "
        "Times are medians over all turns; the spread is half the distance between the quartiles.",
        "Every rival was called as its users call it, with inputs in its own dtypes and units, and its result was "
        "compared with boxops' in the same run: one that differs in more than 1 % of the values is not timed, a "
        "smaller difference (a decision near a threshold, in another precision) has a * and a line below.",
        "torch and torchvision take tensors, all others NumPy arrays, and are compared with boxops on the same. "
        "NumPy is boxops' own reference, the specification: slow and obvious, timed up to 1,000 boxes only.",
    ],
    "cuda": [
        "Every result was verified before its op was timed; a wrong one is refused.",
        "boxops and its rivals took turns. Times are on the device, by events around each call, the L2 cache "
        "overwritten before it; one-box calls are wall time, for there the host is what matters.",
        "SciPy, lap and ensemble-boxes run on the host: their times hold the copies there. powerboxes, lsnms, "
        "pycocotools, shapely and NumPy are left out.",
    ],
}


def _facts(result: report.Result) -> str:
    machine, options = result["machine"], result["options"]
    packages = [f"{name} {machine['packages'][name]}" for name in ("torch", "torchvision") if machine["packages"][name]]
    run = "quick run" if options["quick"] else "full run"
    parts = [
        options["dtype"],
        f"{options['threads']} of {machine['cores']} cores",
        *packages,
        machine["date"][:10],
        run,
    ]
    return " · ".join(parts)


def _tiles(result: report.Result) -> str:
    cases, every = report.timed(result), result["cases"]
    tiles = [(f"{len(cases)} of {len(every)}", "results verified, then timed")]
    compared = [case for case in cases if case["ratios"]]
    if compared:
        ratios = [report.smallest(case)[0] for case in compared]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        tiles.append((report.times(mean), f"faster than the strongest rival, geometric mean of {len(ratios)} cases"))
        tiles.append((f"{sum(ratio < 1 for ratio in ratios)} of {len(ratios)}", "cases in which a rival is faster"))
    goals = [case["goal"]["met"] for case in cases if case["goal"]["met"] is not None]
    if goals:
        tiles.append((f"{sum(goals)} of {len(goals)}", "goals met, each against one rival"))
    tiles.append(
        (f"{result['machine']['bandwidth']['copy'] / 1e9:.1f} GB/s", "copy bandwidth of this machine, in this run")
    )
    inside = (f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{"".join(inside)}</div>'


def _section(title: str, lead: str, svg: str) -> list[str]:
    return [f'<h2>{title}</h2><p class="lead">{lead}</p><figure>{svg}</figure>']


def _table(names: Sequence[str], rows: Iterable[Sequence[report.Cell]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines, last = [], None
    for (name, _), *rest in rows:
        op, _, label = name.partition(" ")
        first = ' class="first"' if op != last else ""
        last = op
        cells = "".join(f'<td class="{mood}{" wraps" * (len(text) > 24)}">{escape(text)}</td>' for text, mood in rest)
        lines.append(f"<tr{first}><td>{escape(op)} <small>{escape(label)}</small></td>{cells}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _verified(case: dict[str, Any]) -> list[report.Cell]:
    return [(case["name"], ""), (case["verified"], "")]
