"""Formats: what is written is read back, on real data as pycocotools reads it."""

import pathlib

import numpy as np
import pytest
from data_files import BOX, DATA, needs_data, open_coco, open_csv, open_voc, voc_object, write_images
from hypothesis import given
from hypothesis import strategies as st

from boxops.data import open_dataset, segmentation
from boxops.data.coco import flip_of


@given(st.integers(0, 99), st.integers(0, 99), st.characters(min_codepoint=40, max_codepoint=120) | st.just(""))
def test_no_bad_runs_reach_c(seed, place, character):
    """A character changed or left out: either it is seen, or a mask of the right size comes out."""
    good = segmentation.encode(np.random.default_rng(seed).random((6, 5)) < 0.3)["counts"]
    place %= len(good)
    rle = {"size": [6, 5], "counts": good[:place] + character + good[place + 1 :]}
    try:
        segmentation.check(rle, 6, 5)
    except ValueError:
        return
    assert segmentation.decode(rle, 6, 5).shape == (6, 5)


def test_clipped_by_less_than_a_pixel_is_no_problem(tmp_path):
    data = open_coco(tmp_path, [{"bbox": [-0.5, 20, 41, 10.4]}])
    assert not data.problems
    assert data[0][1]["boxes"].tolist()[1] == [0, 20, 40, 30]


def test_flip_of_names():
    names = ["nose", "left_eye", "right_eye", "leftover"]
    assert flip_of(names) == [0, 2, 1, 3]


def test_voc_read_back(tmp_path):
    more = voc_object("dog", [1, 2, 30.5, 20], "<difficult>1</difficult>")
    data = open_voc(tmp_path, more, classes=None)
    assert data.classes == ["cat", "dog"] and data.image_path(1) == tmp_path / "JPEGImages" / "b.jpg"
    target = data[0][1]
    assert target["boxes"].tolist() == [BOX, [1, 2, 30.5, 20]]
    assert target["labels"].tolist() == [1, 2] and target["difficult"].tolist() == [False, True]
    truth = data.coco()
    assert [a["ignore"] for a in truth["annotations"]] == [0, 1, 0]
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3]
    assert truth["annotations"][1]["bbox"] == [1, 2, 29.5, 18] and truth["annotations"][1]["area"] == 29.5 * 18
    data = open_dataset("voc", tmp_path, one_based=True)
    assert data[0][1]["boxes"].tolist()[1] == [0, 1, 30.5, 20]


def test_coco_read_back(tmp_path):
    crowd = {
        "iscrowd": 1,
        "segmentation": {"size": [30, 40], "counts": [600, 60, 540]},
        "area": 60,
        "keypoints": [0] * 6,
    }
    data = open_coco(tmp_path, [{"bbox": [15, 0, 2, 30], **crowd}], images=[])
    image, target = data[0]
    assert image.shape == (3, 30, 40) and image.tolist()[2][0][0] in range(196, 203)
    assert data.keypoint_names == ["left_ear", "right_ear"] and data.keypoint_flip == [1, 0]
    assert target["boxes"].tolist() == [BOX, [15, 0, 17, 30]] and target["iscrowd"].tolist() == [0, 1]
    assert target["area"].tolist() == [100, 60]
    np.testing.assert_array_equal(target["masks"][1].sum(0), [0] * 20 + [30] * 2 + [0] * 18)
    assert target["keypoints"].tolist() == [[[3, 4, 2]] * 2, [[0, 0, 0]] * 2]
    truth = data.coco()
    assert [a["num_keypoints"] for a in truth["annotations"]] == [2, 0, 2]
    assert [a["category_id"] for a in truth["annotations"]] == [7, 7, 7]
    assert truth["annotations"][1]["segmentation"] == crowd["segmentation"]
    plain = open_coco(tmp_path, masks=False, keypoints=False)
    assert not {"masks", "keypoints"} & set(plain[0][1]) and "segmentation" not in plain.coco()["annotations"][0]


