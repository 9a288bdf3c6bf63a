"""`boxops bench --models`: the twins of torchvision, and the share of box operations."""

import json

import numpy as np
import pytest
from boxops.benchmarks import models, stages, yolo
from data_files import needs_data
from scenes import torch  # noqa: F401  # skips without it

from boxops.cli import main

FEW = {"num_classes": 4, "box_batch_size_per_image": 32, "rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 20}
FEW_OF_THEIRS = {"box_detections_per_img": 5, "rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20}
TINY = [
    ("ssd300_mobilenet_v2", {"num_classes": 4, "size": 300}, 1, 64, False),
    ("faster_rcnn_mobilenet_v2_fpn", {**FEW, "min_size": 96}, 1, 96, False),
    ("mask_rcnn_mobilenet_v2_fpn", {**FEW, "min_size": 96, "box_detections_per_img": 5}, 1, 96, False),
]


def test_stages_of_torchvisions_detectors(monkeypatch):
    """Every stage that the patch replaces is timed, with and without it."""
    monkeypatch.setitem(stages.DETECTORS, "maskrcnn_resnet50_fpn", {"min_size": 64, "max_size": 64, **FEW_OF_THEIRS})
    rows = stages.measure("maskrcnn_resnet50_fpn", "cpu", *models.scene(1, 64, "cpu"), rounds=2)
    seen = {(row["job"], row["stage"]) for row in rows if row["torchvision"] > 0 and row["patched"] > 0}
    both = {"anchors", "proposals", "RoI pooling", "all"}
    assert {stage for job, stage in seen if job == "inference"} >= both | {"postprocessing", "mask pasting"}
    assert {stage for job, stage in seen if job == "training, forward"} >= both | {"matching", "deltas", "mask targets"}


@pytest.mark.slow
def test_bench_models(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(models, "DETECTORS", TINY)
    monkeypatch.setattr(yolo, "NETWORKS", ())
    file = tmp_path / "models.json"
    assert main(["bench", "--models", "--quick", "--threads", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["models"]
    assert [(row["detector"], row["job"]) for row in rows] == [
        (name, job) for name, *_ in TINY for job in ("training step", "inference")
    ]
    for row in rows:
        for which in ("boxops", "twin"):
            assert 0 < row[which]["box_ops"] < row[which]["total"]
    assert "faster_rcnn_mobilenet_v2_fpn" in capfd.readouterr().out


def test_a_twin_that_detects_something_else_is_not_timed(monkeypatch, capfd):
    monkeypatch.setattr(models, "DETECTORS", TINY[:1])
    other = models.twin

    def twin(model):
        made = other(model)
        made.nms_thresh = 0.1
        return made

    monkeypatch.setattr(models, "twin", twin)
    assert main(["bench", "--models", "--quick", "--ops", "ssd300_mobilenet_v2"]) == 1
    assert "NOT TIMED ssd300_mobilenet_v2: wrong detections" in capfd.readouterr().out


@needs_data
def test_bench_of_yolo(tmp_path, capfd):
    """Verified beside torchvision, and beside ultralytics where it is installed; who is not here is named."""
    file = tmp_path / "models.json"
    assert main(["bench", "--models", "--quick", "--ops", "yolov3-tiny", "--json", str(file)]) == 0
    image, *rest = json.loads(file.read_text())["yolo"]
    assert image["job"] == "image to boxes" and image["seconds"]["boxops"] > 0 and "ONNX" in image["missing"]
    assert len(rest) == 4 and all(min(row["seconds"].values()) > 0 for row in rest)
    assert all("ultralytics" in row["seconds"] or "ultralytics" in row["missing"] for row in rest)
    assert "not measured: ONNX" in capfd.readouterr().out


def test_yolo_without_its_files_is_not_measured(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("BOXOPS_TEST_DATA", str(tmp_path))
    assert main(["bench", "--models", "--ops", "yolov2-tiny"]) == 0
    assert "not measured: yolov2-tiny: BOXOPS_TEST_DATA has no darknet/" in capfd.readouterr().out


def test_other_detections_than_ours_are_not_timed(monkeypatch, capfd):
    monkeypatch.setattr(yolo, "measure", lambda *_: yolo.compare(*other_detections()))
    assert main(["bench", "--models", "--ops", "yolov2-tiny"]) == 1
    assert "NOT TIMED yolov2-tiny: wrong detections: other: 3 0.90" in capfd.readouterr().out


def other_detections():
    ours = np.array([[0, 0, 10, 10]], np.float32), np.array([0.9]), np.array([2])
    return [ours], [(ours[0], ours[1], np.array([3]))], "other"


def test_unknown_detector(capsys):
    assert main(["bench", "--models", "--ops", "yolo9000"]) == 2
    assert "expected --ops among ssd300_mobilenet_v2, " in capsys.readouterr().err
