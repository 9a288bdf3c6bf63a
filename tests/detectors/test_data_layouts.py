"""Layouts of VOC's xml files, what has one meaning in them, and recognition of a folder's format."""

import json

import pytest
from data_files import BOX, open_coco, open_voc, voc_object, write_images

from boxops.data import BadData, open_dataset
from boxops.data.find import kind_of

SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def write_xml(file, things="", filename="", size=SIZE):
    file.parent.mkdir(parents=True, exist_ok=True)
    name = f"<filename>{filename}</filename>" if filename else ""
    file.write_text(f"<annotation>{name}{size}{things or voc_object()}</annotation>", encoding="utf-8")


def write(root, files):
    for file in files:
        if file.lower().endswith(".xml"):
            write_xml(root / file)
        else:
            write_images((root / file).parent, (root / file).name)


UNDIVIDED = {
    "clone": ["annotations/a.xml", "annotations/b.xml", "images/a.jpg", "images/b.jpg"],
    "kangaroo": ["annots/a.xml", "annots/b.xml", "images/a.jpg", "images/b.jpg"],
    "flat": ["a.xml", "a.jpg", "b.xml", "b.png"],
    "images in root": ["annotations/a.xml", "annotations/b.xml", "a.jpg", "b.jpg"],
    "beside in images": ["images/a.xml", "images/b.xml", "images/a.jpg", "images/b.jpg"],
    "pets": ["annotations/xmls/a.xml", "annotations/xmls/b.xml", "images/a.jpg", "images/b.jpg"],
    "voc without ImageSets": ["Annotations/a.xml", "Annotations/b.xml", "JPEGImages/a.jpg", "JPEGImages/b.jpg"],
    "upper case": ["ANNOTATIONS/a.XML", "ANNOTATIONS/b.XML", "Images/a.JPG", "Images/b.PNG"],
    "suffixes": ["xml/a.xml", "xml/b.xml", "img/a.jpeg", "img/b.BMP"],
    "dots": ["annots/a.1.xml", "annots/b_jpg.rf.c0ffee.xml", "images/a.1.jpg", "images/b_jpg.rf.c0ffee.jpg"],
    "of a Mac": ["annots/a.xml", "annots/b.xml", "images/a.jpg", "images/b.jpg", "images/._a.jpg", "annots/._a.xml"],
}  # fmt: skip


@pytest.mark.parametrize("name", UNDIVIDED)
def test_undivided(tmp_path, name):
    write(tmp_path, UNDIVIDED[name])
    for options in ({}, {"split": "val"}):
        data = open_dataset("auto", tmp_path, **options)
        assert data.undivided and not data.problems and data.classes == ["cat"]
        shown = [f for f in UNDIVIDED[name] if not f.lower().endswith(".xml") and "._" not in f]
        assert [str(data.image_path(i).relative_to(tmp_path)) for i in range(len(data))] == shown
        assert data[1][1]["boxes"].tolist() == [BOX]


DIVIDED = {
    "Roboflow": ["{}/a.xml", "{}/a.jpg"],
    "folders in each": ["{}/Annotations/a.xml", "{}/JPEGImages/a.jpg"],
    "folders below": ["annotations/{}/a.xml", "images/{}/a.jpg"],
    "images together": ["annotations/{0}/{0}1.xml", "images/{0}1.jpg"],
    "capitals": ["{}/Annotations/a.xml", "{}/Images/a.JPG"],
}


@pytest.mark.parametrize("name", DIVIDED)
def test_divided(tmp_path, name):
    for part in ("train", "valid", "test"):
        write(tmp_path, [file.format(part.capitalize() if name == "capitals" else part) for file in DIVIDED[name]])
    only = next(tmp_path.rglob("*rain*/**/*.xml"))
    write_xml(only, voc_object() + voc_object("dog", [5, 5, 9, 9]))
    for split, part, objects in (
        ("train", "train", 2),
        ("val", "valid", 1),
        ("valid", "valid", 1),
        ("test", "test", 1),
    ):
        data = open_dataset("auto", tmp_path, split=split)
        assert not data.undivided and not data.problems and data.classes == ["cat", "dog"]
        (record,) = data.records()
        assert part in str(record.path.relative_to(tmp_path)).lower() and len(record.boxes) == objects
    with pytest.raises(FileNotFoundError, match=r"voc: expected the split fold1 in .*, got (\w+, ){2}\w+$"):
        open_dataset("auto", tmp_path, split="fold1")


def test_image_sets(tmp_path):
    open_voc(tmp_path)
    sets = tmp_path / "ImageSets" / "Main"
    (sets / "train.txt").rename(sets / "trainval.txt")
    (sets / "cat_valid.txt").write_text("a  1\nb -1\n")
    (sets / "valid.txt").write_text("b.jpg\n\n")
    write_images(tmp_path / "JPEGImages", "c 1.jpg")
    write_xml(tmp_path / "Annotations" / "c 1.xml")
    (sets / "spaces.txt").write_text("c 1\n")
    for split, names in {"trainval": "ab", "val": "b", "cat_valid": "ab", "spaces": ["c 1"]}.items():
        data = open_dataset("voc", tmp_path, split=split)
        assert [data.image_path(i).stem for i in range(len(data))] == list(names)
        assert not data.undivided and not data.problems
    for split in ("test", "train"):  # trainval has what may be held out
        with pytest.raises(FileNotFoundError, match=rf"Main/{split}.txt, got cat_valid, spaces, trainval, valid"):
            open_dataset("voc", tmp_path, split=split)


