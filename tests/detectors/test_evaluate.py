"""evaluate() on models that know the answers, and result files good and bad."""

import copy
import io
import json

import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
pytest.importorskip("faster_coco_eval", exc_type=ImportError)
from annotated import scene  # noqa: E402
from torch import distributed, multiprocessing  # noqa: E402

from boxops import evaluation  # noqa: E402
from boxops.data import BadData, Shapes, transforms  # noqa: E402


class Oracle(torch.nn.Module):
    """Knows the objects of each image of a data set, and finds all but the first of each."""

    def __init__(self, data, masks=True, drop=1):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.known, self.masks, self.drop = {}, masks, drop
        for image, target in data:
            self.known[float(image.double().sum())] = target

    def forward(self, images):
        assert not self.training and torch.is_inference_mode_enabled()
        return [self.find(self.known[float(image.double().sum())]) for image in images]

    def find(self, target):
        found = {key: target[key].as_subclass(torch.Tensor)[self.drop :] for key in ("boxes", "labels")}
        found["scores"] = torch.linspace(0.9, 0.1, len(found["labels"]))
        if self.masks:
            found["masks"] = target["masks"][self.drop :, None].as_subclass(torch.Tensor) * 0.7
            found["keypoints"] = target["keypoints"][self.drop :]
        return found


@pytest.fixture(scope="module")
def shapes():
    return Shapes(length=7, size=(64, 96), masks=True, keypoints=True, split="val", transform=transforms.evaluate())


def test_evaluate(shapes, capfd):
    model = Oracle(shapes, drop=0).train()
    metrics = evaluation.evaluate(model, shapes, batch_size=3)
    assert next(iter(metrics)) == "box_AP" and model.training
    assert {metrics[name] for name in ("box_AP", "mask_AP", "keypoint_AP")} == {1.0}
    assert evaluation.evaluate(model, shapes, metric="voc")["VOC_AP"] == 1
    less = evaluation.evaluate(Oracle(shapes), shapes)
    assert 0 < less["box_AP"] < 1 and less["box_AP"] == pytest.approx(less["mask_AP"], abs=1e-6)
    assert {"box_AP/circle", "mask_AP50/square", "keypoint_APm"} <= metrics.keys()
    boxes = evaluation.evaluate(Oracle(shapes, masks=False), shapes, workers=1)
    assert boxes == {name: value for name, value in less.items() if name.startswith("box_")}
    assert capfd.readouterr() == ("", "")
    model.register_forward_pre_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
    autocast = []
    evaluation.evaluate(model, shapes, amp="bf16", progress=True)
    assert autocast == [True, True]
    assert capfd.readouterr().out == ""


