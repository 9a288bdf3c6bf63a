"""Which object a point of FCOS learns, and what it learns of it."""

import pytest
from scenes import torch, torchvision

from boxops.models import fcos
from boxops.models.common import GroundTruth

detection = torchvision.models.detection
LEVELS = [16 * 16, 8 * 8, 4 * 4]


def model(**settings):
    backbone = torch.nn.Identity()
    backbone.out_channels = 32
    return fcos.FCOS(backbone, 5, fcos.Settings(anchor_sizes=(8, 16, 32), **settings))


def points():
    """The points of a 128 pixel image as boxes one unit wide."""
    generator = detection.anchor_utils.AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
    images = detection.image_list.ImageList(torch.zeros(1, 3, 128, 128), [(128, 128)])
    return generator(images, [torch.zeros(1, 1, side, side) for side in (16, 8, 4)])[0]


def match(boxes, crowds=(), **settings):
    """Of one image with these boxes."""
    boxes, crowds = torch.as_tensor(boxes).float().reshape(-1, 4), torch.tensor(crowds).float().reshape(-1, 4)
    target = {"boxes": torch.cat([boxes, crowds]), "labels": torch.ones(len(boxes) + len(crowds), dtype=torch.int64)}
    target["iscrowd"] = torch.tensor([0] * len(boxes) + [1] * len(crowds))
    return model(**settings).match(points(), LEVELS, GroundTruth.of([target]))[0]


def torchvisions(boxes, radius):
    theirs = detection.FCOS(model().backbone, 5, center_sampling_radius=radius)
    theirs.head.compute_loss = lambda targets, outputs, anchors, matches: matches
    return theirs.compute_loss([{"boxes": boxes}], {}, [points()], LEVELS)[0]


@pytest.mark.parametrize("radius", [0.5, 1.5, 3])
def test_as_torchvisions(radius):
    """Boxes of whole pixels, so that points lie on edges, at the radius, and at the limits of levels."""
    generator = torch.Generator().manual_seed(0)
    matched = 0
    for count in (1, 2, 5, 20, 60):
        corners = torch.randint(0, 129, (count, 2, 2), generator=generator).sort(dim=1).values
        boxes = corners.flatten(1).float()
        boxes[:, 2:] += 1
        areas = torchvision.ops.box_area(boxes)
        # torchvision's 1e8 - area has steps of 8 in float32: boxes of about one area are equal to it
        boxes = boxes[[bool(((areas[:i] - areas[i]).abs() > 16).all()) for i in range(count)]]
        found, expected = match(boxes, center_sampling_radius=radius), torchvisions(boxes, radius)
        assert torch.equal(found, expected)
        matched += (found >= 0).sum()
    assert matched > 50


def test_the_smallest_object():
    inner, outer = [40, 40, 72, 72], [40, 40, 72, 72.05]  # to torchvision of one area, so that the first would win
    at = 7 * 16 + 7  # the point (56, 56) of the finest level
    for boxes, smallest in (([inner, outer], 0), ([outer, inner], 1), ([inner, inner], 0)):
        assert match(boxes)[at] == smallest


def test_levels():
    """Farthest edges up to 64 pixels off are the first level's, from 128 the last's; section 3.2."""
    for side, level in ((20, 0), (100, 0), (160, 1), (300, 2)):
        box = [64 - side / 2, 64 - side / 2, 64 + side / 2, 64 + side / 2]
        matched = [bool((some >= 0).any()) for some in match([box]).split(LEVELS)]
        assert matched[level], side
        assert sum(matched) == 1 or side == 100


def test_near_the_middle():
    """Within 1.5 units of the middle along both axes, not farther."""
    found = match([[40, 24, 88, 104]])[: LEVELS[0]].view(16, 16)  # around (64, 64)
    assert (found >= 0).nonzero().tolist() == [[y, x] for y in (7, 8, 9) for x in (7, 8, 9)]


def test_crowds():
    """A point most of whose unit lies in a crowd is no background; an object in the crowd is still learnt."""
    for boxes in ([], [[50, 50, 64, 60]]):
        found = match(boxes, crowds=[[-4, -4, 128, 60]])[: LEVELS[0]].view(16, 16)
        assert found[7, 7] == (0 if boxes else -2)
        assert (found[:8] == -2).sum() == 8 * 16 - len(boxes)
        assert (found[8:] == -1).all()


def test_distances_and_boxes():
    torch.manual_seed(0)
    anchors, distances = points(), torch.rand(len(points()), 4)
    boxes = fcos.boxes_of(distances, anchors)
    coder = detection._utils.BoxLinearCoder()
    torch.testing.assert_close(boxes, coder.decode(distances, anchors))
    unit = (anchors[:, 2] - anchors[:, 0])[:, None]
    torch.testing.assert_close(fcos.edges(anchors, boxes) / unit, distances, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fcos.edges(anchors, boxes) / unit, coder.encode(anchors, boxes), rtol=1e-4, atol=1e-4)
