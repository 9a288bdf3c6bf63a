"""Fake kernels, gradients, autocast and vmap for the IoU operators."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import compute_type, refuse_tangents

iou_backward = torch.ops.boxops.iou_backward.default
_iou = torch.ops.boxops.iou.default


def iou(boxes1: Tensor, boxes2: Tensor, *rest) -> Tensor:
    refuse_tangents("box_iou", boxes1, boxes2)
    return _iou(boxes1, boxes2, *rest)


def _lead(boxes1: Tensor, boxes2: Tensor, paired: bool) -> torch.Size:
    drop = 1 if paired else 2
    return torch.broadcast_shapes(boxes1.shape[:-drop], boxes2.shape[:-drop])


@torch.library.register_fake("boxops::iou")
def _(boxes1, boxes2, measure, paired, format, iou_eps, eps):
    shape = _lead(boxes1, boxes2, paired)
    if not paired:
        if min(boxes1.dim(), boxes2.dim()) < 2:
            raise ValueError(
                f"box_iou: expected boxes of shape [..., N, 4], got {[*boxes1.shape]} and {[*boxes2.shape]}"
            )
        shape = (*shape, boxes1.shape[-2], boxes2.shape[-2])
    return boxes1.new_empty(shape, dtype=compute_type(boxes1.dtype, boxes2.dtype))


@torch.library.register_fake("boxops::iou_backward")
def _(grad, boxes1, boxes2, measure, paired, format, iou_eps, eps):
    lead, start = _lead(boxes1, boxes2, paired), -1 if paired else -2
    return grad.new_empty((*lead, *boxes1.shape[start:])), grad.new_empty((*lead, *boxes2.shape[start:]))


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _backward(ctx, grad: Tensor):
    boxes1, boxes2 = ctx.saved_tensors
    grads = iou_backward(grad, boxes1, boxes2, *ctx.rest)
    # The kernel's gradients have the broadcast shape; each input takes the sum over what was broadcast.
    return *(g.sum_to_size(b.shape).to(b.dtype) for g, b in zip(grads, (boxes1, boxes2), strict=True)), *[None] * 5


def _no_second_derivative(ctx, *grads):
    raise RuntimeError("box_iou: expected one derivative at most, got a request for the second (not implemented)")


torch.library.register_autograd("boxops::iou", _backward, setup_context=_setup)
torch.library.register_autograd("boxops::iou_backward", _no_second_derivative)


def _batch_first(boxes1: Tensor, boxes2: Tensor, dims) -> list[Tensor]:
    """Both with the mapped dim in front and of one rank, so that it broadcasts like any leading dim."""
    moved = [b.unsqueeze(0) if d is None else b.movedim(d, 0) for b, d in zip((boxes1, boxes2), dims, strict=True)]
    rank = max(b.dim() for b in moved)
    return [b.reshape(b.shape[0], *[1] * (rank - b.dim()), *b.shape[1:]) for b in moved]


@torch.library.register_vmap("boxops::iou")
def _(info, in_dims, boxes1, boxes2, measure, paired, *rest):
    return _iou(*_batch_first(boxes1, boxes2, in_dims[:2]), measure, paired, *rest), 0


@torch.library.register_vmap("boxops::iou_backward")
def _(info, in_dims, grad, boxes1, boxes2, measure, paired, *rest):
    size = info.batch_size
    grad = grad.expand(size, *grad.shape) if in_dims[0] is None else grad.movedim(in_dims[0], 0)
    batched = [b.expand(size, *b.shape[1:]) for b in _batch_first(boxes1, boxes2, in_dims[1:3])]
    return iou_backward(grad, *batched, measure, paired, *rest), (0, 0)


torch.library.register_autocast("boxops::iou", "cpu", torch.float32)
torch.library.register_autocast("boxops::iou", "cuda", torch.float32)
