"""`boxops detect`: what it reads and what it says; test_cli_outputs.py has what it writes."""

import http.server
import re
import sys
import threading
from pathlib import Path

import bright
import pytest
from bright import BOX, detect, found, picture
from tiny import torch

from boxops import models
from boxops.cli import inputs, main
from boxops.data import segmentation
from boxops.training.checkpoint import save


def test_json_has_masks(here):
    picture("a.png"), picture("b.png", box=(0, 0, 0, 0))
    assert detect("a.png", "b.png", "--json", "found.json") == 0
    first, second = found()
    assert first == {"image": "a.png", "detections": [{"class": "lamp", "label": 1, "score": 0.9,
                     "box": [*BOX], "mask": first["detections"][0]["mask"]}]}  # fmt: skip
    mask = segmentation.decode(first["detections"][0]["mask"], 30, 40)
    assert mask.sum() == 16 * 24 and mask[4:28, 8:24].all()
    assert second == {"image": "b.png", "detections": []}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["photos"], ["a.JPG", "b.png"]),
        (["photos/*.png"], ["b.png"]),
        (["photos/*"], ["a.JPG", "b.png"]),
        (["photos/**"], ["a.JPG", "b.png", "c.jpg"]),
        (["photos/**/*.jpg", "photos/b.png"], ["c.jpg", "b.png"]),
        (["photos/[ab]*"], ["a.JPG", "b.png"]),
        (["x[1].png"], ["x[1].png"]),
        (["file://{here}/photos/b.png"], ["b.png"]),
        (["file://localhost{here}/x%5B1%5D.png"], ["x[1].png"]),
        (["file://{here}/photos"], ["a.JPG", "b.png"]),
    ],
)
def test_files_folders_patterns(here, capsys, words, names):
    for name in ("photos/a.JPG", "photos/b.png", "photos/deep/c.jpg", "x[1].png"):
        picture(name)
    Path("photos/notes.txt").write_text("no image")
    assert detect(*(word.format(here=here) for word in words), "--json", "found.json") == 0
    assert [Path(row["image"]).name for row in found()] == names
    assert len(capsys.readouterr().out.splitlines()) == len(names)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("nothing", "nothing: expected an image or a folder, got no such file"),
        ("nothing/*.jpg", r"nothing/\*.jpg: expected a pattern that fits images or videos, got 0 other files"),
        ("*.txt", r"\*.txt: expected a pattern that fits images or videos, got 1 other files"),
        (".", r"\.: expected a folder with images, got none"),
        ("ftp://x.org/a.jpg", "ftp://x.org/a.jpg: expected an address of http, https or file"),
        ("s3://x/a.jpg", "s3://x/a.jpg: expected an address"),
        ("file://x.org/a.jpg", "file://x.org/a.jpg: expected an address"),
        ("http:///a.jpg", "expected an address"),
        ("a.txt --threshold 1.5", "--threshold: expected a score of 0 to 1, got 1.5"),
        ("a.txt --threshold nan", "--threshold: expected a score of 0 to 1, got nan"),
        ("a.txt --every 0", "--every: expected 1 or more, got 0"),
        ("a.txt", "a.txt: expected an image, got"),
        ("a.txt --weights w.pt", "--weights: expected it with --model, got --checkpoint"),
    ],
)
def test_errors(here, capsys, words, text):
    Path("a.txt").write_text("text")
    with pytest.MonkeyPatch.context() as patch:
        if text != "a.txt: expected an image, got" and "--weights" not in words:
            patch.setattr("boxops.cli.detect.open_model", None)  # all is checked before the model is read
        assert detect(*words.split(), "--json", "found.json") == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and err.startswith("boxops detect: ")
    assert re.search(text, err), err
    assert not Path("found.json").exists()


