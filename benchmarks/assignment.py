"""Assignment and DETR's matching costs: bound by the steps of the paths, and by the logits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .case import Arrays, Case, Rival, Wrong, numpy, whole
from .detr import official
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")
optimize = rival("scipy.optimize")
lap = rival("lap")  # of the package lap, or of lapx, which has more of the same
LAP = "lapx" if lap is None or hasattr(lap, "lapjvs") else "lap"

CLASSES = 91
GTS = 60  # of an image, at most
LOGITS, LABELS = 0, 2  # places among the arrays of a matcher


def costs(*shape: int) -> Arrays:
    return (np.random.default_rng(0).random(shape, np.float32),)


def points(n: int, m: int) -> Arrays:
    """Distances of random points in the plane."""
    rng = np.random.default_rng(0)
    own, other = rng.random((n, 1, 2), np.float32), rng.random((1, m, 2), np.float32)
    return (np.sqrt(((own - other) ** 2).sum(-1)),)


def tied(n: int, m: int) -> Arrays:
    return (np.random.default_rng(0).integers(0, 100, (n, m)).astype(np.float32),)


def scipy_loop(cost: Any) -> Any:
    """What one writes without batches: to the host, problem by problem, and back."""
    own = cost.cpu().numpy().astype(np.float64) if torch and isinstance(cost, torch.Tensor) else cost
    found = [optimize.linear_sum_assignment(problem) for problem in (own if own.ndim == 3 else [own])]
    rows, columns = (np.stack([pair[i] for pair in found]) for i in range(2))
    if torch and isinstance(cost, torch.Tensor):
        return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)
    return rows, columns


def flat(theirs: Any, ours: Any) -> tuple[Any, Any]:
    return [part.reshape(-1) for part in theirs], [part.reshape(-1) for part in ours]


def lap_loop(cost: Any) -> Any:
    """The column of each row, -1 for none, as trackers call lapjv. lapx has quicker forms of it."""
    cost = numpy(cost)
    problems = cost if cost.ndim == 3 else cost[None]
    if LAP == "lapx" and len(problems) > 1:
        return lap.lapjvs_batch(problems, extend_cost=True, return_cost=False)  # rows and columns, in any order
    if LAP == "lapx":
        return [lap.lapjvs(problems[0], extend_cost=True, return_cost=False, jvx_like=False)[0]]
    return [lap.lapjv(problem, extend_cost=True, return_cost=False)[0] for problem in problems]


def columns(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Of rows that have one; ours gives these alone."""
    if isinstance(theirs, tuple):
        theirs = [column[np.argsort(row)] for row, column in zip(*theirs, strict=True)]
    found = np.stack([row[row >= 0] for row in theirs])
    return found, numpy(ours[1]).reshape(found.shape)


def optimal(case: Case, arrays: Arrays, result: Any) -> str:
    """The totals of scipy, where the reference would take minutes."""
    cost = arrays[0].astype(np.float64)
    problems, rows, columns = (
        a if a.ndim == 3 else a[None] for a in (cost, numpy(result[0])[None], numpy(result[1])[None])
    )
    rows, columns = rows.reshape(len(problems), -1), columns.reshape(len(problems), -1)
    for problem, row, column in zip(problems, rows, columns, strict=True):
        best = problem[optimize.linear_sum_assignment(problem)].sum()
        if len(set(column.tolist())) != min(problem.shape) or abs(problem[row, column].sum() - best) > 1e-9 * abs(best):
            raise Wrong(f"a total of {problem[row, column].sum()}, scipy finds {best}")
    return f"the totals of scipy, {len(problems)} problems"


