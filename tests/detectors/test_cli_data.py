"""`boxops data check`, and the flags that say what and where the data is."""

import argparse
import json
import re

import pytest
from data_files import BOX, open_coco, open_csv, open_voc, voc_object, write_images
from PIL import Image
from test_data_bad import truncate

from boxops.cli import common, main
from boxops.draw import colour


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder beside the data, and a terminal of 80 columns."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "here"


def check(*words):
    return main(["data", "check", *map(str, words)])


def tables(text):
    """The rows of words in the lines that say something."""
    return [line.split() for line in text.splitlines() if line.strip()]


def test_clean_data(tmp_path, folder, capsys):
    open_coco(tmp_path / "data")
    assert check(tmp_path / "data") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{tmp_path}/data: coco\n") and "\nno problems\nboxes drawn: check.jpg\n" in out
    assert ["cat", "2"] in tables(out) and ["dog", "0"] in tables(out)
    assert ["images", *["40", "x", "30"] * 3] in tables(out) and ["boxes", *["10", "x", "10"] * 3] in tables(out)
    with Image.open(folder / "check.jpg") as sheet:
        assert sheet.size == (640 * 2 + 6, 480 + 27)
        x, y = BOX[0] * 16, 27 + 8 * 16  # on the left edge of the box, enlarged and below the title
        assert all(abs(a - b) < 60 for a, b in zip(sheet.getpixel((x + 1, y)), colour(1), strict=True))
    assert check(tmp_path / "data") == 0
    assert "check.jpg exists, no picture is drawn" in capsys.readouterr().out
    assert check(tmp_path / "data/instances.json", "--overwrite") == 0
    assert "boxes drawn: check.jpg" in capsys.readouterr().out


