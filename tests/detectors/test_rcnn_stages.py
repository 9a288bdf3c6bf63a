"""What R-CNN fits to features on the disk: SVMs, regressors, and that no kill and no full disk changes them."""

import os
import re
import signal
from itertools import pairwise

import numpy as np
import pytest
import tiny_rcnn
from commands import DATA, Running, needs_fork
from scenes import torch, torchvision
from test_training import same, shapes, trainer

from boxops.cli import main
from boxops.models import rcnn_stages
from boxops.models.rcnn import Settings
from boxops.models.rows import Rows
from boxops.training.checkpoint import load, load_model

pytest.importorskip("sklearn")
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

TRAIN = ["train", "tiny_rcnn", *DATA, "--workers", "0", "--device", "cpu", "--steps", "2", "--eval-split", "none"]
DTYPES = {"a": np.dtype([("x", "f4", 2), ("n", "i4")]), "b": np.dtype([("x", "f2", (3,))])}


def run(out, resume=False, **options):
    torch.manual_seed(0)
    return trainer(out, model=tiny_rcnn.tiny_rcnn(4), data=shapes(12, "none"), resume=resume, epochs=1, **options)


def weights(out):
    return load(out / "last.pt")["weights"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run."""
    out = tmp_path_factory.mktemp("whole")
    run(out).run()
    return out


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


def test_overlaps():
    """The largest IoU with each class, by torchvision's matrix; 1 for what lies in a crowd of the class."""
    torch.manual_seed(0)
    regions, boxes = (torch.rand(n, 4).mul(50) for n in (200, 12))
    for some in (regions, boxes):
        some[:, 2:] += some[:, :2]
    labels, crowd = torch.arange(12) % 4 + 1, torch.arange(12) > 9
    found = rcnn_stages.overlaps(regions, boxes, labels, crowd, 5)
    ious = torchvision.ops.box_iou(regions, boxes)
    inner = torch.cat(
        [torch.maximum(regions[:, None, :2], boxes[:, :2]), torch.minimum(regions[:, None, 2:], boxes[:, 2:])], -1
    )
    share = (inner[..., 2:] - inner[..., :2]).clamp(min=0).prod(-1) / (regions[:, 2:] - regions[:, :2]).prod(
        -1, keepdim=True
    )
    for label in range(1, 6):
        own = (labels == label) & ~crowd
        expected = ious[:, own].amax(1) if own.any() else torch.zeros(200)
        inside = (share[:, (labels == label) & crowd] > 0.5).any(1) & (expected < 0.5)
        torch.testing.assert_close(found[:, label - 1], expected.masked_fill(inside, 1))
    assert (found[:, 2] == 1).any()


def test_what_is_kept():
    """Rows of ground truth and proposals; neither crowds nor difficult objects are examples."""
    model = tiny_rcnn.tiny_rcnn(4).eval()
    batch, _ = model.transform([torch.rand(3, 64, 64)])
    batch.proposals = [torch.tensor([[10.0, 10, 30, 33], [10, 10, 30, 60], [40, 40, 58, 60]])]
    target = {"boxes": torch.tensor([[10.0, 10, 30, 30], [40, 40, 60, 60], [0, 50, 10, 64]]),
              "labels": torch.tensor([2, 1, 3]), "iscrowd": torch.tensor([0, 0, 1]),
              "difficult": torch.tensor([False, True, False])}  # fmt: skip
    with torch.no_grad():
        rows = rcnn_stages.look(model, batch, target)
    known, near = rows["regions"], rows["near"]
    assert known["label"].tolist() == [2, 0, 0, 0]
    assert known["feature"].dtype == torch.float16
    expected = [[0, 1, 0], [0, 20 / 23, 0], [0, 0.4, 0], [0.9, 0, 0]]
    torch.testing.assert_close(known["overlap"], torch.tensor(expected))
    assert near["label"].tolist() == [2]  # 0.9 is of the difficult one
    torch.testing.assert_close(near["code"], torch.tensor([[0, -1.5 / 23, 0, np.log(20 / 23)]]).float())
    pooled = model.pooled(batch, batch.proposals)[:1].flatten(1)
    torch.testing.assert_close(near["feature"].float(), pooled, rtol=1e-3, atol=1e-3)


# SVMs


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


@pytest.mark.parametrize("settings", [{"svm_batch": 20}, {"svm_batch": 10_000, "svm_cost": 0.02}], ids=str)
def test_svm_is_the_least_hinge_loss(settings):
    """Of all negatives, though those of only 20 to begin with are seen at once: what the mining leaves out counts 0."""
    rows, spans = examples()
    s = Settings(svm_passes=20, **{"svm_cost": 0.01, **settings})
    weight, bias = rcnn_stages.mine(rows, spans, 1, 2.0, s, seed=0)
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
        weight, bias = rcnn_stages.mine(rows, spans, 1, 1.0, s, seed=0)
        return rows["feature"][-1].astype(float) @ weight[0] + bias.item()

    mined = margin(svm_passes=2)
    rows["overlap"][planted] = 0.3  # the grey zone: it is not looked at
    assert mined < margin(svm_passes=2) - 0.1
    rows["overlap"][planted] = 0.29
    assert margin(svm_passes=2) == mined


def test_no_negatives():
    rows, spans = examples()
    rows["overlap"] = 1
    with pytest.raises(ValueError, match="expected proposals apart from the objects, got none"):
        rcnn_stages.mine(rows, spans, 1, 1.0, Settings(), 0)


@pytest.mark.parametrize("count", [5, 40, 9000])
def test_ridge(count):
    """As scikit-learn's, which leaves the intercept free, with fewer rows than features and with several parts."""
    random = np.random.default_rng(0)
    near = np.zeros(count + 7, [("feature", "f2", 20), ("code", "f4", 4)])
    near["feature"], near["code"] = random.normal(3, 2, (count + 7, 20)), random.normal(1, 1, (count + 7, 4))
    at = np.arange(7, count + 7)
    weight, bias = rcnn_stages.ridge(near, at, 0.5, 30.0)
    x, y = near["feature"][at].astype(float) * 0.5, near["code"][at].astype(float)
    theirs = Ridge(alpha=30.0).fit(x, y)
    np.testing.assert_allclose(weight / 0.5, theirs.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-4)


def test_feature_scale():
    features = np.float16([[3, 4], [0, 15]])
    assert rcnn_stages.scale_of(features, Settings()) == pytest.approx(2)
    assert rcnn_stages.scale_of(features[:0], Settings()) == 1


# Whole runs


def test_a_run(whole, capsys):
    """The checkpoint is all there is to detect with."""
    model, checkpoint = load_model(whole / "last.pt")
    assert model.fitted
    weight, bias = model.svms.weight, model.svms.bias
    files = [load_weights(file) for file in sorted(whole.glob("stages/step_3/svms.*.pt"))]
    assert torch.equal(weight, torch.cat([file["weight"] for file in files]).float())
    assert torch.equal(bias, torch.cat([file["bias"] for file in files]).float())
    again = tiny_rcnn.tiny_rcnn(4)
    again.load_state_dict(checkpoint["weights"])
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        assert same(model([image])[0], again.eval()([image])[0])
    rows = rcnn_stages.open_rows(model, whole / "stages/step_3")
    assert rows.images == 12
    assert (np.bincount(rows.read("regions")["label"], minlength=4)[1:] > 0).all()


def load_weights(file):
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("name", "call"), [("look", 5), ("mine", 2), ("ridge", 1)])
def test_killed_in_a_stage(whole, tmp_path, monkeypatch, name, call):
    """In the middle of each: what is done is kept, and the resumed run's weights are those of an unbroken one."""
    real, calls = getattr(rcnn_stages, name), []

    def counted(*args):
        calls.append(args)
        if len(calls) == call:
            raise ZeroDivisionError
        return real(*args)

    monkeypatch.setattr(rcnn_stages, name, counted)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path).run()
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("stages/*/svms.*")}
    run(tmp_path, resume=True).run()
    assert same(weights(tmp_path), weights(whole))
    assert len(calls) == {"look": 12, "mine": 3, "ridge": 2}[name] + 1  # no proposal is near a circle
    assert all(file.stat().st_mtime_ns == before for file, before in files.items())


