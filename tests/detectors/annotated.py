"""Random annotations and detections in COCO's words."""

import numpy as np

from boxops.data import segmentation


def scene(seed, points=17, images=8, classes=3):
    """Objects of all sizes, some of them crowds, and detections beside them or anywhere."""
    rng = np.random.default_rng(seed)
    truth = {"images": [{"id": 7 * i, "height": 240, "width": 320} for i in range(images)], "annotations": [],
             "categories": [{"id": 3 * c + 2, "name": f"class {c}"} for c in range(classes + 1)]}  # fmt: skip
    rows = []
    for image in truth["images"][1:]:  # nothing is in the first image
        for _ in range(rng.integers(0, 6)):
            box = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(8, 30, 2) * rng.choice([1, 3, 6])])
            category = int(3 * rng.integers(classes) + 2)  # there is nothing of the last class
            truth["annotations"].append(thing(rng, image["id"], category, box, points)
                                        | {"id": len(truth["annotations"]) + 1})  # fmt: skip
            for _ in range(rng.integers(0, 4)):
                near = np.maximum(box + rng.normal(0, rng.choice([0.01, 0.1]), 4) * box[[2, 3, 2, 3]], 1)
                other = int(3 * rng.integers(classes + 1) + 2) if rng.random() < 0.2 else category
                rows.append(thing(rng, image["id"], other, near, points) | {"score": round(rng.random(), 2)})
    return truth, rows


def thing(rng, image, category, box, points):
    x, y, width, height = (float(side) for side in box)
    mask = np.zeros((240, 320), np.uint8)
    mask[int(y) : int(y + height), int(x) : int(x + width)] = 1
    mask[::2] = 0  # another area than the box's
    places = np.column_stack([box[:2] + box[2:] * np.linspace(0, 1, points)[:, None] + rng.normal(0, 0.5, (points, 2)),
                              rng.integers(0, 3, points)])  # fmt: skip
    return {"image_id": image, "category_id": category, "bbox": [x, y, width, height], "area": float(mask.sum()),
            "iscrowd": int(rng.random() < 0.2), "segmentation": segmentation.encode(mask),
            "keypoints": places.ravel().tolist(), "num_keypoints": int((places[:, 2] > 0).sum())}  # fmt: skip
