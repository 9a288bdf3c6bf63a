"""Labels of models that have other classes than the data, or its category ids as labels."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
pytest.importorskip("faster_coco_eval", exc_type=ImportError)
from data_files import write_images  # noqa: E402
from test_evaluation import pycocotools  # noqa: E402

from boxops import evaluation, models  # noqa: E402
from boxops.data import open_dataset, transforms  # noqa: E402
from boxops.evaluation import labels as meanings  # noqa: E402


class Perfect(torch.nn.Module):
    """Finds every object of a data set but crowds; ``name(category id) -> label``. Knows images by their order."""

    def __init__(self, data, label, num_classes=None):
        super().__init__()
        self.found = []
        for image in data.coco()["images"]:
            own = [a for a in data.coco()["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
            boxes = torch.tensor([a["bbox"] for a in own], dtype=torch.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            names = torch.tensor([label(a["category_id"]) for a in own], dtype=torch.int64)
            self.found.append({"boxes": boxes, "labels": names, "scores": torch.linspace(0.9, 0.5, len(own))})
        if num_classes is not None:
            self.config = {"num_classes": num_classes}

    def forward(self, images):
        return [self.found.pop(0) for _ in images]


def annotated(folder, categories):
    """Two images with an object of each category (id, name)."""
    write_images(folder / "images", "1.jpg", "2.jpg")
    annotations = [
        {"id": 100 * i + k, "image_id": i, "category_id": c, "bbox": [2 + 3 * k, 3, 3, 10 + i], "area": 30 + 3 * i}
        for i in (1, 2)
        for k, (c, _) in enumerate(categories, 1)
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in (1, 2)]
    truth = {"images": images, "annotations": annotations,
             "categories": [{"id": c, "name": name} for c, name in categories]}  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(truth))
    return open_dataset("coco", folder, transform=transforms.evaluate())


@pytest.fixture(scope="module")
def coco(data):
    return open_dataset("coco", data / "coco", transform=transforms.evaluate())


@pytest.mark.parametrize("num_classes", [None, 91, 81])
def test_perfect_detections_of_coco(coco, num_classes):
    """With torchvision's labels, which are COCO's ids 1 to 90, or the places of the 80 classes: AP is 1, exactly."""
    label = (lambda c: c) if num_classes != 81 else lambda c: coco.category_ids.index(c) + 1
    assert evaluation.evaluate(Perfect(coco, label, num_classes), coco)["box_AP"] == 1
    assert evaluation.evaluate(Perfect(coco, label, num_classes), coco, metric="voc")["VOC_AP"] == 1
    wrong = (lambda c: coco.category_ids.index(c) + 1) if num_classes != 81 else lambda c: min(c, 80)
    if num_classes is not None:
        assert evaluation.evaluate(Perfect(coco, wrong, num_classes), coco)["box_AP"] < 0.5


def test_pycocotools_agrees(coco):
    """The rows that come out have COCO's ids: the second opinion finds them perfect too."""
    truth = coco.coco()
    for categories, model in ((None, Perfect(coco, lambda c: c)),
                              ({c: c for c in coco.category_ids}, Perfect(coco, lambda c: c)),
                              (None, Perfect(coco, lambda c: coco.category_ids.index(c) + 1))):  # fmt: skip
        found = evaluation.Detections(coco.category_ids, categories=categories)
        found.update(coco.ids, model([None] * len(coco)))
        rows = found.rows()
        ours = evaluation.coco_ap(truth, rows)
        np.testing.assert_allclose([v for k, v in ours.items() if "/" not in k], pycocotools(truth, rows, "bbox"))
        assert ours["box_AP"] == 1


NAMES = [(7, "zebra"), (3, "cat"), (90, "dog")]  # ids in no order


@pytest.mark.parametrize(
    ("names", "only"),
    [
        (["zebra", "cat", "dog"], ""),
        (["dog", "zebra", "cat"], ""),
        (["bird", "dog", "cat", "fish", "zebra"], "only the model has 'bird', 'fish'"),
        (["cat", "dog"], "only the data has 'zebra'"),
        (["Cat", "dog", "zebra"], "only the model has 'Cat'; only the data has 'cat'"),
        (["bird"], "only the model has 'bird'; only the data has 'zebra', 'cat', 'dog'"),
    ],
)
def test_classes_are_found_by_name(tmp_path, names, only):
    data = annotated(tmp_path, NAMES)
    assert evaluation.differences(names, data.classes) == only
    own = dict(NAMES)
    model = Perfect(data, lambda c: names.index(own[c]) + 1 if own[c] in names else 1)
    if "only the data" in only:
        with pytest.raises(ValueError, match=f"expected a model of the data's classes, got other names: {only}"):
            evaluation.evaluate(model, data, labels=names)
        return
    metrics = evaluation.evaluate(model, data, labels=names)
    assert {metrics[f"box_AP/{name}"] for name in own.values()} == {metrics["box_AP"]} == {1.0}


def test_voc_s_and_coco_s_spellings_are_one_name(tmp_path):
    data = annotated(tmp_path, [(5, "tv"), (2, "sofa")])
    names = ["tvmonitor", "couch", "dog"]
    assert evaluation.by_name(names, data) == {1: 5, 2: 2, 3: None}
    assert evaluation.differences(names, data.classes) == "only the model has 'dog'"
    names = ["tvmonitor", "tv", "sofa", "couch"]  # a model that means two classes by them
    assert evaluation.by_name(names, data) == {1: None, 2: 5, 3: 2, 4: None}