def test_given_folders(tmp_path):
    write(tmp_path, ["x/one/a.xml", "x/two/b.xml", "pictures/a.jpg", "pictures/b.jpg"])
    for options in ({"root": None}, {"root": tmp_path}):
        data = open_dataset("auto", annotations=tmp_path / "x/two", images=tmp_path / "pictures", **options)
        assert data.undivided and not data.problems
        assert data.image_path(0) == tmp_path / "pictures" / "b.jpg" and len(data) == 1
    for folder in ("annotations", "images"):
        options = {"annotations": tmp_path / "x/two", "images": tmp_path / "pictures", folder: tmp_path / "no"}
        with pytest.raises(FileNotFoundError, match=f"voc: expected .*{folder}.*, got .*no"):
            open_dataset("voc", **options)
    (tmp_path / "images").mkdir()
    (tmp_path / "pictures" / "a.jpg").rename(tmp_path / "images" / "a.jpg")
    (tmp_path / "x" / "one").rename(tmp_path / "annots")
    data = open_dataset("auto", tmp_path / "annots")  # the root is the folder of the xml files
    assert data.image_path(0) == tmp_path / "images" / "a.jpg"


@pytest.mark.parametrize("filename", [
    r"C:\Users\me\pictures\photo.jpg", "/home/me/photo.jpg", "photo.png", "photo", " photo.jpg\n", "PHOTO.JPG",
])  # fmt: skip
def test_image_by_filename(tmp_path, filename):
    write(tmp_path, ["images/photo.jpg", "images/a.jpg", "annots/a.xml"])
    write_xml(tmp_path / "annots/0001.xml", filename=filename)
    write_xml(tmp_path / "annots/A.xml", filename="photo.jpg")  # its own name is nearer
    data = open_dataset("voc", tmp_path)
    assert [data.image_path(i).name for i in range(3)] == ["photo.jpg", "a.jpg", "a.jpg"]


def test_of_two_images(tmp_path):
    write(tmp_path, ["a.jpg", "a.png"])
    for name in ("a.png", "a.jpg", "other.jpg"):
        write_xml(tmp_path / "a.xml", filename=name)
        data = open_dataset("voc", tmp_path)
        assert data.image_path(0).name == (name if name != "other.jpg" else "a.jpg")


def test_without_each_other(tmp_path):
    write(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "a.xml", "z.xml"])
    data = open_dataset("voc", tmp_path)
    assert [str(problem) for problem in data.problems] == [
        f"{tmp_path}/z.xml: expected an image called z in {tmp_path}, got none",
        f"{tmp_path}: expected an xml for each image, got none for 2, such as b.jpg; left out",
    ]
    with pytest.raises(BadData, match="called z"):
        open_dataset("voc", tmp_path, on_bad="raise")


@pytest.mark.parametrize(
    "size", ["", "<size/>", SIZE.replace("40", "0"), SIZE.replace("30", "-1"), SIZE.replace("40", " ")]
)
def test_size_of_the_image(tmp_path, size):
    write(tmp_path, ["a.jpg"])
    write_xml(tmp_path / "a.xml", size=size)
    (record,) = open_dataset("voc", tmp_path).records()
    assert (record.width, record.height) == (40, 30)


PART = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
TURNED = "<object><name>cat</name><robndbox><cx>9</cx><cy>9</cy><w>4</w><h>2</h><angle>0.5</angle></robndbox></object>"


@pytest.mark.parametrize(("thing", "difficult"), [
    (voc_object(more="<difficult>Unspecified</difficult>"), False),
    (voc_object(more="<difficult></difficult>"), False),
    (voc_object(more="<difficult>False</difficult>"), False),
    (voc_object(more="<difficult> TRUE </difficult>"), True),
    (voc_object(more="<difficult>1</difficult>"), True),
    (voc_object(" cat\n", [" 2", "3\n", "1.2e1", "13.0"]), False),
    (PART.join(["<object>", voc_object().removeprefix("<object>")]), False),
    (voc_object().replace("<xmin>2</xmin>", "").replace("</bndbox>", "<xmin>2</xmin></bndbox>"), False),
])  # fmt: skip
def test_one_meaning(tmp_path, thing, difficult):
    write(tmp_path, ["a.jpg"])
    write_xml(tmp_path / "a.xml", thing)
    data = open_dataset("voc", tmp_path)
    target = data[0][1]
    assert not data.problems and data.classes == ["cat"]
    assert target["boxes"].tolist() == [BOX] and target["difficult"].tolist() == [difficult]


