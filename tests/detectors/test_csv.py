"""CSV as people have it: columns by name or as tools write them, files and images where tools put them."""

import pytest
from data_files import SIZE, open_csv, write_images

from boxops.data import BadData, open_dataset

HEADER = "image,category,xmin,ymin,xmax,ymax\n"
SAME = {  # the same object, cat at 4, 6, 20, 15 of 40 x 30, as files have it
    "any order and case": "Label,YMax,XMax,YMin,XMin,Filename\ncat,15,20,6,4,a.jpg\n",
    "x1": "path,x1,y1,x2,y2,class\na.jpg,4,6,20,15,cat\n",
    "left top": "file,class,left,top,right,bottom\na.jpg,cat,4,6,20,15\n",
    "size": "image,x,y,width,height,class\na.jpg,4,6,16,9,cat\n",
    "w and h": "image_path,label_name,x,y,w,h\na.jpg,cat,4,6,16,9\n",
    "corner and size": "image,label,xmin,ymin,width,height\na.jpg,cat,4,6,16,9\n",
    "centre": "image,label,x_center,y_center,width,height\na.jpg,cat,12,10.5,16,9\n",
    "bbox in front": "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
    "cat,4,6,16,9,a.jpg,40,30\n",
    "eight columns": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,30,cat,4,6,20,15\n",
    "eight, sizes unknown": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,0,-1,cat,4,6,20,15\n",
    "eight without names": "a.jpg,40,30,cat,4,6,20,15\n",
    "makesense.ai": "cat,4,6,16,9,a.jpg,40,30\n",
    "keras-retinanet": "a.jpg,4,6,20,15,cat\n",
    "our own": "a.jpg,cat,4,6,20,15\n",
    "Open Images": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"
    "a,xclick,cat,1,0.1,0.5,0.2,0.5,0,0\n",
    "parts of the sides": HEADER + "a.jpg,cat,0.1,0.2,0.5,0.5\n",
    "parts, with a size": "image,label,x,y,w,h\na.jpg,cat,.1,.2,.4,.3\n",
    "semicolons": "image;class;xmin;ymin;xmax;ymax\na.jpg;cat;4;6;20;15\n",
    "tabs": "image\tclass\txmin\tymin\txmax\tymax\na.jpg\tcat\t4\t6\t20\t15\n",
    "quotes and spaces": '"image", "class", "xmin", "ymin", "xmax", "ymax"\n"a.jpg", "cat", "4", " 6", 20, 15\n',
    "byte order mark": "\ufeff" + HEADER + "a.jpg,cat,4,6,20,15\n",
    "empty cells at the end": HEADER + "a.jpg,cat,4,6,20,15,,\n",
    "lines of Windows": HEADER.replace("\n", "\r\n") + "a.jpg,cat,4.0,6,20,15\r\n",
    "without classes": "image,xmin,ymin,xmax,ymax\na.jpg,4,6,20,15\n",
    "without classes and names": "a.jpg,4,6,20,15\n",
    "other ending's case": HEADER + "A.JPG,cat,4,6,20,15\n",
    "another machine": HEADER + "C:\\data\\images\\a.jpg,cat,4,6,20,15\n",
}
NOTED = {"Open Images", "without classes", "without classes and names", "eight without names", "makesense.ai",
         "keras-retinanet", "parts of the sides", "parts, with a size"}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_same_object(tmp_path, name):
    data = open_csv(tmp_path, SAME[name])
    ((box,), labels) = (data[0][1][key].tolist() for key in ("boxes", "labels"))
    assert box == pytest.approx([4, 6, 20, 15]) and labels == [1] and len(data) == 1
    assert not data.problems and data.image_path(0) == tmp_path / "a.jpg"
    assert bool(data.notes) == (name in NOTED) and all(f"note: {note}" in data.report() for note in data.notes)


def test_notes(tmp_path):
    data = open_csv(tmp_path, SAME["Open Images"])
    first, second = data.notes
    assert "columns 'Source', 'Confidence', 'IsOccluded' are ignored" in first
    assert "parts of the images' sides (0 to 1): scaled to pixels" in second
    (note,) = open_csv(tmp_path, SAME["keras-retinanet"]).notes
    assert (
        note == f"{tmp_path}/train.csv: no names of columns in the first row; read as image,xmin,ymin,xmax,ymax,class"
    )
    (note,) = open_csv(tmp_path, "a.jpg,1,2,3,4,5\n", classes=["1"]).notes  # the last could be the class as well
    assert "read as image,category,xmin" in note
    data = open_csv(tmp_path, "a.jpg,4,6,20,15,0\n", classes=["0"])  # as class 4 it would have no box
    assert data[0][1]["boxes"].tolist() == [[4, 6, 20, 15]] and "xmax,ymax,class" in data.notes[0]
    data = open_csv(tmp_path, SAME["without classes"], classes=None)
    assert data.classes == ["object"] and "all objects are 'object'" in data.report()


