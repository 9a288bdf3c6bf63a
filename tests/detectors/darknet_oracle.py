"""Inputs and weights from a formula, and, as a script, what OpenCV 4's dnn makes of them (OpenCV 5 reads no cfg).

    python -m venv cv4 && cv4/bin/pip install "opencv-python-headless<5"
    BOXOPS_TEST_DATA=... cv4/bin/python tests/detectors/darknet_oracle.py

writes darknet_oracle.npz: of each network and layer a few outputs at PLACES, of each head its boxes and scores.
"""

import os
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).parent
FILE = HERE / "darknet_oracle.npz"
NETWORKS = ("yolov2-tiny", "yolov3-tiny", "odd")
SAMPLES = 24


def image(height, width):
    """[1, 3, height, width] in 0..1: waves of several lengths and directions."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (7 + 5 * c) + y / (11 - 2 * c)) * np.cos(x * y / (4000 * (c + 1))) for c in range(3)]
    return (0.5 + 0.5 * np.stack(waves))[None].astype(np.float32)


def weights(counts, norm):
    """Numbers for a .weights file of convolutions: counts of (filters, values of each)."""
    parts = []
    for (filters, values), normed in zip(counts, norm, strict=True):
        k = np.arange(filters)
        parts.append(np.sin(k * 1.7))  # biases
        if normed:
            parts += [1 + 0.5 * np.sin(k * 2.3), 0.3 * np.cos(k * 3.1), 1 + 0.9 * np.sin(k * 0.9)]
        parts.append(np.sin(np.arange(filters * values) * 0.73) * (2 / values) ** 0.5)
    return np.concatenate(parts).astype("<f4")


ODD = weights([(16, 27), (16, 72), (21, 64)], [True, False, True])


def write_odd(file):
    file.write_bytes(struct.pack("<iiiQ", 0, 2, 0, 77) + ODD.tobytes())


def places(size):
    """Places in an output of that many values, spread over all of it."""
    return np.unique(np.linspace(0, size - 1, SAMPLES).astype(int) // 7 * 7 + np.arange(SAMPLES) % 7).clip(0, size - 1)


def main():
    import tempfile

    import cv2

    found = {"opencv": np.array(cv2.__version__)}
    data = pathlib.Path(os.environ["BOXOPS_TEST_DATA"]) / "darknet"
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            cfg, file = data / f"{name}.cfg", data / f"{name}.weights"
            if name == "odd":
                cfg, file = HERE / "odd.cfg", pathlib.Path(folder, "odd.weights")
                write_odd(file)
            net = cv2.dnn.readNetFromDarknet(str(cfg), str(file))
        net.enableFusion(False)
        net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        lines = cfg.read_text().split("\n")
        size = [
            int(next(line for line in lines if line.startswith(side)).split("=")[1]) for side in ("height", "width")
        ]
        net.setInput(image(*size))
        kinds = [line.strip("[]\r ") for line in lines if line.startswith("[")][1:]
        names = net.getLayerNames()
        for i, kind in enumerate(kinds):
            options = {
                "convolutional": [f"leaky_{i + 1}", f"bn_{i}", f"conv_{i}"],
                "maxpool": [f"pool_{i}"],
                "route": [f"concat_{i}", f"slice_{i}", f"identity_{i}"],
                "shortcut": [f"shortcut_{i}"],
                "reorg": [f"reorg_{i}"],
                "upsample": [f"upsample_{i}"],
                "yolo": [f"yolo_{i}"],
                "region": ["detection_out", f"region_{i}", f"yolo_{i}"],
            }[kind]
            layer = next((option for option in options if option in names), None)
            if layer is None:
                raise SystemExit(f"{name} {i} {kind}: none of {options} in {names}")
            out = net.forward(layer)
            print(name, i, kind, layer, out.shape, float(abs(out).mean()))
            if kind in ("yolo", "region"):
                out = out.reshape(-1, out.shape[-1])
            found[f"{name}/{i}"] = out.flatten()[places(out.size)].astype(np.float32)
            found[f"{name}/{i}/mean"] = np.float32(abs(out).mean(dtype=np.float64))
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
