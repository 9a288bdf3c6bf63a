"""The rivals of `boxops bench`: those that give boxops' answer are timed, the others named."""

import dataclasses
import re
import time

import numpy as np
import pytest

import boxops
from boxops import reference

harness = pytest.importorskip("boxops.benchmarks.harness", exc_type=ImportError)
from boxops.benchmarks import case as cases  # noqa: E402
from boxops.benchmarks import measure, report, terminal, timing  # noqa: E402


@pytest.fixture(autouse=True)
def little_time(monkeypatch):
    monkeypatch.setattr(harness, "SHARE", {True: 0.1, False: 0.1})
    monkeypatch.setattr(timing, "bandwidths", lambda *_: {"copy": 2e10, "fill": 4e9})
    torch = harness.torch
    before = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(before)


class Panic(BaseException):
    """As the exceptions of Rust's bindings."""


def against(monkeypatch, rival, n=200):
    """box_area of n boxes, timed against one rival in powerboxes' place."""
    monkeypatch.delitem(harness.ABSENT, "powerboxes", raising=False)
    (case,) = harness.select(["box_area 1,000"])
    make = case.make
    case = dataclasses.replace(case, make=lambda: (make()[0][:n],), rivals={"powerboxes": rival})
    result = harness.run([case])
    return result, result["cases"][0]


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), Panic("no kernel")])
def test_a_rival_that_fails_is_named(monkeypatch, error):
    def broken(boxes):
        raise error

    result, measured = against(monkeypatch, broken)
    assert measured["failed"] == {"powerboxes": f"{type(error).__name__}: no kernel"}
    assert "powerboxes" not in measured["timings"] and measured["timings"]
    assert f"powerboxes fails on box_area 1,000: {type(error).__name__}: no kernel" in report.notes(result)
    assert "fails" in report.rivals(measured)[0]


def areas(wrong):
    """A rival's areas, of which so many are wrong."""

    def call(boxes):
        found = reference.box_area(boxes).astype(np.float64)
        found[:wrong] *= 1.01
        return found

    return call


def test_a_rival_with_another_answer_is_not_compared(monkeypatch):
    result, measured = against(monkeypatch, areas(3))
    assert measured["failed"] == {"powerboxes": "another answer, so not compared: 3 of 200 values differ"}
    assert "powerboxes" not in measured["ratios"]
    result, measured = against(monkeypatch, areas(2))
    assert measured["differs"] == {"powerboxes": "2 of 200 values"} and measured["ratios"]["powerboxes"] > 0
    assert f"{terminal.NO_BREAK}powerboxes*" in report.rivals(measured)[0]
    assert "* powerboxes on box_area 1,000: 2 of 200 values differ" in report.notes(result)


def test_rivals_get_their_own_inputs_before_the_clock_starts(monkeypatch):
    seen = []

    def call(boxes):
        seen.append(boxes.dtype)
        return reference.box_area(boxes)

    times = []
    given = lambda boxes: (times.append(1) or boxes.astype(np.float64),)  # noqa: E731
    _, measured = against(monkeypatch, cases.Rival(call, given=given, answer=lambda theirs, ours: (theirs, ours)))
    assert len(times) == 1 and set(seen) == {np.dtype(np.float64)} and "powerboxes" in measured["ratios"]


def test_quick_calls_a_slow_rival_once(monkeypatch):
    monkeypatch.setattr(measure, "TOO_LONG", 0.05)
    calls = []
    (case,) = harness.select(["box_area 1,000"])
    rivals = {"slow": lambda boxes: calls.append(1) or time.sleep(0.1), "same": lambda boxes: boxops.box_area(boxes)}
    case = dataclasses.replace(case, rivals=rivals)
    measured = measure.Bench(case, "cpu", "float32", 1, {"copy": 1e9}).run(0.0, (1, 1), most=0.0)
    assert len(calls) == 1 and "same" in measured["ratios"] and measured["turns"] == 1
    assert re.fullmatch(r"its first call took \d\.\d s, more than --quick has for it", measured["failed"]["slow"])


def test_differing_counts_values_beyond_rounding():
    ours = np.arange(5000.0, dtype=np.float32)
    assert cases.differing(ours.astype(np.float64) * (1 + 1e-5), ours) == (0, 5000)
    assert cases.differing(np.where(ours == 7, 8, ours), ours) == (1, 5000)
    assert cases.differing(np.arange(5000) + 1, np.arange(5000)) == (5000, 5000)  # integers have no rounding
    assert cases.differing(ours[:-1], ours)[0] == 5000
    assert cases.differing([ours], [ours, ours])[0] > 0
    assert cases.differing({1, 2}, {2, 3}) == (2, 3)
    assert cases.differing(np.array([np.nan]), np.array([np.nan])) == (0, 1)


def test_present_rivals_agree_with_boxops():
    """In every op and form, where boxes are few."""
    disagree = {}
    for case in harness.families():
        if case.n > 300 or case.heavy or (case.tensors_only and case.n > 8):
            continue
        case = dataclasses.replace(case, check=lambda *_: "")  # boxops itself is verified elsewhere
        bench = measure.Bench(case, "cpu", "float32", 1, {})
        try:
            rows, ours, *_ = bench._verified_rows()
        except ValueError:  # needs torch
            continue
        _, failed, differs = bench._rivals(rows, ours)
        disagree |= {case.name: failed | differs} if failed or differs else {}
    assert not disagree


def test_the_strongest_rivals_are_there():
    rivals = {}
    for case in harness.families():
        rivals.setdefault(case.op, set()).update(case.rivals)
    assert rivals["rotated_box_iou"] >= {"torchvision", "powerboxes"}
    assert "powerboxes" in rivals["rotated_nms"] and "powerboxes" in rivals["batched_rotated_nms"]
    assert rivals["linear_sum_assignment"] >= {"SciPy"} and rivals["linear_sum_assignment"] & {"lap", "lapx"}
    assert rivals["nms"] >= {"torchvision", "powerboxes", "lsnms"} and rivals["batched_nms"] >= {"torchvision", "lsnms"}
    assert "pycocotools" in rivals["box_ioa"] and "powerboxes" in rivals["masks_to_boxes"]
    assert all(rivals.values())  # no op without one
