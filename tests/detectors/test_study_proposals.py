"""`boxops study proposals`: its recalls against a slow loop, its files, what it says of bad arguments."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import torch

cv2 = pytest.importorskip("cv2")
if not hasattr(cv2, "ximgproc"):
    pytest.skip("OpenCV is here without its contrib modules", allow_module_level=True)
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
from PIL import Image  # noqa: E402

from boxops import models  # noqa: E402
from boxops.cli import main  # noqa: E402
from boxops.data.records import Object, pack  # noqa: E402
from boxops.studies import proposals as study  # noqa: E402
from boxops.training.checkpoint import save  # noqa: E402

SHAPES = ["--data", "shapes", "--data-option", "size=64", "--data-option", "length=3", "--workers", "0"]
COMMAND = ["study", "proposals", *SHAPES, "--methods", "selective_search_single,edge_boxes"]


def iou(a, b):
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def random_boxes(rng, count):
    corners = rng.integers(0, 12, (count, 2))
    return np.concatenate([corners, corners + rng.integers(1, 9, (count, 2))], 1).astype(np.float32)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_recall_is_that_of_a_slow_loop(seed, most):
    rng = np.random.default_rng(seed)
    images = [(random_boxes(rng, rng.integers(0, 4)), random_boxes(rng, rng.integers(0, 50))) for _ in range(3)]
    images.append((random_boxes(rng, 2), random_boxes(rng, 0)))  # no proposals at all
    data = Data([objects for objects, _ in images])
    found = study.measure(data, {"given": lambda image: images[image.info["at"]][1][:most]}, most)
    method = found["methods"]["given"]
    objects = [(box, boxes) for boxes_of, boxes in images for box in boxes_of]
    assert (found["images"], found["objects"]) == (4, len(objects))
    assert found["counts"][-1] == most
    for at, count in enumerate(found["counts"]):
        best = [max((iou(box, other) for other in boxes[:most][:count]), default=0) for box, boxes in objects]
        for threshold in study.IOUS:
            assert method["recall"][f"{threshold:g}"][at] == np.mean([one >= threshold for one in best])
        thresholds = np.linspace(0.5, 1, 20001)  # the mean over all IoUs of 0.5 to 1
        average = np.mean([(np.array(best)[:, None] >= thresholds).mean()])
        assert method["average_recall"][at] == pytest.approx(average, abs=1e-3)
    assert method["proposals_per_image"] == np.mean([len(boxes[:most]) for _, boxes in images])


class Data:
    """Images with these objects; a crowd and a difficult one in each, which do not count."""

    def __init__(self, objects):
        self.objects = objects

    def __len__(self):
        return len(self.objects)

    def load(self, index):
        image = Image.new("RGB", (20, 20))
        image.info["at"] = index
        count = len(self.objects[index])
        boxes = np.concatenate([self.objects[index], [[0, 0, 20, 20], [1, 1, 20, 20]]]).astype(np.float32)
        flags = [{}] * count + [{"iscrowd": True}, {"difficult": True}]
        objects = [Object(1, box, **flag) for box, flag in zip(boxes, flags, strict=True)]
        return image, pack(None, 1, image.size, objects, None, False), None


@pytest.mark.parametrize(("most", "counts"), [(1, [1]), (2, [1, 2]), (7, [1, 2, 5, 7]), (20, [1, 2, 5, 10, 20]),
                                              (2000, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000])])  # fmt: skip
def test_counts(most, counts):
    assert study.counts_to(most) == counts


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a Faster R-CNN that has learnt nothing."""
    torch.manual_seed(0)
    model = models.create("faster_rcnn_mobilenet_v2_fpn", num_classes=4, min_size=64, max_size=64)
    path = tmp_path_factory.mktemp("rpn") / "model.pt"
    save(path, {"boxops": 1, "model": model.config, "classes": ["a", "b", "c"], "weights": model.state_dict()})
    return path


