"""`boxops bench` from the command line down: tiny cases, run for real."""

import json
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

import boxops
from boxops import reference
from boxops.cli import main

harness = pytest.importorskip("boxops.benchmarks.harness", exc_type=ImportError)
from boxops.benchmarks import case as cases  # noqa: E402
from boxops.benchmarks import machine, measure, report, terminal, timing  # noqa: E402

TINY = ["box_area 1 box", "nms 100 on*"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Little time per case, and no half gigabyte to copy."""
    monkeypatch.setattr(harness, "SHARE", {True: 0.1, False: 0.1})
    monkeypatch.setattr(harness, "QUICK", 600.0)
    monkeypatch.setattr(timing, "bandwidths", lambda *_: {"copy": 2e10, "fill": 4e9})
    monkeypatch.setenv("BOXOPS_NUM_THREADS", "1")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")


@pytest.fixture
def threads():
    torch = harness.torch
    before = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(before)


def bench(tmp_path, *options, status=0, ops=TINY):
    out = tmp_path / "out.json"
    assert main(["bench", "--ops", *ops, "--threads", "1", "--json", str(out), *options]) == status
    return json.loads(out.read_text())


pytestmark = pytest.mark.usefixtures("threads")


def test_json_has_the_machine_and_all_timings(tmp_path):
    result = bench(tmp_path, "--quick")
    assert result["schema"] == harness.SCHEMA
    assert result["options"] == {"device": "cpu", "dtype": "float32", "threads": 1, "quick": True}
    machine = result["machine"]
    assert machine["cpu"] and machine["device"] and machine["cores"] >= 1 and machine["threads"] == 1
    assert machine["packages"]["boxops"] == boxops.__version__
    assert set(machine["bandwidth"]) == {"copy", "fill"}
    assert [case["name"] for case in result["cases"]] == ["box_area 1 box", "nms 100 on 1,000 px"]
    for case in result["cases"]:
        assert case["error"] is None
        assert case["verified"] == "all values to the bit"
        assert {"boxops NumPy", "NumPy"} <= set(case["timings"])
        for taken in case["timings"].values():
            assert 0 < taken["min"] <= taken["q1"] <= taken["median"] <= taken["q3"]
            assert taken["blocks"] >= len(taken["rounds"]) >= 2
        assert case["ratios"]["NumPy"] == pytest.approx(
            case["timings"]["NumPy"]["median"] / case["timings"]["boxops NumPy"]["median"]
        )
        rate = case["bytes"] / case["timings"][case["ours"]]["median"]
        assert case["rate"] == pytest.approx(rate) and case["of_limit"] == pytest.approx(rate / 2e10)
    area, nms = result["cases"]
    assert area["bytes"] == 4 * 4 + 4
    assert nms["bytes"] == 100 * 5 * 4 + 8 * len(reference.nms(*harness.select(["nms 100 on*"])[0].make(), 0.5))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(tmp_path, dtype):
    if dtype == "bfloat16" and not harness.torch:
        pytest.skip("NumPy has no bfloat16")
    ops = ["box_area 1 box", "box_convert 1,000", "box_iou 100 x 100", "nms 100 on*"]
    assert not any(case["error"] for case in bench(tmp_path, "--dtype", dtype, ops=ops)["cases"])


def test_every_rival_is_timed_or_named_as_absent_or_as_failing(tmp_path):
    result = bench(tmp_path)
    for case, asked in zip(result["cases"], harness.select(TINY), strict=True):
        assert set(asked.rivals) <= {*case["timings"], *case["failed"], *result["absent"]}


def test_absent_rivals_are_named_with_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(machine, "ABSENT", absent := {})
    assert machine.rival("no_such_rival.sub") is None
    (tmp_path / "broken_rival.py").write_text("raise RuntimeError('built for another torch')")
    (tmp_path / "half_rival.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    assert machine.rival("broken_rival") is None and machine.rival("half_rival") is None
    assert absent == {
        "no_such_rival": "not installed: pip install no_such_rival",
        "broken_rival": "RuntimeError: built for another torch",
        "half_rival": "ModuleNotFoundError: No module named 'no_such_dependency'",
    }
    monkeypatch.setitem(harness.ABSENT, "powerboxes", "not installed: pip install powerboxes")
    monkeypatch.setitem(harness.ABSENT, "shapely", "not installed: pip install shapely")
    result = bench(tmp_path, "--quick")
    assert "shapely" not in result["absent"]  # no case of these would have it
    assert not any("powerboxes" in case["timings"] for case in result["cases"])
    assert "WARNING: not compared with powerboxes: not installed: pip install powerboxes" in capsys.readouterr().out


def test_a_busy_machine_is_told_alike_everywhere(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (7.25, 0, 0), raising=False)
    monkeypatch.setattr(machine.Watch, "others", lambda self: 1.3)
    page = tmp_path / "out.html"
    result = bench(tmp_path, "--quick", "--html", str(page))
    assert len(result["warnings"]) == 2
    assert "load 7.2 on 2 cores" in result["warnings"][0] and "1.3 of 2 cores" in result["warnings"][1]
    printed, body = capsys.readouterr().out, page.read_text("utf-8").partition("<h2>")[0]  # at the top
    for line in result["warnings"]:
        assert f"WARNING: {line}" in printed and f'<p class="warning">{line}</p>' in body


def test_a_quiet_machine_gives_no_warning():
    assert machine.busy(0.5, 0.1, 2) == machine.busy(None, None, 2) == []


def test_others_are_what_this_process_did_not_do(monkeypatch):
    readings = iter([(10.0, 3.0, 100.0), (20.0, 8.0, 118.0)])
    monkeypatch.setattr(machine.Watch, "_now", staticmethod(lambda: next(readings)))
    assert machine.Watch().others() == pytest.approx(1.3)


def test_quick_with_no_time_at_all_times_one_case(tmp_path, monkeypatch):
    """As on a machine so busy that torch and the rivals take the whole time to import."""
    monkeypatch.setattr(harness, "QUICK", -100.0)
    result = bench(tmp_path, "--quick", "--html", str(tmp_path / "page.html"))
    assert [case["name"] for case in result["cases"]] == ["nms 100 on 1,000 px"] and "boxops" in result["cases"][0][
        "timings"
    ]
    assert result["left_out"] == ["box_area 1 box"] and "--quick left out 1 of 2 cases" in result["warnings"][-2]


def slow_case(op, label, seconds):
    def ours(boxes):
        time.sleep(seconds)
        return boxes

    return harness.Case(
        op, label, 2000, lambda: (np.zeros((4, 4), np.float32),), ours, lambda boxes: boxes, cases.whole
    )


def test_quick_keeps_its_time_and_says_what_it_left_out(monkeypatch):
    monkeypatch.setattr(harness, "QUICK", 1.0 + harness.KEPT)
    many = [slow_case(op, f"{i} boxes", 0.05) for op in ("nms", "box_iou", "box_area") for i in range(20)]
    begin = time.perf_counter()
    result = harness.run(many, quick=True)
    assert time.perf_counter() - begin < 6  # all would take some 20 s
    done, left_out = {case["name"] for case in result["cases"]}, set(result["left_out"])
    assert done | left_out == {case.name for case in many} and not done & left_out and left_out
    assert {case["op"] for case in result["cases"]} == {"nms", "box_iou", "box_area"}
    assert f"--quick left out {len(left_out)} of 60 cases" in result["warnings"][-2]
    short = [case for case in result["cases"] if case["turns"] == 1]
    assert short and f"--quick timed {len(short)} case" in result["warnings"][-1]
    assert [case["name"] for case in result["cases"]] == [case.name for case in many if case.name in done]


def test_the_time_of_quick_begins_with_the_command(monkeypatch):
    monkeypatch.setattr(harness, "QUICK", 30.0)
    some = [slow_case("nms", label, 0.0) for label in ("2 boxes", "3 boxes")]
    for before, left_out in ((5, []), (14, [some[1].name])):  # of 30 s 14 are gone, as many may be needed at the end
        assert harness.run(some, quick=True, began=time.perf_counter() - before)["left_out"] == left_out
    assert harness.run(some, quick=False, began=time.perf_counter() - 1e6)["left_out"] == []


def every_case_at_its_widest():
    """A result in which every case of the benchmark has all its rivals."""
    taken = {"median": 0.00123, "q1": 0.001, "q3": 0.0015, "min": 0.001, "blocks": 3}
    result = []
    for case in harness.families():
        ratios = {name: 0.33 if i % 2 else 12345.0 for i, name in enumerate([*case.rivals, "NumPy"])}
        result.append({"name": case.name, "op": case.op, "label": case.label, "error": None, "ours": "boxops"}
            | {"timings": {"boxops": taken, "boxops NumPy": taken}, "ratios": ratios, "limit": case.limit}
            | {"bytes": 10**6, "rate": 1e9, "of_limit": 1.23}
            | {"goal": {"rival": "ensemble-boxes", "ratio": 50, "met": False}}
            | {"failed": {}, "differs": dict.fromkeys(case.rivals, "1 of 9 values")})  # fmt: skip
    return {"cases": result}


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("width", [80, 100, 120, 160, None])
def test_no_column_is_cut(monkeypatch, capsys, width, rich):
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(terminal, "RICH", terminal.RICH and rich)
    result = every_case_at_its_widest()
    terminal.print_table("", report.COLUMNS, map(report.cells, result["cases"]), spare=report.SPARE)
    terminal.print_table("margins", report.MARGINS, report.margins(result))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= (width or 280)
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    words = printed.split()
    for case in result["cases"]:
        assert {word for word in case["name"].split()} <= set(words)
        for name, ratio in case["ratios"].items():  # the ratio and its rival on one line
            assert f"{report.times(ratio)} {name}" in printed
    if width is None:
        assert all(f"\n{case['name']} " in printed for case in result["cases"])
    left_out = re.search(r"no room in \d+ columns for: (.*)\)", printed)
    shown = set(report.COLUMNS) - set(left_out[1].split(", ") if left_out else ())
    assert {"case", "boxops", "times faster than", "goal"} <= shown
    assert (width or 200) < 120 or not left_out


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_of_the_detectors_are_not_cut_either(monkeypatch, capsys, width):
    models = pytest.importorskip("boxops.benchmarks.models", exc_type=ImportError)
    monkeypatch.setenv("COLUMNS", str(width))
    one, other = ({"total": total, "box_ops": 0.0123, "stages": {"matching": 0.00123}} for total in (0.123, 1.23))
    rows = [{"detector": name, "images": 8, "side": 480, "job": job, "boxops": one, "twin": other}
            for name, *_ in models.DETECTORS for job in ("training step", "inference")]  # fmt: skip
    rows.append({"detector": "ssd", "error": "wrong detections: 7 of 9"})
    packages = {"device": "CPU", "threads": 2, "packages": {}}
    seconds = {"boxops": 1.23e-5, "OpenCV dnn, ONNX": 0.123, "ultralytics": 1.23e-4}
    jobs = [f"decode, detect > {least}" for least in models.yolo.yolo_post.THRESHOLDS]
    yolo = [{"network": name, "job": job, "seconds": seconds, "missing": {"onnxruntime": "pip install onnxruntime"}}
            for name in models.yolo.NETWORKS for job in jobs]  # fmt: skip
    result = {"models": rows, "stages": [], "yolo": yolo, "machine": packages, "warnings": ["the machine was busy"]}
    models.show(result)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for name in [*(detector[0] for detector in models.DETECTORS), *models.yolo.NETWORKS, *seconds, *jobs]:
        assert name in printed
    assert printed.count("10.0" + report.X) == len(rows) - 1 + len(yolo)
    assert printed.rstrip().endswith("WARNING: NOT TIMED ssd: wrong detections: 7 of 9\nWARNING: the machine was busy")


def test_the_plots_have_a_colour_for_every_rival():
    plots = pytest.importorskip("boxops.benchmarks.plots", exc_type=ImportError)
    assert {name for case in harness.families() for name in case.rivals} <= set(plots.ROWS)
    assert all(plots.colour(row) for row in plots.ROWS)


def test_the_smallest_margin_of_each_op_is_shown(tmp_path, capsys):
    result = bench(tmp_path, "--quick")
    printed = capsys.readouterr().out
    for op, (ratio, rival, label) in report.least(result).items():
        of_op = [case for case in result["cases"] if case["op"] == op]
        assert ratio == min(report.smallest(case)[0] for case in of_op)
        assert ratio <= min(r for case in of_op for name, r in case["ratios"].items() if name != "NumPy")
        assert re.search(rf"^{op} +{report.times(ratio)} +{rival} +{label}", printed, re.MULTILINE)


def test_a_wrong_result_is_refused(tmp_path, monkeypatch, capsys):
    right = boxops.box_area
    monkeypatch.setattr(boxops, "box_area", lambda boxes: right(boxes) * 1.0001)
    area, nms = bench(tmp_path, status=1)["cases"]
    assert area["error"].startswith("wrong result: 1 of 1 values, first at [0]: expected")
    assert "timings" not in area and nms["timings"]
    assert "WARNING: NOT TIMED box_area 1 box: wrong result" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda keep: keep[:-1], lambda keep: keep[::-1], lambda keep: np.delete(keep, 7)])
def test_the_greedy_rule_finds_a_wrong_keep_list(damage):
    from boxops.benchmarks import nms

    case = next(case for case in nms.CASES if case.n == 5000)
    arrays = case.make()
    keep = np.asarray(boxops.nms(*arrays, nms.IOU))
    assert "5,000 of 5,000" in nms.greedy(case, arrays, keep, count=5000)
    with pytest.raises(cases.Wrong):
        nms.greedy(case, arrays, damage(keep), count=5000)


def test_same_compares_shape_dtype_and_nan():
    cases.same(np.array([np.nan, 1.0]), np.array([np.nan, 1.0]))
    for other in (np.array([0.0, 1.0]), np.array([np.nan, 1.0], np.float32), np.array([[np.nan, 1.0]])):
        with pytest.raises(cases.Wrong):
            cases.same(other, np.array([np.nan, 1.0]))


def test_page_and_picture_need_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("matplotlib")
    page, plot = tmp_path / "out.html", tmp_path / "out.svg"
    ops = ["box_area", "box_iou 1 x 1 box"]
    bench(tmp_path, "--quick", "--html", str(page), "--plot", str(plot), ops=ops)
    for text in (page.read_text("utf-8"), plot.read_text("utf-8")):
        assert not re.search(
            r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import""", text
        )
        assert "<script" not in text and "<link" not in text
        assert "prefers-color-scheme" in text and "<svg" in text
        assert "#2563eb" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)  # colours are variables
    assert page.read_text("utf-8").count("<svg") == 3


