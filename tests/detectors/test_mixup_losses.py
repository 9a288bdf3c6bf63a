"""What the weights of objects do to the losses; YOLO's are in test_yolo_losses.py."""

import pytest
from scenes import torch
from test_dense import Pyramid
from tiny import tiny_ssd

import boxops
from boxops import models
from boxops.data.mixing import Mixup
from boxops.models import faster_rcnn, fcos, mask_rcnn, retinanet
from boxops.models.roi_heads import TwoMLPHead

CLASSES, SIZE = 5, 96
# Far from each other, so that no anchor is between two
FIRST, SECOND = [[4.0, 6, 40, 38], [8, 60, 30, 88]], [[60.0, 4, 90, 30], [58, 52, 92, 90]]
RPN = {"anchor_sizes": ((16,), (32,)), "min_size": SIZE, "max_size": SIZE, "box_batch_size_per_image": 64,
       "rpn_post_nms_top_n_train": 64}  # fmt: skip


def tiny_detector(name, **settings):
    """In training, with an image and its objects: those of FIRST and SECOND."""
    torch.manual_seed(0)
    sides = {"min_size": SIZE, "max_size": SIZE}
    if name == "ssd":
        model = tiny_ssd(CLASSES, dropout=0.0, iou_thresh=0.3, **settings)
    elif name == "retinanet":
        numbers = retinanet.Settings(anchor_sizes=retinanet.octaves(16, 32), **sides, **settings)
        model = retinanet.RetinaNet(Pyramid(), CLASSES, numbers)
    elif name == "fcos":
        model = fcos.FCOS(Pyramid(), CLASSES, fcos.Settings(anchor_sizes=(8, 16), **sides, **settings))
    elif name == "faster_rcnn":
        numbers, head = faster_rcnn.Settings(**RPN, **settings), TwoMLPHead(32 * 49, 16)
        model = faster_rcnn.FasterRCNN(Pyramid(), CLASSES, numbers, box_head=head)
    else:
        numbers, head = faster_rcnn.Settings(**RPN, **settings), TwoMLPHead(32 * 49, 16)
        branches = {"mask_layers": (8,), "keypoint_layers": (8,), "num_keypoints": 2}
        model = mask_rcnn.MaskRCNN(Pyramid(), CLASSES, numbers, box_head=head, **branches)
    boxes = torch.tensor(FIRST + SECOND)
    x1, y1, x2, y2 = (boxes.long()[:, k, None, None] for k in range(4))
    y, x = torch.arange(SIZE)[:, None], torch.arange(SIZE)
    masks = ((x >= x1) & (x < x2) & (y >= y1) & (y < y2)).to(torch.uint8)
    points = torch.stack([boxes[:, :2] + 3, boxes[:, 2:] - 5], dim=1)
    target = {
        "boxes": boxes,
        "labels": torch.tensor([1, 2, 3, 4]),
        "masks": masks,
        "keypoints": torch.cat([points, torch.full((4, 2, 1), 2.0)], dim=2),
    }
    return model.train(), [torch.rand(3, SIZE, SIZE)], [target]


def losses_of(model, images, targets, objects=slice(None), weights=None):
    """And what its anchors are matched to, [A]; the proposals do not change with the losses."""
    targets = [{key: values[objects] for key, values in target.items()} for target in targets]
    if weights is not None:
        targets[0]["weights"] = torch.tensor(weights).float()
    torch.manual_seed(1)
    return model(images, targets)


@pytest.fixture
def spied(monkeypatch):
    """What each call of a matcher, and in mask_rcnn.py of mean_over_processes, gave."""
    found = []

    def spy(place, name):
        real = getattr(place, name)

        def call(*args, **kwargs):
            result = real(*args, **kwargs)
            found.append(result[0] if isinstance(result, tuple) else result)
            return result

        monkeypatch.setattr(place, name, call)

    spy(boxops, "match_greedy")
    spy(boxops, "match_max_iou")
    spy(fcos.FCOS, "match")
    spy(mask_rcnn, "mean_over_processes")
    return found


NAMES = ["ssd", "retinanet", "fcos", "faster_rcnn", "mask_rcnn"]


