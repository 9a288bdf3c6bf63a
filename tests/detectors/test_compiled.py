"""Whole detectors as one graph: `Padded` gives the model's own detections: eager, compiled, exported, loaded again."""

import io

import pytest
import scenes
import torch

from boxops import models

SMALL = {"min_size": 64, "max_size": 96, "rpn_post_nms_top_n_test": 50, "box_detections_per_img": 20}
MODELS = {
    "tiny_ssd": {},
    "faster_rcnn": SMALL,
    "mask_rcnn": {**SMALL, "num_keypoints": 3},
    "retinanet": {"min_size": 64, "max_size": 96, "detections_per_img": 20},
    "fcos": {"min_size": 64, "max_size": 96, "detections_per_img": 20, "score_thresh": 0.05},
    "detr": {"min_size": 64, "max_size": 96, "num_queries": 20, "enc_layers": 1, "dec_layers": 1},
    "sliding_window": {"min_size": 64, "max_size": 96, "sizes": (60, 80), "detections_per_img": 20},
    "pix2seq": {"size": 64, "max_objects": 2, "encoder_layers": 1, "decoder_layers": 1},
}


def build(name):
    import tiny  # noqa: F401  # registers tiny_ssd

    torch.manual_seed(0)
    model = models.create(name, 4, **MODELS[name]).eval()
    scenes.spread(model, 10)
    return model, torch.rand(2, 3, 60, 90)


def assert_same(found, expected):
    assert found["counts"].tolist() == [len(result["boxes"]) for result in expected]
    for b, result in enumerate(expected):
        count = len(result["boxes"])
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(found[name][b, :count], result[name], rtol=0, atol=0)
            assert not found[name][b, count:].any()


@pytest.mark.parametrize("name", MODELS)
def test_padded_detections_are_the_models(name):
    model, images = build(name)
    with torch.inference_mode():
        assert_same(models.Padded(model)(images), model(list(images)))


def test_padded_masks_are_the_models():
    from boxops import paste_masks

    model, images = build("mask_rcnn")
    with torch.inference_mode():
        found, expected = models.Padded(model)(images), model(list(images))
    for b, result in enumerate(expected):
        count = len(result["boxes"])
        masks = paste_masks(found["masks"][b, :count], found["boxes"][b, :count], (60, 90))
        torch.testing.assert_close(masks, result["masks"], rtol=0, atol=1e-4)  # other batches of the same convolutions
    assert found["keypoint_logits"].shape == (2, 20, 3, 56, 56)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_ssd", "mask_rcnn"])
def test_one_graph_compiles(name):
    model, images = build(name)
    with torch.no_grad():
        compiled = torch.compile(models.Padded(model), backend="eager", fullgraph=True)
        assert_same(compiled(images), model(list(images)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_ssd", "mask_rcnn", "fcos", "detr", "pix2seq"])
def test_one_graph_is_exported_and_loaded_again(name):
    model, images = build(name)
    with torch.no_grad():
        file = io.BytesIO()
        torch.export.save(torch.export.export(models.Padded(model), (images,)), file)
        file.seek(0)
        assert_same(torch.export.load(file).module()(images), model(list(images)))


@pytest.mark.slow
def test_a_compiled_training_step_is_the_eager_one():
    model, images = build("tiny_ssd")
    targets = [{"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([k])} for k in (1, 3)]

    def gradients(step):
        model.train().zero_grad()
        torch.manual_seed(0)
        sum(step(list(images), targets).values()).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    compiled = torch.compile(model, backend="eager")
    for ours, expected in zip(gradients(compiled), gradients(model), strict=True):
        torch.testing.assert_close(ours, expected)
