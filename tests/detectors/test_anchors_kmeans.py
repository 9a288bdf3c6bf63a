"""Anchors by k-means under 1 - IoU, against loops and all partitions, and `boxops data anchors`."""

import builtins
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from data_files import DATA, needs_data, open_csv, open_voc, voc_object
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from boxops.cli import main
from boxops.data import open_dataset
from boxops.data.anchors import average_iou, box_sizes, kmeans_anchors


def slow_average(sizes, anchors):
    total = 0.0
    for w, h in sizes:
        ious = []
        for a, b in anchors:
            inter = min(w, a) * min(h, b)
            ious.append(inter / (w * h + a * b - inter))
        total += max(ious)
    return total / len(sizes)


def of_all_partitions(sizes, k):
    """The best average IoU of k medians, whatever boxes each serves; it does not ask that they serve their nearest."""
    best = 0.0
    for owner in itertools.product(range(k), repeat=len(sizes)):
        groups = [sizes[np.array(owner) == j] for j in range(k)]
        best = max(best, slow_average(sizes, [np.median(group, axis=0) for group in groups if len(group)]))
    return best


def boxes_around(centres, each, seed=0, spread=0.05):
    factors = np.random.default_rng(seed).uniform(1 - spread, 1 + spread, (len(centres), each, 2))
    return (np.array(centres, float)[:, None] * factors).reshape(-1, 2)


def many_sizes(least=1, most=12, highest=64):
    """Integers, among which are duplicates."""
    return st.integers(least, most).flatmap(lambda n: arrays(np.int64, (n, 2), elements=st.integers(1, highest)))


def different(sizes):
    return len(np.unique(sizes, axis=0))


@given(many_sizes(), many_sizes())
def test_average_iou_is_that_of_loops(sizes, anchors):
    assert average_iou(sizes, anchors) == pytest.approx(slow_average(sizes, anchors), rel=1e-12)
    assert average_iou(sizes, sizes) == 1


@settings(max_examples=30)
@given(many_sizes(2, 6, 12), st.integers(1, 3))
def test_never_better_than_the_best_partition(sizes, k):
    """Beyond the medians of partitions there are only the boxes that a restart begins with: partitions into groups
    with a median of their own."""
    k = min(k, different(sizes))
    anchors, average = kmeans_anchors(sizes, k)
    drawn = max(slow_average(sizes, chosen) for chosen in itertools.combinations(sizes.tolist(), k))
    best = max(of_all_partitions(sizes, k), drawn)
    assert average <= best + 1e-9
    assert average == pytest.approx(slow_average(sizes, anchors), abs=1e-9)


@pytest.mark.parametrize("each", [3, 5])
def test_the_best_partition_of_well_separated_sizes(each):
    """Boxes of one shape each, whose median is the best centre."""
    centres = np.array([(10, 60), (80, 20)])
    sizes = (centres[:, None] * np.linspace(0.9, 1.1, each)[:, None]).reshape(-1, 2)
    anchors, average = kmeans_anchors(sizes, 2)
    assert average == pytest.approx(of_all_partitions(sizes, 2), abs=1e-6)
    np.testing.assert_allclose(anchors, centres, rtol=1e-6)


