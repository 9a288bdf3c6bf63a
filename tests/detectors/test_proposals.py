"""Proposals of images: valid boxes, the same every time, computed once."""

import copy
import os
import pickle
import signal
import sqlite3
import sys
import time

import numpy as np
import pytest
from commands import needs_fork
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import torch
from torchvision.transforms.v2 import functional as F

cv2 = pytest.importorskip("cv2")
if not hasattr(cv2, "ximgproc"):
    pytest.skip("OpenCV is here without its contrib modules", allow_module_level=True)
from PIL import Image, ImageDraw  # noqa: E402

import boxops  # noqa: E402
from boxops.data import BadData, Problem  # noqa: E402
from boxops.models import proposals as module  # noqa: E402
from boxops.models.proposals import METHODS, Proposals, as_pixels  # noqa: E402

RUN = [name for name in METHODS if name != "bing"]  # which needs files


def picture(seed=0, size=(64, 48)):
    """Ellipses of several colours on noise."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(180, 220, (size[1], size[0], 3), np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = (rng.random(2) * size).astype(int).tolist()
        w, h = rng.integers(6, 24, 2).tolist()
        draw.ellipse((x, y, x + w, y + h), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return image


class Pictures:
    """As a data set; those in ``bad`` cannot be read."""

    def __init__(self, count, bad=(), delay=0.0):
        self.count, self.bad, self.delay = count, bad, delay

    def __len__(self):
        return self.count

    def load(self, index):
        time.sleep(self.delay)
        if index in self.bad:
            raise BadData(Problem("a.jpg", "", "bad"))
        return picture(index), None, None


@pytest.fixture
def calls(monkeypatch):
    """How often a method was called; it finds one box, whose x1 is the image's first pixel."""
    seen = []

    def method(image, *, number=1, model=None):
        seen.append(number)
        return np.array([[image[0, 0, 0] / 1024, 0, 9 + number, 9]], np.float32)

    monkeypatch.setitem(METHODS, "counted", method)
    return seen


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "proposals.sqlite"


def kept(path):
    """How many images' proposals are in the file: none as long as it has no table, or another process begins one."""
    try:
        return sqlite3.connect(path).execute("SELECT count(*) FROM proposals").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def check(boxes, width, height):
    assert boxes.dtype == torch.float32
    assert boxes.ndim == 2
    assert boxes.shape[1] == 4
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
    assert len(boxes.unique(dim=0)) == len(boxes)


@pytest.mark.parametrize("method", RUN)
def test_valid_boxes_near_the_objects(method):
    image = picture(3, (128, 96))
    boxes = Proposals(method, 300, cache=None)(image)
    check(boxes, 128, 96)
    assert 5 < len(boxes) <= 300
    few = Proposals(method, 3, min_size=20, cache=None)(image)
    assert len(few) == 3
    assert (few[:, 2:] - few[:, :2] >= 20).all()
    large = boxes[((boxes[:, 2:] - boxes[:, :2]) >= 20).all(1)]
    assert torch.equal(few, large[:3])  # the best first, whatever is asked of them


@pytest.mark.parametrize("method", RUN)
@settings(max_examples=8)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 9), noise=st.sampled_from([0, 1, 255]))
def test_images_of_any_size(method, width, height, seed, noise):
    """Of one colour and of noise too."""
    pixels = np.random.default_rng(seed).integers(0, noise + 1, (height, width, 3), np.uint8)
    check(Proposals(method, cache=None)(Image.fromarray(pixels)), width, height)


@pytest.mark.parametrize("method", RUN)
def test_one_pixel_and_one_colour(method):
    for size in ((1, 1), (1, 90), (90, 1), (40, 30)):
        check(Proposals(method, cache=None)(Image.new("RGB", size, (9, 99, 199))), *size)


@pytest.mark.parametrize("method", RUN)
def test_a_function_of_the_image(method):
    """Whatever ran before: OpenCV's own ranks are drawn from a state that all of a process share."""
    proposals, image = Proposals(method, cache=None), picture(1, (96, 72))
    boxes = proposals(image)
    cv2.setRNGSeed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    proposals(picture(2))
    assert torch.equal(proposals(image), boxes)


