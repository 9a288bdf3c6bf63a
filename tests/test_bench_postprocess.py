"""`boxops bench --ops postprocess` on small images: the lines of the page, and what is compared."""

import inspect
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import boxops
from boxops import reference

harness = pytest.importorskip("boxops.benchmarks.harness", exc_type=ImportError)
torch = pytest.importorskip("torch")
from boxops.benchmarks import case as cases  # noqa: E402
from boxops.benchmarks import machine, outputs, post_ours, post_theirs, postprocess  # noqa: E402

SIZE = (256, 320)
YOLO = outputs.yolo(side=160, count=8)
OBB, LOOSE = (outputs.oriented(spread, side=192, across=3) for spread in (0.015, 0.1))  # rules differ on the second
LEVELS = outputs.levels(SIZE)
SSD, RCNN = {"size": (300, 300)}, {"size": outputs.IMAGE}
RETINA = {"size": SIZE, "levels": LEVELS}
PIPELINES = {
    "yolo": (YOLO, post_ours.yolo_multi_label, postprocess.reference_yolo),
    "yolo best": (YOLO, post_ours.yolo_best_class, partial(postprocess.reference_yolo, conf=0.25, best=True)),
    "yolo arrays": (YOLO, postprocess.arrays_or_tensors, postprocess.reference_yolo),
    "rotated": (OBB, partial(post_ours.yolo_rotated, classes=15), partial(postprocess.reference_rotated, classes=15)),
    "loose": (LOOSE, partial(post_ours.yolo_rotated, classes=15), partial(postprocess.reference_rotated, classes=15)),
    "ssd": (outputs.ssd(), partial(post_ours.ssd, **SSD), partial(postprocess.reference_ssd, **SSD)),
    "rcnn": (outputs.rcnn(2, 50), partial(post_ours.faster_rcnn, **RCNN), partial(postprocess.reference_rcnn, **RCNN)),
    "retinanet": (outputs.retinanet(SIZE), partial(post_ours.retinanet, **RETINA),
                  partial(postprocess.reference_retinanet, **RETINA)),
}  # fmt: skip
RIVALS = {
    "ultralytics": ("yolo", partial(post_theirs.ultralytics, conf=0.001, iou=0.7, multi_label=True)),
    "ultralytics best": ("yolo best", partial(post_theirs.ultralytics, conf=0.25, iou=0.7)),
    "ultralytics rotated": ("rotated", partial(post_theirs.ultralytics, conf=0.25, iou=0.7, nc=15, rotated=True)),
    "onnxruntime": ("yolo arrays", post_theirs.onnx_yolo),
    "OpenCV": ("yolo arrays", post_theirs.opencv_yolo),
    "torchvision ssd": ("ssd", partial(post_theirs.ssd, **SSD)),
    "torchvision rcnn": ("rcnn", partial(post_theirs.faster_rcnn, **RCNN)),
    "torchvision retinanet": ("retinanet", partial(post_theirs.retinanet, **RETINA)),
}


def result_of(pipeline, arrays=False):
    inputs, call, _ = PIPELINES[pipeline]
    return call(*(inputs if arrays else map(torch.from_numpy, inputs)))


@pytest.mark.parametrize("name", PIPELINES)
def test_the_lines_of_the_page_do_what_the_reference_does(name):
    inputs, _, slow = PIPELINES[name]
    for arrays in {False, name == "yolo arrays"}:
        got, want = postprocess.alike(result_of(name, arrays), slow(*inputs))
        assert got == want and len(want) >= 5


@pytest.mark.parametrize("name", RIVALS)
def test_the_rivals_detect_the_same(name):
    if name.split()[0] in machine.ABSENT:
        pytest.skip(machine.ABSENT[name.split()[0]])
    pipeline, call = RIVALS[name]
    arrays = pipeline == "yolo arrays"
    inputs = PIPELINES[pipeline][0]
    got, want = postprocess.alike(call(*(inputs if arrays else map(torch.from_numpy, inputs))), result_of(pipeline))
    assert got == want


