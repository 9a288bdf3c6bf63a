"""ILSVRC's localization: class and IoU of the surest detection of an image."""

import json

import numpy as np
import pytest

pytest.importorskip("torchvision")
pytest.importorskip("faster_coco_eval")

from boxops import evaluation
from boxops.cli import main


def scene(seed, images=30, classes=4):
    """One object an image, at most three detections near it; nothing is of the last class."""
    rng = np.random.default_rng(seed)
    truth = {"images": [{"id": 3 * i + 5, "height": 100, "width": 120} for i in range(images)], "annotations": [],
             "categories": [{"id": 2 * c + 1, "name": f"class {c}"} for c in range(classes)]}  # fmt: skip
    rows = []
    for i, image in enumerate(truth["images"], 1):
        box, label = [*rng.uniform(0, 40, 2), *rng.uniform(10, 50, 2)], int(2 * rng.integers(classes - 1) + 1)
        truth["annotations"].append({"id": i, "image_id": image["id"], "category_id": label, "bbox": box,
                                     "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        for _ in range(rng.integers(0, 4)):
            other = label if rng.random() < 0.7 else int(2 * rng.integers(classes) + 1)
            near = [value + rng.normal(0, 6) for value in box]
            rows.append({"image_id": image["id"], "category_id": other, "score": round(rng.random(), 1),
                         "bbox": [near[0], near[1], abs(near[2]), abs(near[3])]})  # fmt: skip
    rng.shuffle(rows)
    return truth, rows


def slow(truth, rows, images, category=None):
    """By the words of the challenge, one image after another."""
    correct, right, ious = [], [], []
    for thing in truth["annotations"]:
        if thing["image_id"] not in images or category not in (None, thing["category_id"]):
            continue
        best = None
        for row in rows:
            if row["image_id"] == thing["image_id"] and (best is None or row["score"] > best["score"]):
                best = row
        iou = 0.0
        if best is not None:
            (x1, y1, w1, h1), (x2, y2, w2, h2) = thing["bbox"], best["bbox"]
            w, h = min(x1 + w1, x2 + w2) - max(x1, x2), min(y1 + h1, y2 + h2) - max(y1, y2)
            iou = max(w, 0) * max(h, 0)
            iou /= w1 * h1 + w2 * h2 - iou
        right.append(best is not None and best["category_id"] == thing["category_id"])
        correct.append(right[-1] and iou >= 0.5)
        ious.append(iou)
    return [float(np.mean(values)) if values else -1.0 for values in (correct, right, ious)]


@pytest.mark.parametrize("seed", range(5))
def test_slow_loop(seed):
    truth, rows = scene(seed)
    everything = [image["id"] for image in truth["images"]]
    for images in (everything, everything[:11]):
        expected = slow(truth, rows, images)
        for category in truth["categories"]:
            expected += slow(truth, rows, images, category["id"])
        metrics = evaluation.localization(truth, rows, image_ids=images)
        assert list(metrics.values()) == pytest.approx(expected)
        assert list(metrics)[:4] == ["LOC_correct", "LOC_accuracy", "LOC_IoU", "LOC_correct/class 0"]
    assert 0 < metrics["LOC_correct"] < metrics["LOC_accuracy"] < 1 and metrics["LOC_IoU/class 3"] == -1
    assert evaluation.localization(truth, rows) == evaluation.localization(truth, rows, image_ids=everything)


def test_boundary():
    truth, _ = scene(0, images=1)
    thing = truth["annotations"][0]
    thing["bbox"] = [0, 0, 20, 10]
    for width, correct in ((10, 1.0), (9.99, 0.0)):  # an IoU of a half, and less
        row = {**thing, "score": 0.5, "bbox": [0, 0, width, 10]}
        assert evaluation.localization(truth, [row])["LOC_correct"] == correct
    ties = [{**thing, "score": 0.5}, {**thing, "score": 0.5, "category_id": 99}]
    assert evaluation.localization(truth, ties)["LOC_accuracy"] == 1
    assert evaluation.localization(truth, ties[::-1])["LOC_accuracy"] == 0


def test_nothing():
    truth, _ = scene(0)
    assert [evaluation.localization(truth, [])[f"LOC_{name}"] for name in ("correct", "accuracy", "IoU")] == [0, 0, 0]
    assert set(evaluation.localization(truth, [], image_ids=[]).values()) == {-1.0}


@pytest.mark.parametrize(("change", "count"), [({"iscrowd": 1}, 0), ({"ignore": 1}, 0), ({"image_id": 8}, 0)])
def test_not_one_object(change, count):
    truth, rows = scene(0)
    truth["annotations"][0] |= change
    text = f"expected one object in each image, got {count} in image 5: one_object=true gives"
    with pytest.raises(ValueError, match=text):
        evaluation.localization(truth, rows)
    if "image_id" in change:
        with pytest.raises(ValueError, match="got 2 in image 8"):
            evaluation.localization(truth, rows, image_ids=[8])


def test_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    truth, rows = scene(1)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    words = ["evaluate", "--results", "rows.json", "--annotations", "truth.json", "--json", "found.json"]
    assert main([*words, "--metric", "localization"]) == 0
    assert json.loads((tmp_path / "found.json").read_text()) == evaluation.localization(truth, rows)
    told = capsys.readouterr().out
    assert told.startswith("LOC:") and "correct" in told and "accuracy" in told and "class 2" in told
    assert main([*words[:-1], "other.json"]) == 0 and "box:" in capsys.readouterr().out  # of files it is COCO's
    with pytest.raises(ValueError, match="expected metric to be one of coco, voc, voc2007, localization, got 'map'"):
        evaluation.evaluate_files("truth.json", "rows.json", metric="map")