@pytest.mark.parametrize("only", NAMES)
def test_ids_in_no_order(tmp_path, only):
    """The numbers of a class are those of its name, as the second opinion has it."""
    data = annotated(tmp_path, NAMES)
    model = Perfect(data, lambda c: data.category_ids.index(c) + 1)
    for found in model.found:
        own = found["labels"] == data.category_ids.index(only[0]) + 1
        found |= {key: values[own] for key, values in found.items()}
    rows = evaluation.Detections(data.category_ids, categories=dict(enumerate(data.category_ids, 1)))
    rows.update(data.ids, model([None] * 2))
    metrics = evaluation.coco_ap(data.coco(), rows.rows())
    assert {name: metrics[f"box_AP/{name}"] for _, name in NAMES} == {name: float(name == only[1]) for _, name in NAMES}
    assert metrics["box_AP"] == pytest.approx(pycocotools(data.coco(), rows.rows(), "bbox")[0])
    assert evaluation.voc_ap(data.coco(), rows.rows())[f"VOC_AP/{only[1]}"] == 1


def test_one_name_twice(tmp_path):
    data = annotated(tmp_path, [(0, "dog"), (1, "hound"), (2, "cat")])
    data.classes[1] = "dog"  # no file that is read has this
    model = Perfect(data, lambda c: c + 1)
    assert evaluation.evaluate(model, data, labels=["dog", "dog", "cat"])["box_AP"] == 1
    with pytest.raises(ValueError, match=r"expected classes of different names in the data, got .*'dog', 'dog', 'cat'"):
        evaluation.evaluate(model, data, labels=["cat", "dog"])


def test_detections_of_other_classes_do_not_count(tmp_path):
    data = annotated(tmp_path, NAMES)
    names = ["zebra", "cat", "dog", "bird"]
    model = Perfect(data, lambda c: data.category_ids.index(c) + 1)
    for found in model.found:
        more = {"boxes": found["boxes"], "labels": torch.full_like(found["labels"], 4), "scores": found["scores"] + 0.1}
        for key in found:
            found[key] = torch.cat([more[key], found[key]])
    assert evaluation.evaluate(model, data, labels=names)["box_AP"] == 1


def test_labels_by_number(tmp_path):
    data = annotated(tmp_path, NAMES)
    labels = {0: 90, 1: None, 5: 7, 6: 3}
    model = Perfect(data, {90: 0, 7: 5, 3: 6}.get)
    assert evaluation.evaluate(model, data, labels=labels)["box_AP"] == 1
    with pytest.raises(ValueError, match=r"expected labels of \[0, 1, 5, 6\], got \[2\]"):
        evaluation.evaluate(Perfect(data, lambda c: 2), data, labels=labels)


def test_models_that_do_not_say(tmp_path):
    """Places in the data's classes where they can be; category ids where labels exceed these; errors and doubts."""
    data = annotated(tmp_path / "a", NAMES)
    assert evaluation.evaluate(Perfect(data, lambda c: data.category_ids.index(c) + 1), data)["box_AP"] == 1
    assert evaluation.evaluate(Perfect(data, lambda c: c), data)["box_AP"] == 1
    with pytest.raises(ValueError, match=r"expected labels of 1 to 3, got \[8\]"):
        evaluation.evaluate(Perfect(data, lambda c: 8), data)
    with pytest.raises(ValueError, match=r"expected labels of 1 to 3, got \[0\]"):
        evaluation.evaluate(Perfect(data, lambda c: 0), data)
    shifted = annotated(tmp_path / "b", [(2, "cat"), (1, "dog")])
    with pytest.warns(UserWarning, match="labels are taken for places in the data's classes"):
        metrics = evaluation.evaluate(Perfect(shifted, lambda c: {2: 1, 1: 2}[c]), shifted)
    assert metrics["box_AP"] == 1
    assert evaluation.evaluate(Perfect(shifted, lambda c: c), shifted, labels={1: 1, 2: 2})["box_AP"] == 1


def test_models_of_coco_on_some_of_its_classes(tmp_path):
    data = annotated(tmp_path, [(1, "dog"), (2, "person")])
    own = meanings.coco_names()
    assert own[17] == "dog" and own[0] == "person"
    model = Perfect(data, lambda c: {1: 18, 2: 1}[c], num_classes=91)
    assert evaluation.evaluate(model, data)["box_AP"] == 1
    with pytest.raises(
        ValueError, match=r"only the model has 'person', .* and 70 more; only the data has 'zebr', 'sh'"
    ):
        evaluation.evaluate(model, annotated(tmp_path, [(1, "zebr"), (2, "sh")]))
    with pytest.raises(ValueError, match=r"expected a model of 3 classes with the background, .* got one of 21"):
        evaluation.evaluate(Perfect(data, lambda c: c, num_classes=21), data)


def test_what_models_say():
    build = torchvision.models.detection
    for name in ("fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn",
                 "ssdlite320_mobilenet_v3_large"):  # fmt: skip
        with torch.device("meta"):
            model = getattr(build, name)(weights=None, weights_backbone=None, num_classes=7)
        assert meanings.number_of_classes(model) == 7, name
    with torch.device("meta"):
        model = models.create("ssd", 5)
    wrapped = torch.nn.Module()
    wrapped.module = model  # as DistributedDataParallel has it
    assert meanings.number_of_classes(model) == meanings.number_of_classes(wrapped) == 5
    assert meanings.number_of_classes(torch.nn.Sequential()) is None
