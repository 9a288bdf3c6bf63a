"""YOLO as a detector that learns: builders on any cfg, darknet's weights as a start, sizes that vary, the command."""

import random
import re

import pytest
from commands import DATA as SHAPES
from data_files import DATA, needs_data
from scenes import torch

from boxops import models
from boxops.cli import main
from boxops.data import transforms
from boxops.models.darknet import Darknet
from boxops.models.sizes import scales
from boxops.models.yolo import YOLO, Letterbox, Settings
from boxops.training.checkpoint import load_model, save

NET = ["[net]", "width=64", "height=64", "channels=3"]
STEM = ["[convolutional]", "batch_normalize=1", "filters=8", "size=3", "stride=2", "pad=1", "activation=leaky",
        *(5 * ["[maxpool]", "size=2", "stride=2"])[:12]]  # fmt: skip
V3 = [*NET, *STEM, "[convolutional]", "filters=14", "activation=linear", "[yolo]", "anchors=9,9,30,20,40,40",
      "num=3", "mask=0,2", "classes=2", "random=1"]  # fmt: skip
V2 = [*NET, *STEM, "[convolutional]", "filters=14", "activation=linear", "[region]", "anchors=.5,.5,1,2",
      "num=2", "classes=2", "softmax=1", "bias_match=1"]  # fmt: skip
V1 = [*NET, *STEM, "[connected]", "output=48", "activation=linear", "[detection]", "classes=2", "coords=4", "side=2",
      "num=2", "sqrt=1"]  # fmt: skip
CFGS = {"yolo_v1": V1, "yolo_v2": V2, "yolo_v3": V3}
TRAIN = [*SHAPES, "--workers", "0", "--device", "cpu", "--batch-size", "4", "--epochs", "1", "--pictures", "0"]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def targets(*boxes):
    labels = [1 + i % 2 for i in range(len(boxes))]
    return {"boxes": torch.tensor(boxes).view(-1, 4).float(), "labels": torch.tensor(labels, dtype=torch.int64)}


@pytest.mark.parametrize("name", CFGS)
def test_as_many_classes_as_asked_for(name):
    """The head and the layer before it are changed, nothing else is; without a number they are the cfg's."""
    own, more = models.create(name, lines=CFGS[name]), models.create(name, 6, lines=CFGS[name])
    assert (own.config["num_classes"], more.config["num_classes"]) == (3, 6)
    assert more.heads[0].classes == 5
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (own, more)]
    last = len(own.network.layers) - 2
    assert {key for key in shapes[0] if shapes[0][key] != shapes[1][key]} == {
        f"network.layers.{last}.linear.{kind}" for kind in ("weight", "bias")
    }
    again = models.create(**more.config)
    models.load_weights(again, more.state_dict())
    image = [torch.rand(3, 50, 70)]
    assert torch.equal(again.eval()(image)[0]["boxes"], more.eval()(image)[0]["boxes"])


@pytest.mark.parametrize("name", CFGS)
def test_tiny_networks_learn_and_are_darknet_s(name):
    with torch.device("meta"):
        model = models.create(name)
    given = {"yolo_v2": 11_237_145, "yolo_v3": 8_858_734}  # as many as darknet's tiny weights have
    count = sum(tensor.numel() for layer in model.network.layers for tensor in layer.stored())
    assert given.get(name, count) == count and model.config["num_classes"] == 81
    model = models.create(name, 3, lines=CFGS[name]).train()
    losses = model([torch.rand(3, 40, 64)], [targets((3, 3, 20, 30), (30, 5, 60, 38))])
    assert list(losses) == ["bbox_regression", "objectness", "classification"]
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@needs_data
@pytest.mark.parametrize("name", ["yolo_v2", "yolo_v3"])
def test_tiny_networks_are_those_of_the_cfg(name):
    """Ours, without a file, is the network that darknet's file describes."""
    file = DATA / "darknet" / f"{name.replace('_', '')}-tiny"
    with torch.device("meta"):
        ours, theirs = models.create(name), models.create(name, cfg=file.with_suffix(".cfg"))
    unlike = ("decay", "momentum", "jitter")
    for mine, other in zip(ours.sections[1:], theirs.sections[1:], strict=True):
        assert mine.kind == other.kind
        for option in mine.options:
            if option not in unlike and option in other.options:
                numbers = [section.numbers(option) if option not in ("activation",) else section.options[option]
                           for section in (mine, other)]  # fmt: skip
                assert numbers[0] == numbers[1]


