"""Boxes that may hold an object, of methods that know no classes: where R-CNN, SPP-net and Fast R-CNN look.

Selective search: Uijlings et al., "Selective Search for Object Recognition", IJCV 2013. Edge boxes: Zitnick and Dollar,
"Edge Boxes", ECCV 2014. BING: Cheng et al., "BING: Binarized Normed Gradients", CVPR 2014. All run in OpenCV's contrib
modules, on one thread: then they are functions of the image, and safe in forked processes.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import boxops

from .proposal_cache import Cache, packed

Say = Callable[[str], None]
VERSION = 1  # of this file's methods: what others have found is computed again
EVERY = 10.0  # seconds between two lines of progress


def selective_search(
    mode: str, image: np.ndarray, *, base_k: int = 150, inc_k: int = 150, sigma: float = 0.8
) -> np.ndarray:
    """Uijlings et al. 2013: segments grow together by similarity, and each one's box is a proposal.

    OpenCV's modes are "Single" (HSV, one segmentation with base_k, all four similarities: one hierarchy), "Fast" (HSV
    and Lab, three segmentations, with and without colour: 12) and "Quality" (five colour spaces, five segmentations,
    four combinations of similarities: 100).

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        base_k, inc_k: scales of the segmentations: the least, and the step to the next (Felzenszwalb's k).
        sigma: of the blur before them.

    Returns:
        Boxes ``[P, 4]`` in integers. OpenCV ranks them by numbers of C's ``rand()``, which depend on what ran before;
        only the set is used, and ranked as section 3.3 says: position in the hierarchy, the largest first, times a
        random number, here always the same ones.
    """
    cv2 = opencv()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    if mode == "Single":
        search.switchToSingleStrategy(base_k, sigma)
    else:
        getattr(search, f"switchToSelectiveSearch{mode}")(base_k, inc_k, sigma)
    boxes = corners(search.process())
    boxes = boxes[np.lexsort((*boxes.T, -boxops.box_area(boxes)))]
    chance = np.random.RandomState(0).random_sample(len(boxes))
    return boxes[np.argsort(chance * np.arange(1, len(boxes) + 1), kind="stable")]


def edge_boxes(
    image: np.ndarray,
    *,
    blur: float = 2.0,
    alpha: float = 0.65,
    beta: float = 0.75,
    min_score: float = 0.01,
    min_area: float = 1000,
    max_boxes: int = 10_000,
    model: str | Path | None = None,
) -> np.ndarray:
    """Zitnick and Dollar 2014: windows by the contours that lie wholly inside (section 3), the best first.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        blur: sigma of the Gaussian before the gradients that are taken for edges.
        alpha: IoU of neighbouring windows, the density of the search (section 3.4).
        beta: IoU at which a better box suppresses one.
        min_score, min_area, max_boxes: of what is kept; areas are in pixels.
        model: OpenCV's file ``model.yml.gz`` of structured edges (Dollar and Zitnick 2013), which finds the edges then.
    """
    cv2 = opencv()
    if model is not None:
        finder = cv2.ximgproc.createStructuredEdgeDetection(str(model))
        edges = finder.detectEdges(np.float32(image) / 255)
        angles = finder.computeOrientation(edges)
        edges = finder.edgesNms(edges, angles, 2, 0, 1, False)
    else:
        edges, angles = gradients(image, blur)
    numbers = {"alpha": alpha, "beta": beta, "minScore": min_score, "minBoxArea": min_area, "maxBoxes": max_boxes}
    search = cv2.ximgproc.createEdgeBoxes(**numbers)
    return corners(search.getBoundingBoxes(edges, angles)[0])


def gradients(image: np.ndarray, blur: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges [H, W] in 0..1, thinned to the ridges of the gradient, and its angles [H, W] in 0..pi."""
    cv2 = opencv()
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), blur)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    size, angles = np.hypot(dx, dy), np.arctan2(dy, dx) % np.float32(np.pi)
    y, x = np.indices(size.shape, np.float32)
    step_x, step_y = np.cos(angles), np.sin(angles)
    beside = [
        cv2.remap(size, x + s * step_x, y + s * step_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for s in (-1, 1)
    ]
    return size * (size >= np.maximum(*beside)) / max(float(size.max()), 1e-6), angles


def bing(image: np.ndarray, *, model: str | Path | None = None) -> np.ndarray:
    """Cheng et al. 2014: windows of 36 sizes by a linear filter on their gradients at 8 x 8, the best first.

    OpenCV's version prints a line per colour space to the standard output.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        model: the folder of its trained filters, ``ObjNessB2W8MAXBGR.wS1.yml.gz`` and eight more, of OpenCV's sources:
            ``samples/ObjectnessTrainedModel`` of its module saliency.
    """
    cv2 = opencv()
    files = [f"ObjNessB2W8{space}.{part}.yml.gz" for space in ("MAXBGR", "HSV", "I") for part in ("wS1", "wS2", "idx")]
    if missing := [name for name in files if model is None or not Path(model, name).is_file()]:  # OpenCV would crash
        raise FileNotFoundError(f"bing: expected a folder with {missing[0]} as its model, got {model}")
    search = cv2.saliency.ObjectnessBING_create()
    search.setTrainingPath(str(model))
    with TemporaryDirectory() as folder:
        search.setBBResDir(folder)  # it writes a file that nobody needs
        _, boxes = search.computeSaliency(np.ascontiguousarray(image[:, :, ::-1]))
    return np.asarray(boxes, np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32)  # x1 and y1 count from 1


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "selective_search_single": partial(selective_search, "Single"),
    "selective_search_fast": partial(selective_search, "Fast"),
    "selective_search_quality": partial(selective_search, "Quality"),
    "edge_boxes": edge_boxes,
    "bing": bing,
}


