"""Objects as tokens and back: the paper's figure, round trips, what malformed sequences say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import torch, torchvision

from boxops.models.sequences import EOS, ORDERINGS, Vocabulary, noise_boxes, order, sequence

# Figure 4 of the paper: 1000 bins, 0 ends the sequence
FIRST, SECOND, THIRD = [327, 370, 653, 444, 1001], [544, 135, 987, 338, 1004], [508, 518, 805, 892, 1004]
FIGURE = Vocabulary(1000, 91, 1000)


def figure(*objects):
    return torch.tensor([*(token for tokens in objects for token in tokens), EOS])


def test_what_the_figure_says():
    """The first three numbers of an object are y1, x1, y2: x1, y1, x2 would be other boxes."""
    boxes, labels, real = FIGURE.objects(figure(FIRST, SECOND, THIRD))
    assert labels.tolist() == [1, 4, 4]
    assert real.all()
    bins = boxes * 999 / 1000 + 1
    expected = [[370, 327, 444, 653], [135, 544, 338, 987], [518, 508, 892, 805]]
    torch.testing.assert_close(bins, torch.tensor(expected).float())
    assert FIGURE.tokens(boxes, labels).flatten().tolist() == FIRST + SECOND + THIRD


# By area: 297 x 374, 443 x 203, 326 x 74 bins. By distance of the upper left corner: 494, 561, 725
LINES = {
    "random": [FIRST, SECOND, THIRD],
    "area": [THIRD, SECOND, FIRST],
    "dist2ori": [FIRST, SECOND, THIRD],
}


@pytest.mark.parametrize("given_order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_the_figures_orderings_both_ways(ordering, given_order, monkeypatch):
    boxes, labels, _ = FIGURE.objects(figure(FIRST, SECOND, THIRD))
    boxes, labels = boxes[given_order], labels[given_order]
    back = torch.tensor(given_order).argsort()
    monkeypatch.setattr(torch, "randperm", lambda count, device: back)
    read, said, weights = sequence(FIGURE, boxes, labels, (1000, 1000), 4, ordering, noise=False)
    line = figure(*LINES[ordering])
    assert torch.equal(said[:16], line)
    assert torch.equal(read, said)
    assert not said[16:].any()
    assert weights.tolist() == [1] * 16 + [0] * 4
    again, names, _ = FIGURE.objects(line)
    at = order(boxes, ordering)
    torch.testing.assert_close(again, boxes[at])
    assert torch.equal(names, labels[at])


def test_random_orders_are_all_orders():
    torch.manual_seed(0)
    seen = {tuple(order(torch.rand(3, 4), "random").tolist()) for _ in range(60)}
    assert len(seen) == 6
    with pytest.raises(ValueError, match="ordering: expected one of random, area, dist2ori, got 'size'"):
        order(torch.rand(3, 4), "size")


@given(st.integers(2, 3000), st.integers(1, 1400), st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5),
       st.integers(1, 90))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_round_trip_costs_half_a_bin(n_bins, size, shares, label):
    vocabulary = Vocabulary(n_bins, 91, size)
    x, y = (torch.tensor(shares).reshape(-1, 2, 2).sort(dim=1).values * size).unbind(-1)
    boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
    tokens = vocabulary.tokens(boxes, torch.full((len(boxes),), label))
    assert ((tokens[:, :4] >= 1) & (tokens[:, :4] <= n_bins)).all()
    found, labels, real = vocabulary.objects(tokens.flatten())
    bin_ = size / (n_bins - 1)
    assert ((found - boxes)[real].abs() <= bin_ / 2 + size * 1e-6).all()
    assert (labels[real] == label).all()
    assert real[((boxes[:, 2:] - boxes[:, :2]) > bin_ * 1.001).all(dim=1)].all()  # wider than a bin: not lost


INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-2, 20))  # of 10 bins and 4 classes: 0 to 15


@given(st.lists(INTEGERS, max_size=32))
@settings(max_examples=100, deadline=None)
def test_any_integers_are_read(tokens):
    """As a loop reads them: five at a time, until one is EOS."""
    boxes, labels, real = Vocabulary(10, 5, 90).objects(torch.tensor(tokens, dtype=torch.int64))
    expected, ended = [], False
    for n in range(len(tokens) // 5):
        y1, x1, y2, x2, name = tokens[5 * n : 5 * n + 5]
        ended = ended or 0 in (y1, x1, y2, x2, name)
        is_object = not ended and 1 <= y1 < y2 <= 10 and 1 <= x1 < x2 <= 10 and 11 <= name <= 14
        expected.append([*(10 * (v - 1) for v in (x1, y1, x2, y2)), name - 10] if is_object else None)
    assert real.tolist() == [row is not None for row in expected]
    rows = torch.cat([boxes, labels[:, None]], dim=1)
    torch.testing.assert_close(rows, torch.tensor([row or [0] * 5 for row in expected]).reshape(-1, 5).float())


MALFORMED = {
    "a class where a coordinate is due": [3, 3, 14, 5, 12],
    "a coordinate where a class is due": [3, 3, 5, 5, 5],
    "noise": [3, 3, 5, 5, 15],
    "upside down": [5, 3, 3, 5, 12],
    "empty": [3, 3, 5, 3, 12],
    "out of range": [3, 3, 5, 99, 12],
    "negative": [3, -3, 5, 5, 12],
}


@pytest.mark.parametrize("five", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_object_is_left_out(five):
    good = [1, 2, 9, 10, 11]
    for tokens, real in ((good + five + good, [1, 0, 1]), (five[:4], []), (good + five[:3], [1])):
        assert Vocabulary(10, 5, 90).objects(torch.tensor(tokens))[2].tolist() == real


@pytest.mark.parametrize("at", range(5))
def test_an_end_within_an_object(at):
    good = [1, 2, 9, 10, 11]
    cut = [*good[:at], EOS, *good[at + 1 :]]
    _, _, real = Vocabulary(10, 5, 90).objects(torch.tensor([good + cut + good, good * 3]))
    assert real.tolist() == [[True, False, False], [True] * 3]


def image(count):
    torch.manual_seed(count)
    corners = torch.rand(count, 2, 2).sort(dim=1).values * 60
    return corners.flatten(1) + torch.tensor([0, 0, 4, 4]), torch.randint(1, 5, (count,))


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("noise", [True, False])
def test_more_objects_than_a_sequence_has(ordering, noise):
    """Left out are the last of the ordering: any, the smallest, the farthest."""
    boxes, labels = image(9)
    vocabulary = Vocabulary(1000, 5, 64)
    read, said, weights = sequence(vocabulary, boxes, labels, (64, 64), 6, ordering, noise)
    assert torch.equal(read, said)
    assert weights.tolist() == [1] * 30  # no room for EOS either
    found = vocabulary.objects(said)[0]
    distances = (found[:, None] - boxes).abs().amax(dim=-1)
    assert (distances.amin(dim=1) < 0.1).all()
    learnt = set(distances.argmin(dim=1).tolist())
    assert len(learnt) == 6
    keys = {"area": -torchvision.ops.box_area(boxes), "dist2ori": boxes[:, :2].norm(dim=1)}
    if ordering in keys:
        assert learnt == set(keys[ordering].argsort()[:6].tolist())


@pytest.mark.parametrize("count", [0, 1, 4])
def test_noise_fills_up(count):
    """Said of noise: that it is noise, whatever its coordinates. Read: any class, never noise."""
    boxes, labels = image(count)
    vocabulary = Vocabulary(64, 5, 64)
    read, said, weights = (x.view(60, 5) for x in sequence(vocabulary, boxes, labels, (64, 48), 60, "area", True))
    assert torch.equal(read[:count], said[:count])
    assert weights[:count].all()
    assert (said[count:, 4] == vocabulary.noise).all()
    assert set(read[count:, 4].tolist()) == {65, 66, 67, 68}
    assert weights[count:].tolist() == [[0, 0, 0, 0, 1]] * (60 - count)
    assert (read[:, :4] >= 1).all()
    assert (read[:, :4] <= 64).all()
    assert (read[count:, 3] <= 48).all()  # within the image, which is narrower than the square


def test_images_without_objects_end_at_once():
    read, said, weights = sequence(Vocabulary(64, 5, 64), *image(0), (64, 64), 3, "random", False)
    assert not read.any()
    assert not said.any()
    assert weights.tolist() == [1] + [0] * 14


def test_what_noise_is():
    """Copies near an object, of an object's size elsewhere, and of any size."""
    torch.manual_seed(0)
    boxes = torch.tensor([[20.0, 20, 40, 30]])
    assert noise_boxes(boxes, 0, (64, 64)).shape == (0, 4)
    shares = []
    for _ in range(40):
        noise = noise_boxes(boxes, 100, (64, 64))
        assert ((noise >= 0) & (noise <= 64)).all()
        assert (noise[:, 2:] >= noise[:, :2]).all()
        near = ((noise - boxes).abs() <= torch.tensor([2.0, 1, 2, 1]) + 1e-4).all(dim=1)
        sized = ((noise[:, 2:] - noise[:, :2] - torch.tensor([20, 10])).abs() < 1e-4).all(dim=1) & ~near
        shares.append([near.float().mean(), sized.float().mean()])
    shares = torch.tensor(shares)
    assert shares[:, 0].min() < 0.1  # the share of copies is another one in each image
    assert shares[:, 0].max() > 0.9
    assert 0.1 < shares[:, 1].mean() < 0.25  # a half of the others, less what the image's edge cut
    alone = noise_boxes(boxes[:0], 300, (64, 64))
    sides = (alone[:, 2:] - alone[:, :2]).flatten()
    assert sides.std() > 5