def test_picture_as_png(tmp_path):
    pytest.importorskip("matplotlib")
    bench(tmp_path, "--plot", str(tmp_path / "out.png"), ops=["nms 100 on*"])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_baseline(tmp_path, capsys):
    old = bench(tmp_path)
    for case, factor in zip(old["cases"], (100, 0.01), strict=True):
        for taken in (case["timings"][case["ours"]],):
            for key in ("median", "q1", "q3"):
                taken[key] *= factor
    (tmp_path / "old.json").write_text(json.dumps(old))
    capsys.readouterr()
    new = bench(tmp_path, "--baseline", str(tmp_path / "old.json"))
    verdicts = {row[0][0]: row[-1][0] for row in report.compare(new, old)}
    assert verdicts == {"box_area 1 box": "faster", "nms 100 on 1,000 px": "slower"}
    printed = capsys.readouterr().out
    assert "faster" in printed and "slower" in printed
    assert report.differing(new, old) == []


def one_case(ours, rival):
    taken = {name: {"median": t, "q1": t * 0.99, "q3": t * 1.01} for name, t in (("boxops", ours), ("torch", rival))}
    return {
        "cases": [{"name": "x", "error": None, "ours": "boxops", "timings": taken, "ratios": {"torch": rival / ours}}]
    }


