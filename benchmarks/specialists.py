"""Libraries that have some box operation of their own, as rivals of several families.

Their imports take from a tenth of a second to several, so the first call imports, which comes before the clock.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from .case import Rival, sets
from .machine import ABSENT, later

later("onnxruntime", "onnx", "cv2", "supervision", "ensemble_boxes")
if "onnx" in ABSENT:  # which writes the models
    ABSENT.setdefault("onnxruntime", "needs onnx: pip install onnx")
THREADS = int(os.environ.get("BOXOPS_NUM_THREADS", 0))  # 0: all


@functools.cache
def session(op: str, inputs: str, outputs: str, types: tuple[int, ...], constants: Any = (), **attributes: Any) -> Any:
    """onnxruntime's session of one ONNX node: names of inputs and outputs as in its documentation, types of the inputs
    (1 float, 7 int64), and constants as pairs of name and values, which follow the inputs."""
    import onnxruntime
    from onnx import TensorProto, helper

    names = inputs.split()
    node = helper.make_node(op, [*names, *(name for name, _ in constants)], outputs.split(), **attributes)
    given = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, types, strict=True)]
    kind = TensorProto.INT64 if op == "NonMaxSuppression" else TensorProto.FLOAT
    found = [helper.make_tensor_value_info(name, kind, None) for name in outputs.split()]
    fixed = [
        helper.make_tensor(name, TensorProto.INT64 if isinstance(value, int) else TensorProto.FLOAT, [1], [value])
        for name, value in constants
    ]
    graph = helper.make_graph([node], op, given, found, fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    options = onnxruntime.SessionOptions()
    # Its threads would turn for a while after its call, and take the cores of whose turn it is next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def suppression(iou: float, score: float, most: int, centre: bool = False) -> Any:
    """ONNX's NonMaxSuppression of boxes [B, N, 4] and scores [B, C, N]: rows of image, class and box."""
    constants = (("most", most), ("iou", iou), ("score", score))
    run = session("NonMaxSuppression", "boxes scores", "selected", (1, 1), constants, center_point_box=int(centre)).run
    return lambda boxes, scores: run(None, {"boxes": boxes, "scores": scores})[0]


def opencv() -> Any:
    import cv2

    cv2.setNumThreads(THREADS or cv2.getNumberOfCPUs())  # again for each case: ultralytics sets 0
    return cv2


def corner_and_size(boxes: Any, scores: Any, *rest: Any) -> Any:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1), scores, *rest


def nms(n: int, iou: float) -> dict[str, Rival]:
    """For n boxes; each as long as it takes some seconds at most."""

    def onnx_nms(boxes: Any, scores: Any) -> Any:
        return suppression(iou, -1.0, n)(boxes[None], scores[None, None])[:, 2]

    def opencv_nms(boxes: Any, scores: Any) -> Any:
        return opencv().dnn.NMSBoxes(boxes, scores, 0.0, iou)

    def supervision_nms(predictions: Any) -> Any:
        import supervision

        return np.flatnonzero(supervision.box_non_max_suppression(predictions, iou))

    def numba_nms(rows: Any) -> Any:
        from ensemble_boxes.ensemble_boxes_nms import nms_float_fast

        return nms_float_fast(rows, rows[:, 4], iou)

    def in_rows(boxes: Any, scores: Any) -> Any:
        return (np.concatenate([boxes, scores[:, None]], axis=1),)

    rivals = {}
    if 1 < n <= 20_000:
        rivals["onnxruntime"] = Rival(onnx_nms, answer=sets)
    if 1 < n <= 5_000:
        rivals["OpenCV"] = Rival(opencv_nms, given=corner_and_size, answer=sets)
    if n == 1_000:
        rivals["supervision"] = Rival(supervision_nms, given=in_rows, answer=sets, heavy=True)
    if 1_000 <= n <= 20_000:
        rivals["ensemble-boxes"] = Rival(numba_nms, given=in_rows, answer=sets, heavy=True)
    return rivals


def roi_align(bins: int, scale: float, samples: int) -> Rival:
    numbers = {"output_height": bins, "output_width": bins, "sampling_ratio": samples, "spatial_scale": scale}

    def pooled(maps: Any, rois: Any, images: Any) -> Any:
        as_old = {"coordinate_transformation_mode": "output_half_pixel"}  # torchvision's aligned=False
        run = session("RoiAlign", "maps rois images", "pooled", (1, 1, 7), **numbers, **as_old).run
        return run(None, {"maps": maps, "rois": rois, "images": images})[0]

    return Rival(pooled, given=lambda maps, rois: (maps, rois[:, 1:].copy(), rois[:, 0].astype(np.int64)))