def test_fine_tuning_takes_what_fits(tmp_path):
    """Darknet's weights are read as the cfg has them; the heads of other classes begin anew."""
    given = models.create("yolo_v3", cfg=write(tmp_path / "net.cfg", V3))
    given.network.load(random_weights(given.network, tmp_path))
    file = tmp_path / "net.weights"
    model = models.create("yolo_v3", 5, cfg=tmp_path / "net.cfg", weights=file, fine_tune=True)
    own, theirs = model.state_dict(), given.state_dict()
    head = f"network.layers.{len(model.network.layers) - 2}."
    assert all(torch.equal(own[key], theirs[key]) for key in own if not key.startswith(head))
    same = models.create("yolo_v3", cfg=tmp_path / "net.cfg", weights=file.as_uri())
    assert all(torch.equal(value, theirs[key]) for key, value in same.state_dict().items())
    with pytest.raises(ValueError, match=r"net.weights: expected \d+ values for layer \d+ \[convolutional\]"):
        models.create("yolo_v3", 5, cfg=tmp_path / "net.cfg", weights=file)
    save(tmp_path / "model.pt", {"model": same.state_dict()})
    again = models.create("yolo_v3", cfg=tmp_path / "net.cfg", weights=tmp_path / "model.pt")
    assert all(torch.equal(value, theirs[key]) for key, value in again.state_dict().items())


def random_weights(network, tmp_path):
    for layer in network.layers:
        for tensor in layer.stored():
            torch.nn.init.uniform_(tensor, 0.1, 1.0)
    network.save(tmp_path / "net.weights")
    return tmp_path / "net.weights"


def test_what_was_learnt_is_written_for_darknet(tmp_path):
    model = models.create("yolo_v3", 5, lines=V3, size=96).eval()
    model.network.save(tmp_path / "own.weights")
    cfg = write(tmp_path / "own.cfg", model.network.lines)
    again, image = models.darknet_yolo(cfg, tmp_path / "own.weights"), [torch.rand(3, 50, 70)]
    assert again.config["num_classes"] == 5 and again.transform.size == (96, 96)
    assert torch.equal(again(image)[0]["scores"], model(image)[0]["scores"])


def test_the_first_layers_of_another_network(tmp_path):
    """As darknet53.conv.74: the file ends behind a layer, or ``cutoff`` says where to stop."""
    file = random_weights(network(tmp_path, [*NET, *STEM]), tmp_path)
    model = models.create("yolo_v1", 3, lines=V1, backbone_weights=file)
    assert model.network.layers[0].linear.weight.min() >= 0.1 and model.network.layers[0].norm.running_var.min() >= 0.1
    longer = random_weights(network(tmp_path, V3[: V3.index("[yolo]")]), tmp_path)
    with pytest.raises(ValueError, match=r"\[connected\] \(cfg:\d+\), found 126: the file has \d+; with cutoff=5 it"):
        models.create("yolo_v1", 3, lines=V1, backbone_weights=longer)
    model = models.create("yolo_v1", 3, lines=V1, backbone_weights=longer, cutoff=5)
    assert model.network.layers[0].linear.weight.min() >= 0.1


def network(tmp_path, lines):
    return Darknet(write(tmp_path / "start.cfg", lines))