def test_sahi_keeps_the_same_objects():
    if "SAHI" in machine.ABSENT:
        pytest.skip(machine.ABSENT["SAHI"])
    (rows,) = outputs.slices(300)
    mine, his = (post_theirs.sahi_objects(kind, rows) for kind in (post_ours.sahi_class, post_theirs.sahi_class))
    got, want = postprocess.by_identity(his, mine)
    assert got == want and 30 <= len(want) < 300
    assert set(post_theirs.sahi_arrays(rows)) == set(reference.batched_nms(rows[:, :4], rows[:, 4], rows[:, 5], 0.5))


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row[:-1],
        lambda row: row + torch.tensor([0, 0, 0.02, 0, 0, 0]),
        lambda row: row + torch.tensor([0, 0, 0, 0, 0.0002, 0]),
        lambda row: row + torch.tensor([0, 0, 0, 0, 0, 1]),
        lambda row: torch.cat([row, row[-1:] + 1]),
        lambda row: torch.cat([row[:-1], row[:1]]),  # one twice
    ],
)
def test_a_difference_is_seen(damage):
    right = result_of("yolo best")
    got, want = postprocess.alike([damage(row) for row in right], right)
    assert got != want
    ties = [row.flip(0) for row in right]  # another order
    assert postprocess.alike(ties, right)[0] == postprocess.alike(right, right)[0]


def test_what_a_real_network_put_out_is_there():
    (prediction,) = outputs.recorded()
    scores, boxes = prediction[:, 4:], prediction[:, :4]
    assert prediction.shape == (33, 84, 2535) and ((scores > 0.001) | (scores == 0)).all()
    real = scores.max(axis=1) > 0.001  # [33, 2535]
    assert (boxes[:, 2:].min(axis=1)[real] > 0).all() and not boxes.swapaxes(1, 2)[~real].any()
    assert 0.3 < (scores > 0.25).sum() / 150 < 3 and outputs.RECORDED.stat().st_size < 200_000


def test_a_wrong_op_is_refused(monkeypatch):
    (case,) = harness.select(["postprocess SSD*"])
    arrays = case.make()
    tensors = [torch.from_numpy(array) for array in arrays]
    assert "all 200 detections" in case.check(case, arrays, case.ours(*tensors))
    right = boxops.detect
    monkeypatch.setattr(boxops, "detect", lambda *args, **rest: right(*args[:2], 0.01, 0.5, 200, topk_per_class=400))
    with pytest.raises(cases.Wrong, match=r"of 2\d\d detections \d+ are not those of the reference"):
        case.check(case, arrays, case.ours(*tensors))


def test_the_page_shows_the_lines_that_are_timed():
    page = Path(__file__).parents[1] / "docs" / "postprocessing.md"
    source = "\n".join(line.strip() for line in inspect.getsource(post_ours).splitlines())
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    shown = ["\n".join(line.strip() for line in block.strip().splitlines()) for block in blocks]
    assert all(text in source for text in shown)
    names = {name for name in vars(post_ours) if inspect.isfunction(getattr(post_ours, name))} - {"rival", "sahi_class"}
    assert names == set(re.findall(r"def (\w+)", "\n".join(shown))) - {"__call__"}


def test_quick_leaves_out_rivals_that_are_slow_to_import():
    (slow,), (quick,) = harness.select(["nms 1,000 on*"]), harness.select(["nms 1,000 on*"], quick=True)
    assert {"supervision", "ensemble-boxes", "torchvision"} <= set(slow.rivals)
    assert set(slow.rivals) - set(quick.rivals) == {"supervision", "ensemble-boxes"}


def test_rivals_to_import_later_are_named_where_they_are_absent(monkeypatch):
    monkeypatch.setattr(machine, "ABSENT", absent := {})
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None if name != "sahi" else "here")
    machine.later("sahi", "ultralytics", "cv2")
    assert absent == {
        "ultralytics": "not installed: pip install --no-deps ultralytics",
        "OpenCV": "not installed: pip install opencv-python-headless",
    }


def test_no_two_rivals_of_a_case_have_one_colour():
    plots = pytest.importorskip("boxops.benchmarks.plots", exc_type=ImportError)
    for case in harness.families():
        colours = [plots.colour(name) for name in case.rivals]
        assert len(colours) == len(set(colours)), case.name
    assert np.unique([light for light, _ in plots.COLOURS.values()]).size == len(plots.COLOURS)
