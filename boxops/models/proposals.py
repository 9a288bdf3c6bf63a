"""Boxes that may hold an object, of methods that learn nothing: where R-CNN, SPP-net and Fast R-CNN look."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor


def selective_search(image: np.ndarray, mode: str = "fast") -> np.ndarray:
    """Boxes [P, 4] of an RGB image uint8 [H, W, 3], the best first. Uijlings et al. 2013."""
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    {"fast": search.switchToSelectiveSearchFast, "quality": search.switchToSelectiveSearchQuality}[mode]()
    boxes = np.asarray(search.process(), np.float32).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


class Proposals:
    """``proposals(image)``: the boxes of an image that a detector looks at, at most ``most``."""

    def __init__(self, method: str = "selective_search", most: int = 2000) -> None:
        self.method, self.most = method, most

    def __call__(self, image: Tensor | Image.Image) -> Tensor:  # [P, 4]
        if isinstance(image, Tensor):
            array = (image.detach().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
        else:
            array = np.asarray(image)
        boxes = torch.from_numpy(selective_search(array))[: self.most]
        return boxes.to(image.device) if isinstance(image, Tensor) else boxes

    def prepare(self, *data: Any, workers: int = 0) -> None:
        """Computes those of all images of data sets, for later calls."""
