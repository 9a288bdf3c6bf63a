"""YOLO as it is used: as one graph, and folded for inference, with the detections of the network as it learnt."""

import io

import pytest
from scenes import torch
from test_darknet import V1

from boxops import models
from boxops.cli.models import open_checkpoint

NET = "[net]\nchannels=3\nheight=32\nwidth=48\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride=4\npad=1\nactivation={}\n"
HEADS = {
    "v1": NET + V1.format(9 * 13, 0, 1),
    "v2": NET + CONV.format(16, "leaky") + CONV.format(16, "linear") +
    "[region]\nanchors=0.6,0.7,1.9,2.1\nnum=2\nclasses=3\nsoftmax=1\n",
    "v3": NET + CONV.format(16, "leaky") + CONV.format(16, "linear") + "[yolo]\nanchors=9,7,20,30\nnum=2\nclasses=3\n",
}  # fmt: skip


def build(name, tmp_path):
    """With weights, and statistics of batch norm, that give each image many detections."""
    (tmp_path / "net.cfg").write_text(HEADS[name])
    torch.manual_seed(0)
    model = models.darknet_yolo(tmp_path / "net.cfg", score_thresh=0.2, detections_per_img=20)
    with torch.no_grad():
        for layer in model.network.layers:
            if getattr(layer, "norm", None) is not None:
                for tensor, low, high in zip(layer.stored(), (-1, 1, -1, 0.5), (1, 3, 1, 2), strict=False):
                    tensor.uniform_(low, high)
            elif hasattr(layer, "linear"):
                layer.linear.weight.normal_(std=0.05)
    return model, torch.rand(2, 3, 50, 90)


@pytest.mark.parametrize("name", HEADS)
def test_padded_detections_are_the_models(name, tmp_path):
    model, images = build(name, tmp_path)
    with torch.inference_mode():
        expected, found = model(list(images)), models.Padded(model)(images)
    assert found["counts"].tolist() == [len(result["boxes"]) for result in expected]
    for b, result in enumerate(expected):
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(found[key][b, : len(result[key])], result[key])
    assert all(len(result["boxes"]) > 3 for result in expected)
    assert all(result["boxes"][:, 2].max() > 60 for result in expected)  # in pixels of the images


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1", "v3"])
def test_one_graph_compiles_and_is_exported_and_loaded_again(name, tmp_path):
    model, images = build(name, tmp_path)
    with torch.no_grad():
        padded = models.Padded(model)
        expected = padded(images)
        graph = torch.compile(padded, backend="eager", fullgraph=True)
        torch.testing.assert_close(graph(images), expected, rtol=0, atol=0)
        file = io.BytesIO()
        torch.export.save(torch.export.export(padded, (images,)), file)
        file.seek(0)
        torch.testing.assert_close(torch.export.load(file).module()(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("least", [0.0, 0.2, 0.999])
def test_boxes_of_nothing_are_left_out_and_no_others(name, least, tmp_path):
    model, images = build(name, tmp_path)
    with torch.inference_mode():
        maps = model.network(model.batch(images).tensors)
        (boxes, scores), (few, theirs) = model.decode(maps, (32, 48)), model.decode(maps, (32, 48), least)
    above = (scores > least).any(dim=2)
    assert above.any() == (theirs > least).any() and (name == "v1" or least == 0 or few.shape[1] < boxes.shape[1])
    for b in range(2):
        kept = (theirs[b] > least).any(dim=1)
        torch.testing.assert_close(few[b][kept], boxes[b][above[b]], rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(theirs[b][kept], scores[b][above[b]], rtol=1e-6, atol=1e-7)  # torch's last digit


@pytest.mark.parametrize("name", HEADS)
def test_folded_the_detections_are_the_same(name, tmp_path):
    model, images = build(name, tmp_path)
    with torch.inference_mode():
        before, after = model(list(images)), model.train().fold()(list(images))
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    for expected, found in zip(before, after, strict=True):
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-4)


def test_detect_and_evaluate_fold(monkeypatch, tmp_path):
    model, _ = build("v3", tmp_path)
    monkeypatch.setattr("boxops.training.load_model", lambda *_: (model, {"classes": []}))
    found, _, _ = open_checkpoint("last.pt", "cpu")
    assert all(layer.norm is None for layer in found.network.layers if hasattr(layer, "norm"))
    assert found.network.layers[0].linear.weight.is_contiguous(memory_format=torch.channels_last)