def test_v1_begins_with_cells_that_are_alike():
    """Its connected layer gives each cell the same numbers of the same features, and none of other cells."""
    model = models.create(
        "yolo_v1", 3, lines=[*NET, "[maxpool]", "size=32", "stride=32", *V1[V1.index("[connected]") :]]
    )
    features, order = torch.rand(1, 3, 2, 2), torch.tensor([3, 1, 0, 2])
    connected, (head,) = model.network.layers[-2], model.heads
    rows = head.rows(connected(features)).unflatten(1, (4, 2))  # [1, cells, boxes, 5 + C]
    moved = head.rows(connected(features.flatten(2)[..., order].view(1, 3, 2, 2))).unflatten(1, (4, 2))
    torch.testing.assert_close(moved, rows[:, order])
    assert rows.std() > 0.1


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("yolo_v3", {"lines": V2}, r"expected heads \[yolo\], got region: yolo_v1 has \[detection\], "),
        ("yolo_v2", {"lines": NET + STEM}, r"cfg: expected heads \[region\], got none"),
        ("yolo_v3", {"lines": V3, "size": 100}, "size: expected a multiple of 32, got 100"),
        ("yolo_v1", {"lines": V1, "multi_scale": True}, "multi_scale: expected false for YOLO v1"),
        ("yolo_v3", {"lines": [*NET, "[maxpool]", "size=4", "stride=4", *V3[-6:]]}, r"cfg:8: \[yolo\] expected 14 bef"),
        ("yolo_v2", {"lines": [*V2, "background=1"]}, r"cfg:\d+: \[region\] expected background = 0, got 1"),
        ("yolo_v3", {"cfg": "nowhere.cfg"}, "nowhere.cfg"),
    ],
)  # fmt: skip
def test_cfgs_that_do_not_fit(name, options, said):
    with pytest.raises((ValueError, OSError), match=said):
        models.create(name, 3, **options)


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("yolo_v2", "bias_match=0", r"cfg:\d+: \[region\] expected bias_match = 1 to learn from, .* got 0"),
        ("yolo_v3", "truth_thresh=.9", r"\[yolo\] expected truth_thresh = 1 to learn from, .* got 0.9"),
        ("yolo_v1", "forced=1", r"\[detection\] expected forced = 0 to learn from, .* got 1"),
    ],
)
def test_rules_of_training_that_are_not_built(name, option, said):
    """They are read, since they change no detection; losses that ignore them would be wrong without a word."""
    lines = [line for line in CFGS[name] if not line.startswith(option.partition("=")[0])]
    model = models.create(name, 3, lines=[*lines, option])
    model.eval()([torch.rand(3, 64, 64)])
    with pytest.raises(ValueError, match=said):
        model.train()([torch.rand(3, 64, 64)], [targets((3, 3, 20, 30))])


