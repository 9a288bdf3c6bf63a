import csv
import os
import signal

import pytest
from tiny import tiny_ssd, torch

from boxops.data import open_dataset, transforms
from boxops.training import HeldOut, Interrupted, Options, Trainer, TrainingError
from boxops.training.checkpoint import atomic, load, load_model

QUICK = {"epochs": 2, "batch_size": 4, "workers": 0, "device": "cpu", "warmup": 2, "pictures": 0}


def shapes(length=10, preset="ssd", **options):
    transform = transforms.train(preset) if preset else transforms.evaluate()
    return open_dataset(
        "shapes", length=length, size=64, max_objects=2, masks=False, keypoints=False, transform=transform, **options
    )


def trainer(out, evaluate=None, resume=False, data=None, model=None, **options):
    torch.manual_seed(0)
    return Trainer(model or tiny_ssd(4), data or shapes(), Options(**QUICK | options), out, evaluate, resume)


def curve(out):
    with open(out / "log.csv") as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def test_learns(tmp_path):
    data, epochs = shapes(8, "none"), []
    data.set_epoch = epochs.append
    trainer(tmp_path, data=data, epochs=40, lr=0.02, clip=5.0).run()
    assert epochs == [*range(40)]
    losses = [row["loss"] for row in curve(tmp_path)]
    assert len(losses) == 80
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "accumulate": 2, "optimizer": "adamw", "amp": "bf16"}])
def test_resume_amid_an_epoch_is_exact(tmp_path, options):
    whole, broken = trainer(tmp_path / "whole", **options), trainer(tmp_path / "broken", checkpoint_steps=1, **options)
    whole.run()
    stop_at = 1 if options else 4
    step, save = broken._step, broken.save

    def killed(name):  # as after a kill in the next step, before it is saved
        save(name)
        if broken.step == stop_at:
            broken._step = lambda batches: (step(batches), 1 / 0)[0]

    broken.save = killed
    with pytest.raises(ZeroDivisionError):
        broken.run()
    with open(tmp_path / "broken/log.csv", "a") as file:
        file.write(f"{stop_at + 1},1,0.1,0.1,0.1,0.1,1\n1")  # not saved, and cut off
    resumed = trainer(tmp_path / "broken", resume=True, **options)
    assert (resumed.step, resumed.done > 0) == (stop_at, True)
    resumed.run()
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")
    first, second = load(tmp_path / "whole/last.pt"), load(tmp_path / "broken/last.pt")
    assert same(first["weights"], second["weights"])
    assert first["training"]["epoch"] == 2
    if options:
        assert same(first["training"]["weights"], second["training"]["weights"])
        assert not same(first["training"]["weights"], first["weights"])


def test_resume_refuses_other_data(tmp_path):
    trainer(tmp_path, steps=1).run()
    with pytest.raises(ValueError, match=r"batch_size: the run in .* has 4 images a step, got 2 x 1"):
        trainer(tmp_path, resume=True, batch_size=2)
    with pytest.raises(ValueError, match=r"data: the run in .* has 10 images, got 11"):
        trainer(tmp_path, resume=True, data=shapes(11))
    trainer(tmp_path, resume=True, batch_size=2, accumulate=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_signal_saves_and_resumes(tmp_path, workers):
    trainer(tmp_path / "whole").run()
    broken = trainer(tmp_path / "broken", workers=workers)
    step = broken._step

    def interrupted(batches):
        if broken.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batches)

    broken._step = interrupted
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM at step 2 of 6"):
        broken.run()
    assert signal.getsignal(signal.SIGTERM) == before
    assert load(tmp_path / "broken/last.pt")["training"]["done"] == 2
    trainer(tmp_path / "broken", resume=True).run()
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")


def test_signal_in_the_evaluation(tmp_path, heard):
    def evaluate(model, epoch):
        if not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return {"AP": 0.5 + epoch}

    with pytest.raises(Interrupted, match="SIGINT in the evaluation"):
        trainer(tmp_path, evaluate).run()
    resumed = trainer(tmp_path, evaluate, resume=True)
    assert (resumed.step, resumed.done) == (3, 3)
    resumed.run()
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in rows] == [["step", "epoch", "AP"], ["3", "0", "0.5"], ["6", "1", "1.5"]]


def test_best_is_kept(tmp_path):
    seen = []

    def evaluate(model, epoch):
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"AP": [0.1, 0.3, 0.2][epoch]}

    trainer(tmp_path, evaluate, epochs=3).run()
    model, best = load_model(tmp_path / "best.pt")
    assert same(best["weights"], seen[1])
    assert same(load(tmp_path / "last.pt")["weights"], seen[2])
    assert best["classes"] == ["circle", "square", "triangle"]
    assert model.config == {"name": "tiny_ssd", "num_classes": 4}
    assert not model.training


class Faulty(torch.nn.Module):
    """A loss that is NaN in the given calls."""

    def __init__(self, bad):
        super().__init__()
        self.weight, self.calls, self.bad = torch.nn.Parameter(torch.ones(2, 2)), 0, bad
        self.config = {"name": "faulty", "num_classes": 4}

    def forward(self, images, targets):
        self.calls += 1
        return {"loss": self.weight.sum() * (float("nan") if self.calls in self.bad else 1)}


def test_steps_without_finite_losses_are_left_out(tmp_path, capsys):
    model = Faulty({2, 3})
    trainer(tmp_path, model=model, lr=0.1).run()
    assert model.weight.isfinite().all()
    assert "step 2 left out: expected finite numbers, got the losses {'loss': nan}" in capsys.readouterr().err
    assert len(curve(tmp_path)) == 6
    trainer(tmp_path, model=Faulty({2, 3, 5, 6}), bad_steps=3).run()
    with pytest.raises(TrainingError, match=r"none in 3 steps up to step 4.*nan"):
        trainer(tmp_path, model=Faulty({2, 3, 4}), bad_steps=3).run()


def test_accumulation_is_a_larger_batch(tmp_path):
    for name, options in {"a": {"batch_size": 4}, "b": {"batch_size": 2, "accumulate": 2}}.items():
        model = Faulty(())
        model.forward = lambda images, targets, m=model: {
            "x": sum((m.weight * i.mean()).sum() for i in images) / len(images)
        }
        trainer(tmp_path / name, model=model, lr=0.1, **options).run()
    a, b = (load(tmp_path / name / "last.pt")["weights"]["weight"] for name in "ab")
    torch.testing.assert_close(a, b)
    assert not torch.equal(a, torch.ones(2, 2))


def test_a_write_that_breaks_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    with atomic(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_pictures_and_problems(tmp_path, capsys):
    held_out = HeldOut(shapes(5, None, split="val"), lambda model, data: {"AP": 0.5}, tmp_path, pictures=2)
    held_out.save_image()
    run = trainer(tmp_path, held_out, steps=1)
    run.logs.add_problems([f"row {i % 15}" for i in range(30)])
    assert len(run.logs.problems) == 15
    assert capsys.readouterr().err.count("left out") == 11
    run.run()
    assert (tmp_path / "image.jpg").stat().st_size > 500
    assert (tmp_path / "samples/epoch_001.jpg").stat().st_size > 5000
