"""darknet's training of YOLO once more, in plain Python, cell by cell and object by object: a second opinion.

darknet has no loss: yolo_layer.c, region_layer.c and detection_layer.c write ``delta``, which is passed back to the
layer's input as minus the gradient. Here each write is a term: how an output is compared, how much that counts, with
what; a later write to the same output replaces the earlier one, as there. Terms give both the delta and a sum.

Objects are (x, y, w, h, class): the centre and the sides as shares of the network's input, classes from 0.
Left out as in boxops: v2's first 12,800 images, which pull all boxes to the anchors; a second class for a box that two
objects share; ``forced`` and ``random`` of v1; the background of v2.
"""

import math

import numpy as np

SCALES = {"coord_scale": 1, "object_scale": 1, "noobject_scale": 1, "class_scale": 1, "rescore": 0, "softmax": 0}
PARTS = ("bbox_regression", "objectness", "classification")


def objects_of(target, size):
    """The objects of a target whose boxes are corners in pixels of a batch of that (height, width), with weights."""
    height, width = size
    found, weights = [], target.get("weights", np.ones(len(target["labels"]))).tolist()
    for (x1, y1, x2, y2), label, weight in zip(
        target["boxes"].tolist(), target["labels"].tolist(), weights, strict=True
    ):
        x, y, w, h = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
        found.append((x, y, w, h, label - 1, weight))
    return found


def logistic(z):
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def iou(a, b):
    def overlap(x1, w1, x2, w2):
        return min(x1 + w1 / 2, x2 + w2 / 2) - max(x1 - w1 / 2, x2 - w2 / 2)

    w, h = overlap(a[0], a[2], b[0], b[2]), overlap(a[1], a[3], b[1], b[3])
    if w < 0 or h < 0:
        return 0.0
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def cell(x, count):
    """The cell along one axis of ``count``, and where in it."""
    i = min(int(x * count), count - 1)
    return i, x * count - i


def best_shape(truth, shapes):
    """Of sides as shares the first with the largest IoU, all in one place."""
    best, index = 0.0, 0
    for n, (w, h) in enumerate(shapes):
        value = iou((0, 0, w, h), (0, 0, truth[2], truth[3]))
        if value > best:
            best, index = value, n
    return index


def evaluate(terms, outputs, raw):
    """The delta, of raw's shape, and the sums of the parts; terms[place] = part, kind, weight, wanted."""
    delta, sums = np.zeros(raw.shape), dict.fromkeys(PARTS, 0.0)
    for place, (part, kind, weight, wanted) in terms.items():
        out, z = outputs[place], raw[place]
        if kind == "squared":
            value, slope = (wanted - out) ** 2 / 2, wanted - out
        elif kind == "squared logistic":
            value, slope = (wanted - out) ** 2 / 2, (wanted - out) * out * (1 - out)
        elif kind == "logistic":  # binary cross entropy: -log(out) is log(1 + exp(-z))
            value, slope = wanted * np.logaddexp(0, -z) + (1 - wanted) * np.logaddexp(0, z), wanted - out
        else:  # one number of a softmax
            value, slope = -wanted * math.log(out) if wanted else 0.0, wanted - out
        delta[place] = weight * slope
        sums[part] += weight * value
    return delta, sums


def activated(raw, linear=(2, 3), soft=False):
    """Of one image's map [boxes, 5 + C, H, W]: logistics, but w and h, and maybe one softmax of the classes."""
    out = np.zeros(raw.shape)
    for n, k, j, i in np.ndindex(raw.shape):
        out[n, k, j, i] = raw[n, k, j, i] if k in linear else logistic(raw[n, k, j, i])
    if soft:
        for n, _, j, i in np.ndindex(raw[:, :1].shape):
            out[n, 5:, j, i] = softmax(raw[n, 5:, j, i])
    return out