@pytest.mark.parametrize(("thing", "text"), [
    (voc_object(box=["1,5", 3, 12, 13]), "expected a number in <xmin>, got '1,5'"),
    (voc_object(box=[12, 3, 2, 13]), "expected a box with x1 < x2"),
    (voc_object(name=" "), "expected a class in <name>, got none"),
    (voc_object().replace("name", "label"), "expected a class in <name>, got none"),
    (TURNED, "expected <bndbox>, got a rotated box, <robndbox>"),
])  # fmt: skip
def test_more_than_one_meaning(tmp_path, thing, text):
    write(tmp_path, ["a.jpg"])
    write_xml(tmp_path / "a.xml", voc_object() + thing)
    data = open_dataset("voc", tmp_path)
    assert [text in str(problem) and problem.place == "object 2" for problem in data.problems] == [True]
    assert data[0][1]["boxes"].tolist() == [BOX]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gbk", "shift_jis", "latin-1"])
@pytest.mark.parametrize("space", ["", "\n"])
def test_encodings(tmp_path, encoding, space):
    name = "café" if encoding == "latin-1" else "人"
    space *= not encoding.startswith("utf")
    write(tmp_path, ["a.jpg"])
    declared = f"{space}<?xml version='1.0' encoding='{encoding.removesuffix('-sig')}'?>"
    text = f"{declared}<annotation>{voc_object(name)}</annotation>"
    (tmp_path / "a.xml").write_text(text, encoding=encoding)
    data = open_dataset("voc", tmp_path)
    assert not data.problems and data.classes == [name]


def test_cvat_has_its_own_xml(tmp_path):
    write(tmp_path, ["a.jpg", "a.xml"])
    (tmp_path / "all.xml").write_text("<annotations><image><box/></image></annotations>")
    (problem,) = open_dataset("voc", tmp_path).problems
    assert "all.xml: expected <annotation> of one image, got <annotations>, as CVAT" in str(problem)


KINDS = {
    "coco": ["instances.json", "annotations/instances_default.json", "result.json", "train/_annotations.coco.json"],
    "voc": ["ImageSets/Main/train.txt", "a.xml", "annots/a.XML", "train/a.xml", "valid/Annotations/a.xml"],
    "yolo": ["data.yaml", "my.yml", "labels/a.txt", "labels/train/a.txt", "train/labels/a.txt", "a.txt", "obj.data"],
    "csv": ["train.csv", "annotations/labels.csv", "train/_annotations.csv"],
}
CONTENT = {
    ".json": json.dumps({"images": [], "categories": []}),
    ".txt": "0 0.5 0.5 0.1 1e-2\n",
    ".yaml": "names: [a]\n",
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_kind_of(tmp_path, kind, name):
    write_images(tmp_path / "images", "a.jpg")
    others = {"notes.txt": "hello", "README.md": "", ".hidden.csv": "1", "package.json": "{}", "ci.yaml": "on: push",
              "images/b.json": '{"shapes": [], "imagePath": "b.jpg"}'}  # fmt: skip
    for other, text in others.items():
        (tmp_path / other).write_text(text)
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(CONTENT.get(file.suffix.replace("yml", "yaml"), ""))
    assert kind_of(tmp_path) == kind
    if "ImageSets" not in name:
        assert kind_of(None, file) == kind_of(tmp_path / "nowhere", file) == kind_of(file) == kind


def test_kind_is_not_clear(tmp_path):
    with pytest.raises(ValueError, match="auto: expected root or annotations, got neither"):
        open_dataset("auto")
    with pytest.raises(FileNotFoundError, match=r"auto: expected annotations in .*nowhere, got no such"):
        open_dataset("auto", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"voc: \*.xml; .* got none of these; an empty folder"):
        kind_of(tmp_path)
    open_coco(tmp_path / "VOC2007")
    with pytest.raises(ValueError, match=r"got none of these; .*VOC2007 has coco: is this the root\?"):
        kind_of(tmp_path)
    write(tmp_path, ["annotations/a.xml"])
    (tmp_path / "all.csv").write_text("")
    with pytest.raises(ValueError, match=r"one format in .*, got csv \(.*all.csv\) and voc \(.*a.xml\): name the kind"):
        kind_of(tmp_path)


def test_large_folders_are_not_read_through(tmp_path, monkeypatch):
    from boxops.data import find

    (tmp_path / "labels").mkdir()
    for k in range(100):
        (tmp_path / "labels" / f"{k}.txt").write_text("hello")
    opened = []
    monkeypatch.setattr(find, "_by_content", lambda file, suffix: opened.append(file) or "")
    with pytest.raises(ValueError, match="auto"):
        kind_of(tmp_path)
    assert len(opened) == 40  # once more for the error, which says what is in the folders


def test_options_of_a_kind(tmp_path):
    with pytest.raises(TypeError, match=r"voc: expected options of .*, one_based, only, one_object, got length"):
        open_dataset("voc", tmp_path, length=3)
