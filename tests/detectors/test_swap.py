"""patch_torchvision: whatever leads to torchvision's functions reaches boxops' kernels, and all comes back undone."""

import copy
import inspect
import io
import pickle
import pkgutil
import threading
import warnings

import pytest
from scenes import torch, torchvision
from swap_calls import counting
from torchvision.ops import box_iou as early_box_iou
from torchvision.ops import nms as early_nms
from torchvision.ops import roi_align as early_roi_align

import boxops
from boxops import swap

detection, ops = torchvision.models.detection, torchvision.ops
BOXES = torch.tensor([[10.0, 10, 30, 40], [12, 12, 33, 41], [50, 5, 70, 66], [1, 1, 1.5, 9], [-5, -5, 90, 90]])
SCORES = torch.tensor([0.5, 0.9, 0.3, 0.7, 0.2])
FEATURES = torch.linspace(0, 1, 8 * 20 * 30).sin().reshape(1, 8, 20, 30)
MASKS = torch.arange(3 * 20 * 20).reshape(3, 20, 20) % 7 == 0


def functions():
    return [pkgutil.resolve_name(path) for path, *_ in swap.TABLE]


def held():
    """What torchvision holds: the functions, their code, and the names and signatures that others see."""
    return [
        (function, function.__code__, function.__name__, function.__module__, str(inspect.signature(function)))
        for function in functions()
    ]


@pytest.fixture(autouse=True)
def restored():
    before = held()
    yield
    assert held() == before


CALLS = {
    "batched_nms": (BOXES, SCORES, torch.tensor([1, 1, 0, 0, 1]), 0.5),
    "box_convert": (BOXES, "xyxy", "cxcywh"),
    "clip_boxes_to_image": (BOXES, (60, 50)),
    "remove_small_boxes": (BOXES, 2.0),
    "masks_to_boxes": (MASKS,),
    "box_iou": (BOXES, BOXES[:2].double()),
    "generalized_box_iou": (BOXES, BOXES[:2]),
    "distance_box_iou": (BOXES, BOXES[:2]),
    "complete_box_iou": (BOXES, BOXES[:2]),
    "generalized_box_iou_loss": (BOXES, BOXES.flip(0)),
    "distance_box_iou_loss": (BOXES, BOXES.flip(0)),
    "complete_box_iou_loss": (BOXES, BOXES.flip(0)),
}


def test_all_functions_have_a_call():
    assert CALLS.keys() == {name for _, module, name in swap.TABLE if module.endswith("steps")} - {"pooler_forward"}


@pytest.mark.parametrize("name", CALLS)
def test_functions(name, monkeypatch):
    counts = counting(monkeypatch)
    expected = getattr(ops, name)(*CALLS[name])
    assert not counts
    with swap.patch_torchvision():
        result = getattr(ops, name)(*CALLS[name])
    assert counts == {name: 1}
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sides", [(40,), (40, 20, 10), (40, 40), (40, 10)])
def test_pooler(sides):
    """Also of one level, of two of one scale (MobileNetV3), and with a level left out."""
    features = {str(i): torch.rand(2, 3, side, side) for i, side in enumerate(sides)}
    corners = torch.rand(2, 30, 2, 2).sort(dim=2).values * 160
    boxes = list(corners.flatten(2))
    pooler, patched = (ops.MultiScaleRoIAlign([*features], 3, 2, canonical_scale=60) for _ in range(2))
    expected = pooler(features, boxes, [(160, 150), (140, 160)])
    with swap.patch_torchvision():
        result = patched(features, boxes, [(160, 150), (140, 160)])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


# What is not to change


def test_names_and_sources():
    """Functions stay themselves, so that names imported before, what a model holds, and pickles follow."""
    sources = [inspect.getsource(function) for function in functions()]
    own = functions()
    with swap.patch_torchvision():
        assert functions() == own and [inspect.getsource(function) for function in own] == sources
        assert pickle.loads(pickle.dumps(ops.box_iou)) is early_box_iou
        assert all(
            inspect.signature(now) == inspect.signature(before) for now, before in zip(functions(), own, strict=True)
        )


def test_early_names(monkeypatch):
    counts = counting(monkeypatch)
    with swap.patch_torchvision():
        early_box_iou(BOXES, BOXES[:3])
    assert counts == {"box_iou": 1}