def test_crowds_of_open_images(tmp_path):
    row = "a,0.1,0.5,0.2,0.5,cat,{}\n"
    data = open_csv(tmp_path, "ImageID,XMin,XMax,YMin,YMax,LabelName,IsGroupOf\n"
                    + "".join(map(row.format, ("0", "1", "-1", "maybe"))))  # fmt: skip
    assert data[0][1]["iscrowd"].tolist() == [0, 1, 0]
    assert [problem.text for problem in data.problems] == ["expected 0 or 1 for a crowd, got 'maybe'"]


@pytest.mark.parametrize(("rows", "boxes"), [
    ("a.jpg,cat,0,0,1,1\n", [[0, 0, 1, 1]]),  # a pixel
    ("a.jpg,cat,0,0,1,1\na.jpg,cat,.5,.5,1,1\n", [[0, 0, 1, 1], [0.5, 0.5, 1, 1]]),  # half the rows are not most
    ("a.jpg,cat,0.5,0.5,9,9\n", [[0.5, 0.5, 9, 9]]),
    ("a.jpg,cat,0,0,1,1\na.jpg,cat,.1,.2,.5,.5\na.jpg,cat,-.025,0,.5,1\n",
     [[0, 0, 40, 30], [4, 6, 20, 15], [0, 0, 20, 30]]),
])  # fmt: skip
def test_pixels_or_parts(tmp_path, rows, boxes):
    data = open_csv(tmp_path, HEADER + rows)
    assert data[0][1]["boxes"].tolist() == [pytest.approx(box) for box in boxes]


def test_pixels_between_parts_are_a_problem(tmp_path):
    data = open_csv(tmp_path, HEADER + "a.jpg,cat,.1,.2,.5,.5\nb.jpg,cat,.1,.2,.5,.5\nb.jpg,cat,4,6,20,15\n")
    (problem,) = data.problems
    assert problem.place == "row 4" and "0 to 1 as in other rows, got ['4', '6', '20', '15']" in problem.text