def _process(rank, port, file, data, model):
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    seen = []
    model.register_forward_pre_hook(lambda _, args: seen.extend(args[0]))
    metrics = evaluation.evaluate(model, data, batch_size=2, parallel=True)
    torch.save((metrics, len(seen)), f"{file}{rank}")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(shapes, tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = Oracle(shapes)
    multiprocessing.spawn(_process, (port, str(tmp_path / "rank"), shapes, model), nprocs=2)
    results = [torch.load(tmp_path / f"rank{rank}") for rank in range(2)]
    expected = evaluation.evaluate(model, shapes)
    assert [metrics for metrics, _ in results] == [expected, expected]
    assert [count for _, count in results] == [4, 3]


def test_unreadable_image(shapes):
    """The image that stands in for an unreadable one counts once, and the unreadable one is not missed."""

    class Broken(Shapes):
        def load(self, index):
            if index == 2:
                raise BadData("broken")
            return super().load(index)

        def coco(self):
            return shapes.coco()

    data = Broken(length=7, size=(64, 96), masks=True, keypoints=True, split="val", transform=transforms.evaluate())
    metrics = evaluation.evaluate(Oracle(shapes, drop=0), data)
    assert metrics["box_AP"] == 1 and metrics["box_AR100"] == 1


def test_bad_arguments(shapes):
    with pytest.raises(ValueError, match=r"a model that gives .*segm.*, got one that gives .*bbox"):
        evaluation.evaluate(Oracle(shapes, masks=False), shapes, iou_types=["bbox", "segm"])
    with pytest.raises(ValueError, match="expected iou_types of bbox, segm, keypoints, got"):
        evaluation.evaluate(Oracle(shapes), shapes, iou_types=["boxes"])
    with pytest.raises(ValueError, match="expected metric to be one of coco, voc, voc2007, localization, got 'map'"):
        evaluation.evaluate(Oracle(shapes), shapes, metric="map")
    shrunk = copy.copy(shapes)
    shrunk.transform = lambda image, target: (image[:, ::2], target)
    with pytest.raises(ValueError, match=r"expected image \d+ in its size"):
        evaluation.evaluate(Oracle(shapes), shrunk)
    found = evaluation.Detections([1, 2])
    with pytest.raises(ValueError, match=r"labels of 1 to 2, got \[0, 3\]"):
        found.update([1], [{"boxes": torch.zeros(2, 4), "scores": torch.ones(2), "labels": torch.tensor([0, 3])}])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 999}, "results.json, entry 2: expected image_id of one in the annotation file, got 999"),
        ({"category_id": 77}, "results.json, entry 2: expected category_id of one in the annotation file, got 77"),
        ({"score": None}, r"results.json, entry 2: expected score of 1 finite numbers, got \[None\]"),
        ({"bbox": [1, 2, 3]}, r"results.json, entry 2: expected bbox of 4 finite numbers, got \[1, 2, 3\]"),
        ({"bbox": [1, 2, 3, float("nan")]}, "results.json, entry 2: expected bbox of 4 finite numbers"),
        ({"segmentation": {"size": [2, 2], "counts": [9]}}, "results.json, entry 2: expected run lengths of size"),
        ({"keypoints": [1, 2]}, "results.json, entry 2: expected keypoints of 3 K finite numbers"),
        ("bbox", "results.json, entry 2: expected bbox, got"),
        ({}, None),
    ],
)
def test_bad_result_files(tmp_path, change, words):
    truth, rows = scene(3)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    if isinstance(change, str):
        del rows[1][change]
    else:
        rows[1] |= change
    (tmp_path / "results.json").write_text(json.dumps(rows))
    files = tmp_path / "truth.json", tmp_path / "results.json"
    if words is None:
        assert evaluation.evaluate_files(*files) == evaluation.coco_ap(truth, rows, ["bbox", "segm", "keypoints"])
    else:
        with pytest.raises(BadData, match=words):
            evaluation.evaluate_files(*files)


def test_foreign_files(tmp_path):
    truth, rows = scene(3)
    good, bad, results = (tmp_path / f"{name}.json" for name in ("good", "bad", "results"))
    good.write_text(json.dumps(truth))
    results.write_text(json.dumps(rows))
    bad.write_text("{")
    with pytest.raises(BadData, match=r"bad.json: expected json, got"):
        evaluation.evaluate_files(good, bad)
    with pytest.raises(BadData, match=r"good.json: expected a list of detections, got dict"):
        evaluation.evaluate_files(good, good)
    with pytest.raises(BadData, match=r"results.json: expected lists of images, annotations, categories, got list"):
        evaluation.evaluate_files(results, results)
    del truth["annotations"][0]["area"]
    bad.write_text(json.dumps(truth))
    with pytest.raises(BadData, match=r"bad.json, annotation 1: expected area, got"):
        evaluation.evaluate_files(bad, results)


def test_table(shapes):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(evaluation.table(evaluation.evaluate(Oracle(shapes, masks=False, drop=0), shapes)))
    text = console.file.getvalue()
    assert "box AP50" in text and "1.000" in text and "triangle" in text
    assert "-1" not in text  # nothing large is there
