"""What a detector finds in an input of `boxops detect`: rows for the JSON, pictures and lines. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boxops.cli.inputs import Input, Unreadable
from boxops.cli.outputs import open_output


class Finder:
    """Finds objects in one input after the other.

    ``told`` has for each image, and each frame of a video, what the JSON says of it.
    """

    def __init__(self, args: argparse.Namespace, model: Any, checkpoint: dict[str, Any], device: Any) -> None:
        self.args, self.model, self.classes, self.device = args, model, list(checkpoint["classes"]), device
        self.name, self.seconds = str(model.config["name"]), 0.0
        self.told: list[dict[str, Any]] = []

    def look_at(self, one: Input, out: Path | None, show: Callable[[str], None]) -> Unreadable | None:
        """What was wrong with the input, if anything. The frames of a video that come before a broken one stay."""
        from boxops.draw import draw_detections

        before = len(self.told)
        wrong = None
        with open_output(out) as add:
            try:
                for where, image in one.frames(self.args.every):
                    show(f"{one.name} {where['time']:.0f} s" if where else one.name)
                    found, rows = self.find(image)
                    self.told.append({"image": one.name, **where, "detections": rows})
                    if out is not None:
                        picture = draw_detections(image, found, self.classes, self.args.threshold)
                        add(picture, where.get("time", 0.0))
            except Unreadable as error:
                wrong = error
        seen = self.told[before:]
        if seen and one.video:
            print(f"{one.name}: {sum(len(told['detections']) for told in seen)} objects in {len(seen)} frames")
        elif seen:
            texts = [f"{row['class']} {row['score']:.2f}" for row in seen[0]["detections"]]
            print(f"{one.name}: {', '.join(texts) or 'nothing found'}")
        return wrong

    def find(self, image: Any, timed: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What the model gives for an image, and the rows of it; ``timed``: ``seconds`` is then how long it takes."""
        import torch
        from torchvision.transforms.v2 import functional as F

        found: dict[str, Any] = {}
        try:
            with torch.inference_mode():
                pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True).to(self.device)
                if timed:
                    from boxops.benchmarks.timing import warm_time

                    self.seconds = warm_time(lambda: found.update(*self.model([pixels])))
                else:
                    found.update(*self.model([pixels]))
        except (RuntimeError, MemoryError) as error:  # of an image that is too large
            raise Unreadable(error) from error
        return found, as_rows(found, self.classes, self.args.threshold, rles=self.args.json is not None)


def as_rows(found: dict[str, Any], classes: list[str], threshold: float, rles: bool) -> list[dict[str, Any]]:
    """The detections as the JSON has them, with masks as COCO's run lengths if asked for."""
    from boxops.data import segmentation

    rows = []
    for i, (score, label) in enumerate(zip(found["scores"].tolist(), found["labels"].tolist(), strict=True)):
        if score < threshold:
            continue
        name, box = name_of(label, classes), _rounded(found["boxes"][i])
        row = {"class": name, "label": label, "score": round(score, 4), "box": box}
        if "keypoints" in found:
            row["keypoints"] = [_rounded(point) for point in found["keypoints"][i]]
        if rles and "masks" in found:
            row["mask"] = segmentation.encode((found["masks"][i, 0] > 0.5).cpu().numpy())
        rows.append(row)
    return rows


def name_of(label: int, classes: list[str]) -> str:
    return classes[label - 1] if 0 < label <= len(classes) else str(label)


def _rounded(values: Any) -> list[float]:
    return [round(value, 2) for value in values.tolist()]