@pytest.mark.parametrize(
    ("ours", "rival", "verdict"),
    [
        (1.0, 1.0, "within the spread"),
        (1.03, 1.0, "within the spread"),
        (1.5, 1.0, "slower"),
        (0.5, 1.0, "faster"),
        (1.5, 1.5, "as its rivals"),
        (1.5, 2.5, "as its rivals"),
    ],
)
def test_a_change_counts_only_beyond_the_spread_and_the_rivals(ours, rival, verdict):
    assert report.compare(one_case(ours, rival), one_case(1.0, 1.0))[0][-1][0] == verdict


def test_without_rich_the_table_is_plain(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(terminal, "RICH", False)
    bench(tmp_path)
    assert re.search(r"^box_area 1 box +\d", capsys.readouterr().out, re.MULTILINE)


def test_without_torch_arrays_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "torch", None)
    monkeypatch.setattr(measure, "torch", None)
    monkeypatch.setattr(timing, "torch", None)
    monkeypatch.setitem(harness.ABSENT, "torch", "not installed")
    monkeypatch.setitem(harness.ABSENT, "torchvision", "not installed")
    monkeypatch.setattr(cases, "torch", None)
    result = bench(tmp_path)
    assert all(case["ours"] == "boxops NumPy" and case["timings"] for case in result["cases"])
    assert result["absent"]["torchvision"] == "not installed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ops", "nmx"], "expected --ops among grid_anchors,"),
        (["--ops", "nms 20,000*", "--quick"], "got only such that --quick leaves out"),
        (["--threads", "0"], "expected --threads >= 1, got 0"),
        (["--busy", "--threads", "1"], "expected --threads >= 2 with --busy, got 1"),
        (["--baseline", "no-such-file"], "expected a file written by --json, got no-such-file"),
    ],
)
def test_bad_options(options, message, capsys):
    assert main(["bench", *options]) == 2
    assert message in capsys.readouterr().err