def test_some_classes_only(tmp_path):
    """Objects of the others are left out with masks and keypoints, images stay; nothing is a problem."""
    dog = {"category_id": 9, "bbox": [5, 6, 20, 10], "segmentation": [[5, 6, 25, 6, 25, 16]]}
    data = open_coco(tmp_path, [dog], only=["dog"], on_bad="raise")
    assert data.classes == ["dog"] and data.category_ids == [9] and len(data) == 2 and not data.problems
    target = data[0][1]
    assert target["boxes"].tolist() == [[5, 6, 25, 16]] and target["labels"].tolist() == [1]
    assert target["keypoints"].shape == (1, 2, 3) and target["masks"].shape == (1, 30, 40)
    assert target["masks"][0, 7, 20] == 1 and target["masks"][0, 4, 5] == 0
    assert len(data[1][1]["boxes"]) == len(data[1][1]["masks"]) == 0
    (annotation,) = data.coco()["annotations"]
    assert (annotation["id"], annotation["category_id"], annotation["bbox"]) == (17, 9, [5, 6, 20, 10])
    assert data.report().splitlines()[1:] == ["  note: left out: 2 objects of other classes: cat"]
    text = (tmp_path / "instances.json").read_text()
    data = open_coco(tmp_path, text=text, only=["dog", "cat"])  # an order
    assert data[0][1]["labels"].tolist() == [2, 1] and data.category_ids == [9, 7] and not data.notes
    with pytest.raises(ValueError, match=r"^only: expected classes of \['cat', 'dog'\], got \['cow'\]"):
        open_coco(tmp_path, text=text, only=["dog", "cow"])
    with pytest.raises(ValueError, match=r"^only: expected objects in files, got generated ones"):
        open_dataset("shapes", length=2, only=["circle"])


def test_coco_folders(tmp_path):
    open_coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "instances.json").rename(tmp_path / "annotations" / "instances_val2017.json")
    (tmp_path / "images").rename(tmp_path / "val2017")
    data = open_dataset("coco", tmp_path, split="val")
    assert data.image_path(0) == tmp_path / "val2017" / "1.jpg" and len(data) == 2
    with pytest.raises(FileNotFoundError, match="instances_train"):
        open_dataset("coco", tmp_path, split="train")


def test_csv_without_header(tmp_path):
    write_images(tmp_path / "pictures", "a, b.png")
    data = open_csv(tmp_path, '"a, b.png",cat,1,2,3,4\n', images=tmp_path / "pictures", classes=None)
    assert data.classes == ["cat"] and len(data[0][1]["boxes"]) == 1
    assert "1 images, 1 objects, 1 classes, 0 problems" in data.report()


@needs_data
def test_blood_cells():
    counts = np.zeros(4, int)
    problems = []
    for split in ("trainval", "test"):
        data = open_dataset("voc", DATA / "bccd", split=split)
        assert data.classes == ["Platelets", "RBC", "WBC"]
        problems += data.problems
        for record in data.records():
            counts += np.bincount(record.labels, minlength=4)
        assert len(data) == {"trainval": 292, "test": 72}[split]
    assert [(pathlib.Path(p.file).name, p.place) for p in problems] == [
        ("BloodImage_00338.xml", "object 13"), ("BloodImage_00343.xml", "object 4")]  # fmt: skip
    assert counts.sum() == 4888 - 2 and counts[3] == 372
    data = open_dataset("voc", DATA / "bccd", split="test", only=["WBC"])
    assert sum(len(record.boxes) for record in data.records()) == 71 and len(data) == 72 and not data.problems


@needs_data
def test_coco_masks_agree_with_pycocotools():
    pycocotools = pytest.importorskip("pycocotools.coco")
    data = open_dataset("coco", DATA / "coco", masks=True)
    truth = pycocotools.COCO(DATA / "coco" / "instances.json")
    assert not data.problems and len(data) == 33 and sum(len(r.boxes) for r in data.records()) == 246
    crowds = 0
    for i, record in enumerate(data.records()):
        target = data[i][1]
        for g, own in enumerate(record.ids.tolist()):
            annotation = truth.anns[own]
            np.testing.assert_array_equal(target["masks"][g].numpy(), truth.annToMask(annotation))
            np.testing.assert_allclose(record.boxes[g, 2:] - record.boxes[g, :2], annotation["bbox"][2:], atol=1e-3)
            assert data.category_ids[target["labels"][g] - 1] == annotation["category_id"]
            crowds += int(target["iscrowd"][g])
    assert crowds == 3
