"""darknet's networks and YOLO's inference: against darknet's recorded output, OpenCV 4's dnn, and slow NumPy."""

import darknet_oracle
import darknet_slow as slow
import numpy as np
import pytest
from data_files import DATA, needs_data
from scenes import torch
from torchvision.transforms.v2.functional import pil_to_tensor

import boxops
from boxops.data.images import read_image
from boxops.data.yolo_files import read_names
from boxops.models.darknet import Darknet
from boxops.models.darknet_files import Header, write_weights
from boxops.models.yolo import YOLO, Letterbox, Settings, darknet_yolo

FILES = DATA / "darknet"
VERSION = Header()
NET = "[net]\nchannels={}\nheight={}\nwidth={}\n"
COUNTS = {"yolov2-tiny": 11_237_145, "yolov3-tiny": 8_858_734, "yolov1": 197_328_243, "yolov1-tiny": 27_099_950,
          "yolov2": 50_983_561, "yolov2-voc": 50_676_061, "yolov3": 62_001_757, "yolov3-spp": 63_052_381}  # fmt: skip


def network(tmp_path, layers, shape=(3, 8, 8)):
    (tmp_path / "net.cfg").write_text(NET.format(*shape) + layers)
    return Darknet(tmp_path / "net.cfg")


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(net, x):
    with torch.inference_mode():
        return net.eval()(torch.from_numpy(x)[None])[0][0].numpy()


def fill(net, tmp_path, seed=0, header=VERSION):
    """Random numbers through a file; variances are positive."""
    parts = []
    for layer in net.layers:
        for tensor in layer.stored(header.transposed):
            values = random(*tensor.shape, seed=seed + len(parts)) / max(tensor[0].numel(), 1) ** 0.5
            positive = getattr(layer, "norm", None) is not None and tensor is layer.norm.running_var
            parts.append(abs(values) + 0.5 if positive else values)
    write_weights(tmp_path / "net.weights", header, parts)
    net.load(tmp_path / "net.weights")
    return parts


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_every_cfg_builds(name):
    with torch.device("meta"):
        net = Darknet(FILES / f"{name}.cfg")
        detector = YOLO(net)
        outputs = net.eval()(torch.empty(1, *net.shape))
    assert sum(tensor.numel() for layer in net.layers for tensor in layer.stored()) == COUNTS[name]
    assert [tuple(out.shape[1:]) for out in outputs] == [net.layers[i].shape for i in net.heads]
    assert detector.config["num_classes"] == (21 if name in ("yolov1", "yolov1-tiny", "yolov2-voc") else 81)


def oracle(name, tmp_path):
    if name != "odd":
        if not DATA.is_dir():
            pytest.skip("BOXOPS_TEST_DATA is not set")
        return darknet_yolo(FILES / f"{name}.cfg", FILES / f"{name}.weights")
    darknet_oracle.write_odd(tmp_path / "odd.weights")
    return darknet_yolo(darknet_oracle.HERE / "odd.cfg", tmp_path / "odd.weights")


@pytest.mark.parametrize("folded", [False, True], ids=["", "folded"])
@pytest.mark.parametrize("name", darknet_oracle.NETWORKS)
def test_layers_are_those_of_opencv(name, folded, tmp_path):
    model = oracle(name, tmp_path)
    net, known, outputs = model.network, np.load(darknet_oracle.FILE), {}
    if folded:
        net.fold()
    for i, layer in enumerate(net.layers):
        layer.register_forward_hook(lambda _, __, out, i=i: outputs.update({i: out.numpy().copy()}))
    height, width = net.shape[1:]
    with torch.inference_mode():
        net(torch.from_numpy(darknet_oracle.image(height, width)))
        for head, i in zip(model.heads, net.heads, strict=True):
            raw = torch.from_numpy(outputs[i])
            rows = head.rows(raw)
            boxes = boxops.box_convert(head.boxes(rows, head.grid(raw), (height, width)), "xyxy", "cxcywh")
            boxes = boxes / torch.tensor([width, height, width, height])
            outputs[i] = torch.cat([boxes, rows[..., 4:5].sigmoid(), head.scores(rows)], dim=2).numpy()
    assert len(outputs) == len(net.layers) == sum(key.startswith(f"{name}/") for key in known) // 2
    for i, out in outputs.items():
        expected, own = known[f"{name}/{i}"], out.flatten()[darknet_oracle.places(out.size)]
        if i in net.heads:  # OpenCV suppresses here, and writes 0
            own = own * (expected != 0)
        else:
            np.testing.assert_allclose(abs(out).mean(dtype=np.float64), known[f"{name}/{i}/mean"], rtol=1e-3)
        np.testing.assert_allclose(own, expected, atol=1e-3, rtol=1e-3)


