"""darknet's cfg and weights files: what is read, what is written, and what is said of a bad one."""

import re
import struct

import numpy as np
import pytest
from data_files import DATA, needs_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import torch

from boxops.data.yolo_files import read_names
from boxops.models.darknet import Darknet
from boxops.models.darknet_files import Header, read_cfg, read_weights
from boxops.models.yolo import YOLO, darknet_yolo

FILES = DATA / "darknet"
NET = "[net]\nchannels=2\nheight=8\nwidth=8\n"  # 4 lines
CONV = "[convolutional]\nfilters=3\nsize=3\nstride=1\npad=1\nbatch_normalize=1\nactivation=leaky\n"  # 7 lines
HEAD = "[convolutional]\nfilters=12\nactivation=linear\n[yolo]\nclasses=1\nnum=2\nanchors=1,2,3,4\n"
VALUES = 4 * 3 + 54  # of CONV


def cfg(tmp_path, text):
    (tmp_path / "net.cfg").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / "net.cfg"


def weights(tmp_path, values, *version, seen=9, more=b""):
    major, minor, revision = version or (0, 2, 0)
    header = struct.pack("<iiiQ" if Header(major, minor).wide else "<iiiI", major, minor, revision, seen)
    (tmp_path / "net.weights").write_bytes(header + np.arange(values, dtype="<f4").tobytes() + more)
    return tmp_path / "net.weights"


def test_sections_are_a_plain_list(tmp_path):
    text = "\ufeff# a comment\r\n[net]\r\n channels = 3\n;another\n\nheight=4\nwidth = 8\n\n[ route ]\n"
    text += " layers = -1, 2 , 5\n[conv]\n"
    net, route, conv = read_cfg(cfg(tmp_path, text))
    assert net.options == {"channels": "3", "height": "4", "width": "8"}
    assert (route.kind, route.place) == ("route", f"{tmp_path / 'net.cfg'}:9")
    assert route.integers("layers") == [-1, 2, 5]
    assert conv.kind == "convolutional" and conv.integer("filters", 1) == 1


