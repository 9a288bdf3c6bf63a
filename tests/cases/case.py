"""What a case is, and the arrays that cases are made of."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from box_sets import random_boxes

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
SIZES = (1, 7, 15, 16, 17, 63, 64, 65, 255, 257, 1000, 4097)  # around SIMD widths, tiles and thread grains
FORMATS = ("xyxy", "xywh", "cxcywh")


@dataclass(frozen=True)
class Case:
    """One call. Its float64 arrays, in lists too, become the dtype under test, those named in `fixed` excepted; with an
    integer dtype that holds for boxes and anchors, and other float64 arrays become float32."""

    name: str
    make: Callable  # (generator, dtype) -> keyword arguments
    dtypes: tuple = FLOATS
    fixed: tuple = ()

    def arguments(self, dtype="float32"):
        made = self.make(np.random.default_rng(zlib.crc32(self.name.encode())), dtype)
        return {name: self._typed(name, value, dtype) for name, value in made.items()}

    def _typed(self, name, value, dtype):
        if isinstance(value, list):
            return [self._typed(name, item, dtype) for item in value]
        if not isinstance(value, np.ndarray) or value.dtype != np.float64 or name in self.fixed:
            return value
        holds_integers = name.startswith(("boxes", "gt_boxes", "anchors"))
        return as_dtype(value, dtype if dtype in FLOATS or holds_integers else "float32")


def as_dtype(array, dtype):
    array = np.asarray(array)
    with np.errstate(all="ignore"):
        if dtype != "bfloat16":
            return array.astype(dtype)
        bits = array.astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(array), np.float32(np.nan), rounded.view(np.float32))


def shaped(*shape, **options):
    return lambda rng, dtype: random_boxes(rng, shape, **options)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def tensors(device="cpu", count=40, lead=(), dtype=None):
    """Boxes [*lead, count, 4] and scores [*lead, count], float32 if no other dtype of torch is named."""
    import torch

    rng = np.random.default_rng(0)
    arrays = random_boxes(rng, (*lead, count), 100.0), rng.random((*lead, count))
    boxes, scores = (torch.from_numpy(array).to(device, dtype or torch.float32) for array in arrays)
    return boxes, scores
