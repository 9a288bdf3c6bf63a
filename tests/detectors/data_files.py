"""Small data sets in files, for the tests: two images, each with one good object."""

import json
import os
import pathlib

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("faster_coco_eval")

from PIL import Image

from boxops.data import open_dataset

DATA = pathlib.Path(os.environ.get("BOXOPS_TEST_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="BOXOPS_TEST_DATA is not set")
SIZE = 40, 30  # of every image written here
BOX, POLYGON = [2, 3, 12, 13], [[2, 3, 12, 3, 12, 13]]


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZE, (9, 99, 199)).save(folder / name)


def open_coco(tmp_path, more=(), images=(), text=None, **options):
    """A set of two images with a good annotation each, and the given ones between."""
    good = {
        "image_id": 1,
        "category_id": 7,
        "bbox": [2, 3, 10, 10],
        "segmentation": POLYGON,
        "keypoints": [3, 4, 2] * 2,
    }
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in (1, 2)] + list(images),
        "annotations": [{"id": 1, **good}, *({"id": 17, **good, **a} if isinstance(a, dict) else a for a in more),
                        {"id": 2, **good, "image_id": 2}],
        "categories": [{"id": 7, "name": "cat", "keypoints": ["left_ear", "right_ear"]}, {"id": 9, "name": "dog"}],
    }  # fmt: skip
    write_images(tmp_path / "images", "1.jpg", "2.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(data) if text is None else text)
    options = {"masks": True, "keypoints": True, **options}
    return open_dataset("coco", tmp_path, **options)


def voc_object(name="cat", box=BOX, more=""):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{more}</object>"


def open_voc(tmp_path, objects="", text=None, names="a\nb\n", **options):
    write_images(tmp_path / "JPEGImages", "a.jpg", "b.jpg")
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    size = "<size><width>40</width><height>30</height></size>"
    for name, things in (("a", voc_object() + objects), ("b", voc_object())):
        xml = f"<annotation>{size}{things}</annotation>" if text is None or name == "b" else text
        (tmp_path / f"Annotations/{name}.xml").write_text(xml)
    (tmp_path / "ImageSets/Main/train.txt").write_text(names)
    return open_dataset("voc", tmp_path, **{"classes": ["cat"], **options})


def open_csv(tmp_path, rows, **options):
    write_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "train.csv").write_text(rows)
    return open_dataset("csv", tmp_path, **{"classes": ["cat"], **options})
