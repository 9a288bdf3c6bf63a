"""Where weights come from: addresses and what is kept of them, and torchvision's names."""

import hashlib
import http.server
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scenes import torch, torchvision

from boxops import models
from boxops.models import weights
from boxops.models.weights import address, fetch

detection = torchvision.models.detection


def content(value, tmp_path, legacy=False):
    """The bytes of a checkpoint that holds a number."""
    torch.save({"a": torch.full((64,), float(value))}, tmp_path / "made.pth", _use_new_zipfile_serialization=not legacy)
    return (tmp_path / "made.pth").read_bytes()


def number(source):
    return int(models.read(source)["a"][0])


def digest(data, length=8):
    return hashlib.sha256(data).hexdigest()[:length]


class Site:
    """What a server of this machine answers: by path its content, or a status; and what it was asked."""

    def __init__(self):
        self.files, self.asked, self.cut = {}, [], set()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                data = site.files.get(self.path, 404)
                if isinstance(data, int):
                    self.send_error(data)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if self.path in site.cut else data)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder of checkpoints, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def site(hub):
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def kept(hub):
    return sorted(file.relative_to(hub).as_posix() for file in hub.rglob("*"))


@pytest.mark.parametrize(
    "paths", [("/a/best.pt", "/b/best.pt"), ("/f?id=1", "/f?id=2"), ("/a%20b.pt", "/a b/../b.pt?")]
)
def test_each_address_has_a_file_of_its_own(site, tmp_path, paths):
    paths = [path.replace(" ", "+") for path in paths]
    for value, path in enumerate(paths):
        site.files[path] = content(value, tmp_path)
    for _ in range(2):
        assert [number(site.url + path) for path in paths] == [0, 1]
    assert site.asked == paths  # the second time they were kept


@pytest.mark.parametrize("query", ["", "?download=1"])
def test_a_hash_in_the_name(site, hub, tmp_path, query):
    data = content(7, tmp_path)
    right, wrong = f"/m-{digest(data)}.pth{query}", f"/m-0123abcd.pth{query}"
    site.files |= {right: data, wrong: data}
    assert number(site.url + right) == 7
    with pytest.raises(ValueError, match=rf'{re.escape(site.url + wrong)}: invalid hash value .expected "0123abcd"'):
        number(site.url + wrong)
    assert len(list(hub.rglob("*.pth"))) == 1


@pytest.mark.parametrize("name", ["model-20240131.pt", "model-19991231.pt", "model-fe.pt", "0123abcd.pt"])
def test_what_is_no_hash(site, tmp_path, name):
    site.files["/" + name] = content(3, tmp_path)
    assert number(f"{site.url}/{name}") == 3


def test_files_that_torchvision_has_kept(site, hub, tmp_path):
    """They are read if the hash is theirs, and are left as they are if it is not."""
    data, other = content(7, tmp_path), content(8, tmp_path)
    name = f"m-{digest(data)}.pth"
    hub.mkdir(parents=True)
    (hub / name).write_bytes(data)
    assert number(f"{site.url}/{name}") == 7
    assert site.asked == []
    (hub / name).write_bytes(other)
    site.files["/" + name] = data
    assert number(f"{site.url}/{name}") == 7
    assert (hub / name).read_bytes() == other
    (hub / "plain.pth").write_bytes(other)  # without a hash nothing says whose it is
    site.files["/plain.pth"] = data
    assert number(f"{site.url}/plain.pth") == 7


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"<html>", lambda d: d[:-1]])
def test_a_kept_file_that_is_not_whole_is_fetched_again(site, hub, tmp_path, legacy, hashed, damage):
    data = content(5, tmp_path, legacy)
    path = f"/m-{digest(data)}.pth" if hashed else "/m.pth"
    site.files[path] = data
    assert number(site.url + path) == 5
    (file,) = hub.rglob("*.pth")
    file.write_bytes(damage(data))
    assert number(site.url + path) == number(site.url + path) == 5
    assert site.asked == [path] * 2


def test_broken_connections(site, hub, tmp_path):
    site.files["/m.pth"] = content(5, tmp_path)
    site.cut.add("/m.pth")
    half = len(site.files["/m.pth"]) // 2
    with pytest.raises(OSError, match=rf"{site.url}/m.pth: expected a file to download, got: the first {half} of"):
        number(f"{site.url}/m.pth")
    assert kept(hub) == ["boxops"]
    site.cut.clear()
    assert number(f"{site.url}/m.pth") == 5


PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (404, OSError, "expected a file to download, got: HTTP Error 404"),
        (403, OSError, "expected a file to download, got: HTTP Error 403"),
        (500, OSError, "expected a file to download, got: HTTP Error 500"),
        (PAGE, ValueError, "expected a checkpoint of tensors and plain values, got: a web page"),
        (POINTER, ValueError, "expected a checkpoint of tensors and plain values, got: a pointer of Git LFS"),
        (b"", ValueError, "expected a checkpoint of tensors and plain values, got: "),
        (b"\x80\x02}q\x00.", ValueError, "m.pth: expected "),
    ],
)
def test_what_is_no_checkpoint_is_not_kept(site, hub, tmp_path, answer, error, words):
    site.files["/m.pth"] = answer
    with pytest.raises(error, match=f"^{site.url}/m.pth: {words.removeprefix('m.pth: ')}"):
        number(f"{site.url}/m.pth")
    assert kept(hub) == ["boxops"]
    site.files["/m.pth"] = content(5, tmp_path)
    assert number(f"{site.url}/m.pth") == 5


def test_no_network(hub):
    url = "http://127.0.0.1:9/m.pth"
    with pytest.raises(OSError, match=rf"^{url}: expected a file to download, got: \[Errno"):
        number(url)


def test_silence(site, monkeypatch):
    monkeypatch.setattr(weights, "SILENCE", 0.1)
    site.server.RequestHandlerClass.do_GET = lambda self: threading.Event().wait(0.5)
    with pytest.raises(OSError, match=r"m\.pth: expected a file to download, got: timed out"):
        number(f"{site.url}/m.pth")


def test_several_at_once(site, hub, tmp_path):
    """As the processes of torchrun, on a kept file that is not whole."""
    site.files["/m.pth"] = content(5, tmp_path)
    number(f"{site.url}/m.pth")
    (file,) = hub.rglob("*.pth")
    file.write_bytes(b"half")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(number, [f"{site.url}/m.pth"] * 16)) == [5] * 16
    assert kept(hub) == ["boxops", f"boxops/{file.name}"]


def test_an_interrupted_download_leaves_nothing(site, hub, tmp_path):
    site.files["/m.pth"] = content(5, tmp_path)

    def interrupted(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{site.url}/m.pth", interrupted)
    assert kept(hub) == ["boxops"]


def test_file_addresses_are_read_as_they_are_now(hub, tmp_path):
    file = tmp_path / "a b%c.pth"
    for value in (1, 2):
        file.write_bytes(content(value, tmp_path))
        assert number(file.as_uri()) == value
    assert not hub.exists()
    with pytest.raises(FileNotFoundError):
        number((tmp_path / "absent.pth").as_uri())


V2 = detection.FasterRCNN_ResNet50_FPN_V2_Weights
RESNET = torchvision.models.ResNet50_Weights


@pytest.mark.parametrize(
    ("model", "given", "member"),
    [
        ("faster_rcnn_resnet50_fpn_v2", V2.COCO_V1, V2.COCO_V1),
        ("faster_rcnn_resnet50_fpn_v2", "DEFAULT", V2.COCO_V1),
        ("faster_rcnn_resnet50_fpn_v2", "COCO_V1", V2.COCO_V1),
        ("faster_rcnn_resnet50_fpn_v2", "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1", V2.COCO_V1),
        ("faster_rcnn_resnet50_fpn_v2", "FasterRCNN_ResNet50_FPN_V2_Weights.DEFAULT", V2.COCO_V1),
        ("keypoint_rcnn_resnet50_fpn", "COCO_LEGACY", detection.KeypointRCNN_ResNet50_FPN_Weights.COCO_LEGACY),
        ("resnet50", "DEFAULT", RESNET.IMAGENET1K_V2),
        ("resnet50", "IMAGENET1K_V1", RESNET.IMAGENET1K_V1),
        ("resnet50", RESNET.IMAGENET1K_V1, RESNET.IMAGENET1K_V1),
    ],
)
def test_names_are_torchvisions_addresses(model, given, member):
    assert address(model, given) == member.url


@pytest.mark.parametrize("given", [None, "best.pt", "runs/DEFAULT", "https://a/b.pth"])
def test_files_and_addresses_are_no_names(given, tmp_path):
    assert address("ssd300_vgg16", given) == given
    assert address("ssd300_vgg16", tmp_path / "DEFAULT") == tmp_path / "DEFAULT"


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        (
            "ssd",
            "DEFAULT",
            r"expected a file or a URL of weights for ssd300_mobilenet_v2, got DEFAULT: by name only "
            r"fasterrcnn_.*, ssdlite320_mobilenet_v3_large have any",
        ),
        ("ssd", V2.COCO_V1, "for ssd300_mobilenet_v2, got FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1: by name"),
        ("ssd300_vgg16", "COCO_V2", "expected SSD300_VGG16_Weights for ssd300_vgg16: COCO_V1, DEFAULT; got COCO_V2"),
        ("ssd300_vgg16", V2.COCO_V1, "expected SSD300_VGG16_Weights for ssd300_vgg16: .*; got FasterRCNN_Res"),
        (
            "fasterrcnn_resnet50_fpn",
            V2.COCO_V1,
            "expected FasterRCNN_ResNet50_FPN_Weights for faster_rcnn_resnet50_fpn",
        ),
    ],
)
def test_names_that_are_none(name, given, words):
    with pytest.raises(ValueError, match=words):
        models.create(name, 3, weights=given)