def test_sizes_vary_in_training_alone():
    model = models.create("yolo_v3", 3, lines=V3).train()
    image, box, sides = torch.rand(3, 20, 40), targets((0, 0, 40, 20)), set()
    for seed in range(20):
        random.seed(seed)
        batch, moved = model.transform([image], [box])
        random.seed(seed)
        assert model.transform([image])[0].tensors.shape == batch.tensors.shape  # a resume has the same sizes
        side = batch.tensors.shape[-1]
        assert batch.tensors.shape[2:] == (side, side) and batch.image_sizes == [(side // 2, side)]
        assert moved[0]["boxes"].tolist() == [[0, side / 4, side, side * 3 / 4]]
        sides.add(side)
    assert sides == {64, 96}
    assert model.eval().transform([image])[0].tensors.shape[-1] == 64
    assert scales((416, 416)) == [(side, side) for side in range(320, 609, 32)]  # v2, section 2
    fixed = models.create("yolo_v3", 3, lines=V3, multi_scale=False, size=96).train()
    assert {fixed.transform([image])[0].tensors.shape[-1] for _ in range(9)} == {96}


def test_how_large_photos_are_read():
    """No larger than the network needs: in its own proportions the longer side, stretched both."""
    assert transforms.enough(Letterbox((416, 416), sizes=[(320, 320), (608, 608)]), "none") == (608, 608)
    assert transforms.enough(Letterbox((416, 448), keep_ratio=False), "none") == (448, float("inf"))


def test_heads_of_one_kind(tmp_path):
    mixed = [*V3, "[route]", "layers=5", *V2[V2.index("[region]") - 3 :]]
    with pytest.raises(ValueError, match="expected a detector"):
        YOLO(network(tmp_path, mixed), Settings())


def test_a_checkpoint_opens_no_file(tmp_path):
    model = models.create("yolo_v3", 3, cfg=write(tmp_path / "net.cfg", V3))
    assert "net.cfg" not in str(model.config)
    config = {**model.config, "cfg": str(tmp_path / "not there.cfg")}
    checkpoint = {"boxops": 1, "model": config, "classes": ["a", "b"], "weights": model.state_dict()}
    save(tmp_path / "model.pt", checkpoint)
    loaded, _ = load_model(tmp_path / "model.pt")
    assert loaded.config["lines"] == model.config["lines"]
    save(tmp_path / "model.pt", {**checkpoint, "model": {**config, "lines": ["[net]", "width=/etc/passwd"]}})
    with pytest.raises(ValueError, match="expected options without files and addresses"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["yolo_v1", "yolo_v3"])
def test_the_command(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = write(tmp_path / "net.cfg", CFGS[name])
    train = ["train", name, "--cfg", cfg, *TRAIN, "--out", "run"]
    assert main(train) == 0
    (tmp_path / "net.cfg").unlink()  # the checkpoint has it
    assert main([*train, "--resume", "--epochs", "2"]) == 0
    said = capsys.readouterr().err
    assert "--cfg: not read, since the run goes on from run/last.pt" in said
    assert main(["evaluate", "--checkpoint", "run/last.pt", *SHAPES, "--workers", "0"]) == 0
    assert main(["detect", "--checkpoint", "run/last.pt", "run/image.jpg", "--out", "found.png"]) == 0


def test_the_command_with_darknet_s_files(tmp_path, capsys, monkeypatch):
    """Without a number of classes the cfg says it; of 20 and 80 the names are known."""
    monkeypatch.chdir(tmp_path)
    lines = [line.replace("classes=2", "classes=20").replace("filters=14", "filters=50") for line in V3]
    model = models.create("yolo_v3", cfg=write(tmp_path / "net.cfg", lines))
    file = random_weights(model.network, tmp_path)
    start = ["--cfg", "net.cfg", "--weights", str(file), "--fine-tune"]
    assert main(["train", "yolo_v3", *start, *TRAIN, "--out", "run", "--eval-split", "none", "--steps", "1"]) == 0
    common = ["--model", "yolo_v3", "--cfg", "net.cfg", "--weights", str(file)]
    assert main(["detect", *common, "run/last.pt", "--out", "a.png"]) == 2  # no image
    image = write_image(tmp_path / "image.png")
    capsys.readouterr()
    assert main(["detect", *common, image, "--out", "a.png", "--threshold", "0"]) == 0
    assert re.search(r"image.png: (aeroplane|tvmonitor|\w+) \d\.\d\d", capsys.readouterr().out)
    for words, said in [
        ([*common[:3], "nix.cfg", *common[4:]], "nix.cfg"),
        (["--model", "ssd", *common[2:]], "--cfg: expected a model that is built from one, as yolo_v3, got ssd300"),
        (["--checkpoint", "run/last.pt", "--cfg", "net.cfg"], "--cfg: expected it with --model, got --checkpoint"),
        (["--compare", "run/last.pt", "--cfg", "net.cfg"], "--cfg: expected it without --compare"),
    ]:
        assert main(["detect", image, "--out", "b.png", *words]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1, told
    assert main(["detect", image, "--out", "net.cfg", *common]) == 2  # never over what is read
    assert main(["train", "ssd", "--cfg", "net.cfg", "--out", "other", *TRAIN]) == 2
    assert "--cfg: expected a model that is built from one" in capsys.readouterr().err


def write_image(path):
    from PIL import Image

    Image.new("RGB", (70, 50), "gray").save(path)
    return str(path)
