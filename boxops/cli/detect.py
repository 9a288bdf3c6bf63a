"""`boxops detect`: detections of images as pictures and JSON."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from boxops.cli.common import UserError, key_value, one_line_errors, user_errors

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--checkpoint", metavar="FILE", help="last.pt or best.pt of boxops train")
    parser.add_argument("--model", metavar="NAME", help="with --weights: a model such as faster_rcnn_resnet50_fpn")
    parser.add_argument("--weights", metavar="FILE_OR_URL", help="its weights, as torchvision's of COCO")
    parser.add_argument("--set", type=key_value, action="append", default=[], metavar="KEY=VALUE",
                        help="with --model: its options, as num_classes=21")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="PATH", help="the picture; of several images, their folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the detections: boxes are x1, y1, x2, y2")
    parser.add_argument("--threshold", type=float, default=0.5, help="the least score (0.5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda; auto is a GPU if there is one")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        files = find_images(args.images)
        if args.out is None and args.json is None:
            raise UserError("expected --out PICTURE, --json FILE or both, got neither")
        several = len(files) > 1 or any(path.is_dir() for path in args.images)
        if several and args.out is not None and args.out.suffix.lower() in SUFFIXES:
            raise UserError(f"--out: expected a folder for {len(files)} images, got {args.out}")
        twice = [stem for stem, count in Counter(file.stem for file in files).items() if count > 1]
        if twice and args.out is not None:
            raise UserError(f"--out: expected images of different names, got {twice[0]} twice")
        model, classes, device = load(args)

    import torch
    from PIL import Image
    from torchvision.transforms.v2 import functional as F

    from boxops.draw import draw_detections

    told, failed = [], 0
    for file in files:
        try:
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
        except Exception as error:  # whatever its decoders raise
            if len(files) == 1:
                raise UserError(f"{file}: expected an image, got: {error}") from error
            print(f"{file}: left out, expected an image, got: {error}")
            failed += 1
            continue
        with torch.inference_mode():
            (found,) = model([F.to_dtype(F.pil_to_tensor(picture), torch.float32, scale=True).to(device)])
        rows = as_rows(found, classes, args.threshold)
        told.append({"image": str(file), "detections": rows})
        texts = [f"{row['class']} {row['score']:.2f}" for row in rows]
        print(f"{file}: {', '.join(texts) or 'nothing found'}")
        if args.out is not None:
            with user_errors():
                target = args.out / f"{file.stem}.jpg" if several else args.out
                target.parent.mkdir(parents=True, exist_ok=True)
                draw_detections(picture, found, classes, args.threshold).save(target, quality=92)
    if args.json is not None:
        with user_errors():
            args.json.write_text(json.dumps(told, indent=1))
    return 1 if failed else 0


def find_images(paths: list[Path]) -> list[Path]:
    """The files, and those in folders that are images by their names."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"{path}: expected a folder with images, got none of {', '.join(SUFFIXES)}")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: expected an image or a folder, got no such file")
    return files


def load(args: argparse.Namespace) -> tuple[Any, list[str], Any]:
    """Model, names of its classes, device."""
    from boxops.training.parts import start_processes

    _, _, device = start_processes(args.device)
    if (args.checkpoint is None) == (args.model is None):
        raise UserError("expected either --checkpoint FILE or --model NAME --weights FILE_OR_URL")
    if args.checkpoint is not None:
        from boxops.training import load_model

        model, checkpoint = load_model(args.checkpoint, device)
        return model, list(checkpoint["classes"]), device
    if args.weights is None:
        raise UserError("--model: expected --weights FILE_OR_URL with it, got none")
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, KeypointRCNN_ResNet50_FPN_Weights

    from boxops import models

    person = models.SHORT.get(args.model, args.model).startswith("keypoint_rcnn")
    known = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1 if person else FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    names = list(known.meta["categories"])  # with the background in front
    model = models.create(args.model, weights=args.weights, **{"num_classes": len(names), **dict(args.set)})
    same = model.config["num_classes"] == len(names)
    return model.to(device).eval(), names[1:] if same else [], device


def as_rows(found: dict[str, Any], classes: list[str], threshold: float) -> list[dict[str, Any]]:
    rows = []
    for i, (score, label) in enumerate(zip(found["scores"].tolist(), found["labels"].tolist(), strict=True)):
        if score < threshold:
            continue
        name = classes[label - 1] if 0 < label <= len(classes) else str(label)
        row = {"class": name, "label": label, "score": round(score, 4), "box": _rounded(found["boxes"][i])}
        if "keypoints" in found:
            row["keypoints"] = [_rounded(point) for point in found["keypoints"][i]]
        rows.append(row)
    return rows


def _rounded(values: Any) -> list[float]:
    return [round(value, 2) for value in values.tolist()]