def test_every_weight_learns(tmp_path):
    """In training: gradients through all layers, and batch norm's statistics move."""
    model = oracle("odd", tmp_path).train()
    before = model.network.layers[0].norm.running_mean.clone()
    raw = model.network(torch.from_numpy(darknet_oracle.image(40, 48)).expand(2, -1, -1, -1))[0]
    model.heads[0].scores(model.heads[0].rows(raw)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert not torch.equal(model.network.layers[0].norm.running_mean, before)


RECORDED = {  # of the test data's README
    "yolov2-tiny": [("dog", 82), ("car", 74), ("bicycle", 59)],
    "yolov3-tiny": [("car", 62), ("bicycle", 59), ("dog", 57), ("truck", 56), ("car", 52)],
}


@needs_data
@pytest.mark.parametrize("name", RECORDED)
def test_detections_are_those_of_darknet(name):
    image = pil_to_tensor(read_image(FILES / "dog.jpg")) / 255
    model = darknet_yolo(FILES / f"{name}.cfg", FILES / f"{name}.weights", score_thresh=0.5)
    names = read_names(FILES / "coco.names")
    with torch.inference_mode():
        found = model([image])[0]
    labels = [names[label - 1] for label in found["labels"]]
    assert labels == [label for label, _ in RECORDED[name]]
    np.testing.assert_allclose(found["scores"] * 100, [percent for _, percent in RECORDED[name]], atol=2)
    dog = found["boxes"][labels.index("dog")]
    assert boxops.box_iou(dog[None], torch.tensor([[128.0, 220, 310, 540]])) > 0.6  # where the dog is


@needs_data
def test_average_precision_on_some_images_of_coco():
    pytest.importorskip("faster_coco_eval", exc_type=ImportError)
    from boxops.data import open_dataset, transforms
    from boxops.evaluation import by_name, evaluate

    data, names = open_dataset("coco", DATA / "coco", transform=transforms.evaluate()), read_names(FILES / "coco.names")
    assert {"tvmonitor", "motorbike", "sofa"} < {*names} - {*data.classes}  # but in COCO's order
    assert by_name(names, data) == dict(enumerate(data.category_ids, 1))
    model = darknet_yolo(FILES / "yolov3-tiny.cfg", FILES / "yolov3-tiny.weights")
    model.network.fold()
    found = evaluate(model, data, labels=names, iou_types=["bbox"])
    assert found["box_AP"] == pytest.approx(0.220, abs=0.004) and found["box_AP50"] == pytest.approx(0.420, abs=0.006)


# One layer beside its loops in NumPy


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("shape", "stride"), [((4, 6, 4), 2), ((8, 4, 8), 2), ((18, 6, 9), 3), ((5, 3, 4), 1)])
def test_reorg(tmp_path, shape, stride, reverse):
    net, x = network(tmp_path, f"[reorg]\nstride={stride}\nreverse={reverse:d}\n", shape), random(*shape)
    np.testing.assert_array_equal(run(net, x), slow.reorg(x, stride, reverse))
    assert run(net, x).shape == net.layers[0].shape


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [5, 8])
def test_maxpool(tmp_path, size, stride, side):
    x = random(2, side, side + 1) - 3  # below 0: a padding with zeros would show
    for padding in {None, 0, 1, 2 * size - 2}:
        if padding is not None and padding > 2 * size - 2:
            continue
        said = "" if padding is None else f"padding={padding}\n"
        net = network(tmp_path, f"[maxpool]\nsize={size}\nstride={stride}\n{said}", x.shape)
        expected = slow.maxpool(x, size, stride, size - 1 if padding is None else padding)
        np.testing.assert_array_equal(run(net, x), expected)
        assert net.layers[0].shape == expected.shape


