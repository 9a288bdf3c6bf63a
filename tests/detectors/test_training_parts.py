import argparse
import math
import subprocess
import sys
from itertools import chain

import pytest
from tiny import torch

from boxops.cli.train import add_arguments, options_of
from boxops.training import Options
from boxops.training.parts import make_optimizer, make_schedule, order


def test_order_is_a_slice_of_one_process_with_the_whole_batch():
    options, alone = Options(batch_size=3, accumulate=2, seed=5), Options(batch_size=6, accumulate=2, seed=5)
    parts = [order(20, options, epoch=1, rank=rank, world=2) for rank in (0, 1)]
    whole = order(20, alone, epoch=1)
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    assert len(whole) == 4  # two steps of two batches of six
    assert {*chain(*whole)} == {*range(20)}
    assert order(20, alone, epoch=2) != whole
    assert order(20, Options(batch_size=6, accumulate=2, seed=6), epoch=1) != whole
    assert len([*chain(*order(20, Options(batch_size=5, samples=50), 0))]) == 50


def test_optimizer_spares_biases_and_slows_the_pretrained_part():
    model = torch.nn.ModuleDict({
        "backbone": torch.nn.ModuleDict({"body": torch.nn.Conv2d(1, 1, 1), "fpn": torch.nn.Conv2d(1, 1, 1)}),
        "norm": torch.nn.BatchNorm2d(1),
    })  # fmt: skip
    optimizer = make_optimizer(model, Options(lr=1.0, weight_decay=0.5, backbone_lr=0.1))
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    named = {name: found[id(p)] for name, p in model.named_parameters()}
    assert named == {
        "backbone.body.weight": (0.1, 0.5), "backbone.body.bias": (0.1, 0), "backbone.fpn.weight": (1, 0.5),
        "backbone.fpn.bias": (1, 0), "norm.weight": (1, 0), "norm.bias": (1, 0),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "last"), [("cosine", 0.0), ("multistep", 0.01), ("constant", 1.0)])
def test_schedules(kind, last):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule, rates = make_schedule(optimizer, Options(schedule=kind, warmup=9), 100), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9] == pytest.approx(1)
    assert rates[-1] == pytest.approx(last, abs=1e-3)
    assert sorted(rates[9:], reverse=True) == rates[9:]


def of_torch(optimizer, kind, warmup, total):
    """The same schedule of torch's own parts."""
    from torch.optim import lr_scheduler as torchs

    after = total - warmup
    rise = torchs.LinearLR(optimizer, 1 / (warmup + 1), 1, warmup) if warmup else None
    falls = {
        "cosine": lambda: torchs.CosineAnnealingLR(optimizer, after),
        "multistep": lambda: torchs.MultiStepLR(optimizer, [-(-after * 2 // 3), -(-after * 8 // 9)]),
        "constant": lambda: torchs.ConstantLR(optimizer, 1, 0),
    }
    fall = falls[kind]()
    return torchs.SequentialLR(optimizer, [rise, fall], [warmup]) if warmup else fall


@pytest.mark.parametrize("kind", ["cosine", "multistep", "constant"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 50), (1, 50), (10, 100), (37, 331)])
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own
def test_schedules_are_closed_forms_at_every_step(kind, warmup, total):
    """The warm-up is the line from 0, one step before the first, to eta at its end; from there on step t of T has
    (1 + cos(pi t / T)) eta / 2, or eta and a tenth of it from 2 T / 3 and 8 T / 9 on; two rates keep their ratio."""
    eta = (0.4, 0.04)

    def optimizer():
        return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in eta])

    ours, theirs = optimizer(), optimizer()
    schedule = make_schedule(ours, Options(schedule=kind, warmup=warmup), total)
    other = of_torch(theirs, kind, warmup, total)
    for step in range(total):
        rates = [group["lr"] for group in ours.param_groups]
        t, after = step - warmup, total - warmup
        if step < warmup:
            share = (step + 1) / (warmup + 1)
        else:
            tenths = (3 * t >= 2 * after) + (9 * t >= 8 * after)
            share = {"cosine": (1 + math.cos(t * math.pi / after)) / 2, "multistep": 0.1**tenths, "constant": 1}[kind]
        assert rates == pytest.approx([rate * share for rate in eta], rel=1e-9, abs=1e-12), step
        assert [group["lr"] for group in theirs.param_groups] == pytest.approx(rates, rel=1e-6, abs=1e-9), step
        for some, rule in ((ours, schedule), (theirs, other)):
            some.step()
            rule.step()


@pytest.mark.parametrize(("total", "rising"), [(330, 33), (50_000, 1000), (9, 0)])
def test_warmup_is_a_tenth_of_a_short_run(total, rising):
    optimizer = make_optimizer(torch.nn.Linear(1, 1), Options(lr=1.0))
    factor = make_schedule(optimizer, Options(schedule="constant"), total).lr_lambdas[0]
    rates = [factor(step) for step in range(rising + 2)]
    assert rates == pytest.approx([(step + 1) / (rising + 1) for step in range(rising)] + [1, 1])


@pytest.mark.parametrize(
    ("model", "flags", "rate", "backbone"),
    [
        ("ssd300_mobilenet_v2", [], 1e-3, 1),
        ("ssd300_mobilenet_v2", ["--backbone-weights", "f"], 1e-3, 0.1),
        ("faster_rcnn_mobilenet_v2_fpn", ["--weights", "f"], 5e-4, 0.2),
        ("faster_rcnn_mobilenet_v2_fpn", ["--weights", "f", "--backbone-lr", "0.3"], 5e-4, 0.3),
        ("ssd300_mobilenet_v2", ["--backbone-weights", "f", "--optimizer", "sgd", "--lr", "0.01"], 0.01, 0.1),
        ("faster_rcnn_resnet50_fpn", ["--backbone-weights", "f"], 5e-3, 1),
        ("ssd300_vgg16", ["--backbone-weights", "f"], 5e-4, 1),
    ],
)
def test_rates_by_default(model, flags, rate, backbone):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = options_of(parser.parse_args([model, "--data", "voc", *flags]), model, {})
    assert (options.lr, options.backbone_lr) == (rate, backbone)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "lr: expected a number of 0 or more, got -1"),
        ({"lr": float("nan")}, "lr: expected"),
        ({"batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        ({"schedule": "poly"}, "schedule: expected one of cosine, multistep, constant, got 'poly'"),
        ({"ema": 1.0}, "ema: expected a decay below 1"),
    ],
)
def test_options_are_checked(options, text):
    with pytest.raises(ValueError, match=text):
        Options(**options)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_freed_block_keeps_its_pages(tmp_path):
    """Else the system zeroes 64 MB again for each, 16384 pages; the heap may grow by one of them first. In a process of
    its own: in a heap as full of holes as that of a test run, a small block takes the place of the large one."""
    code = """
import resource, torch
from boxops.training.parts import keep_memory
keep_memory()
torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    command = [sys.executable, "-c", code]
    faults = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(faults.stdout) < 2 * 16384
