"""Two gloo processes are one with the whole batch: synchronised batch norms, and the shapes of batches."""

import copy
import random
import socket

import pytest
from commands import needs_fork
from scenes import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from boxops.data import open_dataset, transforms
from boxops.models.sizes import MultiScale
from boxops.training import Options, Trainer, sync_bn
from boxops.training.parts import seed_of

CPU = torch.device("cpu")


class Network(nn.Module):
    """Batch norms of images and of rows, one of them without weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, 2),
                                  nn.BatchNorm2d(6, affine=False, momentum=None), nn.Tanh())  # fmt: skip
        self.rows = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, images):
        return self.rows(self.conv(images).mean(dim=(2, 3)))[:, 0]


class Sizes(nn.Module):
    """Writes the shape of each batch down, of images of any size, in a model whose only number learns."""

    def __init__(self):
        super().__init__()
        self.config = {"name": "sizes"}
        self.number, self.seen = nn.Parameter(torch.ones(1)), []
        self.transform = MultiScale(96, 200, [0.0] * 3, [1.0] * 3)

    def forward(self, images, targets):
        batch, _ = self.transform(images, targets)
        self.seen.append((*batch.tensors.shape[2:],))
        return {"loss": (self.number * torch.rand(1)).sum()}  # other numbers in other processes


def data():
    shapes = open_dataset("shapes", length=24, size=64, masks=False, keypoints=False)
    transforms.augment(shapes, "flip")
    return shapes


def steps(model, images, parts, scale):
    """The sum of squares of two steps, and the weights and statistics after them."""
    run = DistributedDataParallel(model) if distributed.is_initialized() else model
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.05), []
    for batch in images:
        loss = scale * run(batch[parts]).square().sum() / len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach() / scale)
    return torch.stack(losses), copy.deepcopy(model.state_dict())


def process(rank, port, model, images, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    import os

    model = sync_bn.convert(model, CPU)
    parts = slice(0, 5) if rank == 0 else slice(5, None)  # of 8: one process has more than the other
    losses, state = steps(model, images, parts, 2)
    evaluated = model.eval()(images[0])
    os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
    sizes = Sizes()
    options = Options(epochs=2, batch_size=2, workers=0, device="cpu", pictures=0, sync_bn=True, accumulate=2)
    Trainer(sizes, data(), options, folder).run()
    torch.save((losses, state, evaluated, sizes.seen), folder / f"rank{rank}")
    distributed.destroy_process_group()


@needs_fork
def test_two_processes_are_one(tmp_path):
    torch.manual_seed(0)
    model = Network()
    images = [3 + torch.randn(8, 3, 9, 11) * torch.arange(1.0, 9)[:, None, None, None] for _ in range(2)]
    losses, state = steps(copy.deepcopy(model), images, slice(None), 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(process, (port, model, images, tmp_path), nprocs=2, start_method="fork")
    results = [torch.load(tmp_path / f"rank{rank}") for rank in range(2)]
    torch.testing.assert_close(results[0][0] + results[1][0], losses)  # sums over images
    for _, own, evaluated, _ in results:
        assert own.keys() == state.keys()  # checkpoints are those of ordinary batch norms
        torch.testing.assert_close(own, state, rtol=1e-4, atol=1e-5)
        whole = copy.deepcopy(model).eval()
        whole.load_state_dict(own)
        torch.testing.assert_close(evaluated, whole(images[0]))
    shapes = [seen for *_, seen in results]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 12
    assert len({*shapes[0]}) == 3 and all(side % 32 == 0 for shape in shapes[0] for side in shape)
    assert all(64 <= side <= 160 for shape in shapes[0] for side in shape)


def test_the_norm_alone():
    """Of one process it is the ordinary one, with gradients, and in bfloat16 its count is not rounded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        norm = nn.BatchNorm2d(4).double()
        nn.init.normal_(norm.weight)
        own = sync_bn.convert(copy.deepcopy(norm), CPU)
        x = torch.randn(3, 4, 13, 17, dtype=torch.float64) + 5
        ways = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [module(way) for module, way in zip((norm, own), ways, strict=True)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            (output * x).square().sum().backward()
        torch.testing.assert_close(ways[0].grad, ways[1].grad)
        torch.testing.assert_close(norm.weight.grad, own.weight.grad)
        torch.testing.assert_close(norm.state_dict(), own.state_dict())
        small = own.float()(x.bfloat16())
        assert small.dtype == torch.bfloat16
        torch.testing.assert_close(small.double(), norm(x.bfloat16().double()), rtol=0.02, atol=0.02)
    finally:
        distributed.destroy_process_group()


def test_shapes_are_functions_of_seed_and_step():
    """Multiples of 32 from 10 to 19 thirteenths, of which a resume draws the same; in evaluation the size itself."""
    transform = MultiScale(96, 200, [0.0] * 3, [1.0] * 3).train()
    seen = []
    for step in [*range(12), *range(6)]:
        random.seed(seed_of(0, step, 0))
        batch, targets = transform([torch.rand(3, 50, 100)], [{"boxes": torch.tensor([[0.0, 0, 100, 50]])}])
        height, width = batch.image_sizes[0]
        assert abs(width - 2 * height) <= 2 and height in (64, 96, 128) and batch.tensors.shape[2] == height
        assert targets[0]["boxes"].tolist() == [[0, 0, width, height]]
        seen.append(height)
    assert seen[12:] == seen[:6] and {*seen} == {64, 96, 128}
    assert transform.eval()([torch.rand(3, 50, 100)])[0].image_sizes == [(96, 192)]
    with pytest.raises(ValueError, match=r"multi_scale: expected one min_size with it, got \(64, 96\)"):
        MultiScale((64, 96), 200, [0.0] * 3, [1.0] * 3)