def test_splits_and_problems(tmp_path, folder, capsys):
    root = tmp_path / "data"
    open_voc(root, voc_object(box=[5, 5, 5, 5]), names="a\nb\nc\n")
    for part, names in (("val", "d\n"), ("trainval", "a\nb\nd\n"), ("test", "e\nf\n")):
        (root / f"ImageSets/Main/{part}.txt").write_text(names)
    write_images(root / "JPEGImages", "d.jpg", "e.jpg", "f.jpg")
    Image.new("RGB", (40, 30), "red").save(root / "JPEGImages/d.jpg")
    truncate(root / "JPEGImages/f.jpg")
    for name in "def":
        thing = voc_object("[b]dog" if name == "d" else "cat")
        size = "<size><width>40</width><height>30</height></size>"
        (root / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{thing * (name != 'e')}</annotation>")
    assert check(root, "--json", "all.json", "--out", "sheet.png") == 1
    out = capsys.readouterr().out
    rows = tables(out)
    assert [row for row in rows if row[0] in ("train", "val", "test")] == [
        ["train", "2", "0", "2"], ["val", "1", "0", "1"], ["test", "2", "1", "1"]]  # fmt: skip
    assert ["class", "train", "val", "test", "all"] in rows
    assert ["cat", "2", "0", "1", "3"] in rows and ["[b]dog", "0", "1", "0", "1"] in rows
    assert "3 problems" in out and f"{root}/Annotations/a.xml, object 2: expected a box with x1 < x2" in out
    assert max(map(len, (line for line in out.splitlines() if str(root) not in line))) <= 80
    assert f"1 images are in more than one split, such as {root}/JPEGImages/" in out
    found = json.loads((folder / "all.json").read_text())
    assert found["kind"] == "voc" and found["splits"]["test"] == {"images": 2, "objects": 1, "without_objects": 1}
    assert found["classes"]["cat"] == {"train": 2, "val": 0, "test": 1}
    assert [problem["file"].rsplit("/", 1)[1] for problem in found["problems"]] == ["a.xml", "c.xml", "f.jpg"]
    assert [sorted(name.rsplit("/", 1)[1] for name in group) for group in found["equal"]] == [
        ["a.jpg", "b.jpg", "e.jpg"]
    ]
    assert check(root, "--quick", "--split", "val", "--out", "x.jpg") == 0
    assert tables(capsys.readouterr().out)[3][0] == "val"


def test_many_problems_and_classes(tmp_path, capsys):
    rows = "\n".join(f"a.jpg,class {k:02},1,2,3,4\nb.jpg,{'very ' * 40}long,9,9,9,9" for k in range(50))
    open_csv(tmp_path, rows, classes=None)
    assert check(tmp_path / "train.csv", "--json", "all.json") == 1
    out = capsys.readouterr().out
    assert "50 problems" in out and "and 40 more; --json FILE has all" in out
    assert "and 11 classes more, of 1 objects at the most" in out
    assert max(map(len, (line for line in out.splitlines() if str(tmp_path) not in line))) <= 80


def test_undivided(tmp_path, capsys):
    open_voc(tmp_path / "x")
    (tmp_path / "x/Annotations").rename(tmp_path / "annots")
    assert check(tmp_path / "annots", "--images", tmp_path / "x/JPEGImages") == 0
    assert ["all", "2", "0", "2"] in tables(capsys.readouterr().out)
    assert check(tmp_path / "x", "--data", "voc", "--annotations", tmp_path / "annots", "--overwrite") == 0
    assert ["all", "2", "0", "2"] in tables(capsys.readouterr().out)


def test_a_split_that_cannot_be_used(tmp_path, capsys):
    open_csv(tmp_path, "a.jpg,cat,1,2,3,4\n")
    (tmp_path / "val.csv").write_text("c.jpg,cat,1,2,3,4\n")
    assert check(tmp_path) == 1
    assert "expected the images of" in capsys.readouterr().out
    assert check(tmp_path, "--split", "val", "--out", "val.jpg") == 2
    assert "expected the images of" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "text"), [
    ("data check nowhere", "auto: expected annotations in nowhere, got no such file or folder"),
    ("data check here", "auto: expected annotations in here .* got none of these; an empty folder"),
    ("data check . --data shapes", "shapes: expected no root"),
    ("data check . --data tfrecord", "--data: expected one of shapes, coco, voc, yolo, csv, got 'tfrecord'"),
    ("data check data --split fold1", "csv: expected .*fold1.csv"),
    ("data check data --out data/a.jpg", "--out: expected a new file, got data/a.jpg, which exists: --overwrite"),
    ("data check data --json data/train.csv", "--json: expected a new file, got data/train.csv"),
    ("data check data --out x.doc", "--out: expected the name of a picture, such as check.jpg, got x.doc"),
    ("data check data --data-option size=3", "csv: expected options of .*, got size"),
    ("train ssd", "--data or --root: expected a kind of shapes, coco, voc, yolo, csv or the folder of your data"),
    ("train ssd --root nowhere", "expected annotations in nowhere, got no such"),
    ("train ssd --data shapes --images data", "--images: expected data in files, got --data shapes"),
    ("train ssd --data shapes --annotations data", "--annotations: expected data in files"),
])  # fmt: skip
def test_errors(tmp_path, monkeypatch, capsys, line, text):
    monkeypatch.chdir(tmp_path)
    open_csv(tmp_path / "data", "a.jpg,cat,1,2,3,4\n")
    before = sorted((file, file.stat().st_mtime_ns) for file in tmp_path.rglob("*"))
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "Traceback" not in err
    assert re.search(text, err), err
    assert before == sorted((file, file.stat().st_mtime_ns) for file in tmp_path.rglob("*"))


def test_flags_reach_the_data(tmp_path):
    """Of train and evaluate too, which share them."""
    open_csv(tmp_path / "data", "a.jpg,cat,1,2,3,4\n")
    (tmp_path / "data/train.csv").rename(tmp_path / "rows.csv")
    parser = argparse.ArgumentParser()
    common.add_data_arguments(parser)
    args = parser.parse_args(["--annotations", str(tmp_path / "rows.csv"), "--images", str(tmp_path / "data")])
    assert common.data_kind(args) == args.data == "csv"
    assert len(common.open_data(args, "train", masks=False, keypoints=False)[0][1]["boxes"]) == 1
    args = parser.parse_args(["--root", str(tmp_path), "--data-option", f"annotations={tmp_path / 'rows.csv'}"])
    assert common.data_kind(args) == "csv"
    assert common.data_options(args) == {"annotations": str(tmp_path / "rows.csv")}