def test_busy(tmp_path, capsys):
    pytest.importorskip("torch")
    out = tmp_path / "busy.json"
    options = ["--ops", "encode_boxes 20,000", "box_iou 1 x 1*", "--quick", "--json", str(out)]
    assert main(["bench", "--busy", "--threads", "2", *options]) == 0
    (row,) = report.load(out)["busy"]  # a single pair is no work to divide
    assert row["name"] == "encode_boxes 20,000" and row["name"] in capsys.readouterr().out
    assert all(row[f"{state} {kind}"]["median"] > 0 for state in ("idle", "busy") for kind in ("serial", "threaded"))


def test_cuda_needs_a_device(monkeypatch, capsys):
    if harness.torch and harness.torch.cuda.is_available():
        monkeypatch.setattr(harness, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    assert main(["bench", "--device", "cuda"]) == 2
    assert "expected a CUDA device" in capsys.readouterr().err


def test_the_cases_of_the_speed_table():
    goals = {case.name: case.goal for case in harness.families() if case.goal[1] > 1}
    wanted = {
        "box_iou 5,000 x 5,000": ("torchvision", 12),
        "generalized_box_iou 5,000 x 5,000": ("torchvision", 35),
        "nms 1,000 on 1,000 px": ("torchvision", 8),
        "nms 20,000 on 1,000 px": ("torchvision", 50),
        "nms 100,000 on 10,000 px": ("powerboxes", 10),
        "batched_nms 20,000 in 80 classes": ("torchvision", 6),
        "match_max_iou 200,000 anchors (random) x 50": ("torchvision", 30),
        "match_greedy 200,000 anchors (random) x 50": ("NumPy", 50),
        "roi_align 512": ("torchvision", 4),
        "roi_align 512, backward": ("torchvision", 8),
        "roi_pool 512": ("torchvision", 4),
        "linear_sum_assignment 64 x 300 x 50": ("SciPy", 3),
        "multibox_anchors 200 x 334, 334,000": ("torch", 5),
        "grid_anchors 5 levels, 267,069": ("torchvision", 5),
        "generate_proposals 2 x 268,506": ("torchvision", 3),
        "soft_nms 5,000, gaussian": ("ensemble-boxes", 10),
        "weighted_boxes_fusion 3 x 2,000, 1 label": ("ensemble-boxes", 10),
    }
    assert {name: goals.get(name) for name in wanted} == wanted
    names = [case.name for case in harness.families()]
    assert len(names) == len(set(names))


def test_every_op_has_a_case_with_one_box():
    ones = {case.op for case in harness.families() if case.n <= 5}  # of one cell there may be several anchors
    assert ones == set(boxops.__all__)