@needs_fork
@pytest.mark.parametrize("method", RUN)
def test_another_process_finds_the_same(method, tmp_path):
    """One where OpenCV has drawn more of its numbers."""
    child = os.fork()
    if child == 0:
        Proposals(method, cache=None)(picture(5))
        np.save(tmp_path / "aside.npy", Proposals(method, cache=None)(picture(1)).numpy())
        os.rename(tmp_path / "aside.npy", tmp_path / "boxes.npy")
        os._exit(0)
    boxes = Proposals(method, cache=None)(picture(1))
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "boxes.npy"), boxes)


def test_structured_edges_of_a_model(tmp_path, monkeypatch):
    """A stand-in for the model, of the corners of one square; OpenCV's own file is not to be had here."""
    from boxops.models.proposals import gradients

    image = Image.new("RGB", (96, 96))
    ImageDraw.Draw(image).rectangle((20, 30, 69, 79), fill=(255, 255, 255))
    seen = []

    class Finder:
        def detectEdges(self, pixels):
            seen.append((pixels.dtype, pixels.max()))
            return gradients((pixels * 255).astype(np.uint8), 1.0)[0]

        def computeOrientation(self, edges):
            return gradients(np.asarray(image), 1.0)[1]

        def edgesNms(self, edges, angles, *numbers):
            return edges

    monkeypatch.setattr(cv2.ximgproc, "createStructuredEdgeDetection", lambda file: seen.append(file) or Finder())
    (tmp_path / "model.yml.gz").write_bytes(b"")
    boxes = Proposals("edge_boxes", cache=None, model=tmp_path / "model.yml.gz")(image)
    assert seen == [str(tmp_path / "model.yml.gz"), (np.float32, 1.0)]
    expected = Proposals("edge_boxes", cache=None, blur=1.0)(image)
    assert torch.equal(boxes, expected)
    assert boxops.box_iou(torch.tensor([[20.0, 30, 70, 80]]), boxes[:20]).max() > 0.8


def test_bing_with_a_folder_of_filters(tmp_path, capfd):
    """Filters made here; the trained ones are in OpenCV's sources alone."""
    with pytest.raises(FileNotFoundError, match=r"a folder with ObjNessB2W8MAXBGR\.wS1\.yml\.gz as its"):
        Proposals("bing", cache=None)(picture())
    ring = np.full((8, 8), -0.1, np.float32)
    ring[[0, -1]] = ring[:, [0, -1]] = 0.1
    for space in ("MAXBGR", "HSV", "I"):
        parts = {"wS1": ring, "wS2": np.tile(np.float32([1, 0]), (36, 1)), "idx": np.arange(36, dtype=np.int32)}
        for part, values in parts.items():
            file = cv2.FileStorage(str(tmp_path / f"ObjNessB2W8{space}.{part}.yml.gz"), cv2.FILE_STORAGE_WRITE)
            file.write(f"ObjNessB2W8{space}", values)
            file.release()
    proposals = Proposals("bing", 500, cache=None, model=tmp_path)
    boxes = proposals(picture(1, (96, 72)))
    check(boxes, 96, 72)
    assert len(boxes) > 50
    assert torch.equal(proposals(picture(1, (96, 72))), boxes)


@pytest.mark.parametrize("missing", ["cv2", "contrib"])
def test_without_opencv(calls, path, monkeypatch, missing):
    if missing == "cv2":
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        monkeypatch.delattr(cv2, "ximgproc")
    proposals = Proposals("counted", cache=path)
    for use in (lambda: proposals(picture()), lambda: proposals.prepare(Pictures(2), workers=2)):
        with pytest.raises(ImportError, match="pip install opencv-contrib-python-headless"):
            use()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "sift"}, ValueError, "proposals: expected a method of selective_search_single, .*, got 'sift'"),
        ({"max_proposals": 0}, ValueError, "max_proposals: expected an integer of 1 or more, got 0"),
        ({"max_proposals": 1.5}, ValueError, "max_proposals: expected an integer of 1 or more, got 1.5"),
        ({"min_size": 0}, ValueError, "min_size: expected 1 or more pixels, got 0"),
        ({"min_size": float("nan")}, ValueError, "min_size: expected 1 or more pixels, got nan"),
        ({"alpha": 3}, TypeError, "selective_search_fast: expected options of base_k, inc_k, sigma, got alpha"),
    ],
)
def test_arguments(options, error, words):
    with pytest.raises(error, match=f"^{words}"):
        Proposals(**options)


