"""YOLO's text files: layouts, descriptions, rows, and what is bad in them."""

import sys

import numpy as np
import pytest
from data_files import BOX, write_images

from boxops.data import BadData, open_dataset

pytest.importorskip("yaml")

WIDTH, HEIGHT = 40, 30
ROW = f"0 {7 / WIDTH} {8 / HEIGHT} {10 / WIDTH} {10 / HEIGHT}"  # BOX: 2, 3, 12, 13
YAML = "names: [cat, dog]\nnc: 2\n"


def write(root, files):
    """Images by their names, and texts."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            write_images((root / name).parent, (root / name).name)
        else:
            (root / name).write_text(text, encoding="utf-8")


def flat(rows, names="cat\ndog\n", image="a.jpg"):
    return {image: None, "a.txt": rows, "classes.txt": names}


PATHS = "path: {root}\ntrain: images/train\nval: images/val\ntest: # optional\n"
LISTS = {"train.txt": "./images/a.jpg\n\n", "val.txt": "images/b.jpg\n"}
LAYOUTS = {  # files, of train and val
    "ultralytics": ({"data.yaml": YAML + PATHS}, "images/train/a.jpg", "images/val/b.jpg"),
    "elsewhere": ({"my.yaml": YAML + PATHS.replace("{root}", "../datasets/x")},
                  "images/train/a.jpg", "images/val/b.jpg"),
    "absolute": ({"data.yaml": YAML + "train: /content/x/images/train\nval: C:\\x\\images\\val\n"},
                 "images/train/a.jpg", "images/val/b.jpg"),
    "Roboflow": ({"data.yaml": YAML + "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"},
                 "train/images/a.jpg", "valid/images/b.jpg"),
    "folder of folders": ({"data.yaml": YAML + "train: train\nval: val"}, "train/images/a.jpg", "val/images/b.jpg"),
    "lists of folders": ({"data.yaml": YAML + "train: [images/2, ./images/2]\nval: [images/3]\n"},
                         "images/2/a.jpg", "images/3/b.jpg"),
    "files of names": ({"data.yaml": YAML + "train: train.txt\nval: val.txt\n", **LISTS},
                       "images/a.jpg", "images/b.jpg"),
    "names in a dict": ({"data.yaml": PATHS.replace("{root}", ".") + "names:\n  1: dog\n  0: cat\n"},
                        "images/train/a.jpg", "images/val/b.jpg"),
    "no yaml": ({"classes.txt": "cat\ndog\n\n"}, "images/train/a.jpg", "images/val/b.jpg"),
    "no yaml, labels below": ({"labels/classes.txt": "cat\r\ndog"}, "images/train/a.jpg", "images/val/b.jpg"),
    "Roboflow darknet": ({"train/_darknet.labels": "cat\ndog", "valid/_darknet.labels": "cat\ndog"},
                         "train/a.jpg", "valid/b.jpg"),
    "darknet": ({"obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/test.txt\nnames = data/obj.names\n",
                 "obj.names": "cat\ndog\n", "train.txt": "data/obj/a.jpg\n", "test.txt": "data/obj/b.jpg\n"},
                "obj/a.jpg", "obj/b.jpg"),
    "darknet's lists": ({"obj.names": "cat\ndog", "train.txt": "obj/a.jpg\n", "valid.txt": "obj\\b.jpg"},
                        "obj/a.jpg", "obj/b.jpg"),
    "upper case": ({"data.yaml": YAML + "train: Images/Train\nval: Images/Val\n"},
                   "Images/Train/a.JPG", "Images/Val/b.PNG"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(tmp_path, name):
    files, *images = LAYOUTS[name]
    for image, row in zip(images, (ROW, ROW.replace("0", "1", 1)), strict=True):
        label = image.rsplit(".", 1)[0] + ".txt"
        label = "Labels".join(label.rsplit("Images", 1)) if "Images" in label else label.replace("images", "labels")
        write(tmp_path, {image: None, label: row})
    write(tmp_path, {file: text.replace("{root}", str(tmp_path)) for file, text in files.items()})
    for split, image, label in (("train", images[0], 1), ("val", images[1], 2), ("valid", images[1], 2)):
        data = open_dataset("auto", tmp_path, split=split)
        assert [data.image_path(i) for i in range(len(data))] == [tmp_path / image]
        assert data.classes == ["cat", "dog"] and not data.problems and not data.undivided
        assert data[0][1]["boxes"].tolist()[0] == pytest.approx(BOX, abs=1e-4)
        assert data[0][1]["labels"].tolist() == [label]
    with pytest.raises(FileNotFoundError, match=r"yolo: expected the split fold1 in .*, got (train, va|valid, train)"):
        open_dataset("yolo", tmp_path, split="fold1")


@pytest.mark.parametrize(("image", "label"), [
    ("a.jpg", "a.txt"), ("images/a.jpg", "labels/a.txt"), ("images/a.jpg", "images/a.txt"),
    ("images/x/a.jpg", "labels/x/a.txt"),
])  # fmt: skip
def test_undivided(tmp_path, image, label):
    tmp_path = tmp_path / "images" / "mine"  # a folder above that is called so changes nothing
    write(tmp_path, {image: None, label: ROW, image.replace("a.", "b."): None, "classes.txt": "cat"})
    for split in ("train", "val"):
        data = open_dataset("auto", tmp_path, split=split)
        assert data.undivided and not data.problems
        assert [data.image_path(i).name for i in range(len(data))] == ["a.jpg", "b.jpg"]
        assert [len(record.boxes) for record in data.records()] == [1, 0]


def test_given_paths(tmp_path):
    write(
        tmp_path,
        {"pictures/a.jpg": None, "txt/a.txt": ROW, "x/my.yaml": YAML + "train: ../pictures", "txt/classes.txt": "c"},
    )
    data = open_dataset("yolo", images=tmp_path / "pictures", annotations=tmp_path / "txt")
    assert data.undivided and data.classes == ["c"] and len(data[0][1]["boxes"]) == 1
    with pytest.raises(BadData, match=r"yolo: expected labels in .*pictures/a.txt, ..., got none for any of 1 images"):
        open_dataset("auto", tmp_path / "x" / "my.yaml")
    write(tmp_path, {"pictures/a.txt": ROW})
    for options in (
        {"root": tmp_path / "x/my.yaml"},
        {"annotations": tmp_path / "x/my.yaml"},
        {"root": tmp_path / "x"},
    ):
        assert open_dataset("auto", **options).classes == ["cat", "dog"]
    with pytest.raises(ValueError, match="expected root, or annotations and images, got neither"):
        open_dataset("yolo")
    with pytest.raises(FileNotFoundError, match="expected a folder as images"):
        open_dataset("yolo", tmp_path, images=tmp_path / "no")
    with pytest.raises(FileNotFoundError, match=r"yolo: expected data.yaml or images in .*, got no such folder"):
        open_dataset("yolo", tmp_path / "no")


def test_rows(tmp_path):
    rows = f"\ufeff{ROW}\n\n1.0\t0.5 0.5 1 1  \n0 0 0 0.5 0 0.5 0.5\n1 .1 .1 .2 .1 .2 .3 .1 .3\n0 0.0 0.5 0.5 0.5\n"
    write(tmp_path, flat(rows))
    data = open_dataset("yolo", tmp_path)
    assert data[0][1]["labels"].tolist() == [1, 2, 1, 2, 1]
    expected = [BOX, [0, 0, 40, 30], [0, 0, 20, 15], [4, 3, 8, 9], [0, 7.5, 10, 22.5]]
    np.testing.assert_allclose(data[0][1]["boxes"], expected, atol=1e-4)
    (problem,) = data.problems  # half of the last box is outside
    assert problem.place == "row 6" and "10 pixels outside; clipped" in problem.text


def test_polygons_are_masks(tmp_path):
    write(tmp_path, flat(f"0 0 0 0.5 0 0.5 0.5 0 0.5\n{ROW}\n"))
    data = open_dataset("yolo", tmp_path, masks=True)
    target = data[0][1]
    assert target["masks"].sum().item() == 300 and target["area"].tolist() == [300]
    assert target["masks"][0, :15, :20].all() and target["labels"].tolist() == [1]
    (problem,) = data.problems
    assert problem.place == "row 2" and "expected polygons or run lengths" in problem.text


@pytest.mark.parametrize(("row", "text"), [
    ("2 0.5 0.5 0.1 0.1", "expected a class of 0..1, got 2"),
    ("-1 0.5 0.5 0.1 0.1", "expected a class of 0..1, got -1"),
    ("0.5 0.5 0.5 0.1 0.1", "expected a class of 0..1, got 0.5"),
    ("nan 0.5 0.5 0.1 0.1", "expected a class of 0..1, got nan"),
    ("cat 0.5 0.5 0.1 0.1", "expected numbers, got 'cat 0.5 0.5 0.1 0.1'"),
    ("0,0.5,0.5,0.1,0.1", "expected numbers, got"),
    ("0 7 8 10 10", "expected parts of the image's sides, 0..1, got '7 8 10 10'"),
    ("0 0.5 0.5 nan 0.1", "0..1, got"),
    ("0 0.5 0.5 -0.1 0.1", "0..1, got"),
    ("0 0.1 0.1 9 9 0.1 0.9", "0..1, got"),
    ("0 0.5 0.5 0 0.1", "expected a box with x1 < x2"),
    ("0", "got 1 numbers"),
    ("0 0.5 0.5 0.1", "got 4 numbers"),
    ("0 0.5 0.5 0.1 0.1 0.9", "or class and the points of a polygon, got 6 numbers"),
    ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", "got 8 numbers"),
    (ROW, "expected every row once"),
])  # fmt: skip
def test_bad_row(tmp_path, row, text):
    write(tmp_path, flat(f"{ROW}\n{row}\n1 0.5 0.5 0.1 0.1\n"))
    data = open_dataset("yolo", tmp_path)
    (problem,) = data.problems
    assert str(problem).startswith(f"{tmp_path}/a.txt, row 2: expected") and text in problem.text
    assert data[0][1]["labels"].tolist() == [1, 2]
    with pytest.raises(BadData, match="row 2"):
        open_dataset("yolo", tmp_path, on_bad="raise")


def test_labels_without_image(tmp_path):
    write(tmp_path, {"data.yaml": YAML + "train: images/train\n", "images/train/a.jpg": None, "labels/train/a.txt": ROW,
                     "labels/train/x.txt": ROW, "labels/train/classes.txt": "cat\n"})  # fmt: skip
    (problem,) = open_dataset("yolo", tmp_path).problems
    text = "expected an image for each file, got none for 1, such as x.txt"
    assert str(problem) == f"{tmp_path}/labels/train: {text}"


def test_keypoints_are_left_out(tmp_path):
    row = f"{ROW} 0.1 0.1 0.2 0.2"  # with an even number of values, as of a polygon
    write(tmp_path, {"images/a.jpg": None, "labels/a.txt": f"{row}\n0 0 0 1 1 1 0\n",
                     "data.yaml": YAML + "train: images\nkpt_shape: [2, 2]\n"})  # fmt: skip
    data = open_dataset("yolo", tmp_path)
    assert data[0][1]["boxes"].tolist()[0] == pytest.approx(BOX, abs=1e-4)
    assert ["8 numbers with keypoints, got 7" in problem.text for problem in data.problems] == [True]


def test_missing_and_broken_images(tmp_path):
    write(
        tmp_path, {"obj.names": "cat", "train.txt": "a.jpg\nb.jpg\nc.jpg\n", "a.jpg": None, "a.txt": ROW, "c.jpg": "no"}
    )
    data = open_dataset("yolo", tmp_path)
    assert len(data) == 1
    assert [problem.file for problem in data.problems] == [str(tmp_path / name) for name in ("b.jpg", "c.jpg")]
    assert all("expected an image" in problem.text for problem in data.problems)


@pytest.mark.parametrize(("text", "said"), [
    ("names: [a, b\n", r"data.yaml: expected yaml, got while parsing"),
    ("- a\n", r"data.yaml: expected keys such as names and train, got list"),
    ("names: [a]\nnc: 2\n", r"data.yaml, names: expected 2 names, as many as classes, got 1"),
    ("names: {1: a, 2: b}\n", r"data.yaml, names: expected classes 0..1, got \[1, 2\]"),
    ("names: [a, a]\ntrain: images\n", r"expected every class's name once in .*data.yaml, got \['a', 'a'\]"),
    ("names: {a: 0}\n", r"data.yaml, names: expected numbers of classes, got \['a'\]"),
    ("names: [a]\ntrain: no/where\n", r"data.yaml, train: expected the images in no/where, got no such file or folder"),
    ("names: [a]\nval: images\n", r"expected the split train in .*data.yaml, got val"),
    ("names: [a]\ntrain: null\nval: images\n", r"expected the split train in .*data.yaml, got val"),
    ("train: images\n", r"expected the classes' names in data.yaml or classes.txt .*, or as classes=\[...\]"),
    ("names: [a]\ntrain: text\n", r"expected labels in .*, got no image"),
])  # fmt: skip
def test_bad_description(tmp_path, text, said):
    write(tmp_path, {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": text, "text/a.txt": "a"})
    with pytest.raises((BadData, FileNotFoundError), match=said):
        open_dataset("yolo", tmp_path)


def test_names(tmp_path):
    write(
        tmp_path,
        {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": "train: images\nnames: [no, 1, 'on: x', 人]\n"},
    )
    assert open_dataset("yolo", tmp_path).classes == ["no", "1", "on: x", "人"]
    data = open_dataset("yolo", tmp_path, classes=["人", "no"])  # as a checkpoint has them: in another order
    assert data.classes == ["人", "no"] and data[0][1]["labels"].tolist() == [2]
    (problem,) = open_dataset("yolo", tmp_path, classes=["人"]).problems
    assert "expected a category of ['人'], got 'no'" in problem.text
    write(tmp_path, {"data.yaml": "train: images\n"})
    data = open_dataset("yolo", tmp_path, classes=["a"])
    assert data.classes == ["a"] and data[0][1]["labels"].tolist() == [1]
    write(tmp_path, {"data.yaml": "train: images\nnc: 3\n"})
    assert open_dataset("yolo", tmp_path).classes == ["class_0", "class_1", "class_2"]


def test_yaml_is_not_installed(tmp_path, monkeypatch):
    write(tmp_path, {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": YAML})
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"data.yaml needs PyYAML \(pip install pyyaml\)"):
        open_dataset("auto", tmp_path)
