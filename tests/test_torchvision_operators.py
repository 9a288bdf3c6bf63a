"""torchvision's operators on boxops' kernels: the same results by every route, and torchvision's own again after."""

import io
import threading
import time

import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
from test_machine import fresh_python  # noqa: E402
from torchvision.ops import RoIAlign, nms, roi_align  # noqa: E402  # before anything is overridden

from boxops.torch_ops import torchvision as module  # noqa: E402
from boxops.torch_ops.torchvision import OPERATORS, POOLING, override  # noqa: E402

own = torch.ops.torchvision
BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
NAN_FIRST = torch.tensor([float("nan"), 0.5])  # ranked first by torchvision, last by boxops
NOWHERE = torch.tensor([[1.0, 0, 0, 4, 4]])  # of an image that does not exist: boxops says so


def kernels(name="nms", device="cpu"):
    """The places that the operator's kernels for the device are from, the one in use first."""
    lines = torch._C._dispatch_dump(f"torchvision::{name}").splitlines()
    return [line.split(" :: ")[0] for line in lines if line.startswith(device.upper())]


@pytest.fixture(autouse=True)
def restored():
    before = {(name, device): kernels(name, device) for name in OPERATORS for device in ("cpu", "cuda")}
    yield
    assert before == {key: kernels(*key) for key in before}


@pytest.fixture
def overridden():
    undo = override()
    yield
    undo()


def calls(dtype):
    """Arguments of each operator by name: dense, channels last, strided, and with no box."""
    torch.manual_seed(0)
    features = torch.rand(2, 8, 12, 14, dtype=dtype)
    corners = torch.rand(30, 2, dtype=dtype) * 20
    boxes = torch.cat([corners, corners + 1 + torch.rand(30, 2, dtype=dtype) * 10], 1)
    rois = torch.cat([torch.arange(30)[:, None] % 2, boxes], 1).to(dtype)
    scores = torch.rand(30, dtype=dtype)
    strided = torch.empty(30, 9, dtype=dtype)[:, ::2].copy_(rois)
    rotated = torch.cat([boxes[:, :2], 1 + boxes[:, 2:] / 4, 360 * scores[:, None]], 1)
    yield "nms", (boxes, scores, 0.3)
    yield "nms", (strided[:, 1:], scores.expand(2, 30).t()[:, 0], 0.3)
    yield "nms", (boxes[:0], scores[:0], 0.3)
    yield "box_iou_rotated", (rotated, rotated[:7])
    for x in (features, features.to(memory_format=torch.channels_last), features.transpose(2, 3)):
        for r in (rois, strided, rois[:0]):
            for ratio in (-1, 2):
                yield "roi_align", (x, r, 0.4, 3, 2, ratio, ratio == 2)
                yield "ps_roi_align", (x, r, 0.4, 2, 2, ratio)
            yield "roi_pool", (x, r, 0.4, 3, 2)
            yield "ps_roi_pool", (x, r, 0.4, 2, 2)
    grad, part = torch.rand(30, 8, 3, 2, dtype=dtype), torch.rand(30, 2, 2, 2, dtype=dtype)
    inside = torch.cat([rois[:, :1], rois[:, 1:].clamp(max=25)], 1)  # at the border torchvision's is wrong
    argmax, mapping = own.roi_pool(features, rois, 0.4, 3, 2)[1], own.ps_roi_pool(features, rois, 0.4, 2, 2)[1]
    for g in (grad, grad.transpose(0, 1).contiguous().transpose(0, 1)):
        yield "_roi_align_backward", (g, rois, 0.4, 3, 2, 2, 8, 12, 14, 2, True)
        yield "_roi_pool_backward", (g, rois, argmax, 0.4, 3, 2, 2, 8, 12, 14)
    yield "_ps_roi_align_backward", (part, rois, mapping, 0.4, 2, 2, -1, 2, 8, 12, 14)
    yield "_ps_roi_pool_backward", (part, inside, mapping, 0.4, 2, 2, 2, 8, 12, 14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_agree(device, dtype):
    with torch.device(device):
        every = list(calls(dtype))
    assert {name for name, _ in every} == set(OPERATORS)
    for name, arguments in every:
        operator = getattr(own, name).default
        expected = operator(*arguments)
        undo = override()
        assert "torch_ops/torchvision.cpp" in kernels(name, device)[0]
        result = operator(*arguments)
        undo()
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_half(overridden):
    """float16 and bfloat16 give what their numbers give in float32."""
    for dtype in (torch.float16, torch.bfloat16):
        for name, arguments in calls(torch.float32):
            if name == "nms" or name in POOLING:
                low = [some.to(dtype) if isinstance(some, torch.Tensor) else some for some in arguments]
                high = [some.float() if isinstance(some, torch.Tensor) else some for some in low]
                result, expected = getattr(own, name)(*low), getattr(own, name)(*high)
                torch.testing.assert_close(result, expected, rtol=0.01, atol=0.01, check_dtype=False)


def routes():
    """Functions of (boxes, scores) that end in nms, made before the override."""

    class Module(torch.nn.Module):
        def forward(self, boxes, scores):
            return torchvision.ops.nms(boxes, scores, 0.5)

    def plain(boxes, scores):
        return torchvision.ops.nms(boxes, scores, 0.5)

    saved = io.BytesIO()
    torch.export.save(torch.export.export(Module(), (BOXES, NAN_FIRST)), saved)
    saved.seek(0)
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(Module()), scripted)
    scripted.seek(0)
    return {
        "early import": lambda boxes, scores: nms(boxes, scores, 0.5),
        "torch.ops": lambda boxes, scores: torch.ops.torchvision.nms(boxes, scores, 0.5),
        "module": Module(),
        "exported": torch.export.load(saved).module(),
        "scripted": torch.jit.load(scripted),
        "compiled": torch.compile(plain, backend="aot_eager"),
        "batched": lambda boxes, scores: torchvision.ops.batched_nms(boxes, scores, torch.zeros(2), 0.5),
    }


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_routes_of_nms():
    every = routes()
    for _ in range(2):  # the compiled one is compiled once
        assert {name: call(BOXES, NAN_FIRST).tolist() for name, call in every.items()} == {
            name: [0, 1] for name in every
        }
        undo = override()
        assert {name: call(BOXES, NAN_FIRST).tolist() for name, call in every.items()} == {
            name: [1, 0] for name in every
        }
        undo()


