"""boxops as torch operators: opcheck, compile, export, vmap, autocast."""

import contextlib
import warnings

import cases
import pytest
from cases import calls, samples, tensors
from test_machine import output_of

import boxops

torch = pytest.importorskip("torch")


def registered():
    boxops.box_area(torch.zeros(1, 4))  # the first tensor loads the operators
    names = (name.split(".")[0] for name in torch._C._dispatch_get_all_op_names())
    return sorted({name.removeprefix("boxops::") for name in names if name.startswith("boxops::")})


@pytest.mark.parametrize("op", registered())
def test_opcheck(device, op):
    assert op in samples(device), f"boxops::{op} has no samples in tests/cases"
    for arguments in samples(device)[op]:
        torch.library.opcheck(getattr(torch.ops.boxops, op).default, arguments)


@pytest.mark.parametrize("op", calls("cpu"))
def test_compile(device, op):
    function, arguments = calls(device)[op]
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments), function(*arguments), rtol=0, atol=0)


def test_the_first_call_is_compiled():
    """By which the operators are loaded."""
    code = "import torch, boxops; f = torch.compile(boxops.box_area, fullgraph=True, backend='eager'); "
    assert output_of(code + "print(f(torch.ones(1, 4)).tolist())") == "[0.0]"


def test_compile_backward_with_dynamic_shapes(device):
    compiled = torch.compile(boxops.generalized_box_iou, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (5, 9):
        gradients = []
        for function in (compiled, boxops.generalized_box_iou):
            boxes = tensors(device, count)[0].requires_grad_()
            gradients.append(torch.autograd.grad(function(boxes, boxes.detach() + 1).sum(), boxes))
        torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.slow
def test_compile_with_inductor(device):
    def postprocess(boxes, scores):
        indices, counts = boxops.nms_padded(boxes + 1, scores * 0.5, 0.5, 9)
        return indices + 1, counts

    arguments = tensors(device, lead=(2,))
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(postprocess, fullgraph=True)(*arguments), postprocess(*arguments))


class Postprocess(torch.nn.Module):
    def forward(self, boxes, scores, labels):
        return boxops.nms_padded(boxes, scores, 0.5, 9, idxs=labels, score_threshold=0.1)


def test_export(device):
    boxes, scores = tensors(device, lead=(2,))
    labels = (scores * 3).long()
    count = torch.export.Dim("count", min=2, max=4096)
    shapes = ({1: count}, {1: count}, {1: count})
    program = torch.export.export(Postprocess(), (boxes, scores, labels), dynamic_shapes=shapes)
    longer = [torch.cat([x, x.flip(1)], dim=1) for x in (boxes, scores, labels)]
    for arguments in ([boxes, scores, labels], longer):
        torch.testing.assert_close(program.module()(*arguments), Postprocess()(*arguments))


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_vmap(device, op, paired):
    boxes = tensors(device, 6, lead=(3,))[0]
    for in_dims in ((0, 0), (0, None), (None, 0), (1, 0), (0, 2)):
        arguments = [boxes[1] if dim is None else boxes for dim in in_dims]
        moved = [b if dim is None else b.movedim(0, dim) for b, dim in zip(arguments, in_dims, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns where it loops over the batch
            got = torch.vmap(lambda a, b: getattr(boxops, op)(a, b, paired=paired), in_dims)(*moved)
        torch.testing.assert_close(got, getattr(boxops, op)(*arguments, paired=paired), rtol=0, atol=0)


@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_autocast(device, op):
    """Under autocast a model's low-precision boxes meet float32 targets; the op computes in float32."""
    boxes, _ = tensors(device)
    low = boxes.bfloat16()
    want = getattr(boxops, op)(low.float(), boxes)
    with torch.autocast(device, dtype=torch.bfloat16):
        got = getattr(boxops, op)(low, boxes)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("op", calls("cpu"))
def test_without_autograd(device, op, mode):
    function, arguments = calls(device)[op]
    with mode():
        got = function(*arguments)
    torch.testing.assert_close(got, function(*arguments), rtol=0, atol=0)


SEEN = []


class Watched(torch.Tensor):
    """A tensor whose class sees every call, and differentiates something of its own."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        SEEN.append((str(func), (torch.ones((), requires_grad=True) * 2).requires_grad))
        return super().__torch_function__(func, types, args, kwargs)


class Watching(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return Watched.__torch_function__(func, types, args, kwargs)


def test_the_autograd_kernel_is_not_passed_over_where_others_look_on():
    boxes = tensors()[0]
    for mode, some in ((Watching(), boxes), (contextlib.nullcontext(), boxes.as_subclass(Watched))):
        SEEN.clear()
        with mode:
            boxops.box_area(some)
        assert ("boxops.box_area.default", True) in SEEN