@pytest.mark.parametrize(("row", "text"), [
    ("a.jpg,30,40.5,cat,4,6,20,15", "row 3: expected an image of 30 x 40, got {}/a.jpg of 40 x 30; left out"),
    ("a.jpg,80,60,cat,4,6,20,15", "row 3: expected an image of 80 x 60, got {}/a.jpg of 40 x 30; left out"),
    ("a.jpg,40,30,cat,4,6,x,15", "row 3: expected 4 numbers for a box, got ['4', '6', 'x', '15']"),
    ("a.jpg,40,30,cat,4,6,20", "row 3: expected filename,width,height,class,xmin,ymin,xmax,ymax, got 'a.jpg,40"),
    ("a.jpg,40,30,cat,4,6,20,15,9", "row 3: expected filename,width"),
    ("a.jpg,40,30,,4,6,20,15", "row 3: expected a category of ['cat'], got ''"),
])  # fmt: skip
def test_bad_row_of_eight(tmp_path, row, text):
    rows = f"filename,width,height,class,xmin,ymin,xmax,ymax\nb.jpg,40,30,cat,1,2,3,4\n{row}\n"
    data = open_csv(tmp_path, rows)
    if "30,40.5" in row:  # turned, as photos may be: for whoever reads the image
        assert not data.problems
    else:
        (problem,) = data.problems
        assert f"{tmp_path}/train.csv, {text.format(tmp_path)}" in str(problem)
    assert data.image_path(0) == tmp_path / "b.jpg" and data[0][1]["boxes"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("row", ["a.jpg,cat,x,6,20,15", "a.jpg,cat,4;6,2O,l5,x", "a,cat,4,6,x,y"])
def test_bad_first_row_is_no_header(tmp_path, row):
    data = open_csv(tmp_path, f"{row}\nb.jpg,cat,4,6,20,15\n")
    assert "row 1: expected" in str(data.problems[0])
    assert data[len(data) - 1][1]["boxes"].tolist() == [[4, 6, 20, 15]]


@pytest.mark.parametrize(("text", "said"), [
    ("Bild,Klasse,links,oben,rechts,unten\na.jpg,cat,4,6,20,15\n",
     "row 1: expected columns named image (or filename, ImageID, path), class (or label, category, LabelName) and "
     "xmin,ymin,xmax,ymax (or x1,y1,x2,y2; x,y,width,height), got 'Bild,Klasse,links,oben,rechts,unten'"),
    ("image,class,xmin,ymin\na.jpg,cat,4,6\n", "got 'image,class,xmin,ymin'"),
    ("filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n",
     "got VIA's csv"),
    ("", "expected rows of image,category,xmin,ymin,xmax,ymax, got none"),
    ("a.jpg,,,,,\n", "expected objects or classes, got neither"),
])  # fmt: skip
def test_no_columns(tmp_path, text, said):
    with pytest.raises(BadData) as raised:
        open_csv(tmp_path, text, classes=None)
    assert said in str(raised.value) and f"{tmp_path}/train.csv" in str(raised.value)


def test_no_class_column_for_two_classes(tmp_path):
    with pytest.raises(BadData, match="expected a column named class, label or category, got 'image,xmin"):
        open_csv(tmp_path, SAME["without classes"], classes=["cat", "dog"])


@pytest.mark.parametrize(("classes", "said"), [
    ("cat", r"classes: expected a list of names, as \['cat'\], got a text, 'cat', whose letters"),
    ("cat,dog", r"as \['cat', 'dog'\], got a text"),
    ([], "each once, got"),
    (["cat", "cat"], "each once, got"),
    ([1], "a list of names"),
])  # fmt: skip
def test_classes_that_are_none(tmp_path, classes, said):
    with pytest.raises(ValueError, match=said):
        open_csv(tmp_path, SAME["our own"], classes=classes)


def test_numbers_as_names_of_classes(tmp_path):
    data = open_csv(tmp_path, HEADER + "a.jpg,7,4,6,20,15\nb.jpg,0,4,6,20,15\n", classes=None)
    assert data.classes == ["0", "7"] and data[0][1]["labels"].tolist() == [2]


def test_one_image_by_two_names(tmp_path):
    folder = tmp_path / "x"
    write_images(folder, "a.jpg")
    data = open_csv(tmp_path, HEADER + "x/a.jpg,cat,4,6,20,15\nx\\a.jpg,cat,1,2,3,4\nb.jpg,,,,,\n")
    assert len(data) == 2 and data[0][1]["boxes"].tolist() == [[4, 6, 20, 15], [1, 2, 3, 4]] and not data.problems


LAYOUTS = {  # file, image, split asked for; whether undivided
    "by split": ("train.csv", "a.jpg", "train", False),
    "images in a folder": ("train.csv", "images/a.jpg", "train", False),
    "images in the split's": ("train.csv", "train/a.jpg", "train", False),
    "and below images": ("train.csv", "images/train/a.jpg", "train", False),
    "raccoon": ("data/train_labels.csv", "images/a.jpg", "train", False),
    "Roboflow": ("valid/_annotations.csv", "valid/a.jpg", "val", False),
    "Open Images": ("validation-annotations-bbox.csv", "validation/a.jpg", "val", False),
    "annotations": ("annotations/test.CSV", "test/a.jpg", "test", False),
    "only one": ("raccoon_labels.csv", "images/a.jpg", "val", True),
    "only one, in a folder": ("annotations/labels.csv", "JPEGImages/a.jpg", "train", True),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    file, image, split, undivided = LAYOUTS[name]
    write_images((tmp_path / image).parent, "a.jpg")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(SAME["our own"])
    (tmp_path / "classes.csv").write_text("cat,0\n")  # keras-retinanet's second file is none of boxes
    hidden = tmp_path / ".ipynb_checkpoints"
    hidden.mkdir()
    (hidden / file.replace("/", "_")).write_text(SAME["our own"])
    data = open_dataset("csv", tmp_path, split=split)
    assert data.undivided == undivided and data.image_path(0) == tmp_path / image and data.image(0).size == SIZE
    for options in (
        {"root": tmp_path / file},
        {"annotations": tmp_path / file},
        {"root": tmp_path, "annotations": file},
    ):
        data = open_dataset("csv", **{"images": (tmp_path / image).parent, **options})
        assert data.undivided and len(data) == 1
    if not undivided:
        other = "train" if split != "train" else "val"
        with pytest.raises(FileNotFoundError, match=f"csv: expected one file of the split '{other}' .*got .*csv"):
            open_dataset("csv", tmp_path, split=other)


def test_two_files_of_a_split(tmp_path):
    for name in ("train_a.csv", "train_b.csv"):
        (tmp_path / name).write_text(SAME["our own"])
    with pytest.raises(FileNotFoundError, match=r"got .*train_a.csv, .*train_b.csv"):
        open_dataset("csv", tmp_path)


def test_no_image_is_there(tmp_path):
    with pytest.raises(BadData, match=r"expected the images of .*train.csv, as 'x/1.jpg', in .*, got none"):
        open_csv(tmp_path, HEADER + "x/1.jpg,cat,4,6,20,15\nx/2.jpg,cat,4,6,20,15\n")