def test_routes_of_roi_align(overridden):
    """A module and an exported program of it, saved; gradients come from boxops' kernel too."""
    features, module = torch.rand(1, 2, 8, 8), RoIAlign(2, 1.0, 2)
    exported = torch.export.export(module, (features, torch.zeros(1, 5)))
    for call in (module, exported.module(), lambda x, rois: roi_align(x, rois, 2)):
        with pytest.raises(RuntimeError, match="expected image indices"):
            call(features, NOWHERE)
    result = module(features.requires_grad_(), torch.tensor([[0.0, 0, 0, 6, 6]]))
    result.sum().backward()
    torch.testing.assert_close(features.grad.sum(), torch.tensor(8.0))
    with pytest.raises(RuntimeError, match=r"roi_align_backward: expected grad of shape \[K, 3, 2, 2\]"):
        own._roi_align_backward(result.detach(), NOWHERE, 1.0, 2, 2, 1, 3, 8, 8, 2, False)


def test_errors_are_torchvisions_kind():
    """What torchvision refuses is refused, with a RuntimeError in the house's words."""
    scores, features, rois = torch.rand(2), torch.rand(1, 4, 8, 8), torch.zeros(1, 5)
    bad = {
        "nms: expected boxes and scores of one dtype, got float32 and float64": (nms, BOXES, scores.double(), 0.5),
        r"nms: expected boxes of shape \[N, 4\]": (nms, torch.rand(2, 5), scores, 0.5),
        "nms: expected": (nms, BOXES, torch.rand(3), 0.5),
        "box_iou_rotated: expected boxes1 and boxes2 of one dtype": (
            own.box_iou_rotated,
            torch.rand(2, 5),
            torch.rand(2, 5).double(),
        ),
        "roi_align: expected input and rois of one dtype": (roi_align, features, rois.double(), 2),
        r"roi_align: expected boxes of shape \[K, 5\]": (own.roi_align, features, rois[:, 1:], 1.0, 2, 2, 2, False),
        "roi_pool: expected input and rois of one dtype": (torchvision.ops.roi_pool, features, rois.double(), 2),
        "ps_roi_pool: expected channels": (torchvision.ops.ps_roi_pool, features, rois, 3),
    }
    for words, (call, *arguments) in bad.items():
        with pytest.raises(RuntimeError):
            call(*arguments)
        undo = override()
        try:
            with pytest.raises(RuntimeError, match=words):
                call(*arguments)
        finally:
            undo()


