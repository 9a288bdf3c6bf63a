"""What `boxops detect` and `boxops evaluate` write, and what they never write over."""

import json
import os
import re
from pathlib import Path

import bright
import pytest
from bright import detect, found, picture
from PIL import Image

from boxops.cli import main
from boxops.data import video


def content(folder="."):
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def refused(capsys, *words, text):
    """Before the model is read, with one line, and nothing has changed on the disk."""
    before = content("..")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boxops.cli.detect.open_model", lambda _: pytest.fail("the model was read"))
        assert detect(*words) == 2
    err = capsys.readouterr().err
    assert re.search(text, err) and len(err.splitlines()) == 1, err
    assert content("..") == before


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    "words",
    [
        "photos --out photos",
        "photos --out ./photos/../photos",
        "photos --out linked",
        "linked --out photos",
        "photos/a.jpg --out photos",
        "photos/a.jpg --out photos/a.jpg",
        "photos/a.jpg --out hard.jpg",
        "photos/a.jpg --out soft.jpg",
        "soft.jpg --out photos/a.jpg",
        "file://{here}/photos/a.jpg --out photos/a.jpg",
        "photos/*.jpg other.png --out photos",
        "photos/a.jpg --json photos/a.jpg",
        "photos other.png --out drawn --json other.png",
        "photos/a.jpg --out drawn.jpg --json ../model.pt",
        "photos/a.jpg --json PHOTOS/A.JPG",
    ],
)
def test_inputs_are_never_replaced(here, capsys, words, overwrite):
    picture("photos/a.jpg"), picture("photos/b.jpg"), picture("other.png")
    if "PHOTOS" in words and not Path("PHOTOS").exists():
        pytest.skip("this file system tells upper case from lower")
    os.symlink("photos", "linked")
    os.symlink("photos/a.jpg", "soft.jpg")
    os.link("photos/a.jpg", "hard.jpg")
    refused(capsys, *words.format(here=here).split(), *overwrite, text="expected a file that is no input, got .*lost")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("photos --out full", "--out: full/a.jpg exists and is not boxops' own; --overwrite replaces 2 such files"),
        ("photos/a.jpg --out full", "--out: full/a.jpg exists and is not boxops' own; --overwrite replaces it"),
        ("photos/a.jpg --out full/a.jpg", "full/a.jpg exists"),
        ("photos/a.jpg --out full/a.png", "full/a.png exists"),
        ("photos/a.jpg --out dangling.jpg", "dangling.jpg exists"),
        ("photos/a.jpg --json full/notes.json", "--json: full/notes.json exists"),
        ("photos/a.jpg --json full/list.json", "--json: full/list.json exists"),
        ("photos --out full --json full/notes.json", "--overwrite replaces 3 such files"),
    ],
)
def test_foreign_files_are_replaced_only_when_told(here, capsys, words, text):
    picture("photos/a.jpg"), picture("photos/b.jpg")
    for name in "a.jpg", "b.jpg", "a.png":
        picture(f"full/{name}", size=(9, 9), box=(0, 0, 1, 1))
    Path("full/notes.json").write_text('{"my": "notes"}')
    Path("full/list.json").write_text("[1, 2]")
    os.symlink("nowhere.jpg", "dangling.jpg")
    photos = content("photos")
    refused(capsys, *words.split(), text=text)
    assert detect(*words.split(), "--overwrite") == 0
    assert detect(*words.split()) == 0  # now they are ours
    assert content("photos") == photos and not Path("nowhere.jpg").exists()


@pytest.mark.parametrize("out", ["drawn", *(f"x{suffix}" for suffix in (".jpg", ".PNG", ".webp", ".tif"))])
def test_own_files_are_replaced(here, out):
    picture("a.png")
    for threshold in ("1", "0.5"):
        assert detect("a.png", "--out", out, "--json", "found.json", "--threshold", threshold) == 0
    drawn = Path(out, "a.jpg") if out == "drawn" else Path(out)
    with Image.open(drawn) as image:
        assert image.size == (640, 480) and image.getpixel((200, 200)) != (255, 255, 255)
    assert sorted(os.listdir()) == sorted({"a.png", out, "found.json"})
    assert len(found()[0]["detections"]) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("a.png --out x.gif", r"--out: expected .jpg, .*, .ppm or a folder for an image, got x.gif"),
        ("a.png --out x.mp4", "expected .jpg"),
        ("a.png --out a.png.bak", "expected .jpg"),
        ("a.png b.png --out x.png", "--out: expected a folder for 2 images, got x.png"),
        ("a.png b.png --out file", "--out: expected a folder for 2 images, got file"),
        ("a.png --out file", "--out: expected a folder for an image, got file"),
        ("a.png --out file/x.png", "--out: expected a folder to write to, got .*file"),
        ("a.png --json folder", "--json: expected a file, got the folder folder"),
        ("a.png --out x.png --json x.png", "--json: expected outputs of different names, got x.png twice"),
    ],
)
def test_bad_outputs(here, capsys, words, text):
    picture("a.png"), picture("b.png"), Path("file").touch(), Path("folder").mkdir()
    refused(capsys, *words.split(), text=text)


def test_names_do_not_collide(here):
    inputs = ["p/x.jpg", "p/x.png", "q/x.jpg", "q/X.png", "q/p-x.png", "r/q-x.jpg", "p/y.png"]
    for name in inputs:
        picture(name)
    names = ["x.jpg", "p-x.jpg", "q-x.jpg", "X-1.jpg", "q-p-x.jpg", "r-q-x.jpg", "y.jpg"]
    Path("out.v2").mkdir()
    for out in ("drawn", "deep/er", "out.v2", "drawn"):
        assert detect(*inputs, "--out", out) == 0
        assert sorted(path.name for path in Path(out).iterdir()) == sorted(names)


