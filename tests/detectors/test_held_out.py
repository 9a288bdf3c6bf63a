"""Held-out images are not those to learn from: split off by a fixed rule where the files hold none out."""

import hashlib
import json
import random
import re
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import tiny  # noqa: F401  (the model tiny_ssd)
from data_files import write_images
from PIL import Image

from boxops.cli import main
from boxops.cli.common import UserError
from boxops.cli.splits import open_held_out, open_splits
from boxops.data import BadData, open_dataset
from boxops.data.divide import divide, same_content, shared

NO_BRANCHES = {"masks": False, "keypoints": False}


def write_files(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def names(paths, indices):
    return [paths[i].name for i in indices]


def write_csv(folder, split, images, label="cat", objects=True):
    """Images of noise, by name the same, and their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in images:
        noise = np.random.default_rng(list(name.encode())).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(folder / name)
    rows = [f"{name},{label},5,5,30,40" if objects else f"{name},,,,," for name in images]
    (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


def flags(root, data="csv", **given):
    usual = {"train_split": None, "eval_split": None, "split": None, "data_option": [], "on_bad": "skip"}
    return Namespace(data=data, root=root, **{**usual, "images": None, "annotations": None, **given})


def images_of(data):
    return {data.image_path(i).name for i in range(len(data))}


@pytest.mark.parametrize(("count", "share", "learn"), [(10, 0.8, 8), (2, 0.99, 1), (2, 0.01, 1), (33, 0.5, 16)])
def test_divide(tmp_path, count, share, learn):
    paths = write_files(tmp_path / "x", {f"{k}.jpg": bytes([k]) for k in range(count)})
    first, second = divide(paths, share)
    assert sorted(first + second) == list(range(count)) and len(first) == learn
    assert first == sorted(first) and second == sorted(second)
    by_rule = sorted(names(paths, range(count)), key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert set(names(paths, first)) == set(by_rule[:learn])


def test_divide_depends_on_names_alone(tmp_path):
    contents = {f"{k}.jpg": bytes([k]) for k in range(40)}
    here = write_files(tmp_path / "a", contents)
    there = write_files(tmp_path / "b" / "c", contents)
    random.Random(0).shuffle(there)
    assert set(names(here, divide(here, 0.7)[0])) == set(names(there, divide(there, 0.7)[0]))
    others = {name: content * 2 for name, content in contents.items()}
    deeper = [*write_files(tmp_path / "d" / "one", contents), *write_files(tmp_path / "d" / "two", others)]
    other = [*write_files(tmp_path / "e" / "one", contents), *write_files(tmp_path / "e" / "two", others)][::-1]
    first, second = ({paths[i].parts[-2:] for i in divide(paths, 0.7125)[0]} for paths in (deeper, other))
    assert first == second and len(first) == 57


@pytest.mark.parametrize("seed", range(5))
def test_equal_files_stay_together(tmp_path, seed):
    draw = random.Random(seed)
    paths = write_files(tmp_path / "x", {f"{k}.jpg": bytes([draw.randrange(6)]) * 2000 for k in range(20)})
    first, second = divide(paths, 0.6)
    contents = [{paths[i].read_bytes() for i in part} for part in (first, second)]
    assert contents[0] and contents[1] and not contents[0] & contents[1]
    assert sorted(first + second) == list(range(20))


def test_one_image_cannot_be_divided(tmp_path):
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"two different images and more, got {count} of the same bytes"):
            divide(write_files(tmp_path / str(count), {f"{k}.jpg": b"x" for k in range(count)}), 0.8)
    for share in (0, 1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="a share between 0 and 1"):
            divide(write_files(tmp_path / "s", {"a": b"a", "b": b"b"}), share)
    with pytest.raises(ValueError, match="splits of their own"):
        open_dataset("shapes").split_off()


def test_same_content(tmp_path):
    big = bytes(range(256)) * 100
    late = big[:5000] + b"!" + big[5001:]  # between the samples
    files = {"a": big, "b": late, "c": big, "d": big[1:], "e": b"", "f": b"", "g": b"xy"}
    paths = write_files(tmp_path, files)
    (tmp_path / "link").symlink_to(paths[1])
    paths += [tmp_path / "link", tmp_path / "none"]
    assert same_content(paths) == [0, 1, 0, 3, 4, 4, 6, 1, 8]
    assert shared(paths[:2], paths[2:]) == [paths[2], paths[7]]
    assert shared(paths[8:], paths[8:]) == []


def test_only_files_of_equal_size_are_opened(tmp_path, monkeypatch):
    paths = write_files(tmp_path, {f"{k}": b"x" * (k % 50 + 1) + b"y" * (k >= 50) for k in range(51)})
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("opened"))
    assert same_content(paths[:50]) == list(range(50))
    assert shared(paths[:10], paths[10:50]) == []


def test_parts_are_data_sets(tmp_path):
    write_csv(tmp_path, "train", [f"{k}.png" for k in range(10)])
    (tmp_path / "train.csv").open("a").write("0.png,cat,9,9,9,9\n")
    data = open_dataset("csv", tmp_path)
    learn, held_out = data.split_off()
    assert type(learn) is type(data) and (len(learn), len(held_out), len(data)) == (8, 2, 10)
    assert not images_of(learn) & images_of(held_out) and images_of(learn) | images_of(held_out) == images_of(data)
    assert set(learn.ids) | set(held_out.ids) == set(data.ids) and len(learn.coco()["images"]) == 8
    assert learn[0][1]["image_id"] == learn.ids[0] and learn.classes == held_out.classes == ["cat"]
    learn.set_epoch(3)
    assert int(held_out._epoch) == int(data._epoch) == 0
    assert len(learn.problems) == len(held_out.problems) == 1
    assert learn.split_off()[1].ids == data.split_off()[0].split_off()[1].ids


# What the commands take.


def test_no_held_out_split(tmp_path, capsys):
    write_csv(tmp_path, "train", [f"{k}.png" for k in range(10)])
    learn, held_out = open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)
    assert (len(learn), len(held_out)) == (8, 2) and not images_of(learn) & images_of(held_out)
    err = capsys.readouterr().err
    assert "held out: 2 of 10 images, by a fixed rule (--split 0.8), since there are none: csv: expected" in err
    assert "expected one file of the split 'val'" in err and err.count("\n") == 1
    assert held_out[0][0].dtype.is_floating_point and learn.transform is None
    same = open_held_out(flags(tmp_path), learn.divided, classes=["cat"], **NO_BRANCHES)
    assert images_of(same) == images_of(held_out)
    assert "as in the run of the checkpoint; --split all takes all" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="expected one file of the split 'val'"):
        open_held_out(flags(tmp_path), **NO_BRANCHES)
    half = open_held_out(flags(tmp_path, split="0.5"), **NO_BRANCHES)
    assert images_of(half) == images_of(open_splits(flags(tmp_path, split="0.5"), seed=0, **NO_BRANCHES)[1])


def test_files_that_name_no_splits(tmp_path, capsys):
    write_csv(tmp_path, "labels", [f"{k}.png" for k in range(10)])
    for given in ({}, {"eval_split": "train"}, {"train_split": "train", "eval_split": "train"}):
        learn, held_out = open_splits(flags(tmp_path, **given), seed=0, **NO_BRANCHES)
        assert (len(learn), len(held_out)) == (8, 2) and not images_of(learn) & images_of(held_out)
        assert "since the files name no splits" in capsys.readouterr().err
    assert open_splits(flags(tmp_path, eval_split="none"), seed=0, **NO_BRANCHES)[1] is None
    assert learn.divided == held_out.divided == (0.8, 10)
    same = open_held_out(flags(tmp_path), [0.8, 10], **NO_BRANCHES)
    assert images_of(same) == images_of(held_out)
    for given, divided in (({}, None), ({"split": "all"}, (0.8, 10)), ({"split": "test"}, (0.8, 10)), ({}, (0.8, 11))):
        capsys.readouterr()
        assert len(open_held_out(flags(tmp_path, **given), divided, **NO_BRANCHES)) == 10  # another set, or asked for
        assert capsys.readouterr().err == ""


def test_one_coco_file_for_every_split(tmp_path, capsys):
    write_images(tmp_path / "images", *(f"{k}.png" for k in range(5)))
    for k in range(5):
        Image.new("RGB", (40, 30), (k, 0, 0)).save(tmp_path / "images" / f"{k}.png")
    images = [{"id": k, "file_name": f"{k}.png", "width": 40, "height": 30} for k in range(5)]
    things = [{"id": k + 1, "image_id": k, "category_id": 1, "bbox": [1, 2, 9, 9]} for k in range(5)]
    text = json.dumps({"images": images, "annotations": things, "categories": [{"id": 1, "name": "cat"}]})
    (tmp_path / "instances.json").write_text(text)
    learn, held_out = open_splits(flags(tmp_path, "coco"), seed=0, **NO_BRANCHES)
    assert (len(learn), len(held_out)) == (4, 1) and not images_of(learn) & images_of(held_out)
    assert "held out: 1 of 5 images" in capsys.readouterr().err


def test_held_out_split_is_taken(tmp_path, capsys):
    write_csv(tmp_path, "train", [f"{k}.png" for k in range(5)])
    write_csv(tmp_path, "test", ["6.png"])
    assert images_of(open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)[1]) == {"6.png"}
    write_csv(tmp_path, "val", ["7.png", "8.png"])
    (tmp_path / "val.csv").open("a").write("7.png,cat,9,9,9,9\n9.png,cat,1,1,2,2\n")
    capsys.readouterr()
    learn, held_out = open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)
    assert len(learn) == 5 and images_of(held_out) == {"7.png", "8.png"}
    err = capsys.readouterr().err
    assert "held out: 2 images, 2 objects, 1 classes, 2 problems" in err and "val.csv, row 3: expected" in err
    assert "9.png: expected an image file" in err
    assert images_of(open_held_out(flags(tmp_path), **NO_BRANCHES)) == {"7.png", "8.png"}
    learn, held_out = open_splits(flags(tmp_path, split="0.6"), seed=0, **NO_BRANCHES)
    assert (len(learn), len(held_out)) == (3, 2) and images_of(held_out) < {f"{k}.png" for k in range(5)}
    assert "as --split says" in capsys.readouterr().err
    assert images_of(open_splits(flags(tmp_path, eval_split="test"), seed=0, **NO_BRANCHES)[1]) == {"6.png"}


def test_voc_without_test(tmp_path, capsys):
    from data_files import open_voc

    open_voc(tmp_path, names="a\n")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "JPEGImages" / "b.jpg")
    (tmp_path / "ImageSets/Main/val.txt").write_text("b\n")
    learn, held_out = open_splits(flags(tmp_path, "voc"), seed=0, **NO_BRANCHES)
    assert (images_of(learn), images_of(held_out)) == ({"a.jpg"}, {"b.jpg"})
    shutil.copy(tmp_path / "ImageSets/Main/val.txt", tmp_path / "ImageSets/Main/test.txt")
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    learn, held_out = open_splits(flags(tmp_path, "voc"), seed=0, **NO_BRANCHES)
    assert (images_of(learn), images_of(held_out)) == ({"a.jpg"}, {"b.jpg"})


def test_the_same_images_in_both(tmp_path, capsys):
    write_csv(tmp_path, "train", [f"{k}.png" for k in range(10)])
    shutil.copy(tmp_path / "train.csv", tmp_path / "val.csv")
    learn, held_out = open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)
    assert (len(learn), len(held_out)) == (8, 2)
    assert "since train and val have the same images" in capsys.readouterr().err
    given = {"train_split": "train", "eval_split": "val"}  # asked for
    learn, held_out = open_splits(flags(tmp_path, **given), seed=0, **NO_BRANCHES)
    assert (len(learn), len(held_out)) == (10, 10)
    assert "warning: 10 of 10 held-out images are learnt from too" in capsys.readouterr().err


def test_some_images_in_both(tmp_path, capsys):
    write_csv(tmp_path, "train", [f"{k}.png" for k in range(5)])
    write_csv(tmp_path, "val", ["a.png", "b.png", "c.png", "d.png"])
    for name, copy in (("1", "a"), ("2", "b"), ("2", "c")):  # by other names
        shutil.copy(tmp_path / f"{name}.png", tmp_path / f"{copy}.png")
    learn, held_out = open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)
    assert (len(learn), len(held_out)) == (5, 4)
    told = f"warning: 3 of 4 held-out images are learnt from too: {tmp_path}/a.png, {tmp_path}/b.png, ...\n"
    assert told in capsys.readouterr().err


def test_classes(tmp_path):
    write_csv(tmp_path, "train", ["1.png", "2.png"])
    (tmp_path / "train.csv").open("a").write("2.png,dog,1,1,9,9\n")
    write_csv(tmp_path, "val", ["3.png"], label="dog")
    learn, held_out = open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)
    assert held_out.classes == learn.classes == ["cat", "dog"] and held_out[0][1]["labels"].tolist() == [2]
    (tmp_path / "val.csv").open("a").write("3.png,cow,1,1,9,9\n3.png,hen,1,1,9,9\n")
    with pytest.raises(
        UserError, match="has the classes cow, hen that training data lacks; training data has cat, dog"
    ):
        open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)
    both = [("classes", ["cat", "dog", "cow", "hen"])]
    assert open_splits(flags(tmp_path, data_option=both), seed=0, **NO_BRANCHES)[1].classes == both[0][1]


def test_nothing_to_learn_from(tmp_path):
    write_csv(tmp_path, "train", ["1.png", "2.png", "3.png"], objects=False)
    for given in ({}, {"eval_split": "none"}, {"split": "0.5"}, {"data_option": [("classes", ["cat"])]}):
        with pytest.raises(
            (UserError, BadData), match=r"expected objects (to learn from, got none in|or classes, got neither)"
        ):
            open_splits(flags(tmp_path, **given), seed=0, **NO_BRANCHES)
    (tmp_path / "train.csv").open("a").write("1.png,cat,9,9,9,9\n")
    with pytest.raises(UserError, match=r"the first of 1 problems: .*train.csv, row 4: expected a box with"):
        open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)
    write_csv(tmp_path, "val", ["4.png"], objects=False)  # to hold out nothing but background is fine
    write_csv(tmp_path, "train", ["1.png"])
    assert len(open_splits(flags(tmp_path), seed=0, **NO_BRANCHES)[1]) == 1


@pytest.mark.parametrize(("line", "text"), [
    ("--split 1.5", "--split: expected a share to learn from, between 0 and 1, without --eval-split, got 1.5"),
    ("--split val", "--split: expected a share to learn from, between 0 and 1"),
    ("--split 0.8 --eval-split val", "got --eval-split val too"),
    ("--eval-split dev", "expected one file of the split 'dev' in .*, as dev.csv"),
    ("--train-split dev", "expected one file of the split 'dev' in .*, as dev.csv"),
])  # fmt: skip
def test_errors(tmp_path, capsys, monkeypatch, line, text):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path, "train", ["1.png", "2.png"])
    assert main(["train", "tiny_ssd", "--data", "csv", "--root", ".", *line.split()]) == 2
    err = capsys.readouterr().err
    assert re.search(text, err) and err.count("\n") == 1


def test_shapes_are_not_divided(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny_ssd", "--data", "shapes", "--split", "0.5"]) == 2
    assert "splits of their own" in capsys.readouterr().err


def test_train_then_evaluate_what_was_held_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "data", "train", [f"{k}.png" for k in range(10)])
    held_out = open_splits(flags(tmp_path / "data"), seed=0, **NO_BRANCHES)[1]
    path = held_out.image_path(0)
    path.write_bytes(path.read_bytes()[:-3000])  # cannot be decoded
    data = ["--data", "csv", "--root", "data", "--workers", "0", "--device", "cpu"]
    with pytest.warns(UserWarning, match=rf"1 of 2 images do not count.*{path.name}: expected an image"):
        assert main(["train", "tiny_ssd", *data, "--epochs", "1", "--batch-size", "4", "--out", "run"]) == 0
    assert "held out: 2 of 10 images" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="1 of 2 images do not count"):
        assert main(["evaluate", "--checkpoint", "run/best.pt", *data, "--json", "ap.json"]) == 0
    assert "held out: 2 of 10 images" in capsys.readouterr().err
    rows = Path("run/metrics.csv").read_text().splitlines()
    assert json.loads(Path("ap.json").read_text())["box_AP"] == float(
        rows[1].split(",")[rows[0].split(",").index("box_AP")]
    )
