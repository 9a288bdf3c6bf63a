"""What R-CNN fits to features on the disk: SVMs, regressors, and that no kill and no full disk changes them."""

import os
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_rcnn
from commands import DATA, Running, needs_fork
from scenes import torch, torchvision
from test_training import same, shapes, trainer

from boxops.cli import main
from boxops.models import rcnn_stages
from boxops.training.checkpoint import load, load_model

pytest.importorskip("sklearn")

TRAIN = ["train", "tiny_rcnn", *DATA, "--workers", "0", "--device", "cpu", "--steps", "2", "--eval-split", "none"]


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


def test_examples_of_a_class(whole, monkeypatch):
    """Ground truth alone is positive, what lies below an IoU of 0.3 with all of the class negative; appendix B."""
    fits, model = [], load_model(whole / "last.pt")[0]
    monkeypatch.setattr(rcnn_stages, "each_class", lambda layer, name, classes, fit, run: fits.append(fit))
    monkeypatch.setattr(rcnn_stages, "mine", lambda *args: args)
    rcnn_stages.svms(model, shapes(12), SimpleNamespace(folder=whole / "stages/step_3", seed=5))
    features, positive, negative, spans, *_ = fits[0](2)
    rows = rcnn_stages.open_rows(model, whole / "stages/step_3")
    regions = rows.read("regions")
    assert len(features) == len(regions) == spans[-1][1]
    assert (positive == (regions["label"] == 2)).all()
    assert (negative == (regions["overlap"][:, 1] < 0.3)).all()
    grey = ~(positive | negative)
    assert 0 < grey.sum() < negative.sum()
    objects = sum((record.labels == 2).sum() for record in shapes(12).records())
    assert positive.sum() == objects


def test_no_negatives(whole, tmp_path, monkeypatch):
    """The mistake in the data is told by the class, and SVMs of other classes stay."""
    monkeypatch.setattr(
        rcnn_stages, "overlaps", lambda *args: torch.ones(len(args[0]), 3).index_fill(1, torch.tensor(0), 0)
    )
    with pytest.raises(
        ValueError, match="data: expected proposals apart from 'square' in the images, got none: an SVM"
    ):
        run(tmp_path).run()
    assert [file.name for file in tmp_path.glob("stages/*/svms.*")] == ["svms.1.pt"]


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


@pytest.fixture
def one_thread():
    """As the forked runs have: sums of other threads differ in the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@needs_fork
def test_killed_by_the_kernel(tmp_path, one_thread):
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