BAD = {
    "no file of text": (b"[net]\n\xff\xfe\n", "net.cfg: expected a cfg, a text"),
    "empty": ("", "net.cfg: expected [net] and layers, got 0 sections"),
    "no layers": (NET, "got 1 sections"),
    "no net": (CONV, "net.cfg:1: expected [net] as the first section"),
    "two nets": (NET + CONV + NET, "net.cfg:12: expected [net] as the first section and only there"),
    "option before a section": ("stride=1\n" + NET, "net.cfg:1: expected [net], got 'stride=1'"),
    "unknown section": (NET + "\n[deformable]\n", "net.cfg:6: expected a section among [net], "),
    "open bracket": (NET + "[convolutional\n", "net.cfg:5: expected a section"),
    "no value": (NET + "[avgpool]\nsize=\n", "net.cfg:6: expected option = value, got 'size='"),
    "no equals sign": (NET + CONV + "stride\n", "net.cfg:12: expected option = value, got 'stride'"),
    "unknown option": (NET + CONV + "dilation=2\n", "net.cfg:12: [convolutional] expected an option among batch_"),
    "an option twice": (
        NET + CONV + "stride = 2\n",
        "net.cfg:8: [convolutional] expected stride once, got it again in",
    ),
    "a text for a number": (
        NET + CONV.replace("=3", "=three"),
        "net.cfg:6: [convolutional] expected filters as an int",
    ),
    "a fraction": (
        NET + CONV.replace("size=3", "size=2.5"),
        "net.cfg:7: [convolutional] expected size as an integer >=",
    ),
    "a huge number": (NET + CONV.replace("=3", "=" + "9" * 5000), "net.cfg:6: [convolutional] expected filters"),
    "no flag": (
        NET + CONV.replace("pad=1", "pad=2"),
        "net.cfg:9: [convolutional] expected pad as an integer of 0 to 1",
    ),
    "activation": (NET + CONV.replace("leaky", "mish"), "net.cfg:11: [convolutional] expected activation among linear"),
    "groups": (NET + CONV + "groups=2\n", "net.cfg:12: [convolutional] expected groups that divide 2 channels and 3"),
    "too large a kernel": (NET + "[convolutional]\nsize=9\n", "net.cfg:5: [convolutional] expected an output of 1"),
    "too many weights": (NET + "[connected]\noutput=2000000000\n", "net.cfg:5: [connected] expected fewer than 2^31 w"),
    "too many local ones": (NET + "[local]\nfilters=33000000\n", "net.cfg:5: [local] expected fewer than 2^31 weights"),
    "too many values": (NET + "[upsample]\nstride=9000\n", "net.cfg:5: [upsample] expected an output of 1 to 2^31"),
    "no width": (NET.replace("width", "#"), "got 1 sections"),
    "no channels": (
        NET.replace("channels=2", "") + CONV,
        "net.cfg:1: [net] expected channels as an integer >= 1, got no",
    ),
    "route to nowhere": (NET + "[route]\n", "net.cfg:5: [route] expected layers of layers, got none"),
    "route ahead": (NET + "[route]\nlayers=0\n", "net.cfg:6: [route] expected layers among the layers before this one"),
    "route too far back": (NET + CONV + "[route]\nlayers=-2\n", "net.cfg:13: [route] expected layers among"),
    "shortcut of two": (NET + CONV * 2 + "[shortcut]\nfrom=0,1\n", "net.cfg:20: [shortcut] expected from of one layer"),
    "route of other sides": (
        NET + CONV + "[maxpool]\nstride=2\n[route]\nlayers=0,1\n",
        "expected layers of one height",
    ),
    "route of odd groups": (NET + CONV + "[route]\nlayers=0\ngroups=2\n", "net.cfg:14: [route] expected groups that"),
    "shortcut of other sides": (
        NET + CONV + "[crop]\ncrop_height=3\ncrop_width=8\n[shortcut]\nfrom=0\n",
        "a layer of 3",
    ),
    "reorg of odd channels": (NET + CONV + "[reorg]\nstride=2\n", "net.cfg:13: [reorg] expected channels that 2^2 div"),
    "local of even size": (NET + "[local]\nsize=2\npad=1\n", "net.cfg:6: [local] expected an odd size with pad, got 2"),
    "a crop too large": (
        NET + "[crop]\ncrop_height=9\n",
        "net.cfg:6: [crop] expected crop_height as an integer of 1 to 8",
    ),
    "a pool of padding": (
        NET + "[maxpool]\nsize=2\npadding=3\n",
        "net.cfg:7: [maxpool] expected padding as an integer of",
    ),
    "probability": (NET + "[dropout]\nprobability=2\n", "net.cfg:6: [dropout] expected probability of 0 to 1, got 2"),
    "softmax": (NET + "[softmax]\ngroups=3\n", "net.cfg:5: [softmax] expected groups that divide 128 values"),
    "a layer behind a head": (
        NET + HEAD + "[avgpool]\n",
        "net.cfg:12: [avgpool] expected to read a layer, got a head, [yo",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_cfg_says_where(tmp_path, name):
    text, message = BAD[name]
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        Darknet(cfg(tmp_path, text))


BAD_HEADS = {
    "channels": ("num=2", "num=2\nmask=0", "net.cfg:8: [yolo] expected 6 before it, 1 boxes of 5 + 1 channels, got 12"),
    "mask": ("num=2", "num=2\nmask=0,2", "net.cfg:11: [yolo] expected mask of 0 to 1, as num says, got [0, 2]"),
    "anchors": ("1,2,3,4", "1,2,3", "net.cfg:11: [yolo] expected anchors as 4 numbers > 0 for num = 2, got [1.0, 2.0,"),
    "an anchor of 0": ("1,2,3,4", "1,2,0,4", "net.cfg:11: [yolo] expected anchors as 4 numbers > 0"),
    "no number": ("1,2,3,4", "1,2,x,4", "net.cfg:11: [yolo] expected anchors as numbers, got '1,2,x,4'"),
    "coords": ("yolo]", "region]\ncoords=5", "net.cfg:9: [region] expected coords = 4, got 5"),
    "v1's cells": (
        "num=2\nanchors=1,2,3,4",
        "side=3\ncoords=4",
        "net.cfg:8: [detection] expected 54 before it, 9 cells",
    ),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_bad_head_says_where(tmp_path, name):
    old, new, message = BAD_HEADS[name]
    text = (NET.replace("2", "3") + HEAD).replace(old, new)
    if name == "v1's cells":
        text = text.replace("yolo", "detection")
    with pytest.raises(ValueError, match=re.escape(message)):
        YOLO(Darknet(cfg(tmp_path, text)))


# weights


@needs_data
@pytest.mark.parametrize("name", ["yolov2-tiny", "yolov3-tiny"])
def test_weights_are_written_as_they_were(tmp_path, name):
    model = darknet_yolo(FILES / f"{name}.cfg", FILES / f"{name}.weights")
    assert model.network.header == Header(0, 2, 0, {"yolov2-tiny": 26316800, "yolov3-tiny": 32013312}[name])
    model.network.save(tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == (FILES / f"{name}.weights").read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.weights"]


FLOATS = struct.unpack("<iii", struct.pack("<fff", 0.001, 0.9, 0.0005))  # as before there were versions


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 0), (0, 2, 5), (1, 0, 0), (2, 0, 0), FLOATS], ids=str)
def test_headers(tmp_path, version):
    net = Darknet(cfg(tmp_path, NET + "[connected]\noutput=3\nbatch_normalize=1\n[local]\n" + CONV))
    count = sum(tensor.numel() for layer in net.layers for tensor in layer.stored())
    seen = 2**31 + 7 if version in ((0, 1, 0), FLOATS) else 2**40 + 7
    file = weights(tmp_path, count, *version, seen=seen)
    net.load(file)
    assert net.header == Header(*version, seen) and net.header.wide == (seen > 2**32)
    matrix = np.arange(3, 3 + 3 * 128).reshape((128, 3) if version == FLOATS else (3, 128))
    np.testing.assert_array_equal(net.layers[0].linear.weight.detach(), matrix.T if version == FLOATS else matrix)
    net.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_every_bit_of_a_number_is_kept(tmp_path):
    net = Darknet(cfg(tmp_path, NET + CONV))
    file = weights(tmp_path, 0, more=struct.pack("<I", 0x7FA12345) * VALUES)  # NaN with a message
    net.load(file)
    net.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_the_order_within_a_layer(tmp_path):
    net = Darknet(cfg(tmp_path, NET + CONV))
    net.load(weights(tmp_path, VALUES))
    layer = net.layers[0]
    for k, tensor in enumerate((layer.norm.bias, layer.norm.weight, layer.norm.running_mean, layer.norm.running_var)):
        assert tensor.tolist() == [3.0 * k, 3.0 * k + 1, 3.0 * k + 2]
    assert layer.linear.weight.flatten().tolist() == list(range(12, VALUES))


def test_a_wrong_weights_file_says_layer_line_and_counts(tmp_path):
    net = Darknet(cfg(tmp_path, NET + CONV + CONV.replace("=3", "=2", 1)))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    second = 4 * 2 + 2 * 27
    place = f"{tmp_path / 'net.cfg'}:12"
    for missing in (1, second - 1, second):
        file = weights(tmp_path, VALUES + second - missing)
        expected = f"{file}: expected {second} values for layer 1 [convolutional] ({place}), found {second - missing}: "
        with pytest.raises(ValueError, match=re.escape(expected + f"the file has {VALUES + second - missing}")):
            net.load(file)
    file = weights(tmp_path, VALUES + second + 5)
    expected = f"{file}: expected {VALUES + second} values for all 2 layers, found {VALUES + second + 5}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        net.load(file)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


FOREIGN = {
    b"": "expected a header of 16 or 20 bytes, got 0 bytes",
    b"\0\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0": "expected a header of 16 or 20 bytes, got 16 bytes",
    b"\0" * 22: "expected numbers of 4 bytes after the header, got 6 bytes",
    b"<!DOCTYPE html><title>Sign in</title>" + b"x" * 99: "got a web page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "got a pointer of Git LFS",
}


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_files(tmp_path, content):
    (tmp_path / "a.weights").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.weights: .*{FOREIGN[content]}"):
        read_weights(tmp_path / "a.weights")


def test_a_checkpoint_of_torch_is_named(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="got a checkpoint of torch"):
        read_weights(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.weights")


def test_the_first_layers_of_another_network(tmp_path):
    """darknet's way to other classes: what comes before the heads is read, the rest begins anew."""
    net = Darknet(cfg(tmp_path, NET + CONV + CONV))
    last = net.layers[1].linear.weight.clone()
    net.load(weights(tmp_path, VALUES + 1000), layers=1)
    assert net.layers[0].linear.weight.flatten()[-1] == VALUES - 1
    assert torch.equal(net.layers[1].linear.weight, last)
    net.load(weights(tmp_path, VALUES), layers=1)  # as darknet's partial leaves them
    with pytest.raises(ValueError, match=r"for layer 1 .*, found 0"):
        net.load(weights(tmp_path, VALUES), layers=2)


def test_folded_weights_are_not_saved(tmp_path):
    net = Darknet(cfg(tmp_path, NET + CONV)).fold()
    with pytest.raises(ValueError, match=r"net.cfg:5: expected weights with their batch norm, got folded ones"):
        net.save(tmp_path / "a.weights")
    assert not (tmp_path / "a.weights").exists()


@needs_data
def test_names(tmp_path):
    names = read_names(FILES / "coco.names")
    assert (len(names), names[0], names[1], names[-1]) == (80, "person", "bicycle", "toothbrush")


# Whatever is cut or changed: the network, or an error with file and place

TEXT = NET.replace("2", "3") + CONV + "[reorg]\nstride=1\n[maxpool]\nsize=2\nstride=1\n[route]\nlayers=-1,0\n" + \
    "[shortcut]\nfrom=-1\nactivation=linear\n[upsample]\n[local]\nfilters=3\n[dropout]\n[crop]\ncrop_height=4\n" + \
    "crop_width=4\n[connected]\noutput=7\n" + HEAD.replace("12", "12\nsize=1")  # fmt: skip


def check(file):
    try:
        with torch.device("meta"):
            YOLO(Darknet(file))
    except ValueError as error:
        assert re.match(rf"{re.escape(str(file))}(:\d+)?: ", str(error)), error


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_cfgs(tmp_path, data):
    lines = TEXT.split("\n")
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(lines) - 1))
        name, _, value = lines[i].partition("=")
        numbers = st.sampled_from(
            ["0", "-1", "1", "2", "3", "7", "1e9", "2147483647", "99999999999", "-5,0", ".5", "nan"]
        )
        lines[i] = data.draw(
            st.sampled_from(["", name, f"{name}={name}", lines[i][::-1], lines[i - 1], f"[{name}]", value])
            | numbers.map(lambda number, name=name: f"{name}={number}")
            | st.text(max_size=9)
        )
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    check(cfg(tmp_path, text[: data.draw(st.integers(0, len(text)) | st.just(len(text)))]))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 20 + 4 * VALUES), at=st.integers(0, 30), byte=st.integers(0, 255))
def test_mutated_weights(tmp_path, cut, at, byte):
    net = Darknet(cfg(tmp_path, NET + CONV))
    content = bytearray(weights(tmp_path, VALUES).read_bytes())
    content[at] = byte
    (tmp_path / "a.weights").write_bytes(content[:cut])
    try:
        net.load(tmp_path / "a.weights")
    except ValueError as error:
        assert str(error).startswith(f"{tmp_path / 'a.weights'}: expected ")
        return
    net.save(tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == content[:cut]