@pytest.mark.parametrize(("size", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (3, 2, 0), (2, 1, 0), (5, 1, 1), (1, 1, 0)])
def test_local(tmp_path, size, stride, pad):
    cfg = f"[local]\nfilters=3\nsize={size}\nstride={stride}\npad={pad}\nactivation=linear\n"
    net, x = network(tmp_path, cfg, (2, 5, 6)), random(2, 5, 6)
    biases, weights = fill(net, tmp_path)
    np.testing.assert_allclose(run(net, x), slow.local(x, weights, biases, 3, size, stride, pad), rtol=1e-5, atol=1e-5)


def test_route_takes_a_group_of_each_layer(tmp_path):
    cfg = "[reorg]\n[upsample]\nstride=1\nscale=2\n[route]\nlayers=-1, 0\ngroups=2\ngroup_id=1\n"
    net, x = network(tmp_path, cfg, (4, 3, 3)), random(4, 3, 3)
    np.testing.assert_array_equal(run(net, x), slow.route([2 * x, x], 2, 1))


@pytest.mark.parametrize("layer", ["[crop]\ncrop_height=4\ncrop_width=4\nnoadjust=1\n", "[upsample]\nstride=2\n",
                                   "[reorg]\nstride=2\n", "[dropout]\n"])  # fmt: skip
def test_shortcut_of_other_shapes(tmp_path, layer):
    x = random(8, 8, 8)
    before = run(network(tmp_path, layer, x.shape), x)
    net = network(tmp_path, f"[reorg]\n{layer}[shortcut]\nfrom=0\nactivation=leaky\n", x.shape)
    expected = slow.shortcut(before, x)
    np.testing.assert_allclose(run(net, x), np.where(expected > 0, expected, 0.1 * expected), rtol=1e-6)


@pytest.mark.parametrize("header", [VERSION, Header(*np.frombuffer(np.float32([0.001, 0.9, 0.0005]), "<i4").tolist())])
def test_connected(tmp_path, header):
    cfg = "[connected]\noutput=5\nbatch_normalize=1\nactivation=logistic\n"
    net, x = network(tmp_path, cfg, (2, 3, 4)), random(2, 3, 4)
    bias, weights, scales, mean, variance = fill(net, tmp_path, header=header)
    assert weights.shape == ((24, 5) if header.transposed else (5, 24))
    out = (weights.T if header.transposed else weights) @ x.reshape(-1)
    out = (out - mean) / (variance**0.5 + 1e-6) * scales + bias
    np.testing.assert_allclose(run(net, x).ravel(), 1 / (1 + np.exp(-out)), rtol=1e-5)
    np.testing.assert_allclose(run(net.fold(), x).ravel(), 1 / (1 + np.exp(-out)), rtol=1e-5)


def test_the_layers_of_a_classifier(tmp_path):
    cfg = "[crop]\ncrop_height=5\ncrop_width=4\n[dropout]\n[avgpool]\n[softmax]\ngroups=2\ntemperature=3\n[cost]\n"
    net, x = network(tmp_path, cfg, (4, 8, 8)), random(4, 8, 8)
    means = (2 * x[:, 1:6, 2:6] - 1).mean(axis=(1, 2)).reshape(2, 2) / 3
    expected = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(net, x).ravel(), expected.ravel(), rtol=1e-5)


# Images in, boxes out


@pytest.mark.parametrize("original", [(57, 76), (76, 57), (32, 48), (33, 20), (1, 9), (20, 1), (3, 100)])
def test_letterbox(original):
    image = np.random.default_rng(0).random((3, *original), np.float32)
    batch, targets = Letterbox((32, 48))(
        [torch.from_numpy(image)], [{"boxes": torch.tensor([[0.0, 0, *original[::-1]]])}]
    )
    expected, inner = slow.letterbox(image, 32, 48)
    assert batch.image_sizes == [inner]
    np.testing.assert_allclose(batch.tensors[0], expected, atol=1e-5)
    left, top = (48 - inner[1]) // 2, (32 - inner[0]) // 2
    np.testing.assert_allclose(targets[0]["boxes"][0], [left, top, left + inner[1], top + inner[0]], rtol=1e-6)


def test_an_image_too_narrow_for_the_grid_keeps_a_pixel():
    batch, _ = Letterbox((8, 8))([torch.rand(3, 1, 100)])
    assert batch.image_sizes == [(1, 8)]