def test_an_image_that_opencv_cannot_take(monkeypatch):
    def fails(image):
        raise cv2.error("out of memory")

    monkeypatch.setitem(METHODS, "fails", fails)
    with pytest.raises(RuntimeError, match="fails: failed on an image of 64 x 48 pixels: out of memory"):
        Proposals("fails", cache=None)(picture())


def test_copies_work_on_the_same(calls, path):
    """As those of worker processes, and of models."""
    proposals = Proposals("counted", cache=path)
    proposals.prepare(Pictures(2))
    memory = Proposals("counted", cache=None)
    memory.prepare(Pictures(2))
    calls.clear()
    for one in (proposals, memory):
        for same in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            assert torch.equal(same(picture(1)), one(picture(1)))
    assert calls == []


def test_no_images(calls, path):
    Proposals("counted", cache=path).prepare(workers=2)
    Proposals("counted", cache=path).prepare(Pictures(0), workers=2)
    assert not path.exists()


def test_threads_of_opencv_are_as_before():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        Proposals("edge_boxes", cache=None)(picture())
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_any_kind_of_image_is_the_same(calls, path):
    """An image and its tensor, of any dtype that holds its numbers, and one on another way to memory."""
    image = picture(1)
    proposals = Proposals("counted", cache=path)
    proposals.prepare(Pictures(3))
    calls.clear()
    tensor = F.pil_to_tensor(image)
    kinds = [image, image.convert("RGBA"), tensor, F.to_dtype(tensor, torch.float32, scale=True),
             F.to_dtype(tensor, torch.float64, scale=True), tensor.half() / 255,
             F.to_dtype(tensor, torch.float32, scale=True).permute(1, 2, 0).contiguous().permute(2, 0, 1)]  # fmt: skip
    for kind in kinds:
        assert torch.equal(proposals(kind), proposals(image))
        np.testing.assert_array_equal(as_pixels(kind), np.asarray(image))
    assert calls == []
    proposals(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert calls == [1]


@pytest.mark.parametrize("workers", [0, 2])
def test_computed_once(calls, path, workers):
    said = []
    data = Pictures(6, bad=(4,)), Pictures(3)
    proposals = Proposals("counted", cache=path)
    proposals.prepare(*data, workers=workers, say=said.append)
    assert len(said) == 1
    assert "images" in said[0]
    again = Proposals("counted", 5, cache=path, min_size=2)
    again.prepare(*data, workers=workers, say=said.append)
    assert len(said) == 1  # nothing was left to do
    calls.clear()
    for index in (0, 1, 2, 3, 5):
        boxes = again(picture(index))
        assert boxes[0, 0] == np.asarray(picture(index))[0, 0, 0] / 1024
    assert calls == []
    again(picture(4))
    assert calls == [1]  # its image could not be read
    again(picture(4))
    assert calls == [1, 1]  # what was not asked for is not kept


def test_what_is_computed_anew(calls, path, tmp_path, monkeypatch):
    """Another method, option, model file, shape, pixel or OpenCV."""
    file = tmp_path / "model"
    file.write_bytes(b"a")

    def new(image, **options):
        before = len(calls)
        proposals = Proposals("counted", cache=path, **options)
        found = proposals(image)
        proposals.prepare(type("One", (), {"__len__": lambda _: 1, "load": lambda *_: (image, None, None)})())
        again = len(calls)
        assert torch.equal(proposals(image), found)
        assert len(calls) == again
        return again > before + 1

    image = picture()
    assert new(image)
    assert not new(image)
    assert new(image, number=2)
    assert new(image, model=file)
    assert not new(image, model=file)
    file.write_bytes(b"b")
    assert new(image, model=file)
    changed = image.copy()
    changed.putpixel((63, 47), (1, 2, 3))
    assert new(changed)
    assert new(Image.fromarray(np.asarray(image).reshape(64, 48, 3)))
    monkeypatch.setattr(cv2, "__version__", "5.0.1")
    assert new(image)
    monkeypatch.setattr(module, "VERSION", 99)
    assert new(image)


def damage_text(path):
    path.write_bytes(b"no database, but a text of another program" * 50)


def damage_page(path):
    content = bytearray(path.read_bytes())
    content[100:4096] = os.urandom(3996)
    path.write_bytes(content)


def damage_folder(path):
    path.unlink()
    path.mkdir()


def damage_boxes(path):
    with sqlite3.connect(path) as file:
        for key, boxes in file.execute("SELECT key, boxes FROM proposals").fetchall():
            boxes = boxes[:-5] + bytes([boxes[-5] ^ 1]) + boxes[-4:]
            file.execute("UPDATE proposals SET boxes = ? WHERE key = ?", (boxes, key))


@pytest.mark.parametrize("damage", [damage_text, damage_page, damage_folder, damage_boxes])
def test_a_damaged_file(calls, path, damage, recwarn):
    """Is said once, is never believed, and all goes on."""
    Proposals("counted", cache=path).prepare(Pictures(3))
    damage(path)
    calls.clear()
    proposals = Proposals("counted", cache=path)
    for index in range(3):
        assert proposals(picture(index))[0, 0] == np.asarray(picture(index))[0, 0, 0] / 1024
    assert len(calls) == 3
    told = [str(warning.message) for warning in recwarn]
    if damage is not damage_boxes:
        assert len(told) == 1
        assert f"{path} cannot be read" in told[0]
    proposals.prepare(Pictures(3))  # to memory, or over the damaged ones
    assert len(recwarn) == len(told)
    calls.clear()
    proposals(picture(1))
    assert calls == []


def test_a_file_that_is_locked(calls, path, monkeypatch, recwarn):
    monkeypatch.setattr("boxops.models.proposal_cache.PATIENCE", 0.05)
    Proposals("counted", cache=path).prepare(Pictures(1))
    with sqlite3.connect(path) as file:
        file.execute("BEGIN EXCLUSIVE")
        proposals = Proposals("counted", cache=path)
        proposals.prepare(Pictures(3))
        calls.clear()
        assert len(proposals(picture(2))) == 1
    assert calls == []
    assert [f"{path} cannot be" in str(warning.message) for warning in recwarn] == [True]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="has other permissions")
