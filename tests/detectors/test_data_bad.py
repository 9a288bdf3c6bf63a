"""Bad annotations: each is named with its file and place and left out, or refused."""

import json

import pytest
from data_files import open_coco, open_csv, open_voc, voc_object

from boxops.data import BadData, collate, open_dataset

BAD_COCO = {  # annotation or its fields, what is said
    "zero width": ({"bbox": [2, 3, 0, 10]}, "positive width and height"),
    "negative height": ({"bbox": [2, 3, 10, -1]}, "positive width and height"),
    "outside": ({"bbox": [40, 3, 10, 10]}, "in the image of 40 x 30"),
    "sliver": ({"bbox": [39.9999999, 3, 10, 10]}, "in the image of 40 x 30"),
    "NaN": ({"bbox": [float("nan"), 3, 10, 10]}, "4 finite numbers"),
    "infinite": ({"bbox": [2, 3, float("inf"), 10]}, "4 finite numbers"),
    "huge": ({"bbox": [2, 3, 10**400, 10]}, "4 finite numbers"),
    "three numbers": ({"bbox": [2, 3, 10]}, "4 finite numbers"),
    "text for a number": ({"bbox": [2, 3, "ten", 10]}, "4 finite numbers"),
    "no box": ({"bbox": None, "segmentation": None}, "4 finite numbers"),
    "area": ({"area": "much"}, "1 finite numbers"),
    "category": ({"category_id": 8}, "expected a category of [7, 9], got 8"),
    "category is a list": ({"category_id": [7]}, "category_id, an integer, got [7]"),
    "image": ({"image_id": 99}, "the id of an image, got 99"),
    "image is a text": ({"image_id": "one"}, "the id of an image, got one"),
    "image is a list": ({"image_id": [1]}, "image_id, an integer"),
    "image between two": ({"image_id": 1.5}, "image_id, an integer, got 1.5"),
    "id twice": ({"id": 1}, "once, got 1 again"),
    "huge id": ({"id": 10**30}, "an integer"),
    "crowd": ({"iscrowd": 3}, "iscrowd of 0 or 1"),
    "not an object": (3, "an object of json, got int"),
    "keypoints": ({"keypoints": [1, 2, 2]}, "6 finite numbers"),
    "huge keypoint": ({"keypoints": [1e300, 2, 2, 1, 2, 2]}, "6 finite numbers"),
    "visibility": ({"keypoints": [1, 2, 5, 1, 2, 2]}, "visibility 0, 1 or 2"),
    "no mask": ({"segmentation": []}, "polygons or run lengths"),
    "odd polygon": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "3 points or more, got 7"),
    "two points": ({"segmentation": [[1, 2, 3, 4]]}, "3 points or more"),
    "far polygon": ({"segmentation": [[1, 2, 3, 4, 1e8, 6]]}, "near the image"),
    "polygon of text": ({"segmentation": ["abcdef"]}, "finite numbers"),
    "runs of another size": ({"segmentation": {"size": [40, 30], "counts": [1200]}}, "size [30, 40]"),
    "runs too long": ({"segmentation": {"size": [30, 40], "counts": [1200, 1]}}, "the sum 1200, got 1201"),
    "negative run": ({"segmentation": {"size": [30, 40], "counts": [1201, -1]}}, "0 and more"),
    "compressed, too long": ({"segmentation": {"size": [30, 40], "counts": "oooooo0"}}, "run lengths"),
    "compressed, cut off": ({"segmentation": {"size": [30, 40], "counts": "P"}}, "cut off"),
    "compressed, no such": ({"segmentation": {"size": [30, 40], "counts": "\x10é"}}, "compressed run lengths, got"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_COCO)