V1 = """[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[local]
size=3
stride=1
pad=1
filters=3
activation=leaky
[dropout]
[connected]
output={}
activation=linear
[detection]
classes=3
coords=4
side=3
num=2
softmax={}
sqrt={}
"""


@pytest.mark.parametrize(("softmax", "root"), [(0, 1), (1, 0)])
def test_yolo_v1(tmp_path, softmax, root):
    net = network(tmp_path, V1.format(9 * 13, softmax, root), (3, 12, 16))
    fill(net, tmp_path)
    model, images = YOLO(net).eval(), [torch.rand(3, 20, 30), torch.rand(3, 12, 16)]
    with torch.inference_mode():
        batch, _ = model.transform(images)
        boxes, scores = model.predict(batch)
        values = net(batch.tensors)[0].flatten(1).numpy()
    assert batch.image_sizes == [(12, 16)] * 2  # stretched, as darknet's v1
    for b in range(2):
        if softmax:
            classes = np.exp(values[b, :27].reshape(9, 3))
            values[b, :27] = (classes / classes.sum(axis=1, keepdims=True)).ravel()
        if not root:
            sides = values[b, 45:].reshape(18, 4)[:, 2:]
            sides[...] = sides.clip(0)
        expected, likely = slow.detections(values[b], 3, 2, 3, root)
        own = boxops.box_convert(boxes[b], "xyxy", "cxcywh") / torch.tensor([16.0, 12, 16, 12])
        np.testing.assert_allclose(own, expected, atol=1e-5)
        np.testing.assert_allclose(scores[b], likely, atol=1e-6)


def test_yolo_v2(tmp_path):
    anchors = [(0.6, 0.7), (1.9, 2.1)]
    cfg = "[region]\nanchors=0.6,0.7,1.9,2.1\nnum=2\nclasses=3\nsoftmax=1\n"
    net = network(tmp_path, f"[convolutional]\nfilters=16\nsize=4\nstride=4\nactivation=linear\n{cfg}", (3, 10, 16))
    fill(net, tmp_path)
    model = YOLO(net).eval()
    with torch.inference_mode():
        batch, _ = model.transform([torch.rand(3, 10, 16)])
        boxes, scores = model.predict(batch)
        values = net(batch.tensors)[0][0].numpy()
    expected, likely = slow.region(values, anchors, 3)
    own = boxops.box_convert(boxes[0], "xyxy", "cxcywh") / torch.tensor([16.0, 10, 16, 10])
    np.testing.assert_allclose(own, expected, atol=1e-5)
    np.testing.assert_allclose(scores[0], likely, atol=1e-6)


def test_boxes_are_in_each_image_s_own_pixels(tmp_path):
    """A head without weights has boxes in the middles of cells: in the image that is twice as wide, elsewhere."""
    net = network(tmp_path, "[convolutional]\nfilters=6\nsize=4\nstride=4\nactivation=linear\n"
                            "[yolo]\nanchors=4,4\nclasses=1\n", (3, 16, 16))  # fmt: skip
    for layer in net.layers:
        for tensor in layer.stored():
            torch.nn.init.zeros_(tensor)
    model = YOLO(net, Settings(score_thresh=0.2, nms_thresh=1.0)).eval()
    with torch.inference_mode():
        wide, square = model([torch.rand(3, 20, 40), torch.rand(3, 32, 32)])
    cells = np.arange(4)
    corners = np.stack([np.tile(cells * 8, 4), np.repeat(cells * 8, 4)], axis=1)
    np.testing.assert_allclose(square["boxes"], np.concatenate([corners, corners + 8], axis=1), atol=1e-4)
    np.testing.assert_allclose(square["scores"], 0.25)
    assert square["labels"].tolist() == [1] * 16
    # 8 rows of the batch's 16 are the image, from row 4: the first and the last row of cells are grey
    top = (np.repeat(cells * 4, 4) - 4) * 2.5
    left = np.tile(cells * 10, 4)
    expected = np.stack([left, top.clip(0, 20), left + 10, (top + 10).clip(0, 20)], axis=1)
    np.testing.assert_allclose(wide["boxes"], expected, atol=1e-4)


def test_images_have_three_channels_and_the_network_a_head(tmp_path):
    with pytest.raises(ValueError, match=r"net.cfg:5: expected a detector"):
        YOLO(network(tmp_path, "[avgpool]\n"))