def test_models_made_before_and_under():
    """torch.save, deepcopy, and another process read them: nothing of boxops is in them."""

    def made():
        anchors = detection.anchor_utils.AnchorGenerator(((32,),), ((1.0,),))
        head = detection.rpn.RPNHead(4, 1)
        limits = {"training": 10, "testing": 10}
        return detection.rpn.RegionProposalNetwork(anchors, head, 0.7, 0.3, 16, 0.5, limits, limits, 0.7)

    def saved(model):
        file = io.BytesIO()
        torch.save(model, file)
        return file

    def loaded(file):
        file.seek(0)
        assert b"boxops" not in file.getvalue()
        return torch.load(file, weights_only=False)

    before = made()
    with swap.patch_torchvision():
        under = made()
        files = [saved(model) for model in (before, under, copy.deepcopy(before), loaded(saved(under)))]
        assert loaded(files[0]).box_similarity is early_box_iou
    for model in (under, *map(loaded, files)):
        assert model.box_similarity is early_box_iou


def test_a_programs_own_function_stays(monkeypatch):
    def mine(boxes, scores, idxs, iou_threshold):
        return torch.arange(3)

    code = mine.__code__
    monkeypatch.setattr(ops.boxes, "batched_nms", mine)
    with swap.patch_torchvision():
        assert mine.__code__ is code and len(detection.rpn.box_ops.batched_nms(BOXES, SCORES, SCORES, 0.5)) == 3


def test_cell_anchors_set_by_hand():
    generator = detection.anchor_utils.AnchorGenerator(((32,), (64,)), ((0.5, 1.0),) * 2)
    images = detection.image_list.ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
    features = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)]
    for change in (lambda: None, lambda: generator.cell_anchors[1].mul_(2),
                   lambda: setattr(generator, "cell_anchors", [torch.ones(3, 4)] * 2)):  # fmt: skip
        change()
        expected = generator(images, features)
        with swap.patch_torchvision():
            torch.testing.assert_close(generator(images, features), expected, rtol=0, atol=0)


# Transforms, compilers, scripts


def test_func_and_forward_mode():
    def loss(boxes):
        return ops.generalized_box_iou_loss(boxes, BOXES + 0.3, "sum")

    calls = {
        "grad": lambda: torch.func.grad(loss)(BOXES),
        "jacfwd": lambda: torch.func.jacfwd(lambda boxes: ops.box_iou(boxes, BOXES + 0.3))(BOXES),
        "vmap": lambda: torch.func.vmap(lambda boxes: ops.box_convert(boxes, "xyxy", "xywh"))(BOXES[None]),
        "vjp": lambda: torch.func.vjp(loss, BOXES)[0],
        "jvp": lambda: torch.func.jvp(lambda boxes: ops.clip_boxes_to_image(boxes, (50, 50)), (BOXES,), (BOXES,))[1],
    }
    expected = {name: call() for name, call in calls.items()}
    with swap.patch_torchvision():
        torch.testing.assert_close({name: call() for name, call in calls.items()}, expected)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripts_and_traces():
    """TorchScript reads torchvision's source, and its programs reach the operators."""
    expected = ops.box_iou(BOXES, BOXES), ops.batched_nms(BOXES, SCORES, torch.zeros(5, dtype=torch.int64), 0.5)
    with swap.patch_torchvision():
        iou, groups = torch.jit.script(ops.box_iou), torch.jit.script(ops.batched_nms)
        traced = torch.jit.trace(lambda a, b: ops.box_iou(a, b), (BOXES, BOXES[:3]))
        assert "boxops" not in str(traced.graph)
        torch.testing.assert_close((iou(BOXES, BOXES), groups(BOXES, SCORES, torch.zeros(5).long(), 0.5)), expected)
        torch.testing.assert_close(traced(BOXES, BOXES), expected[0])


def test_compile_and_export():
    def both(boxes, scores):
        return ops.box_iou(boxes, boxes), ops.nms(boxes, scores, 0.5)

    class Module(torch.nn.Module):
        def forward(self, boxes, scores):
            return both(boxes, scores)

    expected = both(BOXES, SCORES)
    before = torch.compile(both, backend="eager", fullgraph=True)
    exported = torch.export.export(Module(), (BOXES, SCORES)).module()
    torch.testing.assert_close(before(BOXES, SCORES), expected)
    with swap.patch_torchvision():
        under = torch.compile(lambda *args: both(*args), backend="eager", fullgraph=True)
        program = torch.export.export(Module(), (BOXES, SCORES))
        assert "boxops" not in str(program.graph)
        for call in (before, under, exported, program.module()):
            torch.testing.assert_close(call(BOXES, SCORES), expected)
    for call in (before, under, program.module()):
        torch.testing.assert_close(call(BOXES, SCORES), expected)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
def test_onnx_export(dynamo):
    """The same file, to the byte."""
    pytest.importorskip("onnxscript")

    class Module(torch.nn.Module):
        def forward(self, boxes, scores, features):
            kept = ops.batched_nms(boxes, scores, scores.long(), 0.5), ops.nms(boxes, scores, 0.5)
            return *kept, ops.box_iou(boxes, boxes[:3]), ops.roi_align(features, [boxes], 3, 0.5, 2)

    def exported():
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            program = torch.onnx.export(Module(), (BOXES, SCORES, FEATURES), file, dynamo=dynamo, verbose=False)
        return program.model_proto.SerializeToString() if dynamo else file.getvalue()

    plain = exported()
    with swap.patch_torchvision():
        assert exported() == plain