def test_bad_coco(tmp_path, name):
    annotation, text = BAD_COCO[name]
    data = open_coco(tmp_path, [annotation])
    (problem,) = data.problems
    own = "" if isinstance(annotation, int) else f" (id {annotation.get('id', 17)})"
    assert str(problem).startswith(f"{tmp_path}/instances.json, annotations[1]{own}: expected")
    assert text in str(problem)
    assert [len(data[i][1]["boxes"]) for i in range(2)] == [1, 1]
    with pytest.raises(BadData) as raised:
        open_coco(tmp_path, [annotation], on_bad="raise")
    assert raised.value.problem == problem


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_coco_missing_key(tmp_path, key):
    open_coco(tmp_path)
    data = json.loads((tmp_path / "instances.json").read_text())
    del data["annotations"][0][key]
    data = open_coco(tmp_path, text=json.dumps(data))
    assert [f"expected the key {key!r}" in problem.text for problem in data.problems] == [True]


@pytest.mark.parametrize(("image", "text"), [
    ({"id": 3, "file_name": "3.jpg"}, "expected an image file, got none"),
    ({"id": 3, "file_name": "x" * 999}, "expected an image file, got none"),
    ({"id": 3, "file_name": "a\0.jpg"}, "expected an image file, got none"),
    ({"id": 3, "file_name": "../instances.json"}, "got UnidentifiedImageError"),
    ({"id": 1, "file_name": "1.jpg"}, "images[2] (id 1): expected every image id once"),
    ({"file_name": "1.jpg"}, "images[2]: expected the key 'id'"),
    ({"id": 3, "file_name": 3}, "expected file_name, a text"),
    ({"id": 3, "file_name": "1.jpg", "width": 2.5, "height": 3}, "width and height, an integer, got 2.5"),
    ("1.jpg", "expected an object of json"),
])  # fmt: skip
def test_bad_coco_image(tmp_path, image, text):
    data = open_coco(tmp_path, images=[image])
    assert [text in str(problem) for problem in data.problems] == [True]
    assert data.ids == [1, 2]


@pytest.mark.parametrize(("text", "said"), [
    ('{"images": [\n 3,, 4]}', "instances.json, line 2 column 4: expected json"),
    ("[" * 100_000, "instances.json: expected json"),
    ('"\udcff"', "expected json"),
    ("[]", "expected lists images, annotations and categories, got no images"),
    ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "categories: expected the key 'name'"),
    ('{"images": [], "annotations": [], "categories": []}', "categories: expected at least one"),
])  # fmt: skip
def test_json_that_is_none(tmp_path, text, said):
    (tmp_path / "images").mkdir()
    (tmp_path / "instances.json").write_text(text, errors="surrogateescape")
    with pytest.raises(BadData) as raised:
        open_dataset("coco", tmp_path)
    assert said in str(raised.value)


@pytest.mark.parametrize(("objects", "text"), [
    (voc_object(box=[5, 5, 5, 5]), "x1 < x2"),
    (voc_object(box=[9, 5, 3, 8]), "x1 < x2"),
    (voc_object(box=[50, 5, 60, 8]), "in the image"),
    (voc_object(box=["nan", 5, 60, 8]), "4 finite numbers"),
    (voc_object(box=["", 5, 60, 8]), "a number in <xmin>, got ''"),
    (voc_object(name="cow"), "expected a category of ['cat'], got 'cow'"),
    (voc_object(more="<difficult>no</difficult>"), "a number in <difficult>"),
    ("<object><name>cat</name></object>", "expected <bndbox>, got none"),
])  # fmt: skip
def test_bad_voc(tmp_path, objects, text):
    data = open_voc(tmp_path, objects + voc_object(box=[1, 1, 4, 4]))
    (problem,) = data.problems
    assert str(problem).startswith(f"{tmp_path}/Annotations/a.xml, object 2: expected") and text in problem.text
    assert [len(data[i][1]["boxes"]) for i in range(2)] == [2, 1]


@pytest.mark.parametrize(("options", "text"), [
    ({"text": "<annotation><object>"}, "a.xml: expected xml, got no element found"),
    ({"text": "<?xml version='1.0' encoding='no such'?><a/>"}, "a.xml: expected xml"),
    ({"text": "<a><size><width>x</width></size></a>"}, "a.xml: expected a number in <width>, got 'x'"),
    ({"names": "a\nb\na\n"}, "train.txt, row 3: expected every image once, got 'a' again"),
    ({"names": "a\nb\nc\n"}, "c.xml: expected xml, got"),
])  # fmt: skip
def test_bad_voc_file(tmp_path, options, text):
    data = open_voc(tmp_path, **options)
    assert [text in str(problem) for problem in data.problems] == [True]
    assert data.ids == ([1, 2] if "names" in options else [2])