def box_at(out, n, j, i, shapes):
    """The box that cell (j, i) predicts from its n-th shape, shares of the input."""
    _, _, high, wide = out.shape
    x, y, w, h = out[n, :4, j, i]
    return (i + x) / wide, (j + y) / high, math.exp(w) * shapes[n][0], math.exp(h) * shapes[n][1]


def wanted_class(k, truth, classes, smoothing):
    """Of class k: 1 - eps for the object's own, eps / (classes - 1) for the others."""
    return 1 - smoothing if k == truth[4] else smoothing / (classes - 1)


def pull(terms, n, j, i, truth, shape, grid, weight, kind):
    """What moves the box of cell (j, i) to the truth: delta_yolo_box and delta_region_box."""
    weight *= truth[5] * (2 - truth[2] * truth[3])
    wanted = cell(truth[0], grid[1])[1], cell(truth[1], grid[0])[1]
    wanted += math.log(truth[2] / shape[0]), math.log(truth[3] / shape[1])
    for k in range(4):
        terms[n, k, j, i] = "bbox_regression", kind if k < 2 else "squared", weight, wanted[k]


def v3(raws, masks, anchors, classes, size, images, ignore_thresh=0.5, smoothing=0.0):
    """yolo_layer.c, and sections 2.1 and 2.2.

    Args:
        raws: of each head the map before it, [B, boxes (5 + classes), H, W].
        masks: of each head, which of the anchors are its own.
        anchors: (width, height) in pixels.
        size: (height, width) of the batch in pixels.
        images: the objects of each.

    Returns:
        Of each head the delta of raw's shape, and the sums by part over all images and heads.
    """
    shapes = [(w / size[1], h / size[0]) for w, h in anchors]
    deltas, total = [], dict.fromkeys(PARTS, 0.0)
    for raw, mask in zip(raws, masks, strict=True):
        grid, own = raw.shape[2:], [shapes[k] for k in mask]
        delta = np.zeros(raw.shape)
        for b, objects in enumerate(images):
            z = raw[b].reshape(len(mask), 5 + classes, *grid)
            out, terms = activated(z), {}
            for j, i, n in np.ndindex(*grid, len(mask)):
                box = box_at(out, n, j, i, own)
                if not any(iou(box, truth) > ignore_thresh for truth in objects):
                    terms[n, 4, j, i] = "objectness", "logistic", 1, 0
            for truth in objects:
                best = best_shape(truth, shapes)
                if best not in mask:
                    continue
                n, (i, _), (j, _) = mask.index(best), cell(truth[0], grid[1]), cell(truth[1], grid[0])
                pull(terms, n, j, i, truth, own[n], grid, 1, "logistic")
                terms[n, 4, j, i] = "objectness", "logistic", truth[5], 1
                for k in range(classes):
                    terms[n, 5 + k, j, i] = (
                        "classification",
                        "logistic",
                        truth[5],
                        wanted_class(k, truth, classes, smoothing),
                    )
            slope, sums = evaluate(terms, out, z)
            delta[b] = slope.reshape(raw[b].shape)
            total = {part: total[part] + sums[part] for part in PARTS}
        deltas.append(delta)
    return deltas, total