def test_one_bad_among_many(here, capsys, monkeypatch):
    picture("a.png"), picture("c.png"), picture("large.png", size=(80, 60))
    whole = Path("a.png").read_bytes()
    Path("b.png").write_bytes(whole[: len(whole) // 2])
    find = bright.Bright.find

    def short_of_memory(self, image):
        if image.shape[-1] == 80:
            raise RuntimeError("not enough memory: you tried to allocate 10 bytes")
        return find(self, image)

    monkeypatch.setattr(bright.Bright, "find", short_of_memory)
    assert detect(".", "--json", "found.json", "--out", "drawn") == 1
    assert [row["image"] for row in found()] == ["a.png", "c.png"]
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["a.jpg", "c.jpg"]
    out = capsys.readouterr().out
    assert "b.png: left out, expected an image, got" in out
    assert "large.png: left out, not enough memory" in out


def test_stopped(here, capsys, monkeypatch):
    """Control-C keeps what was found until then."""
    for name in "abc":
        picture(f"{name}.png")
    find, seen = bright.Bright.find, []

    def stop(self, image):
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return find(self, image)

    monkeypatch.setattr(bright.Bright, "find", stop)
    assert detect(".", "--json", "found.json", "--out", "drawn") == 130
    assert [row["image"] for row in found()] == ["a.png", "b.png"]
    assert capsys.readouterr().err == "boxops detect: stopped\n"
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["a.jpg", "b.jpg"]


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        whole = Path("photo.png").read_bytes()
        answers = {
            "/photo.png": (200, {}, whole),
            "/a%20b/photo.png?size=2": (200, {"Content-Length": len(whole)}, whole),
            "/": (200, {}, whole),
            "/page.jpg": (200, {"Content-Type": "text/html"}, b"<html>sign in</html>"),
            "/cut.png": (200, {"Content-Length": len(whole) + 9}, whole),
            "/moved.png": (302, {"Location": "/photo.png"}, b""),
            "/local.png": (302, {"Location": Path("photo.png").absolute().as_uri()}, b""),
            "/loop.png": (302, {"Location": "/loop.png"}, b""),
            "/large.png": (200, {}, whole + bytes(1 << 20)),
        }
        status, headers, content = answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for item in headers.items():
            self.send_header(item[0], str(item[1]))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def address(here, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    picture("photo.png")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_addresses(here, address):
    words = [f"{address}/{path}" for path in ("photo.png", "a%20b/photo.png?size=2", "moved.png", "")]
    assert detect(*words, "--json", "found.json", "--out", "drawn") == 0
    assert [row["image"] for row in found()] == words
    assert all(row["detections"][0]["box"] == [*BOX] for row in found())
    names = ["127.0.0.1.jpg", "a b-photo.jpg", "moved.jpg", "photo.jpg"]
    names[0] = Path("127.0.0.1").stem + ".jpg"
    assert sorted(path.name for path in Path("drawn").iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("none.png", "404"),
        ("page.jpg", "expected an image, got"),
        ("cut.png", "got IncompleteRead|expected 1?[0-9]+ bytes, got"),
        ("local.png", "not allowed"),
        ("loop.png", "infinite loop"),
        ("large.png", "expected a file of at most 1 MiB, got a larger one"),
    ],
)
def test_bad_addresses(here, address, capsys, monkeypatch, path, text):
    monkeypatch.setattr(inputs, "LIMITS", {False: 1 << 20})
    assert detect(f"{address}/{path}", "--json", "found.json") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"boxops detect: {address}/{path}: ") and len(err.splitlines()) == 1
    assert re.search(text, err), err
    assert detect(f"{address}/{path}", "photo.png", "--json", "found.json") == 1
    assert [row["image"] for row in found()] == ["photo.png"]


def test_silent_server(here, capsys, monkeypatch):
    import socket

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(inputs, "PATIENCE", (0.2, 1.0))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert detect(f"http://127.0.0.1:{silent.getsockname()[1]}/a.png", "--json", "found.json") == 2
    assert "timed out" in capsys.readouterr().err
    assert detect("http://127.0.0.1:1/a.png", "--json", "found.json") == 2
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weights": "http://127.0.0.1:1/x.pth"}, None),
        ({"backbone_weights": "/nowhere/x.pth", "fine_tune": True, "pretrained": True}, None),
        ({"colour": "red"}, "colour"),
        ({"name": "unet"}, "got 'unet'"),
        ({"name": ["bright"]}, "expected model to be a name and options"),
        ({"num_classes": 10**9, "name": "faster_rcnn"}, r"expected weights of 1.29e\+12 numbers for .*, got 1"),
        ({"num_classes": "many", "name": "ssd"}, "bad.pt: expected a checkpoint of a model of boxops, got"),
        ({"name": "faster_rcnn_timm_fpn", "backbone": "hf-hub:someone/x"}, "without files and addresses, got 'hf-hub"),
        ({"name": "faster_rcnn_timm_fpn", "backbone": "local-dir:/tmp"}, "without files and addresses"),
        ({"scales": [0.1, {"x": "a/b"}]}, "without files and addresses, got 'a/b'"),
    ],
)
def test_options_of_a_strangers_checkpoint(here, capsys, monkeypatch, changes, text):
    """They open no file and no address, take no memory, and are named where they are wrong."""

    def opened(*args, **_):
        pytest.fail(f"opened {args}")

    monkeypatch.setattr("boxops.models.common.load_weights", opened)
    monkeypatch.setattr("socket.socket.connect", opened)
    picture("a.png")
    options = {"name": "bright", "num_classes": 2, **changes}
    bright.checkpoint("bad.pt", model=options)
    status = main(["detect", "a.png", "--checkpoint", "bad.pt", "--json", "found.json"])
    err = capsys.readouterr().err
    if text is None:
        assert status == 0 and found()[0]["detections"]
    else:
        assert status == 2 and len(err.splitlines()) == 1 and "bad.pt: " in err
        assert re.search(text, err), err


@pytest.mark.parametrize("changes", [{"classes": [1]}, {"classes": "lamp"}, {"weights": {"label": 1}}, {"weights": 3},
                                     {"model": None}, {"weights": {}}])  # fmt: skip
def test_parts_of_a_strangers_checkpoint(here, capsys, changes):
    picture("a.png")
    bright.checkpoint("bad.pt", **changes)
    assert main(["detect", "a.png", "--checkpoint", "bad.pt", "--json", "found.json"]) == 2
    err = capsys.readouterr().err
    assert "bad.pt: expected" in err and len(err.splitlines()) == 1


def test_timm_checkpoint_needs_no_download(here, monkeypatch):
    pytest.importorskip("timm")
    from boxops.models import create
    from boxops.training import load_model

    options = {"num_classes": 3, "backbone": "mobilenetv3_small_050"}
    weights = create("faster_rcnn_timm_fpn", **options).state_dict()
    model = {"name": "faster_rcnn_timm_fpn", "pretrained": True, **options}
    torch.save({"boxops": 1, "model": model, "classes": ["a", "b"], "weights": weights}, "timm.pt")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a download"))
    loaded, _ = load_model("timm.pt")
    assert all(torch.equal(value, weights[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("words", [["--checkpoint", "fast.pt"], ["--compare", "fast.pt"]])
def test_no_opencv(here, monkeypatch, capsys, words):
    """A detector of given proposals says what is missing before anything is read or written."""
    model = models.create("fast_rcnn", 2)
    save(here / "fast.pt", {"boxops": 1, "model": model.config, "classes": ["a"], "weights": model.state_dict()})
    picture("a.png")
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["detect", "a.png", *words, "--out", "b.png"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("boxops detect: proposals are found by OpenCV") and err.count("\n") == 1
    assert not Path("b.png").exists()