@pytest.mark.parametrize("name", NAMES)
def test_mixups_loss_is_the_weighted_sum(name, spied):
    """Of the losses times what they are divided by: of one-stage detectors the weights of all matched anchors, of
    R-CNNs how many are sampled, whatever they weigh; of masks and keypoints the weights of those learnt from."""
    model, images, targets = tiny_detector(name)
    assert model.weighted

    def sums(*weights):
        spied.clear()
        losses = losses_of(model, images, targets, weights=weights)
        if "rcnn" in name:
            counts = dict(zip(("loss_mask", "loss_keypoint"), spied[2:], strict=False))
        else:
            count = torch.tensor(weights)[spied[-1][spied[-1] >= 0]].sum()
            assert count > 1
            counts = dict.fromkeys(losses, count)
        return {key: loss * counts.get(key, 1) for key, loss in losses.items()}

    first, second = sums(1.0, 1.0, 0.0, 0.0), sums(0.0, 0.0, 1.0, 1.0)
    for share in (0.25, 0.5):
        for key, value in sums(share, share, 1 - share, 1 - share).items():
            expected = share * first[key] + (1 - share) * second[key]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5, msg=lambda text, key=key: key + text)
            assert first[key] != second[key]


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_one_and_of_nothing(name):
    """1 is no weight. Of objects that weigh nothing no box is learnt; only that there is nothing is not said either."""
    model, images, targets = tiny_detector(name)
    plain, ones = losses_of(model, images, targets), losses_of(model, images, targets, weights=[1] * 4)
    assert plain == ones
    if name not in ("ssd", "retinanet", "fcos"):  # proposals of R-CNNs are sampled among others
        return
    alone = losses_of(model, images, targets, slice(0, 2))
    first = losses_of(model, images, targets, weights=[1, 1, 0, 0])
    for key in first.keys() - {"classification"}:
        torch.testing.assert_close(first[key], alone[key])
    assert first["classification"] != plain["classification"]


def test_masks_and_keypoints_count_with_their_own_object():
    """Weighted means: of one object that weighs anything, nothing hangs on the others; halves of all are the whole."""
    model, images, targets = tiny_detector("mask_rcnn")
    for k in range(4):
        only = [float(i == k) for i in range(4)]
        own = losses_of(model, images, targets, weights=only)
        for key, loss in (("masks", "loss_mask"), ("keypoints", "loss_keypoint")):
            for i in range(4):
                changed = targets[0][key].clone()
                changed[i] = 1 - changed[i] if key == "masks" else changed[i].flip(0)
                other = losses_of(model, images, [{**targets[0], key: changed}], weights=only)
                assert (other[loss] == own[loss]) == (i != k)
    plain, halves = losses_of(model, images, targets), losses_of(model, images, targets, weights=[0.5] * 4)
    for loss in ("loss_mask", "loss_keypoint"):
        torch.testing.assert_close(halves[loss], plain[loss])


def test_images_with_and_without_weights():
    model, images, targets = tiny_detector("ssd")
    targets[0]["weights"] = torch.tensor([0.2, 0.4, 0.6, 0.8])
    other = {key: values for key, values in targets[0].items() if key != "weights"}
    crowd = {**targets[0], "iscrowd": torch.tensor([0, 1, 0, 0])}  # takes its weight along
    losses = model(images * 3, [targets[0], other, crowd])
    less = {key: values[[0, 2, 3]] for key, values in targets[0].items()}
    expected = model(images * 3, [targets[0], {**other, "weights": torch.ones(4)}, less])
    assert losses == expected


def test_a_detector_that_cannot_says_so():
    image, target = torch.rand(3, 64, 64), {"boxes": torch.tensor([[3.0, 3, 30, 30]]), "labels": torch.tensor([1])}
    target["weights"] = torch.ones(1)
    with torch.device("meta"):
        model = models.create("localizer", 3).train()
    with pytest.raises(ValueError, match=r"expected objects without weights for this detector, .* weights for image 0"):
        model([image], [target])
    model, images, targets = tiny_detector("ssd")
    targets[0]["weights"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"expected weights \[4\] for image 0, got \[3\]"):
        model(images, targets)


def test_a_mixed_sample_is_learnt_from():
    """From the pictures on: of two images the box losses are those of one, at its weight."""
    from torchvision import tv_tensors

    def sample(boxes, size):
        boxes = tv_tensors.BoundingBoxes(torch.tensor(boxes), format="XYXY", canvas_size=size)
        return tv_tensors.Image(torch.full((3, *size), 100, dtype=torch.uint8)), {
            "boxes": boxes, "labels": torch.tensor([1, 2])}  # fmt: skip

    model, *_ = tiny_detector("ssd")
    image, target = Mixup.mix(sample(FIRST, (SIZE, SIZE)), sample(SECOND, (SIZE, SIZE)), 0.25)
    target = {key: value.as_subclass(torch.Tensor) for key, value in target.items()}
    mixed = model([image / 255], [target])["bbox_regression"]
    assert target["weights"].tolist() == [0.25, 0.25, 0.75, 0.75]
    assert mixed == model([image / 255], [{**target, "weights": 2 * target["weights"]}])["bbox_regression"]