def test_a_folder_that_cannot_be_written(calls, path, recwarn, monkeypatch):
    if os.geteuid() == 0:  # may write everywhere
        monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    else:
        path.parent.parent.chmod(0o500)
    proposals = Proposals("counted", cache=path)
    proposals.prepare(Pictures(4))
    calls.clear()
    proposals(picture(3))
    assert calls == []
    assert [f"{path} cannot be written" in str(warning.message) for warning in recwarn] == [True]


def test_a_full_disk(calls, path, recwarn, monkeypatch):
    """What was written stays, the rest is in memory."""
    Proposals("counted", cache=path).prepare(Pictures(1))
    connect = sqlite3.connect

    def full(*args, **options):
        file = connect(*args, **options)
        file.execute(f"PRAGMA max_page_count = {path.stat().st_size // 4096}")
        return file

    monkeypatch.setattr(sqlite3, "connect", full)
    monkeypatch.setitem(METHODS, "counted", lambda image: np.random.rand(9999, 4).cumsum(1).astype(np.float32))
    proposals = Proposals("counted", cache=path)
    proposals.prepare(Pictures(3))
    assert torch.equal(proposals(picture(2)), proposals(picture(2)))
    assert ["full" in str(warning.message) for warning in recwarn] == [True]


def test_processes_at_once(calls, path):
    """Each puts its own; none is lost."""
    if not hasattr(os, "fork"):
        pytest.skip("forks")
    children = []
    for first in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            Proposals("counted", cache=path, number=1 + first % 2).prepare(Pictures(12))
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    calls.clear()
    for number in (1, 2):
        for index in range(12):
            Proposals("counted", cache=path, number=number)(picture(index))
    assert calls == []
    assert kept(path) == 24


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_killed_in_the_middle(calls, path, tmp_path, number):
    """What was found until then is there, and no process is left."""
    group = os.fork()
    if group == 0:
        os.setsid()
        sys.stderr = open(tmp_path / "said", "w")  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        try:
            Proposals("counted", cache=path).prepare(Pictures(200, delay=0.02), workers=2)
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(1)
    end = time.monotonic() + 30
    while kept(path) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(group, number) if number == signal.SIGINT else os.kill(group, number)
    _, status = os.waitpid(group, 0)
    assert os.waitstatus_to_exitcode(status) == (130 if number == signal.SIGINT else -9)
    if number == signal.SIGINT:
        with pytest.raises(ProcessLookupError):
            while True:
                os.killpg(group, 0)
                assert time.monotonic() < end
                time.sleep(0.02)
    else:  # of a killed process the workers see within seconds that it is gone
        os.killpg(group, number)
    Proposals("counted", cache=path).prepare(Pictures(kept(path) + 2))
    assert len(calls) == 2
