"""`boxops bench --models`: the twins of torchvision, and the share of box operations."""

import json

import pytest
from boxops.benchmarks import models, stages
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
    assert {stage for job, stage in seen if job == "training, forward"} >= both | {"matching", "codes", "mask targets"}


@pytest.mark.slow
def test_bench_models(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(models, "DETECTORS", TINY)
    file = tmp_path / "models.json"
    assert main(["bench", "--models", "--quick", "--threads", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["models"]
    assert [(row["detector"], row["job"]) for row in rows] == [
        (name, job) for name, *_ in TINY for job in ("training step", "inference")
    ]
    for row in rows:
        for which in ("boxops", "torchvision"):
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
    assert main(["bench", "--models", "--quick"]) == 1
    assert "NOT TIMED ssd300_mobilenet_v2: wrong detections" in capfd.readouterr().out


def test_unknown_detector(capsys):
    assert main(["bench", "--models", "--ops", "yolo9000"]) == 2
    assert "expected --ops among ssd300_mobilenet_v2, " in capsys.readouterr().err