def test_files_and_table(tmp_path, capsys, checkpoint):
    out = tmp_path / "out"
    command = [*COMMAND, "--max-proposals", "50", "--out", str(out), "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == [
        f"proposals.{kind}" for kind in ("csv", "json", "png", "svg")
    ]
    found = json.loads((out / "proposals.json").read_text())
    assert list(found["methods"]) == ["selective_search_single", "edge_boxes", "RPN"]
    assert found["images"] == 3
    for name, method in found["methods"].items():
        assert name in said
        for recalls in (*method["recall"].values(), method["average_recall"]):
            assert (np.diff(recalls) >= 0).all()
            assert len(recalls) == len(found["counts"])
        assert method["recall"]["0.5"][-1] >= method["recall"]["0.7"][-1] >= method["recall"]["0.9"][-1]
        assert method["seconds_per_image"] > 0
        assert 0 < method["proposals_per_image"] <= 50
    assert found["methods"]["selective_search_single"]["recall"]["0.5"][-1] >= 0.5  # of shapes in plain colours
    with open(out / "proposals.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(found["counts"])
    assert float(rows[-1]["recall_0.5"]) == pytest.approx(found["methods"]["RPN"]["recall"]["0.5"][-1], abs=1e-4)
    with Image.open(out / "proposals.png") as image:
        assert image.size > (800, 200)
    assert main([*COMMAND, "--out", str(out), "--max-images", "1"]) == 0  # its own files give way
    assert json.loads((out / "proposals.json").read_text())["images"] == 1


def test_the_rpn_gives_the_best_ones(checkpoint):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 160, 3), np.uint8))
    few, more = (
        study.of_checkpoint(
            type("Args", (), {"checkpoint": checkpoint, "device": "cpu", "max_proposals": most, "min_size": 1})
        )[0](image)
        for most in (10, 40)
    )
    assert (len(few), len(more)) == (10, 40)
    torch.testing.assert_close(few, more[:10])
    assert (more[:, 2:].amax(0) == torch.tensor([160, 80])).all()  # in the image's own pixels
    assert (more >= 0).all()


def test_files_of_others_stay(tmp_path, capsys):
    (tmp_path / "proposals.csv").write_text("mine\n")
    command = [*COMMAND, "--out", str(tmp_path), "--max-images", "1"]
    assert main(command) == 2
    assert "proposals.csv exists and is not boxops' own; --overwrite replaces it" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["proposals.csv"]
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "proposals.csv").read_text().startswith("method,proposals,recall_0.5,")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--methods", "sift"], "--methods: proposals: expected a method of selective_search_single, "),
        (["--max-proposals", "0"], "--max-proposals: expected 1 or more, got 0"),
        (["--max-images", "0"], "--max-images: expected 1 or more, got 0"),
        (["--workers", "-1"], "--workers: expected 0 or more, got -1"),
        (["--min-size", "0"], "--methods: min_size: expected 1 or more pixels, got 0"),
        (["--trained", "bing=x"], "--trained: expected a method of selective_search_single, edge_boxes, got bing"),
        (["--methods", "bing"], "bing: expected a folder with ObjNessB2W8MAXBGR.wS1.yml.gz as its model, got None"),
        (["--methods", ""], "--methods: expected names, got none"),
        (["--checkpoint", "none.pt"], "none.pt"),
        (["--data", "voc"], ""),
    ],
)
def test_bad_arguments(tmp_path, capsys, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, *words]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("boxops study: ")
    assert text in told
    assert not (tmp_path / "study-proposals").exists()


def test_a_checkpoint_without_an_rpn(tmp_path, capsys):
    model = models.create("ssd300_mobilenet_v2", num_classes=2)
    save(tmp_path / "ssd.pt", {"boxops": 1, "model": model.config, "classes": ["a"], "weights": model.state_dict()})
    assert main([*COMMAND, "--checkpoint", str(tmp_path / "ssd.pt"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--checkpoint: expected a model with a region proposal network, got ssd300_mobilenet_v2" in said