@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_what_stays_torchvisions(overridden):
    """Fakes, autocast, the quantised kernel, and the ban of a second derivative."""
    assert own.roi_align(*(torch.rand(1, 4, 8, 8, device="meta"), torch.rand(3, 5, device="meta")), 1.0, 2, 2, 2,
                         False).shape == (3, 4, 2, 2)  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        pooled = roi_align(torch.rand(1, 4, 8, 8).bfloat16(), torch.zeros(1, 5), 2)
    assert pooled.dtype == torch.bfloat16
    quantise = torch.quantize_per_tensor
    quantised = quantise(BOXES, 0.5, 0, torch.qint8), quantise(torch.tensor([0.5, 0.75]), 0.01, 0, torch.qint8)
    assert nms(*quantised, 0.5).tolist() == [1, 0]
    features = torch.rand(1, 2, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        roi_align(features, torch.zeros(1, 5), 2).pow(2).sum(), features, create_graph=True
    )
    with pytest.raises(RuntimeError, match="double backwards"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_iou_at_the_threshold(dtype):
    """IoUs of 1 / n, 2 / n, ... against just these thresholds, which torchvision's CPU kernel does not round."""
    for n in range(2, 40):
        for k in range(1, n):
            boxes, scores = torch.tensor([[0, 0, n, 1], [0, 0, k, 1]], dtype=dtype), torch.tensor([1, 0.5], dtype=dtype)
            expected = nms(boxes, scores, k / n)
            undo = override()
            result = nms(boxes, scores, k / n)
            undo()
            assert result.tolist() == expected.tolist(), (k, n)


def test_nests_in_any_order():
    first, second = override(), override()
    assert len(kernels()) == 3
    first()
    first()
    assert len(kernels()) == 2
    assert nms(BOXES, NAN_FIRST, 0.5).tolist() == [1, 0]
    second()
    assert nms(BOXES, NAN_FIRST, 0.5).tolist() == [0, 1]


def test_silent_and_asks_for_torchvision():
    """torch warns of overridden kernels once in a process, on stderr from C++: not here."""
    code = """
import torch, warnings
from boxops.torch_ops.torchvision import override
try:
    override()
except RuntimeError as error:
    print(error)
warnings.simplefilter("error")
torch.set_warn_always(True)
import torchvision
override()()
"""
    done = fresh_python(code)
    assert done.stdout == "override: expected torchvision's operators (import torchvision first), got none\n"
    assert (done.returncode, "Overriding" in done.stderr) == (0, False), done.stderr


def test_threads():
    """Others call the operators while kernels come and go."""
    torch.manual_seed(0)
    features, rois = torch.rand(1, 4, 8, 8), torch.tensor([[0.0, 1, 1, 7, 7]])
    expected, failures, stop = own.roi_align(features, rois, 1.0, 2, 2, 2, False), [], False

    def work():
        while not stop:
            result = own.roi_align(features, rois, 1.0, 2, 2, 2, False)
            if not torch.allclose(result, expected, atol=1e-5) or own.nms(BOXES, BOXES[:, 0], 0.5).tolist() != [1, 0]:
                failures.append(result)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    end, rounds = time.monotonic() + 1.5, 0
    while time.monotonic() < end:
        override()()
        rounds += 1
    stop = True
    for worker in workers:
        worker.join()
    assert not failures
    assert rounds > 20


def test_undone_kernels_live_on(monkeypatch):
    """For a while: another thread may be inside them, and torch frees what nobody holds."""
    module._retired.clear()
    override()()
    ((_, kernels),) = module._retired
    assert len(kernels) == 2 * len(OPERATORS)
    monkeypatch.setattr(module, "_GRACE", -1.0)
    override()()
    assert not module._retired
