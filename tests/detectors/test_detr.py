"""DETR against the published model and losses, written once more in detr_slow.py: same weights, same numbers."""

from dataclasses import replace

import pytest
from detr_slow import PublishedDETR, criterion, positions
from scenes import losses_and_gradients, scene, torch, torchvision

import boxops
from boxops import models
from boxops.models import transformer
from boxops.models.backbones import OneLevel
from boxops.models.detr import DETR, Settings

pytest.importorskip("scipy")
QUERIES, LAYERS, CLASSES = 12, 2, 5
NUMBERS = {"num_queries": QUERIES, "enc_layers": LAYERS, "dec_layers": LAYERS, "hidden_dim": 32, "nheads": 4}


def body():
    """Cells of 16 pixels."""
    conv = torch.nn.Conv2d
    return torch.nn.Sequential(conv(3, 8, 4, 4), torch.nn.ReLU(), conv(8, 24, 4, 4, padding=1), torch.nn.Tanh())


@pytest.fixture(scope="module")
def pair():
    """Ours, and the published one, whose state dict ours has loaded as it is."""
    pytest.importorskip("scipy")
    torch.manual_seed(0)
    theirs = PublishedDETR(body(), 24, CLASSES, QUERIES, LAYERS, width=32, heads=4, hidden=48)
    for name, parameter in theirs.named_parameters():  # biases too, and queries that differ
        if parameter.ndim > 1:
            std = 2.0 if name == "query_embed.weight" else 1.5 / parameter[0].numel() ** 0.5
            torch.nn.init.normal_(parameter, std=std)
        elif "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ours = DETR(
        OneLevel(body(), 24),
        CLASSES,
        Settings(**NUMBERS, dim_feedforward=48, dropout=0.0, min_size=100, max_size=128),
    )
    models.load_weights(ours, theirs.state_dict())
    return ours, theirs


def normalised(model, images, targets):
    """What the published code gets: each image by itself, boxes in its shares."""
    batch, resized = model.transform(images, targets)
    apart = [batch.tensors[b, :, :h, :w] for b, (h, w) in enumerate(batch.image_sizes)]
    shares = []
    for target, (height, width) in zip(resized or [], batch.image_sizes, strict=bool(resized)):
        boxes = torchvision.ops.box_convert(target["boxes"], "xyxy", "cxcywh")
        shares.append({**target, "boxes": boxes / torch.tensor([width, height, width, height])})
    return batch, apart, shares