@pytest.mark.parametrize(("row", "text"), [
    ("a.jpg,cat,5,5,5,9", "row 3: expected a box with x1 < x2"),
    ("a.jpg,cat,50,5,55,9", "row 3: expected a box in the image"),
    ("a.jpg,cat,nan,5,55,9", "row 3: expected 4 finite numbers"),
    ("a.jpg,cat,x,5,55,9", "row 3: expected 4 numbers"),
    ("a.jpg,cow,1,5,9,9", "row 3: expected a category of ['cat'], got 'cow'"),
    ("a.jpg,cat,1,5,9", "row 3: expected image,category,xmin,ymin,xmax,ymax, got 'a.jpg,cat,1,5,9'"),
    (",cat,1,5,9,9", "row 3: expected image,category"),
    ("c.jpg,cat,1,5,9,9", "c.jpg: expected an image file, got none"),
    ("a.jpg,cat,-2,5,9,9", "row 3: expected a box in the image, got one 2 pixels outside; clipped"),
])  # fmt: skip
def test_bad_row(tmp_path, row, text):
    rows = f"image,category,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3.5,4\n{row}\nb.jpg,,,,,\n"
    data = open_csv(tmp_path, rows)
    assert [text in str(problem) for problem in data.problems] == [True]
    assert [len(data[i][1]["boxes"]) for i in range(2)] == [1 + ("clipped" in text), 0]
    assert data[0][1]["boxes"].tolist()[0] == [1, 2, 3.5, 4]
    with pytest.raises(BadData, match="expected"):
        open_csv(tmp_path, rows, on_bad="raise")


def test_csv_that_is_none(tmp_path):
    with pytest.raises(BadData, match=r"train.csv, row 3: expected rows of image.*unexpected end"):
        open_csv(tmp_path, 'a.jpg,cat,1,2,3,4\n"b.jpg,cat,1,2,3,4\n')


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
def test_nothing_there(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match=f"{kind}: expected"):
        open_dataset(kind, tmp_path)


def test_nothing_left(tmp_path):
    (tmp_path / "c.jpg").write_text("no image")
    with pytest.raises(BadData, match=r"expected images, got none that can be used\n0 images, .*1 problems\n.*c.jpg"):
        open_csv(tmp_path, "c.jpg,cat,1,2,3,4")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_truncated_image(tmp_path):
    data = open_csv(tmp_path, "a.jpg,cat,1,2,3,4\nb.jpg,cat,5,6,7,8\n")
    truncate(tmp_path / "b.jpg")
    assert not data.problems
    target = data[1][1]
    assert target["image_id"] == 1 and target["boxes"].tolist() == [[1, 2, 3, 4]]
    images, targets, problems = collate([data[0], data[1]])
    assert len(images) == 2 and "problems" not in targets[1]
    assert [str(p).startswith(f"{tmp_path}/b.jpg: expected an image, got OSError: ") for p in problems] == [True]
    with pytest.raises(BadData, match=r"b\.jpg: expected an image"):
        data.image(1)
    data.on_bad = "raise"
    with pytest.raises(BadData, match=r"b\.jpg: expected an image"):
        data[1]


def test_no_image_can_be_decoded(tmp_path):
    data = open_csv(tmp_path, "a.jpg,cat,1,2,3,4\nb.jpg,cat,5,6,7,8\n")
    for name in ("a.jpg", "b.jpg"):
        truncate(tmp_path / name)
    with pytest.raises(BadData, match=r"none of the 2 images can be decoded; the first: .*a.jpg"):
        data[0]


def test_image_of_another_size(tmp_path):
    data = open_coco(tmp_path, images=[{"id": 3, "file_name": "1.jpg", "width": 30, "height": 40}])
    (problem,) = data[2][1]["problems"]
    assert problem.text == "expected an image of 30 x 40, as annotated, got 40 x 30"