@settings(max_examples=50)
@given(many_sizes(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_properties(sizes, k, random):
    k = min(k, different(sizes))
    anchors, average = kmeans_anchors(sizes, k, restarts=5)
    assert anchors.shape == (k, 2)
    assert anchors.dtype == np.float64
    assert 0 < average <= 1
    assert (np.diff(anchors.prod(axis=1)) >= 0).all()
    assert (anchors >= sizes.min(axis=0)).all() and (anchors <= sizes.max(axis=0)).all()
    assert average == pytest.approx(average_iou(sizes, anchors), abs=1e-12)
    shuffled = random.sample(sizes.tolist(), len(sizes))
    for same, scale in ((shuffled, 1), (sizes * 0.25, 0.25), (np.repeat(sizes, 2, axis=0), 1)):
        others, other_average = kmeans_anchors(same, k, restarts=5)
        np.testing.assert_array_equal(others, anchors * scale)
        assert other_average == pytest.approx(average, abs=1e-12)
    assert kmeans_anchors(sizes, k, restarts=6)[1] >= average
    if k == different(sizes):
        assert average == 1
        np.testing.assert_array_equal(np.unique(anchors, axis=0), np.unique(sizes, axis=0))


def test_more_anchors_are_better():
    random = np.random.default_rng(0)
    sizes = np.exp(random.normal(4, 0.7, (500, 2)))
    averages = [kmeans_anchors(sizes, k)[1] for k in range(1, 10)]
    assert (np.diff(averages) > 0).all()


def test_large_boxes_count_no_more_than_small_ones():
    """What the distance is for: under Euclid's, the spread of the large ones would take two anchors of three."""
    sizes = boxes_around([(4, 12), (12, 4), (400, 400)], 50, spread=0.2)
    anchors, _ = kmeans_anchors(sizes, 3)
    np.testing.assert_allclose(anchors[np.argsort(anchors[:, 0])], [(4, 12), (12, 4), (400, 400)], rtol=0.1)


def test_anchors_that_lose_their_boxes(monkeypatch):
    """From three equal ones two serve nothing: they go to the boxes that are served worst, two different ones."""
    sizes = np.array([(10, 12), (40, 20), (90, 100)])
    monkeypatch.setattr("boxops.data.anchors._begin", lambda sizes, *_: np.repeat(sizes[:1], 3, axis=0))
    anchors, average = kmeans_anchors(sizes, 3, restarts=1)
    assert average == 1
    np.testing.assert_array_equal(anchors, sizes)


def test_seeds():
    sizes = np.random.default_rng(0).uniform(1, 99, (200, 2))
    one, again, other = (kmeans_anchors(sizes, 7, restarts=1, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize(("call", "text"), [
    (lambda: kmeans_anchors([[1, 2], [1, 2], [3, 4]], 3),
     "expected at least k = 3 boxes of different sizes, got 2 among 3 boxes"),
    (lambda: kmeans_anchors([[1, 2]], 0), "expected k of 1 or more, got 0"),
    (lambda: kmeans_anchors([[1, 2]], 1, restarts=0), "expected restarts of 1 or more, got 0"),
    (lambda: kmeans_anchors([[1, 2]], 1, seed=-1), "expected seed of 0 or more, got -1"),
    (lambda: kmeans_anchors([[1, 2], [3, 0]], 1), r"expected sizes > 0 and finite, got \[3.0, 0.0\] in row 1"),
    (lambda: kmeans_anchors([[1, float("nan")]], 1), r"sizes > 0 and finite, got \[1.0, nan\] in row 0"),
    (lambda: kmeans_anchors([[1, 1e39]], 1), r"sizes > 0 and finite, got \[1.0, inf\] in row 0"),
    (lambda: kmeans_anchors(np.ones((3, 4)), 1), r"expected sizes of shape \[N, 2\], N >= 1, got \[3, 4\]"),
    (lambda: kmeans_anchors(np.ones((0, 2)), 1), r"N >= 1, got \[0, 2\]"),
    (lambda: average_iou([[1, 2]], [1, 2]), r"average_iou: expected anchors of shape \[N, 2\], N >= 1, got \[2\]"),
    (lambda: box_sizes(None, (0, 9)), "expected a height and width of 1 or more, got 0 and 9"),
])  # fmt: skip
def test_errors(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_k_is_an_integer():
    with pytest.raises(TypeError, match="kmeans_anchors: expected k as an integer, got"):
        kmeans_anchors([[1, 2]], 1.5)


@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("size", [(416, 416), (160, 224)])
def test_sizes_are_those_of_the_network(size, keep_ratio):
    """Within the whole pixels to which it scales an image."""
    from boxops.models.yolo import Letterbox

    data = open_dataset("shapes", size=[60, 120], length=6, masks=False, keypoints=False)
    targets = [{"boxes": target["boxes"]} for _, target in data]
    _, moved = Letterbox(size, keep_ratio)([image / 255 for image, _ in data], targets)
    expected = np.concatenate([(t["boxes"][:, 2:] - t["boxes"][:, :2]).numpy() for t in moved])
    sizes = box_sizes(data, size, keep_ratio=keep_ratio)
    assert sizes.dtype == np.float32
    np.testing.assert_allclose(sizes, expected, atol=1)


def test_crowds_and_difficult_objects_do_not_count(tmp_path):
    data = open_voc(tmp_path, voc_object(box=[1, 1, 30, 9], more="<difficult>1</difficult>"))
    sizes = box_sizes(data, (60, 80))
    assert len(sizes) == 2 < sum(len(record.boxes) for record in data.records())
    data.records()[0].iscrowd[:] = 1
    assert len(box_sizes(data, (60, 80))) == 1


def anchors(*words):
    return main(["data", "anchors", *map(str, words)])


SHAPES = ["--data", "shapes", "--data-option", "length=12", "--data-option", "size=64", "--upto", "4"]


def test_command_on_shapes(tmp_path, capsys):
    file = tmp_path / "deep/anchors.json"
    assert anchors(*SHAPES, "-k", "3", "--size", "96x64", "--out", file) == 0
    out = capsys.readouterr().out
    found = json.loads(file.read_text())
    sizes = box_sizes(open_dataset("shapes", length=12, size=64), (64, 96))
    expected, average = kmeans_anchors(sizes, 3)
    assert found["anchors"] == expected.tolist() and found["average_IoU"] == average
    assert (found["k"], found["width"], found["height"], found["boxes"]) == (3, 96, 64, len(sizes))
    assert [row["k"] for row in found["by_k"]] == [1, 2, 3, 4] and found["by_k"][2]["anchors"] == found["anchors"]
    assert f"{len(sizes)} boxes, letterboxed at 96 x 64: 3 anchors of average IoU {average:.3f}" in out
    lines = re.findall("^anchors = (.*)$", out, re.MULTILINE)
    pixels, cells = (np.array(line.split(","), float).reshape(-1, 2) for line in lines)
    np.testing.assert_allclose(pixels, expected, atol=0.051)
    np.testing.assert_allclose(cells * 32, expected, atol=0.002)
    for row in found["by_k"]:
        assert [str(row["k"]), f"{row['average_IoU']:.3f}"] in [line.split() for line in out.splitlines()]


def test_command_on_voc(tmp_path, capsys):
    """4 boxes of two sizes: no table beyond two anchors. 40 x 30 pixels are stretched by 2 and 4."""
    open_voc(tmp_path / "data", voc_object(box=[3, 3, 23, 13]) * 2)
    words = ["--root", tmp_path / "data", "-k", "2", "--size", "80x120"]
    for option, expected in (((), "20,20, 40,20"), (("--stretch",), "20,40, 40,40")):
        file = tmp_path / "anchors.json"
        assert anchors(*words, *option, "--out", file) == 0
        found = json.loads(file.read_text())
        assert found["average_IoU"] == 1 and len(found["by_k"]) == 2 and found["letterboxed"] == (not option)
        assert f"anchors = {expected}\n" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot_and_what_it_replaces(tmp_path, capsys, suffix):
    pytest.importorskip("matplotlib")
    plot, out = tmp_path / f"plot{suffix}", tmp_path / "anchors.json"
    words = [*SHAPES, "-k", "3", "--plot", plot, "--out", out]
    plot.write_text("mine"), out.write_text('{"mine": 1}')
    assert anchors(*words) == 2
    assert "anchors.json exists and is not boxops' own; --overwrite replaces 2 such files" in capsys.readouterr().err
    assert plot.read_text() == "mine" and out.read_text() == '{"mine": 1}'
    assert anchors(*words, "--overwrite") == 0
    first = plot.read_bytes()
    assert anchors(*words) == 0  # now they are its own
    assert plot.read_bytes() == first
    if suffix == ".png":
        with Image.open(plot) as image:
            assert image.size == (1170, 520)
    else:
        assert first.count(b"<svg") == 1


@pytest.mark.parametrize(("words", "text"), [
    (["-k", "0"], "-k: expected 1 or more, got 0"),
    (["--upto", "0"], "--upto: expected 1 or more, got 0"),
    (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
    (["--plot", "x.jpg"], "--plot: expected a name that ends in .png or .svg, got x.jpg"),
    (["--out", "x.png", "--plot", "x.png"], "--plot: expected outputs of different names, got x.png twice"),
    (["-k", "999"], "kmeans_anchors: expected at least k = 999 boxes of different sizes, got "),
    (["--root", "nowhere"], "shapes: expected no root"),
])  # fmt: skip
def test_bad_arguments(tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    assert anchors(*SHAPES, *words) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("boxops data: ") and text in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", ["0", "big", "416x", "-1", "4.5", "32x0"])
def test_bad_size(capsys, size):
    with pytest.raises(SystemExit, match="2"):
        anchors(*SHAPES, f"--size={size}")
    assert f"expected N or WIDTHxHEIGHT of 1 or more, such as 416, got '{size}'" in capsys.readouterr().err


def test_data_without_objects(tmp_path, capsys):
    open_csv(tmp_path, "a.jpg,,,,,\nb.jpg,cat,1,2,3,4\n")
    assert anchors("--root", tmp_path, "-k", "2") == 2
    assert "got 1 among 1 boxes" in capsys.readouterr().err


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    usual = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert anchors(*SHAPES, "--plot", tmp_path / "x.png") == 2
    assert 'pip install "boxops[regions]"' in capsys.readouterr().err
    assert anchors(*SHAPES) == 0


@needs_data
def test_blood_cells():
    """Against the anchors that yolov3-tiny and yolov2-tiny have for COCO."""
    sizes = box_sizes(open_dataset("voc", DATA / "bccd", split="trainval"), (416, 416))
    text = (Path(DATA) / "darknet/yolov3-tiny.cfg").read_text()
    own = np.array(re.search("^anchors = (.*)$", text, re.MULTILINE)[1].split(","), float).reshape(-1, 2)
    assert average_iou(sizes, own) == pytest.approx(0.692, abs=1e-3)
    assert kmeans_anchors(sizes, 6)[1] > 0.862


def test_a_start_is_spread_out():
    """k-means++: the next one is likely to be far from those before, so that one start is enough for clear clusters."""
    sides = np.random.default_rng(0).uniform(0.95, 1.05, (90, 2)) * np.repeat([10, 100, 1000], 30)[:, None]
    found = [kmeans_anchors(sides, 3, restarts=1, seed=seed)[1] for seed in range(20)]
    assert sum(iou > 0.9 for iou in found) >= 17