def test_outputs_of_every_layer(pair):
    """Of images of three sizes: what is padded must not be read."""
    ours, theirs = pair
    batch, apart, _ = normalised(ours.eval(), *scene())
    assert len({*batch.image_sizes}) == 3
    with torch.no_grad():
        logits, boxes = ours.predict(batch)
        for layer, (their_logits, their_boxes) in enumerate(theirs(apart)):
            torch.testing.assert_close(logits[layer], their_logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(boxes[layer], their_boxes, rtol=1e-4, atol=1e-4)
    assert logits.std(dim=2).min() > 0.01  # the queries differ


@pytest.mark.parametrize("having", [(0, 2), (0,), ()])
def test_losses_and_gradients(pair, having):
    """Of every layer; an image without objects, and a batch of such."""
    ours, theirs = pair
    images, targets = scene()
    targets = [target if b in having else targets[1] for b, target in enumerate(targets)]
    losses, gradients = losses_and_gradients(ours, images, targets)
    _, apart, shares = normalised(ours, images, targets)
    theirs.zero_grad()
    expected = criterion(theirs(apart), shares, ours.settings.eos_coef)
    assert all((loss > 0) == (bool(having) or "_ce" in name) for name, loss in losses.items())
    assert_same(losses, gradients, theirs, expected)


def assert_same(losses, gradients, theirs, expected):
    """As the losses expected, and their gradients in the published model."""
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    sum(expected.values()).backward()
    for name, parameter in theirs.named_parameters():
        gradient = gradients[name.replace("backbone.0.", "backbone.")]
        wanted = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_detections(pair):
    """Each query is a detection: its best class of 1 to C - 1, its box within the image, the surest first."""
    ours, theirs = pair
    images, _ = scene()
    _, apart, _ = normalised(ours.eval(), images, None)
    with torch.no_grad():
        results, (logits, boxes) = ours(images), theirs(apart)[-1]
    for b, (image, result) in enumerate(zip(images, results, strict=True)):
        height, width = image.shape[1:]
        scores, labels = logits[b].softmax(-1)[:, 1:CLASSES].max(-1)
        scores, order = scores.sort(descending=True)
        found = torchvision.ops.box_convert(boxes[b], "cxcywh", "xyxy") * torch.tensor([width, height] * 2)
        found = torchvision.ops.clip_boxes_to_image(found, (height, width))
        torch.testing.assert_close(result["scores"], scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(result["boxes"], found[order], rtol=1e-4, atol=1e-2)
        assert torch.equal(result["labels"], labels[order] + 1)


def test_an_image_alone_and_in_a_batch(pair):
    """Of the same size in the batch there is no mask; beside a larger one there is."""
    ours, _ = pair
    small, large = torch.rand(3, 64, 128), torch.rand(3, 128, 128)
    with torch.inference_mode():
        alone, beside = ours.eval()([small])[0], ours([small, large])[0]
    for name, values in alone.items():
        torch.testing.assert_close(beside[name], values, rtol=1e-4, atol=1e-3)


def test_positions_and_padding():
    sizes, batch, grid = [(50, 97), (100, 33), (100, 97)], (100, 97), (4, 5)
    padding = transformer.padding_mask(sizes, batch, grid)
    mask = torch.ones(3, *batch)
    for b, (height, width) in enumerate(sizes):
        mask[b, :height, :width] = 0
    assert torch.equal(padding, torch.nn.functional.interpolate(mask[None], size=grid)[0].bool())
    assert padding.any()
    found = transformer.sine_positions(padding, 16)
    torch.testing.assert_close(found.permute(0, 3, 1, 2), positions(padding, 16), rtol=1e-4, atol=1e-4)


def test_the_matching_is_one_call(pair, monkeypatch):
    """Of all layers and images, and no cost between two images."""
    calls, solve = [], boxops.linear_sum_assignment

    def solved(cost, **offsets):
        calls.append([*cost.shape])
        return solve(cost, **offsets)

    monkeypatch.setattr(boxops, "linear_sum_assignment", solved)
    images, targets = scene()
    pair[0].train()(images, targets)
    assert calls == [[LAYERS * 8, QUERIES]]


def test_more_objects_than_queries(pair):
    images, targets = scene(most=QUERIES + 1)
    with pytest.raises(
        ValueError, match="num_queries: expected 13 or more, a query for each object of image 0, got 12"
    ):
        pair[0].train()(images, targets)
    full = scene(most=QUERIES)
    assert all(loss.isfinite() for loss in pair[0](*full).values())


def test_costs_that_are_not_finite(pair):
    """The error names the query, the image and the layer."""
    _, targets = scene()
    model = pair[0].train()
    truth = models.common.GroundTruth.of(targets)
    torch.manual_seed(0)
    logits, boxes = torch.rand(LAYERS, 3, QUERIES, CLASSES + 1), torch.rand(LAYERS, 3, QUERIES, 4)
    wanted = torch.rand(len(truth.boxes), 4)
    assert (model.match(logits, boxes, truth, wanted) >= 0).all()
    boxes[0, 1] = torch.nan  # that image has no objects
    model.match(logits, boxes, truth, wanted)
    boxes[1, 2, 7, 3] = torch.nan
    with pytest.raises(
        ValueError, match=r"cost of nan and the box \[0\..*, nan\] of query 7 of image 2 after layer 1$"
    ):
        model.match(logits, boxes, truth, wanted)


SPOILS = {  # what of the outputs [L, B, Q, ...], and by which number; image 1 has no objects
    "logits of image 2": ("class_embed", (slice(None), 2), torch.nan),
    "one logit": ("class_embed", (slice(None), 0, 3, 1), torch.inf),
    "logits without objects": ("class_embed", (slice(None), 1), torch.nan),
    "one box after one layer": ("bbox_embed", (slice(1), 2, 7), torch.nan),
}


def spoilt(model, head, place, value):
    """The losses and gradients of the scene where some of a head's outputs are such numbers."""

    def spoil(module, inputs, out):
        mask = torch.zeros_like(out, dtype=torch.bool)
        mask[place] = True
        return out.masked_fill(mask, value)

    hook = getattr(model, head).register_forward_hook(spoil)
    try:
        return losses_and_gradients(model, *scene())
    finally:
        hook.remove()


def surviving(ours):
    model = DETR(ours.backbone, CLASSES, replace(ours.settings, on_invalid="unmatched"))
    model.load_state_dict(ours.state_dict())
    return model


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_bad_image_teaches_nothing(pair, spoil):
    """Losses and gradients are those of the other images."""
    ours, theirs = surviving(pair[0]), pair[1]
    losses, gradients = spoilt(ours, *spoil)
    _, apart, shares = normalised(ours, *scene())
    theirs.zero_grad()
    outputs, (layers, bad) = theirs(apart), spoil[1][:2]
    expected = {}
    for layer, suffix in enumerate(("_0", "")):
        used = [b for b in range(3) if b != bad or layer not in range(LAYERS)[layers]]
        each = criterion([[part[used] for part in outputs[layer]]], [shares[b] for b in used], ours.settings.eos_coef)
        expected |= {name + suffix: loss for name, loss in each.items()}
    assert_same(losses, gradients, theirs, expected)


def test_a_batch_of_bad_images_has_no_loss(pair):
    """So that a trainer hears of it when a run has diverged."""
    losses, _ = spoilt(surviving(pair[0]), "class_embed", (...,), torch.nan)
    assert all(loss.isnan() == ("_ce" in name) for name, loss in losses.items())


def test_a_bad_image_by_default(pair, monkeypatch):
    """An error on a CPU; on CUDA, whose operator leaves its objects without a query, NaN."""
    for name, image, query in (("logits of image 2", 2, 0), ("one logit", 0, 3), ("one box after one layer", 2, 7)):
        with pytest.raises(ValueError, match=f"cost of nan .* of query {query} of image {image} after layer 0$"):
            spoilt(pair[0], *SPOILS[name])
    solve = boxops.linear_sum_assignment
    as_on_cuda = {"on_invalid": "unmatched"}
    monkeypatch.setattr(boxops, "linear_sum_assignment", lambda cost, **more: solve(cost, **more | as_on_cuda))
    losses, _ = spoilt(pair[0], *SPOILS["one box after one layer"])
    assert {name for name, loss in losses.items() if loss.isnan()} == {"loss_bbox_0", "loss_giou_0"}


NAMES = {"detr_resnet50": 41_524_768, "detr_resnet50_dc5": 41_524_768, "detr_resnet101": 60_464_672,
         "detr_resnet101_dc5": 60_464_672}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_builders(name):
    """facebookresearch/detr's names and number of weights, of COCO's 91 ids and "no object"."""
    with torch.device("meta"):
        model = models.create(name, norm="frozen", freeze=5)
    state = model.state_dict()
    assert state["class_embed.weight"].shape == (92, 256)
    assert state["query_embed.weight"].shape == (100, 256)
    assert [len(model.transformer.encoder.layers), len(model.transformer.decoder.layers)] == [6, 6]
    assert {"backbone.body.layer4.2.bn3.running_var", "input_proj.bias", "bbox_embed.layers.2.bias",
            "transformer.encoder.layers.5.self_attn.in_proj_weight", "transformer.decoder.norm.weight",
            "transformer.decoder.layers.5.multihead_attn.out_proj.bias"} <= state.keys()  # fmt: skip
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {n.split(".")[2] for n in frozen} == {"conv1", "layer1"}
    assert sum(parameter.numel() for parameter in model.parameters()) == NAMES[name]
    cells = model.backbone(torch.empty(1, 3, 64, 96, device="meta"))["0"]
    assert cells.shape == ((1, 2048, 4, 6) if "dc5" in name else (1, 2048, 2, 3))
    assert models.MODELS[name].training["weight_decay"] == 1e-4


def test_bad_numbers():
    for settings, words in (
        ({"hidden_dim": 30}, "hidden_dim: expected a multiple of 4 and of nheads, 8, got 30"),
        ({"num_queries": 0}, "num_queries: expected 1 or more, got 0"),
        ({"dec_layers": 0}, "dec_layers: expected 1 or more, got 0"),
        ({"on_invalid": "skip"}, "on_invalid: expected raise or unmatched, got 'skip'"),
    ):
        with torch.device("meta"), pytest.raises(ValueError, match=words):
            models.create("detr", 3, **settings)


def test_losses_of_facebookresearch_itself():
    """Where PyPI's `detr` is installed, which takes the names models, util and datasets."""
    twins = pytest.importorskip("boxops.benchmarks.detr", exc_type=ImportError)
    if twins.official() is None:
        pytest.skip("facebookresearch/detr is not installed")
    torch.manual_seed(0)
    ours = models.create("detr_resnet50", **{**twins.OPTIONS, "min_size": 96})
    images, targets = scene()
    twins.compare(ours, twins.twin(ours), images, targets)
