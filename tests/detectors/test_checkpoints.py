"""Weights from files and URLs, and what is said of those that do not fit."""

import hashlib

import pytest
from scenes import torch, torchvision

from boxops import models


class Tiny(torch.nn.Module):
    legacy_names = ((r"^old\.", "new."),)

    def __init__(self, classes=3):
        super().__init__()
        self.new = torch.nn.Linear(2, 4)
        self.head = torch.nn.Linear(4, classes)


def state():
    torch.manual_seed(1)
    return Tiny().state_dict()


def test_files_and_urls(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    file = tmp_path / "tiny.pth"
    torch.save(state(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    hashed = file.rename(tmp_path / f"tiny-{digest}.pth")
    wrong = tmp_path / "tiny-0123abcd.pth"
    wrong.write_bytes(hashed.read_bytes())
    for source in (hashed, str(hashed), hashed.as_uri()):
        model = Tiny()
        models.load_weights(model, source)
        torch.testing.assert_close(model.head.weight, state()["head.weight"], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r'invalid hash value .expected "0123abcd"'):
        models.read(wrong.as_uri())


def test_where_the_weights_lie():
    for wrapped in (
        state(),
        {"weights": state(), "boxops": 1},
        {"model": state(), "epoch": 3},
        {"state_dict": state()},
    ):
        torch.testing.assert_close(models.checkpoint.state_of(wrapped, "x")["head.bias"], state()["head.bias"])
    with pytest.raises(ValueError, match="x: expected a dict of weights, got the keys epoch"):
        models.checkpoint.state_of({"epoch": 3}, "x")


def changed(key, value):
    return {**{k: v for k, v in state().items() if k != key}, **({} if value is None else {key: value})}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (changed("head.bias", None), "1 missing: head.bias"),
        (changed("other", torch.zeros(1)), "1 left over: other"),
        (changed("head.bias", torch.zeros(7)), r"1 of another shape: head.bias \[7\] for \[3\]"),
        ({"a": torch.zeros(1)}, "4 missing: new.weight, new.bias, head.weight, head.bias; 1 left over: a"),
    ],
)
def test_weights_that_do_not_fit(given, words):
    model = Tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"weights: expected the weights of Tiny, got {words}"):
        models.load_weights(model, given)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_legacy_names_and_fine_tuning():
    renamed = {key.replace("new.", "old."): value for key, value in state().items()}
    model = Tiny(classes=7)
    with pytest.raises(ValueError, match="2 of another shape"):
        models.load_weights(model, renamed)
    bias = model.head.bias.clone()
    models.load_weights(model, renamed, fine_tune=True)
    assert torch.equal(model.new.weight, state()["new.weight"])
    assert torch.equal(model.head.bias, bias)
    with pytest.raises(ValueError, match=r"2 missing: new\.weight, new\.bias"):
        models.load_weights(model, {k: v for k, v in state().items() if "head" in k}, fine_tune=True)


def test_legacy_names_of_faster_rcnn():
    """torchvision's first files: one convolution of the proposal head, and FPN blocks without a Sequential."""
    model = models.create("faster_rcnn", 5)
    old = {
        key.replace("rpn.head.conv.0.0.", "rpn.head.conv.").replace("_blocks.0.0.", "_blocks.0."): value
        for key, value in model.state_dict().items()
    }
    assert old.keys() - model.state_dict().keys() >= {"rpn.head.conv.weight", "backbone.fpn.inner_blocks.0.weight"}
    models.load_weights(models.create("faster_rcnn", 5), old)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_corrupt_and_foreign_files(tmp_path, capsys):
    whole = tmp_path / "whole.pth"
    torch.save(state(), whole)
    cases = {
        "truncated.pth": whole.read_bytes()[:-100],
        "text.pth": b"hello, this is no checkpoint",
        "empty.pth": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: expected a checkpoint of tensors and plain values, got: "):
            models.read(tmp_path / name)
    torch.save({"weights": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth: expected a checkpoint of tensors and plain values"):
        models.read(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: expected a dict of weights, got list"):
        models.read(tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError):
        models.read(tmp_path / "absent.pth")


def test_imagenet_weights(data):
    """The backbone's file is torchvision's, whole and unchanged."""
    file = data / "backbones" / "mobilenet_v2-b0353104.pth"
    model = models.create("ssd", 5, backbone_weights=file)
    network = torchvision.models.mobilenet_v2(weights=None)
    network.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(model.backbone.features[3].conv[0][0].weight, network.features[3].conv[0][0].weight)
    assert model.config["norm"] == "frozen"
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen
    assert all(name.startswith(("backbone.features.0.", "backbone.features.1.")) for name in frozen)
    with pytest.raises(ValueError, match="expected the weights of ResNet, got"):
        models.create("faster_rcnn_resnet50_fpn", 5, backbone_weights=file)
