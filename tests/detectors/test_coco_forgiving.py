"""COCO json as tools export it: what has one meaning is read, and files and images are found where they put them."""

import json
from argparse import Namespace

import numpy as np
import pytest
from data_files import BOX, POLYGON, open_coco, write_images

from boxops.cli import common
from boxops.data import BadData, open_dataset, segmentation


def edited(tmp_path, change, **options):
    """The good set after a change of its json; the change may give another."""
    open_coco(tmp_path)
    data = json.loads((tmp_path / "instances.json").read_text())
    data = change(data) or data
    return open_coco(tmp_path, text=json.dumps(data), **options)


def each(part, **values):
    """A change of all entries of a part: a function of the old value gives the new one; ... takes the key away."""

    def change(data):
        for entry in data[part]:
            for key, value in values.items():
                entry[key] = value(entry[key]) if callable(value) else value
                if value is ...:
                    del entry[key]

    return change


def both(*changes):
    def change(data):
        for one in changes:
            one(data)

    return change


SAME = {
    "ids of images 1.0": both(each("images", id=float), each("annotations", image_id=float)),
    "ids of images as texts": each("images", id=str),
    "ids in annotations as texts": each("annotations", image_id=str, id=str, category_id=str),
    "ids as texts of 1.0": both(each("images", id=lambda i: f"{i}.0"), each("annotations", id=lambda i: f"{i}.0")),
    "ids of categories 7.0": each("categories", id=float),
    "ids of categories as texts": each("categories", id=str),
    "category_id 7.0": each("annotations", category_id=float),
    "no iscrowd": each("annotations", iscrowd=None),
    "iscrowd false": each("annotations", iscrowd=False),
    "iscrowd 0.0": each("annotations", iscrowd=0.0),
    "iscrowd as a text": each("annotations", iscrowd="0"),
    "area null": each("annotations", area=None),
    "area not known": each("annotations", area=-1),
    "area as a text": each("annotations", area="100"),
    "sizes -1": each("images", width=-1, height=-1),
    "sizes 0": each("images", width=0, height=0),
    "sizes null": each("images", width=None, height=None),
    "a size missing": each("images", width=...),
    "sizes 40.0": each("images", width=40.0, height=30.0),
    "sizes as texts": each("images", width="40", height="30"),
    "no ids of annotations": each("annotations", id=...),
    "ids of annotations null": each("annotations", id=None),
    "box of texts": each("annotations", bbox=["2", "3.0", "10", " 10 "]),
    "no box": each("annotations", bbox=...),
    "box null": each("annotations", bbox=None),
    "box empty": each("annotations", bbox=[]),
    "flat polygon": each("annotations", segmentation=POLYGON[0]),
    "polygon of points": each("annotations", segmentation=[[2, 3], [12, 3], [12, 13]]),
    "polygon of texts": each("annotations", segmentation=[list(map(str, POLYGON[0]))]),
    "backslashes": each("images", file_name=lambda name: f"images\\{name}"),
    "Label Studio's path": each("images", file_name=lambda name: f"../../label-studio/data/media/upload/1/{name}"),
    "path of another machine": each("images", file_name=lambda name: f"C:\\Users\\me\\data\\{name}"),
    "another folder": each("images", file_name=lambda name: f"/home/me/images/{name}"),
    "an address": each("images", file_name=lambda name: f"https://host/a/{name}?width=40"),
    "upper case": each("images", file_name=str.upper),
    "no ending": each("images", file_name=lambda name: name[0]),
    "percent": each("images", file_name=lambda name: f"%{ord(name[0]):x}{name[1:]}"),
    "LVIS": lambda data: [
        image.update(file_name=None, coco_url=f"http://images.cocodataset.org/images/{image['id']}.jpg")
        for image in data["images"]
    ] and None,
    "info": lambda data: data.update(info=None, licenses=[], type="instances"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_same_objects(tmp_path, name):
    data = edited(tmp_path, SAME[name])
    assert not data.problems and not data.notes
    assert data.ids == [1, 2] and data.category_ids == [7, 9] and data.classes == ["cat", "dog"]
    assert [data.image_path(k) for k in range(2)] == [tmp_path / "images" / f"{k}.jpg" for k in (1, 2)]
    for k, annotation in enumerate(data.coco()["annotations"], 1):
        assert (annotation["id"], annotation["image_id"], annotation["category_id"]) == (k, k, 7)
        assert (annotation["bbox"], annotation["area"], annotation["iscrowd"]) == ([2, 3, 10, 10], 100, 0)
        assert all(type(annotation[key]) is int for key in ("id", "image_id", "category_id"))
    (image, target), (_, expected) = data[0], open_coco(tmp_path)[0]
    assert image.shape == (3, 30, 40) and target["boxes"].tolist() == [BOX]
    np.testing.assert_array_equal(target["masks"], expected["masks"])


def test_ids_that_are_other_texts(tmp_path):
    name = {1: "1", 2: "b7", 7: "cat-1", 9: "dog-1"}
    data = edited(tmp_path, both(
        each("images", id=name.get), each("categories", id=name.get),
        each("annotations", id=lambda i: f"a{i}", image_id=name.get, category_id=name.get),
    ))  # fmt: skip
    assert data.ids == [1, 2] and data.category_ids == [1, 2] and not data.problems
    assert [(a["id"], a["image_id"], a["category_id"]) for a in data.coco()["annotations"]] == [(1, 1, 1), (2, 2, 1)]
    assert data.notes == [f"{tmp_path}/instances.json: ids of images are texts; they are numbered from 1 here"]


def test_annotations_without_ids_get_others(tmp_path):
    """COCO's evaluation takes 0 for no match, and loses one of two annotations with one id."""
    pycocotools = pytest.importorskip("pycocotools.coco")
    data = open_coco(tmp_path, [{"id": 0}, {"id": None}, {"id": -1}])
    truth = pycocotools.COCO()
    truth.dataset = data.coco()
    truth.createIndex()
    assert not data.problems and len(truth.loadAnns(truth.getAnnIds([1]))) == 4
    assert sorted(truth.anns) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("compressed", [False, True])
def test_box_of_run_lengths(tmp_path, compressed):
    shape = {"size": [30, 40], "counts": [610, 10, 580]}
    if compressed:
        shape = segmentation.encode(segmentation.decode(shape, 30, 40))
    data = open_coco(tmp_path, [{"bbox": None, "segmentation": shape}], masks=False)
    assert data[0][1]["boxes"].tolist()[1] == [20, 10, 21, 20]
    bad = {"size": [30, 40], "counts": [610, 10, 591]}
    (problem,) = open_coco(tmp_path, [{"bbox": None, "segmentation": bad}], masks=False).problems
    assert "the sum 1200, got 1211" in problem.text


def test_no_annotations(tmp_path):
    data = edited(tmp_path, lambda data: data.update(annotations=None))
    assert len(data) == 2 and data.coco()["annotations"] == []


def test_byte_order_mark(tmp_path):
    open_coco(tmp_path)
    text = (tmp_path / "instances.json").read_text()
    assert len(open_coco(tmp_path, text="\ufeff" + text)) == 2


@pytest.mark.parametrize(("categories", "said"), [
    ([{"id": 7, "name": "cat"}, {"id": "7", "name": "dog"}], "expected ids, each once, got [7, 7]"),
    ([{"id": 7, "name": "cat"}, {"id": 9, "name": "cat"}], "expected names, each once, got ['cat', 'cat']"),
    ([{"id": 7, "name": None}], "expected the name of a category, got None"),
    ([{"id": 7, "name": " "}], "expected the name of a category, got ' '"),
    ([], "expected at least one with id and name, got []"),
])  # fmt: skip
def test_bad_categories(tmp_path, categories, said):
    with pytest.raises(BadData) as raised:
        edited(tmp_path, lambda data: data.update(categories=categories), keypoints=False)
    assert str(raised.value) == f"{tmp_path}/instances.json, categories: {said}"


def test_classes_by_name(tmp_path):
    data = open_coco(tmp_path, [{"category_id": 9}], classes=["cow", "dog", "cat"])
    assert data.classes == ["cow", "dog", "cat"] and data[0][1]["labels"].tolist() == [3, 2]
    assert data.category_ids == [10, 9, 7]
    with pytest.raises(BadData, match=r"categories: expected the classes \['dog', 'cow'\], got \['cat'\] too"):
        open_coco(tmp_path, classes=["dog", "cow"])
    with pytest.raises(ValueError, match=r"expected a list of names, as .* got a text, 'cat'"):
        open_coco(tmp_path, classes="cat")


ROBOFLOW = [
    {"id": 0, "name": "cells", "supercategory": "none"},
    {"id": 7, "name": "cat", "supercategory": "cells"},
    {"id": 9, "name": "dog", "supercategory": "cells"},
]


def test_roboflows_group_is_no_class(tmp_path):
    data = edited(tmp_path, lambda data: data.update(categories=ROBOFLOW), keypoints=False)
    assert data.classes == ["cat", "dog"] and data[0][1]["labels"].tolist() == [1]
    (note,) = data.notes
    assert "category 'cells' groups the others and has no objects: no class" in note
    data = open_coco(tmp_path, text=(tmp_path / "instances.json").read_text(), keypoints=False,
                     classes=["cells", "dog", "cat"])  # fmt: skip
    assert data.category_ids == [0, 9, 7]  # who names it has it
    used = both(lambda data: data.update(categories=ROBOFLOW), each("annotations", category_id=0))
    assert edited(tmp_path, used, keypoints=False).classes == ["cells", "cat", "dog"]
    one = [ROBOFLOW[0], {"id": 7, "name": "cells", "supercategory": "cells"}]
    assert edited(tmp_path, lambda data: data.update(categories=one), keypoints=False).category_ids == [7]


LAYOUTS = {  # file, folder of images, split asked for; whether undivided
    "COCO": ("annotations/instances_val2017.json", "val2017", "val", False),
    "COCO, images below images": ("annotations/instances_train2017.json", "images/train2017", "train", False),
    "Roboflow": ("train/_annotations.coco.json", "train", "train", False),
    "Roboflow, val": ("valid/_annotations.coco.json", "valid", "val", False),
    "CVAT": ("annotations/instances_default.json", "images/default", "val", True),
    "CVAT, flat": ("annotations/instances_default.json", "images", "train", True),
    "CVAT, subset": ("annotations/instances_Train.json", "images/Train", "train", False),
    "Label Studio": ("result.json", "images", "train", True),
    "detectron2": ("train.json", "train", "train", False),
    "annotations/train.json": ("annotations/train.json", "train", "train", False),
    "LVIS": ("lvis_v1_val.json", "val2017", "val", False),
    "FiftyOne": ("validation/labels.json", "validation/data", "val", False),
    "FiftyOne, one": ("labels.json", "data", "train", True),
    "folders in folders": ("annotations/test/boxes.JSON", "images/test", "test", False),
    "a fold": ("fold_2.json", "images", "fold_2", False),
    "beside the images": ("my boxes.json", ".", "train", True),
}


def lay_out(tmp_path, file, images):
    """The good set in another layout."""
    open_coco(tmp_path)
    for name, place in (
        ("instances.json", file),
        ("images/1.jpg", f"{images}/1.jpg"),
        ("images/2.jpg", f"{images}/2.jpg"),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).rename(tmp_path / place)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    file, images, split, undivided = LAYOUTS[name]
    lay_out(tmp_path, file, images)
    (tmp_path / "other.json").write_text("{}")
    data = open_dataset("coco", tmp_path, split=split)
    assert len(data) == 2 and not data.problems and data.undivided == undivided
    assert data.image_path(0) == tmp_path / images / "1.jpg"
    for options in (
        {"root": tmp_path / file},
        {"annotations": tmp_path / file},
        {"root": tmp_path, "annotations": file},
    ):
        for more in ({}, {"images": tmp_path / images}):
            data = open_dataset("coco", split=split, **options, **more)
            assert data.undivided and data.image_path(1) == tmp_path / images / "2.jpg"
    if not undivided and split != "fold_2":
        other = "train" if split != "train" else "val"
        with pytest.raises(
            FileNotFoundError, match=f"coco: expected one file of the split '{other}' in .*got .*(?i:json)"
        ):
            open_dataset("coco", tmp_path, split=other)


def test_the_split_has_its_own_file_and_images(tmp_path):
    for split, ids in (("train", 7), ("valid", 70)):
        folder = tmp_path / split
        write_images(folder, "1.jpg")
        data = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [],
                "categories": [{"id": ids, "name": "cat"}, {"id": ids + 1, "name": split}]}  # fmt: skip
        (folder / "_annotations.coco.json").write_text(json.dumps(data))
    data, held_out = (open_dataset("coco", tmp_path, split=split) for split in ("train", "val"))
    assert data.category_ids == [7, 8] and held_out.category_ids == [70, 71]
    assert held_out.image_path(0) == tmp_path / "valid" / "1.jpg"
    for place in ("valid/_annotations.coco.json", "annotations/instances_val.json", "boxes-valid.json"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text((tmp_path / "valid" / "_annotations.coco.json").read_text())
        for options in ({"annotations": tmp_path / place}, {"root": tmp_path, "annotations": place}):
            named = open_dataset("coco", **options)  # whatever the split, the images are the file's
            assert named.undivided and named.image_path(0) == tmp_path / "valid" / "1.jpg"
    with pytest.raises(BadData, match=r"expected the classes \['cat', 'train'\], got \['valid'\] too"):
        open_dataset("coco", tmp_path, split="val", classes=data.classes)


def test_names_that_could_be_two_images_are_not_guessed(tmp_path):
    write_images(tmp_path / "images", "3.jpg", "X.jpg", "x.JPG", "4.jpg", "4.png")
    names = ["a/3.jpg", "b/3.jpg", "x.jpg", "4", "old/1.jpg"]
    images = [{"id": 10 + k, "file_name": name} for k, name in enumerate(names)]
    data = open_coco(tmp_path, images=images)
    assert data.ids == [1, 2]
    assert [str(problem) for problem in data.problems] == [
        f"{tmp_path}/images/{name}: expected an image file, got none" for name in names
    ]
    (tmp_path / "images" / "b").mkdir()
    (tmp_path / "images" / "3.jpg").rename(tmp_path / "images" / "b" / "3.jpg")
    data = open_coco(
        tmp_path, images=[{"id": 3, "file_name": "/data/b/3.jpg"}, {"id": 4, "file_name": "/data/c/3.jpg"}]
    )
    assert data.ids == [1, 2, 3] and len(data.problems) == 1


def test_no_image_is_there(tmp_path):
    with pytest.raises(BadData) as raised:
        edited(tmp_path, each("images", file_name=lambda name: f"x/{name}.jpg"), on_bad="raise")
    assert str(raised.value) == (
        f"coco: expected the images of {tmp_path}/instances.json, as 'x/1.jpg.jpg', in {tmp_path}/images, {tmp_path}, "
        "got none of them"
    )
    with pytest.raises(FileNotFoundError, match=r"annotations in nowhere.json, got no such file"):
        open_dataset("coco", tmp_path, annotations="nowhere.json")
    with pytest.raises(FileNotFoundError, match="expected a folder, got nowhere"):
        open_dataset("coco", tmp_path, images="nowhere")


@pytest.mark.parametrize(("option", "classes"), [
    ("classes=cat", ["cat"]), ("classes=cat, dog", ["cat", "dog"]), ("classes=['cat','dog']", ["cat", "dog"]),
    ("classes=07", ["07"]), ("classes=0,1.0", ["0", "1.0"]),
])  # fmt: skip
def test_classes_of_the_command_line(monkeypatch, option, classes):
    seen = {}
    monkeypatch.setattr("boxops.data.open_dataset", lambda *args, **options: seen.update(options))
    args = Namespace(data="coco", root=None, on_bad="skip", annotations=None, images=None)
    args.data_option = [common.key_value(option)]
    common.open_data(args, "train", masks=False, keypoints=False, classes=["other"])
    assert seen["classes"] == classes
    args.data_option = []
    common.open_data(args, "val", masks=False, keypoints=False, classes=["other"])
    assert seen["classes"] == ["other"]
