"""darknet's layers once more, slow and in NumPy, loop by loop as its C code states them: a second opinion."""

import numpy as np

F = np.float32


def reorg(x, stride, reverse=False):
    """One map [C, H, W]; every index of reorg_cpu worked out in flat memory."""
    c, h, w = x.shape
    flat, out, part = x.reshape(-1), np.empty(x.size, x.dtype), c // stride**2
    for k in range(c):
        for j in range(h):
            for i in range(w):
                offset, c2 = k // part, k % part
                inner = i + w * (j + h * k)
                outer = i * stride + offset % stride + w * stride * (j * stride + offset // stride + h * stride * c2)
                if reverse:
                    out[outer] = flat[inner]
                else:
                    out[inner] = flat[outer]
    if reverse:
        return out.reshape(part, h * stride, w * stride)
    return out.reshape(c * stride**2, h // stride, w // stride)


def maxpool(x, size, stride, padding):
    c, h, w = x.shape
    out = np.full((c, (h + padding - size) // stride + 1, (w + padding - size) // stride + 1), -np.inf, x.dtype)
    for k, i, j in np.ndindex(out.shape):
        for n in range(size):
            for m in range(size):
                y, z = i * stride + n - padding // 2, j * stride + m - padding // 2
                if 0 <= y < h and 0 <= z < w:
                    out[k, i, j] = max(out[k, i, j], x[k, y, z])
    return out


def local(x, weights, biases, filters, size, stride, pad):
    """weights in the file's order: places, filters, channels, rows, columns; biases: filters, places."""
    c, h, w = x.shape
    high, wide = (((side - 1 if pad else side - size) // stride) + 1 for side in (h, w))
    weights = weights.reshape(high, wide, filters, c, size, size)
    out = biases.reshape(filters, high, wide).astype(np.float64)
    for f, i, j in np.ndindex(out.shape):
        for k in range(c):
            for n in range(size):
                for m in range(size):
                    y, z = i * stride + n - pad * (size // 2), j * stride + m - pad * (size // 2)
                    if 0 <= y < h and 0 <= z < w:
                        out[f, i, j] += weights[i, j, f, k, n, m] * x[k, y, z]
    return out


def route(maps, groups, group):
    """Whole maps one after another in memory, of each only its part."""
    return np.concatenate([m.reshape(groups, -1)[group].reshape(-1, *m.shape[1:]) for m in maps])


def shortcut(x, add):
    """shortcut_cpu: x [c2, h2, w2] is what is added to."""
    (c1, h1, w1), (c2, h2, w2) = add.shape, x.shape
    out, stride, sample = x.copy(), max(w1 // w2, 1), max(w2 // w1, 1)
    for k in range(min(c1, c2)):
        for j in range(min(h1, h2)):
            for i in range(min(w1, w2)):
                out[k, j * sample, i * sample] += add[k, j * stride, i * stride]
    return out


def resize(image, h, w):
    """resize_image: columns, then rows, each step in float32."""
    c, high, wide = image.shape
    across = np.zeros((c, high, w), F)
    step = F(wide - 1) / F(w - 1) if w > 1 else F(0)
    for x in range(w):
        at = F(x) * step
        i, d = int(at), F(at - int(at))
        last = x == w - 1 or wide == 1
        across[:, :, x] = image[:, :, -1] if last else (F(1) - d) * image[:, :, i] + d * image[:, :, i + 1]
    out = np.zeros((c, h, w), F)
    step = F(high - 1) / F(h - 1) if h > 1 else F(0)
    for y in range(h):
        at = F(y) * step
        i, d = int(at), F(at - int(at))
        out[:, y] = (F(1) - d) * across[:, i]
        if y < h - 1 and high > 1:
            out[:, y] += d * across[:, i + 1]
    return out


def letterbox(image, height, width):
    _, h, w = image.shape
    wide = F(width) / F(w) < F(height) / F(h)
    inner = (h * width // w, width) if wide else (height, w * height // h)
    out = np.full((3, height, width), 0.5, F)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out[:, top : top + inner[0], left : left + inner[1]] = resize(image, *inner)
    return out, inner


def detections(values, side, num, classes, root):
    """get_detection_detections of v1 on an image of 1 x 1: centres and sides [side^2 num, 4], and scores."""
    boxes, scores, cells = [], [], side * side
    for i in range(cells):
        row, col = i // side, i % side
        for n in range(num):
            scale = values[cells * classes + i * num + n]
            at = cells * (classes + num) + (i * num + n) * 4
            x, y, w, h = values[at : at + 4]
            boxes.append([(x + col) / side, (y + row) / side, w ** (2 if root else 1), h ** (2 if root else 1)])
            scores.append(scale * values[i * classes : (i + 1) * classes])
    return np.array(boxes), np.array(scores)


def region(values, anchors, classes):
    """get_region_detections on an image of 1 x 1, of values [P (5 + C), H, W]: boxes and scores by cell and anchor."""
    h, w = values.shape[1:]
    values = values.reshape(len(anchors), 5 + classes, h, w).astype(np.float64)
    boxes, scores = [], []
    for j in range(h):
        for i in range(w):
            for n, (wide, high) in enumerate(anchors):
                x, y, a, b, objectness, *rest = values[n, :, j, i]
                logistic = 1 / (1 + np.exp(-np.array([x, y, objectness])))
                shares = np.exp(rest - np.max(rest))
                boxes.append([(i + logistic[0]) / w, (j + logistic[1]) / h, np.exp(a) * wide / w, np.exp(b) * high / h])
                scores.append(logistic[2] * shares / shares.sum())
    return np.array(boxes), np.array(scores)
