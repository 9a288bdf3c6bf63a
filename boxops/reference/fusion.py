"""Weighted boxes fusion."""

import numpy as np

from boxops.reference.common import area_of, by_falling_score, compute_type, iou_of, quiet, to_columns


@quiet
def weighted_boxes_fusion(
    boxes_list,
    scores_list,
    labels_list,
    weights=None,
    iou_threshold=0.55,
    score_threshold=0.0,
    conf_type="avg",
    allows_overflow=False,
):
    dtype = compute_type(*boxes_list, *scores_list)
    weights = np.ones(len(boxes_list)) if weights is None else np.asarray(weights, dtype=np.float64)
    total, weights = dtype.type(sum(weights.tolist())), weights.astype(dtype)
    boxes = np.concatenate(boxes_list).astype(dtype)
    scores = np.concatenate([np.asarray(s).astype(dtype) for s in scores_list])
    labels = np.concatenate(labels_list)
    models = np.repeat(np.arange(len(boxes_list)), [len(s) for s in scores_list])
    weighted = scores * weights[models]
    used = (scores >= dtype.type(score_threshold)) & (area_of(to_columns(boxes)) > 0)

    clusters = []
    order = by_falling_score(weighted)
    for i in order[used[order]]:
        same = [c for c in clusters if c["label"] == labels[i]]
        if same:
            fused = to_columns(np.stack([c["box"] for c in same]))
            iou = iou_of(fused, to_columns(boxes[i])[:, None])
            best = np.argmax(iou)  # the first of equals
            if iou[best] > dtype.type(iou_threshold):
                join(same[best], boxes[i], weighted[i], weights[models[i]], models[i])
                continue
        zero = dtype.type(0)
        cluster = {"label": labels[i], "first": i, "top": weighted[i], "sum": np.zeros(4, dtype), "conf": zero,
                   "weight": zero, "count": 0, "models": set()}  # fmt: skip
        join(cluster, boxes[i], weighted[i], weights[models[i]], models[i])
        cluster["box"] = boxes[i]
        clusters.append(cluster)

    fused = np.array([c["box"] for c in clusters], dtype).reshape(-1, 4)
    confidences = [confidence(c, weights, total, conf_type, allows_overflow) for c in clusters]
    confidences = np.array(confidences, dtype)
    first = np.array([c["first"] for c in clusters], dtype=np.int64)
    order = np.argsort(first)
    order = order[by_falling_score(confidences[order])]
    return fused[order], confidences[order], labels[first[order]]


def join(cluster, box, score, weight, model):
    cluster["sum"] = cluster["sum"] + score * box
    cluster["conf"] += score
    cluster["weight"] += weight
    cluster["count"] += 1
    cluster["models"].add(model)
    if cluster["conf"] != 0:
        cluster["box"] = cluster["sum"] / cluster["conf"]


def confidence(cluster, weights, total, conf_type, allows_overflow):
    number, count = weights.dtype.type, cluster["count"]
    if conf_type == "max":
        return ratio(cluster["top"], weights.max())
    mean = cluster["conf"] / number(count)
    if conf_type == "avg" and allows_overflow:
        return ratio(mean * number(count), total)
    present, absent = number(0), number(0)
    for model, weight in enumerate(weights):
        if model in cluster["models"]:
            present += weight
        else:
            absent += weight
    values = {
        "avg": ratio(mean * number(min(count, len(weights))), total),
        "box_and_model_avg": ratio(ratio(mean * number(count), cluster["weight"]) * present, total),
        "absent_model_aware_avg": ratio(mean * number(count), cluster["weight"] + absent),
    }
    # Held to 1, or to the mean of the boxes' own scores where that is larger: scores up to 1 give none above it.
    own = ratio(cluster["conf"], cluster["weight"])
    most = own if own > 1 else number(1)
    return most if values[conf_type] > most else values[conf_type]


def ratio(amount, whole):
    return amount / whole if whole > 0 else amount * 0
