"""RoI pooling: bound by arithmetic for many RoIs, by writing the bins where the features are in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from . import specialists
from .boxes import label
from .case import Arrays, Case, Wrong, numpy, same
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")

BINS, SCALE, SAMPLES = 7, 1 / 16, 2
SIDE = 800.0  # pixels of the image; its features are SIDE * SCALE wide
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
TOLERANCE = 1e-4  # sums of some dozen products in another order than the reference's


def rois(k: int, images: int = 1, side: float = SIDE) -> np.ndarray:
    """Sides of 16 to 400 px, uniform in their logarithm."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, side - 20, (k, 2))
    ends = np.minimum(corner + np.exp(rng.uniform(np.log(16), np.log(400), (k, 2))), side)
    return np.concatenate([rng.integers(0, images, (k, 1)), corner, ends], axis=1).astype(np.float32)


def one_map(k: int, channels: int, last: bool = False) -> Arrays:
    size = round(SIDE * SCALE)
    features = np.random.default_rng(1).standard_normal((1, size, size, channels), np.float32).transpose(0, 3, 1, 2)
    return features if last else np.ascontiguousarray(features), rois(k)


def pyramid(k: int, images: int = 2, channels: int = 256) -> Arrays:
    rng = np.random.default_rng(1)
    sizes = [round(SIDE * scale) for scale in SCALES]
    return *(rng.standard_normal((images, channels, s, s), np.float32) for s in sizes), rois(k, images)


def some_rois(case: Case, arrays: Arrays, result: Any, count: int = 24) -> str:
    *maps, boxes = arrays
    some = np.random.default_rng(0).choice(len(boxes), min(len(boxes), count), replace=False)
    got = result[torch.as_tensor(some, device=result.device)] if torch else result[some]
    same(got, case.reference(*maps, boxes[some]), case.tolerance)
    return f"{len(some)} of {len(boxes):,} RoIs {f'within {case.tolerance:.0e}' if case.tolerance else 'to the bit'}"


def gradient(case: Case, arrays: Arrays, result: Any) -> str:
    """The reference has no gradient: torchvision's in float64 is the oracle."""
    if not tv:
        raise Wrong("cannot tell: the oracle of the gradient is torchvision, which is absent")
    want = case.rivals["torchvision"](*(torch.as_tensor(array).double() for array in arrays))
    for got, exact in zip(result, want, strict=True):
        same(got, numpy(exact.to(got.dtype)), 1e-3 if got.dtype == torch.float32 else 2e-2)
    return "all values within 1e-03 of torchvision's float64 gradient"


def backward(call: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient of the features alone: the forward pass has been done once for each input."""
    kept: dict[Any, Any] = {}

    def run(*arrays: Any) -> Any:
        key = tuple(array.data_ptr() for array in arrays)
        if key not in kept:
            maps = [array.detach().requires_grad_() for array in arrays[:-1]]
            out = call(*maps, arrays[-1])
            kept.clear()
            kept[key] = out, maps, torch.ones_like(out)
        out, maps, ones = kept[key]
        return torch.autograd.grad(out, maps, ones, retain_graph=True)

    return run


def call(module: Any, op: str, *maps: Any) -> Any:
    *maps, boxes = maps
    if op == "multiscale_roi_align":
        return getattr(module, op)(maps, boxes, BINS, SCALES, SAMPLES)
    rest = {"roi_align": (SAMPLES, False), "ps_roi_align": (SAMPLES,)}.get(op, ())
    return getattr(module, op)(*maps, boxes, BINS, SCALE, *rest)


def by_level(*arrays: Any) -> Any:
    """What one writes with torchvision: its pooler, which calls roi_align level by level."""
    *maps, boxes = arrays
    names = [str(i) for i in range(len(maps))]
    listed = [boxes[boxes[:, 0] == image, 1:] for image in range(len(maps[0]))]
    pooled = tv.MultiScaleRoIAlign(names, BINS, SAMPLES)(
        dict(zip(names, maps, strict=True)), listed, [(int(SIDE), int(SIDE))] * len(listed)
    )
    order = torch.argsort(boxes[:, 0], stable=True)
    return torch.empty_like(pooled).index_copy(0, order, pooled)


def case(op: str, k: int, goal: float = 1.0, *, make: Callable[[], Arrays], variant: str = "", grad: bool = False,
         text: str = "") -> Case:  # fmt: skip
    ours = partial(call, boxops, op)
    theirs = by_level if op == "multiscale_roi_align" else partial(call, tv, op)
    specialist = {}
    if op == "roi_align" and not variant:
        specialist = {"onnxruntime": specialists.roi_align(BINS, SCALE, SAMPLES)}
    return Case(
        op,
        text or label(k, "RoI") + (f", {variant}" if variant else ""),
        k,
        make=make,
        ours=backward(ours) if grad else ours,
        reference=partial(call, reference, op),
        rivals={"torchvision": backward(theirs) if grad else theirs} | specialist,
        check=gradient if grad else some_rois,
        tolerance=0.0 if op == "roi_pool" else TOLERANCE,
        goal=("torchvision", goal),
        heavy=k > 512,
        tensors_only=grad or k > 64,  # the reference takes seconds there
        variant=variant,
    )


def family(op: str, channels: int, goals: dict[int, float], grad_goals: dict[int, float]) -> list[Case]:
    return [
        *(case(op, k, goal, make=partial(one_map, k, channels)) for k, goal in goals.items()),
        *(case(op, k, goal, make=partial(one_map, k, channels), variant="backward", grad=True)
          for k, goal in grad_goals.items()),
    ]  # fmt: skip


CASES = [
    *family("roi_align", 256, {1: 1, 8: 1, 512: 4}, {1: 1, 512: 8}),
    case("roi_align", 512, 4, make=partial(one_map, 512, 256, True), variant="channels_last"),
    *family("roi_pool", 256, {1: 1, 8: 1, 512: 4}, {1: 1, 512: 1}),
    *family("ps_roi_align", 21 * BINS**2, {1: 1, 512: 1}, {512: 1}),
    *family("ps_roi_pool", 21 * BINS**2, {1: 1, 512: 1}, {}),  # torchvision's backward does not fit its forward
    case("multiscale_roi_align", 1, make=partial(pyramid, 1, 1)),
    case("multiscale_roi_align", 1000, make=partial(pyramid, 1000), text="2 x 500 RoIs, 4 levels"),
    case("multiscale_roi_align", 1000, make=partial(pyramid, 1000), variant="backward", grad=True,
         text="2 x 500 RoIs, 4 levels, backward"),
]  # fmt: skip