def test_backbones_by_name():
    with pytest.raises(ValueError, match=r"expected MobileNet_V2_Weights for mobilenet_v2: .*; got IMAGENET1K_V3"):
        models.create("ssd", 3, backbone_weights="IMAGENET1K_V3")
    with pytest.raises(ValueError, match=r"expected MobileNet_V2_Weights for mobilenet_v2: .*; got ResNet50_Weights\."):
        models.create("faster_rcnn", 3, backbone_weights=RESNET.DEFAULT)


LITE = detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1


@pytest.mark.parametrize("options", [{"weights": "DEFAULT"}, {"weights": LITE}, {"backbone_weights": "DEFAULT"},
                                     {"weights": "COCO_V1", "backbone_weights": "DEFAULT"}])  # fmt: skip
def test_builders_take_names(options, monkeypatch):
    """One address is asked for, whose tensors fit, and the model's config stays plain."""
    whole = "weights" in options
    network = torchvision.models.get_model("mobilenet_v3_large", weights=None)
    made, asked = models.create("ssdlite320_mobilenet_v3_large") if whole else network, []
    monkeypatch.setattr(models.checkpoint, "fetch", lambda url, load: asked.append(url) or made.state_dict())
    model = models.create("ssdlite320_mobilenet_v3_large", **options)
    assert asked == [LITE.url if whole else torchvision.models.MobileNet_V3_Large_Weights.DEFAULT.url]
    assert {type(value) for value in model.config.values()} <= {str, int, float, bool}
    assert not options.keys() & model.config.keys()


def test_weights_by_name_have_the_old_norms(monkeypatch):
    """torchvision's first COCO files are known by the hash in the address."""
    monkeypatch.setattr(models.common, "load_weights", lambda *args, **kwargs: None)
    assert models.create("fasterrcnn_resnet50_fpn", weights="DEFAULT").config["norm"] == "frozen_eps0"


def test_the_backbone_of_ssd300_is_of_its_normalization(monkeypatch):
    class Asked(Exception):
        pass

    def classifier(name, norm, weights, freeze):
        raise Asked(address(name, weights))

    monkeypatch.setattr(models.backbones, "classifier", classifier)
    with pytest.raises(Asked, match="vgg16_features-"):
        models.ssd300_vgg16(backbone_weights="DEFAULT")


def test_categories():
    coco = models.categories("fasterrcnn_resnet50_fpn_v2")
    assert (len(coco), coco[0], coco[1], coco[90]) == (91, "__background__", "person", "toothbrush")
    assert models.categories("ssdlite320_mobilenet_v3_large") == models.categories("mask_rcnn_resnet50_fpn") == coco
    assert models.categories("keypoint_rcnn_resnet50_fpn") == ["no person", "person"]
    assert models.categories("ssd") == models.categories("faster_rcnn_timm_fpn") == models.categories("mine") == []
