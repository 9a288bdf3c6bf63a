"""Rows on the disk, and the linear models that are fitted to them."""

from itertools import pairwise

import numpy as np
import pytest
from scenes import torch

from boxops.models import linear
from boxops.models.rcnn import Settings
from boxops.models.rows import Rows

pytest.importorskip("sklearn")
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

DTYPES = {"a": np.dtype([("x", "f4", 2), ("n", "i4")]), "b": np.dtype([("x", "f2", (3,))])}


def image_rows(i):
    x = torch.arange(2.0 * i).reshape(i, 2)
    return {"a": {"x": x, "n": torch.full((i,), i)}, "b": {"x": torch.full((2, 3), 0.5 * i)}}


def test_rows(tmp_path):
    rows = Rows(tmp_path, "f", DTYPES)
    assert (rows.images, rows.size, len(rows.read("a")), rows.spans("a")) == (0, 0, 0, [])
    for i in (3, 0, 2):
        rows.add(image_rows(i))
    for same_rows in (rows, Rows(tmp_path, "f", DTYPES)):
        assert (same_rows.images, same_rows.size) == (3, 5 * 12 + 6 * 6)
        assert same_rows.spans("a") == [(0, 3), (3, 3), (3, 5)]
        assert same_rows.read("a")["n"].tolist() == [3, 3, 3, 2, 2]
        assert same_rows.read("a")["x"][3:].tolist() == [[0, 1], [2, 3]]
        assert same_rows.read("b")["x"][:, 0].tolist() == [1.5, 1.5, 0, 0, 1, 1]
        assert isinstance(same_rows.read("a"), np.memmap)


@pytest.mark.parametrize("lost", ["half an index line", "no index line", "rows", "all"])
def test_rows_that_are_not_whole(tmp_path, lost):
    """Whatever a kill or a power cut leaves, what is there of whole images is what was written."""
    rows = Rows(tmp_path, "f", DTYPES)
    for i in (3, 1):
        rows.add(image_rows(i))
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    rows.add(image_rows(2))
    lines = (tmp_path / "f.index").read_bytes()
    if lost == "half an index line":
        (tmp_path / "f.index").write_bytes(lines[:-1])
    elif lost == "no index line":
        (tmp_path / "f.index").write_bytes(lines[:-4])
    elif lost == "rows":
        (tmp_path / "f.b").write_bytes((tmp_path / "f.b").read_bytes()[:-1])
    else:
        (tmp_path / "f.a").unlink()
        kept = {}
    rows = Rows(tmp_path, "f", DTYPES)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.read_bytes()} == kept
    rows.add(image_rows(2))
    assert rows.read("a")["n"].tolist()[-2:] == [2, 2]


def test_rows_on_a_full_disk(tmp_path, small_files):
    """All of an image's rows are there or none: what did not fit leaves nothing behind."""
    rows = Rows(tmp_path, "f", DTYPES)
    rows.add(image_rows(3))
    small_files(40)
    with pytest.raises(OSError, match="File too large"):
        rows.add(image_rows(2))
    small_files(-1)
    assert rows.images == 1
    rows.add(image_rows(2))
    assert rows.read("a")["n"].tolist() == [3, 3, 3, 2, 2]
    assert rows.read("b")["x"][:, 0].tolist() == [1.5, 1.5, 1, 1]


def mine(rows, spans, scale, s):
    negative = rows["overlap"][:, 0] < s.svm_neg_iou
    return linear.mine(rows["feature"], rows["label"] == 1, negative, spans, scale, s, seed=0)


def examples(count=300, features=6, seed=0):
    """Rows of a class that overlaps with its negatives, over 10 images."""
    random = np.random.default_rng(seed)
    rows = np.zeros(count, [("feature", "f2", features), ("overlap", "f4", (1,)), ("label", "i4")])
    rows["label"] = random.random(count) < 0.1
    rows["feature"] = random.normal(rows["label"][:, None] * 0.8, 1, (count, features))
    rows["overlap"][:, 0] = rows["label"]
    edges = np.linspace(0, count, 11).astype(int).tolist()
    return rows, [*pairwise(edges)]