def totals(make: Any, of_columns: Any, theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Of several optimal assignments rivals may take another."""
    (cost,) = make()
    return tuple(np.take_along_axis(cost, c.reshape(-1, 1), 1).sum(dtype=np.float64) for c in of_columns(theirs, ours))


def assignment(*shape: int, goal: float = 1.0, kind: Any = costs) -> Case:
    size = "1 cost" if shape == (1, 1) else " x ".join(map(str, shape))
    make = partial(kind, *shape)
    answers = {"SciPy": flat, LAP: columns}
    if kind is tied:
        answers = {
            "SciPy": partial(totals, make, lambda theirs, ours: (theirs[1], ours[1])),
            LAP: partial(totals, make, columns),
        }
    return Case(
        "linear_sum_assignment",
        size if kind is costs else f"{size}, {kind.__name__}",
        int(np.prod(shape)),
        make=make,
        ours=lambda cost: boxops.linear_sum_assignment(cost),
        reference=lambda cost: reference.linear_sum_assignment(cost),
        rivals={name: Rival(loop, answer=answers[name]) for name, loop in (("SciPy", scipy_loop), (LAP, lap_loop))},
        check=optimal if optimize and shape != (1, 1) else whole,
        goal=("SciPy", goal),
        graph=len(shape) == 3,
        heavy=shape[-1] >= 1000,
        variant="" if kind is costs else kind.__name__,
    )


def detections(images: int, queries: int) -> Arrays:
    rng = np.random.default_rng(0)
    counts = [1] if images == 1 else rng.integers(0, GTS + 1, images)
    total = int(np.sum(counts))
    boxes, gts = (np.concatenate([rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.02, 0.4, (n, 2))], axis=1)
                  for n in (images * queries, total))  # fmt: skip
    logits = rng.normal(0, 2, (images, queries, CLASSES)).astype(np.float32)
    boxes = boxes.reshape(images, queries, 4).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return logits, boxes, rng.integers(0, CLASSES, total), gts.astype(np.float32), offsets


def eager_costs(logits: Any, boxes: Any, labels: Any, gts: Any, offsets: Any) -> list[Any]:
    """HungarianMatcher of facebookresearch/detr up to its costs: all images against all, then cut."""
    batch, queries = logits.shape[:2]
    class_cost = -logits.flatten(0, 1).softmax(-1)[:, labels]
    box_cost = torch.cdist(boxes.flatten(0, 1), gts, p=1)
    corners, gt_corners = (tv.box_convert(b, "cxcywh", "xyxy") for b in (boxes.flatten(0, 1), gts))
    cost = 5 * box_cost + class_cost + 2 * -tv.generalized_box_iou(corners, gt_corners)
    counts = offsets.diff().tolist()
    return [own[i] for i, own in enumerate(cost.view(batch, queries, -1).split(counts, -1))]


def eager_matches(*arrays: Any) -> Any:
    return [optimize.linear_sum_assignment(own.cpu()) for own in eager_costs(*arrays)]


def as_detr_has_them(logits: Any, boxes: Any, labels: Any, gts: Any, offsets: Any) -> tuple[Any, Any]:
    cuts = offsets[1:-1].tolist()
    split = (parts.tensor_split(cuts) for parts in (labels, gts))
    return ({"pred_logits": logits, "pred_boxes": boxes},
            [{"labels": own, "boxes": box} for own, box in zip(*split, strict=True)])  # fmt: skip


def hungarian_matcher() -> Rival:
    """facebookresearch/detr's own where it is installed, else what it does, written once more."""
    if official() is None:
        return Rival(eager_matches, answer=queries_of)
    return Rival(rival("models.matcher").HungarianMatcher(1.0, 5.0, 2.0), given=as_detr_has_them, answer=queries_of)


def transposed(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """[queries, boxes] image by image is our [boxes, queries]."""
    return torch.cat([own.T for own in theirs]), ours


def queries_of(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """The query of every ground truth."""
    return np.concatenate([query[np.argsort(gt)] for query, gt in theirs]), ours


def matched(*arrays: Any) -> Any:
    return boxops.linear_sum_assignment(boxops.detr_cost(*arrays), offsets=arrays[-1])[1]


def reference_matched(*arrays: Any) -> Any:
    return reference.linear_sum_assignment(reference.detr_cost(*arrays), offsets=arrays[-1])[1]


def matcher(images: int, queries: int, assigned: bool) -> Case:
    size = "1 ground truth" if images == 1 else f"{images} images, {queries} queries"
    rivals = {}
    if tv and optimize:
        rivals = (
            {"HungarianMatcher": hungarian_matcher()} if assigned else {"torch": Rival(eager_costs, answer=transposed)}
        )
    return Case(
        "detr_cost",
        f"{size}, assigned" if assigned else size,
        images * queries,
        make=partial(detections, images, queries),
        ours=matched if assigned else (lambda *arrays: boxops.detr_cost(*arrays)),
        reference=reference_matched if assigned else (lambda *arrays: reference.detr_cost(*arrays)),
        rivals=rivals,
        check=whole,
        goal=("HungarianMatcher", 10.0) if assigned else ("torch", 1.0),
        tolerance=0.0 if assigned else 1e-4,
        graph=images > 1,
        variant="assigned" if assigned else "",
    )


CASES = [
    assignment(1, 1),
    assignment(64, 300, 50, goal=3),
    assignment(300, 300),
    assignment(1000, 1000),
    assignment(2000, 2000),
    assignment(1000, 2000),
    *(assignment(n, n, kind=kind) for n in (1000, 2000) for kind in (points, tied)),
    *(matcher(*size, assigned) for size in ((1, 1), (16, 100), (16, 300)) for assigned in (False, True)),
]