def contents(path: str | Path) -> str:
    """A digest of a file, or of the files of a folder."""
    paths = sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]
    digest = blake2b(digest_size=20)
    for file in paths:
        digest.update(file.name.encode() + b"\0" + blake2b(file.read_bytes()).digest())
    return digest.hexdigest()


class Proposals:
    """``proposals(image)``: the boxes of an image that a detector looks at.

    They are looked up in a cache, and computed where it does not have them. ``prepare`` puts those of whole data sets
    there: once for all runs, since the cache's key is the image's pixels, the method and its options, and OpenCV's
    version. A call by itself keeps nothing: the frames of a video would fill the disk.

    Args:
        method: of METHODS.
        max_proposals: how many boxes at most, the best ones.
        min_size: least width and height of a box, in pixels.
        cache: a file; None: kept in memory; by default in the folder where weights are kept.
        options: of the method.

    Raises:
        ValueError: there is no such method, or a number is out of range.
        TypeError: the method has no such option.
    """

    def __init__(
        self,
        method: str = "selective_search_fast",
        max_proposals: int = 2000,
        *,
        min_size: float = 1,
        cache: str | Path | None = "default",
        **options: Any,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"proposals: expected a method of {', '.join(METHODS)}, got {method!r}")
        if not isinstance(max_proposals, int) or max_proposals < 1:
            raise ValueError(f"max_proposals: expected an integer of 1 or more, got {max_proposals!r}")
        if not min_size >= 1:
            raise ValueError(f"min_size: expected 1 or more pixels, got {min_size!r}")
        known = [*inspect.signature(METHODS[method]).parameters][1:]
        if unknown := [name for name in options if name not in known]:
            raise TypeError(f"{method}: expected options of {', '.join(known)}, got {', '.join(unknown)}")
        self.method, self.max_proposals, self.min_size, self.options = method, max_proposals, min_size, options
        if cache == "default":
            cache = Path(torch.hub.get_dir(), "checkpoints", "boxops", "proposals.sqlite")
        self.cache = Cache(None if cache is None else Path(cache))

    def __call__(self, image: Tensor | Image.Image) -> Tensor:
        """Boxes float32 [P, 4], the best first, on the image's device; x1 < x2 and y1 < y2, all within the image.

        Args:
            image: RGB: PIL's, or [3, H, W], floating in 0..1 or uint8.

        Raises:
            ImportError: OpenCV is missing, or has no contrib modules.
            RuntimeError: it fails on this image.
        """
        pixels = as_pixels(image)
        boxes = self.cache.get(self.key(pixels))
        if boxes is None:
            boxes = self.search(pixels)
        boxes = boxes[boxops.remove_small_boxes(boxes, self.min_size)][: self.max_proposals]
        return torch.from_numpy(boxes).to(image.device if isinstance(image, Tensor) else "cpu")

    def key(self, pixels: np.ndarray) -> bytes:
        """Of an image's boxes in the cache; ``max_proposals`` and ``min_size`` choose among them."""
        options = {name: contents(value) if name == "model" else value for name, value in self.options.items()}
        settings = VERSION, self.method, sorted(options.items()), opencv().__version__, pixels.shape
        return blake2b(repr(settings).encode() + b"\0" + pixels.tobytes(), digest_size=20).digest()

    def search(self, pixels: np.ndarray) -> np.ndarray:
        """What the method finds in an image uint8 [H, W, 3], each box once."""
        cv2 = opencv()
        height, width = pixels.shape[:2]
        threads = cv2.getNumThreads()
        try:
            cv2.setNumThreads(1)
            boxes = METHODS[self.method](pixels, **self.options)
        except cv2.error as error:
            raise RuntimeError(f"{self.method}: failed on an image of {width} x {height} pixels: {error}") from error
        finally:
            cv2.setNumThreads(threads)
        boxes = boxops.clip_boxes_to_image(boxes, (height, width))
        boxes = boxes[boxops.remove_small_boxes(boxes, 1)]
        _, first = np.unique(boxes, axis=0, return_index=True)
        return boxes[np.sort(first)]

    def prepare(self, *data: Any, workers: int = 0, say: Say | None = None) -> None:
        """Computes those of all images of data sets, as :class:`boxops.data.DetectionDataset`, that are not known yet.

        What is found is kept at once, whatever stops the rest. Images that cannot be read are left to the data set.

        Args:
            workers: processes that work on it.
            say: takes lines of progress; on a terminal there is a bar. None: silence.
        """
        from boxops.data.loader import Loader

        opencv()  # an error of here says more than a worker's
        images = _Images(self, data)
        start, found = time.monotonic(), 0
        loader = Loader(images, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
        with closing(_followed(loader, len(images), "proposals", say)) as items:
            for key, boxes in items:
                if boxes is not None:
                    self.cache.put(key, boxes)
                    found += 1
        if found and say is not None:
            say(f"proposals: {self.method} on {found} of {len(images)} images, {time.monotonic() - start:.1f} s")


class _Images(torch.utils.data.Dataset[tuple[bytes, "bytes | None"]]):
    """Of each image of data sets the key and the boxes, packed; None where they are known."""

    def __init__(self, proposals: Proposals, data: Iterable[Any]) -> None:
        self.proposals = proposals
        self.places = [(part, index) for part in data for index in range(len(part))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[bytes, bytes | None]:
        from boxops.data import BadData

        part, at = self.places[index]
        try:
            pixels = as_pixels(part.load(at)[0])
        except BadData:
            return b"", None
        key = self.proposals.key(pixels)
        return key, None if self.proposals.cache.get(key) is not None else packed(self.proposals.search(pixels))


def _as_it_is(item: Any) -> Any:
    return item


def _followed(
    items: Iterable[Any], total: int, text: str, say: Callable[[str], None] | None
) -> Generator[Any, None, None]:
    """The items, with a bar on a terminal, else with lines."""
    if say is not None and sys.stderr.isatty():
        from boxops.data.loader import bar

        yield from bar(items, text, total)
        return
    last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if say is not None and time.monotonic() - last >= EVERY:
            last = time.monotonic()
            say(f"{text} {done}/{total}")


def opencv() -> Any:
    """OpenCV, once it is needed; ImportError if it is not here with its contrib modules."""
    try:
        import cv2

        cv2.ximgproc.segmentation.createSelectiveSearchSegmentation  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "proposals are found by OpenCV's contrib modules: pip install opencv-contrib-python-headless, after "
            f"uninstalling any other package of OpenCV, which it does not go together with ({error})"
        ) from error
    return cv2


def as_pixels(image: Tensor | Image.Image) -> np.ndarray:
    """uint8 [H, W, 3], RGB; the same of a PIL image and of its tensor."""
    if not isinstance(image, Tensor):
        return np.asarray(image.convert("RGB"))
    image = image.detach()
    if image.is_floating_point():
        image = (image.float().nan_to_num().clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def corners(rectangles: Any) -> np.ndarray:
    """OpenCV's (x, y, width, height) as x1, y1, x2, y2, float32 [P, 4]."""
    return boxops.box_convert(np.asarray(rectangles, np.float32).reshape(-1, 4), "xywh", "xyxy")
