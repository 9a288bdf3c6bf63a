"""Every object as a sample of its own: a part of its image that shows it, anywhere, and little of others."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchvision")
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import Base

from boxops.cli import main
from boxops.data import BadData, open_dataset, transforms
from boxops.data.one_object import FILLED, OTHER, cut
from boxops.data.records import Object, pack

SIZE = 120, 90
BOXES = [[10, 10, 40, 30], [70, 20, 100, 60], [80, 50, 110, 80]]  # the last two overlap a little


def record(boxes, size=SIZE, name="a.jpg", image_id=7, **flags):
    objects = [Object(label, box, **flags) for label, box in enumerate(boxes, 1)]
    return pack(Path("folder") / name, image_id, size, objects, None, False)


@st.composite
def scenes(draw):
    width, height = draw(st.integers(8, 300)), draw(st.integers(8, 300))
    boxes = []
    for _ in range(draw(st.integers(1, 12))):
        x1, y1 = draw(st.floats(0, width - 2, width=32)), draw(st.floats(0, height - 2, width=32))
        boxes.append([x1, y1, draw(st.floats(x1 + 1, width)), draw(st.floats(y1 + 1, height))])
    return record(boxes, (width, height), name=draw(st.text("abc", min_size=1)))


def overlap(box, other):
    sides = [min(box[k + 2], other[k + 2]) - max(box[k], other[k]) for k in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_parts(whole):
    parts, told = cut([whole])
    assert told.startswith(f"one_object: {len(parts)} parts of 1 images")
    assert len(parts) == len(whole.boxes) or f"; {len(whole.boxes) - len(parts)} objects left out" in told
    assert [part.id for part in parts] == [*range(1, len(parts) + 1)]
    places = [int(part.labels[0]) - 1 for part in parts]
    assert places == sorted(set(places))
    for g, part in zip(places, parts, strict=True):
        x1, y1, x2, y2, size = part.window
        assert 0 <= x1 < x2 <= whole.width and 0 <= y1 < y2 <= whole.height and size == (whole.width, whole.height)
        assert (part.width, part.height) == (x2 - x1, y2 - y1) and len(part.boxes) == 1
        box = part.boxes[0].astype(np.float64)
        np.testing.assert_allclose(box + np.array([x1, y1, x1, y1]), whole.boxes[g], atol=1e-4)
        assert (box >= 0).all() and box[2] <= part.width and box[3] <= part.height  # all of it is shown
        assert area(whole.boxes[g].astype(float)) <= FILLED * (x2 - x1) * (y2 - y1) + 1e-6
        for other in np.delete(whole.boxes.astype(np.float64), g, 0):
            assert overlap((x1, y1, x2, y2), other) <= OTHER * area(other) + 1e-6


@settings(deadline=None, max_examples=15)
@given(scenes())
def test_a_function_of_name_and_place(whole):
    parts, _ = cut([whole])
    other = dataclasses.replace(whole, path=Path("elsewhere") / whole.path.name, id=99)
    again, _ = cut([record([[1, 1, 5, 5]]), other])
    assert [part.window for part in again][len(again) - len(parts) :] == [part.window for part in parts]


def test_something_is_to_be_localized():
    """Of objects alone in large images: neither in the middle of their windows, nor of one size."""
    parts, _ = cut([record([[450, 450, 550, 550]], (1000, 1000), f"{i}.jpg") for i in range(300)])
    boxes = np.stack([part.boxes[0] / np.array([part.width, part.height] * 2) for part in parts])
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    assert (abs(middles.mean(0) - 0.5) < 0.03).all() and (middles.std(0) > 0.1).all()
    assert (sides.min(0) < 0.3).all() and (sides.max(0) > 0.6).all()


def test_left_out():
    inside = [[20, 20, 100, 80], [40, 40, 60, 60]]  # whoever sees the first sees all of the second
    parts, told = cut([record(inside)])
    assert [part.labels.tolist() for part in parts] == [[2]]
    assert told == (
        "one_object: 1 parts of 1 images, each of one object; 1 objects left out that no part shows without others"
    )
    for flag in ("iscrowd", "difficult"):
        parts, told = cut([record([inside[0]], **{flag: True})])
        assert parts == [] and "1 objects left out that are crowds or difficult" in told
    assert cut([record([[0, 0, 120, 90]])])[0] == []  # it fills the image
    mixed = record(inside[::-1])
    mixed.iscrowd[0] = 1
    assert cut([mixed])[0] == []  # a crowd is seen as any other object


def write(folder, kind):
    """One image of noise, as each format has it."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    names = ["one", "two", "three"]
    if kind == "coco":
        images = [{"id": 5, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}]
        things = [{"id": i, "image_id": 5, "category_id": i, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                  for i, (x1, y1, x2, y2) in enumerate(BOXES, 1)]  # fmt: skip
        categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
        text = json.dumps({"images": images, "annotations": things, "categories": categories})
        (folder / "train.json").write_text(text)
    elif kind == "csv":
        rows = [f"a.png,{','.join(map(str, box))},{name}" for box, name in zip(BOXES, names, strict=True)]
        (folder / "train.csv").write_text("\n".join(["image,xmin,ymin,xmax,ymax,class", *rows]) + "\n")
    elif kind == "yolo":
        (folder / "data.yaml").write_text("train: .\nnames: [one, two, three]\n")
        rows = [[(x1 + x2) / 2 / SIZE[0], (y1 + y2) / 2 / SIZE[1], (x2 - x1) / SIZE[0], (y2 - y1) / SIZE[1]]
                for x1, y1, x2, y2 in BOXES]  # fmt: skip
        (folder / "a.txt").write_text("\n".join(f"{i} {' '.join(map(repr, row))}" for i, row in enumerate(rows)))
    else:
        corners = ("xmin", "ymin", "xmax", "ymax")
        things = "".join(
            f"<object><name>{name}</name><bndbox>"
            + "".join(f"<{key}>{value}</{key}>" for key, value in zip(corners, box, strict=True))
            + "</bndbox></object>"
            for box, name in zip(BOXES, names, strict=True)
        )
        (folder / "a.xml").write_text(f"<annotation>{things}</annotation>")
    return torch.from_numpy(noise).permute(2, 0, 1)


@pytest.mark.parametrize("kind", ["voc", "coco", "yolo", "csv"])
def test_every_format(tmp_path, kind):
    noise = write(tmp_path, kind)
    data = open_dataset(kind, tmp_path, one_object=True)
    images = data.coco()["images"]
    assert len(data) == 3 and data.ids == [1, 2, 3] == [image["id"] for image in images]
    assert data.report().startswith("3 images, 3 objects, 3 classes, 0 problems\n  note: one_object: 3 parts of 1")
    whole = open_dataset(kind, tmp_path)[0][1]
    for i in range(3):
        image, target = data[i]
        x1, y1, x2, y2, _ = data.records()[i].window
        assert torch.equal(image.as_subclass(torch.Tensor), noise[:, y1:y2, x1:x2])
        assert torch.equal(image, torch.from_numpy(np.array(data.image(i))).permute(2, 0, 1))
        assert (images[i]["height"], images[i]["width"]) == image.shape[1:] == target["boxes"].canvas_size
        moved = target["boxes"].as_subclass(torch.Tensor) + torch.tensor([x1, y1, x1, y1])
        torch.testing.assert_close(moved[0], whole["boxes"].as_subclass(torch.Tensor)[i])
        assert target["labels"] == whole["labels"][i] and target["area"] == whole["area"][i]
        assert target["image_id"] == i + 1
        x, y, w, h = data.coco()["annotations"][i]["bbox"]
        torch.testing.assert_close(target["boxes"][0].tolist(), [x, y, x + w, y + h])


def test_smaller(tmp_path):
    """`enough` halves a window by its own size, not by the image's."""
    write(tmp_path, "csv")
    data = open_dataset("csv", tmp_path, one_object=True)
    full = [(data.image(i), data[i][1]["boxes"]) for i in range(3)]
    for enough, halved in ((10, [2, 4, 8]), (20, [1, 2])):
        data.enough = enough, float("inf")
        factors = []
        for i, (image, boxes) in enumerate(full):
            factors.append(max(k for k in (1, 2, 4, 8) if min(image.size) >= k * enough or k == 1))
            small, target = data[i]
            expected = torch.from_numpy(np.array(image.reduce(factors[-1]))).permute(2, 0, 1)
            assert torch.equal(small.as_subclass(torch.Tensor), expected)
            torch.testing.assert_close(target["boxes"].as_subclass(torch.Tensor) * factors[-1], boxes.data)
        assert set(factors) <= set(halved) and max(factors) > 1


def test_sideways(tmp_path):
    """Annotations of the image as stored: the windows are of the upright one."""
    write(tmp_path, "voc")
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    Image.open(tmp_path / "a.png").save(tmp_path / "a.png", exif=exif)
    xml = (tmp_path / "a.xml").read_text()
    size = "<size><width>120</width><height>90</height></size>"
    (tmp_path / "a.xml").write_text(xml.replace("<annotation>", f"<annotation>{size}"))
    whole, data = (open_dataset("voc", tmp_path, one_object=one) for one in (False, True))
    upright = whole[0][0]
    assert upright.shape[1:] == (120, 90)
    for i in range(3):
        x1, y1, x2, y2, size = data.records()[i].window
        assert size == (90, 120) and torch.equal(data[i][0], upright[:, y1:y2, x1:x2])
        moved = data[i][1]["boxes"] + torch.tensor([x1, y1, x1, y1])
        torch.testing.assert_close(moved[0], whole[0][1]["boxes"].as_subclass(torch.Tensor)[i])


def test_the_parts_of_an_image_stay_together(tmp_path):
    names = [f"{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        Image.new("RGB", SIZE, (i, 0, 0)).save(tmp_path / name)
    rows = [f"{name},{','.join(map(str, box))},thing" for name in names for box in BOXES]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    data = open_dataset("csv", tmp_path, one_object=True)
    parts = data.split_off(0.75)
    paths = [{part.image_path(i) for i in range(len(part))} for part in parts]
    assert len(parts[0]) == 18 and len(parts[1]) == 6 and not paths[0] & paths[1]
    part = parts[1]
    part.transform = transforms.evaluate()
    truth = part.coco()
    assert {a["image_id"] for a in truth["annotations"]} == {image["id"] for image in truth["images"]} == {*part.ids}


def test_an_image_of_another_size(tmp_path):
    write(tmp_path, "coco")
    data = open_dataset("coco", tmp_path, one_object=True, on_bad="raise")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(BadData, match=r"a\.png: expected an image of 120 x 90, as annotated, got 64 x 64"):
        data[0]


def test_shapes():
    data = open_dataset("shapes", length=20, size=64, one_object=True)
    assert [len(data[i][1]["boxes"]) for i in range(20)] == [1] * 20 == [len(r.boxes) for r in data.records()]
    alone = open_dataset("shapes", length=20, size=64, max_objects=1)
    assert torch.equal(data[3][0], alone[3][0])


def test_options(tmp_path):
    with pytest.raises(ValueError, match="one_object: expected true or false, got 1"):
        open_dataset("shapes", one_object=1)
    write(tmp_path, "coco")
    points = json.loads((tmp_path / "train.json").read_text())
    for thing in points["annotations"]:
        x, y, w, h = thing["bbox"]
        thing["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    (tmp_path / "train.json").write_text(json.dumps(points))
    with pytest.raises(ValueError, match="one_object: expected data without masks, got data with them; masks=False"):
        open_dataset("coco", tmp_path, masks=True, one_object=True)
    (tmp_path / "train.csv").write_text("a.png,,,,,\n")
    (tmp_path / "train.json").unlink()
    with pytest.raises(BadData, match="one_object: expected objects, got none: one_object: 0 parts of 1 images"):
        open_dataset("csv", tmp_path, classes=["one"], one_object=True)


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "set", "csv")
    shutil.copy("set/a.png", "set/b.png")
    with open("set/train.csv", "a") as file:
        file.write("b.png,10,10,40,30,one\n")
    check = ["data", "check", "set", "--data-option", "one_object=true", "--out", "sheet.jpg", "--json", "found.json"]
    assert main(check) == 0
    told = capsys.readouterr().out
    assert "note of train: one_object: 4 parts of 2 images, each of one object" in told and "no problems" in told
    found = json.loads(Path("found.json").read_text())
    assert found["splits"]["train"] == {"images": 4, "objects": 4, "without_objects": 0}
    assert found["notes"] == {"train": ["one_object: 4 parts of 2 images, each of one object"]}
    Image.open("sheet.jpg").load()
    Path("set/a.png").write_bytes(Path("set/a.png").read_bytes()[:3000])
    assert main([*check, "--overwrite"]) == 1
    assert "1 problem\n" in capsys.readouterr().out  # not one for each object
    words = ["train", "localizer", "--root", "set", "--data-option", "one_object=false", "--out", "run"]
    assert main(words) == 2
    assert "--data-option one_object: expected true, as this model needs it, got false" in capsys.readouterr().err