@needs_fork
def test_killed_by_the_kernel(tmp_path):
    """SIGKILL while features are written; the other run is never stopped."""
    command = [*TRAIN, "--data-option", "length=40"]
    with Running([*command, "--out", str(tmp_path / "broken")], tmp_path) as child:
        child.wait_for_rows(tmp_path / "broken/stages/step_2/features.index", 3)
        os.kill(child.pid, signal.SIGKILL)
        child.end()
    assert not [*tmp_path.glob("broken/stages/step_2/svms.*")]
    assert main([*command, "--out", str(tmp_path / "broken"), "--resume"]) == 0
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "whole"))


def test_a_full_disk(whole, tmp_path, small_files, capsys):
    """The run ends with what it needs and has; with more room it goes on, to the same weights."""
    file = next(whole.glob("stages/step_3/features.regions"))
    out, room = tmp_path / "run", file.stat().st_size - 5000
    command = [*TRAIN, "--out", str(out)]
    assert main([*command[:-2], "--out", str(tmp_path / "whole")]) == 0
    small_files(room)
    assert main(command) == 2
    err = capsys.readouterr().err
    kept = len((out / "stages/step_2/features.index").read_text().splitlines())
    assert 6 <= kept < 12
    told = re.search(
        r"boxops train: .*/step_2: File too large: expected room for the features of 12 images (.*)\n$", err
    )
    assert re.fullmatch(rf"\(about 2\d\.\d kB\), got it for {kept} \(1\d\.\d kB\), which are kept; make room, and "
                        "--resume goes on", told[1])  # fmt: skip
    small_files(-1)
    assert main([*command, "--resume"]) == 0
    assert same(weights(out), weights(tmp_path / "whole"))


def test_a_class_without_objects(tmp_path, monkeypatch, capsys):
    """Told before the first step, and by name."""
    command = [*TRAIN, "--out", str(tmp_path / "run"), "--data-option", "length=1"]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "boxops train: --data: expected objects of every class, got none of '" in err
    assert err.endswith("': an SVM can't be trained\n")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(rcnn_stages, "find_spec", lambda _: None)
    assert main(command) == 2
    assert "expected scikit-learn for the SVMs, got none: pip install scikit-learn" in capsys.readouterr().err