def hinge(x, y, weight, bias, s):
    """The objective, whose bias is a weight of a feature that is svm_intercept_scaling throughout."""
    cost = s.svm_cost * np.where(y > 0, s.svm_positive_weight, 1)
    losses = np.maximum(0, 1 - y * (x @ weight + bias))
    return 0.5 * (weight @ weight + (bias / s.svm_intercept_scaling) ** 2) + cost @ losses


def least_hinge(x, y, s, rounds=3000):
    """A lower bound of it, by ascent in the dual: one example after another (Hsieh et al. 2008)."""
    x = np.c_[x, np.full(len(x), s.svm_intercept_scaling)]
    most, weight, alpha = s.svm_cost * np.where(y > 0, s.svm_positive_weight, 1), np.zeros(x.shape[1]), np.zeros(len(x))
    squares = (x * x).sum(1)
    for _ in range(rounds):
        before = alpha.copy()
        for i in range(len(x)):
            new = np.clip(alpha[i] + (1 - y[i] * (x[i] @ weight)) / squares[i], 0, most[i])
            weight += (new - alpha[i]) * y[i] * x[i]
            alpha[i] = new
        if abs(alpha - before).max() < 1e-9:
            break
    return alpha.sum() - 0.5 * weight @ weight


@pytest.mark.parametrize("settings", [{"svm_batch": 20}, {"svm_batch": 10_000}], ids=str)
def test_svm_is_the_least_hinge_loss(settings):
    """Of all negatives, though those of only 20 to begin with are seen at once: what the mining leaves out counts 0."""
    rows, spans = examples()
    s = Settings(svm_passes=20, **{"svm_cost": 0.01, **settings})
    weight, bias = mine(rows, spans, 2.0, s)
    x, y = rows["feature"].astype(float), np.where(rows["label"] == 1, 1, -1)
    primal, dual = hinge(x * 2, y, weight[0] / 2, bias[0], s), least_hinge(x * 2, y, s)
    assert dual <= primal < dual * 1.002
    theirs = LinearSVC(C=s.svm_cost, loss="hinge", class_weight={1: 2}, intercept_scaling=10, max_iter=100_000)
    theirs.fit(x * 2, y)
    np.testing.assert_allclose(x @ weight[0] + bias, theirs.decision_function(x * 2), atol=0.03)
    assert np.mean((x @ weight[0] + bias > 0) == (y > 0)) > 0.9


def test_mining_finds_a_hard_negative():
    """Some that look as the objects do, in the last image."""
    rows, spans = examples()
    planted = slice(-5, None)
    rows["label"][planted], rows["overlap"][planted], rows["feature"][planted] = 0, 0, 1.5

    def margin(**settings):
        s = Settings(svm_cost=0.1, svm_batch=30, **settings)
        weight, bias = mine(rows, spans, 1.0, s)
        return rows["feature"][-1].astype(float) @ weight[0] + bias.item()

    mined = margin(svm_passes=2)
    rows["overlap"][planted] = 0.5  # the grey zone, which is not looked at
    assert mined < margin(svm_passes=2) - 0.1


@pytest.mark.parametrize("count", [5, 40, 9000])
def test_ridge(count):
    """As scikit-learn's, which leaves the intercept free, with fewer rows than features and with several parts."""
    random = np.random.default_rng(0)
    near = np.zeros(count + 7, [("feature", "f2", 20), ("code", "f4", 4)])
    near["feature"], near["code"] = random.normal(3, 2, (count + 7, 20)), random.normal(1, 1, (count + 7, 4))
    at = np.arange(7, count + 7)
    weight, bias = linear.ridge(near, at, 0.5, 30.0)
    x, y = near["feature"][at].astype(float) * 0.5, near["code"][at].astype(float)
    theirs = Ridge(alpha=30.0).fit(x, y)
    np.testing.assert_allclose(weight / 0.5, theirs.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-4)


def test_feature_scale():
    features = np.float16([[3, 4], [0, 15]])
    assert linear.scale_of(features, 20) == pytest.approx(2)
    assert linear.scale_of(features[:0], 20) == 1
