"""What a model learns after the steps: order, progress, kills, more epochs, other runs in the folder."""

import os
import signal

import pytest
from test_training import trainer as make
from tiny import torch

from boxops.models.common import Stage
from boxops.training import Interrupted
from boxops.training.checkpoint import load


class Staged(torch.nn.Module):
    """Three stages of four items, each kept in a line of a file; ``seen`` has all that was done, in order."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("sums", torch.zeros(3))
        self.config = {"name": "staged", "num_classes": 4}
        self.seen, self.before_item = [], lambda name, item: None
        self.stages = [Stage(name, self.fitting(i)) for i, name in enumerate("abc")]

    def forward(self, images, targets):
        self.seen.append("step")
        return {"loss": self.weight * images[0].mean()}

    def fitting(self, i):
        def fit(model, data, run):
            assert model is self
            assert not model.training
            assert len(data) == 10
            file = run.folder / f"{run.name}.txt"
            done = file.read_text().splitlines() if file.exists() else []
            for item in run.track(range(len(done), 4), 4, len(done)):
                self.before_item(run.name, item)
                self.seen.append(f"{run.name}{item}")
                with file.open("a") as lines:
                    lines.write(f"{item + run.seed % 7}\n")
            self.sums[i] = sum(map(float, file.read_text().splitlines()))

        return fit


ITEMS = [f"{name}{item}" for name in "abc" for item in range(4)]


def trainer(out, model=None, **options):
    return make(out, model=model or Staged(), **options)


def test_order(tmp_path, capsys):
    """Steps, stages, and only then the evaluation, which an epoch alone does not have."""
    model = Staged()
    evaluations = []

    def evaluate(trained, epoch):
        model.seen.append("evaluation")
        evaluations.append((epoch, trained.sums.clone()))
        return {"AP": 0.5}

    run = trainer(tmp_path, model, evaluate=evaluate, eval_every=0)
    assert not run.finished
    run.run()
    assert run.finished
    assert model.seen == ["step"] * 6 + ITEMS + ["evaluation"]
    ((epoch, sums),) = evaluations
    assert epoch == 1
    assert sums.min() > 0
    assert torch.equal(load(tmp_path / "last.pt")["weights"]["sums"], sums)
    assert torch.equal(load(tmp_path / "best.pt")["weights"]["sums"], sums)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].startswith("6,1,0.5,")
    err = capsys.readouterr().err
    assert [err.index(f"{name} 4/4") for name in "abc"] == sorted(err.index(f"{name} 4/4") for name in "abc")
    assert "epoch 2 on held-out images: AP 0.500" in err
    again = trainer(tmp_path, model, evaluate=evaluate, resume=True, eval_every=0)
    assert again.finished
    again.run()
    assert model.seen[-1] == "evaluation"
    assert len(evaluations) == 1


def test_evaluations_between_see_what_the_epochs_gave(tmp_path):
    model, epochs = Staged(), []
    trainer(tmp_path, model, evaluate=lambda _, epoch: (epochs.append(epoch), {"AP": 0.1})[1], eval_every=1).run()
    assert epochs == [0, 1, 1]  # after each epoch, and after the stages


@pytest.mark.parametrize("at", ITEMS[::3])
def test_killed_in_a_stage(tmp_path, at):
    """Stages that are done are not done again, and the broken one goes on with the item that was not kept."""
    whole = Staged()
    trainer(tmp_path / "whole", whole).run()
    broken = Staged()

    def kill(name, item):
        if f"{name}{item}" == at:
            raise ZeroDivisionError

    broken.before_item = kill
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path / "broken", broken).run()
    resumed = Staged()
    run = trainer(tmp_path / "broken", resumed, resume=True)
    assert not run.finished
    run.run()
    assert broken.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.sums, whole.sums)


def test_a_signal_stops_between_items(tmp_path, heard):
    model = Staged()
    model.before_item = lambda name, item: os.kill(os.getpid(), signal.SIGTERM) if (name, item) == ("b", 1) else None
    with pytest.raises(Interrupted, match="SIGTERM in the stage b, after 2 of 4"):
        trainer(tmp_path, model).run()
    assert model.seen[-1] == "b1"  # it was finished and kept
    resumed = Staged()
    trainer(tmp_path, resumed, resume=True).run()
    assert resumed.seen == ITEMS[6:]


def test_a_signal_in_the_last_item(tmp_path, heard):
    model = Staged()
    model.before_item = lambda name, item: os.kill(os.getpid(), signal.SIGTERM) if (name, item) == ("a", 3) else None
    with pytest.raises(Interrupted, match="SIGTERM in the stage b, after 0 of 4"):
        trainer(tmp_path, model).run()


def test_more_epochs_run_the_stages_anew(tmp_path):
    model = Staged()
    trainer(tmp_path, model).run()
    assert [folder.name for folder in (tmp_path / "stages").iterdir()] == ["step_6"]
    model.seen.clear()
    run = trainer(tmp_path, model, resume=True, epochs=3)
    assert not run.finished
    run.run()
    assert model.seen == ["step"] * 3 + ITEMS
    assert [folder.name for folder in (tmp_path / "stages").iterdir()] == ["step_9"]


def test_their_files_go_with_the_run(tmp_path):
    from boxops.training import RunFolder

    trainer(tmp_path).run()
    (tmp_path / "stages/step_6/a.txt").write_text("1\n" * 4)  # of another run with as many steps
    model = Staged()
    trainer(RunFolder(tmp_path, overwrite=True), model).run()
    assert model.seen == ["step"] * 6 + ITEMS
    assert not (tmp_path / ".overwritten").exists()


def test_what_cannot_be_fitted_is_told_at_the_start(tmp_path):
    """And before anything of a former run is touched."""
    (tmp_path / "last.pt").write_text("old")
    model = Staged()

    def check(checked, data):
        assert checked is model
        raise ValueError(f"data: expected more than {len(data)} images")

    model.stages[1] = Stage("b", model.stages[1].fit, check)
    with pytest.raises(ValueError, match="expected more than 10 images"):
        trainer(tmp_path, model)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_seeds(tmp_path):
    """Of each stage another, and of the run's seed; torch's own numbers too."""

    def seeds(out, **options):
        found = []
        model = Staged()
        model.stages = [Stage(name, lambda *_: found.append((_[2].seed, torch.rand(())))) for name in "ab"]
        trainer(out, model, steps=1, **options).run()
        return found

    first, same, other = seeds(tmp_path / "1"), seeds(tmp_path / "2"), seeds(tmp_path / "3", seed=1)
    assert first == same
    assert len({seed for seed, _ in first + other}) == 4