def test_a_full_disk(here, capsys, monkeypatch):
    """The picture that does not fit is not there, and the JSON has what was found."""
    picture("a.png"), picture("b.png")
    save = Image.Image.save

    def full(self, file, *args, **options):
        if not isinstance(file, str) and "b.jpg" in file.name:
            file.write(b"some of it")
            raise OSError(28, "No space left on device")
        save(self, file, *args, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    assert detect(".", "--out", "drawn", "--json", "found.json") == 2
    assert "No space left" in capsys.readouterr().err
    assert Path("drawn/a.jpg").exists() and not Path("drawn/b.jpg").exists()
    assert [row["image"] for row in found()] == ["a.png", "b.png"]


def clip(path, frames=10, size=(64, 48)):
    """A white square that moves 4 pixels to the right with each frame; 10 frames a second."""
    pytest.importorskip("av")
    with open(path, "wb") as file, video.writer(file) as add:
        for i in range(frames):
            image = Image.new("RGB", size)
            image.paste("white", (4 * i, 8, 4 * i + 16, 24))
            add(image, i / 10)


@pytest.mark.parametrize("every", [1, 4])
def test_video(here, capsys, every):
    clip("clip.mp4")
    for _ in range(2):  # the second time over its own
        assert detect("clip.mp4", "--out", "drawn.mp4", "--json", "found.json", "--every", every) == 0
    told = found()
    assert [(row["frame"], row["time"]) for row in told] == [(i, i / 10) for i in range(0, 10, every)]
    for row in told:
        (one,) = row["detections"]
        x = 4 * row["frame"]
        assert one["box"] == pytest.approx([x, 8, x + 16, 24], abs=1)
        assert one["mask"]["size"] == [48, 64]
    assert f"clip.mp4: {len(told)} objects in {len(told)} frames" in capsys.readouterr().out
    drawn = list(video.frames("drawn.mp4"))
    assert [seconds for _, seconds, _ in drawn] == pytest.approx([row["time"] for row in told])
    assert all(image.size == (640, 480) for _, _, image in drawn)
    last = drawn[-1][2].getpixel((10 * 4 * told[-1]["frame"], 160))  # the box's edge has the colour of its class
    assert max(last) - min(last) > 60, last


def test_videos_beside_images(here, capsys):
    """Of a folder only the images; with a pattern both. A broken video does not stop the rest."""
    clip("in_odd.mp4", frames=2)
    os.mkdir("in")
    os.rename("in_odd.mp4", "in/x.mp4")
    picture("in/x.png"), Path("in/broken.mp4").write_bytes(b"no video"), Path("in/cut.mkv").touch()
    assert detect("in", "--out", "drawn") == 0
    assert os.listdir("drawn") == ["x.jpg"]
    assert "in: 3 videos left out, broken.mp4 for one" in capsys.readouterr().err
    assert detect("in/*", "--out", "drawn", "--json", "found.json") == 1
    assert sorted(os.listdir("drawn")) == ["x.jpg", "x.mp4"]
    assert [row["image"] for row in found()] == ["in/x.mp4", "in/x.mp4", "in/x.png"]
    assert "broken.mp4: left out, expected a video, got" in capsys.readouterr().out


def test_a_playlist_opens_nothing(here, capsys):
    """A file that calls itself a video may be a list of files and addresses to play."""
    clip("clip.mp4", frames=2)
    path = Path("clip.mp4").absolute()
    Path("list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n")
    Path("concat.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    assert detect("list.mp4", "concat.mp4", "--json", "found.json") == 1
    assert found() == [] and capsys.readouterr().out.count("left out, expected a video") == 2


def test_frames_before_a_broken_one_stay(here, capsys, monkeypatch):
    clip("clip.mp4")
    find, seen = bright.Bright.find, []

    def fail(self, image):
        seen.append(image)
        if len(seen) > 3:
            raise RuntimeError("not enough memory")
        return find(self, image)

    monkeypatch.setattr(bright.Bright, "find", fail)
    assert detect("clip.mp4", "--out", "drawn.mp4", "--json", "found.json") == 1
    assert len(found()) == 3 == len(list(video.frames("drawn.mp4")))
    assert "clip.mp4: left out, not enough memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("clip.mp4 --out x.jpg", "--out: expected .mp4 or a folder for a video, got x.jpg"),
        ("clip.mp4 --out clip.mp4 --overwrite", "expected a file that is no input"),
        ("clip.mp4 --out other.mp4", "other.mp4 exists and is not boxops' own"),
    ],
)
def test_bad_outputs_of_videos(here, capsys, words, text):
    clip("clip.mp4", frames=1), clip("other.mp4", frames=1)
    refused(capsys, *words.split(), text=text)


def test_without_pyav(here, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    Path("clip.mp4").touch()
    refused(capsys, "clip.mp4", "--json", "found.json", text="PyAV, which is missing: pip install av")
    picture("a.png")
    assert detect("a.png", "--json", "found.json") == 0


def test_evaluate_keeps_its_inputs(here, capsys):
    for name in ("truth.json", "rows.json"):
        Path(name).write_text(json.dumps({"images": []}))
    before = content("..")
    files = ["--results", "rows.json", "--annotations", "truth.json"]
    for out in ("rows.json", "./truth.json"):
        assert main(["evaluate", *files, "--json", out, "--overwrite"]) == 2
        assert "--json: expected a file that is no input" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", "../model.pt", "--data", "shapes", "--json", "rows.json"]) == 2
    assert "--json: rows.json exists and is not boxops' own" in capsys.readouterr().err
    assert content("..") == before