def v2(raw, anchors, classes, images, thresh=0.5, squared=True, smoothing=0.0, **options):
    """region_layer.c, with bias_match = 1; anchors in cells, else as :func:`v3`.

    backward_region_layer multiplies the delta of x, y and objectness by the logistic's slope, so that these are squared
    errors of the logistic's output, as v1's are; v3's layer does not, which makes them cross entropies.
    """
    s, grid = {**SCALES, **options}, raw.shape[2:]
    kind = "squared logistic" if squared else "logistic"
    shapes = [(w / grid[1], h / grid[0]) for w, h in anchors]
    delta, total = np.zeros(raw.shape), dict.fromkeys(PARTS, 0.0)
    for b, objects in enumerate(images):
        z = raw[b].reshape(len(anchors), 5 + classes, *grid)
        out, terms = activated(z, soft=s["softmax"]), {}
        for j, i, n in np.ndindex(*grid, len(anchors)):
            box = box_at(out, n, j, i, shapes)
            if not any(iou(box, truth) > thresh for truth in objects):
                terms[n, 4, j, i] = "objectness", kind, s["noobject_scale"], 0
        for truth in objects:
            n, (i, _), (j, _) = best_shape(truth, shapes), cell(truth[0], grid[1]), cell(truth[1], grid[0])
            pull(terms, n, j, i, truth, shapes[n], grid, s["coord_scale"], kind)
            wanted = iou(box_at(out, n, j, i, shapes), truth) if s["rescore"] else 1
            terms[n, 4, j, i] = "objectness", kind, s["object_scale"] * truth[5], wanted
            for k in range(classes):
                compared = "softmax" if s["softmax"] else "logistic"
                wanted = wanted_class(k, truth, classes, smoothing)
                terms[n, 5 + k, j, i] = "classification", compared, s["class_scale"] * truth[5], wanted
        slope, sums = evaluate(terms, out, z)
        delta[b] = slope.reshape(raw[b].shape)
        total = {part: total[part] + sums[part] for part in PARTS}
    return delta, total


def v1(raw, side, num, classes, images, sqrt=0, smoothing=0.0, **options):
    """detection_layer.c, and equation 3, which is twice this sum.

    Args:
        raw: [B, side^2 (classes + 5 num)]: the classes of all cells, the objectness of all boxes, x, y, w, h of all.
    """
    s, cells = {**SCALES, **options}, side * side
    delta, total = np.zeros(raw.shape), dict.fromkeys(PARTS, 0.0)
    for b, objects in enumerate(images):
        z = raw[b]
        out, terms, taken = z.copy(), {}, {}
        if s["softmax"]:
            for c in range(cells):
                out[c * classes : (c + 1) * classes] = softmax(z[c * classes : (c + 1) * classes])
        for truth in objects:  # fill_truth_region: the first of a cell is its object
            (i, _), (j, _) = cell(truth[0], side), cell(truth[1], side)
            taken.setdefault(j * side + i, truth)
        for c in range(cells):
            for n in range(num):
                terms[cells * classes + c * num + n,] = "objectness", "squared", s["noobject_scale"], 0
            if c not in taken:
                continue
            x, y, w, h, _, weight = taken[c]
            for k in range(classes):
                compared = "softmax" if s["softmax"] else "squared"
                wanted = wanted_class(k, taken[c], classes, smoothing)
                terms[c * classes + k,] = "classification", compared, s["class_scale"] * weight, wanted
            within = cell(x, side)[1], cell(y, side)[1]
            truth, best, best_iou, best_rmse = (within[0] / side, within[1] / side, w, h), 0, 0.0, math.inf
            for n in range(num):
                at = cells * (classes + num) + (c * num + n) * 4
                box = out[at] / side, out[at + 1] / side, *(out[at + 2 : at + 4] ** (2 if sqrt else 1))
                value, rmse = iou(box, truth), math.dist(box, truth)
                if best_iou > 0 or value > 0:
                    if value > best_iou:
                        best_iou, best = value, n
                elif rmse < best_rmse:
                    best_rmse, best = rmse, n
            wanted = best_iou if s["rescore"] else 1
            terms[cells * classes + c * num + best,] = "objectness", "squared", s["object_scale"] * weight, wanted
            at = cells * (classes + num) + (c * num + best) * 4
            for k, value in enumerate([*within, *((math.sqrt(w), math.sqrt(h)) if sqrt else (w, h))]):
                terms[at + k,] = "bbox_regression", "squared", s["coord_scale"] * weight, value
        delta[b], sums = evaluate(terms, out, z)
        total = {part: total[part] + sums[part] for part in PARTS}
    return delta, total
