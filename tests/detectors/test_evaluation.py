"""Metrics against pycocotools, VOC's devkit and answers known beforehand."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
pytest.importorskip("faster_coco_eval", exc_type=ImportError)
from annotated import scene  # noqa: E402

from boxops import evaluation  # noqa: E402

KEYS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
KNOWN = {  # ../shared/data/README.md: what pycocotools prints
    "bbox": [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564],
    "segm": [0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381],
}


def values(metrics):
    return [value for name, value in metrics.items() if "/" not in name]


@pytest.mark.parametrize("kind", KNOWN)
def test_known_answers(data, kind, capsys):
    files = [data / "coco_eval" / f"instances_val2014_{name}.json" for name in ("100", f"fake{kind}100_results")]
    metrics = evaluation.evaluate_files(*files, [kind])
    assert [round(value, 3) for value in values(metrics)] == KNOWN[kind]
    truth, rows = (json.loads(file.read_text()) for file in files)
    np.testing.assert_allclose(values(metrics), pycocotools(truth, rows, kind), atol=1e-6)
    assert capsys.readouterr() == ("", "")


def pycocotools(truth, rows, kind, sigmas=None):
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ours, found = coco.COCO(), coco.COCO()
        ours.dataset = copy.deepcopy(truth)
        ours.createIndex()
        if rows:
            keep = ("image_id", "category_id", "score", KEYS[kind])
            found = ours.loadRes([{key: row[key] for key in keep} for row in copy.deepcopy(rows)])
        else:
            found.dataset = {**ours.dataset, "annotations": []}
            found.createIndex()
        run = COCOeval(ours, found, kind)
        if sigmas is not None:
            run.params.kpt_oks_sigmas = np.array(sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KEYS)
def test_random_detections(kind, seed):
    points = 17 if seed % 2 else 4
    truth, rows = scene(seed, points)
    before = copy.deepcopy((truth, rows))
    sigmas = [0.05] * 4 if points == 4 and kind == "keypoints" else None
    expected = pycocotools(truth, rows, kind, sigmas)
    metrics = evaluation.coco_ap(truth, rows, [kind])
    assert expected[0] > 0
    np.testing.assert_allclose(values(metrics), expected, atol=1e-6)
    by_class = [value for name, value in metrics.items() if "_AP/" in name]
    assert by_class[-1] == -1 and np.mean(by_class[:-1]) == pytest.approx(expected[0], abs=1e-6)
    assert (truth, rows) == before


def test_sigmas():
    truth, rows = scene(0, 4)
    wide = [0.3] * 4
    metrics = evaluation.coco_ap(truth, rows, "keypoints", sigmas=wide)
    np.testing.assert_allclose(values(metrics), pycocotools(truth, rows, "keypoints", wide), atol=1e-6)
    assert metrics["keypoint_AP"] != evaluation.coco_ap(truth, rows, "keypoints")["keypoint_AP"]


@pytest.mark.parametrize("kind", KEYS)
def test_nothing(kind):
    truth, rows = scene(0)
    np.testing.assert_allclose(values(evaluation.coco_ap(truth, [], [kind])), pycocotools(truth, [], kind))
    empty = {**truth, "annotations": []}
    assert set(evaluation.coco_ap(empty, rows, [kind]).values()) == {-1.0}
    assert set(evaluation.coco_ap(empty, [], [kind]).values()) == {-1.0}


def test_only_the_images_that_count():
    truth, rows = scene(1)
    some = [image["id"] for image in truth["images"][:4]]
    part = {**truth, "images": truth["images"][:4],
            "annotations": [a for a in truth["annotations"] if a["image_id"] in some]}  # fmt: skip
    kept = [row for row in rows if row["image_id"] in some]
    for measure in (evaluation.coco_ap, evaluation.voc_ap):
        assert measure(truth, rows, image_ids=some) == measure(part, kept) != measure(truth, rows)


@pytest.mark.parametrize("kind", KEYS)
def test_ignored_objects(kind):
    """An ignored object is not missed; the detection of it is not false, whatever its score."""
    truth, _ = scene(2)
    objects = [{**a, "iscrowd": 0, "id": i} for i, a in enumerate(truth["annotations"], 1) if a["num_keypoints"] > 0]
    assert len(objects) > 4
    for a in objects:
        a["ignore"] = int(a["id"] <= 2)
    truth["annotations"] = objects
    rows = [{**a, "score": 0.99 if a["ignore"] else 0.5} for a in objects if a["id"] != 2]
    prefix = evaluation.coco.TYPES[kind][2]
    assert evaluation.coco_ap(truth, rows, [kind])[f"{prefix}_AP"] == 1
    assert evaluation.coco_ap({**truth, "annotations": objects[2:]}, rows, [kind])[f"{prefix}_AP"] < 1
    assert evaluation.voc_ap(truth, rows)["VOC_AP"] == 1


def devkit(truth, rows, category, eleven_points):
    """VOCevaldet.m and VOCap.m, line by line."""
    objects = [a for a in truth["annotations"] if a["category_id"] == category]
    found = sorted((row for row in rows if row["category_id"] == category), key=lambda row: -row["score"])
    taken = [False] * len(objects)
    tp, fp = np.zeros(len(found)), np.zeros(len(found))
    for d, row in enumerate(found):
        largest, best = -np.inf, None
        for g, a in enumerate(objects):
            if a["image_id"] == row["image_id"]:
                (x1, y1, w1, h1), (x2, y2, w2, h2) = row["bbox"], a["bbox"]
                width, height = min(x1 + w1, x2 + w2) - max(x1, x2), min(y1 + h1, y2 + h2) - max(y1, y2)
                if width > 0 and height > 0:
                    overlap = width * height / (w1 * h1 + w2 * h2 - width * height)
                    if overlap > largest:
                        largest, best = overlap, g
        if largest >= 0.5:
            if not objects[best]["iscrowd"]:
                if not taken[best]:
                    tp[d], taken[best] = 1, True
                else:
                    fp[d] = 1
        else:
            fp[d] = 1
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall = tp / sum(not a["iscrowd"] for a in objects)
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(tp / (fp + tp))  # 0 / 0: MATLAB's max leaves NaN out
    if eleven_points:
        return sum(precision[recall >= t].max(initial=0) for t in np.arange(11) / 10) / 11
    recall, precision = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    at = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return np.sum((recall[at] - recall[at - 1]) * precision[at])


@pytest.mark.parametrize("eleven_points", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_voc_devkit(seed, eleven_points):
    truth, rows = scene(seed)
    for i, row in enumerate(rows):
        row["score"] += 1e-4 * i  # no ties: the devkit's order of them is MATLAB's
    metrics = evaluation.voc_ap(truth, rows, eleven_points=eleven_points)
    expected = [devkit(truth, rows, 3 * c + 2, eleven_points) for c in range(3)]
    assert list(metrics.values()) == pytest.approx([np.mean(expected), *expected, -1])
    assert 0 < metrics["VOC_AP"] < 1
