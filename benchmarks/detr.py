"""facebookresearch/detr beside ours, for `boxops bench --models`: PyPI's `detr`, whose packages are models and util."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace
from typing import Any
from unittest import mock

from .machine import ABSENT, rival
from .report import duration

torch = rival("torch")
torchvision = rival("torchvision")

# As it is trained, but for dropout: its losses are compared with ours
OPTIONS = {"num_classes": 91, "min_size": 480, "norm": "frozen", "freeze": 5, "dropout": 0.0}


def official() -> Any:
    """Its module of the model, or None. It takes torchvision 0.20 for 0.2, and would look for what that one had."""
    try:
        importlib.metadata.version("detr")  # before other packages of these names are imported
    except importlib.metadata.PackageNotFoundError:
        ABSENT["detr"] = "not installed: pip install --no-deps detr"
    if torchvision is None or "detr" in ABSENT:
        return None
    with mock.patch.object(torchvision, "__version__", "0.9"):
        return rival("models.detr")


def twin(model: Any) -> Any:
    """facebookresearch's detector and criterion with the numbers and the weights of ours, called as ours is."""
    detr = official()
    if detr is None:
        raise ModuleNotFoundError(f"facebookresearch/detr: {ABSENT['detr']}")
    numbers = {**vars(model.settings), "backbone": "resnet50", "dilation": False, "position_embedding": "sine",
               "lr_backbone": 1e-5, "masks": False, "aux_loss": True, "pre_norm": False, "frozen_weights": None,
               "dataset_file": "coco", "device": "cpu"}  # fmt: skip
    with mock.patch.object(rival("models.backbone"), "is_main_process", lambda: False):  # else it downloads weights
        network, criterion, posts = detr.build(SimpleNamespace(**numbers))
    state = model.state_dict()
    network.load_state_dict({name.replace("backbone.", "backbone.0.", 1): value for name, value in state.items()})

    class Facebook(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform, self.network, self.criterion = model.transform, network, criterion

        def forward(self, images: Any, targets: Any = None) -> Any:
            """Resized and normalised by our transform: in its own code that is a part of the data set."""
            batch, resized = self.transform(images, targets)
            apart = [image[:, :h, :w] for image, (h, w) in zip(batch.tensors, batch.image_sizes, strict=True)]
            found = self.network(apart)
            sizes = torch.tensor(batch.image_sizes, device=found["pred_boxes"].device)
            if resized is None:
                return posts["bbox"](found, torch.tensor([image.shape[-2:] for image in images], device=sizes.device))
            truth = []
            for target, size in zip(resized, sizes, strict=True):
                boxes = rival("util.box_ops").box_xyxy_to_cxcywh(target["boxes"]) / size[[1, 0, 1, 0]]
                truth.append({"boxes": boxes, "labels": target["labels"]})
            losses, weights = self.criterion(found, truth), self.criterion.weight_dict
            return {name: losses[name] * weight for name, weight in weights.items()}

    return Facebook()


def compare(ours: Any, theirs: Any, images: Any, targets: Any) -> None:
    got, want = (model.train()(images, targets) for model in (ours, theirs))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def show(rows: list[dict[str, Any]]) -> None:
    """What the matching takes of a step, with all layers of the decoder."""
    for row in rows:
        if row["detector"].startswith("detr") and row.get("job") == "training step":
            ours, twins = (
                f"{duration(one['stages']['matching'])}, {one['stages']['matching'] / one['total']:.1%}"
                for one in (row["boxops"], row["twin"])
            )
            print(f"matching, of {row['detector']}'s step: {ours}; the twin's: {twins}\n")