def test_operators_by_every_route():
    """Rows outside of an IoU of 0.5 and a float threshold; images by index out of range are refused by ours alone."""
    rois = torch.tensor([[7.0, 1, 1, 9, 9]])  # of an image that there is not: only boxops looks
    routes = [
        lambda: early_roi_align(FEATURES, rois, 3),
        lambda: ops.RoIAlign(3, 1.0, 2)(FEATURES, rois),
        lambda: torch.ops.torchvision.roi_align(FEATURES, rois, 1.0, 3, 3, 2, False),
    ]
    with swap.patch_torchvision():
        for route in routes:
            with pytest.raises(RuntimeError, match="roi_align: expected"):
                route()
        torch.testing.assert_close(early_nms(BOXES, SCORES, 0.5), boxops.nms(BOXES, SCORES, 0.5))


def test_quantized():
    boxes = torch.quantize_per_tensor(BOXES.clamp(min=0), 1.0, 0, torch.quint8)
    scores = torch.quantize_per_tensor(SCORES, 0.1, 0, torch.quint8)
    expected = ops.nms(boxes, scores, 0.5)
    with swap.patch_torchvision():
        torch.testing.assert_close(ops.nms(boxes, scores, 0.5), expected)
        torch.testing.assert_close(ops.nms(boxes.dequantize(), scores.dequantize(), 0.5), expected)


def test_thresholds_are_compared_as_torchvision_compares_them():
    """On the CPU a float32 IoU exceeds a float64 threshold just below it."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 2], [100, 0, 110, 10], [100, 0, 110, 7]])
    scores, groups = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 1])
    for threshold in (0.2, 0.7, 0.5, 0.19999999):
        expected = ops.nms(boxes, scores, threshold), ops.batched_nms(boxes, scores, groups, threshold)
        with swap.patch_torchvision():
            result = ops.nms(boxes, scores, threshold), ops.batched_nms(boxes, scores, groups, threshold)
        torch.testing.assert_close(result, expected)


def test_equal_scores_of_many_boxes():
    boxes, ids = torch.rand(2000, 4, generator=torch.Generator().manual_seed(0)) * 500, torch.arange(2000) % 7
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] / 5 + 1
    expected = ops.batched_nms(boxes, (ids / 10).round(), ids, 0.5)
    with swap.patch_torchvision():
        assert torch.equal(ops.batched_nms(boxes, (ids / 10).round(), ids, 0.5), expected)


# Undoing


def test_undo_and_nesting():
    own = held()
    undo = boxops.patch_torchvision()
    under = held()
    assert all(now[1] is not before[1] for now, before in zip(under, own, strict=True))
    with swap.patch_torchvision() as inner:
        inner()
        assert held() == under
    with swap.patch_torchvision():
        undo()  # the outer one first
        assert held() == under
    assert held() == own
    undo()  # a second call does nothing
    assert held() == own
    with pytest.raises(ZeroDivisionError), swap.patch_torchvision():
        raise ZeroDivisionError
    assert held() == own


def test_threads():
    """Calls give the right result while other threads patch and undo."""
    expected = ops.box_iou(BOXES, BOXES), ops.nms(BOXES, SCORES, 0.5)
    stop, wrong = threading.Event(), []

    def call():
        while not stop.is_set():
            result = ops.box_iou(BOXES, BOXES), ops.nms(BOXES, SCORES, 0.5)
            if not all(torch.allclose(a, b) for a, b in zip(result, expected, strict=True)):
                wrong.append(result)

    def patch():
        for _ in range(20):
            with swap.patch_torchvision():
                ops.clip_boxes_to_image(BOXES, (5, 5))

    callers = [threading.Thread(target=call) for _ in range(2)]
    patchers = [threading.Thread(target=patch) for _ in range(2)]
    for thread in callers + patchers:
        thread.start()
    for thread in patchers:
        thread.join()
    stop.set()
    for thread in callers:
        thread.join()
    assert not wrong


def test_another_torchvision(monkeypatch):
    own = held()
    table = [*swap.TABLE, ("torchvision.ops.boxes.box_magic", "boxops.swap.steps", "box_iou")]
    with monkeypatch.context() as context:
        context.setattr(swap, "TABLE", table)
        with pytest.raises(RuntimeError, match=r"expected a function torchvision.ops.boxes.box_magic in torchvision"):
            swap.patch_torchvision()

    with swap.patch_torchvision():
        assert held() != own
