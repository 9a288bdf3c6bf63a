"""One class for all formats: it checks, decodes, seeds and transforms; a format only parses its files."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from boxops.data import frames, one_object
from boxops.data.divide import divide
from boxops.data.images import Enough, decode, factor, image_size, read_header
from boxops.data.mixing import Mix, Sample, Target
from boxops.data.records import BadData, Object, Problem, Record, check, pack, to_coco

Transform = Callable[[Any, Target], Sample]


class DetectionDataset(torch.utils.data.Dataset):
    """Images with their objects.

    ``dataset[i]`` gives an image, ``tv_tensors.Image`` uint8 ``[3, H, W]``, and a target with ``boxes``
    (``tv_tensors.BoundingBoxes``, xyxy pixels, float32 ``[G, 4]``), ``labels`` int64 ``[G]`` in 1..C, ``iscrowd`` int64
    ``[G]``, ``area`` float32 ``[G]`` (of the object as annotated), ``image_id`` (int), and where the data has them
    ``masks`` (``tv_tensors.Mask`` uint8 ``[G, H, W]``), ``keypoints`` float32 ``[G, K, 3]`` (x, y in pixels, the first
    pixel being 0; visibility 0 not labelled, then x = y = 0, 1 hidden, 2 visible) and ``difficult`` bool ``[G]``; all
    after the transform. In the transform keypoints are ``tv_tensors.KeyPoints`` ``[G, K, 2]`` and ``visibility``
    ``[G, K]``; those that leave the image become not labelled.

    A sample is a function of (seed, epoch, index): workers and resumed runs give the same. An image that cannot be
    decoded is replaced by the next one that can; ``target["problems"]`` then lists what was wrong.

    Attributes:
        classes: names; label i is classes[i - 1].
        category_ids: COCO's ids; label i is category_ids[i - 1].
        keypoint_names, keypoint_flip: and the permutation of the keypoints in a mirror, or None.
        ids: image ids by index.
        problems: what was found bad and left out when the annotations were read.
        notes: what was not taken word for word, though nothing is bad: coordinates that were scaled, ids numbered.
        proposals: gives the boxes [P, 4] of an image (PIL) that may hold an object, for ``target["proposals"]``, where
            it is set; see :class:`boxops.models.proposals.Proposals`.
        mixing: each, called with a sample and a function that draws another one of the data set, makes one of them,
            before the transform; a later one draws what the former made. See :mod:`boxops.data.mixing`.
        enough: (shorter, longer) side of an image in pixels that are of use: samples of larger images are halved as
            often as the image keeps one of them, with boxes, masks and keypoints. None: samples are of full size.
        undivided: the files name no splits: these are all images there are, whatever split was asked for.
        divided: of a part that :meth:`split_off` made, the share to learn from and how many images there were.
    """

    classes: list[str]
    category_ids: list[int]
    keypoint_names: list[str] | None = None
    keypoint_flip: list[int] | None = None
    has_masks = False
    has_difficult = False
    undivided = False
    divided: tuple[float, int] | None = None
    mixing: Sequence[Mix] = ()
    enough: Enough | None = None
    proposals: Callable[[Image.Image], Tensor] | None = None

    def __init__(self, transform: Transform | None, on_bad: str, seed: int) -> None:
        if on_bad not in ("skip", "raise"):
            raise ValueError(f"on_bad: expected 'skip' or 'raise', got {on_bad!r}")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed: expected an integer of 0 or more, got {seed!r}")
        self.transform, self.on_bad, self.seed = transform, on_bad, seed
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._records: list[Record] = []
        self._upright = False  # whether all records are known to be in the frame of the upright image
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # so that workers that live on see it change

    # For the formats.

    def parse(self, raw: Any) -> Object:
        """One annotation from what the file has; ValueError if it is bad."""
        raise NotImplementedError

    def add(
        self, file: Path, image: Path, image_id: int, size: tuple[int, int] | None, raws: Iterable[tuple[str, Any]]
    ) -> None:
        """Adds an image with the annotations of (place, raw) in the file; without a size its header is read."""
        keypoints = None if self.keypoint_names is None else len(self.keypoint_names)
        with self.skipping(str(image), ""):
            if not os.path.isfile(image):
                raise ValueError("expected an image file, got none")
            if size is None:
                size = image_size(image)
            objects = []
            for place, raw in raws:
                with self.skipping(str(file), place):
                    thing = self.parse(raw)
                    outside = check(thing, size, keypoints, self.has_masks)
                    objects.append(thing)
                    if outside > 1:
                        text = f"expected a box in the image, got one {outside:g} pixels outside; clipped"
                        self.report_problem(Problem(str(file), place, text))
            self._records.append(pack(image, image_id, size, objects, keypoints, self.has_masks))

    @contextmanager
    def skipping(self, file: str, place: str) -> Iterator[None]:
        """A ValueError inside becomes a problem at this place."""
        try:
            yield
        except BadData:
            raise
        except (ValueError, OverflowError) as error:
            self.report_problem(Problem(file, place, str(error)))

    def report_problem(self, problem: Problem) -> None:
        if self.on_bad == "raise":
            raise BadData(problem)
        self.problems.append(problem)

    def finish(self) -> None:
        """To be called when all is added."""
        if not len(self):
            raise BadData(f"expected images, got none that can be used\n{self.report()}")

    # For the users.

    def __len__(self) -> int:
        return len(self._records)

    @property
    def ids(self) -> list[int]:
        return [record.id for record in self._records]

    def image_path(self, index: int) -> Path | None:
        """The file of an image; None where images are generated."""
        return self._records[index].path

    def image(self, index: int) -> Image.Image:
        """The image in full, upright and in RGB, see :func:`boxops.data.images.read_image`. Raises BadData."""
        return self._decode(index, None)[0]

    def load(self, index: int) -> tuple[Image.Image, Record, np.ndarray | None]:
        """Image, record and masks uint8 [G, H, W], upright, and halved as ``enough`` says."""
        image, record = self._decode(index, self.enough)
        halved = factor((record.width, record.height), self.enough)
        masks = frames.masks(record, halved) if self.has_masks else None
        return image, frames.smaller(record, halved), masks

    def _decode(self, index: int, enough: Enough | None) -> tuple[Image.Image, Record]:
        """The image, and the record of the image in full."""
        record = self._records[index]
        assert record.path is not None
        try:
            if record.window is not None:
                return one_object.read(record.path, record.window, enough), record
            image, header = decode(record.path, enough)
            return image, frames.upright(record, header)
        except ValueError as error:
            raise BadData(Problem(str(record.path), "", str(error))) from error

    def set_epoch(self, epoch: int) -> None:
        """Changes the random numbers of the transforms, in running workers too."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        problems: list[Problem] = []
        if self.transform is None and not self.mixing:
            sample = self._raw(index, problems)
        else:
            state = np.random.SeedSequence((self.seed, int(self._epoch), index)).generate_state(1, np.uint64)
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(state[0]))  # torch.manual_seed would seed the GPU too
                sample = self._mixed(index, self.mixing, problems)
                if self.transform is not None:
                    sample = self.transform(*sample)
        _join_keypoints(*sample)
        if problems:
            sample[1]["problems"] = problems
        return sample

    def _mixed(self, index: int, mixing: Sequence[Mix], problems: list[Problem]) -> Sample:
        if not mixing:
            return self._raw(index, problems)
        *before, last = mixing

        def draw() -> Sample:
            return self._mixed(int(torch.randint(len(self), ())), before, problems)

        return last(self._mixed(index, before, problems), draw)

    def _raw(self, index: int, problems: list[Problem]) -> Sample:
        """That image, or the next that can be decoded, before any transform."""
        for step in range(len(self)):
            try:
                image, record, masks = self.load((index + step) % len(self))
                break
            except BadData as error:
                if self.on_bad == "raise":
                    raise
                problems.append(error.problem)
        else:
            raise BadData(f"none of the {len(self)} images can be decoded; the first: {problems[0]}")
        sample = tv_tensors.Image(image), self._target(record, masks)
        if self.proposals is not None:
            boxes = self.proposals(image)
            sample[1]["proposals"] = tv_tensors.wrap(boxes, like=sample[1]["boxes"])
        return sample

    def _target(self, record: Record, masks: np.ndarray | None) -> Target:
        size = record.height, record.width
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(torch.tensor(record.boxes), format="XYXY", canvas_size=size),
            "labels": torch.tensor(record.labels),
            "iscrowd": torch.tensor(record.iscrowd),
            "area": torch.tensor(record.area),
            "image_id": record.id,
        }
        if masks is not None:
            target["masks"] = tv_tensors.Mask(torch.from_numpy(masks))
        if self.has_difficult:
            target["difficult"] = torch.tensor(record.difficult)
        if record.keypoints is not None:
            points = torch.tensor(record.keypoints)
            target["keypoints"] = tv_tensors.KeyPoints(points[..., :2], canvas_size=size)
            target["visibility"] = points[..., 2]
        return target

    def report(self, first: int = 5) -> str:
        """How many images, objects and problems there are, and the first problems."""
        objects = sum(len(record.boxes) for record in self._records)
        lines = [f"{len(self)} images, {objects} objects, {len(self.classes)} classes, {len(self.problems)} problems"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {problem}" for problem in self.problems[:first]]
        more = len(self.problems) - first
        return "\n".join(lines + ([f"  and {more} more"] if more > 0 else []))

    def has_objects(self) -> bool:
        """Whether there is anything to learn from; crowds alone are nothing."""
        return any((record.iscrowd == 0).any() for record in self._records)

    def split_off(self, share: float = 0.8) -> tuple[DetectionDataset, DetectionDataset]:
        """Images to learn from, about that share of all, and held-out ones, by a rule that depends on the files' names
        alone: see :func:`boxops.data.divide.divide`. Both parts list the problems of the whole.

        Raises:
            ValueError: share is not between 0 and 1, there are no two different images, or they are generated.
        """
        paths = [record.path for record in self._records if record.path is not None]
        if not len(paths) == len(self._records) > 0:
            raise ValueError("split_off: expected images in files; generated ones have splits of their own")
        learn, held_out = divide(paths, share)
        return self._part(learn, share), self._part(held_out, share)

    def _part(self, indices: Sequence[int], share: float) -> DetectionDataset:
        part = self._with([self._records[index] for index in indices])
        part.divided, part.undivided = (share, len(self)), False
        return part

    def _with(self, records: list[Record]) -> DetectionDataset:
        other = copy.copy(self)
        other._records, other._epoch = records, self._epoch.clone().share_memory_()
        other.problems, other.notes = list(self.problems), list(self.notes)
        return other

    def one_object(self) -> DetectionDataset:
        """Every object as a sample of its own: a part of its image that shows it and no other object as clearly, see
        :func:`boxops.data.one_object.cut`. Crowds, difficult objects and those of which there is no such part are left
        out, and counted in ``notes``. It reads the headers of all files.

        Raises:
            BadData: no object is left.
            ValueError: the data has masks or keypoints, which are not cut.
        """
        for what, has in (("masks", self.has_masks), ("keypoints", self.keypoint_names is not None)):
            if has:
                raise ValueError(f"one_object: expected data without {what}, got data with them; {what}=False")
        records, told = one_object.cut(self.records())
        if not records:
            raise BadData(f"one_object: expected objects, got none: {told}")
        other = self._with(records)
        other.notes.append(told)
        return other

    def records(self) -> Sequence[Record]:
        """The records of all images, upright; for this it reads the headers of all files, the first time."""
        if not self._upright:
            for index, record in enumerate(self._records):
                with suppress(ValueError):  # said where the image is decoded
                    if record.path is not None:
                        self._records[index] = frames.upright(record, read_header(record.path))
            self._upright = True
        return self._records

    def coco(self) -> dict[str, Any]:
        """The ground truth of all images as COCO's json has it, in pixels of the upright images in full, made without
        decoding them: ids, bbox (x, y, width, height), area, iscrowd, ``ignore`` (VOC's difficult), segmentation,
        keypoints."""
        return to_coco(self.records(), self.classes, self.category_ids, self.keypoint_names)


def _join_keypoints(image: Any, target: Target) -> None:
    """Keypoints and visibility become float32 [G, K, 3] again."""
    if "visibility" not in target:
        return
    points, visibility = target["keypoints"].as_subclass(Tensor), target.pop("visibility")
    height, width = image.shape[-2:]
    inside = (points >= 0).all(-1) & (points < points.new_tensor([width, height])).all(-1) & (visibility > 0)
    target["keypoints"] = torch.where(inside[..., None], torch.cat([points, visibility[..., None]], -1), 0)


def collate(samples: Sequence[tuple[Any, Target]]) -> tuple[list[Tensor], list[Target], list[Problem]]:
    """A batch of plain tensors: images, targets, and the problems found while decoding them."""
    images = [image.as_subclass(Tensor) for image, _ in samples]
    targets = [
        {k: v.as_subclass(Tensor) if isinstance(v, Tensor) else v for k, v in target.items() if k != "problems"}
        for _, target in samples
    ]
    return images, targets, [problem for _, target in samples for problem in target.get("problems", [])]
